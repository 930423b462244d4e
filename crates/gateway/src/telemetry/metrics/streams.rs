//! What is counted of streams, for each stream route.

use std::cell::RefCell;
use std::sync::Arc;

use gatewright_plugins::exchange::Counted;

use super::counter::Counter;
use super::labelled::{Entry, Found as Known, Sets};
use super::scrape::sum;
use super::series::{OTHER, Series};
use super::text::{Kind, Text, label};
use crate::stream::found::Found;

/// How a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StreamEnd {
    /// Both sides were done.
    Done,
    /// The client broke the connection.
    ClientBroken,
    /// The node broke the connection.
    NodeBroken,
    /// Neither side said anything for too long.
    Idle,
    /// The stream route was removed, and the time its connections may go on without is over.
    RouteGone,
    /// The gateway stops, and cannot wait any longer.
    Stopping,
    /// The client was not let in: by a plugin, its certificate, or for want of a stream route.
    Refused,
    /// No node could be reached.
    Unreachable,
}

impl StreamEnd {
    pub(crate) const ALL: [Self; 8] = [
        Self::Done,
        Self::ClientBroken,
        Self::NodeBroken,
        Self::Idle,
        Self::RouteGone,
        Self::Stopping,
        Self::Refused,
        Self::Unreachable,
    ];

    /// The name by which logs and metrics know it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::ClientBroken => "client_broken",
            Self::NodeBroken => "node_broken",
            Self::Idle => "idle",
            Self::RouteGone => "route_gone",
            Self::Stopping => "stopping",
            Self::Refused => "refused",
            Self::Unreachable => "unreachable",
        }
    }
}

/// Of a stream route.
#[derive(Default)]
#[repr(align(128))]
pub(crate) struct StreamCounts {
    pub(crate) opened: Counter,
    pub(crate) ended: [Counter; StreamEnd::ALL.len()],
    pub(crate) bytes_in: Counter,
    pub(crate) bytes_out: Counter,
}

impl StreamCounts {
    /// A stream begins.
    pub(crate) fn opened(&self) {
        self.opened.add(1);
    }

    /// It ended, after so many bytes from the client and to it.
    pub(crate) fn closed(&self, end: StreamEnd, bytes_in: u64, bytes_out: u64) {
        self.ended[end as usize].add(1);
        self.bytes_in.add(bytes_in);
        self.bytes_out.add(bytes_out);
    }

    /// One that no stream route takes.
    pub(crate) fn refused(&self) {
        self.opened();
        self.closed(StreamEnd::Refused, 0, 0);
    }
}

/// Streams as the `prometheus` plugin counts them.
pub(crate) struct Connections {
    pub(super) sets: Sets<Counter>,
}

/// What one worker found already.
pub(crate) type OfWorker = RefCell<Known<Arc<Entry<Counter>>>>;

impl Connections {
    pub(super) fn new(workers: usize) -> Self {
        Self { sets: Sets::new(workers, &labels(OTHER, OTHER)) }
    }

    /// Counts a stream that has ended, as a plugin asked; only for the thread of `worker`.
    pub(crate) fn count(&self, (worker, known): (usize, &OfWorker), found: &Found, counted: &Counted<'_>) {
        let (service, route) = (&found.service.published, found.published());
        let labels = match counted.by_name {
            true => labels(&route.route.name, &service.name),
            false => labels(route.route_id.as_str(), service.service_id.as_str()),
        };
        let enrol = || self.sets.enrol(worker, labels.clone());
        known.borrow_mut().count(labels.as_bytes(), enrol, |entry| entry.used().add(1));
    }
}

fn labels(route: &str, service: &str) -> String {
    let mut text = String::new();
    label("route", route, &mut text);
    text.push(',');
    label("service", service, &mut text);
    text
}

/// Writes what was counted of all stream routes.
pub(super) fn write(all: &[Arc<Series<StreamCounts>>], text: &mut Text) {
    let help = "Streams by service, stream route and how they ended; no stream route: none took them.";
    let mut family = text.family("gatewright_streams_total", Kind::Counter, help);
    for series in all {
        let (service, route) = series.labels();
        for end in StreamEnd::ALL {
            match sum(series.read().map(|counts| &counts.ended[end as usize])) {
                0 => {}
                count => {
                    family
                        .sample(&[("service", service), ("stream_route", route), ("end", end.name())], count);
                }
            }
        }
    }
    let help = "Streams that are open, by service and stream route.";
    let mut family = text.family("gatewright_streams_open", Kind::Gauge, help);
    for series in all {
        let (service, route) = series.labels();
        let ended = sum(series.read().flat_map(|counts| &counts.ended));
        let open = sum(series.read().map(|counts| &counts.opened)).saturating_sub(ended);
        family.sample(&[("service", service), ("stream_route", route)], open);
    }
    let help = "Bytes of streams that have ended, from clients (ingress) and to them (egress).";
    let mut family = text.family("gatewright_stream_bytes_total", Kind::Counter, help);
    for series in all {
        let (service, route) = series.labels();
        let bytes_in = sum(series.read().map(|counts| &counts.bytes_in));
        let bytes_out = sum(series.read().map(|counts| &counts.bytes_out));
        for (direction, bytes) in [("ingress", bytes_in), ("egress", bytes_out)] {
            family.sample(&[("type", direction), ("service", service), ("stream_route", route)], bytes);
        }
    }
}
