//! `mocking`: answers with an example instead of asking the upstream, for APIs that do not exist yet.

use std::sync::Arc;
use std::time::Duration;

use gatewright_model::validation::Violations;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use crate::edits;
use crate::exchange::{Answer, Exchange, Flow, Surroundings};
use crate::kind::{self, Built, Category, Kind, Phase, Phases, Plugin, Site};
use crate::schema;
use crate::template::Template;

pub(crate) const KIND: Kind = Kind {
    name: "mocking",
    priority: 10900,
    category: Category::Other,
    phases: Phases::of(&[Phase::Access]),
    schema: || {
        let schema = schema::with::<Config>(schema::any_of(&["response_example", "response_schema"]));
        let scalar = json!({ "oneOf": [{ "type": "string" }, { "type": "number" }] });
        schema::field(schema, "response_headers", schema::map(&scalar))
    },
    metadata: None,
    credential: None,
    build,
};

/// Seconds of the longest delay: connections are given up after that.
const DELAY_SECONDS_MAX: i64 = 600;

/// How deep random documents may nest: schemas can refer to themselves only by repetition.
const DEPTH_MAX: usize = 16;

#[derive(Deserialize, ToSchema)]
#[serde(default)]
#[schema(default)]
struct Config {
    /// Seconds to wait before the answer.
    delay: i64,
    /// Status of the answer.
    #[schema(minimum = 100)]
    response_status: u16,
    /// Its type.
    content_type: String,
    /// Its body; `$variables` are replaced.
    response_example: Option<String>,
    /// JSON Schema of a body that is made up.
    #[schema(value_type = Object)]
    response_schema: Option<Value>,
    /// Further header fields.
    #[schema(value_type = Object)]
    response_headers: Option<Map<String, Value>>,
    /// Whether `x-mock-by` says that the answer is an example.
    with_mock_header: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            delay: 0,
            response_status: 200,
            content_type: "application/json;charset=utf8".to_owned(),
            response_example: None,
            response_schema: None,
            response_headers: None,
            with_mock_header: true,
        }
    }
}

struct Mocking {
    config: Config,
    example: Option<Template>,
    headers: Vec<(String, Template)>,
}

fn build(config: Value, _: &Site<'_>) -> Built {
    let config: Config = kind::parse(config)?;
    let mut violations = Violations::default();
    if !(0..=DELAY_SECONDS_MAX).contains(&config.delay) {
        violations.add("/delay", format!("must be between 0 and {DELAY_SECONDS_MAX}"));
    }
    if !(200..=599).contains(&config.response_status) {
        violations.add("/response_status", "must be a final status, between 200 and 599");
    }
    let mut headers = Vec::new();
    for (name, value) in config.response_headers.iter().flatten() {
        edits::check_name(name, &format!("/response_headers/{name}"), &mut violations);
        headers.push((name.clone(), Template::parse(&edits::value_text(value))));
    }
    violations.into_result()?;
    let example = config.response_example.as_deref().map(Template::parse);
    Ok(Arc::new(Mocking { config, example, headers }))
}

impl Plugin for Mocking {
    fn access(&self, exchange: &mut Exchange<'_>) -> Flow {
        let body = match (&self.example, &self.config.response_schema) {
            (Some(example), _) => example.render(exchange),
            (None, Some(schema)) if self.config.content_type.contains("xml") => {
                let mut out = b"<?xml version=\"1.0\" encoding=\"UTF-8\"?>".to_vec();
                write_xml("data", &made_up(schema, exchange.surroundings, 0), &mut out);
                out
            }
            (None, Some(schema)) => made_up(schema, exchange.surroundings, 0).to_string().into_bytes(),
            (None, None) => Vec::new(),
        };
        let mut answer = Answer::new(self.config.response_status)
            .field("Content-Type", self.config.content_type.clone())
            .body(body);
        if self.config.with_mock_header {
            answer = answer.field("x-mock-by", concat!("Gatewright/", env!("CARGO_PKG_VERSION")));
        }
        for (name, value) in &self.headers {
            answer = answer.field(name.clone(), edits::one_line(value.render(exchange)));
        }
        let answer = Flow::respond(answer);
        match u64::try_from(self.config.delay) {
            Ok(seconds @ 1..) => Flow::Pause(Duration::from_secs(seconds), Box::new(answer)),
            _ => answer,
        }
    }
}

