//! What is known of one exchange: filled in as it goes, read once when it is over.
//!
//! Numbers and references only: what the configuration says is referred to, and nothing is copied or allocated.
//! The values are cells because both directions of an exchange have something to say, side by side.

use std::cell::{Cell, OnceCell};
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gatewright_model::lifecycle::RouteVersion;
use gatewright_model::matching::HostPattern;
use gatewright_model::sample::SampledHead;

use crate::live::current::Live;
use crate::live::{LiveConfig, LiveRoute, LiveService};
use crate::proxy::phases::Phases;
use crate::proxy::reject::RejectReason;
use crate::telemetry::Teller;
use crate::upstream::discovered::table::Table;

/// The status of a request whose client left before it was answered, as nginx has it.
pub(crate) const CLIENT_CLOSED: u16 = 499;

/// What is known of one exchange so far.
pub(crate) struct Record<'l> {
    live: &'l LiveConfig,
    table: &'l Table,
    begun: Instant,
    service: Cell<Option<Place<'l>>>,
    /// The plugins of the request, which take note of its end.
    phases: Cell<Option<Box<Phases<'l>>>>,
    /// The head, if it is one of the few that are kept.
    sample: Cell<Option<Box<SampledHead>>>,
    /// Who tells the caller what serves the request; absent: nobody does.
    teller: OnceCell<Arc<Teller>>,
    status: Cell<u16>,
    reject_reason: Cell<Option<RejectReason>>,
    cut_reason: Cell<Option<RejectReason>>,
    tries: Tries,
    bytes_in: Cell<u64>,
    bytes_out: Cell<u64>,
    head_bytes_out: Cell<u64>,
}

/// What was matched: a service, the place of the route in it, and that of the path in the route.
#[derive(Clone, Copy)]
struct Place<'l> {
    service: &'l LiveService,
    route: usize,
    path: usize,
}

/// What the tries came to; of several, times and node are those of the last one.
#[derive(Default)]
struct Tries {
    count: Cell<u32>,
    connects: Cell<u32>,
    first_begun: Cell<Option<Instant>>,
    last_begun: Cell<Option<Instant>>,
    node: Cell<Option<SocketAddr>>,
    connecting: Cell<Option<Duration>>,
    answering: Cell<Option<Duration>>,
}

impl<'l> Record<'l> {
    /// Of a request that began to arrive at `begun` and runs on `live`.
    pub(crate) fn on(live: &'l Live, begun: Instant) -> Self {
        Self { table: live.table(), ..Self::new(live, begun) }
    }

    /// The same where no nodes are discovered.
    pub(crate) fn new(live: &'l LiveConfig, begun: Instant) -> Self {
        Self {
            live,
            table: Table::EMPTY,
            begun,
            service: Cell::new(None),
            phases: Cell::new(None),
            sample: Cell::new(None),
            teller: OnceCell::new(),
            status: Cell::new(0),
            reject_reason: Cell::new(None),
            cut_reason: Cell::new(None),
            tries: Tries::default(),
            bytes_in: Cell::new(0),
            bytes_out: Cell::new(0),
            head_bytes_out: Cell::new(0),
        }
    }

