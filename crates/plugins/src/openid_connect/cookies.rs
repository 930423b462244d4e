//! Cookies of one configuration: written, read and forgotten. What one cookie cannot hold is cut into several.

use gatewright_model::expression::Variable;

use super::config::{SameSite, Session as Config};
use crate::exchange::Exchange;

/// Bytes of a value that every browser keeps in one cookie.
const PIECE_BYTES_MAX: usize = 3_800;

/// Cookies of one session: beyond that, heads become too long for others.
const PIECES_MAX: usize = 8;

/// How cookies are called, and what is said of them.
pub(super) struct Cookies {
    name: String,
    attributes: String,
    /// None: where the request was encrypted.
    secure: Option<bool>,
}

impl Cookies {
    pub(super) fn new(config: &Config) -> Self {
        let mut attributes = format!("; Path={}", config.cookie_path.as_deref().unwrap_or("/"));
        if let Some(domain) = &config.cookie_domain {
            attributes.push_str("; Domain=");
            attributes.push_str(domain);
        }
        if config.cookie_http_only.unwrap_or(true) {
            attributes.push_str("; HttpOnly");
        }
        attributes.push_str(match config.cookie_same_site {
            None | Some(SameSite::Lax) => "; SameSite=Lax",
            Some(SameSite::Strict) => "; SameSite=Strict",
            Some(SameSite::None) => "; SameSite=None",
            Some(SameSite::Default) => "",
        });
        let name = config.cookie_name.clone().unwrap_or_else(|| "session".to_owned());
        Self { name, attributes, secure: config.cookie_secure }
    }

    /// How the cookie of a session is called.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// What a request brings of a session.
    pub(super) fn session(&self, exchange: &Exchange<'_>) -> Option<Vec<u8>> {
        let mut text = cookie(exchange, &self.name)?;
        for index in 1..PIECES_MAX {
            match cookie(exchange, &piece_name(&self.name, index)) {
                Some(piece) if !piece.is_empty() => text.extend(piece),
                _ => break,
            }
        }
        Some(text)
    }

    /// What a request brings of a login.
    pub(super) fn login(&self, exchange: &Exchange<'_>) -> Option<Vec<u8>> {
        cookie(exchange, &self.login_name())
    }

    /// `Set-Cookie` lines that keep a session for `age` seconds; `None` if it is too long.
    pub(super) fn keep_session(&self, text: &str, age: u64, tls: bool) -> Option<Vec<String>> {
        let pieces = text.as_bytes().chunks(PIECE_BYTES_MAX);
        let pieces: Vec<&str> = pieces.filter_map(|piece| std::str::from_utf8(piece).ok()).collect();
        if pieces.len() > PIECES_MAX {
            return None;
        }
        let mut lines = Vec::new();
        for (index, piece) in pieces.iter().enumerate() {
            lines.push(self.line(&piece_name(&self.name, index), piece, age, tls));
        }
        // What a longer session left behind would be read as part of this one.
        lines.push(self.line(&piece_name(&self.name, pieces.len()), "", 0, tls));
        Some(lines)
    }

    /// The `Set-Cookie` line that keeps a login for `age` seconds.
    pub(super) fn keep_login(&self, text: &str, age: u64, tls: bool) -> String {
        self.line(&self.login_name(), text, age, tls)
    }

    /// The `Set-Cookie` lines that forget the session of a request.
    pub(super) fn forget_session(&self, exchange: &Exchange<'_>) -> Vec<String> {
        let tls = exchange.client.tls;
        let names = (0..PIECES_MAX).map(|index| piece_name(&self.name, index));
        let shown = names.enumerate().filter(|(index, name)| *index == 0 || cookie(exchange, name).is_some());
        shown.map(|(_, name)| self.line(&name, "", 0, tls)).collect()
    }

    /// The `Set-Cookie` line that forgets a login.
    pub(super) fn forget_login(&self, tls: bool) -> String {
        self.line(&self.login_name(), "", 0, tls)
    }

    fn login_name(&self) -> String {
        format!("{}_login", self.name)
    }

    fn line(&self, name: &str, value: &str, age: u64, tls: bool) -> String {
        let secure = if self.secure.unwrap_or(tls) { "; Secure" } else { "" };
        format!("{name}={value}{}{secure}; Max-Age={age}", self.attributes)
    }
}

fn piece_name(name: &str, index: usize) -> String {
    if index == 0 { name.to_owned() } else { format!("{name}_{index}") }
}

fn cookie(exchange: &Exchange<'_>, name: &str) -> Option<Vec<u8>> {
    exchange.text(&Variable::Cookie(name.into()))
}
