//! `openid-connect`: lets in who an identity provider vouches for, with a token in the request or after a login in
//! the browser.
//!
//! * `config`: what it is configured with.
//! * `provider`: the identity provider, what it publishes and is asked.
//! * `bearer`: tokens that come with a request. `remembered`: what introspection said of them.
//! * `browser`: logins, and what follows from them. `session`: cookies that keep them.
//!
//! It identifies no consumer: what the upstream learns of the caller are the header fields it sets, and what a client
//! sends under these names is removed.

mod bearer;
mod browser;
mod config;
mod provider;
mod remembered;
mod session;

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use gatewright_model::expression::Variable;
use gatewright_model::validation::{Schema, Violations};
use serde_json::{Map, Value};

use self::bearer::{Refused, Shown};
use self::browser::Returned;
use self::config::{Config, UnauthAction};
use self::provider::{Provider, Published, Trouble};
use self::remembered::Remembered;
use self::session::{Cookies, Login, Session};
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

/// Where the identity provider sends browsers back to unless the configuration says so, below the path they asked for.
const RETURN_PATH: &str = "/.apisix/redirect";

/// The fields that the upstream gets from the gateway alone.
const OWN_FIELDS: [&str; 5] =
    ["X-Access-Token", "X-ID-Token", "X-Userinfo", "X-Refresh-Token", "X-Raw-ID-Token"];