/// A document that looks like what `schema` describes; examples in it win over chance.
fn made_up(schema: &Value, surroundings: &dyn Surroundings, depth: usize) -> Value {
    if let Some(example) = schema.get("example") {
        return example.clone();
    }
    let chance = surroundings.random();
    match schema.get("type").and_then(Value::as_str) {
        _ if depth > DEPTH_MAX => Value::Null,
        Some("object") | None => {
            let members = schema.get("properties").and_then(Value::as_object).into_iter().flatten();
            let made = members.map(|(name, member)| (name.clone(), made_up(member, surroundings, depth + 1)));
            Value::Object(made.collect())
        }
        Some("array") => {
            let item = schema.get("items").unwrap_or(&Value::Null);
            (0..=chance % 3).map(|_| made_up(item, surroundings, depth + 1)).collect()
        }
        Some("integer") => json!(chance % 10_000),
        #[allow(clippy::cast_precision_loss, reason = "any number will do")]
        Some("number") => json!((chance % 1_000_000) as f64 / 100.0),
        Some("boolean") => json!(chance.is_multiple_of(2)),
        Some(_) => json!(format!("{:08x}", chance % (1 << 32))),
    }
}

fn write_xml(name: &str, value: &Value, out: &mut Vec<u8>) {
    if let Value::Array(items) = value {
        return items.iter().for_each(|item| write_xml(name, item, out));
    }
    out.extend_from_slice(format!("<{name}>").as_bytes());
    match value {
        Value::Object(members) => members.iter().for_each(|(name, member)| write_xml(name, member, out)),
        Value::String(text) => {
            out.extend_from_slice(text.replace('&', "&amp;").replace('<', "&lt;").as_bytes());
        }
        other => out.extend_from_slice(other.to_string().as_bytes()),
    }
    out.extend_from_slice(format!("</{name}>").as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Trial, refused};

    #[test]
    fn an_example_is_the_answer() {
        let trial = Trial::of(
            "mocking",
            json!({"response_example": "hello $arg_name", "delay": 2,
            "response_status": 201, "content_type": "text/plain", "response_headers": {"X-Id": "$arg_name", "X-N": 5}}),
        );
        let run = trial.run("GET /?name=a");
        assert_eq!(run.answered(), "201 hello a");
        assert_eq!(run.paused, Duration::from_secs(2));
        assert_eq!(run.answer_field("Content-Type"), "text/plain");
        assert_eq!((run.answer_field("X-Id"), run.answer_field("X-N")), ("a".to_owned(), "5".to_owned()));
        assert!(run.answer_field("x-mock-by").starts_with("Gatewright/"));
        let silent = Trial::of("mocking", json!({"response_example": "", "with_mock_header": false}));
        assert_eq!(silent.run("GET /").answer_field("x-mock-by"), "");
    }

    #[test]
    fn a_schema_is_filled_in() {
        let schema = json!({"type": "object", "properties": {
            "id": {"type": "integer", "example": 7}, "name": {"type": "string"}, "price": {"type": "number"},
            "tags": {"type": "array", "items": {"type": "boolean"}}, "in": {"type": "object", "properties": {}},
        }});
        let trial = Trial::of("mocking", json!({"response_schema": schema}));
        let answer = trial.run("GET /").answer.unwrap();
        let document: Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(document["id"], 7);
        assert!(document["name"].is_string() && document["price"].is_number() && document["in"].is_object());
        assert!(document["tags"].as_array().unwrap().iter().all(Value::is_boolean));
        let xml = Trial::of(
            "mocking",
            json!({"content_type": "text/xml", "response_schema":
            {"type": "object", "properties": {"a": {"type": "string", "example": "<b>"}}}}),
        );
        let body = xml.run("GET /").answered();
        assert_eq!(body, "200 <?xml version=\"1.0\" encoding=\"UTF-8\"?><data><a>&lt;b></a></data>");
    }

    #[test]
    fn what_is_no_answer_is_refused() {
        assert_eq!(refused("mocking", &json!({})), [""]);
        let wrong = json!({"response_example": "", "delay": -1, "response_status": 101});
        assert_eq!(refused("mocking", &wrong), ["/delay", "/response_status"]);
    }
}
