//! What a request asks, as the JSON of a message: from its body, or from a query or form whose names are fields.

use std::borrow::Cow;

use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};
use serde_json::{Map, Value};

/// How deep a name may lead into messages (`user.address.city`).
const NAME_DEPTH_MAX: usize = 32;

/// The pairs of a query or a form as the JSON of a message. Names of no field are left out, as APIs grow.
pub(super) fn of_pairs<'p>(
    pairs: impl Iterator<Item = (Cow<'p, str>, Cow<'p, str>)>,
    message: &MessageDescriptor,
) -> Value {
    let mut members = Map::new();
    for (name, value) in pairs {
        if name.split('.').count() <= NAME_DEPTH_MAX {
            put(&mut members, message, &name, &value);
        }
    }
    Value::Object(members)
}

fn put(members: &mut Map<String, Value>, message: &MessageDescriptor, name: &str, value: &str) {
    let (first, rest) = name.split_once('.').map_or((name, None), |(first, rest)| (first, Some(rest)));
    let named = message.get_field_by_name(first).or_else(|| message.get_field_by_json_name(first));
    let Some(field) = named else { return };
    let place = members.entry(field.name().to_owned());
    match (field.kind(), rest) {
        (Kind::Message(entry), Some(rest)) if field.is_map() => {
            let Value::Object(entries) = place.or_insert_with(|| Value::Object(Map::new())) else { return };
            entries.insert(rest.to_owned(), leaf(&entry.map_entry_value_field(), value));
        }
        (Kind::Message(below), Some(rest)) if !field.is_list() => {
            let Value::Object(below_members) = place.or_insert_with(|| Value::Object(Map::new())) else {
                return;
            };
            put(below_members, &below, rest, value);
        }
        (_, Some(_)) => {}
        (_, None) if field.is_list() => {
            let Value::Array(items) = place.or_insert_with(|| Value::Array(Vec::new())) else { return };
            items.push(leaf(&field, value));
        }
        (_, None) => {
            members.insert(field.name().to_owned(), leaf(&field, value));
        }
    }
}

/// A text as the JSON of one value. Numbers may stay text: Protocol Buffers read them either way.
fn leaf(field: &FieldDescriptor, text: &str) -> Value {
    match field.kind() {
        Kind::Bool => match text {
            "true" | "1" => Value::Bool(true),
            "false" | "0" => Value::Bool(false),
            other => other.into(),
        },
        Kind::Enum(_) => text.parse::<i32>().map_or_else(|_| text.into(), Value::from),
        // A whole message in one place is JSON, but for those that are written as text.
        Kind::Message(_) => {
            let parsed = serde_json::from_str(text).ok().filter(|value: &Value| value.is_object());
            parsed.unwrap_or_else(|| text.into())
        }
        _ => text.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protos::Proto;
    use serde_json::json;

    #[test]
    fn names_lead_to_fields() {
        let text = "syntax = \"proto3\"; message Order { string id = 1; int64 amount = 2; bool paid = 3; State state = 4; \
                    repeated string tags = 5; Order before = 6; map<string, int32> counts = 7; string full_name = 8; } \
                    enum State { NEW = 0; SENT = 1; }";
        let order = Proto::compile(text).unwrap().message("Order").unwrap();
        for (query, expected) in [
            ("id=a&amount=7&paid=true", json!({"id": "a", "amount": "7", "paid": true})),
            ("state=SENT", json!({"state": "SENT"})),
            ("state=1", json!({"state": 1})),
            ("tags=a&tags=b", json!({"tags": ["a", "b"]})),
            ("before.before.id=x", json!({"before": {"before": {"id": "x"}}})),
            ("before=%7B%22id%22%3A%22x%22%7D", json!({"before": {"id": "x"}})),
            ("counts.a=1&counts.b.c=2", json!({"counts": {"a": "1", "b.c": "2"}})),
            ("fullName=n&id=1&id=2", json!({"full_name": "n", "id": "2"})),
            ("unknown=1&id.x=2&tags.0=3", json!({})),
        ] {
            let pairs = form_urlencoded::parse(query.as_bytes());
            let mut found = of_pairs(pairs, &order);
            // What a name only passes by leaves nothing behind.
            found.as_object_mut().unwrap().retain(|_, value| *value != json!([]));
            assert_eq!(found, expected, "{query}");
        }
        let deep = format!("{}id=1", "before.".repeat(40));
        assert_eq!(of_pairs(form_urlencoded::parse(deep.as_bytes()), &order), json!({}));
    }
}
