//! A log entry: a JSON object with everything that is known of an exchange, or with the fields that were asked for.

use std::time::Duration;

use gatewright_model::expression::Variable;
use gatewright_model::message::{Field, Fields, Version};
use serde_json::{Map, Value, json};

use super::bodies::Captured;
use crate::exchange::Exchange;
use crate::kind::Outcome;
use crate::response::Response;
use crate::template::Template;

/// The version that entries tell.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What an entry consists of.
pub(super) struct Format {
    /// Absent: everything.
    fields: Option<Vec<(String, Member)>>,
    extra: Vec<(String, Member)>,
    /// Fields of the response that are asked for, as variables.
    of_response: Vec<(String, String)>,
}

enum Member {
    Constant(Value),
    Variable(Variable),
    /// Text around variables.
    Text(Template),
    Object(Vec<(String, Member)>),
}

/// Fields of the head of a response.
struct ResponseFields(Map<String, Value>);

impl Format {
    pub(super) fn parse(fields: Option<&Map<String, Value>>, extra: Option<&Map<String, Value>>) -> Self {
        let fields = fields.map(parse_object);
        let extra = extra.map(parse_object).unwrap_or_default();
        let mut of_response = Vec::new();
        fields.iter().flatten().chain(&extra).for_each(|(_, field)| field.of_response(&mut of_response));
        Self { fields, extra, of_response }
    }

    /// Notes what will be asked of the head of the response.
    pub(super) fn note_response(&self, exchange: &mut Exchange<'_>, response: &Response<'_>) {
        for (variable, name) in &self.of_response {
            if let Some(value) = response.field(name).map(<[u8]>::to_vec) {
                exchange.set_variable(variable, value);
            }
        }
        if self.fields.is_none() {
            exchange.set_note(ResponseFields(object_of(&response.head.fields)));
        }
    }

    /// The entry of an exchange that is over.
    pub(super) fn write(
        &self,
        exchange: &mut Exchange<'_>,
        outcome: &Outcome,
        captured: &Captured,
    ) -> Vec<u8> {
        for (name, body) in [("request_body", &captured.request), ("resp_body", &captured.response)] {
            if let Some(body) = body {
                exchange.set_variable(name, body.clone());
            }
        }
        let mut entry = match &self.fields {
            None => everything(exchange, outcome),
            Some(fields) => {
                let mut entry = object(fields, exchange);
                let known = |text: &str| (!text.is_empty()).then(|| Value::from(text));
                for (name, id) in
                    [("route_id", exchange.matched.route_id), ("service_id", exchange.matched.service_id)]
                {
                    if let Some(id) = known(id) {
                        entry.insert(name.to_owned(), id);
                    }
                }
                entry
            }
        };
        entry.extend(object(&self.extra, exchange));
        for (part, body) in [("request", &captured.request), ("response", &captured.response)] {
            let Some(body) = body else { continue };
            let part = entry.entry(part).or_insert_with(|| json!({}));
            if let Some(part) = part.as_object_mut() {
                part.insert("body".to_owned(), lossy(body));
            }
        }
        Value::Object(entry).to_string().into_bytes()
    }
}

/// The request as it came, with what of its body is in an entry; `quoted`: as a string of JSON.
pub(super) fn original(exchange: &Exchange<'_>, captured: &Captured, quoted: bool) -> Vec<u8> {
    let request = &*exchange.request;
    let version: &[u8] = match request.version {
        Version::Http10 => b"HTTP/1.0",
        Version::Http11 => b"HTTP/1.1",
        Version::Http2 => b"HTTP/2.0",
    };
    let mut text = [request.bytes(request.method_text), request.bytes(request.target), version].join(&b' ');
    text.extend_from_slice(b"\r\n");
    request.fields.write_to(&mut text);
    text.extend_from_slice(b"\r\n");
    text.extend_from_slice(captured.request.as_deref().unwrap_or_default());
    if quoted { lossy(&text).to_string().into_bytes() } else { text }
}

impl Member {
    /// Variables that fields of the response are the values of, with the names of those.
    fn of_response(&self, found: &mut Vec<(String, String)>) {
        match self {
            Self::Variable(Variable::Other(name)) => {
                let field = name.strip_prefix("sent_http_").or(name.strip_prefix("upstream_http_"));
                found.extend(field.map(|field| (name.to_string(), field.replace('_', "-"))));
            }
            Self::Object(fields) => fields.iter().for_each(|(_, field)| field.of_response(found)),
            Self::Variable(_) | Self::Constant(_) | Self::Text(_) => {}
        }
    }

    fn value(&self, exchange: &Exchange<'_>) -> Option<Value> {
        match self {
            Self::Constant(value) => Some(value.clone()),
            Self::Variable(variable) => exchange.text(variable).map(|text| lossy(&text)),
            Self::Text(template) => template.render_some(exchange).map(|text| lossy(&text)),
            Self::Object(fields) => Some(Value::Object(object(fields, exchange))),
        }
    }
}

