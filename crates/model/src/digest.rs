//! A digest of a whole configuration that a change updates at the cost of the change.
//!
//! It is the sum of the digests of all items, so that the order in which they came does not matter and an item can be
//! taken out again. Both planes keep a [`Ledger`] over the very text that travels: what a control plane counts is
//! what it sends, and what a gateway counts is what it received, so fields that one of them does not know do not
//! make them differ. It notices lost, doubled and mixed up changes; against attackers there is TLS.

use std::collections::HashMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::id::ServiceId;
use crate::resource::group_object::ObjectKey;

/// The digest of a whole configuration: 128 bits, in hexadecimal on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct ContentDigest(u128);

impl fmt::Display for ContentDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl From<ContentDigest> for String {
    fn from(digest: ContentDigest) -> Self {
        digest.to_string()
    }
}

impl TryFrom<String> for ContentDigest {
    type Error = std::num::ParseIntError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        u128::from_str_radix(&text, 16).map(Self)
    }
}

/// What an item is known by.
#[derive(Clone, Copy, Debug)]
pub enum ItemKey<'a> {
    /// How the group matches; there is one.
    Settings,
    /// A published service.
    Service(&'a ServiceId),
    /// An object beside services.
    Object(&'a ObjectKey),
}

impl ItemKey<'_> {
    /// Short and fixed, because there may be a million of them.
    fn hash(self) -> u128 {
        match self {
            Self::Settings => digest(b"settings", &[]),
            Self::Service(id) => digest(b"service", id.as_str().as_bytes()),
            Self::Object(key) => digest(format!("{:?}", key.kind).as_bytes(), key.id.as_str().as_bytes()),
        }
    }
}

fn digest(what: &[u8], text: &[u8]) -> u128 {
    let mut hasher = Sha256::new();
    hasher.update(what);
    // No text contains this byte, so that what ends where is certain.
    hasher.update([0xff]);
    hasher.update(text);
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hasher.finalize()[..16]);
    u128::from_le_bytes(bytes)
}

/// The digests of all items, and their sum.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    items: HashMap<u128, u128>,
    sum: u128,
}

impl Ledger {
    /// An item is new or changed; `text` is how it travels.
    pub fn put(&mut self, key: ItemKey<'_>, text: &[u8]) {
        let key = key.hash();
        // The key is part of it: two items that exchange their texts are not the same as before.
        let item = digest(&key.to_le_bytes(), text);
        let before = self.items.insert(key, item).unwrap_or_default();
        self.sum = self.sum.wrapping_sub(before).wrapping_add(item);
    }

    /// An item is gone.
    pub fn remove(&mut self, key: ItemKey<'_>) {
        let before = self.items.remove(&key.hash()).unwrap_or_default();
        self.sum = self.sum.wrapping_sub(before);
    }

    /// Everything is gone.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// The digest of everything.
    #[must_use]
    pub fn digest(&self) -> ContentDigest {
        ContentDigest(self.sum)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn service(name: u8) -> ServiceId {
        format!("s{name}").parse().unwrap()
    }

    #[test]
    fn a_digest_survives_the_wire() {
        let mut ledger = Ledger::default();
        ledger.put(ItemKey::Settings, b"{}");
        let text = serde_json::to_string(&ledger.digest()).unwrap();
        assert_eq!(serde_json::from_str::<ContentDigest>(&text).unwrap(), ledger.digest());
        assert_eq!(text.len(), 34, "{text}");
    }

    #[test]
    fn exchanged_texts_and_kinds_are_noticed() {
        let digest = |items: &[(ItemKey<'_>, &str)]| {
            let mut ledger = Ledger::default();
            items.iter().for_each(|(key, text)| ledger.put(*key, text.as_bytes()));
            ledger.digest()
        };
        let (a, b) = (service(1), service(2));
        let there = digest(&[(ItemKey::Service(&a), "x"), (ItemKey::Service(&b), "y")]);
        assert_eq!(there, digest(&[(ItemKey::Service(&b), "y"), (ItemKey::Service(&a), "x")]));
        assert_ne!(there, digest(&[(ItemKey::Service(&a), "y"), (ItemKey::Service(&b), "x")]));
        assert_ne!(digest(&[(ItemKey::Service(&a), "x")]), digest(&[(ItemKey::Settings, "x")]));
    }

    proptest! {
        #[test]
        fn whatever_happened_before_equal_content_has_an_equal_digest(
            changes in proptest::collection::vec((0u8..6, proptest::option::of(0u8..4)), 0..40)
        ) {
            let mut ledger = Ledger::default();
            let mut content = std::collections::BTreeMap::new();
            for (name, text) in changes {
                match text {
                    Some(text) => {
                        ledger.put(ItemKey::Service(&service(name)), &[text]);
                        content.insert(name, text);
                    }
                    None => {
                        ledger.remove(ItemKey::Service(&service(name)));
                        content.remove(&name);
                    }
                }
            }
            let mut fresh = Ledger::default();
            for (name, text) in content {
                fresh.put(ItemKey::Service(&service(name)), &[text]);
            }
            prop_assert_eq!(ledger, fresh);
        }
    }
}
