//! `referer-restriction`: lets in, or keeps out, requests by the host that their `Referer` names.
//!
//! It keeps other sites from embedding what is served; a client that is no browser says what it likes there.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::exchange::{Answer, Exchange, Flow};
use crate::kind::{self, Built, Category, Kind, Phase, Phases, Plugin, Site};
use crate::schema;

pub(crate) const KIND: Kind = Kind {
    name: "referer-restriction",
    priority: 2990,
    category: Category::Other,
    phases: Phases::of(&[Phase::Access]),
    schema: || {
        let host = json!({ "type": "string", "pattern": r"^\*$|^\*?[0-9a-zA-Z-._\[\]:]+$" });
        let list = json!({ "type": "array", "minItems": 1, "items": host });
        let schema = schema::with::<Config>(schema::one_of(&["whitelist", "blacklist"]));
        schema::field(schema::field(schema, "whitelist", list.clone()), "blacklist", list)
    },
    metadata: None,
    credential: None,
    build,
};

#[derive(Deserialize, ToSchema)]
#[serde(default)]
#[schema(default)]
struct Config {
    /// Hosts that are let in; `*.example.com` is every host below.
    #[schema(min_items = 1)]
    whitelist: Option<Vec<String>>,
    /// Hosts that are kept out.
    #[schema(min_items = 1)]
    blacklist: Option<Vec<String>>,
    /// Whether requests without a readable `Referer` pass.
    bypass_missing: bool,
    /// What those kept out are told.
    #[schema(min_length = 1, max_length = 1024)]
    message: String,
}

impl Default for Config {
    fn default() -> Self {
        let message = "Your referer host is not allowed".to_owned();
        Self { whitelist: None, blacklist: None, bypass_missing: false, message }
    }
}

struct RefererRestriction {
    hosts: Vec<Host>,
    allows: bool,
    bypass_missing: bool,
    message: String,
}

enum Host {
    Exact(String),
    /// Every host that ends like this.
    Suffix(String),
}

impl Host {
    fn parse(text: &str) -> Self {
        let text = text.to_ascii_lowercase();
        match text.strip_prefix('*') {
            Some(suffix) => Self::Suffix(suffix.to_owned()),
            None => Self::Exact(text),
        }
    }

    fn matches(&self, host: &str) -> bool {
        match self {
            Self::Exact(exact) => exact == host,
            Self::Suffix(suffix) => host.len() > suffix.len() && host.ends_with(suffix),
        }
    }
}

fn build(config: Value, _: &Site<'_>) -> Built {
    let config: Config = kind::parse(config)?;
    let (list, allows) = match (config.whitelist, config.blacklist) {
        (Some(list), _) => (list, true),
        (None, list) => (list.unwrap_or_default(), false),
    };
    let hosts = list.iter().map(|host| Host::parse(host)).collect();
    let (bypass_missing, message) = (config.bypass_missing, config.message);
    Ok(Arc::new(RefererRestriction { hosts, allows, bypass_missing, message }))
}

/// The host of an absolute address, in lower case.
fn host(referer: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(referer).ok()?;
    let (scheme, rest) = text.split_once("://")?;
    let is_http = scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https");
    let authority = rest.split(['/', '?', '#']).next().filter(|_| is_http)?;
    let host = match authority.starts_with('[') {
        true => authority.split_inclusive(']').next()?,
        false => authority.split(':').next()?,
    };
    (!host.is_empty() && !host.contains('@')).then(|| host.to_ascii_lowercase())
}

impl Plugin for RefererRestriction {
    fn access(&self, exchange: &mut Exchange<'_>) -> Flow {
        let passes = match exchange.field("Referer").and_then(host) {
            None => self.bypass_missing,
            Some(host) => self.hosts.iter().any(|listed| listed.matches(&host)) == self.allows,
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
    fn referers_are_let_in_or_kept_out() {
        let no = "403 {\"message\":\"Your referer host is not allowed\"}\n";
        let (allow, deny) =
            (json!({"whitelist": ["A.example", "*.b.example"]}), json!({"blacklist": ["*.b.example"]}));
        for (config, referer, expected) in [
            (&allow, "http://a.example", ""),
            (&allow, "https://a.EXAMPLE:81/x?y", ""),
            (&allow, "http://x.y.b.example/", ""),
            (&allow, "http://b.example", no),
            (&allow, "http://.b.example", no),
            (&allow, "http://a.example.evil", no),
            (&allow, "http://a.example@evil", no),
            (&allow, "a.example", no),
            (&deny, "http://x.b.example", no),
            (&deny, "http://b.example", ""),
        ] {
            let trial = Trial::of("referer-restriction", config.clone());
            assert_eq!(
                trial.run(&format!("GET /\nReferer: {referer}")).answered(),
                expected,
                "{config} {referer}"
            );
        }
        assert_eq!(Trial::of("referer-restriction", allow.clone()).run("GET /").answered(), no);
        let bypassing = Trial::of("referer-restriction", json!({"whitelist": ["a"], "bypass_missing": true}));
        assert_eq!(bypassing.run("GET /").answered(), "");
    }

    #[test]
    fn a_list_that_is_none_is_refused() {
        assert_eq!(refused("referer-restriction", &json!({})), [""]);
        assert_eq!(refused("referer-restriction", &json!({"whitelist": ["a b"]})), ["/whitelist/0"]);
    }
}
