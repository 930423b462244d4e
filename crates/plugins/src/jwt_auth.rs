//! `jwt-auth`: lets in who shows a token that a consumer's key has signed.
//!
//! With a symmetric algorithm whoever can check tokens can make them: prefer a public key where tokens are made
//! elsewhere. For tokens of an identity provider there is `openid-connect`.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use gatewright_model::expression::Variable;
use gatewright_model::validation::Violations;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::authentication::{self, Refusal};
use crate::consumers::{Credential, CredentialKind, Parsed};
use crate::edits;
use crate::exchange::{Exchange, Flow};
use crate::jose::{Algorithm, Key, Token};
use crate::kind::{self, Built, Category, Kind, Phase, Phases, Plugin, Site};
use crate::schema;

pub(crate) const KIND: Kind = Kind {
    name: "jwt-auth",
    priority: 2510,
    category: Category::Authentication,
    phases: Phases::of(&[Phase::Rewrite]),
    schema: || {
        let claims = json!({ "type": "array", "uniqueItems": true,
            "items": { "type": "string", "enum": ["exp", "nbf"] } });
        schema::field(schema::of::<Config>(), "claims_to_verify", claims)
    },
    metadata: None,
    credential: Some(&CredentialKind {
        schema: credential_schema,
        found_by: "key",
        secret: &["secret"],
        parse,
    }),
    build,
};

#[derive(Deserialize, ToSchema)]
#[serde(default)]
#[schema(default)]
struct Config {
    /// The header field the token is looked for in, first; `Bearer ` in front of it is skipped.
    header: String,
    /// The parameter of the query it is looked for in next.
    query: String,
    /// The cookie it is looked for in last.
    cookie: String,
    /// The claim that names the key of the consumer.
    #[schema(min_length = 1)]
    key_claim_name: String,
    /// Whether the upstream does not get to see the token.
    hide_credentials: bool,
    /// Whether later plugins and log formats can read the claims, as the variable `jwt_auth_payload`.
    store_in_ctx: bool,
    /// Claims about time that are checked where a token makes them; absent: both.
    #[schema(value_type = Option<Vec<String>>)]
    claims_to_verify: Option<Vec<TimeClaim>>,
    /// The consumer as whom requests without a valid token go on.
    #[schema(min_length = 1)]
    anonymous_consumer: Option<String>,
    /// What `WWW-Authenticate` names.
    #[schema(min_length = 1, max_length = 128, pattern = r"^[ -!#-[\]-~]+$")]
    realm: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum TimeClaim {
    /// When the token ends.
    Exp,
    /// When it begins.
    Nbf,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            header: "authorization".to_owned(),
            query: "jwt".to_owned(),
            cookie: "jwt".to_owned(),
            key_claim_name: "key".to_owned(),
            hide_credentials: false,
            store_in_ctx: false,
            claims_to_verify: None,
            anonymous_consumer: None,
            realm: "jwt".to_owned(),
        }
    }
}

#[derive(Deserialize, ToSchema)]
#[serde(default)]
#[schema(default)]
struct Secrets {
    /// Names the consumer in tokens.
    #[schema(min_length = 1)]
    key: String,
    /// Signs tokens, with the symmetric algorithms.
    #[schema(min_length = 1)]
    secret: Option<String>,
    /// Verifies tokens, with the others; in PEM.
    public_key: Option<String>,
    /// How tokens are signed. Those signed in another way are refused.
    algorithm: Algorithm,
    /// Seconds a token lives; for those who make them.
    #[schema(minimum = 1)]
    exp: u64,
    /// Whether `secret` is written in base64.
    base64_secret: bool,
    /// Seconds that clocks may differ.
    #[schema(minimum = 0)]
    lifetime_grace_period: u64,
}

impl Default for Secrets {
    fn default() -> Self {
        Self {
            key: String::new(),
            secret: None,
            public_key: None,
            algorithm: Algorithm::HS256,
            exp: 86_400,
            base64_secret: false,
            lifetime_grace_period: 0,
        }
    }
}

