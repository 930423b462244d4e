//! The live configuration: the compiled form that requests run on, immutable and swapped whole.
//!
//! * [`compile`]: a snapshot into a live configuration, off the request path, reusing everything that did not
//!   change.
//! * [`services`]: the compiled services, and how a request finds its own.
//! * [`plugins`]: instances of plugins and the layers they run in.
//! * [`secrets`]: references to secrets, resolved before the rest.
//! * [`upstreams`]: where the requests of a service can go.
//! * [`current`]: the one pointer that is swapped, and how a worker reads it without touching shared counters.

pub(crate) mod compile;
pub(crate) mod current;
pub(crate) mod plugins;
pub(crate) mod secrets;
pub(crate) mod services;
pub(crate) mod upstreams;

use std::sync::Arc;

use gatewright_model::id::ServiceId;
use gatewright_model::rollout::verdict::Counts;
use gatewright_model::snapshot::{PublishedService, Revision};
use gatewright_model::validation::Violations;
use gatewright_plugins::chain::Layer;

use self::plugins::{GroupPlugins, ServicePlugins};
use self::secrets::Holders;
use self::services::Services;
use self::upstreams::ServiceUpstreams;
use crate::proxy::reject::RejectReason;
use crate::router::{MatchSettings, Router, ServiceRules};
use crate::stream::router::StreamRouter;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::metrics::series::{RouteCounts, Series, VersionCounts};
use crate::telemetry::metrics::streams::StreamCounts;
use crate::tls::server_names::ServerNames;
use crate::upstream::Timeouts;
use crate::upstream::discovered::registries::Registries;

/// Everything requests need, at one revision.
#[derive(Clone)]
pub(crate) struct LiveConfig {
    /// `None` until the first configuration arrived.
    pub(crate) revision: Option<Revision>,
    pub(crate) router: Router,
    pub(crate) services: Services,
    pub(crate) server_names: Arc<ServerNames>,
    /// Where streams go.
    pub(crate) streams: Arc<StreamRouter>,
    /// Where requests are counted; outlives every configuration.
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) plugins: Arc<GroupPlugins>,
    /// What was resolved before it was compiled.
    pub(crate) secrets: Arc<Holders>,
    /// The versions that somebody compares.
    pub(crate) compared: Arc<[Compared]>,
    /// Where nodes are found.
    pub(crate) registries: Arc<Registries>,
    /// What finds out who calls, where that decides about the version a request gets.
    pub(crate) identifying: Arc<Layer>,
}

/// A version whose requests are counted for somebody who compares it with another one.
pub(crate) struct Compared {
    pub(crate) service_id: ServiceId,
    pub(crate) version: String,
    pub(crate) series: Arc<Series<VersionCounts>>,
    /// What had been counted of it before somebody compared it.
    pub(crate) before: Counts,
}

impl LiveConfig {
    /// What is served before any configuration arrived: nothing.
    pub(crate) fn unconfigured(metrics: Arc<Metrics>) -> Self {
        Self {
            metrics,
            revision: None,
            router: Router::new(MatchSettings::default()),
            services: Services::default(),
            server_names: Arc::default(),
            streams: Arc::default(),
            plugins: Arc::default(),
            secrets: Arc::default(),
            compared: Arc::default(),
            registries: Arc::default(),
            identifying: Arc::default(),
        }
    }

    /// The same, counted by nobody else.
    #[cfg(test)]
    pub(crate) fn empty() -> Self {
        Self::unconfigured(Arc::new(Metrics::new(1)))
    }
}

/// One published service, compiled.
pub(crate) struct LiveService {
    /// What it was compiled from.
    pub(crate) published: Arc<PublishedService>,
    /// Its place in the router; absent while it takes no HTTP traffic.
    pub(crate) rules: Option<Arc<ServiceRules>>,
    /// Where its requests can go.
    pub(crate) upstreams: ServiceUpstreams,
    /// What each route adds, in the order of the published routes.
    pub(crate) routes: Vec<LiveRoute>,
    /// What each stream route adds, in the order of the published ones.
    pub(crate) streams: Vec<LiveStreamRoute>,
    /// What is counted of this version.
    pub(crate) series: Arc<Series<VersionCounts>>,
    /// The plugins of the service and its routes.
    pub(crate) plugins: ServicePlugins,
    /// Why some of its requests are refused, which stays so until it is published otherwise.
    pub(crate) flaws: Violations,
}

/// What a route adds to its service.
pub(crate) struct LiveRoute {
    /// Time limits that replace those of the upstream.
    pub(crate) timeouts: Option<Timeouts>,
    /// Why the route cannot be served, if it cannot.
    pub(crate) refusal: Option<RejectReason>,
    /// What is counted of it.
    pub(crate) series: Arc<Series<RouteCounts>>,
}

/// What a stream route adds to its service.
pub(crate) struct LiveStreamRoute {
    /// Why it cannot be served, if it cannot.
    pub(crate) refusal: Option<RejectReason>,
    /// What is counted of it.
    pub(crate) series: Arc<Series<StreamCounts>>,
}
