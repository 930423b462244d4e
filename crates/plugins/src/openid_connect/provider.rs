//! The identity provider: what it publishes, and what it is asked.
//!
//! Its discovery document and keys are kept and shared by all instances that name the same address. A token signed
//! with a key that is not known yet has them fetched anew, but not more often than every few seconds: a client could
//! name keys that do not exist as fast as it likes.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::config::Config;
use super::proof::Proofs;
use super::seal::random;
use crate::jose::{Algorithm, Key, Signer, Token, URL_SAFE};
use crate::outbound::{Outbound, Request, Response};

/// How long a discovery document is believed.
const DISCOVERY_AGE_MAX: Duration = Duration::from_secs(3600);

/// Keys are fetched anew at most so often.
const FETCH_PAUSE: Duration = Duration::from_secs(10);

/// Keys of one identity provider.
const KEYS_MAX: usize = 64;

/// Where an identity provider answers what.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Discovery {
    pub(super) issuer: Option<String>,
    pub(super) authorization_endpoint: Option<String>,
    pub(super) pushed_authorization_request_endpoint: Option<String>,
    pub(super) token_endpoint: Option<String>,
    pub(super) userinfo_endpoint: Option<String>,
    pub(super) jwks_uri: Option<String>,
    pub(super) introspection_endpoint: Option<String>,
    pub(super) end_session_endpoint: Option<String>,
    pub(super) revocation_endpoint: Option<String>,
    /// How proofs of possession may be signed, if it says so.
    pub(super) dpop_signing_alg_values_supported: Option<Vec<String>>,
}

/// What is known of an identity provider; shared by name.
#[derive(Default)]
pub(super) struct Published(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    discovery: Option<(Arc<Discovery>, Duration)>,
    keys: Option<(Arc<[PublishedKey]>, Duration)>,
    tried: Option<Duration>,
}

struct PublishedKey {
    id: Option<String>,
    algorithm: Option<Algorithm>,
    key: Key,
}

/// An identity provider as one client sees it.
pub(super) struct Provider {
    pub(super) config: Config,
    pub(super) published: Arc<Published>,
    pub(super) outbound: Arc<dyn Outbound>,
    /// Signs assertions, if the client proves itself with them.
    pub(super) signer: Option<Signer>,
    /// Proves that tokens belong to the client, if they are bound to a key of its own.
    pub(super) proofs: Option<Proofs>,
}

/// Why something could not be found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// The identity provider does not answer, or not what it should.
    Provider(String),
    /// What was shown is not good.
    Token(String),
}

impl Trouble {
    pub(super) fn reason(&self) -> &str {
        match self {
            Self::Provider(reason) | Self::Token(reason) => reason,
        }
    }
}

fn provider(reason: impl Into<String>) -> Trouble {
    Trouble::Provider(reason.into())
}

fn token(reason: &str) -> Trouble {
    Trouble::Token(reason.to_owned())
}

impl Provider {
    fn request(&self, request: Request) -> Request {
        request.within(self.config.time_limit()).over(self.config.connection())
    }

    async fn send(&self, what: &str, request: Request) -> Result<Response, Trouble> {
        let answer = self.outbound.send(self.request(request)).await;
        answer.map_err(|failure| provider(format!("{what}: {failure}")))
    }

    /// The JSON document that answers `request`.
    async fn ask(&self, what: &str, request: Request) -> Result<Map<String, Value>, Trouble> {
        document(what, &self.send(what, request).await?)
    }

    /// Where it answers what, at `now` since 1970.
    pub(super) async fn discovery(&self, now: Duration) -> Result<Arc<Discovery>, Trouble> {
        let known = self.published.kept().discovery.clone();
        if let Some((discovery, at)) = &known
            && now < *at + DISCOVERY_AGE_MAX
        {
            return Ok(Arc::clone(discovery));
        }
        let fetched = self.ask("discovery", Request::get(self.config.discovery.as_str())).await;
        let read = fetched.and_then(|document| {
            serde_json::from_value::<Discovery>(Value::Object(document))
                .map_err(|error| provider(format!("discovery: {error}")))
        });
        match (read, known) {
            (Ok(discovery), _) => {
                let discovery = Arc::new(discovery);
                self.published.kept().discovery = Some((Arc::clone(&discovery), now));
                Ok(discovery)
            }
            // What it said last is better than nothing while it is away.
            (Err(_), Some((discovery, _))) => Ok(discovery),
            (Err(trouble), None) => Err(trouble),
        }
    }

