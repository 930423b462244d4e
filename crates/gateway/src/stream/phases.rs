//! The plugins of one stream: who is let in, where it goes, and what is told of it when it is over.
//!
//! To a plugin a stream is an exchange without a request: addresses, names of the stream route and its service, and a
//! state that lasts until the stream ends. An answer closes the stream, as there is no word that every protocol knows.
//! Global rules concern requests alone. Where neither the stream route nor its service has a plugin there are no
//! [`Phases`], and nothing of this costs anything.

use std::future::pending;
use std::sync::LazyLock;
use std::time::Duration;

use gatewright_model::expression::{Value, Variable};
use gatewright_model::message::RequestHead;
use gatewright_plugins::chain::{Course, Layer, Progress};
use gatewright_plugins::consumers::Consumers;
use gatewright_plugins::exchange::{
    self as plugin, Counted, Exchange, Flow, Matched, Now, State, Surroundings, UpstreamChoice,
};
use gatewright_plugins::kind::Outcome;

use super::record::{Ends, Over, Record};
use crate::proxy::phases::{now, uptime};
use crate::proxy::reject::RejectReason;
use crate::telemetry::Recorder;
use crate::telemetry::access_log::stream::{StreamVariable, Told};
use crate::telemetry::access_log::variable::Moment;
use crate::worker::Worker;

/// The plugins of a stream, and what they decided so far.
pub(crate) struct Phases<'s> {
    layer: &'s Layer,
    request: RequestHead,
    state: State,
}

/// What plugins ask of the gateway about one stream.
struct View<'v> {
    record: &'v Record<'v>,
    recorder: &'v Recorder,
    ended: Option<(&'v Over, &'v Moment)>,
}

impl Surroundings for View<'_> {
    fn now(&self) -> Now {
        now()
    }

    fn random(&self) -> u64 {
        fastrand::u64(..)
    }

    fn stopwatch(&self) -> Option<Duration> {
        self.recorder.measures_plugins().then(uptime)
    }

    fn worked(&self, plugin: &'static str, since: Duration) {
        self.recorder.counts().plugins.add(plugin, uptime().saturating_sub(since));
    }

    fn count(&self, counted: &Counted<'_>) {
        if let Some(found) = self.record.found {
            self.recorder.count_stream_for_plugin(found, counted);
        }
    }

    fn variable<'a>(
        &'a self,
        _: &'a RequestHead,
        _: &'a plugin::Body,
        variable: &Variable,
    ) -> Option<Value<'a>> {
        let variable = StreamVariable::of(&variable.to_string())?;
        let mut now = Moment::default();
        let (over, moment) = match self.ended {
            Some((over, moment)) => (Some(over), moment),
            None => {
                now.advance();
                (None, &now)
            }
        };
        let mut text = Vec::new();
        let told = Told { record: self.record, over, teller: &self.recorder.teller, moment };
        told.value(variable)?.write(&mut text);
        Some(Value::Text(text.into()))
    }
}

impl<'s> Phases<'s> {
    /// The phases of a stream, if it has any plugin.
    pub(super) fn of(record: &Record<'s>) -> Option<Box<Self>> {
        let found = record.found?;
        let layer = &**found.service.plugins.chains.get(found.place())?;
        let (request, state) = (RequestHead::default(), State::default());
        (!layer.is_empty()).then(|| Box::new(Self { layer, request, state }))
    }

    fn with<T>(&mut self, view: &View<'_>, act: impl FnOnce(&Course<'_>, &mut Exchange<'_>) -> T) -> T {
        static NOTHING: LazyLock<Layer> = LazyLock::new(Layer::default);
        static NOBODY: LazyLock<Consumers> = LazyLock::new(Consumers::default);
        let Record { arrived, found, .. } = view.record;
        let Ends { client, server } = arrived.ends;
        let matched = found.map_or_else(Matched::default, |found| {
            let (service, route) = (&found.service.published, found.published());
            Matched {
                route_id: route.route_id.as_str(),
                route_name: &route.route.name,
                service_id: service.service_id.as_str(),
                service_name: &service.name,
                ..Matched::default()
            }
        });
        let mut exchange = Exchange {
            request: &mut self.request,
            client: plugin::Client { peer: client, local: server, tls: arrived.server_name.is_some() },
            matched,
            consumers: &NOBODY,
            surroundings: view,
            state: &mut self.state,
        };
        act(&Course { global: &NOTHING, route: self.layer }, &mut exchange)
    }

    /// Asks whether the stream is let in, and where it goes.
    ///
    /// # Errors
    /// It is not.
    pub(super) async fn begin(&mut self, worker: &Worker, record: &Record<'_>) -> Result<(), RejectReason> {
        let view = View { record, recorder: &worker.recorder, ended: None };
        let (mut progress, mut next) = (Progress::start(), None);
        loop {
            let flow = match next.take() {
                None | Some(Flow::Continue) => {
                    self.with(&view, |course, exchange| course.advance(&mut progress, exchange))
                }
                Some(flow) => flow,
            };
            match flow {
                Flow::Continue => return Ok(()),
                Flow::Respond(answer) => return Err(RejectReason::PluginAnswered(answer.status)),
                // There is none, and what asks for it is refused where it is written.
                Flow::ReadBody(_) => self.state.body = plugin::Body::TooLarge,
                Flow::Pause(time, then) => {
                    // The limit is the wait itself: nothing else ends it.
                    let _ = worker.clock.timer().limit(time, pending::<()>()).await;
                    next = Some(progress.settle(*then));
                }
                Flow::Wait(future) => {
                    let then = future.await;
                    let flow = self.with(&view, |_, exchange| then(exchange));
                    next = Some(progress.settle(flow));
                }
            }
        }
    }

    /// Which upstream plugins chose instead of the service's own.
    pub(super) fn upstream(&self) -> Option<&UpstreamChoice> {
        self.state.upstream.as_ref()
    }

    /// Lets plugins take note of how the stream ended.
    pub(crate) fn finish(mut self, record: &Record<'_>, over: &Over, recorder: &Recorder, moment: &Moment) {
        let outcome = Outcome {
            status: over.status,
            upstream_status: None,
            begun: moment.now().saturating_sub(over.total),
            total: over.total,
            upstream: over.upstream,
            node: over.node,
            bytes_in: over.bytes_in,
            bytes_out: over.bytes_out,
        };
        let view = View { record, recorder, ended: Some((over, moment)) };
        self.with(&view, |course, exchange| course.log(exchange, &outcome));
    }
}
