//! The plugins of one request: runs their phases and waits for what they wait for.
//!
//! A plugin decides, this acts: it reads the body where one is asked for, lets time pass, composes the answer a plugin
//! gives. Where neither the route nor the group has a plugin there is no [`Phases`], and nothing of this costs
//! anything.

use std::cell::RefCell;
use std::future::pending;
use std::num::NonZeroU64;
use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::{Bytes, BytesMut};
use gatewright_model::expression::{Value, Variable, Variables};
use gatewright_model::message::{Known, Method, RequestHead, ResponseHead};
use gatewright_plugins::chain::{Course, Layer, Progress};
use gatewright_plugins::consumers::Consumers;
use gatewright_plugins::exchange::{
    self as plugin, Answer, Counted, Exchange, Flow, Matched, Now, State, Surroundings,
};
use gatewright_plugins::kind::{Outcome, Phase};
use gatewright_plugins::response::{BodyFilter, Origin, Response, ResponseBody, Whole, finish_all, push_all};

use super::body::{Body, ReadBody};
use super::client::Client;
use super::connection::Unread;
use super::destination::Found;
use super::exchange::{Failure, Wish, read_body};
use super::headers::{self, ClientAddress};
use super::reject::RejectReason;
use super::variables::RequestVariables;
use crate::http1::framing::Framing;
use crate::http1::write;
use crate::http2;
use crate::live::LiveConfig;
use crate::telemetry::Recorder;
use crate::telemetry::access_log::variable::{Moment, Told};
use crate::telemetry::record::{Outcome as Ending, Record};
use crate::worker::buffers::Workspace;

/// The plugins of one request, and what they decided so far.
pub(crate) struct Phases<'l> {
    course: Course<'l>,
    consumers: &'l Consumers,
    matched: Matched<'l>,
    is_matched: bool,
    state: State,
    upstream_status: Option<u16>,
    /// What each plugin took so far, if that is measured.
    spent: Option<Spent>,
}

/// What plugins took.
type Spent = RefCell<Vec<(&'static str, Duration)>>;

/// Phases on their way to the end of an exchange, of which they take note however it comes.
pub(super) struct Kept<'r, 'l> {
    record: &'r Record<'l>,
    phases: Option<Box<Phases<'l>>>,
}

impl<'r, 'l> Kept<'r, 'l> {
    pub(super) fn new(phases: Box<Phases<'l>>, record: &'r Record<'l>) -> Self {
        Self { record, phases: Some(phases) }
    }

    pub(super) fn phases(&mut self) -> &mut Phases<'l> {
        match &mut self.phases {
            Some(phases) => phases,
            None => unreachable!("they are given away when this is dropped"),
        }
    }
}

impl Drop for Kept<'_, '_> {
    fn drop(&mut self) {
        if let Some(phases) = self.phases.take() {
            self.record.keep(phases);
        }
    }
}

/// An exchange that is over, and where it is counted.
pub(crate) struct Ended<'e> {
    pub(crate) outcome: &'e Ending<'e>,
    pub(crate) recorder: &'e Recorder,
    pub(crate) moment: &'e Moment,
}

/// What plugins ask of the gateway about one client.
pub(super) struct View<'v> {
    address: &'v ClientAddress,
    spent: Option<&'v Spent>,
    ended: Option<&'v Ended<'v>>,
}

impl<'v> View<'v> {
    /// What is known of a client before anything has run for it.
    pub(super) fn of(address: &'v ClientAddress) -> Self {
        Self { address, spent: None, ended: None }
    }
}

/// The time since some start, which never goes back.
pub(crate) fn uptime() -> Duration {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    START.elapsed()
}

/// The clocks that plugins read.
pub(crate) fn now() -> Now {
    Now { unix: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(), uptime: uptime() }
}

