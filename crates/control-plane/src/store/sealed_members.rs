//! Secrets inside services, templates and versions, encrypted one by one.
//!
//! These documents are compared, copied and looked through, so they stay readable; only members that hold secrets are
//! replaced by what they are sealed as. Which ones is decided by their names when they are written, and reading opens
//! whatever was sealed, so deciding otherwise one day loses nothing.
//! A secret is sealed for its service: it opens in no other. Equal secrets of a service look equal, because the nonce
//! is made of the secret and the key, so that writing needs no randomness.

use gatewright_model::id::ServiceId;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Reading, SecretKey, StoreError, from_json, to_json};
use crate::secret_names::Surroundings;

/// What stands in front of a sealed member. A text that begins so is sealed as well, whatever it is.
const MARK: &str = "$sealed:";

/// Seals and opens the members of one store's documents.
#[derive(Clone)]
pub(super) struct Members(Option<SecretKey>);

impl Reading {
    pub(super) fn members(&self) -> Members {
        Members(self.secret_key.clone())
    }
}

impl Members {
    /// The document of a service as it is stored.
    pub(super) fn seal<T: Serialize>(&self, service: &ServiceId, content: &T) -> Result<String, StoreError> {
        let unwritable =
            |error| StoreError::Unavailable { reason: format!("a document cannot be written: {error}") };
        let mut document = serde_json::to_value(content).map_err(unwritable)?;
        self.seal_inside(&place(service.as_str()), &mut document, Surroundings::default())?;
        to_json(&document)
    }

    /// The document of a service that is stored as `text`.
    pub(super) fn open<T: DeserializeOwned>(&self, service: &str, text: &str) -> Result<T, StoreError> {
        if !text.contains(MARK) {
            return from_json(text);
        }
        let mut document: Value = from_json(text)?;
        self.open_inside(&place(service), &mut document)?;
        let unreadable =
            |error| StoreError::Unavailable { reason: format!("a stored document cannot be read: {error}") };
        serde_json::from_value(document).map_err(unreadable)
    }

    fn seal_inside(&self, place: &str, value: &mut Value, at: Surroundings<'_>) -> Result<(), StoreError> {
        match value {
            Value::Object(members) => {
                for (name, member) in members.iter_mut().filter(|(_, member)| !member.is_null()) {
                    if at.hold_secret(name) {
                        *member = self.sealed(place, member)?;
                    } else {
                        self.seal_inside(place, member, at.inside(name))?;
                    }
                }
                Ok(())
            }
            Value::Array(items) => items.iter_mut().try_for_each(|item| self.seal_inside(place, item, at)),
            Value::String(text) if text.starts_with(MARK) => {
                *value = self.sealed(place, value)?;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn sealed(&self, place: &str, value: &Value) -> Result<Value, StoreError> {
        let (key, text) = (self.key()?, value.to_string());
        Ok(format!("{MARK}{}", key.seal(place, &text, key.nonce_of(place, &text))?).into())
    }

    fn open_inside(&self, place: &str, value: &mut Value) -> Result<(), StoreError> {
        match value {
            Value::Object(members) => {
                members.values_mut().try_for_each(|member| self.open_inside(place, member))
            }
            Value::Array(items) => items.iter_mut().try_for_each(|item| self.open_inside(place, item)),
            Value::String(text) => {
                if let Some(sealed) = text.strip_prefix(MARK) {
                    *value = from_json(&self.key()?.open(place, sealed)?)?;
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn key(&self) -> Result<&SecretKey, StoreError> {
        let missing =
            || StoreError::Unavailable { reason: "the store was opened without a secret key".to_owned() };
        self.0.as_ref().ok_or_else(missing)
    }
}

fn place(service: &str) -> String {
    format!("service/{service}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn members_that_hold_secrets_are_sealed_for_their_service_and_nothing_else_is() {
        let members = Members(Some(SecretKey::new([1; 32])));
        let service: ServiceId = "s".parse().unwrap();
        let document = json!({
            "name": "$sealed:not", "plugins": {"csrf": {"key": "s3cret", "name": "cookie"}, "key-auth": {}},
            "upstream": {"tls": {"client_key": "pem"}}, "secret": {"deep": [1, null]}, "token": null,
        });
        let text = members.seal(&service, &document).unwrap();
        assert!(!text.contains("s3cret") && !text.contains("pem") && !text.contains("deep"), "{text}");
        assert!(text.contains("\"key-auth\":{}") && text.contains("\"token\":null"), "{text}");
        assert_eq!(members.open::<Value>("s", &text).unwrap(), document);
        for failed in [
            members.open::<Value>("other", &text),
            Members(Some(SecretKey::new([2; 32]))).open("s", &text),
            Members(None).open("s", &text),
        ] {
            assert!(matches!(failed, Err(StoreError::Unavailable { .. })), "{failed:?}");
        }
        assert!(Members(None).seal(&service, &document).is_err(), "no secret is stored in the clear");
        let plain = json!({"name": "n", "plugins": {"cors": {}}});
        assert_eq!(Members(None).seal(&service, &plain).unwrap(), plain.to_string());
    }
}
