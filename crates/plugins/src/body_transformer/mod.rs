//! `body-transformer`: makes another body of a request or a response, with a template.
//!
//! A body is read as a whole, decoded, and written anew as the template says. Use it where one side speaks XML and the
//! other JSON; where only a few words change, response-rewrite is cheaper.
//!
//! * [`decode`]: bodies as values.
//! * [`template`]: templates; [`tokens`] and [`script`]: what stands in them.
//! * [`functions`]: what they may call; [`value`]: values.

mod decode;
mod functions;
mod script;
mod template;
mod tokens;
mod value;

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use gatewright_model::expression::Variable;
use gatewright_model::message::Method;
use gatewright_model::validation::Violations;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use utoipa::ToSchema;

use crate::compression::HeldBody;
use crate::exchange::{Answer, Body, Exchange, Flow};
use crate::kind::{self, Built, Category, Kind, Phase, Phases, Plugin, Site};
use crate::response::{BodyFilter, Response};
use crate::schema;
use template::{Input, Template};
use value::Value;

pub(crate) const KIND: Kind = Kind {
    name: "body-transformer",
    priority: 1080,
    category: Category::Other,
    phases: Phases::of(&[Phase::Rewrite, Phase::Response]),
    schema: || {
        schema::with::<Config>(serde_json::json!({ "anyOf": [
            { "required": ["request"] }, { "required": ["response"] }, { "required": ["request", "response"] },
        ] }))
    },
    metadata: None,
    credential: None,
    build,
};

#[derive(Deserialize, ToSchema)]
struct Config {
    /// What becomes of the body of a request.
    #[serde(default)]
    request: Option<TransformConfig>,
    /// What becomes of the body of a response.
    #[serde(default)]
    response: Option<TransformConfig>,
    /// Bytes of the longest body of a request; a longer one is refused.
    #[serde(default = "bytes_max")]
    #[schema(required = false, minimum = 1, default = 67_108_864)]
    max_req_body_size: u64,
    /// Bytes of the longest body of a response; what is longer is cut.
    #[serde(default = "bytes_max")]
    #[schema(required = false, minimum = 1, default = 67_108_864)]
    max_resp_body_size: u64,
}

#[derive(Serialize, Deserialize, ToSchema)]
struct TransformConfig {
    /// How the body is decoded; absent: as its type says.
    #[serde(default)]
    input_format: Option<Format>,
    /// What is written instead.
    template: String,
    /// Whether the template is written in Base64.
    #[serde(default)]
    template_is_base64: Option<bool>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Format {
    Xml,
    Json,
    Encoded,
    Args,
    Plain,
    Multipart,
}

const fn bytes_max() -> u64 {
    64 * 1024 * 1024
}

struct BodyTransformer {
    request: Option<Transform>,
    response: Option<Arc<Transform>>,
    request_bytes_max: usize,
    response_bytes_max: usize,
}

struct Transform {
    /// Which of the two it is, for messages.
    side: &'static str,
    format: Option<Format>,
    template: Template,
    variables: Vec<Variable>,
}

fn build(config: Json, _: &Site<'_>) -> Built {
    let config: Config = kind::parse(config)?;
    let mut violations = Violations::default();
    let mut transform = |config: Option<TransformConfig>, side| {
        config.and_then(|config| Transform::build(config, side, &mut violations))
    };
    let (request, response) = (transform(config.request, "request"), transform(config.response, "response"));
    violations.into_result()?;
    let bytes = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
    Ok(Arc::new(BodyTransformer {
        request,
        response: response.map(Arc::new),
        request_bytes_max: bytes(config.max_req_body_size),
        response_bytes_max: bytes(config.max_resp_body_size),
    }))
}

impl Plugin for BodyTransformer {
    fn rewrite(&self, exchange: &mut Exchange<'_>) -> Flow {
        if self.response.is_some() {
            // What is transformed has to be read first.
            exchange.request.fields.remove(b"accept-encoding");
        }
        let Some(transform) = &self.request else { return Flow::Continue };
        let body = match (&exchange.state.body_replaced, &exchange.state.body) {
            (Some(replaced), _) => replaced.clone(),
            (None, Body::Read(body)) => body.clone(),
            (None, Body::Unread) => return Flow::ReadBody(self.request_bytes_max),
            (None, Body::TooLarge) => return refuse(exchange, Answer::new(413)),
        };
        if body.len() > self.request_bytes_max {
            return refuse(exchange, Answer::new(413));
        }
        let content_type = text(exchange.field("Content-Type").unwrap_or_default());
        let format = match exchange.request.method {
            Method::Get => Some(Format::Args),
            _ => transform.format_of(&content_type),
        };
        let written = transform.decoded(format, &body, &query(exchange), &content_type).and_then(|root| {
            let variables = transform.variables(exchange);
            transform.written(root, &body, variables)
        });
        match written {
            Ok(written) => {
                exchange.state.body_replaced = Some(written.into());
                Flow::Continue
            }
            Err((status, reason)) => refuse(exchange, Answer::message(status, &reason)),
        }
    }

