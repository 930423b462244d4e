//! Tokens: random texts that prove who one is, known to the store by their SHA-256 only.

use gatewright_model::protocol::TOKEN_PIN_SEPARATOR;
use sha2::{Digest as _, Sha256};

use super::World;

/// What instance tokens begin with.
const INSTANCE_TOKEN_PREFIX: &str = "gwi-";

/// The SHA-256 of a token or certificate, in hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Digest(String);

impl Digest {
    pub(crate) fn of(token: &str) -> Self {
        Self::of_bytes(token.as_bytes())
    }

    pub(crate) fn of_bytes(bytes: &[u8]) -> Self {
        Self(hex::encode(Sha256::digest(bytes)))
    }

    /// That of an instance token without what follows it, which is for gateways.
    pub(crate) fn of_instance_token(token: &str) -> Self {
        Self::of(token.split(TOKEN_PIN_SEPARATOR).next().unwrap_or_default())
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// A new instance token; its gateway trusts the authority with the digest `pin`.
pub(crate) fn instance_token_new(world: &World, pin: &str) -> String {
    format!("{}{TOKEN_PIN_SEPARATOR}{pin}", token_new(world, INSTANCE_TOKEN_PREFIX))
}

/// A new token; `prefix` says what it is for, to people and to scanners that look for leaked secrets.
pub(crate) fn token_new(world: &World, prefix: &str) -> String {
    format!("{prefix}{}", hex::encode(world.random()))
}
