//! `ua-restriction`: lets in, or keeps out, clients by what their `User-Agent` says.
//!
//! It keeps honest crawlers away; a client says what it likes there.

use std::sync::Arc;

use gatewright_model::expression::Pattern;
use gatewright_model::validation::Violations;
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::exchange::{Answer, Exchange, Flow};
use crate::kind::{self, Built, Category, Kind, Phase, Phases, Plugin, Site};
use crate::schema;

pub(crate) const KIND: Kind = Kind {
    name: "ua-restriction",
    priority: 2999,
    category: Category::Other,
    phases: Phases::of(&[Phase::Access]),
    schema: || {
        let list = json!({ "type": "array", "minItems": 1, "items": { "type": "string", "minLength": 1 } });
        let schema = schema::with::<Config>(schema::one_of(&["allowlist", "denylist"]));
        schema::field(schema::field(schema, "allowlist", list.clone()), "denylist", list)
    },
    metadata: None,
    credential: None,
    build,
};

#[derive(Deserialize, ToSchema)]
#[serde(default)]
#[schema(default)]
struct Config {
    /// Regular expressions, one of which has to be found.
    #[schema(min_items = 1)]
    allowlist: Option<Vec<String>>,
    /// Regular expressions, none of which may be found.
    #[schema(min_items = 1)]
    denylist: Option<Vec<String>>,
    /// Whether requests without `User-Agent` pass.
    bypass_missing: bool,
    /// What those kept out are told.
    #[schema(min_length = 1, max_length = 1024)]
    message: String,
}

impl Default for Config {
    fn default() -> Self {
        Self { allowlist: None, denylist: None, bypass_missing: false, message: "Not allowed".to_owned() }
    }
}

struct UaRestriction {
    patterns: Vec<Pattern>,
    allows: bool,
    bypass_missing: bool,
    message: String,
}

fn build(config: Value, _: &Site<'_>) -> Built {
    let config: Config = kind::parse(config)?;
    let (list, allows, at) = match (config.allowlist, config.denylist) {
        (Some(list), _) => (list, true, "/allowlist"),
        (None, list) => (list.unwrap_or_default(), false, "/denylist"),
    };
    let patterns = patterns(&list, at, false)?;
    let (bypass_missing, message) = (config.bypass_missing, config.message);
    Ok(Arc::new(UaRestriction { patterns, allows, bypass_missing, message }))
}

/// The regular expressions of a list.
pub(crate) fn patterns(list: &[String], at: &str, ignore_case: bool) -> Result<Vec<Pattern>, Violations> {
    let mut violations = Violations::default();
    let mut patterns = Vec::with_capacity(list.len());
    for (index, text) in list.iter().enumerate() {
        match Pattern::compile(text, ignore_case) {
            Ok(pattern) => patterns.push(pattern),
            Err(message) => violations.add(format!("{at}/{index}"), message),
        }
    }
    violations.into_result().map(|()| patterns)
}

impl Plugin for UaRestriction {
    fn access(&self, exchange: &mut Exchange<'_>) -> Flow {
        let mut agents = exchange.request.fields.named(b"user-agent").peekable();
        let passes = match agents.peek() {
            None => self.bypass_missing,
            Some(_) => {
                let is_listed = |agent: &[u8]| self.patterns.iter().any(|pattern| pattern.is_match(agent));
                agents.all(|agent| is_listed(agent) == self.allows)
            }
        };
        match passes {
            true => Flow::Continue,
            false => Flow::respond(Answer::message(403, &self.message)),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{Trial, refused};
    use serde_json::json;

    #[test]
    fn agents_are_let_in_or_kept_out() {
        let no = "403 {\"message\":\"Not allowed\"}\n";
        let (allow, deny) = (json!({"allowlist": ["^curl/", "bot$"]}), json!({"denylist": ["(?i)bot"]}));
        for (config, request, expected) in [
            (&allow, "GET /\nUser-Agent: curl/8", ""),
            (&allow, "GET /\nUser-Agent: Mozilla", no),
            (&allow, "GET /\nUser-Agent: curl/8\nUser-Agent: Mozilla", no),
            (&allow, "GET /", no),
            (&deny, "GET /\nUser-Agent: GoogleBot", no),
            (&deny, "GET /\nUser-Agent: curl", ""),
            (&deny, "GET /\nUser-Agent: curl\nUser-Agent: bot", no),
            (&json!({"denylist": ["x"], "bypass_missing": true}), "GET /", ""),
            (&json!({"denylist": ["x"], "message": "go"}), "GET /", "403 {\"message\":\"go\"}\n"),
        ] {
            assert_eq!(
                Trial::of("ua-restriction", config.clone()).run(request).answered(),
                expected,
                "{config} {request}"
            );
        }
    }

    #[test]
    fn a_list_that_is_none_is_refused() {
        assert_eq!(refused("ua-restriction", &json!({})), [""]);
        assert_eq!(refused("ua-restriction", &json!({"allowlist": ["ok", "("]})), ["/allowlist/1"]);
        assert_eq!(
            refused("ua-restriction", &json!({"allowlist": [], "message": ""})),
            ["/allowlist", "/message"]
        );
    }
}
