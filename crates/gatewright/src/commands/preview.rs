//! `gatewright preview`: what publishing would change, asked of a control plane.

use std::fmt::Write as _;

use clap::Args;
use gatewright_model::diff::ServiceDiff;
use gatewright_model::id::GatewayGroupId;
use serde::Deserialize;
use serde_json::json;

use super::Failure;
use super::diff::{Place, State, state};
use crate::announce;
use crate::arguments::AdminAccess;

/// Flags of `gatewright preview`.
#[derive(Debug, Args)]
pub(crate) struct Preview {
    /// `SERVICE@VERSION`, or `SERVICE` for a new version of its template; several are previewed together.
    #[arg(value_name = "SERVICE@VERSION", required = true, value_parser = candidate)]
    services: Vec<State>,
    /// The gateway group that would be published to.
    #[arg(long, env = "GATEWRIGHT_GROUP", value_name = "ID", default_value = "default")]
    group: GatewayGroupId,
    /// Print the preview as JSON.
    #[arg(long, env = "GATEWRIGHT_JSON", value_parser = clap::builder::BoolishValueParser::new())]
    #[arg(num_args = 0..=1, default_value = "false", default_missing_value = "true")]
    json: bool,
    #[command(flatten)]
    access: AdminAccess,
}

/// The answer has another form than the admin API's.
#[derive(Debug, thiserror::Error)]
#[error("the control plane's preview cannot be read: {0}; is it of another release?")]
pub(crate) struct Unreadable(serde_json::Error);

/// What a preview is answered.
#[derive(Deserialize)]
struct Previewed {
    services: Vec<OfService>,
    conflicts: Vec<Conflict>,
    conflicts_truncated: bool,
    #[serde(default)]
    blast_radius: Option<BlastRadius>,
    sample: Sample,
}

#[derive(Deserialize)]
struct OfService {
    service_id: String,
    #[serde(default)]
    version: Option<String>,
    #[serde(default)]
    published: Option<String>,
    #[serde(default)]
    diff: Option<ServiceDiff>,
    #[serde(default)]
    refusals: Vec<Violation>,
}

#[derive(Deserialize)]
struct Violation {
    message: String,
}

#[derive(Deserialize)]
struct Conflict {
    kind: String,
    #[serde(default)]
    winner: Option<PlaceOfRoute>,
    loser: PlaceOfRoute,
    reason: String,
}

#[derive(Deserialize)]
struct PlaceOfRoute {
    service_name: String,
    route_name: String,
    url: String,
}

#[derive(Deserialize)]
struct Sample {
    enabled: bool,
    instances: usize,
}

#[derive(Deserialize)]
struct BlastRadius {
    heads: usize,
    unaffected: usize,
    other_route: usize,
    lost: usize,
    found: usize,
    credential: usize,
    other_upstream: usize,
    unlike: usize,
    changes: Vec<Change>,
    truncated: bool,
}

#[derive(Deserialize)]
struct Change {
    effects: Vec<String>,
    #[serde(default)]
    before: Option<Route>,
    #[serde(default)]
    after: Option<Route>,
    heads: usize,
    examples: Vec<Head>,
}

#[derive(Deserialize)]
struct Route {
    service: String,
    route: String,
}

#[derive(Deserialize)]
struct Head {
    method: String,
    host: String,
    path: String,
    status: u16,
}

/// Prints what publishing would change.
pub(crate) fn run(arguments: &Preview) -> Result<(), Failure> {
    let client = super::admin_client(&arguments.access)?;
    let mut services = Vec::with_capacity(arguments.services.len());
    for State { service, place } in &arguments.services {
        let mut wish = json!({ "service_id": client.service_template_id(service)? });
        if let Place::Version(number) = place {
            wish["version"] = number.as_str().into();
        }
        services.push(wish);
    }
    let answer = client.service_preview(arguments.group.as_str(), &json!({ "services": services }))?;
    if arguments.json {
        announce::line(&answer);
        return Ok(());
    }
    let preview = Previewed::deserialize(&answer).map_err(Unreadable)?;
    announce::line(told(&preview).trim_end());
    Ok(())
}

fn candidate(text: &str) -> Result<State, String> {
    match state(text)? {
        State { place: Place::Group(_), .. } => Err("write SERVICE@VERSION or SERVICE".to_owned()),
        state => Ok(state),
    }
}

fn told(preview: &Previewed) -> String {
    let mut text = String::new();
    for service in &preview.services {
        let _ = of_service(&mut text, service);
    }
    if !preview.conflicts.is_empty() {
        text.push_str("conflicts\n");
    }
    for conflict in &preview.conflicts {
        let _ = writeln!(text, "  {}", in_conflict(conflict));
    }
    if preview.conflicts_truncated {
        text.push_str("  and more than can be compared or shown\n");
    }
    let _ = match &preview.blast_radius {
        Some(radius) => of_requests(&mut text, radius, &preview.sample),
        None => writeln!(text, "no requests are replayed: the control plane was built without the gateway"),
    };
    text
}

