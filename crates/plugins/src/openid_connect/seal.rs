//! Documents sealed with a key that every gateway derives from the same secret: encrypted, authenticated, and bound to
//! what they are for, to the client they were made for, and where they are kept under a name, to that name.

use base64::Engine as _;
use chacha20poly1305::aead::{Aead as _, KeyInit as _, Payload};
use chacha20poly1305::{Key, XChaCha20Poly1305, XNonce};
use ring::hkdf;
use ring::rand::{SecureRandom as _, SystemRandom};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::jose::URL_SAFE;

/// Bytes of a nonce.
const NONCE_BYTES: usize = 24;

/// Seals and opens the documents of one configuration.
pub(super) struct Seal {
    cipher: XChaCha20Poly1305,
    audience: String,
}

/// What a document is for.
#[derive(Clone, Copy)]
pub(super) enum Purpose<'n> {
    /// A session in a cookie.
    Session,
    /// A login in a cookie.
    Login,
    /// The name of a session in a cookie.
    Name,
    /// A session that is kept elsewhere under this name.
    Kept(&'n str),
}

impl Seal {
    /// Seals with what is derived from `secret`, for `audience` alone.
    pub(super) fn new(secret: &str, audience: String) -> Self {
        Self { cipher: XChaCha20Poly1305::new(&key(secret)), audience }
    }

    /// `value`, as text that fits into a cookie; `None` if the system has no random numbers.
    pub(super) fn seal<T: Serialize>(&self, purpose: Purpose<'_>, value: &T) -> Option<String> {
        let text = serde_json::to_vec(value).ok()?;
        let nonce: [u8; NONCE_BYTES] = random()?;
        let bound = self.bound(purpose);
        let payload = Payload { msg: &text, aad: bound.as_bytes() };
        let sealed = self.cipher.encrypt(&XNonce::from(nonce), payload).ok()?;
        Some(URL_SAFE.encode([&nonce[..], &sealed].concat()))
    }

    /// What was sealed for the same purpose; `None` for everything else.
    pub(super) fn open<T: DeserializeOwned>(&self, purpose: Purpose<'_>, text: &[u8]) -> Option<T> {
        let bytes = URL_SAFE.decode(text).ok()?;
        let (nonce, sealed) = bytes.split_at_checked(NONCE_BYTES)?;
        let nonce: [u8; NONCE_BYTES] = nonce.try_into().ok()?;
        let bound = self.bound(purpose);
        let payload = Payload { msg: sealed, aad: bound.as_bytes() };
        let opened = self.cipher.decrypt(&XNonce::from(nonce), payload).ok()?;
        serde_json::from_slice(&opened).ok()
    }

    fn bound(&self, purpose: Purpose<'_>) -> String {
        let Self { audience, .. } = self;
        match purpose {
            Purpose::Session => format!("session {audience}"),
            Purpose::Login => format!("login {audience}"),
            Purpose::Name => format!("name {audience}"),
            Purpose::Kept(name) => format!("kept {name} {audience}"),
        }
    }
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
