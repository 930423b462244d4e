//! `key-auth`: lets in who shows the key of a consumer, in a header field or in the query.
//!
//! A key travels in the clear with every request: use it over TLS, and prefer the header, because queries end up in
//! logs.

use std::sync::Arc;

use gatewright_model::expression::Variable;
use gatewright_model::validation::Violations;
use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::authentication::{self, Refusal};
use crate::consumers::CredentialKind;
use crate::edits;
use crate::exchange::{Exchange, Flow};
use crate::kind::{self, Built, Category, Kind, Phase, Phases, Plugin, Site};
use crate::schema;

pub(crate) const KIND: Kind = Kind {
    name: "key-auth",
    priority: 2500,
    category: Category::Authentication,
    phases: Phases::of(&[Phase::Rewrite]),
    schema: schema::of::<Config>,
    metadata: None,
    credential: Some(&CredentialKind {
        schema: schema::of::<Key>,
        found_by: "key",
        secret: &["key"],
        // The index finds a key by itself; there is nothing more to compare.
        parse: |config| kind::parse::<Key>(config).map(|key| Arc::new(key) as _),
    }),
    build,
};

#[derive(Deserialize, ToSchema)]
#[serde(default)]
#[schema(default)]
struct Config {
    /// The header field the key is looked for in, first.
    header: String,
    /// The parameter of the query it is looked for in otherwise.
    query: String,
    /// Whether the upstream does not get to see the key.
    hide_credentials: bool,
    /// The consumer as whom requests without a valid key go on.
    #[schema(min_length = 1)]
    anonymous_consumer: Option<String>,
    /// What `WWW-Authenticate` names.
    #[schema(min_length = 1, max_length = 128, pattern = r"^[ -!#-[\]-~]+$")]
    realm: String,
}

impl Default for Config {
    fn default() -> Self {
        let (header, query, realm) = ("apikey".to_owned(), "apikey".to_owned(), "key".to_owned());
        Self { header, query, hide_credentials: false, anonymous_consumer: None, realm }
    }
}

#[derive(Deserialize, ToSchema)]
struct Key {
    /// What the consumer shows.
    #[allow(dead_code, reason = "the index is keyed by it")]
    key: String,
}

struct KeyAuth {
    config: Config,
    argument: Variable,
}

fn build(config: Value, _: &Site<'_>) -> Built {
    let config: Config = kind::parse(config)?;
    let mut violations = Violations::default();
    edits::check_name(&config.header, "/header", &mut violations);
    violations.into_result()?;
    let argument = Variable::Arg(config.query.as_str().into());
    Ok(Arc::new(KeyAuth { config, argument }))
}

impl Plugin for KeyAuth {
    fn rewrite(&self, exchange: &mut Exchange<'_>) -> Flow {
        let config = &self.config;
        let in_header = exchange.field(&config.header).is_some();
        let shown = match authentication::shown(exchange, &config.header) {
            Some(key) => exchange.consumers.find(&KIND, key).cloned().ok_or(INVALID),
            None => match exchange.text(&self.argument) {
                Some(key) => exchange.consumers.find(&KIND, &key).cloned().ok_or(INVALID),
                None => Err(MISSING),
            },
        };
        if config.hide_credentials {
            match in_header {
                true => exchange.request.fields.remove(config.header.as_bytes()),
                false => authentication::remove_argument(exchange, &config.query),
            }
        }
        let identified =
            shown.and_then(|credential| authentication::identify(exchange, credential).ok_or(INVALID));
        identified.unwrap_or_else(|message| {
            let challenge = format!("apikey realm=\"{}\"", config.realm);
            let refusal = Refusal { challenge, anonymous_consumer: config.anonymous_consumer.as_deref() };
            refusal.refuse(exchange, message)
        })
    }
}

const MISSING: &str = "Missing API key in request";
const INVALID: &str = "Invalid API key in request";

#[cfg(test)]
mod tests {
    use crate::testing::{Trial, refused};
    use serde_json::json;

    fn trial(config: serde_json::Value) -> Trial {
        Trial::of("key-auth", config)
            .consumer("jack", json!({"custom_id": "7"}), json!({"key-auth": {"key": "in-consumer"}}))
            .credential("jack", "cred-1", json!({"key-auth": {"key": "in-credential"}}))
            .consumer("nobody", json!({}), json!({}))
    }

