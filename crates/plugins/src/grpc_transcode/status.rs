//! How a call ended, as HTTP says it.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use gatewright_model::message::Fields;
use prost_reflect::{DynamicMessage, MessageDescriptor};
use serde_json::{Map, Value, json};

use super::message::{self, Style};
use crate::protos::STATUS;

/// Binary values of gRPC are padded or not.
const BINARY: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The status for what gRPC does not define.
const UNKNOWN_CODE: u16 = 599;

/// How a call ended.
pub(super) struct Ending<'f> {
    pub(super) code: u32,
    /// Why, in percent encoding.
    pub(super) message: Option<&'f [u8]>,
    /// All that the service says of it, in base64.
    pub(super) details: Option<&'f [u8]>,
}

impl<'f> Ending<'f> {
    /// What these fields say; `None`: nothing.
    pub(super) fn of(fields: &'f Fields) -> Option<Self> {
        let named = |name: &'static str| fields.named(name.as_bytes()).next();
        let code = std::str::from_utf8(named("grpc-status")?).ok()?.parse().ok()?;
        Some(Self { code, message: named("grpc-message"), details: named("grpc-status-details-bin") })
    }
}

/// The status of the answer to a call that ended like this.
pub(super) fn http_status(code: u32) -> u16 {
    match code {
        0 => 200,
        1 => 499,
        2 | 13 | 15 => 500,
        3 | 9 | 11 => 400,
        4 => 504,
        5 => 404,
        6 | 10 => 409,
        7 => 403,
        8 => 429,
        12 => 501,
        14 => 503,
        16 => 401,
        _ => UNKNOWN_CODE,
    }
}

/// What the service says of a failure, as a body; details are of the kind `detail`, or stay as they are.
pub(super) fn described(details: &[u8], detail: Option<&MessageDescriptor>, style: Style) -> String {
    let Ok(bytes) = BINARY.decode(details) else {
        return "grpc-status-details-bin is not base64 format".to_owned();
    };
    let Ok(status) = DynamicMessage::decode(STATUS.clone(), &*bytes) else {
        return "failed to decode grpc-status-details-bin".to_owned();
    };
    let text = |message: &DynamicMessage, name: &str| {
        message
            .get_field_by_name(name)
            .and_then(|value| value.as_str().map(str::to_owned))
            .unwrap_or_default()
    };
    let mut error = Map::new();
    let code = status.get_field_by_name("code").and_then(|code| code.as_i32());
    error.insert("code".to_owned(), code.unwrap_or_default().into());
    error.insert("message".to_owned(), text(&status, "message").into());
    let listed = status.get_field_by_name("details");
    let listed = listed.as_ref().and_then(|details| details.as_list()).unwrap_or_default();
    let mut shown = Vec::with_capacity(listed.len());
    for any in listed.iter().filter_map(|any| any.as_message()) {
        let value = any.get_field_by_name("value");
        let value = value.as_ref().and_then(|value| value.as_bytes()).cloned().unwrap_or_default();
        shown.push(match detail {
            None => json!({ "type_url": text(any, "type_url"), "value": STANDARD.encode(&value) }),
            Some(kind) => match message::json(kind, &value, style) {
                Ok(json) => json,
                Err(_) => return "failed to decode details in grpc-status-details-bin".to_owned(),
            },
        });
    }
    if !shown.is_empty() {
        error.insert("details".to_owned(), Value::Array(shown));
    }
    json!({ "error": error }).to_string()
}
