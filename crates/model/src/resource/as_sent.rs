//! Fields that are written as they were sent, whatever else would mean the same.
//!
//! To everything that happens, an empty field and an absent one are alike, and so are a default that is written out and
//! one that is not; therefore they are equal here. Only a client that compares what it reads with what it wants sees a
//! difference, and would write the object again at every run.

use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};

use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

/// A value that may be empty, and whether somebody wrote it out.
#[derive(Clone, Copy, Debug, Default)]
pub struct AsSent<T> {
    value: T,
    was_sent: bool,
}

impl<T> AsSent<T> {
    /// The value alone.
    pub fn into_inner(self) -> T {
        self.value
    }
}

impl<T: Default + PartialEq> AsSent<T> {
    /// Whether this is left out of what is written: it is empty and was not sent.
    pub fn is_absent(&self) -> bool {
        !self.was_sent && self.value == T::default()
    }
}

/// A value of our own making; left out where it is empty.
impl<T> From<T> for AsSent<T> {
    fn from(value: T) -> Self {
        Self { value, was_sent: false }
    }
}

impl<T> Deref for AsSent<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

/// What we change is of our own making from then on.
impl<T> DerefMut for AsSent<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.was_sent = false;
        &mut self.value
    }
}

impl<T: PartialEq> PartialEq for AsSent<T> {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

impl<T: Eq> Eq for AsSent<T> {}

impl<T: PartialEq> PartialEq<T> for AsSent<T> {
    fn eq(&self, other: &T) -> bool {
        self.value == *other
    }
}

impl<'a, I> IntoIterator for &'a AsSent<Vec<I>> {
    type Item = &'a I;
    type IntoIter = std::slice::Iter<'a, I>;

    fn into_iter(self) -> Self::IntoIter {
        self.value.iter()
    }
}

impl<'a, V> IntoIterator for &'a AsSent<BTreeMap<String, V>> {
    type Item = (&'a String, &'a V);
    type IntoIter = std::collections::btree_map::Iter<'a, String, V>;

    fn into_iter(self) -> Self::IntoIter {
        self.value.iter()
    }
}

impl<A, T: FromIterator<A>> FromIterator<A> for AsSent<T> {
    fn from_iter<I: IntoIterator<Item = A>>(items: I) -> Self {
        T::from_iter(items).into()
    }
}

impl<T: Serialize> Serialize for AsSent<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.value.serialize(serializer)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for AsSent<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        T::deserialize(deserializer).map(|value| Self { value, was_sent: true })
    }
}

/// A value with defaults that nobody is told of: it is read with all of them, and written without.
///
/// Members that are unknown here are kept too.
#[derive(Clone, Debug)]
pub struct Verbatim<T> {
    value: T,
    written: Value,
}

impl<T> Deref for Verbatim<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: PartialEq> PartialEq for Verbatim<T> {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

impl<T> Serialize for Verbatim<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.written.serialize(serializer)
    }
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for Verbatim<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let written = Value::deserialize(deserializer)?;
        let value = T::deserialize(&written).map_err(D::Error::custom)?;
        Ok(Self { value, written })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Thing {
        #[serde(default, skip_serializing_if = "AsSent::is_absent")]
        desc: AsSent<String>,
        #[serde(default, skip_serializing_if = "AsSent::is_absent")]
        tags: AsSent<Vec<u8>>,
    }

    #[test]
    fn what_was_sent_is_written_as_it_was_and_nothing_else_is() {
        for sent in [json!({}), json!({"desc": ""}), json!({"tags": []}), json!({"desc": "d", "tags": [1]})] {
            let thing: Thing = serde_json::from_value(sent.clone()).expect("a thing");
            assert_eq!(serde_json::to_value(&thing).expect("json"), sent);
        }
    }

    #[test]
    fn what_we_make_ourselves_is_left_out_where_it_is_empty() {
        let written = |desc: &str, tags: Vec<u8>| -> Value {
            let thing = Thing { desc: desc.to_owned().into(), tags: tags.into() };
            serde_json::to_value(&thing).expect("json")
        };
        assert_eq!(written("", vec![]), json!({}));
        assert_eq!(written("d", vec![1]), json!({"desc": "d", "tags": [1]}));
    }

    #[test]
    fn empty_and_absent_mean_the_same() {
        let thing = |json: Value| -> Thing { serde_json::from_value(json).expect("a thing") };
        assert_eq!(thing(json!({})), thing(json!({"desc": "", "tags": []})));
        assert_ne!(thing(json!({})), thing(json!({"tags": [1]})));
    }

    #[test]
    fn verbatim_keeps_what_was_written_and_compares_what_it_means() {
        #[derive(Debug, PartialEq, Deserialize)]
        struct Check {
            #[serde(default = "ten")]
            times: u8,
        }
        fn ten() -> u8 {
            10
        }
        let read = |json: Value| -> Verbatim<Check> { serde_json::from_value(json).expect("a check") };
        for sent in [json!({}), json!({"times": 10}), json!({"times": 3, "unknown": [null]})] {
            assert_eq!(serde_json::to_value(read(sent.clone())).expect("json"), sent);
        }
        assert_eq!(read(json!({})), read(json!({"times": 10})));
        assert_ne!(read(json!({})), read(json!({"times": 3})));
        assert_eq!(read(json!({})).times, 10);
        assert!(serde_json::from_value::<Verbatim<Check>>(json!({"times": "x"})).is_err());
    }

    #[test]
    fn what_we_empty_ourselves_is_left_out() {
        let mut thing: Thing = serde_json::from_value(json!({"tags": [1]})).expect("a thing");
        thing.tags.clear();
        assert_eq!(serde_json::to_value(&thing).expect("json"), json!({}));
    }
}
