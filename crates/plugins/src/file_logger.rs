//! `file-logger`: appends log entries to a file of the gateway, one a line.
//!
//! The file is opened for each write, so one that was renamed is made anew without a signal.

use bytes::Bytes;
use gatewright_model::expression::Expression;
use gatewright_model::validation::Violations;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use crate::kind::{self, Built, Category, Kind, Phase, Phases, Site};
use crate::logging::{self, EntryConfig, Logger, Way};
use crate::outbound::Destination;
use crate::schema;
use crate::shipping::{self, Parcel};

pub(crate) const KIND: Kind = Kind {
    name: "file-logger",
    priority: 399,
    category: Category::Other,
    phases: Phases::of(&[Phase::Access, Phase::Response, Phase::Log]),
    schema: || {
        let conditions = json!({ "type": "array", "maxItems": 20, "items": { "type": "array" } });
        logging::entry_schema(schema::field(schema::of::<Config>(), "match", conditions))
    },
    metadata: Some(schema::of::<Metadata>),
    credential: None,
    build,
};

#[derive(Default, Deserialize, ToSchema)]
#[serde(default)]
#[schema(default)]
struct Config {
    /// The file, on every gateway of the group.
    path: Option<String>,
    /// Expression under which a request is logged.
    #[serde(rename = "match")]
    #[schema(value_type = Option<Vec<Value>>)]
    conditions: Option<Vec<Value>>,
}

#[derive(Default, Deserialize, ToSchema)]
#[serde(default)]
#[schema(default)]
struct Metadata {
    /// Fields of an entry where a configuration does not say.
    #[schema(value_type = Option<Object>)]
    #[allow(dead_code, reason = "all loggers read it")]
    log_format: Option<Map<String, Value>>,
    /// Fields beside those where a configuration does not say.
    #[schema(value_type = Option<Object>)]
    #[allow(dead_code, reason = "all loggers read it")]
    log_format_extra: Option<Map<String, Value>>,
    /// The file where a configuration does not say.
    path: Option<String>,
}

fn build(document: Value, site: &Site<'_>) -> Built {
    let entry: EntryConfig = kind::parse(document.clone())?;
    let config: Config = kind::parse(document)?;
    let metadata: Metadata = site.metadata();
    let condition = config.conditions.as_deref().map(Expression::parse).transpose().map_err(|wrong| {
        let mut violations = Violations::default();
        violations.absorb("/match", wrong);
        violations
    })?;
    // Where neither says a file, a configuration is right as long as the metadata may still come.
    let path = config.path.or(metadata.path);
    let packing = Box::new(move |entries: &[Bytes]| {
        let mut lines = Vec::new();
        shipping::join(entries, b'\n', &mut lines);
        lines.push(b'\n');
        path.iter().map(|path| Parcel::Bytes(Destination::File(path.into()), lines.clone().into())).collect()
    });
    let way = Way { plugin: KIND.name, batch: None, packing };
    Ok(Logger::build(&entry, site, way)?.only(condition).plugin())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Trial, refused};

    fn lines(trial: &Trial) -> Vec<(String, String)> {
        let delivered = trial.delivered().into_iter();
        let file = |(destination, text)| match destination {
            Destination::File(path) => (path.display().to_string(), text),
            other => panic!("{other:?} is no file"),
        };
        delivered.map(file).collect()
    }

    #[test]
    fn every_request_is_a_line() {
        let format = json!({"uri": "$uri"});
        let line = |uri: &str| format!("{{\"uri\":\"{uri}\",\"route_id\":\"r1\",\"service_id\":\"s1\"}}\n");
        let trial = Trial::of("file-logger", json!({"path": "logs/a.log", "log_format": format}));
        trial.run("GET /a").respond("200");
        trial.run("GET /b").respond("200");
        let expected = [("logs/a.log".to_owned(), line("/a")), ("logs/a.log".to_owned(), line("/b"))];
        assert_eq!(lines(&trial), expected);
    }

    #[test]
    fn metadata_says_what_a_configuration_does_not() {
        let metadata = json!({"file-logger": {"path": "default.log", "log_format": {"h": "$host"}}});
        let trial = Trial::with_metadata(&json!({"file-logger": {}}), &metadata);
        trial.run("GET /a").respond("200");
        let [(path, line)] = lines(&trial).try_into().unwrap();
        assert_eq!(
            (path.as_str(), line.starts_with("{\"h\":\"api.example\"")),
            ("default.log", true),
            "{line}"
        );
    }

    #[test]
    fn only_what_matches_is_logged() {
        let conditions = json!([["arg_log", "==", "1"]]);
        let trial = Trial::of("file-logger", json!({"path": "a.log", "match": conditions}));
        trial.run("GET /a").respond("200");
        trial.run("GET /a?log=1").respond("200");
        assert_eq!(lines(&trial).len(), 1);
        assert_eq!(refused("file-logger", &json!({"match": [["a", "=", "b"]]})), ["/match/0/1"]);
    }
}
