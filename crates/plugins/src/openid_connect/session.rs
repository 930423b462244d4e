//! Sessions in cookies: sealed with a key that every gateway derives from the same secret.
//!
//! Nothing is kept in a gateway, so a session survives restarts and is good at every gateway with the same
//! configuration. What is sealed is bound to its purpose and to the client it was made for. A session longer than a
//! cookie may be is cut into several.

use std::time::Duration;

use base64::Engine as _;
use chacha20poly1305::aead::{Aead as _, KeyInit as _, Payload};
use chacha20poly1305::{Key, XChaCha20Poly1305, XNonce};
use gatewright_model::expression::Variable;
use ring::hkdf;
use ring::rand::{SecureRandom as _, SystemRandom};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::config::{Config, SameSite};
use crate::exchange::Exchange;
use crate::jose::URL_SAFE;

/// Bytes of a value that every browser keeps in one cookie.
const PIECE_BYTES_MAX: usize = 3_800;

/// Cookies of one session: beyond that, heads become too long for others.
const PIECES_MAX: usize = 8;

/// Bytes of a nonce.
const NONCE_BYTES: usize = 24;

/// What a browser has to come back with, at most so long after it was sent away.
const LOGIN_LIFETIME: Duration = Duration::from_secs(600);

/// A session is written again when it was not for so long; idle time is measured no finer.
const TOUCH_INTERVAL: Duration = Duration::from_secs(60);

/// Who a browser belongs to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Session {
    /// When it began, in unix seconds.
    pub(super) since: u64,
    /// When it was written.
    pub(super) touched: u64,
    pub(super) access_token: String,
    /// When the access token ends.
    pub(super) expires: Option<u64>,
    /// When the tokens were granted.
    pub(super) granted: u64,
    pub(super) refresh_token: Option<String>,
    pub(super) id_token: String,
    /// What the ID token claims.
    pub(super) claims: Map<String, Value>,
    /// What the identity provider knows of the user.
    pub(super) user: Option<Map<String, Value>>,
}

/// A browser that was sent to the identity provider.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Login {
    pub(super) since: u64,
    pub(super) state: String,
    pub(super) nonce: String,
    /// Proves that the code is for the browser that asked.
    pub(super) verifier: Option<String>,
    /// Where it wanted to go.
    pub(super) target: String,
}

/// Writes and reads the cookies of one configuration.
pub(super) struct Cookies {
    cipher: XChaCha20Poly1305,
    audience: String,
    name: String,
    attributes: String,
    /// None: where the request was encrypted.
    secure: Option<bool>,
    lifetime: Duration,
    idle_max: Duration,
}

/// What a cookie is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Session,
    Login,
}

impl Cookies {
    /// The cookies of `config`; `None` if it has nothing to derive a key from.
    pub(super) fn new(config: &Config) -> Option<Self> {
        let session = config.session.clone().unwrap_or_default();
        let own = config.session.as_ref().map(|session| session.secret.as_str());
        let secret = own.or(config.client_secret.as_deref())?;
        let seconds = |given: Option<u64>, usual: u64| Duration::from_secs(given.unwrap_or(usual));
        let former = session.cookie.as_ref().and_then(|cookie| cookie.lifetime);
        let idle = seconds(session.idling_timeout, 900).min(seconds(session.rolling_timeout, 3600));
        let mut attributes = format!("; Path={}", session.cookie_path.as_deref().unwrap_or("/"));
        if let Some(domain) = &session.cookie_domain {
            attributes.push_str("; Domain=");
            attributes.push_str(domain);
        }
        if session.cookie_http_only.unwrap_or(true) {
            attributes.push_str("; HttpOnly");
        }
        attributes.push_str(match session.cookie_same_site {
            None | Some(SameSite::Lax) => "; SameSite=Lax",
            Some(SameSite::Strict) => "; SameSite=Strict",
            Some(SameSite::None) => "; SameSite=None",
            Some(SameSite::Default) => "",
        });
        Some(Self {
            cipher: XChaCha20Poly1305::new(&key(secret)),
            audience: format!("{} {}", config.client_id, config.discovery),
            name: session.cookie_name.unwrap_or_else(|| "session".to_owned()),
            attributes,
            secure: session.cookie_secure,
            lifetime: seconds(session.absolute_timeout.or(former), 86_400),
            idle_max: idle,
        })
    }

    /// The session that a request brings, if it has not ended, and whether it has to be written again.
    pub(super) fn session(&self, exchange: &Exchange<'_>, now: u64) -> Option<(Session, bool)> {
        let session: Session = self.open(Purpose::Session, &self.read(&self.name, exchange)?)?;
        let has_ended = now >= session.since + self.lifetime.as_secs();
        let is_idle = now >= session.touched + self.idle_max.as_secs();
        let is_old = now >= session.touched + TOUCH_INTERVAL.as_secs().min(self.idle_max.as_secs() / 2);
        (!has_ended && !is_idle).then_some((session, is_old))
    }

    /// The login that a request brings back, if it is not too old.
    pub(super) fn login(&self, exchange: &Exchange<'_>, now: u64) -> Option<Login> {
        let login: Login = self.open(Purpose::Login, &self.read(&self.login_name(), exchange)?)?;
        (now < login.since + LOGIN_LIFETIME.as_secs()).then_some(login)
    }

