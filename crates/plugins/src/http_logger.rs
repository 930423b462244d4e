//! `http-logger`: posts log entries to an HTTP server, in batches.
//!
//! An answer of 400 and above is a failure, after which the batch is posted again as often as the configuration says.

use std::time::Duration;

use bytes::Bytes;
use gatewright_model::validation::Violations;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::kind::{self, Built, Category, Kind, Phase, Phases, Site};
use crate::logging::{self, BatchConfig, EntryConfig, Logger, Way};
use crate::outbound::{Connection, Request};
use crate::schema;
use crate::shipping::{self, Parcel};

pub(crate) const KIND: Kind = Kind {
    name: "http-logger",
    priority: 410,
    category: Category::Other,
    phases: Phases::of(&[Phase::Access, Phase::Response, Phase::Log]),
    schema: || {
        let uri =
            json!({ "type": "string", "pattern": r"^[^\/]+:\/\/([\da-zA-Z.-]+|\[[\da-fA-F:]+\])(:\d+)?" });
        logging::batch_schema(schema::field(schema::of::<Config>(), "uri", uri), "http logger")
    },
    metadata: Some(schema::of::<logging::Metadata>),
    credential: None,
    build,
};

#[derive(Deserialize, ToSchema)]
struct Config {
    /// Where entries are posted.
    uri: String,
    /// What `Authorization` says.
    #[serde(default)]
    auth_header: Option<String>,
    /// Seconds a post may take.
    #[serde(default = "timeout")]
    #[schema(required = false, minimum = 1, default = 3)]
    timeout: u64,
    /// Whether entries are an array in JSON, or one a line.
    #[serde(default)]
    #[schema(required = false, default = "json")]
    concat_method: Concatenation,
    /// Whether the server has to show a certificate that verifies.
    #[serde(default)]
    #[schema(required = false, default = false)]
    ssl_verify: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Concatenation {
    #[default]
    Json,
    NewLine,
}

const fn timeout() -> u64 {
    3
}

fn build(document: Value, site: &Site<'_>) -> Built {
    let entry: EntryConfig = kind::parse(document.clone())?;
    let batch: BatchConfig = kind::parse(document.clone())?;
    let config: Config = kind::parse(document)?;
    if !["http://", "https://"].iter().any(|scheme| config.uri.starts_with(scheme)) {
        return Err(Violations::one("/uri", "must begin with http:// or https://"));
    }
    let single = batch.batch_max_size == 1;
    let packing = Box::new(move |entries: &[Bytes]| vec![Parcel::Request(post(&config, single, entries))]);
    let way = Way { plugin: KIND.name, batch: Some(batch), packing };
    Ok(Logger::build(&entry, site, way)?.plugin())
}

/// Batches of one are an object, as receivers of them expect; all others are an array, even with one entry.
fn post(config: &Config, single: bool, entries: &[Bytes]) -> Request {
    let (body, content_type) = match (config.concat_method, entries) {
        (Concatenation::Json, [entry]) if single => (entry.to_vec(), "application/json"),
        (Concatenation::Json, _) => (shipping::json_array(entries), "application/json"),
        (Concatenation::NewLine, _) => {
            let mut lines = Vec::new();
            shipping::join(entries, b'\n', &mut lines);
            (lines, "text/plain")
        }
    };
    let connection = Connection { verify: config.ssl_verify, ..Connection::default() };
    let request = Request::post(&config.uri, body).field("Content-Type", content_type);
    let request = request.within(Duration::from_secs(config.timeout)).over(connection);
    match &config.auth_header {
        Some(authorization) => request.field("Authorization", authorization.as_str()),
        None => request,
    }
}

#[cfg(test)]
mod tests {
    use crate::outbound::Response;
    use crate::testing::{Trial, refused};

    use super::*;

    fn logged(config: Value, requests: usize) -> Vec<Request> {
        let mut full =
            json!({"uri": "http://logs.example/in", "log_format": {"host": "$host"}, "inactive_timeout": 1});
        for (name, value) in config.as_object().unwrap() {
            full[name] = value.clone();
        }
        let trial =
            Trial::of("http-logger", full).answering(|_| Ok(Response { status: 200, ..Response::default() }));
        (0..requests).for_each(|_| drop(trial.run("GET /a").respond("200")));
        trial.pass(Duration::from_secs(2));
        trial.asked()
    }

