//! Sessions of browsers: sealed in their cookies, or in Redis under a name that a sealed cookie holds.
//!
//! Nothing is kept in a gateway, so a session survives restarts and is good at every gateway with the same
//! configuration. In Redis it is sealed as in a cookie and bound to its name: whoever reads or writes there learns
//! nothing and makes nobody somebody else. Where Redis does not answer, nobody can say whom a browser belongs to; that
//! is told apart from a browser of nobody, which would be let pass or sent around for ever.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::config::{Config, RedisStorage, Storage};
use super::cookies::Cookies;
use super::seal::{Purpose, Seal, random};
use crate::exchange::Exchange;
use crate::jose::URL_SAFE;
use crate::outbound::Outbound;
use crate::redis::{Act, Entry, Redis};

/// What a browser has to come back with, at most so long after it was sent away.
const LOGIN_LIFETIME: Duration = Duration::from_secs(600);

/// A session is written again when it was not for so long; idle time is measured no finer.
const TOUCH_INTERVAL: Duration = Duration::from_secs(60);

/// How soon after a login its one request has to come, where every request needs a login of its own.
const ADMISSION: Duration = Duration::from_secs(60);

/// What a timeout of 0 stands for, and the longest of all: no browser keeps a cookie for longer.
const LIFETIME_MAX: Duration = Duration::from_secs(400 * 86_400);

/// Bytes of the longest session that is kept in Redis.
const KEPT_BYTES_MAX: usize = 256 * 1024;

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
    /// The request that the login was made for, where every request needs one of its own.
    pub(super) admits: Option<String>,
}

impl Session {
    /// Whether it lets in the request for `target` that its login was made for.
    pub(super) fn admits(&self, target: &str, now: u64) -> bool {
        self.admits.as_deref() == Some(target) && now < self.since + ADMISSION.as_secs()
    }
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

/// The sessions of one configuration.
pub(super) struct Sessions {
    cookies: Cookies,
    seal: Seal,
    lifetime: Duration,
    idle_max: Duration,
    /// None: cookies hold sessions themselves.
    shelf: Option<Shelf>,
}

/// What a request shows of a session.
pub(super) enum Shown {
    Nothing,
    /// All of it.
    Whole(Box<Session>),
    /// What it is called in Redis.
    Name(String),
}

/// The session of a request.
pub(super) struct Found {
    pub(super) session: Session,
    /// What it is called in Redis.
    name: Option<String>,
    /// Whether it has to be written again.
    pub(super) is_old: bool,
}

/// Why a session can be neither read nor kept.
#[derive(Debug)]
pub(super) enum Unkept {
    /// It is too long, or there are no random numbers.
    Impossible,
    /// Redis does not answer.
    Away,
}

impl Sessions {
    /// The sessions of `config`; `None` if it has nothing to derive a key from.
    pub(super) fn new(config: &Config, outbound: &Arc<dyn Outbound>) -> Option<Self> {
        let session = config.session.clone().unwrap_or_default();
        let own = config.session.as_ref().map(|session| session.secret.as_str());
        let secret = own.or(config.client_secret.as_deref())?;
        let seconds = |given: Option<u64>, usual: u64| match given.unwrap_or(usual) {
            0 => LIFETIME_MAX,
            seconds => Duration::from_secs(seconds).min(LIFETIME_MAX),
        };
        let former = session.cookie.as_ref().and_then(|cookie| cookie.lifetime);
        let cookies = Cookies::new(&session);
        let storage = session.redis.as_ref().filter(|_| session.storage == Storage::Redis);
        let shelf = storage.map(|storage| Shelf::new(storage, cookies.name(), outbound));
        Some(Self {
            seal: Seal::new(secret, format!("{} {}", config.client_id, config.discovery)),
            lifetime: seconds(session.absolute_timeout.or(former), 86_400),
            idle_max: seconds(session.idling_timeout, 900).min(seconds(session.rolling_timeout, 3600)),
            cookies,
            shelf,
        })
    }

    /// What a request shows of a session.
    pub(super) fn shown(&self, exchange: &Exchange<'_>) -> Shown {
        let text = self.cookies.session(exchange);
        let shown = text.and_then(|text| match self.shelf {
            None => self.seal.open(Purpose::Session, &text).map(Shown::Whole),
            Some(_) => self.seal.open(Purpose::Name, &text).map(Shown::Name),
        });
        shown.unwrap_or(Shown::Nothing)
    }

    /// The session that is shown, if it has not ended.
    pub(super) async fn find(&self, shown: Shown, now: u64) -> Result<Option<Found>, Unkept> {
        let (session, name) = match (shown, &self.shelf) {
            (Shown::Whole(session), _) => (*session, None),
            (Shown::Name(name), Some(shelf)) => {
                let text = shelf.act(&name, Act::Read).await?;
                let session = text.and_then(|text| self.seal.open(Purpose::Kept(&name), &text));
                let Some(session) = session else { return Ok(None) };
                (session, Some(name))
            }
            (Shown::Name(_), None) | (Shown::Nothing, _) => return Ok(None),
        };
        let has_ended = now >= session.since + self.lifetime.as_secs();
        let is_idle = now >= session.touched + self.idle_max.as_secs();
        let is_old = now >= session.touched + TOUCH_INTERVAL.as_secs().min(self.idle_max.as_secs() / 2);
        Ok((!has_ended && !is_idle).then_some(Found { session, name, is_old }))
    }

    /// What became of a session that is kept in Redis; one in cookies cannot become anything while a request is served.
    pub(super) async fn again(&self, found: &Found, now: u64) -> Result<Option<Found>, Unkept> {
        let name = found.name.clone();
        self.find(name.map_or(Shown::Nothing, Shown::Name), now).await
    }

