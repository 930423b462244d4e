//! What becomes of a browser's request: it logs out, comes back with a code, goes on with its session, or is one of
//! nobody.

use std::sync::Arc;
use std::time::Duration;

use gatewright_model::expression::Variable;

use super::bearer::Refused;
use super::browser::Returned;
use super::config::UnauthAction;
use super::provider::Trouble;
use super::session::{Found, Login, Session, Sessions, Shown, Unkept};
use super::{Instance, OpenIdConnect, forbidden, invalid_token, unavailable, wait};
use crate::edits;
use crate::exchange::{Answer, Exchange, Flow, Next};

/// Where the identity provider sends browsers back to unless the configuration says so, below the path they asked for.
const RETURN_PATH: &str = "/.apisix/redirect";

/// A request of a browser.
struct Visit {
    /// Where the identity provider sends it back to.
    redirect_uri: String,
    /// Path and query, for it to come back to in the end.
    target: String,
    tls: bool,
    now: Duration,
}

impl Instance {
    pub(super) fn browser(&self, sessions: &Arc<Sessions>, exchange: &Exchange<'_>) -> Flow {
        let now = exchange.surroundings.now().unix;
        let path = exchange.request.bytes(exchange.request.path).to_vec();
        let (plugin, sessions) = (Arc::clone(&self.0), Arc::clone(sessions));
        let shown = sessions.shown(exchange);
        if path == plugin.provider.config.logout_path.as_bytes() {
            let forgotten = sessions.forget(exchange);
            return wait(async move {
                let answer = plugin.part(&sessions, shown, forgotten, now).await;
                Box::new(move |_: &mut Exchange<'_>| Flow::respond(answer)) as Next
            });
        }
        let (redirect_uri, is_back) = plugin.return_address(exchange, &path);
        let visit = Visit { redirect_uri, target: target_of(exchange), tls: exchange.client.tls, now };
        match is_back {
            true => self.returned(sessions, shown, visit, exchange),
            false => wait(async move {
                match plugin.recognise(&sessions, shown, &visit).await {
                    Ok(Some((session, lines))) => Box::new(move |exchange: &mut Exchange<'_>| {
                        for line in lines {
                            exchange.answer_field("Set-Cookie", line);
                        }
                        plugin.pass_session(exchange, &session);
                        Flow::Continue
                    }) as Next,
                    Ok(None) => plugin.unknown(&sessions, visit).await,
                    Err(unkept) => {
                        Box::new(move |_: &mut Exchange<'_>| Flow::respond(unkept.answer())) as Next
                    }
                }
            }),
        }
    }

    /// What becomes of a browser that comes back.
    fn returned(&self, sessions: Arc<Sessions>, shown: Shown, visit: Visit, exchange: &Exchange<'_>) -> Flow {
        let argument = |name: &str| {
            let value = exchange.text(&Variable::Arg(name.into()))?;
            String::from_utf8(value).ok()
        };
        let returned =
            Returned { code: argument("code"), state: argument("state"), error: argument("error") };
        let login = sessions.login(exchange, visit.now.as_secs());
        let login = login.filter(|login| Some(&login.state) == returned.state.as_ref());
        let plugin = Arc::clone(&self.0);
        let Some(login) = login else {
            // Used twice, too late, or begun in another window: begin anew.
            let visit = Visit { target: "/".to_owned(), ..visit };
            return wait(async move { plugin.unknown(&sessions, visit).await });
        };
        let Some(code) = returned.code.filter(|_| returned.error.is_none()) else {
            return Flow::respond(Answer::message(500, "the identity provider did not let the browser in"));
        };
        wait(async move {
            let answer = match plugin.arrive(code, &login, &visit.redirect_uri, visit.now).await {
                Ok(session) => let_in(&sessions, shown, (&session, login), visit.tls).await,
                Err(refused) => plugin.not_let_in(&refused),
            };
            Box::new(move |_: &mut Exchange<'_>| Flow::respond(answer)) as Next
        })
    }
}

impl OpenIdConnect {
    /// Where the identity provider sends browsers back to, and whether this request is one that was sent back.
    fn return_address(&self, exchange: &Exchange<'_>, path: &[u8]) -> (String, bool) {
        let text = |variable: &Variable| {
            String::from_utf8_lossy(&exchange.text(variable).unwrap_or_default()).into_owned()
        };
        let authority =
            String::from_utf8_lossy(exchange.request.bytes(exchange.request.authority)).into_owned();
        let origin = format!("{}://{authority}", text(&Variable::Scheme));
        let path = String::from_utf8_lossy(path);
        match self.provider.config.redirect_uri.as_deref() {
            Some(uri) if uri.starts_with('/') => (format!("{origin}{uri}"), path == uri),
            Some(uri) => {
                let below = uri.split_once("://").map_or(uri, |(_, rest)| rest);
                let own = below.find('/').map_or("/", |start| &below[start..]);
                (uri.to_owned(), path == own.split('?').next().unwrap_or_default())
            }
            None if path.ends_with(RETURN_PATH) => (format!("{origin}{path}"), true),
            None => {
                let path = path.trim_end_matches('/');
                (format!("{origin}{path}{RETURN_PATH}"), false)
            }
        }
    }

    /// Whom a browser belongs to, and the `Set-Cookie` lines of what became of its session; `None`: nobody known.
    async fn recognise(
        &self,
        sessions: &Sessions,
        shown: Shown,
        visit: &Visit,
    ) -> Result<Option<(Session, Vec<String>)>, Unkept> {
        let now = visit.now.as_secs();
        let Some(found) = sessions.find(shown, now).await? else { return Ok(None) };
        let going_on = match self.provider.config.force_reauthorize {
            true => admitted(found, &visit.target, now),
            false => self.renewed(sessions, found, visit.now).await?,
        };
        let Some((mut found, is_changed)) = going_on else { return Ok(None) };
        if !is_changed {
            return Ok(Some((found.session, Vec::new())));
        }
        found.session.touched = now;
        let lines = sessions.rewrite(&found, visit.tls, now).await?;
        Ok(lines.map(|lines| (found.session, lines)))
    }

    /// The session with new tokens where they are due, and whether it has to be written; `None`: it is over.
    async fn renewed(
        &self,
        sessions: &Sessions,
        mut found: Found,
        now: Duration,
    ) -> Result<Option<(Found, bool)>, Unkept> {
        let (has_ended, renews) = self.ages(&found.session, now.as_secs());
        if renews {
            if let Ok(renewed) = self.renew(found.session.clone(), now).await {
                found.session = renewed;
                return Ok(Some((found, true)));
            }
            // A refresh token may be good once, and another request of the same browser was faster.
            let again = sessions.again(&found, now.as_secs()).await?;
            if let Some(newer) = again.filter(|newer| newer.session.granted > found.session.granted) {
                return Ok(Some((newer, false)));
            }
        }
        // One that could not be renewed goes on with the tokens it has, as long as they live.
        let is_old = found.is_old;
        Ok((!has_ended).then_some((found, is_old)))
    }

    /// Whether the access token has ended, which is of interest only where it would be renewed then, and whether tokens
    /// are to be renewed.
    fn ages(&self, session: &Session, now: u64) -> (bool, bool) {
        let config = &self.provider.config;
        let leeway = u64::try_from(config.access_token_expires_leeway).unwrap_or_default();
        let ends = session.expires.filter(|_| config.renew_access_token_on_expiry);
        let has_ended = ends.is_some_and(|ends| now + leeway >= ends);
        let interval = config.refresh_session_interval.and_then(|seconds| u64::try_from(seconds).ok());
        let is_due = interval.is_some_and(|interval| now >= session.granted + interval);
        (has_ended, session.refresh_token.is_some() && (is_due || has_ended))
    }

    /// What becomes of a browser that nobody is known to sit at.
    async fn unknown(&self, sessions: &Sessions, visit: Visit) -> Next {
        let flow = match self.provider.config.unauth_action {
            UnauthAction::Pass => Flow::Continue,
            UnauthAction::Deny => Flow::respond(Answer::message(401, "Unauthorized")),
            UnauthAction::Auth => {
                let left = self.leave(&visit.redirect_uri, visit.target, visit.now).await;
                Flow::respond(sent_away(sessions, left, visit.tls))
            }
        };
        Box::new(move |_: &mut Exchange<'_>| flow)
    }

    /// The answer to a browser whose session ends here. One that cannot be ended is not said to have been.
    async fn part(&self, sessions: &Sessions, shown: Shown, forgotten: Vec<String>, now: Duration) -> Answer {
        match sessions.take(shown, now.as_secs()).await {
            Ok(session) => {
                let answer = self.log_out(session, now).await;
                forgotten.into_iter().fold(answer, |answer, line| answer.field("Set-Cookie", line))
            }
            Err(unkept) => unkept.answer(),
        }
    }

    /// The answer to a browser that came back in vain.
    fn not_let_in(&self, refused: &Refused) -> Answer {
        match refused {
            Refused::Forbidden(reason) => forbidden(reason),
            Refused::Unfit(reason) => invalid_token(&self.provider.config.realm, reason),
            Refused::Trouble(trouble) => Answer::message(500, trouble.reason()),
        }
    }
}

/// A session whose login was made for this request, and is good for no other; it has to be written.
fn admitted(mut found: Found, target: &str, now: u64) -> Option<(Found, bool)> {
    let is_meant = found.session.admits(target, now);
    found.session.admits = None;
    is_meant.then_some((found, true))
}

fn sent_away(sessions: &Sessions, left: Result<(String, Login), Trouble>, tls: bool) -> Answer {
    match left {
        Ok((location, login)) => {
            let answer = Answer::new(302).field("Location", location).field("Cache-Control", "no-store");
            let line = sessions.keep_login(&login, tls);
            line.into_iter().fold(answer, |answer, line| answer.field("Set-Cookie", line))
        }
        Err(trouble) => unavailable(&trouble),
    }
}

/// The answer to a browser whose session begins, in the place of the one it shows.
async fn let_in(
    sessions: &Sessions,
    before: Shown,
    (session, login): (&Session, Login),
    tls: bool,
) -> Answer {
    match sessions.begin(session, &before, tls).await {
        Ok(lines) => {
            let answer = Answer::new(302).field("Location", login.target).field("Cache-Control", "no-store");
            let answer = answer.field("Set-Cookie", sessions.forget_login(tls));
            lines.into_iter().fold(answer, |answer, line| answer.field("Set-Cookie", line))
        }
        Err(unkept) => unkept.answer(),
    }
}

/// Path and query of a request, for a browser to come back to.
fn target_of(exchange: &Exchange<'_>) -> String {
    let text = exchange.text(&Variable::RequestUri).unwrap_or_default();
    let text = String::from_utf8_lossy(&edits::one_line(text)).into_owned();
    // Two slashes would name another host.
    format!("/{}", text.trim_start_matches(['/', '\\']))
}

impl Unkept {
    fn answer(&self) -> Answer {
        match self {
            Self::Impossible => Answer::message(500, "the session is longer than may be kept"),
            Self::Away => Answer::message(503, "where sessions are kept, nobody answers"),
        }
    }
}
