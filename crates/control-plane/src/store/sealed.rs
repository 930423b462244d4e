//! Secrets at rest: documents encrypted with a key that is not in the database.
//!
//! XChaCha20-Poly1305 under a random nonce; the object's place is authenticated with it, so that a sealed document
//! cannot be moved to another object by somebody who can write to the database.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chacha20poly1305::aead::{Aead as _, KeyInit as _, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use sha2::{Digest as _, Sha256};

use super::database::query;
use super::{Reading, Store, StoreError};

/// Bytes of a nonce, which stand in front of what they were used for.
const NONCE_LENGTH: usize = 24;

/// What the check row holds, and where it stands.
const CHECK: &str = "gatewright";

/// The key that secrets in the store are encrypted with.
#[derive(Clone)]
pub(crate) struct SecretKey([u8; 32]);

impl SecretKey {
    pub(crate) fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Encrypts `text` for `place`, under a nonce made of these random bytes.
    pub(super) fn seal(&self, place: &str, text: &str, random: [u8; 32]) -> Result<String, StoreError> {
        let nonce: [u8; NONCE_LENGTH] = std::array::from_fn(|index| random[index]);
        let payload = Payload { msg: text.as_bytes(), aad: place.as_bytes() };
        let failed = |_| StoreError::Unavailable { reason: format!("{place} cannot be encrypted") };
        let sealed = self.cipher().encrypt(&XNonce::from(nonce), payload).map_err(failed)?;
        Ok(STANDARD.encode([&nonce[..], &sealed].concat()))
    }

    /// What was sealed for `place`.
    pub(super) fn open(&self, place: &str, sealed: &str) -> Result<String, StoreError> {
        let failed = || StoreError::Unavailable {
            reason: format!("{place} cannot be decrypted: another secret key, or it was damaged"),
        };
        let bytes = STANDARD.decode(sealed).map_err(|_| failed())?;
        let (nonce, sealed) = bytes.split_first_chunk::<NONCE_LENGTH>().ok_or_else(failed)?;
        let payload = Payload { msg: sealed, aad: place.as_bytes() };
        let text = self.cipher().decrypt(&XNonce::from(*nonce), payload).map_err(|_| failed())?;
        String::from_utf8(text).map_err(|_| failed())
    }

    /// A digest of a secret that can be compared and not guessed back without the key.
    pub(super) fn mark(&self, secret: &str) -> String {
        let digest = Sha256::new().chain_update(self.0).chain_update(secret.as_bytes());
        hex::encode(digest.finalize())
    }

    /// A nonce for this text at this place, the same every time.
    pub(super) fn nonce_of(&self, place: &str, text: &str) -> [u8; 32] {
        let digest = Sha256::new().chain_update(b"nonce").chain_update(self.0);
        let digest = digest.chain_update(place.len().to_be_bytes()).chain_update(place);
        digest.chain_update(text).finalize().into()
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new(&self.0.into())
    }
}

impl Store {
    /// The same store, whose secrets are encrypted with `key`. Refused if they are encrypted with another one.
    pub(crate) async fn with_secret_key(
        mut self,
        key: SecretKey,
        random: [u8; 32],
    ) -> Result<Self, StoreError> {
        let mut tx = self.write().await?;
        match tx.secret_key_check().await? {
            Some(sealed) => {
                key.open(CHECK, &sealed)?;
            }
            None => {
                let sealed = key.seal(CHECK, CHECK, random)?;
                let insert = query("INSERT INTO secret_key_check (id, sealed) VALUES (1, $1)");
                tx.tx.execute_one(insert.bind(sealed)).await?;
            }
        }
        tx.commit().await?;
        self.secret_key = Some(key);
        Ok(self)
    }

    /// Whether something was encrypted with a key already.
    pub(crate) async fn has_secret_key_check(&self) -> Result<bool, StoreError> {
        Ok(self.read().await?.secret_key_check().await?.is_some())
    }
}

impl Reading {
    /// The key secrets are encrypted with. Without one nothing secret is stored.
    pub(super) fn secret_key(&self) -> Result<&SecretKey, StoreError> {
        let missing =
            || StoreError::Unavailable { reason: "the store was opened without a secret key".to_owned() };
        self.secret_key.as_ref().ok_or_else(missing)
    }

    async fn secret_key_check(&mut self) -> Result<Option<String>, StoreError> {
        let one = query("SELECT sealed FROM secret_key_check WHERE id = 1");
        self.tx.row(one).await?.map(|row| row.text("sealed")).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_opens_with_its_key_at_its_place_only() {
        let key = SecretKey::new([1; 32]);
        let sealed = key.seal("here", "a secret", [7; 32]).unwrap();
        assert!(!sealed.contains("secret"));
        assert_eq!(key.open("here", &sealed).unwrap(), "a secret");
        for failed in [
            key.open("elsewhere", &sealed),
            SecretKey::new([2; 32]).open("here", &sealed),
            key.open("here", &sealed.replacen(&sealed[40..44], "AAAA", 1)),
            key.open("here", "AAAA"),
            key.open("here", "?"),
        ] {
            assert!(matches!(failed, Err(StoreError::Unavailable { .. })), "{failed:?}");
        }
    }

    #[test]
    fn a_mark_tells_equal_secrets_and_depends_on_the_key() {
        let (key, other) = (SecretKey::new([1; 32]), SecretKey::new([2; 32]));
        assert_eq!(key.mark("a"), key.mark("a"));
        assert_ne!(key.mark("a"), key.mark("b"));
        assert_ne!(key.mark("a"), other.mark("a"));
    }
}