fn of_service(text: &mut String, service: &OfService) -> std::fmt::Result {
    let OfService { service_id, version, published, diff, refusals } = service;
    let version = version.as_deref().map_or_else(String::new, |version| format!("@{version}"));
    let published = match (published, diff) {
        (Some(published), _) => format!("in the place of {published}"),
        (None, Some(_)) => "in the place of a service without a version".to_owned(),
        (None, None) => "for the first time".to_owned(),
    };
    writeln!(text, "{service_id}{version} would be published {published}")?;
    for refusal in refusals {
        writeln!(text, "  refused: {}", refusal.message)?;
    }
    diff.iter().try_for_each(|diff| write!(text, "{diff}"))
}

fn in_conflict(conflict: &Conflict) -> String {
    let place = |place: &PlaceOfRoute| {
        format!("route `{}` of service `{}` at `{}`", place.route_name, place.service_name, place.url)
    };
    let Conflict { kind, winner, loser, reason } = conflict;
    let loser = place(loser);
    match winner.as_ref().map(place) {
        Some(winner) => format!("{kind}: {winner} wins over {loser}: {reason}"),
        None => format!("{kind}: {loser}: {reason}"),
    }
}

fn of_requests(text: &mut String, radius: &BlastRadius, sample: &Sample) -> std::fmt::Result {
    let BlastRadius { heads, unaffected, .. } = radius;
    if !sample.enabled {
        return writeln!(text, "no requests are replayed: the gateway group samples none");
    }
    if *heads == 0 {
        return writeln!(text, "no requests are replayed: none was sampled lately");
    }
    let gateways = match sample.instances {
        1 => "1 gateway".to_owned(),
        several => format!("{several} gateways"),
    };
    writeln!(text, "of {heads} requests sampled by {gateways}, {unaffected} as before")?;
    for (count, what) in [
        (radius.other_route, "served by another route"),
        (radius.lost, "served by no route any more"),
        (radius.found, "served by a route, and by none now"),
        (radius.credential, "in need of a credential"),
        (radius.other_upstream, "sent to another upstream"),
    ] {
        if count > 0 {
            writeln!(text, "  {count} {what}")?;
        }
    }
    for Change { effects, before, after, heads, examples } in &radius.changes {
        let name = |route: &Option<Route>| match route {
            Some(Route { service, route }) => format!("`{route}` of `{service}`"),
            None => "no route".to_owned(),
        };
        writeln!(text, "  {heads} × {} -> {} ({})", name(before), name(after), effects.join(", "))?;
        for Head { method, host, path, status } in examples {
            writeln!(text, "      {method} {host}{path} ({status})")?;
        }
    }
    if radius.truncated {
        writeln!(text, "  and changes of further kinds")?;
    }
    if radius.unlike > 0 {
        let unlike = radius.unlike;
        writeln!(
            text,
            "  {unlike} matched another route when they came: a condition reads what is not sampled"
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn previewed(more: Value) -> String {
        let mut preview = json!({
            "services": [{ "service_id": "pets", "version": "2", "published": "1", "diff": {} }],
            "conflicts": [], "conflicts_truncated": false, "sample": { "enabled": true, "instances": 2 },
        });
        preview.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        told(&serde_json::from_value(preview).unwrap())
    }

    #[test]
    fn a_preview_is_told_with_examples() {
        let place = |name: &str| json!({ "service_name": "s", "route_name": name, "url": "/a" });
        let text = previewed(json!({
            "conflicts": [{ "kind": "shadowed", "winner": place("w"), "loser": place("l"), "reason": "why" }],
            "blast_radius": {
                "heads": 10, "unaffected": 8, "other_route": 0, "lost": 2, "found": 0, "credential": 0,
                "other_upstream": 0, "unlike": 1, "truncated": false,
                "changes": [{
                    "effects": ["lost"], "before": { "service": "pets", "route": "get" }, "heads": 2,
                    "examples": [{ "method": "GET", "host": "a.example", "path": "/pets", "status": 200 }],
                }],
            },
        }));
        assert_eq!(
            text,
            "pets@2 would be published in the place of 1\nno differences\nconflicts\n  \
             shadowed: route `w` of service `s` at `/a` wins over route `l` of service `s` at `/a`: why\n\
             of 10 requests sampled by 2 gateways, 8 as before\n  2 served by no route any more\n  \
             2 × `get` of `pets` -> no route (lost)\n      GET a.example/pets (200)\n  \
             1 matched another route when they came: a condition reads what is not sampled\n"
        );
    }

    #[test]
    fn why_no_request_is_replayed_is_said() {
        let none = json!({
            "heads": 0, "unaffected": 0, "other_route": 0, "lost": 0, "found": 0, "credential": 0, "other_upstream": 0,
            "unlike": 0, "changes": [], "truncated": false,
        });
        for (more, reason) in [
            (json!({}), "built without the gateway"),
            (json!({ "blast_radius": none }), "none was sampled lately"),
            (json!({ "blast_radius": none, "sample": { "enabled": false, "instances": 0 } }), "samples none"),
        ] {
            let text = previewed(more);
            assert!(text.contains(reason), "{text}");
        }
    }

    #[test]
    fn a_group_is_no_candidate() {
        assert!(candidate("pets@2").is_ok() && candidate("pets").is_ok());
        assert!(candidate("pets@group:default").is_err());
    }
}