impl Surroundings for View<'_> {
    fn now(&self) -> Now {
        now()
    }

    fn random(&self) -> u64 {
        fastrand::u64(..)
    }

    fn stopwatch(&self) -> Option<Duration> {
        self.spent.map(|_| uptime())
    }

    fn worked(&self, plugin: &'static str, since: Duration) {
        if let Some(spent) = self.spent {
            spent.borrow_mut().push((plugin, uptime().saturating_sub(since)));
        }
    }

    fn count(&self, counted: &Counted<'_>) {
        if let Some(Ended { outcome, recorder, .. }) = self.ended {
            recorder.count_for_plugin(outcome, counted);
        }
    }

    fn variable<'a>(
        &'a self,
        request: &'a RequestHead,
        body: &'a plugin::Body,
        variable: &Variable,
    ) -> Option<Value<'a>> {
        let body = match body {
            plugin::Body::Read(bytes) => Body::Read(Some(ReadBody::new(bytes.clone()))),
            plugin::Body::Unread | plugin::Body::TooLarge => Body::Read(None),
        };
        let variables = RequestVariables { request, client: self.address, body: &body };
        match self.ended {
            Some(ended) => ended.variable(variable, request, &variables),
            None => variables.get(variable).map(Value::into_owned),
        }
    }
}

impl Ended<'_> {
    /// What can be written of an exchange once it is over: all that the access log knows as well.
    fn variable<'a>(
        &self,
        variable: &Variable,
        request: &RequestHead,
        variables: &RequestVariables<'_>,
    ) -> Option<Value<'a>> {
        let Self { outcome, recorder, moment } = self;
        let named = match variable {
            Variable::Other(name) => Told::named(name)?,
            known => Told::known_as(known),
        };
        let told = Told { outcome, request, client: variables.client, teller: &recorder.teller, moment };
        let shown = told.value(&named, variables)?;
        let mut text = Vec::new();
        shown.write(&mut text);
        Some(Value::Text(text.into()))
    }
}

impl<'l> Phases<'l> {
    /// The phases of a request, if any plugin runs for it.
    ///
    /// # Errors
    /// When the global rules cannot run: without them nothing is served.
    pub(super) fn of(
        live: &'l LiveConfig,
        found: Option<&Found<'l>>,
        measures: bool,
    ) -> Result<Option<Box<Self>>, RejectReason> {
        static NOTHING: LazyLock<Layer> = LazyLock::new(Layer::default);
        let global = live.plugins.global.as_ref().map_err(|reason| *reason)?;
        let route = found.and_then(|found| found.service.plugins.chains.get(found.route));
        let course = Course { global, route: route.map_or(&*NOTHING, |chain| &**chain) };
        if course.is_empty() {
            return Ok(None);
        }
        let matched = found.map_or_else(Matched::default, |found| {
            let service = &found.service.published;
            let route = &service.routes[found.route];
            Matched {
                route_id: route.route_id.as_str(),
                route_name: &route.route.name,
                path: route.route.paths.get(found.path).map_or("", String::as_str),
                prefix_length: found.prefix_length,
                service_id: service.service_id.as_str(),
                service_name: &service.name,
            }
        });
        let (consumers, is_matched) = (&live.plugins.consumers, found.is_some());
        let (state, upstream_status) = (State::default(), None);
        let spent = measures.then(Spent::default);
        Ok(Some(Box::new(Self { course, consumers, matched, is_matched, state, upstream_status, spent })))
    }

    /// What plugins decided about where and how the request is forwarded.
    pub(super) fn state(&self) -> &State {
        &self.state
    }

    fn with<T>(
        &mut self,
        request: &mut RequestHead,
        address: &ClientAddress,
        act: impl FnOnce(&Course<'_>, &mut Exchange<'_>) -> T,
    ) -> T {
        self.with_end(request, address, None, act)
    }

    fn with_end<T>(
        &mut self,
        request: &mut RequestHead,
        address: &ClientAddress,
        ended: Option<&Ended<'_>>,
        act: impl FnOnce(&Course<'_>, &mut Exchange<'_>) -> T,
    ) -> T {
        let mut exchange = Exchange {
            request,
            client: address.told(),
            matched: self.matched,
            consumers: self.consumers,
            surroundings: &View { address, spent: self.spent.as_ref(), ended },
            state: &mut self.state,
        };
        act(&self.course, &mut exchange)
    }

    /// What looks at the body of the request on its way; nobody is asked twice.
    pub(super) fn body_observers(&mut self) -> Vec<Box<dyn BodyFilter>> {
        std::mem::take(&mut self.state.body_observers)
    }

