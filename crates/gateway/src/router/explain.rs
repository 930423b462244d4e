//! Why a request is served by one route and not by another.

use serde::Serialize;

use super::Request;
use super::rules::Candidate;
use super::table::Table;

/// How many candidates an explanation names at most; a person reads it.
pub(super) const CONSIDERED_MAX: usize = 1000;

/// Which route serves a request, and what became of every candidate.
#[derive(Clone, Debug, Serialize)]
pub struct Explanation {
    /// The place of the winner in `considered`; none: no route serves the request.
    pub winner: Option<usize>,
    /// The candidates, in the order they are considered; last those that only another host leads to.
    pub considered: Vec<Considered>,
}

/// One path of one route and what became of it.
#[derive(Clone, Debug, Serialize)]
pub struct Considered {
    /// The service.
    pub service_id: String,
    /// Its name.
    pub service: String,
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It serves the request.
    Wins {
        /// What its path captured.
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
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
    /// The expression is false.
    Vars {
        /// The first rule that is false, counted from 0, if the expression is a plain list.
        rule: Option<usize>,
    },
}

pub(super) fn explain(table: &Table, request: &Request<'_>) -> Explanation {
    let mut explanation = Explanation { winner: None, considered: Vec::new() };
    let mut seen: Vec<&Candidate> = Vec::new();
    for (candidate, host_fits) in table.considered(request) {
        // A route with several hosts is met once for each of them.
        if seen.iter().any(|other| other.is(candidate)) {
            continue;
        }
        let failure = if host_fits { candidate.first_failure(request) } else { Some(super::Exclusion::Host) };
        let outcome = match failure {
            Some(condition) => Outcome::Excluded { condition },
            None if explanation.winner.is_some() => Outcome::Outranked,
            None => {
                explanation.winner = Some(explanation.considered.len());
                Outcome::Wins { params: params(candidate, request) }
            }
        };
        // The winner is named even behind a thousand others.
        if explanation.considered.len() >= CONSIDERED_MAX && !matches!(outcome, Outcome::Wins { .. }) {
            continue;
        }
        seen.push(candidate);
        explanation.considered.push(describe(candidate, outcome));
    }
    explanation
}

fn params(candidate: &Candidate, request: &Request<'_>) -> Vec<(String, String)> {
    let captures = candidate.pattern().captures(request.path);
    captures.map(|(name, value)| (name.to_owned(), String::from_utf8_lossy(value).into_owned())).collect()
}

fn describe(candidate: &Candidate, outcome: Outcome) -> Considered {
    let service = candidate.rules.service();
    let version = candidate.version();
    let prefix = service.runtime.path_prefix.as_deref().unwrap_or_default().trim_end_matches('/');
    let path = &version.route.paths[usize::from(candidate.path)];
    Considered {
        service_id: service.service_id.to_string(),
        service: service.name.clone(),
        route_id: version.route_id.to_string(),
        route: version.route.name.clone(),
        hosts: candidate.rules.hosts_of(candidate.rule()).iter().map(ToString::to_string).collect(),
        path: format!("{prefix}{path}"),
        outcome,
    }
}
