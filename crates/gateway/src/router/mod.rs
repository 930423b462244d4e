//! The router: which route serves a request. Pure: a function of rules and request, without I/O and without state.
//!
//! Host, then path, then `priority`, then the longer written path, then ids: see `docs/reference/matching.md`. What
//! a match costs depends on the length of host and path, not on how many routes there are, and it allocates
//! nothing.
//! A router is immutable to those who read it. [`Router::replace`] on a clone copies what leads to the routes of one
//! service and shares the rest.

pub(crate) mod choice;
mod explain;
mod names;
mod rules;
mod table;
mod trie;

use std::net::IpAddr;
use std::sync::Arc;

use gatewright_model::expression::Variables;
use gatewright_model::message::Method;

pub use choice::Lot;
pub use gatewright_model::matching::{MatchOrder, MatchSettings};
pub use gatewright_model::rehearsal::{Considered, Exclusion, Explanation, Outcome};
pub use rules::ServiceRules;

use rules::Candidate;
use table::Table;

/// The routes of a gateway group, ready to be matched.
#[derive(Clone, Debug)]
pub struct Router {
    settings: MatchSettings,
    table: Table,
}

/// What the router reads of a request.
pub struct Request<'a> {
    /// The host, in lower case, without port.
    pub host: &'a [u8],
    /// The normalised path.
    pub path: &'a [u8],
    /// The method.
    pub method: Method,
    /// The address of the client, if it has one.
    pub remote_addr: Option<IpAddr>,
    /// What expressions read.
    pub variables: &'a dyn Variables,
    /// What decides about shares, where a version is tried beside another one.
    pub lot: Lot,
}

/// The route that serves a request.
#[derive(Clone, Copy, Debug)]
pub struct Match<'r> {
    /// The service of the route.
    pub rules: &'r Arc<ServiceRules>,
    /// The route's place among those of the published service.
    pub route: usize,
    /// The place of the path by which it was found among those of the route.
    pub path: usize,
    /// Bytes at the start of the path that are the service's path prefix; what is behind them starts with `/` or
    /// is empty.
    pub prefix_length: usize,
    candidate: &'r Candidate,
}

impl Router {
    /// A router without routes.
    #[must_use]
    pub fn new(settings: MatchSettings) -> Self {
        Self { settings, table: Table::new(settings.order) }
    }

    /// How this router matches; rules must be compiled with the same settings.
    #[must_use]
    pub fn settings(&self) -> MatchSettings {
        self.settings
    }

    /// Takes the rules `old` out and puts `new` in. The cost is that of the two services, not of the table.
    pub fn replace(&mut self, old: Option<&Arc<ServiceRules>>, new: Option<&Arc<ServiceRules>>) {
        for (candidate, host) in old.into_iter().flat_map(ServiceRules::candidates) {
            self.table.remove(&candidate, host);
        }
        for (candidate, host) in new.into_iter().flat_map(ServiceRules::candidates) {
            self.table.insert(candidate, host);
        }
    }

    /// The route that serves `request`.
    #[must_use]
    pub fn find<'r>(&'r self, request: &Request<'_>) -> Option<Match<'r>> {
        self.table.find(request).map(Match::new)
    }

    /// Which route serves `request` and why every other candidate does not.
    #[must_use]
    pub fn explain(&self, request: &Request<'_>) -> Explanation {
        explain::explain(&self.table, request)
    }
}

impl<'r> Match<'r> {
    fn new(candidate: &'r Candidate) -> Self {
        Self {
            rules: &candidate.rules,
            route: usize::from(candidate.route),
            path: usize::from(candidate.path),
            prefix_length: usize::from(candidate.prefix_length),
            candidate,
        }
    }

    /// What the route's path captured of `path`, which must be the path that was matched. Of two equal names the
    /// later one counts.
    pub fn params<'p>(&self, path: &'p [u8]) -> impl Iterator<Item = (&'r str, &'p [u8])> + use<'r, 'p> {
        self.candidate.pattern().captures(path)
    }
}

#[cfg(any(test, fuzzing))]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a check that fails says where")]
pub(crate) mod reference;
#[cfg(test)]
mod tests;