    fn bodies(asked: &[Request]) -> Vec<&str> {
        asked.iter().map(|request| std::str::from_utf8(&request.body).unwrap()).collect()
    }

    const ENTRY: &str = r#"{"host":"api.example","route_id":"r1","service_id":"s1"}"#;

    #[test]
    fn batches_are_posted_as_asked() {
        let array = format!("[{ENTRY},{ENTRY}]");
        let lines = format!("{ENTRY}\n{ENTRY}");
        for (config, content_type, expected) in [
            (json!({}), "application/json", vec![array.as_str()]),
            (json!({"batch_max_size": 1}), "application/json", vec![ENTRY, ENTRY]),
            (json!({"concat_method": "new_line"}), "text/plain", vec![lines.as_str()]),
        ] {
            let asked = logged(config.clone(), 2);
            assert_eq!(bodies(&asked), expected, "{config}");
            assert!(asked[0].fields.contains(&("Content-Type".to_owned(), content_type.into())), "{config}");
        }
        let asked = logged(json!({"auth_header": "Bearer x", "timeout": 7, "ssl_verify": true}), 1);
        assert!(asked[0].fields.contains(&("Authorization".to_owned(), b"Bearer x".to_vec())));
        assert_eq!((asked[0].timeout, asked[0].connection.verify), (Duration::from_secs(7), true));
    }

    #[test]
    fn a_batch_waits_for_silence_or_its_time() {
        let config = json!({"uri": "http://logs.example", "inactive_timeout": 5, "buffer_duration": 12});
        let trial = Trial::of("http-logger", config);
        let mut counts = Vec::new();
        // Requests that keep coming do not hold a batch back for ever.
        for _ in 0..5 {
            trial.run("GET /").respond("200");
            trial.pass(Duration::from_secs(4));
            counts.push(trial.asked().len());
        }
        assert_eq!(counts, [0, 0, 1, 0, 0]);
        trial.pass(Duration::from_secs(5));
        assert_eq!(trial.asked().len(), 1);
    }

    #[test]
    fn a_batch_that_failed_is_posted_again_and_then_dropped() {
        for (retries, posts, lost) in [(0, 1, 1), (2, 3, 1)] {
            let config = json!({"uri": "http://logs.example", "batch_max_size": 1, "max_retry_count": retries,
                "retry_delay": 3});
            let trial = Trial::of("http-logger", config)
                .answering(|_| Ok(Response { status: 400, ..Response::default() }));
            trial.run("GET /").respond("200");
            let mut count = trial.asked().len();
            for _ in 0..5 {
                trial.pass(Duration::from_secs(3));
                count += trial.asked().len();
            }
            assert_eq!((count, trial.lost()), (posts, lost));
        }
    }

    #[test]
    fn what_waits_is_sent_when_the_gateway_ends() {
        let config = json!({"uri": "http://logs.example", "inactive_timeout": 60});
        let trial = Trial::of("http-logger", config)
            .answering(|_| Ok(Response { status: 200, ..Response::default() }));
        (0..3).for_each(|_| drop(trial.run("GET /").respond("200")));
        assert_eq!(trial.asked().len(), 0);
        trial.close();
        assert_eq!((trial.asked().len(), trial.lost()), (1, 0));
    }

    #[test]
    fn what_does_not_fit_is_dropped_and_counted() {
        let config = json!({"uri": "http://logs.example", "batch_max_size": 1, "max_retry_count": 1,
            "retry_delay": 60});
        let plugins = json!({ "http-logger": config });
        let trial = Trial::with_metadata(&plugins, &json!({"http-logger": {"max_pending_entries": 3}}));
        (0..10).for_each(|_| drop(trial.run("GET /").respond("200")));
        // The first one is to be posted again, and three wait for that.
        assert_eq!(trial.lost(), 6);
    }

    #[test]
    fn what_is_no_address_is_refused() {
        assert_eq!(refused("http-logger", &json!({"uri": "logs.example"})), ["/uri"]);
        assert_eq!(refused("http-logger", &json!({"uri": "ftp://logs.example"})), ["/uri"]);
        let bad =
            json!({"uri": "http://a", "include_req_body_expr": [["uri", "=", "/"]], "batch_max_size": 0});
        assert_eq!(refused("http-logger", &bad), ["/batch_max_size"]);
        let bad = json!({"uri": "http://a", "include_req_body_expr": [["uri", "=", "/"]]});
        assert_eq!(refused("http-logger", &bad), ["/include_req_body_expr/0/1"]);
    }
}
