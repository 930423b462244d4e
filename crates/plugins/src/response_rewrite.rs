//! `response-rewrite`: changes status, header fields and body of a response.
//!
//! `filters` need the whole body, so they hold it back up to a limit; do not use them on streams.
//! The upstream is asked not to compress where there are filters; a body that is gzip all the same is decoded first,
//! and one in another encoding passes untouched.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use gatewright_model::expression::{Expression, NamedVariables, Pattern};
use gatewright_model::validation::Violations;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::compression::HeldBody;
use crate::edits::Edits;
use crate::exchange::{Exchange, Flow};
use crate::kind::{self, Built, Category, Kind, Phase, Phases, Plugin, Site};
use crate::response::{BodyFilter, Origin, Response};
use crate::schema;
use crate::template::Template;

pub(crate) const KIND: Kind = Kind {
    name: "response-rewrite",
    priority: 899,
    category: Category::Other,
    phases: Phases::of(&[Phase::Rewrite, Phase::Response]),
    schema: || {
        let excludes = |other: &str| json!({ "not": { "required": [other] } });
        let rules = json!({ "dependencies": { "body": excludes("filters"), "filters": excludes("body") } });
        let schema = schema::with::<Config>(rules);
        let schema = schema::field(schema, "vars", json!({ "type": "array" }));
        schema::field(schema, "headers", headers_schema())
    },
    metadata: None,
    credential: None,
    build,
};

#[derive(Deserialize, ToSchema)]
#[serde(default)]
#[schema(default)]
struct Config {
    /// The new status.
    #[schema(minimum = 200, maximum = 598)]
    status_code: Option<u16>,
    /// The new body.
    body: Option<String>,
    /// Whether `body` is written in base64.
    body_base64: bool,
    /// Header fields: `{"add": ["name: value"], "set": …, "remove": …}`, or a map of fields to set.
    #[schema(value_type = Object)]
    headers: Option<Value>,
    /// Expression under which the response is changed.
    #[schema(value_type = Object)]
    vars: Option<Vec<Value>>,
    /// Replacements in the body, one after the other.
    #[schema(min_items = 1)]
    filters: Option<Vec<FilterConfig>>,
    /// Bytes of a body that filters see; a longer one is cut off.
    #[schema(minimum = 1)]
    max_resp_body_size: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            status_code: None,
            body: None,
            body_base64: false,
            headers: None,
            vars: None,
            filters: None,
            max_resp_body_size: 64 * 1024 * 1024,
        }
    }
}

