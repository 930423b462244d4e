//! Why a request is served by one route and not by another.

use gatewright_model::rehearsal::{Considered, Exclusion, Explanation, Outcome};

use super::Request;
use super::rules::Candidate;
use super::table::Table;

/// How many candidates an explanation names at most; a person reads it.
pub(super) const CONSIDERED_MAX: usize = 1000;

pub(super) fn explain(table: &Table, request: &Request<'_>) -> Explanation {
    let mut explanation = Explanation { winner: None, considered: Vec::new() };
    let mut seen: Vec<&Candidate> = Vec::new();
    for (candidate, host_fits) in table.considered(request) {
        // A route with several hosts is met once for each of them.
        if seen.iter().any(|other| other.is(candidate)) {
            continue;
        }
        let failure = if host_fits { candidate.first_failure(request) } else { Some(Exclusion::Host) };
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
        version: service.version.clone(),
        route_id: version.route_id.to_string(),
        route: version.route.name.clone(),
        hosts: candidate.rules.hosts_of(candidate.rule()).iter().map(ToString::to_string).collect(),
        path: format!("{prefix}{path}"),
        outcome,
    }
}