    /// `Set-Cookie` lines that keep `session`; `None` if it is too long to be kept.
    pub(super) fn keep(&self, session: &Session, tls: bool, now: u64) -> Option<Vec<String>> {
        let text = self.seal(Purpose::Session, session)?;
        let pieces: Vec<&str> = text
            .as_bytes()
            .chunks(PIECE_BYTES_MAX)
            .filter_map(|piece| std::str::from_utf8(piece).ok())
            .collect();
        if pieces.len() > PIECES_MAX {
            return None;
        }
        let left = (session.since + self.lifetime.as_secs()).saturating_sub(now);
        let mut lines = Vec::new();
        for (index, piece) in pieces.iter().enumerate() {
            lines.push(self.line(&piece_name(&self.name, index), piece, left, tls));
        }
        // What a longer session left behind would be read as part of this one.
        lines.push(self.line(&piece_name(&self.name, pieces.len()), "", 0, tls));
        Some(lines)
    }

    /// The `Set-Cookie` line that keeps `login`.
    pub(super) fn keep_login(&self, login: &Login, tls: bool) -> Option<String> {
        let text = self.seal(Purpose::Login, login)?;
        Some(self.line(&self.login_name(), &text, LOGIN_LIFETIME.as_secs(), tls))
    }

    /// The `Set-Cookie` line that forgets a login.
    pub(super) fn forget_login(&self, tls: bool) -> String {
        self.line(&self.login_name(), "", 0, tls)
    }

    /// The `Set-Cookie` lines that forget a session.
    pub(super) fn forget(&self, exchange: &Exchange<'_>) -> Vec<String> {
        let tls = exchange.client.tls;
        let names = (0..PIECES_MAX).map(|index| piece_name(&self.name, index));
        let shown = names.enumerate().filter(|(index, name)| *index == 0 || cookie(exchange, name).is_some());
        shown.map(|(_, name)| self.line(&name, "", 0, tls)).collect()
    }

    fn login_name(&self) -> String {
        format!("{}_login", self.name)
    }

    fn line(&self, name: &str, value: &str, age: u64, tls: bool) -> String {
        let secure = if self.secure.unwrap_or(tls) { "; Secure" } else { "" };
        format!("{name}={value}{}{secure}; Max-Age={age}", self.attributes)
    }

    fn read(&self, name: &str, exchange: &Exchange<'_>) -> Option<Vec<u8>> {
        let mut text = cookie(exchange, name)?;
        for index in 1..PIECES_MAX {
            match cookie(exchange, &piece_name(name, index)) {
                Some(piece) if !piece.is_empty() => text.extend(piece),
                _ => break,
            }
        }
        Some(text)
    }

    fn bound(&self, purpose: Purpose) -> String {
        let purpose = match purpose {
            Purpose::Session => "session",
            Purpose::Login => "login",
        };
        format!("{purpose} {}", self.audience)
    }

    fn seal<T: Serialize>(&self, purpose: Purpose, value: &T) -> Option<String> {
        let text = serde_json::to_vec(value).ok()?;
        let nonce: [u8; NONCE_BYTES] = random()?;
        let bound = self.bound(purpose);
        let payload = Payload { msg: &text, aad: bound.as_bytes() };
        let sealed = self.cipher.encrypt(&XNonce::from(nonce), payload).ok()?;
        Some(URL_SAFE.encode([&nonce[..], &sealed].concat()))
    }

    fn open<T: DeserializeOwned>(&self, purpose: Purpose, text: &[u8]) -> Option<T> {
        let bytes = URL_SAFE.decode(text).ok()?;
        let (nonce, sealed) = bytes.split_at_checked(NONCE_BYTES)?;
        let nonce: [u8; NONCE_BYTES] = nonce.try_into().ok()?;
        let bound = self.bound(purpose);
        let payload = Payload { msg: sealed, aad: bound.as_bytes() };
        let opened = self.cipher.decrypt(&XNonce::from(nonce), payload).ok()?;
        serde_json::from_slice(&opened).ok()
    }
}

fn piece_name(name: &str, index: usize) -> String {
    if index == 0 { name.to_owned() } else { format!("{name}_{index}") }
}

fn cookie(exchange: &Exchange<'_>, name: &str) -> Option<Vec<u8>> {
    exchange.text(&Variable::Cookie(name.into()))
}

/// The key that is derived from `secret`.
fn key(secret: &str) -> Key {
    struct Length;
    impl hkdf::KeyType for Length {
        fn len(&self) -> usize {
            32
        }
    }
    let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, b"gatewright openid-connect");
    let mut key = [0; 32];
    let derived = salt.extract(secret.as_bytes());
    let filled = derived.expand(&[b"session cookie"], Length).and_then(|okm| okm.fill(&mut key));
    // Both lengths are constant and right.
    debug_assert!(filled.is_ok(), "a key of 32 bytes can be derived");
    key.into()
}

/// Random bytes that nobody can guess; `None` if the system has none.
pub(super) fn random<const N: usize>() -> Option<[u8; N]> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).ok()?;
    Some(bytes)
}
