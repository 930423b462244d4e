//! What introspection said of tokens, for as long as it may be believed.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use ring::digest::{SHA256, digest};
use serde_json::{Map, Value};

/// Tokens remembered; beyond that, those that ended are forgotten, and if there are none, all.
const TOKENS_MAX: usize = 10_000;

type Digest = [u8; 32];

/// What is believed, and until when.
type Believed = (Map<String, Value>, Duration);

/// Claims by the digest of their token: a token is not kept where it is not needed.
#[derive(Default)]
pub(super) struct Remembered(Mutex<HashMap<Digest, Believed>>);

impl Remembered {
    pub(super) fn get(&self, token: &str, now: Duration) -> Option<Map<String, Value>> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (claims, until) = known.get(&digest_of(token))?;
        (now < *until).then(|| claims.clone())
    }

    pub(super) fn put(&self, token: &str, claims: &Map<String, Value>, until: Duration, now: Duration) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= TOKENS_MAX {
            known.retain(|_, (_, until)| now < *until);
        }
        if known.len() >= TOKENS_MAX {
            known.clear();
        }
        known.insert(digest_of(token), (claims.clone(), until));
    }
}

fn digest_of(token: &str) -> Digest {
    let mut bytes = Digest::default();
    bytes.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
    bytes
}
