//! `gatewright explain`: which route serves a request, and why no other does.
//!
//! With `--config` it answers from a file, without any running process; otherwise a control plane is asked, about what
//! stands or what stood. Either way the router of the gateway decides.

use std::fmt::Write as _;
#[cfg(feature = "gateway")]
use std::path::{Path, PathBuf};

use gatewright_model::rehearsal::{Considered, Exclusion, Explanation, Outcome, RehearsedRequest};
use serde_json::{Map, Value};

use super::Failure;
#[cfg(feature = "control-plane")]
use crate::admin_client::Moment;
use crate::announce;
use crate::arguments::{Explain, Output, RequestFlags};

/// Why nothing could be explained.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    /// The configuration file cannot be read.
    #[cfg(feature = "gateway")]
    #[error("cannot read {path} (--config): {source}", path = path.display())]
    Read { path: PathBuf, source: std::io::Error },
    /// The configuration file is wrong.
    #[cfg(feature = "gateway")]
    #[error("{path} (--config) is refused: {reason}", path = path.display())]
    Config { path: PathBuf, reason: String },
    /// A gateway would refuse the request.
    #[cfg(feature = "gateway")]
    #[error("a gateway would refuse the request: {0}")]
    Request(#[from] gatewright_model::rehearsal::RehearsalError),
    /// There is nothing to ask.
    #[cfg(not(feature = "control-plane"))]
    #[error("name the configuration file with --config: this executable has no client of the admin API")]
    NoConfig,
}

/// Prints the explanation, or one line for each of many requests.
pub(crate) fn run(arguments: &Explain) -> Result<(), Failure> {
    #[cfg(feature = "gateway")]
    if let Some(config) = &arguments.config {
        let stage = stage(config)?;
        if let Some(requests) = &arguments.requests {
            return Ok(super::lines::answer(requests, |line| answer(&stage, line, arguments.output))?);
        }
        let request = request(&arguments.request);
        let explanation = stage.explain(&request).map_err(Refusal::from)?;
        print(&request, &explanation, arguments.output);
        return Ok(());
    }
    ask_control_plane(arguments)
}

#[cfg(feature = "control-plane")]
fn ask_control_plane(arguments: &Explain) -> Result<(), Failure> {
    let client = super::admin_client(&arguments.access)?;
    let request = request(&arguments.request);
    let at = match (arguments.revision, arguments.at) {
        (Some(revision), _) => Moment::Revision(revision),
        (None, Some(seconds)) => Moment::Time(seconds),
        (None, None) => Moment::Now,
    };
    let group = arguments.group.as_str();
    let (explanation, revision) = client.explain(group, &request, &arguments.service_version, at)?;
    if at != Moment::Now && arguments.output == Output::Text {
        announce::line(format_args!("in revision {revision} of gateway group {group}:"));
    }
    print(&request, &explanation, arguments.output);
    Ok(())
}

#[cfg(not(feature = "control-plane"))]
fn ask_control_plane(_: &Explain) -> Result<(), Failure> {
    Err(Refusal::NoConfig.into())
}

#[cfg(feature = "gateway")]
fn stage(path: &Path) -> Result<gatewright_gateway::rehearsal::Stage, Refusal> {
    let text =
        std::fs::read_to_string(path).map_err(|source| Refusal::Read { path: path.to_owned(), source })?;
    let wrong = |reason: String| Refusal::Config { path: path.to_owned(), reason };
    let file = gatewright_gateway::source::file::parse(&text).map_err(|error| wrong(error.to_string()))?;
    for warning in file.warnings.iter() {
        tracing::warn!(file = %path.display(), at = warning.path, "{}", warning.message);
    }
    gatewright_gateway::rehearsal::Stage::new(&file.services, file.settings)
        .map_err(|violations| wrong(violations.to_string()))
}

/// The answer to one line: what serves the request, `null`, or what is wrong with it.
#[cfg(feature = "gateway")]
fn answer(stage: &gatewright_gateway::rehearsal::Stage, line: &str, output: Output) -> String {
    let parsed = serde_json::from_str::<RehearsedRequest>(line);
    let found = parsed.map_err(|error| error.to_string());
    let found = found.and_then(|request| stage.find(&request).map_err(|error| error.to_string()));
    match (found, output) {
        (Ok(served), Output::Json) => serde_json::json!(served).to_string(),
        (Err(error), Output::Json) => serde_json::json!({ "error": error }).to_string(),
        (Ok(Some(served)), Output::Text) => {
            let params = served.params.iter().map(|(name, value)| format!("  {name} = {value}"));
            format!("service {}, route {}{}", served.service, served.route, params.collect::<String>())
        }
        (Ok(None), Output::Text) => "no route".to_owned(),
        (Err(error), Output::Text) => format!("refused: {error}"),
    }
}

fn request(flags: &RequestFlags) -> RehearsedRequest {
    let mut headers: Map<String, Value> = Map::new();
    for (name, value) in &flags.header {
        let values = headers.entry(name.clone()).or_insert_with(|| Value::Array(Vec::new()));
        if let Value::Array(values) = values {
            values.push(Value::from(value.as_str()));
        }
    }
    RehearsedRequest {
        method: Some(flags.method.clone()),
        host: flags.host.clone(),
        uri: flags.path.clone(),
        headers,
        remote_addr: flags.remote_addr.map(|address| address.to_string()),
        vars: Map::new(),
    }
}

