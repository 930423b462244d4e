//! Numbers: counted by each worker for itself, summed when they are scraped.
//!
//! No worker ever writes what another one reads or writes on the request path, and scraping, which reads everything,
//! happens on a thread that serves no requests.
//!
//! * `counter`: a number with one writer.
//! * `labelled`, `exchanges`: what the `prometheus` plugin counts, by labels.
//! * `series`: what is counted for each route and version.
//! * `streams`: what is counted of streams.
//! * `scrape`: everything, as text.
//! * `known`: what dashboards for Apache APISIX know, as text.
//! * `process`: what the system knows of the process.
//! * `text`: how metrics are written.

pub(crate) mod counter;
mod discovery;
pub(crate) mod exchanges;
pub(crate) mod known;
mod labelled;
mod process;
pub(crate) mod scrape;
pub(crate) mod series;
pub(crate) mod streams;
pub(crate) mod text;

use std::sync::Arc;
use std::time::Instant;

use super::record::Outcome;
use crate::config::Settings;
use crate::outbound::shipments::Shipments;
use crate::proxy::reject::RejectReason;
use counter::{Counter, Tally, Times};
use exchanges::Exchanges;
use series::{Registry, RouteCounts, Series, VersionCounts};
use streams::StreamCounts;

/// Status codes that are counted one by one: 100 to 599.
const STATUS_FIRST: u16 = 100;
const STATUSES: usize = 500;

/// Everything that is counted in a gateway.
pub(crate) struct Metrics {
    pub(crate) routes: Registry<RouteCounts>,
    pub(crate) versions: Registry<VersionCounts>,
    pub(crate) streams: Registry<StreamCounts>,
    /// Streams that no stream route took.
    pub(crate) unmatched_streams: Arc<Series<StreamCounts>>,
    /// Requests that no route matched.
    unmatched: Arc<Series<RouteCounts>>,
    /// What the `prometheus` plugin counts.
    pub(crate) exchanges: Exchanges,
    /// What it counts of streams.
    pub(crate) stream_connections: streams::Connections,
    workers: Box<[WorkerCounts]>,
    /// What plugins had to tell and could not.
    pub(crate) shipments: Arc<Shipments>,
    /// Whether it is counted what each plugin takes.
    pub(crate) measures_plugins: bool,
}

/// What a worker counts, whatever route it serves.
#[repr(align(128))]
pub(crate) struct WorkerCounts {
    by_status: Box<[Counter]>,
    rejects: Tally,
    cuts: Tally,
    in_flight: Counter,
    retries: Counter,
    connections: Counter,
    connections_accepted: Counter,
    upstream_connections_opened: Counter,
    upstream_connections_idle: Counter,
    /// What plugins took, if that is measured.
    pub(crate) plugins: Times,
}

impl Default for WorkerCounts {
    fn default() -> Self {
        Self {
            by_status: (0..STATUSES).map(|_| Counter::default()).collect(),
            rejects: Tally::default(),
            cuts: Tally::default(),
            in_flight: Counter::default(),
            retries: Counter::default(),
            connections: Counter::default(),
            connections_accepted: Counter::default(),
            upstream_connections_opened: Counter::default(),
            upstream_connections_idle: Counter::default(),
            plugins: Times::default(),
        }
    }
}

impl Metrics {
    /// For so many workers.
    pub(crate) fn new(workers: usize) -> Self {
        let (routes, streams) = (Registry::new(workers), Registry::new(workers));
        Self {
            unmatched_streams: streams.series("", ""),
            streams,
            unmatched: routes.series("", ""),
            routes,
            exchanges: Exchanges::new(workers),
            stream_connections: streams::Connections::new(workers),
            versions: Registry::new(workers),
            workers: (0..workers.max(1)).map(|_| WorkerCounts::default()).collect(),
            shipments: Arc::default(),
            measures_plugins: false,
        }
    }

    /// What `settings` ask for.
    pub(crate) fn asked_for(settings: &Settings) -> Self {
        Self { measures_plugins: settings.measures_plugins, ..Self::new(settings.workers.get()) }
    }

    /// Forgets what has been gone for long at `now`.
    pub(crate) fn sweep(&self, now: Instant) {
        self.routes.sweep(now);
        self.versions.sweep(now);
        self.streams.sweep(now);
        self.exchanges.sweep(now);
        self.stream_connections.sets.sweep(now);
    }

    /// What `worker` counts; only for the thread of that worker.
    pub(crate) fn of(&self, worker: usize) -> &WorkerCounts {
        &self.workers[worker % self.workers.len()]
    }

    /// Counts an exchange; only for the thread of `worker`.
    pub(crate) fn count(&self, worker: usize, outcome: &Outcome<'_>) {
        let counts = self.of(worker);
        counts.in_flight.set(counts.in_flight.get().saturating_sub(1));
        let status = usize::from(outcome.status.saturating_sub(STATUS_FIRST)).min(STATUSES - 1);
        counts.by_status[status].add(1);
        if let Some(reason) = outcome.reject_reason {
            counts.rejects.count(reason.name());
        }
        if let Some(reason) = outcome.cut_reason {
            counts.cuts.count(reason.name());
        }
        if outcome.tries > 1 {
            counts.retries.add(u64::from(outcome.tries - 1));
        }
        counts.upstream_connections_opened.add(u64::from(outcome.connects));
        let Some((service, route)) = outcome.live_route() else {
            return self.unmatched.of(worker).count(outcome);
        };
        service.series.of(worker).count(outcome);
        route.series.of(worker).count(outcome);
    }
}

impl WorkerCounts {
    /// A request begins to arrive.
    pub(crate) fn request_began(&self) {
        self.in_flight.add(1);
    }

    /// So many requests were refused because too many are open on their connection; nothing is known of them.
    pub(crate) fn streams_refused(&self, count: u32) {
        (0..count).for_each(|_| self.rejects.count(RejectReason::StreamsMax.name()));
    }

    /// A client was let in.
    pub(crate) fn connection_opened(&self) {
        self.connections.add(1);
        self.connections_accepted.add(1);
    }

    /// A client that was let in has gone.
    pub(crate) fn connection_closed(&self) {
        self.connections.set(self.connections.get().saturating_sub(1));
    }

    /// So many connections to nodes wait for their next request.
    pub(crate) fn upstream_connections_idle(&self, count: usize) {
        self.upstream_connections_idle.set(count as u64);
    }
}
