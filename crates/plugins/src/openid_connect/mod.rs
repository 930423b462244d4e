//! `openid-connect`: lets in who an identity provider vouches for, with a token in the request or after a login in
//! the browser.
//!
//! * `config`: what it is configured with.
//! * `provider`: the identity provider, what it publishes and is asked. `proof`: what goes along where tokens are bound.
//! * `bearer`: tokens that come with a request. `remembered`: what introspection said of them.
//! * `visit`: requests of browsers. `browser`: what the identity provider is asked for them.
//! * `session`: who a browser belongs to, kept in `cookies` or in Redis. `seal`: what nobody else can read or write.
//!
//! It identifies no consumer: what the upstream learns of the caller are the header fields it sets, and what a client
//! sends under these names is removed.

mod bearer;
mod browser;
mod config;
mod cookies;
mod proof;
mod provider;
mod remembered;
mod seal;
mod session;
mod visit;

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use gatewright_model::validation::{Schema, Violations};
use serde_json::{Map, Value};

use self::bearer::{Refused, Shown};
use self::config::{Config, Dpop};
use self::proof::Proofs;
use self::provider::{Provider, Published, Trouble};
use self::remembered::Remembered;
use self::session::{Session, Sessions};
use crate::edits;
use crate::exchange::{Answer, Exchange, Flow, Next};
use crate::jose::{Algorithm, Key, Signer};
use crate::kind::{self, Built, Category, Kind, Phase, Phases, Plugin, Site};

pub(crate) const KIND: Kind = Kind {
    name: "openid-connect",
    priority: 2599,
    category: Category::Authentication,
    phases: Phases::of(&[Phase::Rewrite]),
    schema: config::schema,
    metadata: None,
    credential: None,
    build,
};

/// The fields that the upstream gets from the gateway alone.
const OWN_FIELDS: [&str; 5] =
    ["X-Access-Token", "X-ID-Token", "X-Userinfo", "X-Refresh-Token", "X-Raw-ID-Token"];

struct OpenIdConnect {
    provider: Provider,
    public_key: Option<Key>,
    claim_schema: Option<Schema>,
    remembered: Remembered,
    /// None: only tokens in requests count.
    sessions: Option<Arc<Sessions>>,
}

struct Instance(Arc<OpenIdConnect>);

fn build(config: Value, site: &Site<'_>) -> Built {
    let config: Config = kind::parse(config)?;
    let mut violations = Violations::default();
    config.check(&mut violations);
    let mut named = |at: &str, wrong: String| violations.add(at, wrong);
    let public_key = config.public_key.as_deref().map(Key::from_pem).transpose();
    let public_key = public_key.map_err(|wrong| named("/public_key", wrong)).unwrap_or_default();
    let claim_schema = config.claim_schema.clone().map(Schema::compile).transpose();
    let claim_schema = claim_schema.map_err(|wrong| named("/claim_schema", wrong)).unwrap_or_default();
    let signer = signer(&config).map_err(|(at, wrong)| named(at, wrong)).unwrap_or_default();
    let proofs = proofs(config.dpop.as_ref()).map_err(|(at, wrong)| named(at, wrong)).unwrap_or_default();
    for (index, name) in config.introspection_addon_headers.iter().flatten().enumerate() {
        edits::check_name(name, &format!("/introspection_addon_headers/{index}"), &mut violations);
    }
    violations.into_result()?;
    let published = site.shared.get(&format!("openid-connect {}", config.discovery), Published::default);
    let sessions = if config.bearer_only { None } else { Sessions::new(&config, site.outbound) };
    let provider = Provider { config, published, outbound: Arc::clone(site.outbound), signer, proofs };
    let remembered = Remembered::default();
    Ok(Arc::new(Instance(Arc::new(OpenIdConnect {
        provider,
        public_key,
        claim_schema,
        remembered,
        sessions: sessions.map(Arc::new),
    }))))
}

/// What signs assertions, if the client proves itself with them anywhere.
fn signer(config: &Config) -> Result<Option<Signer>, (&'static str, String)> {
    let pushing = config.par.as_ref().and_then(|par| par.endpoint_auth_method.as_ref());
    let methods = [&config.token_endpoint_auth_method, &config.introspection_endpoint_auth_method];
    let uses = |method: &str| methods.into_iter().chain(pushing).any(|used| used == method);
    let chosen = config.client_jwt_assertion_alg.map(config::AssertionAlgorithm::algorithm);
    if uses("private_key_jwt") {
        let at = "/client_rsa_private_key";
        let key = config.client_rsa_private_key.as_deref();
        let key = key.ok_or_else(|| (at, "private_key_jwt needs a private key".to_owned()))?;
        let algorithm = chosen.unwrap_or(Algorithm::RS256);
        let id = config.client_rsa_private_key_id.clone();
        return Signer::new(algorithm, key, id).map(Some).map_err(|wrong| (at, wrong));
    }
    if uses("client_secret_jwt") {
        let at = "/client_secret";
        let secret = config.client_secret.as_deref();
        let secret = secret.ok_or_else(|| (at, "client_secret_jwt needs a client secret".to_owned()))?;
        let algorithm = chosen.unwrap_or(Algorithm::HS256);
        return Signer::new(algorithm, secret, None).map(Some).map_err(|wrong| (at, wrong));
    }
    Ok(None)
}