    /// Runs the phases of the request.
    ///
    /// # Errors
    /// When the request goes no further: a plugin answered it, which is then composed in the workspace, or its body
    /// did not arrive.
    pub(super) async fn request(
        &mut self,
        client: &mut Client<'_, '_>,
        workspace: &mut Workspace,
        unread: &mut Unread,
        wish: &mut Wish,
    ) -> Result<(), Failure> {
        if *unread == Unread::Nothing {
            // All of it is here.
            self.state.body = plugin::Body::Read(Bytes::new());
        }
        let mut progress = Progress::start();
        let mut next = None;
        loop {
            let flow = match next.take() {
                None | Some(Flow::Continue) => {
                    let is_matched = self.is_matched;
                    self.with(&mut workspace.request, client.address, |course, exchange| match is_matched {
                        true => course.advance(&mut progress, exchange),
                        false => course.advance_unmatched(&mut progress, exchange),
                    })
                }
                Some(flow) => flow,
            };
            match flow {
                Flow::Continue => break,
                Flow::Respond(answer) => {
                    self.compose(*answer, workspace, client.address);
                    return Err(RejectReason::PluginAnswered(workspace.response.status).into());
                }
                Flow::ReadBody(bytes_max) => {
                    self.read_body(client, workspace, *unread, (wish, bytes_max)).await?
                }
                Flow::Pause(time, then) => {
                    // The limit is the wait itself: nothing else ends it.
                    let _ = client.timer.limit(time, pending::<()>()).await;
                    next = Some(progress.settle(*then));
                }
                Flow::Wait(future) => {
                    let then = future.await;
                    let flow =
                        self.with(&mut workspace.request, client.address, |_, exchange| then(exchange));
                    next = Some(progress.settle(flow));
                }
            }
        }
        if let Some(bytes_max) = self.state.body_bytes_max.and_then(NonZeroU64::new) {
            match self.body_length(*unread) {
                Some(length) if length > bytes_max.get() => {
                    self.compose(Answer::new(413), workspace, client.address);
                    return Err(RejectReason::PluginAnswered(413).into());
                }
                Some(_) => {}
                // It is measured on its way.
                None => wish.body_bytes_max = Some(bytes_max),
            }
        }
        if let Some(body) = self.state.body_replaced.take() {
            replace_body(workspace, unread, &body);
        }
        Ok(())
    }

    /// How long the body is, if that is known already.
    fn body_length(&self, unread: Unread) -> Option<u64> {
        match (unread, &self.state.body) {
            (Unread::Body(Framing::Length(length)), _) => Some(length),
            (Unread::Body(_) | Unread::Unknown, plugin::Body::Read(body)) => Some(body.len() as u64),
            (Unread::Body(_) | Unread::Unknown, _) => None,
            (Unread::Nothing, _) => Some(0),
        }
    }

    async fn read_body(
        &mut self,
        client: &mut Client<'_, '_>,
        workspace: &mut Workspace,
        unread: Unread,
        (wish, bytes_max): (&mut Wish, usize),
    ) -> Result<(), Failure> {
        let read = read_body(client, workspace, unread, (wish, bytes_max)).await?;
        self.state.body = read.map_or(plugin::Body::TooLarge, plugin::Body::Read);
        Ok(())
    }

    /// Runs the phase of a response from the upstream; says what becomes of its body.
    pub(super) fn response(
        &mut self,
        request: &mut RequestHead,
        address: &ClientAddress,
        head: &mut ResponseHead,
        (has_body, is_delimited, whole): (bool, bool, Option<Whole>),
    ) -> ResponseBody {
        self.upstream_status = Some(head.status);
        let origin = Origin::Upstream(head.status);
        let received = self.state.keeps_received.then(|| head.fields.clone());
        let body = ResponseBody::Pass;
        let response = Response { head, origin, has_body, is_delimited, received, body, whole };
        self.respond(request, address, response)
    }

    fn respond(
        &mut self,
        request: &mut RequestHead,
        address: &ClientAddress,
        mut response: Response<'_>,
    ) -> ResponseBody {
        for (name, value) in std::mem::take(&mut self.state.answer_fields) {
            response.head.fields.append(&name, &value);
        }
        if self.course.has(Phase::Response, self.state.consumer.as_deref()) {
            self.with(request, address, |course, exchange| course.response(exchange, &mut response));
        }
        response.body
    }

