//! Proofs of possession that go along with what the identity provider is asked (DPoP, RFC 9449).
//!
//! The tokens that it grants are bound to the key of these proofs: whoever steals one cannot use it where proofs are
//! asked for. A nonce that the identity provider hands out is kept and repeated until it hands out another.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};

use super::config::Dpop;
use super::seal::random;
use crate::jose::{Algorithm, Key, Signer, Token, URL_SAFE};
use crate::outbound::Response;

/// Addresses whose nonces are kept: an identity provider has few that ask for proofs.
const NONCES_MAX: usize = 16;

/// Bytes of the longest nonce that is repeated.
const NONCE_BYTES_MAX: usize = 1024;

/// What makes proofs.
pub(super) struct Proofs {
    signer: Signer,
    algorithm: Algorithm,
    /// What the identity provider verifies them with.
    key: Value,
    thumbprint: String,
    /// By the address that wants them.
    nonces: Mutex<HashMap<String, String>>,
}

impl Proofs {
    /// Makes proofs as `config` says.
    ///
    /// # Errors
    /// What is wrong with it, and where.
    pub(super) fn new(config: &Dpop) -> Result<Self, (&'static str, String)> {
        let algorithm = config.signing_alg.algorithm();
        let private = config.private_key.as_deref().unwrap_or_default();
        let signer = Signer::new(algorithm, private, None).map_err(|wrong| ("/dpop/private_key", wrong))?;
        let wrong = |reason: String| ("/dpop/public_jwk", reason);
        let given = config.public_jwk.as_ref().unwrap_or(&Value::Null);
        let public = Key::from_jwk(given).filter(|key| key.is_for(algorithm));
        let public = public.ok_or_else(|| wrong(format!("is no public key that verifies {algorithm:?}")))?;
        let probe = signer.sign(&json!({})).map_err(wrong)?;
        let is_pair =
            Token::parse(probe.as_bytes()).is_ok_and(|token| token.is_signed_by(&public, algorithm));
        if !is_pair {
            return Err(wrong("is not the public half of dpop.private_key".to_owned()));
        }
        // What else stands in the key is nobody's business, and none of it counts (RFC 7638, 3.2).
        let members = ["crv", "e", "kty", "n", "x", "y"];
        let members = members.into_iter().filter_map(|name| Some((name, given[name].as_str()?)));
        let members: BTreeMap<&str, &str> = members.collect();
        let text = serde_json::to_vec(&members).map_err(|error| wrong(error.to_string()))?;
        let thumbprint = URL_SAFE.encode(digest(&SHA256, &text));
        Ok(Self { signer, algorithm, key: json!(members), thumbprint, nonces: Mutex::default() })
    }

    /// How they are signed.
    pub(super) fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// What tells the key from all others.
    pub(super) fn thumbprint(&self) -> &str {
        &self.thumbprint
    }

    /// The proof for a request, which shows `token` if it shows one.
    ///
    /// # Errors
    /// When the system has no random numbers.
    pub(super) fn make(
        &self,
        (method, url): (&str, &str),
        token: Option<&str>,
        now: Duration,
    ) -> Result<String, String> {
        let id: [u8; 16] = random().ok_or("the system has no random numbers")?;
        let place = url.split(['?', '#']).next().unwrap_or_default();
        let mut claims = json!({
            "jti": URL_SAFE.encode(id), "htm": method, "htu": place, "iat": now.as_secs(),
        });
        if let Some(token) = token {
            claims["ath"] = URL_SAFE.encode(digest(&SHA256, token.as_bytes())).into();
        }
        if let Some(nonce) = self.nonces().get(url) {
            claims["nonce"] = nonce.as_str().into();
        }
        self.signer.sign_with(json!({ "typ": "dpop+jwt", "jwk": self.key }), &claims)
    }

    /// Keeps the nonce that the answer of `url` hands out; whether it asks for the same again with it.
    pub(super) fn heed(&self, url: &str, answer: &Response) -> bool {
        let nonce = answer.field("dpop-nonce").filter(|nonce| nonce.len() <= NONCE_BYTES_MAX);
        let Some(nonce) = nonce.and_then(|nonce| std::str::from_utf8(nonce).ok()) else { return false };
        let mut nonces = self.nonces();
        if nonces.len() >= NONCES_MAX && !nonces.contains_key(url) {
            nonces.clear();
        }
        nonces.insert(url.to_owned(), nonce.to_owned());
        wants_nonce(answer)
    }

    fn nonces(&self) -> std::sync::MutexGuard<'_, HashMap<String, String>> {
        self.nonces.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether an answer says that a proof lacks a nonce, as those who grant tokens and those who take them do.
fn wants_nonce(answer: &Response) -> bool {
    const ERROR: &str = "use_dpop_nonce";
    match answer.status {
        400 => {
            let said: Result<Value, _> = serde_json::from_slice(&answer.body);
            said.is_ok_and(|said| said["error"] == ERROR)
        }
        401 => {
            let challenges = answer.fields.iter().filter(|(name, _)| name == "www-authenticate");
            challenges.into_iter().any(|(_, value)| String::from_utf8_lossy(value).contains(ERROR))
        }
        _ => false,
    }
}
