//! `zipkin`: reports a share of requests as spans of a trace, which goes on to the upstream in B3 fields.
//!
//! A trace that a client began goes on, and its decision whether it is recorded counts; otherwise `sample_ratio`
//! decides. A recorded request is two spans: the request as the client saw it, and the part that the upstream took.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gatewright_model::validation::Violations;
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::exchange::{Answer, Exchange, Flow};
use crate::kind::{self, Built, Category, Kind, Outcome, Phase, Phases, Plugin, Site};
use crate::outbound::Request;
use crate::schema;
use crate::shipping::{self, Outbox, Parcel, Settings};
use crate::tracing::b3::Context;
use crate::tracing::{SpanId, TraceId, serving};

pub(crate) const KIND: Kind = Kind {
    name: "zipkin",
    priority: 12011,
    category: Category::Other,
    phases: Phases::of(&[Phase::Rewrite, Phase::Log]),
    schema: || {
        let address =
            json!({ "type": "string", "pattern": r"^[0-9]{1,3}.[0-9]{1,3}.[0-9]{1,3}.[0-9]{1,3}$" });
        let schema = schema::field(schema::of::<Config>(), "server_addr", address);
        schema::field(schema, "span_version", json!({ "enum": [1, 2] }))
    },
    metadata: None,
    credential: None,
    build,
};

/// When spans are posted.
const BATCHES: Settings = Settings {
    batch_max_size: 1000,
    inactive_timeout: Duration::from_secs(5),
    buffer_duration: Duration::from_secs(60),
    max_retry_count: 0,
    retry_delay: Duration::from_secs(1),
    pending_max: 8192,
};

#[derive(Deserialize, ToSchema)]
struct Config {
    /// Where spans are posted, such as `http://127.0.0.1:9411/api/v2/spans`.
    endpoint: String,
    /// The share of requests that is recorded.
    #[schema(minimum = 0.00001, maximum = 1)]
    sample_ratio: f64,
    /// What the gateway is called in spans.
    #[serde(default = "service_name")]
    #[schema(required = false, default = "APISIX")]
    service_name: String,
    /// The address of the gateway in spans; absent: where the request arrived.
    #[serde(default)]
    server_addr: Option<String>,
    /// Kept for compatibility: requests are two spans in any case.
    #[serde(default)]
    #[schema(required = false, value_type = u64, default = 2)]
    #[allow(dead_code, reason = "there is one form of spans")]
    span_version: Option<u8>,
}

fn service_name() -> String {
    "APISIX".to_owned()
}

struct Zipkin {
    config: Config,
    outbox: Outbox,
}

/// The spans of a request that is recorded.
struct Traced {
    trace: String,
    parent: Option<SpanId>,
    request: SpanId,
    proxy: SpanId,
    debug: bool,
}

fn build(config: Value, site: &Site<'_>) -> Built {
    let config: Config = kind::parse(config)?;
    if !["http://", "https://"].iter().any(|scheme| config.endpoint.starts_with(scheme)) {
        return Err(Violations::one("/endpoint", "must begin with http:// or https://"));
    }
    let endpoint = config.endpoint.clone();
    let packing = Box::new(move |spans: &[Bytes]| {
        let request = Request::post(&endpoint, shipping::json_array(spans));
        vec![Parcel::Request(request.field("Content-Type", "application/json"))]
    });
    let outbox = Outbox::new(KIND.name, BATCHES, site.outbound, packing);
    Ok(Arc::new(Zipkin { config, outbox }))
}

