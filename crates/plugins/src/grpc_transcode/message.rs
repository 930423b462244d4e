//! Messages of gRPC to JSON and back: the mapping that Protocol Buffers define, in the style that `pb_option` asks for.
//!
//! Fields keep the names they have in the proto. A message travels behind five bytes: whether it is compressed, and
//! how long it is.

use bytes::Bytes;
use prost_reflect::prost::Message as _;
use prost_reflect::{
    DeserializeOptions, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, SerializeOptions,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

/// Bytes in front of a message.
const PREFIX_BYTES: usize = 5;

/// One of the options of how messages become JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum PbOption {
    EnumAsName,
    EnumAsValue,
    Int64AsNumber,
    Int64AsString,
    Int64AsHexstring,
    AutoDefaultValues,
    NoDefaultValues,
    UseDefaultValues,
    UseDefaultMetatable,
    EnableHooks,
    DisableHooks,
}

/// How integers of 64 bits are written that do not fit into 32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Wide {
    #[default]
    Number,
    /// `"#4294967296"`.
    Text,
    /// `"#0x100000000"`.
    Hexadecimal,
}

/// How messages become JSON.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Style {
    enums_are_numbers: bool,
    wide: Wide,
    skips_defaults: bool,
}

impl Style {
    /// What these options come to; of two that contradict each other the later one counts.
    pub(super) fn of(options: &[PbOption]) -> Self {
        let mut style = Self::default();
        for option in options {
            match option {
                PbOption::EnumAsName => style.enums_are_numbers = false,
                PbOption::EnumAsValue => style.enums_are_numbers = true,
                PbOption::Int64AsNumber => style.wide = Wide::Number,
                PbOption::Int64AsString => style.wide = Wide::Text,
                PbOption::Int64AsHexstring => style.wide = Wide::Hexadecimal,
                PbOption::AutoDefaultValues | PbOption::UseDefaultValues => style.skips_defaults = false,
                // Defaults that only a metatable knows are in no JSON.
                PbOption::NoDefaultValues | PbOption::UseDefaultMetatable => style.skips_defaults = true,
                // There are no hooks to call.
                PbOption::EnableHooks | PbOption::DisableHooks => {}
            }
        }
        style
    }
}

/// The message that `json` says, as it travels.
pub(super) fn framed(kind: &MessageDescriptor, json: Value) -> Result<Bytes, String> {
    // APIs grow: what a client knows and this proto does not is no mistake.
    let options = DeserializeOptions::new().deny_unknown_fields(false);
    let message = DynamicMessage::deserialize_with_options(kind.clone(), json, &options);
    let encoded = message.map_err(|error| error.to_string())?.encode_to_vec();
    let length = u32::try_from(encoded.len()).map_err(|_| "the message is too long".to_owned())?;
    let mut framed = Vec::with_capacity(PREFIX_BYTES + encoded.len());
    framed.push(0);
    framed.extend_from_slice(&length.to_be_bytes());
    framed.extend_from_slice(&encoded);
    Ok(framed.into())
}

/// The one message of `body`.
pub(super) fn unframed(body: &[u8]) -> Result<&[u8], String> {
    let Some((prefix, message)) = body.split_first_chunk::<PREFIX_BYTES>() else {
        return Err("there is no message".to_owned());
    };
    let [compressed, length @ ..] = *prefix;
    if compressed != 0 {
        return Err("the message is compressed, though nobody asked for that".to_owned());
    }
    if usize::try_from(u32::from_be_bytes(length)) != Ok(message.len()) {
        return Err("it is not one message".to_owned());
    }
    Ok(message)
}

/// The JSON of a message.
pub(super) fn json(kind: &MessageDescriptor, message: &[u8], style: Style) -> Result<Value, String> {
    let message = DynamicMessage::decode(kind.clone(), message).map_err(|error| error.to_string())?;
    let options = SerializeOptions::new()
        .use_proto_field_name(true)
        .use_enum_numbers(style.enums_are_numbers)
        .skip_default_fields(style.skips_defaults)
        .stringify_64_bit_integers(style.wide != Wide::Number);
    let mut json = message
        .serialize_with_options(serde_json::value::Serializer, &options)
        .map_err(|error| error.to_string())?;
    if style.wide != Wide::Number {
        spell_message(kind, &mut json, style.wide);
    }
    Ok(json)
}

fn spell_message(kind: &MessageDescriptor, json: &mut Value, wide: Wide) {
    // What comes with Protocol Buffers is written in ways of its own.
    if kind.package_name() == "google.protobuf" {
        return;
    }
    let Value::Object(members) = json else { return };
    for (name, value) in members {
        let Some(field) = kind.get_field_by_name(name) else { continue };
        match (field.kind(), &mut *value) {
            (Kind::Message(entry), Value::Object(entries)) if field.is_map() => {
                let of_entry = entry.map_entry_value_field();
                entries.values_mut().for_each(|value| spell_value(&of_entry, value, wide));
            }
            (_, Value::Array(items)) if field.is_list() => {
                items.iter_mut().for_each(|item| spell_value(&field, item, wide));
            }
            _ => spell_value(&field, value, wide),
        }
    }
}

