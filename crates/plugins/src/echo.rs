//! `echo`: writes fixed text before, after or in place of the body of a response. For trying things out.

use std::sync::Arc;

use gatewright_model::validation::Violations;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use crate::edits;
use crate::exchange::Exchange;
use crate::kind::{self, Built, Category, Kind, Phase, Phases, Plugin, Site};
use crate::response::{BodyFilter, Response};
use crate::schema;

pub(crate) const KIND: Kind = Kind {
    name: "echo",
    priority: 412,
    category: Category::Other,
    phases: Phases::of(&[Phase::Response]),
    schema: || {
        let mut rules = schema::any_of(&["before_body", "body", "after_body"]);
        rules["minProperties"] = 1.into();
        schema::field(
            schema::with::<Config>(rules),
            "headers",
            json!({ "type": "object", "minProperties": 1 }),
        )
    },
    metadata: None,
    credential: None,
    build,
};

#[derive(Clone, Default, Deserialize, ToSchema)]
#[serde(default)]
#[schema(default)]
struct Config {
    /// Text before the body.
    before_body: Option<String>,
    /// Text in place of the body.
    body: Option<String>,
    /// Text after the body.
    after_body: Option<String>,
    /// Header fields of the response.
    #[schema(value_type = Object)]
    headers: Option<Map<String, Value>>,
}

struct Echo {
    before: Arc<str>,
    body: Option<String>,
    after: Arc<str>,
    headers: Vec<(String, String)>,
}

fn build(config: Value, _: &Site<'_>) -> Built {
    let config: Config = kind::parse(config)?;
    let mut violations = Violations::default();
    let headers = config.headers.unwrap_or_default();
    for name in headers.keys() {
        edits::check_name(name, &format!("/headers/{name}"), &mut violations);
    }
    violations.into_result()?;
    Ok(Arc::new(Echo {
        before: config.before_body.unwrap_or_default().into(),
        body: config.body,
        after: config.after_body.unwrap_or_default().into(),
        headers: headers.into_iter().map(|(name, value)| (name, edits::value_text(&value))).collect(),
    }))
}

/// Puts text around a body.
struct Around {
    before: Option<Arc<str>>,
    after: Arc<str>,
}

impl BodyFilter for Around {
    fn push(&mut self, piece: &[u8], out: &mut Vec<u8>) {
        if let Some(before) = self.before.take() {
            out.extend_from_slice(before.as_bytes());
        }
        out.extend_from_slice(piece);
    }

    fn finish(&mut self, out: &mut Vec<u8>) {
        let after = Arc::clone(&self.after);
        self.push(after.as_bytes(), out);
    }
}

impl Plugin for Echo {
    fn response(&self, _: &mut Exchange<'_>, response: &mut Response<'_>) {
        for (name, value) in &self.headers {
            response.set_field(name, value.as_bytes());
        }
        match &self.body {
            Some(body) => response.replace_body([&self.before, body.as_str(), &self.after].concat()),
            None => response.filter_body(Box::new(Around {
                before: Some(Arc::clone(&self.before)),
                after: Arc::clone(&self.after),
            })),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{Trial, refused};
    use serde_json::json;

    #[test]
    fn text_stands_around_or_in_place_of_the_body() {
        for (config, expected) in [
            (json!({"before_body": "<"}), "<hello"),
            (json!({"after_body": ">"}), "hello>"),
            (json!({"before_body": "<", "after_body": ">"}), "<hello>"),
            (json!({"before_body": "<", "body": "other", "after_body": ">"}), "<other>"),
            (json!({"body": ""}), ""),
        ] {
            let trial = Trial::of("echo", config.clone());
            let responded = trial.run("GET /").respond("200\nContent-Length: 5\n\nhello");
            assert_eq!((responded.body.as_str(), responded.head.status), (expected, 200), "{config}");
            assert_eq!(responded.field("Content-Length"), "");
        }
        assert_eq!(Trial::of("echo", json!({"before_body": "<"})).run("GET /").respond("200").body, "<");
    }

    #[test]
    fn header_fields_are_set() {
        let trial = Trial::of("echo", json!({"body": "", "headers": {"X-One": 1, "Server": "me"}}));
        let responded = trial.run("GET /").respond("200\nServer: nginx");
        assert_eq!((responded.field("X-One"), responded.field("Server")), ("1".to_owned(), "me".to_owned()));
    }

    #[test]
    fn a_configuration_that_does_nothing_is_refused() {
        assert_eq!(refused("echo", &json!({})), [""]);
        assert_eq!(refused("echo", &json!({"body": "", "headers": {"a b": 1}})), ["/headers/a b"]);
    }
}