    #[test]
    fn a_key_that_comes_twice_is_no_key() {
        let trial = trial(json!({}));
        let run = trial.run("GET /\napikey: in-consumer\napikey: in-consumer");
        assert!(run.answered().starts_with("401 "), "{}", run.answered());
    }

    #[test]
    fn a_key_is_looked_for_in_the_header_then_in_the_query() {
        let (missing, invalid) = (
            "401 {\"message\":\"Missing API key in request\"}\n",
            "401 {\"message\":\"Invalid API key in request\"}\n",
        );
        for (request, expected) in [
            ("GET /", missing),
            ("GET /\napikey: in-consumer", ""),
            ("GET /\nAPIKEY: in-credential", ""),
            ("GET /?apikey=in-consumer", ""),
            ("GET /?apikey=in%2Dconsumer", ""),
            ("GET /?apikey=other", invalid),
            ("GET /?apikey=in-consumer\napikey: other", invalid),
            ("GET /\nx-key: in-consumer", missing),
        ] {
            assert_eq!(trial(json!({})).run(request).answered(), expected, "{request}");
        }
        let trial = trial(json!({"header": "X-Key", "query": "k", "realm": "mine"}));
        assert_eq!(trial.run("GET /\nx-key: in-consumer").answered(), "");
        assert_eq!(trial.run("GET /?k=in-consumer").answered(), "");
        assert_eq!(trial.run("GET /").answer_field("WWW-Authenticate"), "apikey realm=\"mine\"");
    }

    #[test]
    fn the_upstream_learns_who_calls_from_the_gateway_alone() {
        let trial = trial(json!({}));
        let forged = "X-Consumer-Username: admin\nX-Credential-Identifier: x\nx-consumer-custom-id: 1";
        let run = trial.run(&format!("GET /\napikey: in-credential\n{forged}"));
        assert_eq!(run.sent("X-Consumer-Username"), "jack");
        assert_eq!(run.sent("X-Credential-Identifier"), "cred-1");
        assert_eq!(run.sent("X-Consumer-Custom-ID"), "7");
        let run = trial.run(&format!("GET /\napikey: in-consumer\n{forged}"));
        assert_eq!(run.sent("X-Credential-Identifier"), "", "what the client sent is removed");
    }

    #[test]
    fn the_key_can_be_hidden() {
        let trial = trial(json!({"hide_credentials": true, "anonymous_consumer": "nobody"}));
        let run = trial.run("GET /a?x=1&apikey=in-consumer&y=2\nA: b");
        assert_eq!(run.forwarded(), "GET /a?x=1&y=2");
        assert_eq!(trial.run("GET /a?apikey=in-consumer").forwarded(), "GET /a");
        let run = trial.run("GET /a?apikey=kept\napikey: in-consumer");
        assert_eq!((run.forwarded().as_str(), run.sent("apikey").as_str()), ("GET /a?apikey=kept", ""));
        let run = trial.run("GET /\napikey: wrong");
        assert_eq!((run.sent("apikey").as_str(), run.sent("X-Consumer-Username").as_str()), ("", "nobody"));
    }

    #[test]
    fn an_anonymous_consumer_calls_where_nobody_is_known() {
        let anonymous = trial(json!({"anonymous_consumer": "nobody"}));
        assert_eq!(anonymous.run("GET /").sent("X-Consumer-Username"), "nobody");
        assert_eq!(anonymous.run("GET /\napikey: in-consumer").sent("X-Consumer-Username"), "jack");
        let dangling = trial(json!({"anonymous_consumer": "absent"}));
        assert!(dangling.run("GET /").answered().starts_with("401 "), "who does not exist lets nobody in");
    }

    #[test]
    fn a_credential_of_a_consumer_that_is_gone_proves_nothing() {
        let trial =
            Trial::of("key-auth", json!({})).credential("gone", "c", json!({"key-auth": {"key": "k"}}));
        assert!(trial.run("GET /\napikey: k").answered().starts_with("401 "));
    }

    #[test]
    fn what_no_request_can_show_is_refused() {
        assert_eq!(refused("key-auth", &json!({"header": "a b", "realm": "a\"b"})), ["/realm"]);
        assert_eq!(refused("key-auth", &json!({"header": "a b"})), ["/header"]);
        assert!(!crate::validate_credential("key-auth", &json!({})).is_empty());
        assert!(crate::validate_credential("key-auth", &json!({"key": "k"})).is_empty());
    }
}