/// What makes proofs of possession, where they are wanted.
fn proofs(config: Option<&Dpop>) -> Result<Option<Proofs>, (&'static str, String)> {
    config.filter(|dpop| dpop.enabled).map(Proofs::new).transpose()
}

impl Plugin for Instance {
    fn rewrite(&self, exchange: &mut Exchange<'_>) -> Flow {
        let shown = bearer::shown(exchange);
        let strips = OWN_FIELDS.iter().map(|name| name.as_bytes());
        strips.for_each(|name| exchange.request.fields.remove(name));
        let Some(sessions) = &self.0.sessions else { return self.bearer(shown, exchange) };
        let config = &self.0.provider.config;
        let takes_tokens =
            config.introspection_endpoint.is_some() || self.0.public_key.is_some() || config.use_jwks;
        match shown {
            Shown::Token(_) if takes_tokens => self.bearer(shown, exchange),
            _ => self.browser(sessions, exchange),
        }
    }
}

fn wait<F>(future: F) -> Flow
where
    F: Future<Output = Next> + 'static,
{
    Flow::Wait(Box::pin(future))
}

impl Instance {
    fn bearer(&self, shown: Shown, exchange: &Exchange<'_>) -> Flow {
        let config = &self.0.provider.config;
        let realm = config.realm.clone();
        let token = match shown {
            Shown::Token(token) => token,
            Shown::Malformed => {
                return Flow::respond(Answer::message(400, "Invalid Authorization header format."));
            }
            Shown::Nothing => {
                let answer = Answer::new(401).field("WWW-Authenticate", format!("Bearer realm=\"{realm}\""));
                let answer = answer.field("Content-Type", "text/plain; charset=utf-8");
                return Flow::respond(answer.body("No bearer token found in request."));
            }
        };
        let more = config.introspection_addon_headers.iter().flatten();
        let more = more.filter_map(|name| Some((name.clone(), exchange.field(name)?.to_vec()))).collect();
        let (plugin, now) = (Arc::clone(&self.0), exchange.surroundings.now().unix);
        wait(async move {
            let judged = plugin.judge(&token, more, now).await;
            Box::new(move |exchange: &mut Exchange<'_>| match judged {
                Ok(claims) => {
                    plugin.pass_token(exchange, &token);
                    if plugin.provider.config.set_userinfo_header {
                        set_json(exchange, "X-Userinfo", &claims);
                    }
                    Flow::Continue
                }
                Err(refused) => Flow::respond(refusal(refused, &realm)),
            }) as Next
        })
    }
}

impl OpenIdConnect {
    /// Gives the upstream the access token of whoever was let in.
    fn pass_token(&self, exchange: &mut Exchange<'_>, token: &str) {
        exchange.state.is_vouched_for = true;
        let config = &self.provider.config;
        if !config.set_access_token_header {
            return;
        }
        match config.access_token_in_authorization_header {
            true => exchange.request.fields.set("Authorization", format!("Bearer {token}").as_bytes()),
            false => exchange.request.fields.set("X-Access-Token", token.as_bytes()),
        }
    }

    /// Gives the upstream what a session says.
    fn pass_session(&self, exchange: &mut Exchange<'_>, session: &Session) {
        let config = &self.provider.config;
        self.pass_token(exchange, &session.access_token);
        if config.set_id_token_header {
            set_json(exchange, "X-ID-Token", &session.claims);
        }
        if config.set_raw_id_token_header {
            exchange.request.fields.set("X-Raw-ID-Token", session.id_token.as_bytes());
        }
        if let Some(user) = session.user.as_ref().filter(|_| config.set_userinfo_header) {
            set_json(exchange, "X-Userinfo", user);
        }
        if let Some(token) = session.refresh_token.as_ref().filter(|_| config.set_refresh_token_header) {
            exchange.request.fields.set("X-Refresh-Token", token.as_bytes());
        }
    }
}

fn set_json(exchange: &mut Exchange<'_>, name: &str, value: &Map<String, Value>) {
    let text = serde_json::to_vec(value).unwrap_or_default();
    exchange.request.fields.set(name, STANDARD.encode(text).as_bytes());
}

fn refusal(refused: Refused, realm: &str) -> Answer {
    match refused {
        Refused::Forbidden(reason) => forbidden(reason),
        Refused::Unfit(reason) => invalid_token(realm, reason),
        Refused::Trouble(Trouble::Token(reason)) => invalid_token(realm, &reason),
        Refused::Trouble(trouble @ Trouble::Provider(_)) => unavailable(&trouble),
    }
}

fn invalid_token(realm: &str, reason: &str) -> Answer {
    let challenge =
        format!("Bearer realm=\"{realm}\", error=\"invalid_token\", error_description=\"{reason}\"");
    Answer::new(401).field("WWW-Authenticate", challenge)
}

fn forbidden(reason: &str) -> Answer {
    Answer::json(403, &serde_json::json!({ "error": reason }))
}

/// The identity provider cannot be asked: nobody knows, so nobody is let in.
fn unavailable(trouble: &Trouble) -> Answer {
    Answer::message(503, &format!("the identity provider cannot be asked: {}", trouble.reason()))
}

#[cfg(test)]
mod tests;