    /// Whether a key of the identity provider signed `shown`.
    pub(super) async fn is_signed(&self, shown: &Token, now: Duration) -> Result<(), Trouble> {
        let algorithm = shown.algorithm().ok_or_else(|| token("the algorithm is not supported"))?;
        let expected = self.config.token_signing_alg_values_expected.as_deref();
        if expected.is_some_and(|expected| Algorithm::of(expected) != Some(algorithm)) {
            return Err(token("signed with an unexpected algorithm"));
        }
        if algorithm.is_symmetric() {
            let secret =
                self.config.client_secret.as_deref().ok_or_else(|| token("there is no shared secret"))?;
            let key = Key::secret(secret.as_bytes());
            return is_by(&[&key], shown, algorithm);
        }
        if let Some(keys) = self.published.keys(now, Duration::from_secs(self.config.jwk_expires_in)) {
            let fitting = fitting(&keys, shown, algorithm);
            if !fitting.is_empty() {
                return is_by(&fitting, shown, algorithm);
            }
        }
        let keys = self.fetch_keys(now).await?;
        let fitting = fitting(&keys, shown, algorithm);
        is_by(&fitting, shown, algorithm)
    }

    async fn fetch_keys(&self, now: Duration) -> Result<Arc<[PublishedKey]>, Trouble> {
        {
            let mut kept = self.published.kept();
            if let Some(tried) = kept.tried
                && now < tried + FETCH_PAUSE
                && let Some((keys, _)) = &kept.keys
            {
                return Ok(Arc::clone(keys));
            }
            kept.tried = Some(now);
        }
        let discovery = self.discovery(now).await?;
        let uri = discovery.jwks_uri.as_deref().ok_or_else(|| provider("discovery: there is no jwks_uri"))?;
        let set = self.ask("jwks", Request::get(uri)).await?;
        let listed = set.get("keys").and_then(Value::as_array).into_iter().flatten();
        let keys = listed.filter_map(|jwk| {
            Some(PublishedKey {
                id: jwk["kid"].as_str().map(str::to_owned),
                algorithm: jwk["alg"].as_str().and_then(Algorithm::of),
                // A secret that is published is none.
                key: Key::from_jwk(jwk).filter(|key| !matches!(key, Key::Secret(_)))?,
            })
        });
        let keys: Arc<[PublishedKey]> = keys.take(KEYS_MAX).collect();
        self.published.kept().keys = Some((Arc::clone(&keys), now));
        Ok(keys)
    }

    /// The answer to a form that is sent to `uri` by the client, which proves itself by `method`.
    pub(super) async fn submit(
        &self,
        what: &str,
        uri: &str,
        (method, fields): (&str, Vec<(&str, String)>),
        (more, now): (Vec<(String, Vec<u8>)>, Duration),
    ) -> Result<Response, Trouble> {
        let config = &self.config;
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.extend_pairs(fields);
        let mut request = Request::post(uri, "");
        let secret = config.client_secret.as_deref().unwrap_or_default();
        match method {
            "client_secret_basic" => {
                let encoded =
                    |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
                let pair = format!("{}:{}", encoded(&config.client_id), encoded(secret));
                request = request.field("Authorization", format!("Basic {}", STANDARD.encode(pair)));
            }
            "client_secret_post" => {
                form.append_pair("client_id", &config.client_id).append_pair("client_secret", secret);
            }
            "private_key_jwt" | "client_secret_jwt" => {
                let assertion = self.assertion(uri, now)?;
                form.append_pair("client_id", &config.client_id)
                    .append_pair(
                        "client_assertion_type",
                        "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
                    )
                    .append_pair("client_assertion", &assertion);
            }
            _ => {
                form.append_pair("client_id", &config.client_id);
            }
        }
        request.body = form.finish().into();
        request = request.field("Content-Type", "application/x-www-form-urlencoded");
        request = request.field("Accept", "application/json");
        request.fields.extend(more);
        self.send(what, request).await
    }

    /// What the token endpoint at `uri` answers to `fields`.
    pub(super) async fn grant(
        &self,
        uri: &str,
        fields: Vec<(&str, String)>,
        now: Duration,
    ) -> Result<Map<String, Value>, Trouble> {
        let method = self.config.token_endpoint_auth_method.as_str();
        let answer = self.proved(uri, async || {
            let proof = self.proof(("POST", uri), None, now)?;
            self.submit("token", uri, (method, fields.clone()), (proof, now)).await
        });
        document("token", &answer.await?)
    }

    /// The answer of `uri`, which is asked once more if it wants the nonce that it hands out in a proof.
    async fn proved(
        &self,
        uri: &str,
        ask: impl AsyncFn() -> Result<Response, Trouble>,
    ) -> Result<Response, Trouble> {
        let is_asked_again =
            |answer: &Response| self.proofs.as_ref().is_some_and(|proofs| proofs.heed(uri, answer));
        let answer = ask().await?;
        if !is_asked_again(&answer) {
            return Ok(answer);
        }
        let answer = ask().await?;
        // A nonce that came along is for the next time.
        is_asked_again(&answer);
        Ok(answer)
    }

