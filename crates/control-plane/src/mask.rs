//! Masks: secrets taken out of what callers sent, before anything of it is kept or shown.
//!
//! By the names of members ([`crate::secret_names`]).

use serde_json::Value;

use crate::secret_names::{Surroundings, is_secret};

/// What stands where a secret stood.
pub(crate) const MASK: &str = "******";

/// Shorter texts are not looked for in messages: they would match anything.
const SCRUB_BYTES_MIN: usize = 4;

/// A document without its secrets.
pub(crate) struct Masked {
    pub(crate) document: Value,
    /// What was masked, to find it again in messages about the document.
    pub(crate) secrets: Vec<String>,
}

/// Masks the secrets of `document`.
pub(crate) fn mask(document: &Value) -> Masked {
    let mut masked = Masked { document: Value::Null, secrets: Vec::new() };
    masked.document = masked.masked(document, Surroundings::default());
    masked
}

/// `message` without the secrets of the document it is about.
pub(crate) fn scrub(secrets: &[String], message: &str) -> String {
    let long = secrets.iter().filter(|secret| secret.len() >= SCRUB_BYTES_MIN);
    long.fold(message.to_owned(), |message, secret| message.replace(secret.as_str(), MASK))
}

impl Masked {
    fn masked(&mut self, value: &Value, at: Surroundings<'_>) -> Value {
        match value {
            Value::Object(members) => {
                // A patch step names the member in its path.
                let step = members.get("path").and_then(Value::as_str).filter(|_| members.contains_key("op"));
                let is_secret_step = step.is_some_and(|path| path.split('/').any(is_secret_segment));
                let masked = members.iter().map(|(name, value)| {
                    let hide = at.hold_secret(name) || (is_secret_step && name == "value");
                    let masked = if hide { self.hidden(value) } else { self.masked(value, at.inside(name)) };
                    (name.clone(), masked)
                });
                Value::Object(masked.collect())
            }
            Value::Array(items) => Value::Array(items.iter().map(|item| self.masked(item, at)).collect()),
            Value::String(text) if has_user_info(text) => self.hidden(value),
            other => other.clone(),
        }
    }

    /// The mask for every plain value below `value`; nothing but the shape is left.
    fn hidden(&mut self, value: &Value) -> Value {
        match value {
            Value::Object(members) => {
                members.iter().map(|(name, value)| (name.clone(), self.hidden(value))).collect()
            }
            Value::Array(items) => items.iter().map(|item| self.hidden(item)).collect(),
            Value::Null => Value::Null,
            Value::String(text) => {
                self.secrets.push(text.clone());
                MASK.into()
            }
            Value::Bool(_) | Value::Number(_) => {
                self.secrets.push(value.to_string());
                MASK.into()
            }
        }
    }
}

/// The names of plugins such as `key-auth` and `jwt-auth` end otherwise, so a path through one is no secret yet.
fn is_secret_segment(segment: &str) -> bool {
    is_secret(&segment.replace("~1", "/").replace("~0", "~"))
}

/// Whether a text is an address with a password in it, such as `redis://user:password@host`.
fn has_user_info(text: &str) -> bool {
    let Some((_, rest)) = text.split_once("://") else { return false };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest);
    authority.split_once('@').is_some_and(|(user, _)| user.contains(':'))
}

/// The path and query of a call, without the values of secret parameters.
pub(crate) fn mask_uri(path: &str, query: Option<&str>) -> String {
    let Some(query) = query else { return path.to_owned() };
    let pairs = query.split('&').map(|pair| match pair.split_once('=') {
        Some((name, _)) if is_secret(name) => format!("{name}={MASK}"),
        _ => pair.to_owned(),
    });
    format!("{path}?{}", pairs.collect::<Vec<_>>().join("&"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_of_secret_names_are_masked_whatever_they_are() {
        let document = json!({
            "username": "ann", "password": "p4ss", "old_password": 5, "name": "key",
            "plugins": {"key-auth": {"key": "k3y!", "header": "apikey"}, "limit-count": {"key_type": "var"}},
            "keys": ["one", {"pem": "two"}], "Client-Secret": "s", "uri": "redis://u:pw@h/0", "link": "https://h/@a:b",
        });
        let expected = json!({
            "username": "ann", "password": MASK, "old_password": MASK, "name": "key",
            "plugins": {"key-auth": {"key": MASK, "header": "apikey"}, "limit-count": {"key_type": "var"}},
            "keys": [MASK, {"pem": MASK}], "Client-Secret": MASK, "uri": MASK, "link": "https://h/@a:b",
        });
        assert_eq!(mask(&document).document, expected);
    }

    #[test]
    fn a_patch_step_into_a_secret_is_masked() {
        let steps = json!([
            {"op": "add", "path": "/plugins/key-auth/key", "value": "k3y!"},
            {"op": "add", "path": "/plugins", "value": {"jwt-auth": {"secret": "s"}}},
            {"op": "replace", "path": "/name", "value": "n"},
        ]);
        let masked = mask(&steps).document;
        assert_eq!(masked[0]["value"], MASK);
        assert_eq!(masked[1]["value"], json!({"jwt-auth": {"secret": MASK}}));
        assert_eq!(masked[2]["value"], "n");
    }

    #[test]
    fn messages_and_addresses_of_calls_lose_secrets_too() {
        let masked = mask(&json!({"token": "t0ken", "name": "t"}));
        assert_eq!(scrub(&masked.secrets, "invalid value \"t0ken\""), "invalid value \"******\"");
        assert_eq!(mask_uri("/a", Some("api_key=x&b=c")), "/a?api_key=******&b=c");
        assert_eq!(mask_uri("/a", None), "/a");
    }
}