#[derive(Serialize, Deserialize, ToSchema)]
struct FilterConfig {
    /// Regular expression.
    #[schema(min_length = 1)]
    regex: String,
    /// What its match becomes; `$1` is its first group.
    replace: String,
    /// Whether the first match is replaced, or every one.
    #[serde(default)]
    #[schema(required = false, default = "once")]
    scope: Scope,
    /// `i`: upper and lower case are the same.
    #[serde(default = "options")]
    #[schema(required = false, default = "jo")]
    options: String,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Scope {
    #[default]
    Once,
    Global,
}

fn options() -> String {
    "jo".to_owned()
}

fn headers_schema() -> Value {
    let scalar = json!({ "oneOf": [{ "type": "string" }, { "type": "number" }] });
    let names = |pattern: &str| json!({ "type": "array", "minItems": 1, "items": { "type": "string", "pattern": pattern } });
    json!({ "anyOf": [
        schema::map(&scalar),
        { "properties": {
            "add": names("^[^:]+:[^:]*[^/]$"), "remove": names("^[^:]+$"), "set": schema::map(&scalar),
        } },
    ] })
}

struct ResponseRewrite {
    status: Option<u16>,
    body: Option<Bytes>,
    headers: Edits,
    condition: Option<Expression>,
    filters: Arc<[Substitution]>,
    body_bytes_max: usize,
}

impl ResponseRewrite {
    /// Whether nothing is rewritten, whatever the response.
    fn is_idle(&self) -> bool {
        self.status.is_none() && self.body.is_none() && self.filters.is_empty() && self.headers.is_empty()
    }
}

struct Substitution {
    pattern: Pattern,
    replacement: Template,
    global: bool,
}

fn build(config: Value, _: &Site<'_>) -> Built {
    let config: Config = kind::parse(config)?;
    let mut violations = Violations::default();
    let body = config.body.map(|body| match config.body_base64 {
        false => Bytes::from(body),
        true => STANDARD.decode(&body).map(Bytes::from).unwrap_or_else(|_| {
            violations.add("/body", "is not base64, though `body_base64` says so");
            Bytes::new()
        }),
    });
    let condition = config.vars.as_deref().and_then(|elements| {
        Expression::parse(elements).map_err(|wrong| violations.absorb("/vars", wrong)).ok()
    });
    let mut filters = Vec::new();
    for (index, filter) in config.filters.into_iter().flatten().enumerate() {
        match Pattern::compile(&filter.regex, filter.options.contains('i')) {
            Ok(pattern) => filters.push(Substitution {
                pattern,
                replacement: Template::parse(&filter.replace),
                global: filter.scope == Scope::Global,
            }),
            Err(message) => violations.add(format!("/filters/{index}/regex"), message),
        }
    }
    let headers = config.headers.map(|headers| Edits::parse(&headers, "/headers", &mut violations));
    violations.into_result()?;
    Ok(Arc::new(ResponseRewrite {
        status: config.status_code,
        body,
        headers: headers.unwrap_or_default(),
        condition,
        filters: filters.into(),
        body_bytes_max: usize::try_from(config.max_resp_body_size).unwrap_or(usize::MAX),
    }))
}

impl Plugin for ResponseRewrite {
    fn rewrite(&self, exchange: &mut Exchange<'_>) -> Flow {
        if !self.filters.is_empty() {
            exchange.request.fields.remove(b"accept-encoding");
        }
        Flow::Continue
    }

    fn response(&self, exchange: &mut Exchange<'_>, response: &mut Response<'_>) {
        if self.is_idle() {
            return;
        }
        exchange.set_variable("status", response.head.status.to_string().into_bytes());
        if let Origin::Upstream(status) = response.origin {
            exchange.set_variable("upstream_status", status.to_string().into_bytes());
        }
        if self.condition.as_ref().is_some_and(|condition| !condition.holds(&*exchange)) {
            return;
        }
        if let Some(status) = self.status {
            response.head.status = status;
            response.head.reason = gatewright_model::message::Span::default();
        }
        if let Some(body) = &self.body {
            response.forget_identity();
            response.replace_body(body.clone());
        } else if !self.filters.is_empty() {
            let gzip = match response.field("Content-Encoding") {
                None => Some(false),
                Some(encoding) => encoding.eq_ignore_ascii_case(b"gzip").then_some(true),
            };
            if let Some(gzip) = gzip {
                response.forget_identity();
                let held = HeldBody::new(self.body_bytes_max, gzip);
                response.filter_body(Box::new(Searched { filters: Arc::clone(&self.filters), held }));
            }
        }
        let rendered = self.headers.render(&*exchange, &|_| None);
        self.headers.apply(rendered, &mut response.head.fields);
    }
}

/// A body that is read as a whole before it is searched.
struct Searched {
    filters: Arc<[Substitution]>,
    held: HeldBody,
}

impl BodyFilter for Searched {
    fn push(&mut self, piece: &[u8], _: &mut Vec<u8>) {
        self.held.push(piece);
    }

    fn finish(&mut self, out: &mut Vec<u8>) {
        let mut body = self.held.take();
        for filter in &*self.filters {
            body = filter.apply(&body);
        }
        out.append(&mut body);
    }
}

impl Substitution {
    fn apply(&self, body: &[u8]) -> Vec<u8> {
        let nothing = NamedVariables::default();
        let (mut out, mut at, mut copied) = (Vec::with_capacity(body.len()), 0, 0);
        while let Some(groups) = self.pattern.captures_at(body, at) {
            let Some(whole) = groups.first().cloned().flatten() else { break };
            let captured = |group: usize| body.get(groups.get(group)?.clone()?);
            out.extend_from_slice(&body[copied..whole.start]);
            out.extend(self.replacement.render_captured(&nothing, &captured));
            copied = whole.end;
            // An empty match must not be found again at the same place.
            at = if whole.is_empty() { whole.end + 1 } else { whole.end };
            if !self.global || at > body.len() {
                break;
            }
        }
        out.extend_from_slice(&body[copied..]);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Trial, refused};

