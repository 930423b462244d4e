//! Rehearsing a request: which route would serve it, and why not another, without sending it.
//!
//! Only the data plane knows how requests are matched, and the control plane must not know it; what a rehearsal asks
//! and answers is therefore said here, and the executable hands the one who can [`Rehearse`] to the one who is asked.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::id::ServiceId;
use crate::matching::MatchSettings;
use crate::snapshot::PublishedService;
use crate::target::TargetError;
use crate::validation::Violations;

/// A request that nobody sent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RehearsedRequest {
    /// The method; absent: one that no list of methods has.
    #[serde(default)]
    #[schema(example = "GET")]
    pub method: Option<String>,
    /// The host, perhaps with a port; absent: none. A `Host` among the headers takes its place.
    #[serde(default)]
    #[schema(example = "petstore.example.com")]
    pub host: Option<String>,
    /// The request target as a client writes it: path and query, or an absolute URI. Spaces and control characters,
    /// which no client can send, count as if they were escaped.
    #[schema(max_length = 16384, example = "/store/pets/1?version=2")]
    pub uri: String,
    /// The headers: a text, or a list of texts for one that is repeated.
    #[serde(default)]
    #[schema(value_type = std::collections::BTreeMap<String, Value>)]
    pub headers: Map<String, Value>,
    /// The address of the client; absent, or no IP address: one that no list of addresses has.
    #[serde(default)]
    #[schema(example = "192.0.2.1")]
    pub remote_addr: Option<String>,
    /// Variables that are given, whatever the rest of the request says.
    #[serde(default)]
    #[schema(value_type = Object)]
    pub vars: Map<String, Value>,
}

/// Which route serves a request, and what became of every candidate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Explanation {
    /// The place of the winner in `considered`; none: no route serves the request.
    #[schema(required = true)]
    pub winner: Option<usize>,
    /// The candidates, in the order they are considered; last those that only another host leads to.
    pub considered: Vec<Considered>,
}

impl Explanation {
    /// The candidate that serves the request.
    #[must_use]
    pub fn winner(&self) -> Option<&Considered> {
        self.considered.get(self.winner?)
    }
}

/// One path of one route and what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Considered {
    /// The service.
    pub service_id: String,
    /// Its name.
    pub service: String,
    /// Its version; none: a service without a version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub version: Option<String>,
    /// The route.
    pub route_id: String,
    /// Its name.
    pub route: String,
    /// The hosts it accepts; none: every host.
    pub hosts: Vec<String>,
    /// Path prefix and path.
    pub path: String,
    /// What became of it.
    pub outcome: Outcome,
}

/// What became of a candidate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It serves the request.
    Wins {
        /// What its path captured, as names and values.
        params: Vec<(String, String)>,
    },
    /// It would serve the request if the winner did not.
    Outranked,
    /// A condition does not hold.
    Excluded {
        /// Which condition.
        condition: Exclusion,
    },
}

/// The condition that excludes a candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Exclusion {
    /// The host of the request is none of the route's.
    Host,
    /// The host fits, but the `Host` header names another port.
    Port,
    /// The method is not listed.
    Method,
    /// The path starts as the route's does and goes on differently.
    Path,
    /// The client's address is not listed.
    RemoteAddress,
    /// Two versions of the service stand side by side, and the request gets the other one.
    Version,
    /// The expression is false.
    Vars {
        /// The first rule that is false, counted from 0, if the expression is a plain list.
        rule: Option<usize>,
    },
}

/// Why a request cannot be rehearsed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RehearsalError {
    /// A gateway would answer 400.
    #[error("{0}")]
    Target(#[from] TargetError),
    /// The target or the headers are more than a gateway reads, or no header can be spelt so.
    #[error("{0}")]
    Head(String),
    /// The services do not compile.
    #[error("{0}")]
    Services(#[from] Violations),
}

/// Explains which of `services` would serve a request under `settings`, as a gateway would decide it.
pub trait Rehearse: std::fmt::Debug + Send + Sync + 'static {
    /// The explanation.
    ///
    /// # Errors
    /// When a gateway would refuse the request before matching it, or would not accept the services.
    fn rehearse(
        &self,
        services: &[Arc<PublishedService>],
        settings: MatchSettings,
        request: &RehearsedRequest,
    ) -> Result<Explanation, RehearsalError>;

    /// What becomes of `requests` with the services that stand, and with `candidates` in the place of those of them
    /// that have the same ids. A request that a gateway would refuse before matching it is decided as if no route
    /// matched.
    ///
    /// # Errors
    /// When a gateway would not accept the candidates; services that stand and do not compile serve nothing.
    fn replay(
        &self,
        standing: &[Arc<PublishedService>],
        candidates: &[Arc<PublishedService>],
        settings: MatchSettings,
        requests: &[RehearsedRequest],
    ) -> Result<Vec<Replayed>, Violations>;
}

/// Which route serves a request before and after a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replayed {
    /// With the services that stand; none: no route.
    pub before: Option<Served>,
    /// With the candidates in their place; none: no route.
    pub after: Option<Served>,
}

/// The route that serves a request.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Served {
    /// The service.
    pub service_id: ServiceId,
    /// The place of the route among those of the service.
    pub route: usize,
}
