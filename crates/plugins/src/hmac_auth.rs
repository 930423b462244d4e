//! `hmac-auth`: lets in who signs requests with the secret of a consumer.
//!
//! The secret never travels. What is signed is what the client lists; demand with `signed_headers` that it lists
//! enough, and with `validate_request_body` that it signs the body.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha1::Sha1;
use sha2::{Digest as _, Sha256, Sha512};
use utoipa::ToSchema;

use crate::authentication::{self, Refusal};
use crate::consumers::{Credential, CredentialKind};
use crate::exchange::{Answer, Body, Exchange, Flow};
use crate::kind::{self, Built, Category, Kind, Phase, Phases, Plugin, Site};
use crate::schema;
use gatewright_model::expression::Variable;

pub(crate) const KIND: Kind = Kind {
    name: "hmac-auth",
    priority: 2530,
    category: Category::Authentication,
    phases: Phases::of(&[Phase::Rewrite]),
    schema: || {
        let headers = serde_json::json!({ "type": "array", "items":
            { "type": "string", "minLength": 1, "maxLength": 50 } });
        schema::field(schema::of::<Config>(), "signed_headers", headers)
    },
    metadata: None,
    credential: Some(&CredentialKind {
        schema: schema::of::<Key>,
        found_by: "key_id",
        secret: &["secret_key"],
        parse: |config| kind::parse::<Key>(config).map(|key| Arc::new(key) as _),
    }),
    build,
};

#[derive(Deserialize, ToSchema)]
#[serde(default)]
#[schema(default)]
struct Config {
    /// Algorithms that signatures may use.
    #[schema(min_items = 1)]
    allowed_algorithms: Vec<Algorithm>,
    /// Seconds that `Date` may be off.
    #[schema(minimum = 1)]
    clock_skew: i64,
    /// Header fields that have to be signed, where the request has them.
    signed_headers: Vec<String>,
    /// Whether `Digest` has to be that of the body.
    validate_request_body: bool,
    /// Bytes of the longest body that is compared.
    #[schema(minimum = 1)]
    max_req_body_size: u64,
    /// Whether the upstream does not get to see the signature.
    hide_credentials: bool,
    /// The consumer as whom requests without a valid signature go on.
    #[schema(min_length = 1)]
    anonymous_consumer: Option<String>,
    /// What `WWW-Authenticate` names.
    #[schema(min_length = 1, max_length = 128, pattern = r"^[ -!#-[\]-~]+$")]
    realm: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            allowed_algorithms: vec![Algorithm::Sha1, Algorithm::Sha256, Algorithm::Sha512],
            clock_skew: 300,
            signed_headers: vec!["date".to_owned()],
            validate_request_body: false,
            max_req_body_size: 64 * 1024 * 1024,
            hide_credentials: false,
            anonymous_consumer: None,
            realm: "hmac".to_owned(),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
enum Algorithm {
    #[serde(rename = "hmac-sha1")]
    Sha1,
    #[serde(rename = "hmac-sha256")]
    Sha256,
    #[serde(rename = "hmac-sha512")]
    Sha512,
}

#[derive(Deserialize, ToSchema)]
struct Key {
    /// Names the secret in requests.
    #[schema(min_length = 1, max_length = 256)]
    #[allow(dead_code, reason = "the index is keyed by it")]
    key_id: String,
    /// Signs requests.
    #[schema(min_length = 1, max_length = 256)]
    secret_key: String,
}

struct HmacAuth(Config);

fn build(config: Value, _: &Site<'_>) -> Built {
    Ok(Arc::new(HmacAuth(kind::parse(config)?)))
}

/// What `Authorization` says.
struct Signature {
    key_id: String,
    algorithm: Algorithm,
    headers: Vec<String>,
    bytes: Vec<u8>,
}

const INVALID: &str = "client request can't be validated";

/// What a check answers instead of letting a request on.
enum Trouble {
    Refused(String),
    Other(Flow),
}

impl From<&str> for Trouble {
    fn from(message: &str) -> Self {
        Self::Refused(message.to_owned())
    }
}

fn parse(exchange: &Exchange<'_>) -> Result<Signature, Trouble> {
    let header = authentication::shown(exchange, "Authorization");
    let header =
        header.ok_or_else(|| format!("{INVALID}: missing Authorization header")).map_err(Trouble::Refused)?;
    let rest = header.strip_prefix(b"Signature").ok_or_else(|| {
        Trouble::Refused(format!("{INVALID}: Authorization header does not start with 'Signature'"))
    })?;
    let text = std::str::from_utf8(rest).map_err(|_| INVALID)?;
    let parameter = |name: &str| {
        text.split(',').find_map(|pair| {
            let value = pair.trim().strip_prefix(name)?.strip_prefix("=\"")?.strip_suffix('"')?;
            Some(value.to_owned())
        })
    };
    let algorithm = parameter("algorithm").ok_or(INVALID)?;
    let algorithm = serde_json::from_value(Value::String(algorithm)).map_err(|_| INVALID)?;
    let headers = parameter("headers").unwrap_or_default();
    Ok(Signature {
        key_id: parameter("keyId").ok_or(INVALID)?,
        algorithm,
        headers: headers.split_whitespace().map(str::to_owned).collect(),
        bytes: STANDARD.decode(parameter("signature").ok_or(INVALID)?).map_err(|_| INVALID)?,
    })
}

impl Signature {
    /// What the client signed, if it signed this request.
    fn signed_text(&self, exchange: &Exchange<'_>) -> Vec<u8> {
        let mut text = self.key_id.clone().into_bytes();
        text.push(b'\n');
        for name in &self.headers {
            if name == "@request-target" {
                text.extend_from_slice(exchange.request.bytes(exchange.request.method_text));
                text.push(b' ');
                text.extend(exchange.text(&Variable::RequestUri).unwrap_or_default());
            } else {
                let Some(value) = exchange.text(&Variable::Http(name.to_ascii_lowercase().into())) else {
                    continue;
                };
                text.extend_from_slice(name.as_bytes());
                text.extend_from_slice(b": ");
                text.extend(value);
            }
            text.push(b'\n');
        }
        text
    }