fn print(request: &RehearsedRequest, explanation: &Explanation, output: Output) {
    match output {
        Output::Json => announce::line(serde_json::json!(explanation)),
        Output::Text => announce::line(text(request, explanation).trim_end()),
    }
}

/// The winner first, then every candidate in the order they are considered.
fn text(request: &RehearsedRequest, explanation: &Explanation) -> String {
    let method = request.method.as_deref().unwrap_or("-");
    let host = request.host.as_deref().unwrap_or("(no host)");
    let mut text = format!("{method} {host} {}\n", request.uri);
    match explanation.winner() {
        Some(winner) => {
            let _ = writeln!(
                text,
                "is served by service {}, route {}",
                named(&winner.service, winner.version.as_deref()),
                winner.route
            );
            if let Outcome::Wins { params } = &winner.outcome {
                for (name, value) in params {
                    let _ = writeln!(text, "  {name} = {value}");
                }
            }
        }
        None => text.push_str("is served by no route\n"),
    }
    if !explanation.considered.is_empty() {
        text.push_str("\nconsidered, in this order:\n");
    }
    for (index, candidate) in explanation.considered.iter().enumerate() {
        let Considered { service, version, route, path, outcome, .. } = candidate;
        let hosts =
            if candidate.hosts.is_empty() { "any host".to_owned() } else { candidate.hosts.join(", ") };
        let (service, outcome) = (named(service, version.as_deref()), describe(outcome));
        let _ = writeln!(text, "{:>3}. {service}, route {route}: {path} ({hosts}): {outcome}", index + 1);
    }
    text
}

/// A service and its version, if it has one.
fn named(service: &str, version: Option<&str>) -> String {
    version.map_or_else(|| service.to_owned(), |version| format!("{service} {version}"))
}

fn describe(outcome: &Outcome) -> String {
    let condition = match outcome {
        Outcome::Wins { .. } => return "serves the request".to_owned(),
        Outcome::Outranked => return "would serve it, but comes later".to_owned(),
        Outcome::Excluded { condition } => condition,
    };
    match condition {
        Exclusion::Host => "the host is another".to_owned(),
        Exclusion::Port => "the port in the Host header is another".to_owned(),
        Exclusion::Method => "the method is not listed".to_owned(),
        Exclusion::Path => "the path goes on differently".to_owned(),
        Exclusion::RemoteAddress => "the client's address is not listed".to_owned(),
        Exclusion::Version => "the request gets the other version of the service".to_owned(),
        Exclusion::Vars { rule: Some(rule) } => format!("`vars` is false: rule {rule}, counted from 0"),
        Exclusion::Vars { rule: None } => "`vars` is false".to_owned(),
    }
}

#[cfg(test)]
#[cfg(feature = "gateway")]
mod tests {
    use super::*;

    const FILE: &str = "services: [{name: pets, hosts: [pets.example], version: '1', routes: [\
        {name: one, paths: ['/pets/:id'], methods: [GET]}, {name: all, paths: ['/*'], vars: [[arg_v, '==', '2']]}]}]";

    fn pets() -> gatewright_gateway::rehearsal::Stage {
        let file = gatewright_gateway::source::file::parse(FILE).unwrap();
        gatewright_gateway::rehearsal::Stage::new(&file.services, file.settings).unwrap()
    }

    #[test]
    fn every_line_says_what_serves_the_request() {
        for (line, json, text) in [
            (
                r#"{"method":"GET","host":"pets.example","uri":"/pets/7"}"#,
                r#"{"service":"pets","route":"one","params":{"id":"7"}}"#,
                "service pets, route one  id = 7",
            ),
            (
                r#"{"method":"PUT","host":"pets.example","uri":"/pets/7","remote_addr":null}"#,
                "null",
                "no route",
            ),
            (
                r#"{"method":null,"host":"pets.example","uri":"/x","vars":{"arg_v":"2"}}"#,
                r#"{"service":"pets","route":"all","params":{":ext":"x"}}"#,
                "service pets, route all  :ext = x",
            ),
            (
                r#"{"uri":"/.."}"#,
                r#"{"error":"the path of the target leaves the root"}"#,
                "refused: the path of the target leaves the root",
            ),
        ] {
            assert_eq!(answer(&pets(), line, Output::Json), json);
            assert_eq!(answer(&pets(), line, Output::Text), text);
        }
        assert!(answer(&pets(), "{}", Output::Json).starts_with(r#"{"error":"missing field `uri`"#));
    }

    #[test]
    fn the_text_names_the_winner_and_what_excluded_the_others() {
        let request = RehearsedRequest {
            method: Some("GET".to_owned()),
            host: Some("pets.example".to_owned()),
            uri: "/pets/7".to_owned(),
            ..RehearsedRequest::default()
        };
        let explanation = pets().explain(&request).unwrap();
        let expected = "GET pets.example /pets/7\nis served by service pets 1, route one\n  id = 7\n\n\
            considered, in this order:\n\
            \x20 1. pets 1, route one: /pets/:id (pets.example): serves the request\n\
            \x20 2. pets 1, route all: /* (pets.example): `vars` is false: rule 0, counted from 0\n";
        assert_eq!(text(&request, &explanation), expected);
    }
}
