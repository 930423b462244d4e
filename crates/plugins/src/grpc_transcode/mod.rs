//! `grpc-transcode`: offers one call of a gRPC service as HTTP with JSON.
//!
//! What can be asked is written in a proto of the gateway group, an object of its own, so that routes share it. Only
//! unary calls are offered: one message there, one back. The upstream must have the scheme `grpc` or `grpcs`. For
//! browsers with a gRPC client use `grpc-web`, which streams.
//!
//! The answer is read as a whole before anything of it goes to the client, because gRPC says at the end how a call
//! went, and HTTP at the start.

mod arguments;
mod message;
mod status;

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use gatewright_model::message::Method;
use prost_reflect::{MessageDescriptor, MethodDescriptor};
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::exchange::{Answer, Body, Exchange, Flow};
use crate::kind::{self, Built, Category, Kind, Phase, Phases, Plugin, Site};
use crate::response::{Response, Whole};
use crate::schema;
use message::{PbOption, Style};
use status::Ending;

pub(crate) const KIND: Kind = Kind {
    name: "grpc-transcode",
    priority: 506,
    category: Category::Other,
    phases: Phases::of(&[Phase::Access, Phase::Response]),
    schema: || {
        let id = json!({ "anyOf": [
            { "type": "string", "minLength": 1, "maxLength": 64, "pattern": "^[a-zA-Z0-9-_.]+$" },
            { "type": "integer", "minimum": 1 },
        ] });
        let group = |names: &[&str]| json!({ "type": "string", "enum": names });
        let options = json!({ "type": "string", "anyOf": [
            group(&["enum_as_name", "enum_as_value"]),
            group(&["int64_as_number", "int64_as_string", "int64_as_hexstring"]),
            group(&["auto_default_values", "no_default_values", "use_default_values", "use_default_metatable"]),
            group(&["enable_hooks", "disable_hooks"]),
        ] });
        let schema = schema::field(schema::of::<Config>(), "proto_id", id);
        schema::field(schema, "pb_option[]", options)
    },
    metadata: None,
    credential: None,
    build,
};

/// Bytes of the longest request that is transcoded: as much as an answer may have unless the configuration says
/// otherwise.
const REQUEST_BYTES_MAX: usize = 64 * 1024 * 1024;

/// The longest timeout that gRPC can say in milliseconds: it has eight digits.
const TIMEOUT_MILLIS_MAX: f64 = 99_999_999.0;

#[derive(Deserialize, ToSchema)]
struct Config {
    /// The proto of the gateway group that the service is written in.
    #[schema(value_type = Object)]
    proto_id: Value,
    /// The service, with its package.
    service: String,
    /// What it is asked.
    method: String,
    /// Milliseconds the call may take; 0: as long as the upstream lets it.
    #[serde(default)]
    #[schema(required = false, default = 0)]
    deadline: f64,
    /// How messages become JSON.
    #[serde(default = "pb_option")]
    #[schema(required = false, min_items = 1, default = pb_option)]
    pb_option: Vec<PbOption>,
    /// Whether the answer to a call that failed says all that the service said of it.
    #[serde(default)]
    #[schema(required = false, default = false)]
    show_status_in_body: bool,
    /// The kind of message that the details of a failure are.
    status_detail_type: Option<String>,
    /// Bytes of the longest answer that is transcoded.
    #[serde(default = "answer_bytes_max")]
    #[schema(required = false, value_type = u64, minimum = 1, default = 67_108_864)]
    max_resp_body_size: NonZeroU64,
}

fn pb_option() -> Vec<PbOption> {
    vec![PbOption::EnumAsName, PbOption::Int64AsNumber, PbOption::AutoDefaultValues, PbOption::DisableHooks]
}

fn answer_bytes_max() -> NonZeroU64 {
    NonZeroU64::MIN.saturating_add(64 * 1024 * 1024 - 1)
}

struct GrpcTranscode {
    /// The call that is offered, or why none is.
    call: Result<MethodDescriptor, String>,
    path: String,
    /// `grpc-timeout`, and the same as a time.
    deadline: Option<(String, Duration)>,
    style: Style,
    answer_bytes_max: NonZeroU64,
    shows_status: bool,
    /// The kind of message that details of a failure are, if that was said and the proto knows it.
    detail: Option<MessageDescriptor>,
}

/// The mark of a request that went on as a call.
struct Called;

fn build(config: Value, site: &Site<'_>) -> Built {
    let config: Config = kind::parse(config)?;
    let id = match &config.proto_id {
        Value::String(id) => id.clone(),
        number => number.to_string(),
    };
    let Config { service, method, .. } = &config;
    // A proto that is not there (yet) is no mistake of this configuration: requests are told until it comes.
    let proto = site.protos.get(&id);
    let call = match proto {
        None => Err(format!("proto `{id}` is not there")),
        Some(proto) => match proto.method(service, method) {
            None => Err(format!("proto `{id}` has no method `{method}` of a service `{service}`")),
            Some(call) if call.is_client_streaming() || call.is_server_streaming() => {
                Err(format!("`{service}/{method}` streams; only unary calls can be transcoded"))
            }
            Some(call) => Ok(call),
        },
    };
    let detail = config.status_detail_type.as_deref();
    let millis = config.deadline.clamp(0.0, TIMEOUT_MILLIS_MAX).ceil();
    let deadline =
        (millis > 0.0).then(|| (format!("{millis:.0}m"), Duration::from_secs_f64(millis / 1000.0)));
    Ok(Arc::new(GrpcTranscode {
        call,
        path: format!("/{service}/{method}"),
        deadline,
        style: Style::of(&config.pb_option),
        answer_bytes_max: config.max_resp_body_size,
        shows_status: config.show_status_in_body,
        detail: proto.and_then(|proto| proto.message(detail?)),
    }))
}

