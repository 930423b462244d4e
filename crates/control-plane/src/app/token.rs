//! Tokens: random texts that prove who one is, known to the store by their SHA-256 only.

use sha2::{Digest as _, Sha256};

use super::World;

/// The SHA-256 of a token, in hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Digest(String);

impl Digest {
    pub(crate) fn of(token: &str) -> Self {
        Self(hex::encode(Sha256::digest(token.as_bytes())))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// A new token; `prefix` says what it is for, to people and to scanners that look for leaked secrets.
pub(crate) fn token_new(world: &World, prefix: &str) -> String {
    format!("{prefix}{}", hex::encode(world.random()))
}
