//! `uri-blocker`: refuses requests whose path or query looks like something.
//!
//! It is a filter on text, not a web application firewall: what an application decodes twice it does not see.

use std::sync::Arc;

use gatewright_model::expression::{Pattern, Variable};
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::exchange::{Answer, Exchange, Flow};
use crate::kind::{self, Built, Category, Kind, Phase, Phases, Plugin, Site};
use crate::schema;
use crate::ua_restriction::patterns;

pub(crate) const KIND: Kind = Kind {
    name: "uri-blocker",
    priority: 2900,
    category: Category::Other,
    phases: Phases::of(&[Phase::Rewrite]),
    schema: || {
        let rules = json!({ "type": "array", "uniqueItems": true, "items":
            { "type": "string", "minLength": 1, "maxLength": 4096 } });
        schema::field(schema::of::<Config>(), "block_rules", rules)
    },
    metadata: None,
    credential: None,
    build,
};

#[derive(Deserialize, ToSchema)]
struct Config {
    /// Regular expressions that are searched for in path and query.
    block_rules: Vec<String>,
    /// Status of the answer.
    #[serde(default = "forbidden")]
    #[schema(required = false, minimum = 200, default = 403)]
    rejected_code: u16,
    /// What it says.
    #[serde(default)]
    #[schema(min_length = 1)]
    rejected_msg: Option<String>,
    /// Whether upper and lower case are the same.
    #[serde(default)]
    #[schema(required = false, default = false)]
    case_insensitive: bool,
}

const fn forbidden() -> u16 {
    403
}

struct UriBlocker {
    patterns: Vec<Pattern>,
    status: u16,
    message: Option<String>,
}

fn build(config: Value, _: &Site<'_>) -> Built {
    let config: Config = kind::parse(config)?;
    let patterns = patterns(&config.block_rules, "/block_rules", config.case_insensitive)?;
    Ok(Arc::new(UriBlocker { patterns, status: config.rejected_code, message: config.rejected_msg }))
}

impl Plugin for UriBlocker {
    fn rewrite(&self, exchange: &mut Exchange<'_>) -> Flow {
        let uri = exchange.text(&Variable::RequestUri).unwrap_or_default();
        match (self.patterns.iter().any(|pattern| pattern.is_match(&uri)), &self.message) {
            (false, _) => Flow::Continue,
            (true, None) => Flow::respond(Answer::new(self.status)),
            (true, Some(message)) => Flow::respond(Answer::error_msg(self.status, message)),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{Trial, refused};
    use serde_json::json;

    #[test]
    fn what_looks_like_a_rule_is_refused() {
        for (config, request, expected) in [
            (json!({"block_rules": ["aa", "^/b"]}), "GET /x?name=aa", "403 "),
            (json!({"block_rules": ["aa", "^/b"]}), "GET /b", "403 "),
            (json!({"block_rules": ["aa", "^/b"]}), "GET /x/b", ""),
            (json!({"block_rules": ["AA"]}), "GET /aa", ""),
            (json!({"block_rules": ["AA"], "case_insensitive": true}), "GET /aa", "403 "),
            (
                json!({"block_rules": ["aa"], "rejected_code": 501, "rejected_msg": "no"}),
                "GET /%61a",
                "501 {\"error_msg\":\"no\"}\n",
            ),
            (json!({"block_rules": []}), "GET /aa", ""),
        ] {
            assert_eq!(
                Trial::of("uri-blocker", config.clone()).run(request).answered(),
                expected,
                "{config} {request}"
            );
        }
    }

    #[test]
    fn rules_that_are_none_are_refused() {
        assert_eq!(refused("uri-blocker", &json!({})), ["/block_rules"]);
        assert_eq!(refused("uri-blocker", &json!({"block_rules": [".+(", "a", "a"]})), ["/block_rules"]);
        assert_eq!(refused("uri-blocker", &json!({"block_rules": [".+("]})), ["/block_rules/0"]);
    }
}