    fn response(&self, exchange: &mut Exchange<'_>, response: &mut Response<'_>) {
        let is_own = exchange.note::<Refusal>().is_some();
        let Some(transform) = self.response.as_ref().filter(|_| response.has_body && !is_own) else { return };
        let content_type = text(response.field("Content-Type").unwrap_or_default());
        let encoding = response.field("Content-Encoding");
        let is_gzip = encoding.is_some_and(|encoding| encoding.eq_ignore_ascii_case(b"gzip"));
        exchange.set_variable("status", response.head.status.to_string().into_bytes());
        response.forget_identity();
        response.filter_body(Box::new(Transformed {
            format: transform.format_of(&content_type),
            content_type,
            query: query(exchange),
            variables: transform.variables(exchange),
            transform: Arc::clone(transform),
            held: HeldBody::new(self.response_bytes_max, is_gzip),
        }));
    }
}

/// The query of the request as it is written.
fn query(exchange: &Exchange<'_>) -> Vec<u8> {
    let request = &exchange.request;
    request.query.map(|query| request.bytes(query).to_vec()).unwrap_or_default()
}

/// The answer is this plugin's own: what it says is for people to read.
struct Refusal;

fn refuse(exchange: &mut Exchange<'_>, answer: Answer) -> Flow {
    exchange.set_note(Refusal);
    Flow::respond(answer)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Why there is no other body, with the status that says so.
type Refused = (u16, String);

impl Transform {
    fn build(config: TransformConfig, side: &'static str, violations: &mut Violations) -> Option<Self> {
        let decoded =
            STANDARD.decode(config.template.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        // Elsewhere, what can be read as Base64 is taken for it, said or not: braces are no letters of it.
        let written = match (decoded, config.template_is_base64) {
            (Some(decoded), _) if !config.template.trim().is_empty() => decoded,
            (_, Some(true)) => {
                violations
                    .add(format!("/{side}/template"), "is not base64, though `template_is_base64` says so");
                return None;
            }
            _ => config.template,
        };
        let template = Template::parse(&written)
            .map_err(|reason| violations.add(format!("/{side}/template"), reason))
            .ok()?;
        let variables = template.variables.iter().map(|name| Variable::of(name)).collect();
        Some(Self { side, format: config.input_format, template, variables })
    }

    /// How a body of this type is decoded; absent: not at all.
    fn format_of(&self, content_type: &str) -> Option<Format> {
        let by_type = [
            ("text/xml", Format::Xml),
            ("application/xml", Format::Xml),
            ("application/json", Format::Json),
            ("application/x-www-form-urlencoded", Format::Encoded),
            ("multipart/", Format::Multipart),
        ];
        let content_type = content_type.to_ascii_lowercase();
        let listed = by_type.iter().find(|(named, _)| content_type.starts_with(named));
        self.format.or(listed.map(|(_, format)| *format))
    }

    fn variables(&self, exchange: &Exchange<'_>) -> Vec<Value> {
        let value = |variable| exchange.text(variable).map_or(Value::Nil, |value| Value::text(text(&value)));
        self.variables.iter().map(value).collect()
    }

    fn decoded(
        &self,
        format: Option<Format>,
        body: &[u8],
        query: &[u8],
        content_type: &str,
    ) -> Result<Value, Refused> {
        let decoded = match format {
            None | Some(Format::Plain) => Ok(Input::nothing()),
            Some(Format::Args) => Ok(decode::form(query)),
            Some(_) if body.is_empty() => Ok(Input::nothing()),
            Some(Format::Encoded) => Ok(decode::form(body)),
            Some(Format::Json) => decode::json(body),
            Some(Format::Xml) => decode::xml(body),
            Some(Format::Multipart) => decode::multipart(body, content_type),
        };
        decoded.map_err(|reason| (400, format!("{} body decode: {reason}", self.side)))
    }

    fn written(&self, root: Value, body: &[u8], variables: Vec<Value>) -> Result<String, Refused> {
        let body = String::from_utf8_lossy(body);
        let written = self.template.run(&Input { root, body: &body, variables });
        written.map_err(|reason| (503, format!("{} template rendering: {reason}", self.side)))
    }
}

/// A response that is read as a whole before it is written anew.
struct Transformed {
    transform: Arc<Transform>,
    format: Option<Format>,
    content_type: String,
    query: Vec<u8>,
    variables: Vec<Value>,
    held: HeldBody,
}

impl BodyFilter for Transformed {
    fn push(&mut self, piece: &[u8], _: &mut Vec<u8>) {
        self.held.push(piece);
    }

    fn finish(&mut self, out: &mut Vec<u8>) {
        let body = self.held.take();
        let decoded = self.transform.decoded(self.format, &body, &self.query, &self.content_type);
        let variables = std::mem::take(&mut self.variables);
        // What cannot be transformed is not shown: whoever configured this wanted something else to be seen.
        if let Ok(written) = decoded.and_then(|root| self.transform.written(root, &body, variables)) {
            out.extend_from_slice(written.as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::{Trial, refused};

    fn sent(config: Json, request: &str) -> String {
        let trial = Trial::of("body-transformer", json!({ "request": config }));
        let run = trial.run(request);
        match &run.answer {
            Some(_) => run.answered(),
            None => text(run.state.body_replaced.as_deref().unwrap_or(b"unchanged")),
        }
    }

    #[test]
    fn requests_are_written_anew() {
        let template = "<n>{{_escape_xml(name)}}</n><a>{{age + 1}}</a>";
        let body = "{\"name\":\"<x>\",\"age\":20}";
        let as_json = format!("POST /\nContent-Type: application/json\n\n{body}");
        for (config, request, expected) in [
            (json!({"template": template}), as_json.as_str(), "<n>&amp;lt;x&amp;gt;</n><a>21</a>"),
            (json!({"template": "{*_escape_xml(name)*}"}), as_json.as_str(), "&lt;x&gt;"),
            (
                json!({"template": STANDARD.encode("{*name*}"), "template_is_base64": true}),
                as_json.as_str(),
                "<x>",
            ),
            (json!({"template": STANDARD.encode("{*name*}")}), as_json.as_str(), "<x>"),
            (
                json!({"template": "{{a.b}}", "input_format": "xml"}),
                "POST /\nContent-Type: application/json\n\n<a><b>1</b></a>",
                "1",
            ),
            (
                json!({"template": "{{a}}{{b}}"}),
                "POST /\nContent-Type: application/x-www-form-urlencoded\n\na=1&b=2",
                "12",
            ),
            (
                json!({"template": "{{a}}"}),
                "POST /\nContent-Type: multipart/form-data; boundary=X\n\n--X\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1\r\n--X--\r\n",
                "1",
            ),
            (
                json!({"template": "[{*_body*}]{{name}}", "input_format": "plain"}),
                as_json.as_str(),
                &format!("[{body}]"),
            ),
            (
                json!({"template": "{{q}} {{_ctx.var.arg_q}} {{_ctx.var.uri}}", "input_format": "json"}),
                "GET /a?q=1",
                "1 1 &#47;a",
            ),
            (json!({"template": "{{q}}", "input_format": "args"}), "POST /a?q=1\n\nx", "1"),
            (json!({"template": "{{q or 'none'}}"}), "POST /", "none"),
            (
                json!({"template": "{{a}}"}),
                "POST /\nContent-Type: application/json\n\n{broken",
                "400 {\"message\":\"request body decode: key must be a string at line 1 column 2\"}\n",
            ),
            (
                json!({"template": "{{a.b}}"}),
                "POST /\nContent-Type: application/json\n\n{}",
                "503 {\"message\":\"request template rendering: attempt to index a nil value (`b`)\"}\n",
            ),
        ] {
            assert_eq!(sent(config.clone(), request), expected, "{config} {request}");
        }
    }

    #[test]
    fn a_body_that_is_too_long_is_refused() {
        let config = json!({"request": {"template": "x"}, "max_req_body_size": 4});
        let trial = Trial::of("body-transformer", config);
        assert_eq!(trial.run("POST /\n\nfour5").answered(), "413 ");
        assert_eq!(trial.run("POST /\n\nfour").answered(), "");
    }

    #[test]
    fn responses_are_written_anew() {
        let soap = "200\nContent-Type: text/xml\nContent-Length: 99\nETag: \"1\"\n\n\
            <s:Envelope xmlns:s=\"u\"><s:Body><r><c>EUR</c><p>46704314</p></r></s:Body></s:Envelope>";
        let template = r#"{% if Envelope.Body.Fault == nil then %}
{"status":{{_ctx.var.status}},"currency":"{{Envelope.Body.r.c}}","population":{{Envelope.Body.r.p}}}
{% else %}
{"message":{*_escape_json(Envelope.Body.Fault.faultstring)*}}
{% end %}
"#;
        let trial = Trial::of("body-transformer", json!({"response": {"template": template}}));
        let run = trial.run("GET /\nAccept-Encoding: gzip");
        assert_eq!(run.sent("Accept-Encoding"), "");
        let responded = run.respond(soap);
        assert_eq!(responded.body, "{\"status\":200,\"currency\":\"EUR\",\"population\":46704314}\n");
        assert_eq!(
            (responded.field("ETag"), responded.field("Content-Length")),
            (String::new(), String::new())
        );
        let fault = "500\nContent-Type: text/xml\n\n<Envelope><Body><Fault><faultstring>no \"x\"</faultstring></Fault></Body></Envelope>";
        assert_eq!(trial.run("GET /").respond(fault).body, "{\"message\":\"no \\\"x\\\"\"}\n");
        let broken = trial.run("GET /").respond("200\nContent-Type: text/xml\n\nsecret");
        assert_eq!(broken.body, "", "what cannot be transformed is not shown");
        let both = json!({"request": {"template": "{{a.b}}"}, "response": {"template": "x"}});
        let refused = Trial::of("body-transformer", both).run("POST /").respond("200");
        assert!(refused.body.contains("attempt to index"), "why a request is refused is not transformed");
        let cut = json!({"response": {"template": "{*_body*}"}, "max_resp_body_size": 3});
        assert_eq!(Trial::of("body-transformer", cut).run("GET /").respond("200\n\nabcdef").body, "abc");
    }

    #[test]
    fn templates_that_cannot_run_are_refused_when_they_are_written() {
        for (config, expected) in [
            (json!({}), vec![""]),
            (json!({"request": {}}), vec!["/request/template"]),
            (json!({"request": {"template": "{% if x then %}"}}), vec!["/request/template"]),
            (
                json!({"request": {"template": "{% require('os') %}"}, "response": {"template": "{{os.time()}}"}}),
                vec!["/request/template", "/response/template"],
            ),
            (json!({"request": {"template": "{x}", "template_is_base64": true}}), vec!["/request/template"]),
            (json!({"request": {"template": "x", "input_format": "yaml"}}), vec!["/request/input_format"]),
            (json!({"request": {"template": "x"}, "max_req_body_size": 0}), vec!["/max_req_body_size"]),
        ] {
            assert_eq!(refused("body-transformer", &config), expected, "{config}");
        }
    }
}
