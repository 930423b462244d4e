//! `_meta`: what every configuration may say beside its own fields.

use std::sync::Arc;

use bytes::Bytes;
use gatewright_model::expression::Expression;
use gatewright_model::validation::Violations;
use serde_json::{Value, json};

use crate::exchange::Answer;

/// The name of the member.
pub(crate) const MEMBER: &str = "_meta";

/// What `_meta` says, parsed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Meta {
    /// The plugin does not run, and hides what a lower object configures for it.
    pub(crate) disable: bool,
    /// Instead of the priority of the kind.
    pub(crate) priority: Option<i32>,
    /// Under which condition the plugin runs.
    pub(crate) filter: Option<Expression>,
    /// The body of every answer of the plugin that is an error.
    pub(crate) error_response: Option<Arc<ErrorBody>>,
}

/// A body, and its type.
#[derive(Debug)]
pub(crate) struct ErrorBody {
    body: Bytes,
    is_json: bool,
}

impl ErrorBody {
    pub(crate) fn put_into(&self, answer: &mut Answer) {
        answer.body = self.body.clone();
        if self.is_json {
            answer.fields.retain(|(name, _)| !name.eq_ignore_ascii_case("content-type"));
            answer.fields.push(("Content-Type".into(), b"application/json".to_vec()));
        }
    }
}

/// The schema of the member.
pub(crate) fn schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "disable": { "type": "boolean", "description": "Whether the plugin does not run." },
            "priority": { "type": "integer", "description": "Replaces the priority of the plugin." },
            "filter": { "type": "array", "description": "Expression under which the plugin runs." },
            "error_response": {
                "oneOf": [{ "type": "string" }, { "type": "object" }],
                "description": "Replaces the body of the plugin's answers with status 400 and above.",
            },
        },
    })
}

/// Parses the member of `config`, if it is there.
pub(crate) fn parse(config: &Value, violations: &mut Violations) -> Meta {
    let Some(member) = config.get(MEMBER) else { return Meta::default() };
    if member.get("pre_function").is_some() {
        let message = "functions in Lua do not run here; use a plugin or an expression instead";
        violations.add(format!("/{MEMBER}/pre_function"), message);
    }
    let filter = member.get("filter").and_then(Value::as_array).and_then(|elements| {
        let parsed = Expression::parse(elements);
        parsed.map_err(|wrong| violations.absorb(&format!("/{MEMBER}/filter"), wrong)).ok()
    });
    let error_response = member.get("error_response").map(|body| match body {
        Value::String(text) => ErrorBody { body: text.clone().into(), is_json: false },
        document => ErrorBody { body: format!("{document}\n").into(), is_json: true },
    });
    let priority = member.get("priority").and_then(Value::as_i64);
    #[allow(clippy::cast_possible_truncation, reason = "clamped to what fits")]
    let clamped = |priority: i64| priority.clamp(i32::MIN.into(), i32::MAX.into()) as i32;
    Meta {
        disable: member.get("disable") == Some(&Value::Bool(true)),
        priority: priority.map(clamped),
        filter,
        error_response: error_response.map(Arc::new),
    }
}
