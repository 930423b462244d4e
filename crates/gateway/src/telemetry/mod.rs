//! What the gateway tells about its work: one line per exchange, and numbers.
//!
//! A worker keeps what it has to tell to itself, in a `Recorder`: telling costs no lock, waits for nobody and
//! touches no memory that another worker writes. Everything slow happens on threads of its own.
//!
//! * `record`: what is known of one exchange.
//! * [`access_log`]: a line for it.
//! * `metrics`: numbers.
//! * `sampler`: the heads of a few requests.

pub mod access_log;
pub(crate) mod metrics;
pub(crate) mod record;
pub(crate) mod sampler;

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Instant;

use gatewright_model::message::{Fields, RequestHead};
use gatewright_plugins::exchange::Counted;

use crate::config::{DebugToken, Settings};
use crate::proxy::ClientAddress;
use crate::proxy::phases::Ended;
use crate::stream::found::Found;
use crate::stream::phases::Phases;
use crate::stream::record::{Over, Record as StreamRecord};
use access_log::Lines;
use access_log::variable::Moment;
use access_log::writer::Channel;
use metrics::exchanges::OfWorker;
use metrics::streams::StreamCounts;
use metrics::{Metrics, WorkerCounts};
use record::{Outcome, Record};
use sampler::Sampler;

/// Who tells: the same on every line.
#[derive(Clone, Debug)]
pub(crate) struct Teller {
    pub(crate) gateway_group_id: String,
    pub(crate) instance_id: String,
    pub(crate) hostname: String,
    /// What callers show to be told what served them.
    pub(crate) debug_token: Option<DebugToken>,
}

impl Teller {
    pub(crate) fn new(settings: &Settings) -> Self {
        Self {
            debug_token: settings.debug_token.clone(),
            ..Self::named(settings.gateway_group_id.as_str(), settings.instance_id.as_str())
        }
    }

    /// The instance of this id, of the group of that id, which tells no callers.
    pub(crate) fn named(gateway_group_id: &str, instance_id: &str) -> Self {
        let hostname = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let (gateway_group_id, instance_id) = (gateway_group_id.to_owned(), instance_id.to_owned());
        Self { gateway_group_id, instance_id, hostname, debug_token: None }
    }
}

/// What one worker has to tell.
pub(crate) struct Recorder {
    worker: usize,
    metrics: Arc<Metrics>,
    pub(crate) teller: Arc<Teller>,
    lines: Option<Lines>,
    sampler: Arc<Sampler>,
    exchanges: OfWorker,
    stream_connections: metrics::streams::OfWorker,
    moment: RefCell<Moment>,
}

impl Recorder {
    /// Of the worker of that number.
    pub(crate) fn new(
        worker: usize,
        metrics: Arc<Metrics>,
        teller: &Arc<Teller>,
        log: Option<&Channel>,
        sampler: Arc<Sampler>,
    ) -> Self {
        let lines = log.map(|channel| Lines::new(channel.clone(), Arc::clone(teller)));
        Self {
            worker,
            metrics,
            teller: Arc::clone(teller),
            lines,
            sampler,
            exchanges: OfWorker::default(),
            stream_connections: Default::default(),
            moment: RefCell::default(),
        }
    }

    /// Whether it is counted what each plugin takes.
    pub(crate) fn measures_plugins(&self) -> bool {
        self.metrics.measures_plugins
    }

    /// One that tells nobody, for tests.
    #[cfg(test)]
    pub(crate) fn silent() -> Self {
        let (metrics, teller) = (Arc::new(Metrics::new(1)), Arc::new(Teller::named("default", "i")));
        Self::new(0, metrics, &teller, None, Arc::new(Sampler::new()))
    }

    /// What this worker counts beside exchanges.
    pub(crate) fn counts(&self) -> &WorkerCounts {
        self.metrics.of(self.worker)
    }

    /// What this worker counts of streams that no stream route takes.
    pub(crate) fn unmatched_stream(&self) -> &StreamCounts {
        self.metrics.unmatched_streams.of(self.worker)
    }

    /// The request of `record` is matched, and nothing has edited its head yet; a few heads are kept.
    #[inline]
    pub(crate) fn sample(&self, record: &Record<'_>, request: &RequestHead) {
        if let Some(head) = self.sampler.begin(request) {
            record.sample(head);
        }
    }

    /// Takes note of a caller who may be told what serves the request. To be asked while the request has the fields
    /// that came.
    #[inline]
    pub(crate) fn heed(&self, record: &Record<'_>, fields: &Fields) {
        if let Some(token) = &self.teller.debug_token
            && token.is_shown(fields)
        {
            record.tell(Arc::clone(&self.teller));
        }
    }

    /// The exchange of `record` is over.
    pub(crate) fn finish(&self, record: &Record<'_>, request: &mut RequestHead, client: &ClientAddress) {
        let outcome = record.outcome();
        if let Some(mut phases) = record.take_phases() {
            if phases.has_log() {
                let mut moment = self.moment.borrow_mut();
                moment.advance();
                phases.log(request, client, &Ended { outcome: &outcome, recorder: self, moment: &moment });
            }
            phases.count_spent(self);
        }
        self.metrics.count(self.worker, &outcome);
        if let Some(head) = record.take_sample() {
            self.sampler.keep(*head, &outcome, Instant::now());
        }
        if let Some(lines) = &self.lines {
            lines.add(&outcome, request, client);
        }
    }

    /// Counts an exchange as a plugin asks.
    pub(crate) fn count_for_plugin(&self, outcome: &Outcome<'_>, counted: &Counted<'_>) {
        self.metrics.exchanges.count((self.worker, &self.exchanges), outcome, counted);
    }

    /// The stream of `record` is over.
    pub(crate) fn finish_stream(
        &self,
        record: &StreamRecord<'_>,
        over: &Over,
        phases: Option<Box<Phases<'_>>>,
    ) {
        if let Some(phases) = phases {
            let mut moment = self.moment.borrow_mut();
            moment.advance();
            phases.finish(record, over, self, &moment);
        }
        if let Some(lines) = &self.lines {
            lines.add_stream(record, over);
        }
    }

    /// Counts a stream as a plugin asks.
    pub(crate) fn count_stream_for_plugin(&self, found: &Found, counted: &Counted<'_>) {
        self.metrics.stream_connections.count((self.worker, &self.stream_connections), found, counted);
    }

    /// Hands over what has been gathered; to be called now and then, and at the end.
    pub(crate) fn hand_over(&self) {
        if let Some(lines) = &self.lines {
            lines.hand_over();
        }
    }
}