    /// Composes the answer of a plugin in the workspace.
    fn compose(&mut self, answer: Answer, workspace: &mut Workspace, address: &ClientAddress) {
        let Workspace { request, response: head, composed, .. } = workspace;
        head.clear();
        head.status = answer.status;
        for (name, value) in &answer.fields {
            head.fields.append(name, value);
        }
        let mut body = answer.body;
        if body.is_empty() && answer.status >= 400 {
            head.fields.set("Content-Type", b"text/html; charset=utf-8");
            let title = format!("{} {}", answer.status, write::reason_phrase(answer.status));
            body = format!(
                "<html>\n<head><title>{title}</title></head>\n<body><h1>{title}</h1></body>\n</html>\n"
            )
            .into();
        }
        let has_body = request.client_method() != Method::Head;
        let (origin, body_plan) = (Origin::Gateway, ResponseBody::Pass);
        let (is_delimited, received, whole) = (true, None, None);
        let response = Response { head, origin, has_body, is_delimited, received, body: body_plan, whole };
        *composed = match self.respond(request, address, response) {
            ResponseBody::Pass => body,
            ResponseBody::Replaced(body) => body,
            ResponseBody::Filtered(mut filters) => {
                let mut out = Vec::with_capacity(body.len());
                push_all(&mut filters, &body, &mut out);
                finish_all(&mut filters, &mut None, &mut out);
                out.into()
            }
        };
    }

    /// Whether a plugin takes note of how the exchange ended.
    pub(crate) fn has_log(&self) -> bool {
        self.course.has(Phase::Log, self.state.consumer.as_deref())
    }

    /// Lets plugins take note of that.
    pub(crate) fn log(&mut self, request: &mut RequestHead, address: &ClientAddress, ended: &Ended<'_>) {
        let Ending { status, total, upstream, node, bytes_in, bytes_out, .. } = *ended.outcome;
        let outcome = Outcome {
            status,
            upstream_status: self.upstream_status,
            begun: ended.moment.now().saturating_sub(total),
            total,
            upstream,
            node,
            bytes_in,
            bytes_out,
        };
        self.with_end(request, address, Some(ended), |course, exchange| course.log(exchange, &outcome));
    }

    /// Counts what plugins took, if that is measured.
    pub(crate) fn count_spent(&mut self, recorder: &Recorder) {
        for (plugin, took) in self.spent.take().into_iter().flat_map(RefCell::into_inner) {
            recorder.counts().plugins.add(plugin, took);
        }
    }
}

/// Puts `body` where the client's body is, which has been read as a whole.
fn replace_body(workspace: &mut Workspace, unread: &mut Unread, body: &Bytes) {
    let Workspace { inbound, request, body_bytes, .. } = workspace;
    let rest = inbound.split_off((*body_bytes).min(inbound.len()));
    *inbound = BytesMut::from(&body[..]);
    inbound.extend_from_slice(&rest);
    request.fields.remove_known(Known::ContentLength);
    request.fields.append("Content-Length", body.len().to_string().as_bytes());
    *unread = Unread::Body(Framing::Length(body.len() as u64));
}

/// Writes the answer of a plugin that was composed in `workspace`.
pub(super) fn write_composed(workspace: &mut Workspace, close: bool, served_by: Option<String>) {
    let body = settle_length(workspace);
    let Workspace { request, response: head, reply, .. } = workspace;
    if let Some(said) = served_by {
        head.fields.set(headers::SERVED_BY, said.as_bytes());
    }
    write::response_start(head, reply);
    if close {
        write::field(b"Connection", b"close", reply);
    }
    write::end(reply);
    if request.client_method() != Method::Head {
        reply.extend_from_slice(&body);
    }
}

/// The same for a client that speaks HTTP/2; `None`: HTTP/2 cannot carry it.
pub(super) fn composed(workspace: &mut Workspace) -> Option<(http::Response<()>, Bytes)> {
    let body = settle_length(workspace);
    Some((http2::response::write(&workspace.response)?, body))
}

/// Takes the body that was composed, and makes the head say how long it is.
fn settle_length(workspace: &mut Workspace) -> Bytes {
    let Workspace { request, response: head, composed, .. } = workspace;
    let body = std::mem::take(composed);
    // An answer to `HEAD` that a plugin kept says how long it would be.
    let says_length = head.fields.known(Known::ContentLength).next().is_some();
    if body.is_empty() && request.client_method() == Method::Head && says_length {
        return body;
    }
    head.fields.remove_known(Known::ContentLength);
    if matches!(head.status, 204 | 304) {
        return Bytes::new();
    }
    head.fields.append("Content-Length", body.len().to_string().as_bytes());
    body
}