    /// The field that proves that the client may show `token`, or be granted one; none if it makes no proofs.
    fn proof(
        &self,
        request: (&str, &str),
        token: Option<&str>,
        now: Duration,
    ) -> Result<Vec<(String, Vec<u8>)>, Trouble> {
        let Some(proofs) = &self.proofs else { return Ok(Vec::new()) };
        let proof = proofs.make(request, token, now).map_err(provider)?;
        Ok(vec![("DPoP".to_owned(), proof.into_bytes())])
    }

    /// Whether the identity provider takes the proofs of this client, if it makes any.
    pub(super) fn takes_proofs(&self, discovery: &Discovery) -> Result<(), Trouble> {
        let (Some(proofs), Some(taken)) = (&self.proofs, &discovery.dpop_signing_alg_values_supported) else {
            return Ok(());
        };
        let algorithm = proofs.algorithm();
        match taken.iter().any(|taken| Algorithm::of(taken) == Some(algorithm)) {
            true => Ok(()),
            false => Err(provider(format!("it takes no proofs of possession signed with {algorithm:?}"))),
        }
    }

    fn assertion(&self, uri: &str, now: Duration) -> Result<String, Trouble> {
        let config = &self.config;
        let signer = self.signer.as_ref().ok_or_else(|| provider("there is no key for assertions"))?;
        let id: [u8; 16] = random().ok_or_else(|| provider("the system has no random numbers"))?;
        let claims = json!({
            "iss": config.client_id,
            "sub": config.client_id,
            "aud": config.client_jwt_assertion_audience.as_deref().unwrap_or(uri),
            "jti": URL_SAFE.encode(id),
            "iat": now.as_secs(),
            "exp": now.as_secs().saturating_add_signed(config.client_jwt_assertion_expires_in),
        });
        signer.sign(&claims).map_err(provider)
    }

    /// What the identity provider says of an access token (RFC 7662).
    pub(super) async fn introspect(
        &self,
        shown: &str,
        more: Vec<(String, Vec<u8>)>,
        now: Duration,
    ) -> Result<Map<String, Value>, Trouble> {
        let uri = match &self.config.introspection_endpoint {
            Some(uri) => uri.clone(),
            None => {
                let discovered = self.discovery(now).await?.introspection_endpoint.clone();
                discovered.ok_or_else(|| provider("discovery: there is no introspection_endpoint"))?
            }
        };
        let method = self.config.introspection_endpoint_auth_method.as_str();
        let fields = vec![("token", shown.to_owned()), ("token_type_hint", "access_token".to_owned())];
        let answer = self.submit("introspection", &uri, (method, fields), (more, now)).await?;
        let said = document("introspection", &answer)?;
        match said.get("active") {
            Some(Value::Bool(true)) => Ok(said),
            _ => Err(token("the token is not active")),
        }
    }

    /// What the identity provider knows of the owner of an access token.
    pub(super) async fn user(
        &self,
        access: &str,
        now: Duration,
    ) -> Result<Option<Map<String, Value>>, Trouble> {
        let discovery = self.discovery(now).await?;
        let Some(uri) = discovery.userinfo_endpoint.as_deref() else { return Ok(None) };
        let scheme = if self.proofs.is_some() { "DPoP" } else { "Bearer" };
        let answer = self.proved(uri, async || {
            let mut request = Request::get(uri).field("Authorization", format!("{scheme} {access}"));
            request.fields.extend(self.proof(("GET", uri), Some(access), now)?);
            self.send("userinfo", request).await
        });
        document("userinfo", &answer.await?).map(Some)
    }
}

impl Published {
    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keys(&self, now: Duration, age_max: Duration) -> Option<Arc<[PublishedKey]>> {
        let kept = self.kept();
        let (keys, at) = kept.keys.as_ref()?;
        (now < *at + age_max).then(|| Arc::clone(keys))
    }
}

fn fitting<'k>(keys: &'k [PublishedKey], shown: &Token, algorithm: Algorithm) -> Vec<&'k Key> {
    let fits = |known: &&PublishedKey| {
        known.key.is_for(algorithm)
            && known.algorithm.is_none_or(|own| own == algorithm)
            && shown.key_id().is_none_or(|id| known.id.as_deref().is_none_or(|own| own == id))
    };
    keys.iter().filter(fits).map(|known| &known.key).collect()
}

fn is_by(keys: &[&Key], shown: &Token, algorithm: Algorithm) -> Result<(), Trouble> {
    match keys.iter().any(|key| shown.is_signed_by(key, algorithm)) {
        true => Ok(()),
        false => Err(token("the signature does not verify")),
    }
}

/// The JSON document of a good answer. The body of a bad one might repeat what was sent.
pub(super) fn document(what: &str, answer: &Response) -> Result<Map<String, Value>, Trouble> {
    if !answer.is_success() {
        return Err(provider(format!("{what}: answered {}", answer.status)));
    }
    serde_json::from_slice(&answer.body)
        .map_err(|_| provider(format!("{what}: the answer is no JSON object")))
}