/// The public key is only spoken of where an algorithm needs it.
fn credential_schema() -> Value {
    let symmetric = json!(["HS256", "HS384", "HS512"]);
    let others =
        json!(["RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "PS256", "PS384", "PS512", "EdDSA"]);
    let mut schema = schema::required(
        schema::with::<Secrets>(json!({ "dependencies": { "algorithm": { "oneOf": [
            { "properties": { "algorithm": { "enum": symmetric, "default": "HS256" } } },
            {
                "properties": {
                    "algorithm": { "enum": others },
                    "public_key": { "type": "string", "minLength": 1 },
                },
                "required": ["public_key"],
            },
        ] } } })),
        &["key"],
    );
    if let Some(fields) = schema["properties"].as_object_mut() {
        fields.remove("public_key");
    }
    schema
}

/// What verifies the tokens of a consumer.
struct Verifier {
    algorithm: Algorithm,
    key: Key,
    leeway: Duration,
}

fn parse(config: Value) -> Result<Parsed, Violations> {
    let Secrets { secret, public_key, algorithm, base64_secret, lifetime_grace_period, .. } =
        kind::parse(config)?;
    let key = match (algorithm.is_symmetric(), secret, public_key) {
        (true, None, _) => return Err(Violations::one("/secret", format!("{algorithm:?} needs a secret"))),
        (true, Some(secret), _) if base64_secret => {
            let secret = STANDARD.decode(secret);
            Key::secret(secret.map_err(|_| Violations::one("/secret", "must be written in base64"))?)
        }
        (true, Some(secret), _) => Key::secret(secret.into_bytes()),
        (false, _, None) => {
            return Err(Violations::one("/public_key", format!("{algorithm:?} needs a public key")));
        }
        (false, _, Some(pem)) => {
            Key::from_pem(&pem).map_err(|wrong| Violations::one("/public_key", wrong))?
        }
    };
    if !key.is_for(algorithm) {
        return Err(Violations::one("/public_key", format!("is no key for {algorithm:?}")));
    }
    Ok(Arc::new(Verifier { algorithm, key, leeway: Duration::from_secs(lifetime_grace_period) }))
}

struct JwtAuth {
    config: Config,
    argument: Variable,
    cookie: Variable,
}

fn build(config: Value, _: &Site<'_>) -> Built {
    let config: Config = kind::parse(config)?;
    let mut violations = Violations::default();
    edits::check_name(&config.header, "/header", &mut violations);
    violations.into_result()?;
    let argument = Variable::Arg(config.query.as_str().into());
    let cookie = Variable::Cookie(config.cookie.as_str().into());
    Ok(Arc::new(JwtAuth { config, argument, cookie }))
}

impl Plugin for JwtAuth {
    fn rewrite(&self, exchange: &mut Exchange<'_>) -> Flow {
        let checked = match self.token(exchange) {
            Some(token) => self.check(&token, exchange),
            None => Err("Missing JWT token in request"),
        };
        let identified = checked.and_then(|(credential, token)| {
            let flow = authentication::identify(exchange, credential).ok_or(UNKNOWN)?;
            if self.config.store_in_ctx {
                exchange.set_variable("jwt_auth_payload", Value::from(token.claims).to_string().into_bytes());
            }
            Ok(flow)
        });
        identified.unwrap_or_else(|message| {
            let challenge = format!("Bearer realm=\"{}\"", self.config.realm);
            let anonymous_consumer = self.config.anonymous_consumer.as_deref();
            Refusal { challenge, anonymous_consumer }.refuse(exchange, message)
        })
    }
}

const UNKNOWN: &str = "Invalid user key in JWT token";
const UNVERIFIED: &str = "failed to verify jwt";

impl JwtAuth {
    /// What the client shows, taken away if the upstream is not to see it.
    fn token(&self, exchange: &mut Exchange<'_>) -> Option<Vec<u8>> {
        let config = &self.config;
        if let Some(value) = authentication::shown(exchange, &config.header) {
            let token = authentication::after_scheme(value, "Bearer").unwrap_or(value).to_vec();
            if config.hide_credentials {
                exchange.request.fields.remove(config.header.as_bytes());
            }
            return Some(token);
        }
        if let Some(token) = exchange.text(&self.argument) {
            if config.hide_credentials {
                authentication::remove_argument(exchange, &config.query);
            }
            return Some(token);
        }
        let token = exchange.text(&self.cookie)?;
        if config.hide_credentials {
            authentication::remove_cookie(exchange, &config.cookie);
        }
        Some(token)
    }

    fn check(&self, token: &[u8], exchange: &Exchange<'_>) -> Result<(Arc<Credential>, Token), &'static str> {
        let token = Token::parse(token).map_err(|_| "JWT token invalid")?;
        let key = token.text(&self.config.key_claim_name).ok_or("missing user key in JWT token")?;
        let credential = exchange.consumers.find(&KIND, key.as_bytes()).ok_or(UNKNOWN)?;
        let verifier: &Verifier = credential.parsed().ok_or(UNKNOWN)?;
        let is_signed = token.algorithm() == Some(verifier.algorithm)
            && token.is_signed_by(&verifier.key, verifier.algorithm);
        if !is_signed || !self.is_in_time(&token, verifier.leeway, exchange.surroundings.now().unix) {
            return Err(UNVERIFIED);
        }
        Ok((Arc::clone(credential), token))
    }

    fn is_in_time(&self, token: &Token, leeway: Duration, now: Duration) -> bool {
        let claims = self.config.claims_to_verify.as_deref().unwrap_or(&[TimeClaim::Exp, TimeClaim::Nbf]);
        let (now, leeway) = (now.as_secs_f64(), leeway.as_secs_f64());
        claims.iter().all(|claim| {
            let name = match claim {
                TimeClaim::Exp => "exp",
                TimeClaim::Nbf => "nbf",
            };
            if !token.claims.contains_key(name) {
                return true;
            }
            // What is no time has passed already.
            token.time(name).is_some_and(|time| match claim {
                TimeClaim::Exp => now < time + leeway,
                TimeClaim::Nbf => time <= now + leeway,
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    use super::*;
    use crate::jose::Signer;
    use crate::testing::{Trial, refused};

    /// When trials begin.
    const NOW: u64 = 1_700_000_000;

    fn made() -> Value {
        serde_json::from_str(include_str!("../testdata/jose.json")).unwrap()
    }

    fn trial(config: Value) -> Trial {
        Trial::of("jwt-auth", config)
            .consumer("jack", json!({}), json!({"jwt-auth": {"key": "jack", "secret": "my-secret-key"}}))
            .credential(
                "jack",
                "second",
                json!({"jwt-auth": {"key": "other", "secret": "c2VjcmV0", "base64_secret": true,
                "algorithm": "HS512", "lifetime_grace_period": 10}}),
            )
            .consumer("nobody", json!({}), json!({}))
    }

    fn signed(algorithm: Algorithm, secret: &str, claims: &Value) -> String {
        Signer::new(algorithm, secret, None).unwrap().sign(claims).unwrap()
    }

    fn token(claims: &Value) -> String {
        signed(Algorithm::HS256, "my-secret-key", claims)
    }

    #[test]
    fn a_token_is_looked_for_in_header_query_and_cookie() {
        let token = token(&json!({"key": "jack", "exp": NOW + 1}));
        let trial = trial(json!({}));
        for request in [
            format!("GET /\nAuthorization: {token}"),
            format!("GET /\nAuthorization: Bearer {token}"),
            format!("GET /\nAuthorization: bearer {token}"),
            format!("GET /?jwt={token}"),
            format!("GET /\nCookie: a=b; jwt={token}"),
            format!("GET /?jwt={token}\nCookie: jwt=wrong"),
        ] {
            let run = trial.run(&request);
            assert_eq!(
                (run.answered().as_str(), run.sent("X-Consumer-Username").as_str()),
                ("", "jack"),
                "{request}"
            );
        }
        let run = trial.run(&format!("GET /?jwt={token}\nAuthorization: wrong"));
        assert!(run.answered().contains("JWT token invalid"), "the header comes first");
    }

    #[test]
    fn what_is_wrong_with_a_token_is_said() {
        let trial = trial(json!({"realm": "mine"}));
        let other = |claims: &Value| signed(Algorithm::HS512, "secret", claims);
        for (shown, expected) in [
            (String::new(), "Missing JWT token in request"),
            ("Bearer x".to_owned(), "JWT token invalid"),
            (token(&json!({"user": "jack"})), "missing user key in JWT token"),
            (token(&json!({"key": "jill"})), "Invalid user key in JWT token"),
            (signed(Algorithm::HS256, "wrong", &json!({"key": "jack"})), UNVERIFIED),
            (signed(Algorithm::HS384, "my-secret-key", &json!({"key": "jack"})), UNVERIFIED),
            (token(&json!({"key": "jack", "exp": NOW})), UNVERIFIED),
            (token(&json!({"key": "jack", "exp": "tomorrow"})), UNVERIFIED),
            (token(&json!({"key": "jack", "nbf": NOW + 1})), UNVERIFIED),
            (token(&json!({"key": "jack", "nbf": NOW, "exp": NOW + 1})), ""),
            (token(&json!({"key": "jack"})), ""),
            (other(&json!({"key": "other", "exp": NOW - 9, "nbf": NOW + 10})), ""),
            (other(&json!({"key": "other", "exp": NOW - 10})), UNVERIFIED),
        ] {
            let request = match shown.as_str() {
                "" => "GET /".to_owned(),
                shown => format!("GET /\nAuthorization: {shown}"),
            };
            let run = trial.run(&request);
            let message = run.answered();
            let expected = match expected {
                "" => String::new(),
                expected => format!("401 {{\"message\":\"{expected}\"}}\n"),
            };
            assert_eq!(message, expected, "{shown}");
            if !message.is_empty() {
                assert_eq!(run.answer_field("WWW-Authenticate"), "Bearer realm=\"mine\"");
            }
        }
    }

    #[test]
    fn every_algorithm_lets_in_with_its_key() {
        let made = made();
        for (algorithm, case) in made["tokens"].as_object().unwrap() {
            let key = &made["keys"][case["key"].as_str().unwrap()];
            let mut credential = json!({"key": format!("jack-{algorithm}"), "algorithm": algorithm});
            match key["secret"].as_str() {
                Some(secret) => credential["secret"] = secret.into(),
                None => credential["public_key"] = key["public"].clone(),
            }
            assert_eq!(crate::validate_credential("jwt-auth", &credential).to_string(), "", "{algorithm}");
            let trial =
                Trial::of("jwt-auth", json!({})).consumer("jack", json!({}), json!({"jwt-auth": credential}));
            let run = trial.run(&format!("GET /\nAuthorization: {}", case["token"].as_str().unwrap()));
            assert_eq!(run.answered(), "", "{algorithm}");
        }
    }

    /// A token with this head that nobody signed, or somebody else.
    fn forged(head: &Value, signature: &str) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        format!("{}.{}.{signature}", part(head), part(&json!({"key": "jack"})))
    }

    #[test]
    fn c8_a_token_that_says_how_it_is_to_be_verified_is_not_believed() {
        let trial = trial(json!({}));
        let good = token(&json!({"key": "jack"}));
        let tokens = [
            forged(&json!({"typ": "JWT", "alg": "none"}), ""),
            forged(&json!({"typ": "JWT", "alg": "None"}), "x"),
            forged(&json!({"typ": "JWT"}), ""),
            forged(&json!({"alg": "HS256", "kid": "../../../dev/null"}), "x"),
            forged(&json!({"alg": "HS256", "kid": "x' UNION SELECT 'secret"}), "x"),
            forged(&json!({"alg": "HS256", "jku": "http://attacker.example/keys"}), "x"),
            forged(&json!({"alg": "HS256", "pad": "x".repeat(1 << 20)}), "x"),
        ];
        for shown in &tokens {
            let run = trial.run(&format!("GET /\nAuthorization: {shown}"));
            assert!(run.answered().starts_with("401 "), "{}", &shown[..shown.len().min(200)]);
        }
        for pair in [[&good, &good], [&good, &tokens[0]], [&tokens[0], &good]] {
            let run = trial.run(&format!("GET /\nAuthorization: {}\nAuthorization: {}", pair[0], pair[1]));
            assert!(run.answered().starts_with("401 "), "of two headers the upstream may read the other");
        }
    }

    #[test]
    fn c8_a_public_key_is_never_taken_for_a_secret() {
        let made = made();
        let public = made["keys"]["RSA"]["public"].as_str().unwrap();
        let credential = json!({"key": "jack", "algorithm": "RS256", "public_key": public});
        let trial =
            Trial::of("jwt-auth", json!({})).consumer("jack", json!({}), json!({"jwt-auth": credential}));
        let forged = signed(Algorithm::HS256, public, &json!({"key": "jack"}));
        assert!(trial.run(&format!("GET /\nAuthorization: {forged}")).answered().contains(UNVERIFIED));
    }

    #[test]
    fn the_token_can_be_hidden_and_its_claims_read() {
        let token = token(&json!({"key": "jack", "role": "admin"}));
        let trial =
            trial(json!({"hide_credentials": true, "store_in_ctx": true, "anonymous_consumer": "nobody"}));
        let run = trial.run(&format!("GET /?a=1&jwt={token}"));
        assert_eq!(run.forwarded(), "GET /?a=1");
        let payload = run.state.variable("jwt_auth_payload").map(String::from_utf8_lossy).unwrap_or_default();
        assert_eq!(payload, r#"{"key":"jack","role":"admin"}"#);
        assert_eq!(trial.run(&format!("GET /\nAuthorization: Bearer {token}")).sent("Authorization"), "");
        let run = trial.run(&format!("GET /\nCookie: a=b; jwt={token}; c=d"));
        assert_eq!(run.sent("Cookie"), "a=b; c=d");
        assert_eq!(trial.run(&format!("GET /\nCookie: jwt={token}")).sent("Cookie"), "");
        assert_eq!(trial.run("GET /").sent("X-Consumer-Username"), "nobody");
    }

    #[test]
    fn the_claims_that_count_can_be_chosen() {
        let token = token(&json!({"sub": "jack", "exp": NOW - 1, "nbf": NOW - 5}));
        let trial = trial(json!({"key_claim_name": "sub", "claims_to_verify": ["nbf"]}));
        assert_eq!(trial.run(&format!("GET /\nAuthorization: {token}")).answered(), "");
    }

    #[test]
    fn keys_that_cannot_verify_anything_are_refused() {
        let rsa = made()["keys"]["RSA"]["public"].clone();
        for (credential, path) in [
            (json!({"secret": "s"}), "/key"),
            (json!({"key": "k"}), "/secret"),
            (json!({"key": "k", "secret": "?", "base64_secret": true}), "/secret"),
            (json!({"key": "k", "secret": "s", "algorithm": "none"}), "/algorithm"),
            (json!({"key": "k", "algorithm": "ES256", "public_key": rsa}), "/public_key"),
            (json!({"key": "k", "algorithm": "RS256", "public_key": "no key"}), "/public_key"),
        ] {
            let found = crate::validate_credential("jwt-auth", &credential);
            assert!(found.iter().any(|wrong| wrong.path == path), "{credential}: {found}");
        }
        assert!(
            !crate::validate_credential("jwt-auth", &json!({"key": "k", "algorithm": "RS256"})).is_empty()
        );
        assert_eq!(refused("jwt-auth", &json!({"claims_to_verify": ["iat"]})), ["/claims_to_verify/0"]);
    }
}