    /// The configuration the request runs on.
    pub(crate) fn live(&self) -> &'l LiveConfig {
        self.live
    }

    /// The nodes that were discovered for it.
    pub(crate) fn table(&self) -> &'l Table {
        self.table
    }

    /// A route matched: that of `service` at the place `route`, by its path at the place `path`.
    pub(crate) fn matched(&self, service: &'l LiveService, route: usize, path: usize) {
        self.service.set(Some(Place { service, route, path }));
    }

    /// The plugins have done what they do before the end.
    pub(crate) fn keep(&self, phases: Box<Phases<'l>>) {
        self.phases.set(Some(phases));
    }

    /// The plugins that take note of the end, if any ran.
    pub(crate) fn take_phases(&self) -> Option<Box<Phases<'l>>> {
        self.phases.take()
    }

    /// The head is one of the few that are kept.
    pub(crate) fn sample(&self, head: Box<SampledHead>) {
        self.sample.set(Some(head));
    }

    /// The head, if it is to be kept.
    pub(crate) fn take_sample(&self) -> Option<Box<SampledHead>> {
        self.sample.take()
    }

    /// The caller may be told what serves the request.
    pub(crate) fn tell(&self, teller: Arc<Teller>) {
        // Who has been noted already says the same.
        let _ = self.teller.set(teller);
    }

    /// What serves the request, for a caller who may be told.
    pub(crate) fn served_by(&self) -> Option<String> {
        let teller = self.teller.get()?;
        let mut said = String::new();
        if let Some(place) = self.service.get() {
            let published = &place.service.published;
            let _ = write!(said, "service={}; ", published.service_id);
            if let Some(version) = &published.version {
                let _ = write!(said, "version={}; ", sendable(version));
            }
            // Only beside a candidate there are two sides.
            if let Some(candidate) = self.live.services.candidate(&published.service_id) {
                let is_candidate = std::ptr::eq(&**candidate, place.service);
                said.push_str(if is_candidate { "side=candidate; " } else { "side=running; " });
            }
            if let Some(route) = published.routes.get(place.route) {
                let _ = write!(said, "route={}; ", route.route_id);
            }
        }
        let _ = write!(said, "group={}; ", teller.gateway_group_id);
        if let Some(revision) = self.live.revision {
            let _ = write!(said, "revision={revision}; ");
        }
        let _ = write!(said, "instance={}", teller.instance_id);
        Some(said)
    }

    /// A try begins.
    pub(crate) fn tried(&self) {
        let tries = &self.tries;
        let now = Instant::now();
        tries.count.set(tries.count.get() + 1);
        if tries.first_begun.get().is_none() {
            tries.first_begun.set(Some(now));
        }
        tries.last_begun.set(Some(now));
        tries.node.set(None);
        tries.connecting.set(None);
        tries.answering.set(None);
    }

    /// The address this try goes to.
    pub(crate) fn node(&self, address: SocketAddr) {
        self.tries.node.set(Some(address));
    }

    /// A new connection stands; not to be called for one that was kept open.
    pub(crate) fn connected(&self) {
        self.tries.connects.set(self.tries.connects.get() + 1);
        self.tries.connecting.set(self.tries.last_begun.get().map(|begun| begun.elapsed()));
    }

    /// The node began its answer, which the client gets.
    pub(crate) fn answered(&self, status: u16) {
        self.status.set(status);
        self.tries.answering.set(self.tries.last_begun.get().map(|begun| begun.elapsed()));
    }

    /// The gateway answers by itself.
    pub(crate) fn rejected(&self, reason: RejectReason) {
        self.status.set(reason.status());
        self.reject_reason.set(Some(reason));
    }

    /// The head of the answer takes so many bytes.
    pub(crate) fn head_written(&self, bytes: usize) {
        self.head_bytes_out.set(bytes as u64);
    }

    /// What the head of the answer takes, as far as it was said.
    pub(crate) fn head_bytes(&self) -> u64 {
        self.head_bytes_out.get()
    }

    /// The answer did not reach its end.
    pub(crate) fn cut(&self, reason: RejectReason) {
        self.cut_reason.set(Some(reason));
    }

    /// So many bytes the request consisted of, and so many the answers to it.
    pub(crate) fn passed(&self, bytes_in: u64, bytes_out: u64) {
        self.bytes_in.set(bytes_in);
        self.bytes_out.set(bytes_out);
    }

    /// What became of the exchange, which is over now.
    pub(crate) fn outcome(&self) -> Outcome<'l> {
        let now = Instant::now();
        let upstream = self.tries.first_begun.get().map(|begun| now - begun);
        let cut_reason = self.cut_reason.get();
        let unanswered = self.bytes_out.get() == 0 && cut_reason == Some(RejectReason::ClientClosed);
        let status = match self.status.get() {
            _ if unanswered => CLIENT_CLOSED,
            0 => cut_reason.map_or(CLIENT_CLOSED, RejectReason::status),
            status => status,
        };
        let tries = &self.tries;
        Outcome {
            live: self.live,
            service: self.service.get(),
            status,
            reject_reason: self.reject_reason.get(),
            cut_reason,
            total: now - self.begun,
            upstream,
            tries: tries.count.get(),
            connects: tries.connects.get(),
            node: tries.node.get(),
            connecting: tries.connecting.get(),
            answering: tries.answering.get(),
            bytes_in: self.bytes_in.get(),
            bytes_out: self.bytes_out.get(),
            head_bytes_out: self.head_bytes_out.get(),
        }
    }
}

