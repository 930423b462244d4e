//! `opentelemetry`: reports requests as spans to a collector (OTLP over HTTP), in traces that go on to the upstream.
//!
//! The context of a trace travels in `traceparent` (W3C Trace Context). Which requests are recorded is what the sampler
//! says, and none unless it is configured. Collector, resource and batches are metadata: one exporter serves all uses
//! of the plugin in a group.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gatewright_model::expression::Variable;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use crate::exchange::{Exchange, Flow};
use crate::kind::{self, Built, Category, Kind, Outcome, Phase, Phases, Plugin, Site};
use crate::outbound::Request;
use crate::schema;
use crate::shipping::{self, Outbox, Parcel, Settings};
use crate::template::text_of;
use crate::tracing::w3c::{Context, FIELD};
use crate::tracing::{SpanId, TraceId, serving};
use gatewright_model::expression::Variables as _;

pub(crate) const KIND: Kind = Kind {
    name: "opentelemetry",
    priority: 12009,
    category: Category::Other,
    phases: Phases::of(&[Phase::Rewrite, Phase::Log]),
    schema: || {
        let names = json!({ "type": "array", "items": { "type": "string", "minLength": 1 } });
        let schema = schema::field(schema::of::<Config>(), "additional_attributes", names.clone());
        let mut schema = schema::field(schema, "additional_header_prefix_attributes", names);
        let sampler = &mut schema["properties"]["sampler"];
        let options = json!({ "fraction": 0, "root": { "name": "always_off" } });
        sampler["default"] = json!({ "name": "always_off", "options": options });
        sampler["properties"]["options"]["default"] = options;
        schema
    },
    metadata: Some(schema::of::<Metadata>),
    credential: None,
    build,
};

#[derive(Default, Deserialize, ToSchema)]
#[serde(default)]
#[schema(default)]
struct Config {
    /// Which requests are recorded.
    sampler: Sampler,
    /// Variables that are attributes of a span.
    additional_attributes: Option<Vec<String>>,
    /// Fields of the request that are attributes of a span; one that ends in `*` stands for all that begin so.
    additional_header_prefix_attributes: Option<Vec<String>>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, ToSchema)]
#[serde(default)]
#[schema(default)]
struct Sampler {
    /// What decides.
    name: SamplerName,
    /// What it goes by.
    options: SamplerOptions,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, ToSchema)]
#[serde(default)]
#[schema(default)]
struct SamplerOptions {
    /// The share of traces that `trace_id_ratio` records.
    fraction: f64,
    /// What decides for `parent_base` where no trace comes with the request.
    root: RootSampler,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, ToSchema)]
#[serde(default)]
#[schema(default)]
struct RootSampler {
    /// What decides.
    name: RootSamplerName,
    /// What it goes by.
    options: RootSamplerOptions,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, ToSchema)]
