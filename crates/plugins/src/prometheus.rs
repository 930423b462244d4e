//! `prometheus`: counts exchanges under the names that dashboards for Apache APISIX know.
//!
//! Statuses, latencies and bytes of the requests it runs for appear at `/apisix/prometheus/metrics` of the status
//! listener. What the gateway counts of itself, whatever plugins run, is at `/metrics` and costs nothing more.
//! A global rule leaves routes alone that have the plugin themselves.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::exchange::{Counted, Exchange};
use crate::kind::{self, Built, Category, Kind, Outcome, Phase, Phases, Plugin, Site};
use crate::schema;

pub(crate) const KIND: Kind = Kind {
    name: "prometheus",
    priority: 500,
    category: Category::Other,
    phases: Phases::of(&[Phase::Log]),
    schema: schema::of::<Config>,
    metadata: Some(|| {
        let labels = json!({ "type": "array", "items": { "type": "string", "enum": LABELS } });
        let disabled =
            json!({ "type": "object", "propertyNames": { "enum": METRICS }, "additionalProperties": labels });
        schema::field(schema::of::<Metadata>(), "disabled_labels", disabled)
    }),
    credential: None,
    build,
};

/// The metrics that have labels to disable.
const METRICS: [&str; 3] = ["http_status", "http_latency", "bandwidth"];

/// The labels that can be disabled.
const LABELS: [&str; 6] = ["route", "matched_uri", "matched_host", "service", "consumer", "node"];

#[derive(Default, Deserialize, ToSchema)]
#[serde(default)]
#[schema(default)]
struct Config {
    /// Whether labels say the names of routes and services instead of their ids.
    prefer_name: bool,
}

#[derive(Default, Deserialize, ToSchema)]
#[serde(default)]
#[schema(default)]
struct Metadata {
    /// Labels that stay empty, by metric: `{"http_latency": ["consumer"]}`.
    #[schema(value_type = Option<Object>)]
    disabled_labels: BTreeMap<String, Vec<String>>,
}

struct Prometheus {
    by_name: bool,
    without: Box<[(Box<str>, Box<str>)]>,
}

fn build(config: Value, site: &Site<'_>) -> Built {
    let config: Config = kind::parse(config)?;
    let metadata: Metadata = site.metadata();
    let without = metadata.disabled_labels.iter().flat_map(|(metric, labels)| {
        labels.iter().map(|label| (metric.as_str().into(), label.as_str().into()))
    });
    Ok(Arc::new(Prometheus { by_name: config.prefer_name, without: without.collect() }))
}

impl Plugin for Prometheus {
    fn yields_to_route(&self) -> bool {
        true
    }

    fn log(&self, exchange: &mut Exchange<'_>, _: &Outcome) {
        let consumer = exchange.state.consumer.as_ref().map(|consumer| &*consumer.name);
        let host = exchange.request.bytes(exchange.request.host);
        let counted = Counted { consumer, host, by_name: self.by_name, without: &self.without };
        exchange.surroundings.count(&counted);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Trial, refused};

    #[test]
    fn exchanges_are_counted_as_configured() {
        let metadata = json!({"prometheus": {"disabled_labels": {"http_status": ["consumer"]}}});
        for (config, metadata, expected) in [
            (json!({}), json!({}), "id"),
            (json!({"prefer_name": true}), json!({}), "name"),
            (json!({}), metadata, "id without http_status.consumer"),
        ] {
            let trial = Trial::with_metadata(&json!({"prometheus": config}), &metadata);
            trial.run("GET /").respond("200");
            assert_eq!(trial.counted(), [expected], "{config}");
        }
    }

    #[test]
    fn a_global_rule_leaves_routes_alone_that_count_themselves() {
        let global = json!({"prometheus": {}});
        let trial = Trial::of("prometheus", json!({"prefer_name": true})).global(&global);
        trial.run("GET /").respond("200");
        assert_eq!(trial.counted(), ["name"]);
        let trial = Trial::all(&json!({})).global(&global);
        trial.run("GET /").respond("200");
        assert_eq!(trial.counted(), ["id"]);
    }

    #[test]
    fn streams_are_counted_when_they_end() {
        let trial = Trial::of("prometheus", json!({"prefer_name": true}));
        let open = trial.run_stream();
        assert!(trial.counted().is_empty());
        open.end(200);
        assert_eq!(trial.counted(), ["name"]);
    }

    #[test]
    fn labels_that_there_are_not_are_refused() {
        assert_eq!(refused("prometheus", &json!({"prefer_name": "yes"})), ["/prefer_name"]);
        let settings =
            |labels: Value| crate::validate_metadata("prometheus", &json!({ "disabled_labels": labels }));
        assert!(settings(json!({"bandwidth": ["node"]})).is_empty());
        assert!(!settings(json!({"bandwidth": ["code"]})).is_empty());
        assert!(!settings(json!({"nothing": []})).is_empty());
    }
}