/// What became of an exchange.
pub(crate) struct Outcome<'l> {
    pub(crate) live: &'l LiveConfig,
    service: Option<Place<'l>>,
    /// What the client was answered; [`CLIENT_CLOSED`]: nothing, it left.
    pub(crate) status: u16,
    pub(crate) reject_reason: Option<RejectReason>,
    /// Why the exchange did not reach its end, if it did not.
    pub(crate) cut_reason: Option<RejectReason>,
    /// From the first byte of the request to the last one of the answer.
    pub(crate) total: Duration,
    /// From the first try at a node to the end; absent if there was none.
    pub(crate) upstream: Option<Duration>,
    pub(crate) tries: u32,
    /// New connections that were made.
    pub(crate) connects: u32,
    /// Where the last try went.
    pub(crate) node: Option<SocketAddr>,
    /// What a new connection to it took; absent if one was kept open.
    pub(crate) connecting: Option<Duration>,
    /// From the last try to the head of the answer.
    pub(crate) answering: Option<Duration>,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    /// The part of `bytes_out` that is the head of the answer.
    pub(crate) head_bytes_out: u64,
}

impl<'l> Outcome<'l> {
    /// The service that was matched.
    pub(crate) fn service(&self) -> Option<&'l LiveService> {
        self.service.map(|place| place.service)
    }

    /// The route that was matched.
    pub(crate) fn route(&self) -> Option<&'l RouteVersion> {
        self.service.and_then(|place| place.service.published.routes.get(place.route))
    }

    /// The service and the route that were matched, as they are served.
    pub(crate) fn live_route(&self) -> Option<(&'l LiveService, &'l LiveRoute)> {
        self.service.and_then(|place| Some((place.service, place.service.routes.get(place.route)?)))
    }

    /// The path of the route by which it was found, as it is written.
    pub(crate) fn matched_path(&self) -> Option<&'l str> {
        let path = self.service?.path;
        self.route()?.route.paths.get(path).map(String::as_str)
    }

    /// The host name, as it is written, by which a request to `host` was found; none: every host will do.
    pub(crate) fn matched_host(&self, host: &[u8]) -> Option<&'l str> {
        let (service, route) = (self.service()?, self.route()?);
        let own = &route.route.hosts;
        let hosts = if own.is_empty() { &service.published.runtime.hosts } else { own };
        let accepts = |written: &&String| HostPattern::parse(written).is_ok_and(|it| it.accepts_name(host));
        // One host, which most services have, needs no comparison.
        match hosts.as_slice() {
            [only] => Some(only),
            several => several.iter().find(accepts).map(String::as_str),
        }
    }

    /// What the gateway itself took: everything but the upstream.
    pub(crate) fn gateway(&self) -> Duration {
        self.total.saturating_sub(self.upstream.unwrap_or_default())
    }
}

/// A version as a field can carry it: people choose its letters.
fn sendable(version: &str) -> String {
    let is_plain = |letter: char| letter.is_ascii_graphic() && letter != ';';
    version.chars().map(|letter| if is_plain(letter) { letter } else { '?' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status_of(happens: impl FnOnce(&Record<'_>)) -> u16 {
        let live = LiveConfig::empty();
        let record = Record::new(&live, Instant::now());
        happens(&record);
        let outcome = record.outcome();
        assert!(outcome.upstream.unwrap_or_default() <= outcome.total);
        outcome.status
    }

    #[test]
    fn a_client_that_left_unanswered_has_a_status_of_its_own() {
        let answered = |record: &Record<'_>| {
            record.tried();
            record.answered(200);
        };
        assert_eq!(status_of(answered), 200);
        assert_eq!(status_of(|record| record.rejected(RejectReason::RouteNotFound)), 404);
        assert_eq!(status_of(|record| record.cut(RejectReason::ClientClosed)), 499);
        let left = |record: &Record<'_>| {
            answered(record);
            record.cut(RejectReason::ClientClosed);
        };
        assert_eq!(status_of(left), 499);
        let left_later = |record: &Record<'_>| {
            left(record);
            record.passed(10, 20);
        };
        assert_eq!(status_of(left_later), 200);
        let broken_off = |record: &Record<'_>| {
            answered(record);
            record.cut(RejectReason::UpstreamClosed);
        };
        assert_eq!(status_of(broken_off), 200);
    }

    #[test]
    fn of_several_tries_the_last_one_counts() {
        let live = LiveConfig::empty();
        let record = Record::new(&live, Instant::now());
        record.tried();
        record.node("10.0.0.1:80".parse().unwrap());
        record.connected();
        record.tried();
        record.node("10.0.0.2:80".parse().unwrap());
        record.answered(200);
        let outcome = record.outcome();
        assert_eq!((outcome.tries, outcome.connecting), (2, None));
        assert_eq!(outcome.node, Some("10.0.0.2:80".parse().unwrap()));
        assert!(outcome.answering.is_some());
    }
}