impl Plugin for GrpcTranscode {
    fn access(&self, exchange: &mut Exchange<'_>) -> Flow {
        let call = match &self.call {
            Ok(call) => call,
            Err(reason) => return Flow::respond(Answer::error_msg(503, reason)),
        };
        // It is asked for in any case: what is not read as a whole cannot be replaced.
        match &exchange.state.body {
            Body::Unread => return Flow::ReadBody(REQUEST_BYTES_MAX),
            Body::TooLarge => return Flow::respond(Answer::error_msg(413, "the body is too long")),
            Body::Read(_) => {}
        }
        let asked = arguments_of(exchange, &call.input());
        match asked.and_then(|json| message::framed(&call.input(), json)) {
            Ok(framed) => {
                self.forward(exchange, framed);
                Flow::Continue
            }
            Err(reason) => Flow::respond(Answer::error_msg(400, &reason)),
        }
    }

    fn response(&self, exchange: &mut Exchange<'_>, response: &mut Response<'_>) {
        // What does not come from the service is JSON already, or a page.
        let (Some(Called), Some(whole), Ok(call)) = (exchange.note(), response.whole.take(), &self.call)
        else {
            return;
        };
        if response.head.status >= 300 {
            return;
        }
        let answer = self.transcoded(call, response, &whole);
        for name in ["grpc-status", "grpc-message", "grpc-status-details-bin", "grpc-encoding"] {
            response.head.fields.remove(name.as_bytes());
        }
        response.head.status = answer.status;
        response.head.reason = gatewright_model::message::Span::default();
        response.set_field("Content-Type", b"application/json");
        for (name, value) in &answer.fields {
            response.set_field(name, value);
        }
        response.replace_body(answer.body);
    }
}

impl GrpcTranscode {
    /// Makes a call of the request.
    fn forward(&self, exchange: &mut Exchange<'_>, framed: bytes::Bytes) {
        exchange.set_method("POST");
        exchange.set_path(self.path.as_bytes());
        exchange.set_query(None);
        let fields = &mut exchange.request.fields;
        for name in ["Accept-Encoding", "grpc-accept-encoding", "grpc-encoding", "Expect"] {
            fields.remove(name.as_bytes());
        }
        fields.set("Content-Type", b"application/grpc");
        fields.set("TE", b"trailers");
        if let Some((text, time)) = &self.deadline {
            fields.set("grpc-timeout", text.as_bytes());
            exchange.state.silence_max = Some(*time);
        }
        exchange.state.body_replaced = Some(framed);
        exchange.state.answer_bytes_max = Some(self.answer_bytes_max);
        exchange.set_note(Called);
    }

    /// What the client is answered.
    fn transcoded(&self, call: &MethodDescriptor, response: &Response<'_>, whole: &Whole) -> Answer {
        let is_grpc =
            response.field("Content-Type").is_some_and(|kind| kind.starts_with(b"application/grpc"));
        let ending = match is_grpc {
            true => Ending::of(&whole.trailers).or_else(|| Ending::of(&response.head.fields)),
            false => None,
        };
        let Some(ending) = ending else {
            return Answer::error_msg(502, "the upstream did not answer as gRPC does");
        };
        let answer = match ending.code {
            0 => {
                let read = message::unframed(&whole.body);
                match read.and_then(|bytes| message::json(&call.output(), bytes, self.style)) {
                    Ok(json) => Answer::new(200).body(json.to_string()),
                    Err(reason) => {
                        let message = format!("the upstream's message cannot be read: {reason}");
                        return Answer::error_msg(502, &message);
                    }
                }
            }
            code => {
                let answer = Answer::new(status::http_status(code));
                match ending.details.filter(|_| self.shows_status) {
                    Some(details) => {
                        answer.body(status::described(details, self.detail.as_ref(), self.style))
                    }
                    None => answer,
                }
            }
        };
        let answer = answer.field("grpc-status", ending.code.to_string());
        match ending.message {
            Some(message) => answer.field("grpc-message", message),
            None => answer,
        }
    }
}

/// What the request asks, as the JSON of a message.
fn arguments_of(exchange: &Exchange<'_>, input: &MessageDescriptor) -> Result<Value, String> {
    let content_type = exchange.field("Content-Type").unwrap_or_default().to_ascii_lowercase();
    let is = |kind: &[u8]| content_type.starts_with(kind);
    let body = match &exchange.state.body {
        Body::Read(body) => &body[..],
        Body::Unread | Body::TooLarge => &[],
    };
    let method = exchange.request.method;
    if matches!(method, Method::Post | Method::Put | Method::Patch) && !body.is_empty() {
        if is(b"application/json") {
            let json: Value =
                serde_json::from_slice(body).map_err(|error| format!("the body is not JSON: {error}"))?;
            return if json.is_object() { Ok(json) } else { Err("the body is no JSON object".to_owned()) };
        }
        if is(b"application/x-www-form-urlencoded") {
            return Ok(arguments::of_pairs(form_urlencoded::parse(body), input));
        }
    }
    let query = exchange.request.query.map(|query| exchange.request.bytes(query)).unwrap_or_default();
    Ok(arguments::of_pairs(form_urlencoded::parse(query), input))
}

#[cfg(test)]
mod tests;