fn parse_object(object: &Map<String, Value>) -> Vec<(String, Member)> {
    let parse = |value: &Value| match value {
        Value::String(text) if text.contains('$') => match text.strip_prefix('$') {
            Some(name) if name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') => {
                Member::Variable(Variable::of(name))
            }
            _ => Member::Text(Template::parse(text)),
        },
        Value::Object(object) => Member::Object(parse_object(object)),
        constant => Member::Constant(constant.clone()),
    };
    object.iter().map(|(name, value)| (name.clone(), parse(value))).collect()
}

fn object(fields: &[(String, Member)], exchange: &Exchange<'_>) -> Map<String, Value> {
    fields.iter().filter_map(|(name, field)| Some((name.clone(), field.value(exchange)?))).collect()
}

fn everything(exchange: &Exchange<'_>, outcome: &Outcome) -> Map<String, Value> {
    let mut entry = match exchange.is_stream() {
        true => of_stream(exchange, outcome),
        false => of_request(exchange, outcome),
    };
    let common = json!({
        "server": { "hostname": text(exchange, "hostname"), "version": VERSION },
        "service_id": exchange.matched.service_id,
        "route_id": exchange.matched.route_id,
        "client_ip": exchange.client_address().ip().to_canonical().to_string(),
        "start_time": u64::try_from(outcome.begun.as_millis()).unwrap_or(u64::MAX),
        "latency": millis(outcome.total),
        "apisix_latency": millis(outcome.gateway()),
    });
    let consumer = exchange.state.consumer.as_ref().map(|consumer| json!({ "username": &*consumer.name }));
    for (name, value) in [
        ("consumer", consumer),
        ("upstream", outcome.node.map(|node| node.to_string().into())),
        ("upstream_latency", outcome.upstream.map(|upstream| millis(upstream).into())),
    ] {
        entry.extend(value.map(|value| (name.to_owned(), value)));
    }
    entry.extend(members(common));
    entry
}

fn of_request(exchange: &Exchange<'_>, outcome: &Outcome) -> Map<String, Value> {
    let request = &*exchange.request;
    let uri = String::from_utf8_lossy(request.bytes(request.target)).into_owned();
    let host = String::from_utf8_lossy(request.bytes(request.host)).into_owned();
    let url = format!("{}://{host}:{}{uri}", text(exchange, "scheme"), exchange.client.local.port());
    let query = request.query.map(|query| request.bytes(query)).unwrap_or_default();
    let response = exchange.note::<ResponseFields>().map(|fields| fields.0.clone()).unwrap_or_default();
    members(json!({
        "request": {
            "url": url,
            "uri": uri,
            "method": String::from_utf8_lossy(request.bytes(request.method_text)),
            "headers": object_of(&request.fields),
            "querystring": pairs(form_urlencoded::parse(query)),
            "size": outcome.bytes_in,
        },
        "response": { "status": outcome.status, "headers": response, "size": outcome.bytes_out },
    }))
}

/// What there is of a stream instead: how it came, and how it ended.
fn of_stream(exchange: &Exchange<'_>, outcome: &Outcome) -> Map<String, Value> {
    let local = exchange.client.local;
    members(json!({
        "request": { "size": outcome.bytes_in },
        "response": { "status": outcome.status, "size": outcome.bytes_out },
        "stream": {
            "protocol": text(exchange, "protocol"),
            "server_addr": local.ip().to_canonical().to_string(),
            "server_port": local.port(),
            "server_name": text(exchange, "ssl_server_name"),
            "end": text(exchange, "stream_end"),
            "reject_reason": text(exchange, "reject_reason"),
        },
    }))
}

fn text(exchange: &Exchange<'_>, name: &str) -> String {
    let text = exchange.text(&Variable::of(name)).unwrap_or_default();
    String::from_utf8_lossy(&text).into_owned()
}

fn members(object: Value) -> Map<String, Value> {
    match object {
        Value::Object(members) => members,
        _ => Map::new(),
    }
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// Fields by name in lower case; one that is repeated has a list.
fn object_of(fields: &Fields) -> Map<String, Value> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let named = |field: &Field| {
        (text(fields.bytes(field.name)).to_ascii_lowercase(), text(fields.bytes(field.value)))
    };
    pairs(fields.iter().map(named))
}

fn pairs(pairs: impl Iterator<Item = (impl Into<String>, impl Into<String>)>) -> Map<String, Value> {
    let mut object = Map::new();
    for (name, value) in pairs {
        let value = Value::from(value.into());
        match object.entry(name.into()) {
            serde_json::map::Entry::Vacant(place) => drop(place.insert(value)),
            serde_json::map::Entry::Occupied(mut place) => match place.get_mut() {
                Value::Array(values) => values.push(value),
                first => *first = Value::Array(vec![first.take(), value]),
            },
        }
    }
    object
}

fn lossy(text: &[u8]) -> Value {
    String::from_utf8_lossy(text).into_owned().into()
}