fn spell_value(field: &FieldDescriptor, value: &mut Value, wide: Wide) {
    let number = |value: &Value| value.as_str().and_then(|text| text.parse::<i128>().ok());
    match field.kind() {
        Kind::Message(kind) => spell_message(&kind, value, wide),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 | Kind::Uint64 | Kind::Fixed64 => {
            if let Some(number) = number(value) {
                *value = spelled(number, wide);
            }
        }
        _ => {}
    }
}

fn spelled(number: i128, wide: Wide) -> Value {
    let sign = if number < 0 { "-" } else { "" };
    match (i32::try_from(number), u32::try_from(number)) {
        (Ok(short), _) => short.into(),
        (_, Ok(short)) => short.into(),
        _ if wide == Wide::Hexadecimal => format!("#{sign}0x{:x}", number.unsigned_abs()).into(),
        _ => format!("#{number}").into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protos::Proto;
    use serde_json::json;

    const ORDER: &str = "syntax = \"proto3\"; import \"google/protobuf/timestamp.proto\"; \
        message Order { string id = 1; int64 amount = 2; State state = 3; repeated uint64 parts = 4; \
        map<string, int64> counts = 5; google.protobuf.Timestamp at = 6; bytes raw = 7; Order before = 8; } \
        enum State { NEW = 0; SENT = 1; }";

    fn order() -> MessageDescriptor {
        Proto::compile(ORDER).unwrap().message("Order").unwrap()
    }

    fn back(json_in: Value, options: &[PbOption]) -> Value {
        let framed = framed(&order(), json_in).unwrap();
        json(&order(), unframed(&framed).unwrap(), Style::of(options)).unwrap()
    }

    #[test]
    fn a_message_comes_back_as_it_went() {
        let full = json!({
            "id": "a", "amount": 4_294_967_296_i64, "state": "SENT", "parts": [1, 18_446_744_073_709_551_615_u64],
            "counts": {"x": -1}, "at": "2026-01-02T03:04:05Z", "raw": "AAE=", "before": {"id": "b"},
        });
        assert_eq!(back(full.clone(), &[PbOption::NoDefaultValues]), full);
        let named_otherwise = json!({"amount": "7", "unknown": [1], "before": null});
        assert_eq!(back(named_otherwise, &[PbOption::NoDefaultValues]), json!({"amount": 7}));
    }

    #[test]
    fn options_say_how_it_is_written() {
        let wide = json!({"amount": "-4294967296", "parts": [5], "counts": {"x": "2251799813685260"}, "state": "SENT"});
        for (option, expected) in [
            (
                PbOption::Int64AsNumber,
                json!({"amount": -4_294_967_296_i64, "counts": {"x": 2_251_799_813_685_260_i64}, "parts": [5], "state": "SENT"}),
            ),
            (
                PbOption::Int64AsString,
                json!({"amount": "#-4294967296", "counts": {"x": "#2251799813685260"}, "parts": [5], "state": "SENT"}),
            ),
            (
                PbOption::Int64AsHexstring,
                json!({"amount": "#-0x100000000", "counts": {"x": "#0x800000000000c"}, "parts": [5], "state": "SENT"}),
            ),
            (
                PbOption::EnumAsValue,
                json!({"amount": -4_294_967_296_i64, "counts": {"x": 2_251_799_813_685_260_i64}, "parts": [5], "state": 1}),
            ),
        ] {
            assert_eq!(back(wide.clone(), &[PbOption::NoDefaultValues, option]), expected, "{option:?}");
        }
        let defaults = back(json!({}), &[PbOption::AutoDefaultValues]);
        assert_eq!(
            (&defaults["id"], &defaults["amount"], &defaults["state"]),
            (&json!(""), &json!(0), &json!("NEW"))
        );
        assert_eq!(back(json!({}), &[PbOption::UseDefaultMetatable]), json!({}));
    }

    #[test]
    fn what_is_no_message_is_refused() {
        assert!(framed(&order(), json!({"amount": "many"})).is_err());
        assert!(framed(&order(), json!([])).is_err());
        for body in [&b""[..], b"\0\0\0", b"\x01\0\0\0\0", b"\0\0\0\0\x02a", b"\0\0\0\0\0\0\0\0\0\0"] {
            assert!(unframed(body).is_err(), "{body:?}");
        }
        assert!(json(&order(), &[0xff], Style::default()).is_err());
    }
}