impl Plugin for Zipkin {
    fn rewrite(&self, exchange: &mut Exchange<'_>) -> Flow {
        let Ok(context) = Context::of(exchange) else {
            return Flow::respond(Answer::message(400, "bad b3 header"));
        };
        let surroundings = exchange.surroundings;
        let by_chance = || TraceId(u128::from(surroundings.random())).is_among(self.config.sample_ratio);
        exchange.request.fields.remove(b"b3");
        if !context.sampled.unwrap_or_else(by_chance) {
            exchange.request.fields.set("X-B3-Sampled", b"0");
            return Flow::Continue;
        }
        let traced = Traced {
            trace: context.trace.unwrap_or_else(|| TraceId::random(surroundings).text()),
            // A span that a client began and the gateway goes on with would be one of two processes.
            parent: context.span,
            request: SpanId::random(surroundings),
            proxy: SpanId::random(surroundings),
            debug: context.debug,
        };
        let fields = &mut exchange.request.fields;
        fields.set("X-B3-TraceId", traced.trace.as_bytes());
        fields.set("X-B3-ParentSpanId", traced.request.text().as_bytes());
        fields.set("X-B3-SpanId", traced.proxy.text().as_bytes());
        fields.set("X-B3-Sampled", b"1");
        let parent = format!("00-{:0>32}-{}-01", traced.trace, traced.request.text());
        exchange.set_variable("zipkin_context_traceparent", parent.into_bytes());
        exchange.set_variable("zipkin_trace_id", traced.trace.clone().into_bytes());
        exchange.set_variable("zipkin_span_id", traced.request.text().into_bytes());
        exchange.set_note(traced);
        Flow::Continue
    }

    fn log(&self, exchange: &mut Exchange<'_>, outcome: &Outcome) {
        if let Some(traced) = exchange.note::<Traced>() {
            self.outbox.put(self.request_span(traced, exchange, outcome).to_string().into_bytes());
            if let Some(upstream) = outcome.upstream {
                let span = self.proxy_span(traced, exchange, (outcome, upstream));
                self.outbox.put(span.to_string().into_bytes());
            }
        }
    }
}

impl Zipkin {
    fn request_span(&self, traced: &Traced, exchange: &Exchange<'_>, outcome: &Outcome) -> Value {
        let request = &*exchange.request;
        let lossy = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let peer = exchange.client_address();
        let mut span = json!({
            "traceId": traced.trace,
            "id": traced.request.text(),
            "name": "apisix.request",
            "kind": "SERVER",
            "timestamp": micros(outcome.begun),
            "duration": micros(outcome.total).max(1),
            "localEndpoint": self.local(exchange),
            "remoteEndpoint": endpoint(&peer.ip().to_canonical().to_string(), peer.port()),
            "tags": {
                "component": "apisix",
                "http.method": lossy(request.bytes(request.method_text)),
                "http.url": lossy(request.bytes(request.target)),
                "http.status_code": outcome.status.to_string(),
            },
        });
        for (name, value) in serving(exchange) {
            span["tags"][name] = value.into();
        }
        if let Some(parent) = traced.parent {
            span["parentId"] = parent.text().into();
        }
        if traced.debug {
            span["debug"] = true.into();
        }
        span
    }

    fn proxy_span(&self, traced: &Traced, exchange: &Exchange<'_>, of: (&Outcome, Duration)) -> Value {
        let (outcome, took) = of;
        let begun = outcome.begun + outcome.total.saturating_sub(took);
        let mut span = json!({
            "traceId": traced.trace,
            "id": traced.proxy.text(),
            "parentId": traced.request.text(),
            "name": "apisix.proxy",
            "kind": "CLIENT",
            "timestamp": micros(begun),
            "duration": micros(took).max(1),
            "localEndpoint": self.local(exchange),
            "tags": { "component": "apisix", "http.status_code": outcome.upstream_status.unwrap_or(outcome.status).to_string() },
        });
        if let Some(node) = outcome.node {
            span["remoteEndpoint"] = endpoint(&node.ip().to_canonical().to_string(), node.port());
        }
        span
    }

    fn local(&self, exchange: &Exchange<'_>) -> Value {
        let arrived = exchange.client.local;
        let address = self.config.server_addr.clone();
        let address = address.unwrap_or_else(|| arrived.ip().to_canonical().to_string());
        let mut local = endpoint(&address, arrived.port());
        local["serviceName"] = self.config.service_name.as_str().into();
        local
    }
}