struct OpenIdConnect {
    provider: Provider,
    public_key: Option<Key>,
    claim_schema: Option<Schema>,
    remembered: Remembered,
    /// None: only tokens in requests count.
    cookies: Option<Cookies>,
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
    for (index, name) in config.introspection_addon_headers.iter().flatten().enumerate() {
        edits::check_name(name, &format!("/introspection_addon_headers/{index}"), &mut violations);
    }
    violations.into_result()?;
    let published = site.shared.get(&format!("openid-connect {}", config.discovery), Published::default);
    let cookies = if config.bearer_only { None } else { Cookies::new(&config) };
    let provider = Provider { config, published, outbound: Arc::clone(site.outbound), signer };
    let remembered = Remembered::default();
    Ok(Arc::new(Instance(Arc::new(OpenIdConnect {
        provider,
        public_key,
        claim_schema,
        remembered,
        cookies,
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

impl Plugin for Instance {
    fn rewrite(&self, exchange: &mut Exchange<'_>) -> Flow {
        let shown = bearer::shown(exchange);
        let strips = OWN_FIELDS.iter().map(|name| name.as_bytes());
        strips.for_each(|name| exchange.request.fields.remove(name));
        let Some(cookies) = &self.0.cookies else { return self.bearer(shown, exchange) };
        let config = &self.0.provider.config;
        let takes_tokens =
            config.introspection_endpoint.is_some() || self.0.public_key.is_some() || config.use_jwks;
        match shown {
            Shown::Token(_) if takes_tokens => self.bearer(shown, exchange),
            _ => self.browser(cookies, exchange),
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
        let realm = format!("Bearer realm=\"{}\"", config.realm);
        let token = match shown {
            Shown::Token(token) => token,
            Shown::Malformed => {
                return Flow::respond(Answer::message(400, "Invalid Authorization header format."));
            }
            Shown::Nothing => {
                let answer = Answer::new(401).field("WWW-Authenticate", realm);
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

    fn browser(&self, cookies: &Cookies, exchange: &Exchange<'_>) -> Flow {
        let now = exchange.surroundings.now().unix;
        let path = exchange.request.bytes(exchange.request.path).to_vec();
        let session = cookies.session(exchange, now.as_secs());
        let config = &self.0.provider.config;
        if path == config.logout_path.as_bytes() {
            let forgotten = cookies.forget(exchange);
            let plugin = Arc::clone(&self.0);
            return wait(async move {
                let mut answer = plugin.log_out(session.map(|(session, _)| session), now).await;
                for line in forgotten {
                    answer = answer.field("Set-Cookie", line);
                }
                Box::new(move |_: &mut Exchange<'_>| Flow::respond(answer)) as Next
            });
        }
        let returns = self.0.return_address(exchange, &path);
        if returns.is_here {
            return self.returned(cookies, returns.uri, exchange);
        }
        match session {
            Some((session, is_old)) => self.go_on(session, is_old, returns.uri, exchange),
            None => self.unknown(returns.uri, target_of(exchange), exchange),
        }
    }

    /// What becomes of a browser that nobody is known to sit at.
    fn unknown(&self, redirect_uri: String, target: String, exchange: &Exchange<'_>) -> Flow {
        match self.0.provider.config.unauth_action {
            UnauthAction::Pass => Flow::Continue,
            UnauthAction::Deny => Flow::respond(Answer::message(401, "Unauthorized")),
            UnauthAction::Auth => {
                let (plugin, now) = (Arc::clone(&self.0), exchange.surroundings.now().unix);
                let tls = exchange.client.tls;
                wait(async move {
                    let left = plugin.leave(&redirect_uri, target, now).await;
                    let answer = plugin.sent_away(left, tls);
                    Box::new(move |_: &mut Exchange<'_>| Flow::respond(answer)) as Next
                })
            }
        }
    }

    /// What becomes of a browser that comes back.
    fn returned(&self, cookies: &Cookies, redirect_uri: String, exchange: &Exchange<'_>) -> Flow {
        let now = exchange.surroundings.now().unix;
        let argument = |name: &str| {
            let value = exchange.text(&Variable::Arg(name.into()))?;
            String::from_utf8(value).ok()
        };
        let returned =
            Returned { code: argument("code"), state: argument("state"), error: argument("error") };
        let login = cookies.login(exchange, now.as_secs());
        let login = login.filter(|login| Some(&login.state) == returned.state.as_ref());
        let Some(login) = login else {
            // Used twice, too late, or begun in another window: begin anew.
            return self.unknown(redirect_uri, "/".to_owned(), exchange);
        };
        let Some(code) = returned.code.filter(|_| returned.error.is_none()) else {
            return Flow::respond(Answer::message(500, "the identity provider did not let the browser in"));
        };
        let (plugin, tls) = (Arc::clone(&self.0), exchange.client.tls);
        wait(async move {
            let arrived = plugin.arrive(code, &login, &redirect_uri, now).await;
            let answer = plugin.let_in(arrived, login.target, tls, now);
            Box::new(move |_: &mut Exchange<'_>| Flow::respond(answer)) as Next
        })
    }

    /// What becomes of a browser with a session.
    fn go_on(&self, session: Session, is_old: bool, redirect_uri: String, exchange: &Exchange<'_>) -> Flow {
        let now = exchange.surroundings.now().unix;
        let (plugin, tls) = (Arc::clone(&self.0), exchange.client.tls);
        let (has_ended, renews) = plugin.ages(&session, now.as_secs());
        let target = target_of(exchange);
        wait(async move {
            let outcome = match (renews, has_ended) {
                (true, _) => match plugin.renew(session.clone(), now).await {
                    Ok(renewed) => Some((renewed, true)),
                    // It goes on with the tokens it has, as long as they live.
                    Err(_) if !has_ended => Some((session, is_old)),
                    Err(_) => None,
                },
                (false, true) => None,
                (false, false) => Some((session, is_old)),
            };
            let Some((mut session, is_changed)) = outcome else {
                let left = match plugin.provider.config.unauth_action {
                    UnauthAction::Auth => Some(plugin.leave(&redirect_uri, target, now).await),
                    UnauthAction::Deny | UnauthAction::Pass => None,
                };
                return Box::new(move |_: &mut Exchange<'_>| match left {
                    Some(left) => Flow::respond(plugin.sent_away(left, tls)),
                    None if plugin.provider.config.unauth_action == UnauthAction::Pass => Flow::Continue,
                    None => Flow::respond(Answer::message(401, "Unauthorized")),
                }) as Next;
            };
            Box::new(move |exchange: &mut Exchange<'_>| {
                if is_changed {
                    session.touched = now.as_secs();
                    let lines =
                        plugin.cookies.as_ref().and_then(|own| own.keep(&session, tls, now.as_secs()));
                    for line in lines.into_iter().flatten() {
                        exchange.answer_field("Set-Cookie", line);
                    }
                }
                plugin.pass_session(exchange, &session);
                Flow::Continue
            }) as Next
        })
    }
}

/// Where the identity provider sends browsers back to.
struct ReturnAddress {
    uri: String,
    /// Whether this request is one that was sent back.
    is_here: bool,
}

impl OpenIdConnect {
    fn return_address(&self, exchange: &Exchange<'_>, path: &[u8]) -> ReturnAddress {
        let text = |variable: &Variable| {
            String::from_utf8_lossy(&exchange.text(variable).unwrap_or_default()).into_owned()
        };
        let authority =
            String::from_utf8_lossy(exchange.request.bytes(exchange.request.authority)).into_owned();
        let origin = format!("{}://{authority}", text(&Variable::Scheme));
        let path = String::from_utf8_lossy(path);
        match self.provider.config.redirect_uri.as_deref() {
            Some(uri) if uri.starts_with('/') => {
                ReturnAddress { is_here: path == uri, uri: format!("{origin}{uri}") }
            }
            Some(uri) => {
                let below = uri.split_once("://").map_or(uri, |(_, rest)| rest);
                let own = below.find('/').map_or("/", |start| &below[start..]);
                let own = own.split('?').next().unwrap_or_default();
                ReturnAddress { is_here: path == own, uri: uri.to_owned() }
            }
            None if path.ends_with(RETURN_PATH) => {
                ReturnAddress { is_here: true, uri: format!("{origin}{path}") }
            }
            None => {
                let path = path.trim_end_matches('/');
                ReturnAddress { is_here: false, uri: format!("{origin}{path}{RETURN_PATH}") }
            }
        }
    }

    /// Whether the access token has ended, and whether tokens are to be renewed.
    fn ages(&self, session: &Session, now: u64) -> (bool, bool) {
        let config = &self.provider.config;
        let leeway = u64::try_from(config.access_token_expires_leeway).unwrap_or_default();
        let has_ended = session.expires.is_some_and(|expires| now + leeway >= expires);
        let interval = config.refresh_session_interval.and_then(|seconds| u64::try_from(seconds).ok());
        let is_due = interval.is_some_and(|interval| now >= session.granted + interval);
        let can = session.refresh_token.is_some();
        (has_ended, can && (is_due || (has_ended && config.renew_access_token_on_expiry)))
    }

    fn sent_away(&self, left: Result<(String, Login), Trouble>, tls: bool) -> Answer {
        match left {
            Ok((location, login)) => {
                let line = self.cookies.as_ref().and_then(|cookies| cookies.keep_login(&login, tls));
                let answer = Answer::new(302).field("Location", location).field("Cache-Control", "no-store");
                line.into_iter().fold(answer, |answer, line| answer.field("Set-Cookie", line))
            }
            Err(trouble) => unavailable(&trouble),
        }
    }

    fn let_in(&self, arrived: Result<Session, Refused>, target: String, tls: bool, now: Duration) -> Answer {
        let session = match arrived {
            Ok(session) => session,
            Err(Refused::Forbidden(reason)) => return forbidden(reason),
            Err(Refused::Trouble(trouble)) => return Answer::message(500, trouble.reason()),
        };
        let Some(cookies) = &self.cookies else { return Answer::new(500) };
        let Some(lines) = cookies.keep(&session, tls, now.as_secs()) else {
            return Answer::message(500, "the session is longer than cookies may be");
        };
        let answer = Answer::new(302).field("Location", target).field("Cache-Control", "no-store");
        let answer = answer.field("Set-Cookie", cookies.forget_login(tls));
        lines.into_iter().fold(answer, |answer, line| answer.field("Set-Cookie", line))
    }

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

/// Path and query of a request, for a browser to come back to.
fn target_of(exchange: &Exchange<'_>) -> String {
    let text = exchange.text(&Variable::RequestUri).unwrap_or_default();
    let text = String::from_utf8_lossy(&edits::one_line(text)).into_owned();
    // Two slashes would name another host.
    format!("/{}", text.trim_start_matches(['/', '\\']))
}

fn refusal(refused: Refused, realm: &str) -> Answer {
    match refused {
        Refused::Forbidden(reason) => forbidden(reason),
        Refused::Trouble(Trouble::Token(reason)) => {
            let challenge = format!("{realm}, error=\"invalid_token\", error_description=\"{reason}\"");
            Answer::new(401).field("WWW-Authenticate", challenge)
        }
        Refused::Trouble(trouble @ Trouble::Provider(_)) => unavailable(&trouble),
    }
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
