//! `basic-auth`: lets in who shows the user name and password of a consumer (RFC 7617).
//!
//! The password travels with every request: use it over TLS.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::authentication::{self, Refusal};
use crate::consumers::{Credential, CredentialKind};
use crate::exchange::{Exchange, Flow};
use crate::kind::{self, Built, Category, Kind, Phase, Phases, Plugin, Site};
use crate::schema;

pub(crate) const KIND: Kind = Kind {
    name: "basic-auth",
    priority: 2520,
    category: Category::Authentication,
    phases: Phases::of(&[Phase::Rewrite]),
    schema: schema::of::<Config>,
    metadata: None,
    credential: Some(&CredentialKind {
        schema: schema::of::<Login>,
        found_by: "username",
        secret: &["password"],
        parse: |config| kind::parse::<Login>(config).map(|login| Arc::new(login) as _),
    }),
    build,
};

#[derive(Deserialize, ToSchema)]
#[serde(default)]
#[schema(default)]
struct Config {
    /// Whether the upstream does not get to see the password.
    hide_credentials: bool,
    /// The consumer as whom requests without a valid password go on.
    #[schema(min_length = 1)]
    anonymous_consumer: Option<String>,
    /// What `WWW-Authenticate` names.
    #[schema(min_length = 1, max_length = 128, pattern = r"^[ -!#-[\]-~]+$")]
    realm: String,
}

impl Default for Config {
    fn default() -> Self {
        Self { hide_credentials: false, anonymous_consumer: None, realm: "basic".to_owned() }
    }
}

#[derive(Deserialize, ToSchema)]
struct Login {
    /// The user name.
    #[allow(dead_code, reason = "the index is keyed by it")]
    username: String,
    /// The password.
    password: String,
}

struct BasicAuth(Config);

fn build(config: Value, _: &Site<'_>) -> Built {
    Ok(Arc::new(BasicAuth(kind::parse(config)?)))
}

/// Whose password was shown.
fn shown(exchange: &Exchange<'_>) -> Result<Arc<Credential>, &'static str> {
    let header =
        authentication::shown(exchange, "Authorization").ok_or("Missing authorization in request")?;
    let encoded = authentication::after_scheme(header, "Basic").ok_or(UNREADABLE)?;
    let decoded = STANDARD.decode(encoded).map_err(|_| UNREADABLE)?;
    let colon = decoded.iter().position(|byte| *byte == b':').ok_or(UNREADABLE)?;
    let (user, password) = (decoded[..colon].trim_ascii(), decoded[colon + 1..].trim_ascii());
    let credential = exchange.consumers.find(&KIND, user).ok_or(UNKNOWN)?;
    let login = credential.parsed::<Login>().ok_or(UNKNOWN)?;
    let is_right = authentication::is_same_secret(login.password.as_bytes(), password);
    is_right.then(|| Arc::clone(credential)).ok_or(UNKNOWN)
}

const UNREADABLE: &str = "Invalid authorization in request";
const UNKNOWN: &str = "Invalid user authorization";

impl Plugin for BasicAuth {
    fn rewrite(&self, exchange: &mut Exchange<'_>) -> Flow {
        let shown = shown(exchange);
        if self.0.hide_credentials {
            exchange.request.fields.remove(b"authorization");
        }
        let identified =
            shown.and_then(|credential| authentication::identify(exchange, credential).ok_or(UNKNOWN));
        identified.unwrap_or_else(|message| {
            let challenge = format!("Basic realm=\"{}\"", self.0.realm);
            let refusal = Refusal { challenge, anonymous_consumer: self.0.anonymous_consumer.as_deref() };
            refusal.refuse(exchange, message)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Trial;
    use serde_json::json;

    fn trial(config: serde_json::Value) -> Trial {
        Trial::of("basic-auth", config).consumer("foo", json!({}), json!({})).credential(
            "foo",
            "c1",
            json!({"basic-auth": {"username": "foo", "password": "b:r"}}),
        )
    }

    fn basic(login: &str) -> String {
        format!("GET /\nAuthorization: Basic {}", STANDARD.encode(login))
    }

    #[test]
    fn user_and_password_must_be_right() {
        for (request, expected) in [
            ("GET /".to_owned(), "Missing authorization in request"),
            ("GET /\nAuthorization: Bearer x".to_owned(), "Invalid authorization in request"),
            ("GET /\nAuthorization: Basic !".to_owned(), "Invalid authorization in request"),
            (basic("foo"), "Invalid authorization in request"),
            (basic("foo:wrong"), "Invalid user authorization"),
            (basic("other:b:r"), "Invalid user authorization"),
        ] {
            let trial = trial(json!({}));
            let run = trial.run(&request);
            assert_eq!(run.answered(), format!("401 {{\"message\":\"{expected}\"}}\n"), "{request}");
            assert_eq!(run.answer_field("WWW-Authenticate"), "Basic realm=\"basic\"");
        }
        let trial = trial(json!({}));
        let run = trial.run(&basic("foo:b:r"));
        assert_eq!(run.answered(), "");
        assert_eq!(run.sent("X-Consumer-Username"), "foo");
        assert_eq!(run.sent("X-Credential-Identifier"), "c1");
        assert_eq!(run.sent("Authorization").len(), "Basic Zm9vOmI6cg==".len());
        assert_eq!(trial.run(&basic("foo:b:r").replace("Basic", "basic")).answered(), "");
    }

    #[test]
    fn the_password_can_be_hidden() {
        let trial = trial(json!({"hide_credentials": true}));
        assert_eq!(trial.run(&basic("foo:b:r")).sent("Authorization"), "");
    }
}
