//! What compressing plugins do alike: which responses they take, whom they send them to, and what the head says then.
//! And what those need that read a body which may be compressed: [`HeldBody`].

use std::io::Read as _;

use gatewright_model::message::Version;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::exchange::Exchange;
use crate::response::{BodyFilter, Response};

/// Types of bodies that are compressed.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(untagged)]
pub(crate) enum Types {
    Listed(Vec<String>),
    All(String),
}

impl Default for Types {
    fn default() -> Self {
        Self::Listed(vec!["text/html".to_owned()])
    }
}

/// The schema of [`Types`].
pub(crate) fn types_schema() -> Value {
    json!({ "anyOf": [
        { "type": "array", "minItems": 1, "items": { "type": "string", "minLength": 1 } }, { "enum": ["*"] },
    ], "default": ["text/html"] })
}

/// A body that is held back until it is there as a whole.
pub(crate) struct HeldBody {
    bytes_max: usize,
    is_gzip: bool,
    body: Vec<u8>,
}

impl HeldBody {
    /// Of up to so many bytes; what is longer is cut.
    pub(crate) fn new(bytes_max: usize, is_gzip: bool) -> Self {
        Self { bytes_max, is_gzip, body: Vec::new() }
    }

    /// Takes the next piece.
    pub(crate) fn push(&mut self, piece: &[u8]) {
        let room = self.bytes_max.saturating_sub(self.body.len());
        self.body.extend_from_slice(&piece[..piece.len().min(room)]);
    }

    /// What there is, in the clear; nothing is left.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        let body = std::mem::take(&mut self.body);
        if self.is_gzip { gunzip(&body, self.bytes_max) } else { body }
    }
}

/// What was compressed with gzip, of up to so many bytes. What is no gzip after all, or too much of it, ends where it
/// does.
fn gunzip(body: &[u8], bytes_max: usize) -> Vec<u8> {
    let mut plain = Vec::new();
    let limit = u64::try_from(bytes_max).unwrap_or(u64::MAX);
    let _ = flate2::read::MultiGzDecoder::new(body).take(limit).read_to_end(&mut plain);
    plain
}

/// Which responses are compressed, and for whom.
#[derive(Clone, Debug)]
pub(crate) struct Selection {
    /// What bodies are.
    types: Types,
    /// Bytes of the shortest body.
    min_length: u64,
    /// The oldest HTTP version whose clients get compressed responses.
    http_version: f64,
    /// Whether caches are told that the response depends on what the client accepts.
    vary: bool,
}

impl Selection {
    /// As the fields of a configuration say that compressing plugins share.
    pub(crate) fn new(types: Types, min_length: u64, http_version: f64, vary: Option<bool>) -> Self {
        Self { types, min_length, http_version, vary: vary == Some(true) }
    }

    /// Lets the body pass through what `encoder` makes, in the coding called `coding`, if the response is one of these
    /// and the client takes it.
    pub(crate) fn apply(
        &self,
        exchange: &Exchange<'_>,
        response: &mut Response<'_>,
        coding: &str,
        encoder: impl FnOnce() -> Box<dyn BodyFilter>,
    ) {
        let is_too_old = exchange.request.version == Version::Http10 && self.http_version > 1.0;
        let is_taken = !is_too_old && accepts(exchange, coding);
        // Who takes no coding need not be told that the response concerns us, and most of the work is to find out.
        if !response.has_body || !(is_taken || self.vary) || !self.concerns(response) {
            return;
        }
        if self.vary {
            response.head.fields.append("Vary", b"Accept-Encoding");
        }
        if !is_taken {
            return;
        }
        // A validator of the plain bytes says nothing about the compressed ones, except weakly.
        if let Some(tag) = response.field("ETag").filter(|tag| !tag.starts_with(b"W/")).map(<[u8]>::to_vec) {
            response.set_field("ETag", &[b"W/", tag.as_slice()].concat());
        }
        response.set_field("Content-Encoding", coding.as_bytes());
        response.filter_body(encoder());
    }

    fn concerns(&self, response: &Response<'_>) -> bool {
        let content_type = response.field("Content-Type").unwrap_or_default();
        let essence = content_type.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        let is_listed = match &self.types {
            Types::All(_) => true,
            Types::Listed(types) => {
                types.iter().any(|listed| essence.eq_ignore_ascii_case(listed.as_bytes()))
            }
        };
        let is_long = response.content_length().is_none_or(|length| length >= self.min_length);
        let has_content = !matches!(response.head.status, 204 | 206 | 304);
        is_listed && is_long && has_content && response.field("Content-Encoding").is_none()
    }
}

/// Whether the client takes `coding` (RFC 9110 section 12.5.3).
fn accepts(exchange: &Exchange<'_>, wanted: &str) -> bool {
    let values = exchange.request.fields.named(b"accept-encoding");
    let accepts = |coding: &[u8]| {
        let mut parts = coding.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
        let name = parts.next().unwrap_or_default();
        let refused = parts.any(|part| {
            let weight =
                part.strip_prefix(b"q=").and_then(|text| std::str::from_utf8(text).ok()?.parse().ok());
            weight == Some(0.0_f32)
        });
        (name.eq_ignore_ascii_case(wanted.as_bytes()) || name == b"*") && !refused
    };
    values.flat_map(|value| value.split(|byte| *byte == b',')).any(|coding| accepts(coding.trim_ascii()))
}
