//! The stream route that serves a stream, as it was when the stream began.

use std::sync::Arc;

use gatewright_model::lifecycle::RouteVersion;
use gatewright_model::resource::stream_route::StreamRoute;
use gatewright_model::snapshot::Revision;
use gatewright_model::stream::claim::{Arrival, Carrier, Greeting};
use gatewright_plugins::exchange::UpstreamChoice;

use super::record::Ends;
use crate::live::{LiveService, LiveStreamRoute};
use crate::proxy::reject::RejectReason;
use crate::telemetry::metrics::streams::StreamCounts;
use crate::upstream::Reachable;
use crate::worker::Worker;

/// The stream route that serves a stream.
pub(crate) struct Found {
    pub(crate) service: Arc<LiveService>,
    /// Its place among the stream routes of the service.
    route: usize,
    /// That of the configuration it was found in.
    pub(crate) revision: Option<Revision>,
}

/// Finds the stream route that serves what comes this way.
pub(super) fn find(worker: &Worker, carrier: Carrier, ends: Ends, greeting: Greeting<'_>) -> Option<Found> {
    let live = worker.live.take();
    let Ends { client, server } = ends;
    let entry = live.streams.find(&Arrival { carrier, server, remote: client.ip(), greeting })?;
    Some(Found { service: Arc::clone(&entry.service), route: entry.route, revision: live.revision })
}

impl Found {
    /// The stream route, as it was published.
    pub(crate) fn published(&self) -> &RouteVersion<StreamRoute> {
        &self.service.published.stream_routes[self.route]
    }

    pub(super) fn route(&self) -> &StreamRoute {
        &self.published().route
    }

    /// The stream route, as it is served.
    pub(super) fn live(&self) -> &LiveStreamRoute {
        &self.service.streams[self.route]
    }

    /// The place of its plugins among those of the service.
    pub(super) fn place(&self) -> usize {
        self.route
    }

    pub(super) fn counts<'s>(&'s self, worker: &Worker) -> &'s StreamCounts {
        self.live().series.of(worker.index)
    }

    /// The upstream it goes to, the service's own unless a plugin chose another one; nodes must be reached this way.
    pub(super) fn upstream(&self, carrier: Carrier, choice: Option<&UpstreamChoice>) -> Reachable {
        let upstreams = &self.service.upstreams;
        let chosen = choice.and_then(|choice| upstreams.chosen(choice)).unwrap_or(upstreams.own());
        let upstream = chosen.now()?;
        match Carrier::of(upstream.scheme) == Some(carrier) {
            true => Ok(upstream),
            false => Err(RejectReason::SchemeUnsupported),
        }
    }

    /// Whether there is such a stream route now.
    pub(super) fn is_served(&self, worker: &Worker) -> bool {
        let service = &self.service.published.service_id;
        worker.live.take().streams.has(service, &self.published().route_id)
    }
}