    /// Keeps a session that begins now in the place of the one that is shown; the `Set-Cookie` lines that say so.
    pub(super) async fn begin(
        &self,
        session: &Session,
        before: &Shown,
        tls: bool,
    ) -> Result<Vec<String>, Unkept> {
        let Some(shelf) = &self.shelf else { return self.in_cookies(session, session.since, tls) };
        let name: [u8; 32] = random().ok_or(Unkept::Impossible)?;
        let name = URL_SAFE.encode(name);
        self.write(shelf, (&name, session), (false, session.since)).await?;
        self.end(before).await?;
        let text = self.seal.seal(Purpose::Name, &name).ok_or(Unkept::Impossible)?;
        self.cookies.keep_session(&text, self.lifetime.as_secs(), tls).ok_or(Unkept::Impossible)
    }

    /// Keeps what became of a session; the `Set-Cookie` lines that say so, or `None` if somebody ended it meanwhile.
    pub(super) async fn rewrite(
        &self,
        found: &Found,
        tls: bool,
        now: u64,
    ) -> Result<Option<Vec<String>>, Unkept> {
        let (Some(shelf), Some(name)) = (&self.shelf, &found.name) else {
            return self.in_cookies(&found.session, now, tls).map(Some);
        };
        let is_there = self.write(shelf, (name, &found.session), (true, now)).await?;
        Ok(is_there.then(Vec::new))
    }

    /// Ends the session that is shown, and hands it over if it had not ended before.
    pub(super) async fn take(&self, shown: Shown, now: u64) -> Result<Option<Session>, Unkept> {
        let name = match &shown {
            Shown::Name(name) => Shown::Name(name.clone()),
            Shown::Whole(_) | Shown::Nothing => Shown::Nothing,
        };
        let found = self.find(shown, now).await?;
        self.end(&name).await?;
        Ok(found.map(|found| found.session))
    }

    /// Forgets the session that is shown. One that is all in cookies ends with them.
    async fn end(&self, shown: &Shown) -> Result<(), Unkept> {
        if let (Shown::Name(name), Some(shelf)) = (shown, &self.shelf) {
            shelf.act(name, Act::Remove).await?;
        }
        Ok(())
    }

    /// The `Set-Cookie` lines that forget the session of a request.
    pub(super) fn forget(&self, exchange: &Exchange<'_>) -> Vec<String> {
        self.cookies.forget_session(exchange)
    }

    /// The login that a request brings back, if it is not too old.
    pub(super) fn login(&self, exchange: &Exchange<'_>, now: u64) -> Option<Login> {
        let login: Login = self.seal.open(Purpose::Login, &self.cookies.login(exchange)?)?;
        (now < login.since + LOGIN_LIFETIME.as_secs()).then_some(login)
    }

    /// The `Set-Cookie` line that keeps `login`.
    pub(super) fn keep_login(&self, login: &Login, tls: bool) -> Option<String> {
        let text = self.seal.seal(Purpose::Login, login)?;
        Some(self.cookies.keep_login(&text, LOGIN_LIFETIME.as_secs(), tls))
    }

    /// The `Set-Cookie` line that forgets a login.
    pub(super) fn forget_login(&self, tls: bool) -> String {
        self.cookies.forget_login(tls)
    }

    /// Seconds that a session may last from `now` on.
    fn left(&self, session: &Session, now: u64) -> u64 {
        (session.since + self.lifetime.as_secs()).saturating_sub(now)
    }

    fn in_cookies(&self, session: &Session, now: u64, tls: bool) -> Result<Vec<String>, Unkept> {
        let text = self.seal.seal(Purpose::Session, session).ok_or(Unkept::Impossible)?;
        self.cookies.keep_session(&text, self.left(session, now), tls).ok_or(Unkept::Impossible)
    }

    /// Writes a session that was touched at `now`; whether there was one to replace.
    async fn write(
        &self,
        shelf: &Shelf,
        (name, session): (&str, &Session),
        (replaces, now): (bool, u64),
    ) -> Result<bool, Unkept> {
        let text = self.seal.seal(Purpose::Kept(name), session).ok_or(Unkept::Impossible)?;
        if text.len() > KEPT_BYTES_MAX {
            return Err(Unkept::Impossible);
        }
        // Nobody reads it once it was idle for so long.
        let lifetime = self.idle_max.min(Duration::from_secs(self.left(session, now)));
        let act = Act::Write { bytes: text.into(), lifetime: lifetime.max(Duration::from_secs(1)), replaces };
        Ok(shelf.act(name, act).await?.is_some())
    }
}

/// Where in Redis sessions are.
struct Shelf {
    server: Arc<Redis>,
    prefix: String,
    outbound: Arc<dyn Outbound>,
}

impl Shelf {
    fn new(storage: &RedisStorage, cookie: &str, outbound: &Arc<dyn Outbound>) -> Self {
        let prefix = format!("{}:{cookie}:", storage.prefix);
        Self { server: Arc::new(storage.server()), prefix, outbound: Arc::clone(outbound) }
    }

    async fn act(&self, name: &str, act: Act) -> Result<Option<bytes::Bytes>, Unkept> {
        let entry = Entry { key: format!("{}{name}", self.prefix).into_bytes(), act };
        let outcome = self.outbound.redis_entry(&self.server, entry).await;
        outcome.map_err(|failure| {
            self.outbound.warn(super::KIND.name, &format!("sessions at {:?}: {failure}", self.server));
            Unkept::Away
        })
    }
}