    fn is_by(&self, secret: &[u8], text: &[u8]) -> bool {
        fn verified<M: Mac + KeyInit>(secret: &[u8], text: &[u8], signature: &[u8]) -> bool {
            let Ok(mut mac) = <M as KeyInit>::new_from_slice(secret) else { return false };
            mac.update(text);
            mac.verify_slice(signature).is_ok()
        }
        match self.algorithm {
            Algorithm::Sha1 => verified::<Hmac<Sha1>>(secret, text, &self.bytes),
            Algorithm::Sha256 => verified::<Hmac<Sha256>>(secret, text, &self.bytes),
            Algorithm::Sha512 => verified::<Hmac<Sha512>>(secret, text, &self.bytes),
        }
    }
}

impl HmacAuth {
    fn check(&self, exchange: &Exchange<'_>) -> Result<Arc<Credential>, Trouble> {
        let signature = parse(exchange)?;
        let credential = exchange.consumers.find(&KIND, signature.key_id.as_bytes()).ok_or(INVALID)?;
        let key = credential.parsed::<Key>().ok_or(INVALID)?;
        if !self.0.allowed_algorithms.contains(&signature.algorithm) || !self.is_in_time(exchange) {
            return Err(INVALID.into());
        }
        let lists = |name: &&String| signature.headers.iter().any(|signed| signed.eq_ignore_ascii_case(name));
        if !self.0.signed_headers.iter().all(|name| lists(&name)) {
            return Err(INVALID.into());
        }
        if !signature.is_by(key.secret_key.as_bytes(), &signature.signed_text(exchange)) {
            return Err(INVALID.into());
        }
        if self.0.validate_request_body {
            self.check_body(exchange, &signature)?;
        }
        Ok(Arc::clone(credential))
    }

    /// Whether the request says when it was made, and that is not long ago.
    fn is_in_time(&self, exchange: &Exchange<'_>) -> bool {
        let date = exchange.field("Date").and_then(|date| std::str::from_utf8(date).ok());
        let date = date.and_then(|date| httpdate::parse_http_date(date).ok());
        let made = date.and_then(|date| date.duration_since(std::time::UNIX_EPOCH).ok());
        made.is_some_and(|made| {
            let off = exchange.surroundings.now().unix.abs_diff(made).as_secs();
            off <= self.0.clock_skew.unsigned_abs()
        })
    }