    #[test]
    fn status_body_and_fields_are_replaced() {
        let trial = Trial::of(
            "response-rewrite",
            json!({"status_code": 201, "body": "new", "headers": {
                "add": ["X-Add: 1"], "set": {"X-Set": "$upstream_status-$arg_a", "X-N": 3}, "remove": ["X-Gone"],
            }}),
        );
        let responded = trial
            .run("GET /?a=b")
            .respond("404\nContent-Length: 3\nETag: \"1\"\nX-Add: 0\nX-Set: old\nX-Gone: 1\n\nold");
        assert_eq!((responded.head.status, responded.body.as_str()), (201, "new"));
        for (name, expected) in [
            ("X-Add", "0, 1"),
            ("X-Set", "404-b"),
            ("X-N", "3"),
            ("X-Gone", ""),
            ("ETag", ""),
            ("Content-Length", ""),
        ] {
            assert_eq!(responded.field(name), expected, "{name}");
        }
        let flat = Trial::of(
            "response-rewrite",
            json!({"headers": {"X-One": "1"}, "body": "aGk=", "body_base64": true}),
        );
        let responded = flat.run("GET /").respond("200\n\nold");
        assert_eq!((responded.field("X-One").as_str(), responded.body.as_str()), ("1", "hi"));
    }

    #[test]
    fn only_responses_that_satisfy_the_condition_change() {
        let trial =
            Trial::of("response-rewrite", json!({"status_code": 200, "vars": [["status", "==", 404]]}));
        assert_eq!(trial.run("GET /").respond("404").head.status, 200);
        assert_eq!(trial.run("GET /").respond("500").head.status, 500);
    }

    #[test]
    fn filters_work_on_the_whole_body() {
        let filter = |filters: Value, body: &str| {
            let trial = Trial::of("response-rewrite", json!({ "filters": filters }));
            let run = trial.run("GET /\nAccept-Encoding: br");
            assert_eq!(run.sent("Accept-Encoding"), "");
            run.respond(&format!("200\n\n{body}")).body
        };
        let once = json!([{"regex": "l+", "replace": "L"}]);
        assert_eq!(filter(once, "hello all"), "heLo all");
        let every = json!([{"regex": "(L)(.)", "replace": "$2$1", "scope": "global", "options": "i"}]);
        assert_eq!(filter(every, "ab lc ld"), "ab cl dl");
        let several =
            json!([{"regex": "a", "replace": "b", "scope": "global"}, {"regex": "^", "replace": "<"}]);
        assert_eq!(filter(several, "aaa"), "<bbb");
        let empty = json!([{"regex": "x*", "replace": "-", "scope": "global"}]);
        assert_eq!(filter(empty, "ab"), "-a-b-");
    }

    #[test]
    fn a_compressed_body_is_decoded_first() {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut encoder, b"hello").unwrap();
        let filters = Arc::new([Substitution {
            pattern: Pattern::compile("e", false).unwrap(),
            replacement: Template::parse("E"),
            global: false,
        }]);
        let mut held = Searched { filters, held: HeldBody::new(100, true) };
        held.push(&encoder.finish().unwrap(), &mut Vec::new());
        let mut out = Vec::new();
        held.finish(&mut out);
        assert_eq!(out, b"hEllo");
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for (config, expected) in [
            (json!({"body": "a", "filters": [{"regex": "a", "replace": ""}]}), vec![""]),
            (json!({"body": "!", "body_base64": true}), vec!["/body"]),
            (json!({"filters": [{"regex": "(", "replace": ""}]}), vec!["/filters/0/regex"]),
            (json!({"vars": [["a", "=", 1]], "status_code": 100}), vec!["/status_code"]),
            (json!({"vars": [["a", "=", 1]]}), vec!["/vars/0/1"]),
            (json!({"headers": {"set": {"Transfer-Encoding": "x"}}}), vec!["/headers/set/Transfer-Encoding"]),
        ] {
            assert_eq!(refused("response-rewrite", &config), expected, "{config}");
        }
    }
}
