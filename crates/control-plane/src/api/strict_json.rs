//! JSON that means one thing: an object that has a member twice is refused.
//!
//! Parsers disagree about which of two equal members counts. Whoever checks a document before us, a proxy or a
//! review, must not see another one than we do.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// A value in which every member stands once.
pub(super) struct Strict(pub(super) Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Strict;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("any JSON value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Strict, E> {
        Ok(Strict(Value::Null))
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Strict, E> {
        Ok(Strict(Value::Bool(value)))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Strict, E> {
        Ok(Strict(value.into()))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Strict, E> {
        Ok(Strict(value.into()))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Strict, E> {
        Ok(Strict(Number::from_f64(value).map_or(Value::Null, Value::Number)))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Strict, E> {
        self.visit_string(value.to_owned())
    }

    fn visit_string<E: de::Error>(self, value: String) -> Result<Strict, E> {
        must_be_storable(&value)?;
        Ok(Strict(value.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Strict, A::Error> {
        let mut array = Vec::new();
        while let Some(Strict(value)) = elements.next_element()? {
            array.push(value);
        }
        Ok(Strict(Value::Array(array)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Strict, A::Error> {
        let mut object = Map::new();
        while let Some(key) = members.next_key::<String>()? {
            must_be_storable(&key)?;
            let Strict(value) = members.next_value()?;
            if object.contains_key(&key) {
                return Err(de::Error::custom(format!("the member `{key}` stands twice in one object")));
            }
            object.insert(key, value);
        }
        Ok(Strict(Value::Object(object)))
    }
}

/// Databases end a text at a NUL, or refuse it, wherever in a document it stands; nobody means to send one.
fn must_be_storable<E: de::Error>(text: &str) -> Result<(), E> {
    match text.contains('\0') {
        true => Err(E::custom("a text contains the character NUL, which cannot be stored")),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_means_one_thing_is_what_serde_json_reads() {
        for text in [
            "null",
            "true",
            "-1",
            "18446744073709551615",
            "1.5e3",
            "\"a\\u00e4\"",
            "[1,[],{}]",
            "{\"a\":{\"a\":1},\"b\":[{\"a\":2}]}",
        ] {
            let Strict(value) = serde_json::from_str(text).unwrap();
            assert_eq!(value, serde_json::from_str::<Value>(text).unwrap());
        }
    }

    #[test]
    fn a_member_that_stands_twice_is_named() {
        let read =
            |text| serde_json::from_str::<Strict>(text).map(|Strict(value)| value).unwrap_err().to_string();
        assert!(read("{\"a\":1,\"a\":1}").contains("the member `a` stands twice"));
        assert!(read("[{\"x\":{\"b\":1,\"\\u0062\":2}}]").contains("the member `b` stands twice"));
    }

    #[test]
    fn a_nul_is_refused_wherever_it_stands() {
        for text in ["\"\\u0000\"", "{\"labels\":{\"a\":\"b\\u0000\"}}", "{\"a\\u0000\":1}"] {
            let refused = serde_json::from_str::<Strict>(text).map(|Strict(value)| value).unwrap_err();
            assert!(refused.to_string().contains("NUL"), "{refused}");
        }
        assert!(serde_json::from_str::<Strict>("\"\\\\u0000\"").is_ok(), "a backslash is none");
    }
}