#[serde(default)]
#[schema(default)]
struct RootSamplerOptions {
    /// The share of traces that `trace_id_ratio` records.
    fraction: f64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum SamplerName {
    AlwaysOn,
    #[default]
    AlwaysOff,
    TraceIdRatio,
    ParentBase,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum RootSamplerName {
    AlwaysOn,
    #[default]
    AlwaysOff,
    TraceIdRatio,
}

#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(default)]
#[schema(default)]
struct Metadata {
    /// Where a new trace gets its id.
    trace_id_source: TraceIdSource,
    /// Attributes of the resource, beside `service.name`.
    #[schema(value_type = Option<Object>)]
    resource: Map<String, Value>,
    /// Where spans are sent.
    collector: Collector,
    /// When they are.
    #[schema(default = json!({}))]
    batch_span_processor: BatchSpanProcessor,
    /// Whether variables say the ids of trace and span; they do in any case.
    set_ngx_var: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
enum TraceIdSource {
    XRequestId,
    #[default]
    Random,
}

#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
#[serde(default)]
#[schema(default)]
struct Collector {
    /// Host and port, or the start of an address.
    address: String,
    /// Seconds that sending may take.
    #[schema(value_type = i64)]
    request_timeout: u64,
    /// Fields of the requests to it.
    #[schema(value_type = Option<Object>)]
    #[serde(skip_serializing_if = "Map::is_empty")]
    request_headers: Map<String, Value>,
}

impl Default for Collector {
    fn default() -> Self {
        Self { address: "127.0.0.1:4318".to_owned(), request_timeout: 3, request_headers: Map::new() }
    }
}

#[derive(Clone, Debug, Default, Deserialize, Serialize, ToSchema)]
#[serde(default)]
struct BatchSpanProcessor {
    /// Whether spans are dropped that nobody takes fast enough; they are in any case.
    drop_on_queue_full: Option<bool>,
    /// Spans that may wait.
    #[schema(value_type = Option<i64>)]
    max_queue_size: Option<usize>,
    /// Seconds after its first span when a batch is sent.
    batch_timeout: Option<f64>,
    /// Seconds after the last span when a batch is sent.
    inactive_timeout: Option<f64>,
    /// Spans of a full batch.
    #[schema(value_type = Option<i64>)]
    max_export_batch_size: Option<usize>,
}

struct OpenTelemetry {
    sampler: Sampler,
    source: TraceIdSource,
    attributes: Box<[(String, Variable)]>,
    fields: Box<[String]>,
    outbox: Arc<Outbox>,
}

/// A request that is recorded.
struct Traced {
    context: Context,
    parent: Option<SpanId>,
}

fn build(config: Value, site: &Site<'_>) -> Built {
    let config: Config = kind::parse(config)?;
    let metadata: Metadata = site.metadata();
    // All uses in a group share what the metadata says, and so the exporter.
    let settings = site.metadata.map(|settings| Value::Object(settings.clone()).to_string());
    let name = format!("opentelemetry/{}", settings.unwrap_or_default());
    let outbox = site.shared.get(&name, || exporter(&metadata, site));
    let attributes = config.additional_attributes.into_iter().flatten();
    let fields = config.additional_header_prefix_attributes.into_iter().flatten();
    Ok(Arc::new(OpenTelemetry {
        sampler: config.sampler,
        source: metadata.trace_id_source,
        attributes: attributes.map(|name| (name.clone(), Variable::of(&name))).collect(),
        fields: fields.map(|name| name.to_ascii_lowercase()).collect(),
        outbox,
    }))
}

fn exporter(metadata: &Metadata, site: &Site<'_>) -> Outbox {
    let batch = &metadata.batch_span_processor;
    let seconds = |given: Option<f64>, default: f64| {
        Duration::try_from_secs_f64(given.unwrap_or(default)).unwrap_or(Duration::from_secs(60))
    };
    let settings = Settings {
        batch_max_size: batch.max_export_batch_size.unwrap_or(256).max(1),
        inactive_timeout: seconds(batch.inactive_timeout, 2.0),
        buffer_duration: seconds(batch.batch_timeout, 5.0),
        max_retry_count: 0,
        retry_delay: Duration::ZERO,
        pending_max: batch.max_queue_size.unwrap_or(2048),
    };
    let collector = metadata.collector.clone();
    let start = if collector.address.contains("://") { "" } else { "http://" };
    let url = format!("{start}{}/v1/traces", collector.address.trim_end_matches('/'));
    let resource = resource(&metadata.resource);
    let packing = Box::new(move |spans: &[Bytes]| {
        let mut body = format!("{{\"resourceSpans\":[{{\"resource\":{resource},\"scopeSpans\":[{{\"scope\":{{\"name\":\"gatewright\",\"version\":\"{}\"}},\"spans\":[", env!("CARGO_PKG_VERSION")).into_bytes();
        shipping::join(spans, b',', &mut body);
        body.extend_from_slice(b"]}]}]}");
        let request = Request::post(&url, body).field("Content-Type", "application/json");
        let request = request.within(Duration::from_secs(collector.request_timeout.max(1)));
        let fields = collector.request_headers.iter();
        let fields = fields
            .map(|(name, value)| (name, value.as_str().map_or_else(|| value.to_string(), str::to_owned)));
        vec![Parcel::Request(fields.fold(request, |request, (name, value)| request.field(name, value)))]
    });
    Outbox::new(KIND.name, settings, site.outbound, packing)
}

fn resource(given: &Map<String, Value>) -> Value {
    let mut attributes: Vec<Value> =
        given.iter().map(|(name, value)| attribute(name, value.clone())).collect();
    if !given.contains_key("service.name") {
        attributes.push(attribute("service.name", "APISIX".into()));
    }
    json!({ "attributes": attributes })
}

/// An attribute as OTLP writes it in JSON.
fn attribute(name: &str, value: Value) -> Value {
    let value = match value {
        Value::Bool(_) => json!({ "boolValue": value }),
        // Integers of 64 bits are text in JSON.
        Value::Number(ref number) if number.is_i64() => json!({ "intValue": number.to_string() }),
        Value::Number(_) => json!({ "doubleValue": value }),
        Value::String(_) => json!({ "stringValue": value }),
        other => json!({ "stringValue": other.to_string() }),
    };
    json!({ "key": name, "value": value })
}

impl Sampler {
    fn records(&self, trace: TraceId, parent: Option<&Context>) -> bool {
        match (self.name, parent) {
            (SamplerName::AlwaysOn, _) => true,
            (SamplerName::AlwaysOff, _) => false,
            (SamplerName::TraceIdRatio, _) => trace.is_among(self.options.fraction),
            (SamplerName::ParentBase, Some(parent)) => parent.sampled,
            (SamplerName::ParentBase, None) => match self.options.root.name {
                RootSamplerName::AlwaysOn => true,
                RootSamplerName::AlwaysOff => false,
                RootSamplerName::TraceIdRatio => trace.is_among(self.options.root.options.fraction),
            },
        }
    }
}

impl Plugin for OpenTelemetry {
    fn rewrite(&self, exchange: &mut Exchange<'_>) -> Flow {
        let parent = exchange.field(FIELD).and_then(Context::parse);
        let surroundings = exchange.surroundings;
        let requested = || {
            let id = exchange.field("x-request-id").filter(|_| self.source == TraceIdSource::XRequestId)?;
            TraceId::parse(&std::str::from_utf8(id).ok()?.replace('-', ""))
        };
        let trace = match &parent {
            Some(parent) => parent.trace,
            None => requested().unwrap_or_else(|| TraceId::random(surroundings)),
        };
        let sampled = self.sampler.records(trace, parent.as_ref());
        let context = Context { trace, span: SpanId::random(surroundings), sampled };
        if parent.is_none() {
            // It belongs to a trace that is not this one.
            exchange.request.fields.remove(b"tracestate");
        }
        exchange.request.fields.set(FIELD, context.text().as_bytes());
        for (name, value) in [
            ("opentelemetry_context_traceparent", context.text()),
            ("opentelemetry_trace_id", context.trace.text()),
            ("opentelemetry_span_id", context.span.text()),
        ] {
            exchange.set_variable(name, value.into_bytes());
        }
        if sampled {
            exchange.set_note(Traced { context, parent: parent.map(|parent| parent.span) });
        }
        Flow::Continue
    }

    fn log(&self, exchange: &mut Exchange<'_>, outcome: &Outcome) {
        if let Some(traced) = exchange.note::<Traced>() {
            self.outbox.put(self.span(traced, exchange, outcome).to_string().into_bytes());
        }
    }
}

impl OpenTelemetry {
    fn span(&self, traced: &Traced, exchange: &Exchange<'_>, outcome: &Outcome) -> Value {
        let request = &*exchange.request;
        let lossy = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (method, matched) = (lossy(request.bytes(request.method_text)), &exchange.matched);
        let mut name = method.clone();
        let mut attributes = vec![
            attribute("net.host.name", lossy(request.bytes(request.host)).into()),
            attribute("http.method", method.into()),
            attribute("http.scheme", if exchange.client.tls { "https" } else { "http" }.into()),
            attribute("http.target", lossy(request.bytes(request.target)).into()),
            attribute("http.status_code", outcome.status.into()),
        ];
        if let Some(agent) = exchange.field("user-agent") {
            attributes.push(attribute("http.user_agent", lossy(agent).into()));
        }
        if !matched.route_id.is_empty() {
            name = format!("{name} {}", matched.path);
            for (name, value) in [
                ("apisix.route_id", matched.route_id),
                ("apisix.route_name", matched.route_name),
                ("http.route", matched.path),
                ("apisix.service_id", matched.service_id),
                ("apisix.service_name", matched.service_name),
            ] {
                attributes.push(attribute(name, value.into()));
            }
        }
        attributes.extend(serving(exchange).map(|(name, value)| attribute(name, value.into())));
        self.further(exchange, &mut attributes);
        let mut span = json!({
            "traceId": traced.context.trace.text(),
            "spanId": traced.context.span.text(),
            "name": name,
            "kind": 2,
            "startTimeUnixNano": outcome.begun.as_nanos().to_string(),
            "endTimeUnixNano": (outcome.begun + outcome.total).as_nanos().to_string(),
            "attributes": attributes,
        });
        if let Some(parent) = traced.parent {
            span["parentSpanId"] = parent.text().into();
        }
        if outcome.status >= 500 {
            span["status"] = json!({ "code": 2, "message": format!("response status: {}", outcome.status) });
        }
        span
    }

    /// The attributes that a configuration asks for.
    fn further(&self, exchange: &Exchange<'_>, attributes: &mut Vec<Value>) {
        for (name, variable) in &self.attributes {
            if let Some(value) = exchange.get(variable) {
                attributes.push(attribute(name, String::from_utf8_lossy(&text_of(&value)).into()));
            }
        }
        let fields = &exchange.request.fields;
        for field in fields.iter() {
            let name = String::from_utf8_lossy(fields.bytes(field.name)).to_ascii_lowercase();
            let is_wanted = |wanted: &String| match wanted.strip_suffix('*') {
                Some(start) => name.starts_with(start),
                None => *wanted == name,
            };
            if self.fields.iter().any(is_wanted) {
                attributes.push(attribute(&name, String::from_utf8_lossy(fields.bytes(field.value)).into()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbound::Response;
    use crate::testing::Trial;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    const UNSAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";

    fn tracing(config: &Value, metadata: &Value) -> Trial {
        Trial::with_metadata(&json!({ "opentelemetry": config }), &json!({ "opentelemetry": metadata }))
            .answering(|_| Ok(Response { status: 200, ..Response::default() }))
    }

    fn exported(trial: &Trial) -> Vec<Request> {
        trial.pass(Duration::from_secs(6));
        trial.asked()
    }

    fn attributes(of: &Value) -> Map<String, Value> {
        let list = of["attributes"].as_array().unwrap().iter();
        let value =
            |attribute: &Value| attribute["value"].as_object().unwrap().values().next().unwrap().clone();
        list.map(|attribute| (attribute["key"].as_str().unwrap().to_owned(), value(attribute))).collect()
    }

    #[test]
    fn a_recorded_request_is_a_span_of_the_trace_it_came_with() {
        let config = json!({"sampler": {"name": "always_on"}, "additional_attributes": ["arg_x", "arg_none"],
            "additional_header_prefix_attributes": ["X-Tag-*"]});
        let metadata = json!({"resource": {"service.name": "edge", "n": 1},
            "collector": {"address": "otel.example:4318", "request_headers": {"X-Key": "k"}}});
        let trial = tracing(&config, &metadata);
        let run = trial.run(&format!("GET /a?x=1\ntraceparent: {PARENT}\nUser-Agent: t\nX-Tag-One: 1"));
        let sent = Context::parse(run.sent("traceparent").as_bytes()).unwrap();
        run.respond("500");
        let [request] = exported(&trial).try_into().unwrap();
        assert_eq!(request.url, "http://otel.example:4318/v1/traces");
        assert!(request.fields.contains(&("X-Key".to_owned(), b"k".to_vec())), "{:?}", request.fields);
        let body: Value = serde_json::from_slice(&request.body).unwrap();
        let resource = attributes(&body["resourceSpans"][0]["resource"]);
        assert_eq!((&resource["service.name"], &resource["n"]), (&json!("edge"), &json!("1")));
        let span = &body["resourceSpans"][0]["scopeSpans"][0]["spans"][0];
        assert_eq!(span["traceId"], "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(span["parentSpanId"], "00f067aa0ba902b7");
        assert_eq!(span["spanId"].as_str(), Some(sent.span.text().as_str()));
        assert_eq!(
            (&span["name"], &span["kind"], &span["status"]["code"]),
            (&json!("GET /*"), &json!(2), &json!(2))
        );
        assert_eq!(span["startTimeUnixNano"], "1699999999500000000");
        assert_eq!(span["endTimeUnixNano"], "1700000000000000000");
        let attributes = attributes(span);
        for (name, value) in [
            ("http.method", "GET"),
            ("http.target", "/a?x=1"),
            ("http.status_code", "500"),
            ("http.route", "/*"),
            ("apisix.route_id", "r1"),
            ("gatewright.revision", "17"),
            ("arg_x", "1"),
            ("x-tag-one", "1"),
        ] {
            assert_eq!(attributes[name], value, "{name}");
        }
        assert!(!attributes.contains_key("arg_none"));
    }

    #[test]
    fn samplers_decide_what_is_recorded_and_the_upstream_hears_of_it() {
        let root = |root: Value| json!({"name": "parent_base", "options": {"root": root}});
        for (sampler, parent, recorded) in [
            (json!({}), Some(PARENT), false),
            (json!({"name": "always_on"}), None, true),
            (json!({"name": "always_on"}), Some(UNSAMPLED), true),
            (json!({"name": "always_off"}), Some(PARENT), false),
            (json!({"name": "trace_id_ratio", "options": {"fraction": 1}}), None, true),
            (json!({"name": "trace_id_ratio", "options": {"fraction": 0}}), Some(PARENT), false),
            (root(json!({"name": "always_on"})), Some(UNSAMPLED), false),
            (root(json!({"name": "always_on"})), None, true),
            (root(json!({"name": "always_off"})), Some(PARENT), true),
            (root(json!({"name": "trace_id_ratio", "options": {"fraction": 1}})), None, true),
        ] {
            let trial = tracing(&json!({ "sampler": sampler }), &json!({}));
            let field = parent.map_or(String::new(), |parent| format!("\ntraceparent: {parent}"));
            let run = trial.run(&format!("GET /{field}"));
            let sent = Context::parse(run.sent("traceparent").as_bytes()).unwrap();
            run.respond("200");
            assert_eq!(
                (sent.sampled, exported(&trial).len()),
                (recorded, usize::from(recorded)),
                "{sampler} {parent:?}"
            );
        }
    }

    #[test]
    fn a_new_trace_may_be_known_by_the_id_of_the_request() {
        let metadata = json!({"trace_id_source": "x-request-id"});
        let trial = tracing(&json!({"sampler": {"name": "always_on"}}), &metadata);
        for (id, is_taken) in [("4bf92f35-77b3-4da6-a3ce-929d0e0e4736", true), ("short", false)] {
            let run = trial.run(&format!("GET /\nX-Request-Id: {id}\ntracestate: a=b"));
            assert_eq!(run.sent("traceparent").contains("4bf92f3577b34da6a3ce929d0e0e4736"), is_taken);
            assert_eq!(run.sent("tracestate"), "", "it belongs to another trace");
        }
    }
}