    fn check_body(&self, exchange: &Exchange<'_>, signature: &Signature) -> Result<(), Trouble> {
        let bytes_max = usize::try_from(self.0.max_req_body_size).unwrap_or(usize::MAX);
        let body = match &exchange.state.body {
            Body::Unread => return Err(Trouble::Other(Flow::ReadBody(bytes_max))),
            Body::TooLarge => return Err(Trouble::Other(Flow::respond(Answer::new(413)))),
            Body::Read(body) => body,
        };
        let digest = exchange.field("Digest").ok_or(INVALID)?;
        let expected = format!("SHA-256={}", STANDARD.encode(Sha256::digest(body)));
        // A digest that is not signed proves nothing.
        let is_signed = signature.headers.iter().any(|name| name.eq_ignore_ascii_case("digest"));
        match is_signed && digest == expected.as_bytes() {
            true => Ok(()),
            false => Err(INVALID.into()),
        }
    }
}

impl Plugin for HmacAuth {
    fn rewrite(&self, exchange: &mut Exchange<'_>) -> Flow {
        let checked = match self.check(exchange) {
            Err(Trouble::Other(flow)) => return flow,
            Err(Trouble::Refused(message)) => Err(message),
            Ok(credential) => Ok(credential),
        };
        if self.0.hide_credentials {
            exchange.request.fields.remove(b"authorization");
        }
        let identified = checked.and_then(|credential| {
            authentication::identify(exchange, credential).ok_or_else(|| INVALID.to_owned())
        });
        identified.unwrap_or_else(|message| {
            let challenge = format!("hmac realm=\"{}\"", self.0.realm);
            let refusal = Refusal { challenge, anonymous_consumer: self.0.anonymous_consumer.as_deref() };
            refusal.refuse(exchange, &message)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::testing::Trial;
    use serde_json::json;

    fn trial(config: Value) -> Trial {
        Trial::of("hmac-auth", config).consumer(
            "jack",
            json!({}),
            json!({"hmac-auth": {"key_id": "k", "secret_key": "s"}}),
        )
    }

    fn date(offset: i64) -> String {
        let now = UNIX_EPOCH + Duration::from_secs((1_700_000_000 + offset).unsigned_abs());
        httpdate::fmt_http_date(now)
    }

    /// A request signed over these headers; `fields` are the lines of the request.
    fn signed(secret: &str, headers: &str, text: &str, fields: &str, body: &str) -> String {
        let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(secret.as_bytes()).unwrap();
        mac.update(text.as_bytes());
        let signature = STANDARD.encode(mac.finalize().into_bytes());
        format!(
            "GET /a?b=1\n{fields}\nAuthorization: Signature keyId=\"k\",algorithm=\"hmac-sha256\",headers=\"{headers}\",signature=\"{signature}\"\n\n{body}"
        )
    }

    fn plain(secret: &str, offset: i64) -> String {
        let date = date(offset);
        let text = format!("k\nGET /a?b=1\ndate: {date}\n");
        signed(secret, "@request-target date", &text, &format!("Date: {date}"), "")
    }

    #[test]
    fn a_request_must_be_signed_by_the_secret() {
        let invalid = "401 {\"message\":\"client request can't be validated\"}\n";
        for (request, expected) in [
            (plain("s", 0), ""),
            (plain("s", -299), ""),
            (plain("s", -301), invalid),
            (plain("other", 0), invalid),
            (plain("s", 0).replace("/a?b=1", "/a?b=2"), invalid),
            (plain("s", 0).replace("keyId=\"k\"", "keyId=\"x\""), invalid),
            (plain("s", 0).replace("sha256", "sha512"), invalid),
            (plain("s", 0).replace("@request-target date", "@request-target"), invalid),
            (
                "GET /".to_owned(),
                "401 {\"message\":\"client request can't be validated: missing Authorization header\"}\n",
            ),
            (
                "GET /\nAuthorization: Basic x".to_owned(),
                "401 {\"message\":\"client request can't be validated: Authorization header does not start with 'Signature'\"}\n",
            ),
        ] {
            assert_eq!(trial(json!({})).run(&request).answered(), expected, "{request}");
        }
        let only = trial(json!({"allowed_algorithms": ["hmac-sha512"]}));
        assert_eq!(only.run(&plain("s", 0)).answered(), invalid);
        let trial = trial(json!({"hide_credentials": true}));
        let run = trial.run(&plain("s", 0));
        assert_eq!(
            (run.sent("X-Consumer-Username").as_str(), run.sent("Authorization").as_str()),
            ("jack", "")
        );
    }

    #[test]
    fn the_body_must_be_the_one_that_was_signed() {
        let request = |body: &str| {
            let (date, digest) = (date(0), format!("SHA-256={}", STANDARD.encode(Sha256::digest(b"hello"))));
            let text = format!("k\ndate: {date}\ndigest: {digest}\n");
            signed("s", "date digest", &text, &format!("Date: {date}\nDigest: {digest}"), body)
        };
        let trial = trial(json!({"validate_request_body": true, "max_req_body_size": 6}));
        assert_eq!(trial.run(&request("hello")).answered(), "");
        assert!(trial.run(&request("hallo")).answered().starts_with("401 "));
        assert_eq!(trial.run(&request("too long")).answered(), "413 ");
        assert!(trial.run(&plain("s", 0)).answered().starts_with("401 "), "no digest");
    }
}