fn endpoint(address: &str, port: u16) -> Value {
    let family = if address.contains(':') { "ipv6" } else { "ipv4" };
    json!({ family: address, "port": port })
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbound::Response;
    use crate::testing::{Trial, refused};

    const TRACE: &str = "80f198ee56343ba864fe8b2a57d3eff7";
    const SPAN: &str = "e457b5a2e4d86bd1";

    fn tracing(ratio: f64) -> Trial {
        let config = json!({"endpoint": "http://zipkin.example/api/v2/spans", "sample_ratio": ratio});
        Trial::of("zipkin", config).answering(|_| Ok(Response { status: 202, ..Response::default() }))
    }

    fn spans(trial: &Trial) -> Vec<Value> {
        trial.pass(Duration::from_secs(6));
        let posted = trial.asked();
        let of = |request: &Request| serde_json::from_slice::<Vec<Value>>(&request.body).unwrap();
        posted.iter().flat_map(of).collect()
    }

    #[test]
    fn a_recorded_request_is_two_spans_of_a_trace_that_goes_on() {
        let trial = tracing(1.0);
        let run = trial.run(&format!("GET /a\nX-B3-TraceId: {TRACE}\nX-B3-SpanId: {SPAN}\nX-B3-Sampled: 1"));
        let sent =
            ["X-B3-TraceId", "X-B3-ParentSpanId", "X-B3-SpanId", "X-B3-Sampled"].map(|name| run.sent(name));
        run.respond("201");
        let [request, proxy] = spans(&trial).try_into().unwrap();
        assert_eq!((&sent[0], &sent[3]), (&TRACE.to_owned(), &"1".to_owned()));
        assert_eq!((request["traceId"].as_str(), request["parentId"].as_str()), (Some(TRACE), Some(SPAN)));
        assert_eq!(request["id"].as_str(), Some(sent[1].as_str()));
        assert_eq!((&proxy["id"], &proxy["parentId"]), (&json!(sent[2]), &request["id"]));
        assert_eq!((&request["kind"], &proxy["kind"]), (&json!("SERVER"), &json!("CLIENT")));
        assert_eq!((&request["duration"], &proxy["duration"]), (&json!(500_000), &json!(400_000)));
        assert_eq!(request["tags"]["http.status_code"], "201");
        assert_eq!(request["tags"]["gatewright.revision"], "17");
        assert_eq!(
            request["localEndpoint"],
            json!({"ipv4": "10.0.0.1", "port": 9080, "serviceName": "APISIX"})
        );
        assert_eq!(proxy["remoteEndpoint"], json!({"ipv4": "10.1.1.1", "port": 8080}));
    }

    #[test]
    fn the_client_decides_and_chance_where_it_does_not() {
        for (ratio, fields, recorded) in [
            (1.0, String::new(), true),
            (0.00001, String::new(), false),
            (0.00001, "\nX-B3-Sampled: 1".to_owned(), true),
            (0.00001, "\nX-B3-Flags: 1".to_owned(), true),
            (1.0, "\nX-B3-Sampled: 0".to_owned(), false),
            (1.0, "\nb3: 0".to_owned(), false),
            (0.00001, format!("\nb3: {TRACE}-{SPAN}-1"), true),
        ] {
            let trial = tracing(ratio);
            let run = trial.run(&format!("GET /{fields}"));
            assert_eq!(run.sent("X-B3-Sampled"), if recorded { "1" } else { "0" }, "{ratio} {fields}");
            run.respond("200");
            assert_eq!(spans(&trial).len(), if recorded { 2 } else { 0 }, "{ratio} {fields}");
        }
    }

    #[test]
    fn a_malformed_context_is_refused() {
        let trial = tracing(1.0);
        assert_eq!(trial.run("GET /\nb3: nonsense").answered(), "400 {\"message\":\"bad b3 header\"}\n");
        assert_eq!(refused("zipkin", &json!({"endpoint": "zipkin", "sample_ratio": 1})), ["/endpoint"]);
        assert_eq!(refused("zipkin", &json!({"endpoint": "http://z", "sample_ratio": 2})), ["/sample_ratio"]);
    }
}
