//! `csrf`: demands of requests that change something a token which only pages of the same site can read (double submit
//! cookie).
//!
//! It is for browsers that authenticate by cookie; clients that show a key or token need none of it.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use gatewright_model::expression::Variable;
use gatewright_model::message::Method;
use gatewright_model::validation::Violations;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use utoipa::ToSchema;

use crate::authentication::is_same_secret;
use crate::edits;
use crate::exchange::{Answer, Exchange, Flow};
use crate::kind::{self, Built, Category, Kind, Phase, Phases, Plugin, Site};
use crate::response::Response;
use crate::schema;

pub(crate) const KIND: Kind = Kind {
    name: "csrf",
    priority: 2980,
    category: Category::Other,
    phases: Phases::of(&[Phase::Access, Phase::Response]),
    schema: schema::of::<Config>,
    metadata: None,
    credential: None,
    build,
};

#[derive(Deserialize, ToSchema)]
struct Config {
    /// Signs tokens; who knows it can make them.
    key: String,
    /// Seconds a token is good for; 0: for ever.
    #[serde(default = "two_hours")]
    #[schema(required = false, default = 7200)]
    expires: i64,
    /// Name of the cookie and of the header field.
    #[serde(default = "token_name")]
    #[schema(required = false, default = "apisix-csrf-token")]
    name: String,
}

const fn two_hours() -> i64 {
    7200
}

fn token_name() -> String {
    "apisix-csrf-token".to_owned()
}

struct Csrf {
    config: Config,
    cookie: Variable,
}

#[derive(Serialize, Deserialize)]
struct Token {
    random: f64,
    expires: i64,
    sign: String,
}

fn build(config: Value, _: &Site<'_>) -> Built {
    let config: Config = kind::parse(config)?;
    let mut violations = Violations::default();
    edits::check_name(&config.name, "/name", &mut violations);
    violations.into_result()?;
    let cookie = Variable::Cookie(config.name.as_str().into());
    Ok(Arc::new(Csrf { config, cookie }))
}

impl Csrf {
    fn sign(&self, random: f64, expires: i64) -> String {
        let signed = format!("{{expires:{expires},random:{random},key:{}}}", self.config.key);
        let digest = Sha256::digest(signed.as_bytes());
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn make(&self, exchange: &Exchange<'_>) -> String {
        #[allow(clippy::cast_precision_loss, reason = "53 bits of chance are enough to tell tokens apart")]
        let random = (exchange.surroundings.random() >> 11) as f64 / (1_u64 << 53) as f64;
        let expires = seconds(exchange);
        let token = Token { random, expires, sign: self.sign(random, expires) };
        STANDARD.encode(serde_json::json!(token).to_string())
    }

    fn is_good(&self, token: &[u8], now: i64) -> bool {
        let decoded = STANDARD.decode(token).ok();
        let token: Option<Token> = decoded.and_then(|json| serde_json::from_slice(&json).ok());
        let Some(token) = token else { return false };
        let is_old = self.config.expires > 0 && now.saturating_sub(token.expires) > self.config.expires;
        !is_old && is_same_secret(self.sign(token.random, token.expires).as_bytes(), token.sign.as_bytes())
    }
}

fn seconds(exchange: &Exchange<'_>) -> i64 {
    i64::try_from(exchange.surroundings.now().unix.as_secs()).unwrap_or(i64::MAX)
}

impl Plugin for Csrf {
    fn access(&self, exchange: &mut Exchange<'_>) -> Flow {
        if matches!(exchange.request.method, Method::Get | Method::Head | Method::Options) {
            return Flow::Continue;
        }
        let shown = exchange.field(&self.config.name).filter(|token| !token.is_empty());
        let cookie = exchange.text(&self.cookie);
        let wrong = match (shown, cookie) {
            (None, _) => "no csrf token in headers",
            (_, None) => "no csrf cookie",
            (Some(shown), Some(cookie)) if !is_same_secret(shown, &cookie) => "csrf token mismatch",
            (Some(shown), _) if !self.is_good(shown, seconds(exchange)) => {
                "Failed to verify the csrf token signature"
            }
            _ => return Flow::Continue,
        };
        Flow::respond(Answer::error_msg(401, wrong))
    }

    fn response(&self, exchange: &mut Exchange<'_>, response: &mut Response<'_>) {
        let token = self.make(exchange);
        let lifetime = Duration::from_secs(u64::try_from(self.config.expires).unwrap_or(0));
        let until = httpdate::fmt_http_date(UNIX_EPOCH + exchange.surroundings.now().unix + lifetime);
        let cookie = format!("{}={token};path=/;SameSite=Lax;Expires={until}", self.config.name);
        response.head.fields.append("Set-Cookie", cookie.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Trial, refused};
    use serde_json::json;

    /// The token that a response carries.
    fn token(trial: &Trial) -> String {
        let cookie = trial.run("GET /").respond("200").field("Set-Cookie");
        assert!(cookie.contains(";path=/;SameSite=Lax;Expires="), "{cookie}");
        let value = cookie.split(';').next().unwrap();
        value.strip_prefix("t=").unwrap().to_owned()
    }

    #[test]
    fn what_changes_something_needs_the_token_twice() {
        let trial = Trial::of("csrf", json!({"key": "k", "name": "t", "expires": 10}));
        let good = token(&trial);
        let foreign = token(&Trial::of("csrf", json!({"key": "other", "name": "t"})));
        for (fields, expected) in [
            (String::new(), "no csrf token in headers"),
            (format!("\nt: {good}"), "no csrf cookie"),
            (format!("\nt: {good}\nCookie: t=x"), "csrf token mismatch"),
            (format!("\nt: {foreign}\nCookie: t={foreign}"), "Failed to verify the csrf token signature"),
            ("\nt: x\nCookie: t=x".to_owned(), "Failed to verify the csrf token signature"),
        ] {
            let answered = trial.run(&format!("POST /{fields}")).answered();
            assert_eq!(answered, format!("401 {{\"error_msg\":\"{expected}\"}}\n"), "{fields}");
        }
        let both = format!("POST /\nt: {good}\nCookie: t={good}");
        assert_eq!(trial.run(&both).answered(), "");
        trial.pass(Duration::from_secs(11));
        assert!(trial.run(&both).answered().contains("signature"), "it is too old");
        assert_eq!(trial.run("GET /").answered(), "");
        assert_eq!(refused("csrf", &json!({})), ["/key"]);
    }
}
