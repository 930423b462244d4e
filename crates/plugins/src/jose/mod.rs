//! Tokens in the compact form of JOSE (RFC 7515, 7518, 8037): read, verified, signed.
//!
//! Signatures are those of ring, which TLS uses as well, and of `p521` for the one curve that ring lacks.
//! What a token says about itself decides nothing: the caller says which algorithm and which key count, and the
//! algorithm `none` does not exist here.

mod key;
mod signing;

use base64::Engine as _;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

pub(crate) use key::Key;
pub(crate) use signing::Signer;

/// Base64 for URLs. Padding is not part of a token, but some issuers write it.
pub(crate) const URL_SAFE: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::URL_SAFE,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Bytes of the longest token that is read: longer than any head can carry.
const TOKEN_BYTES_MAX: usize = 64 * 1024;

/// How a token is signed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[allow(missing_docs, reason = "the names are those of RFC 7518 and RFC 8037")]
pub(crate) enum Algorithm {
    #[default]
    HS256,
    HS384,
    HS512,
    RS256,
    RS384,
    RS512,
    ES256,
    ES384,
    ES512,
    PS256,
    PS384,
    PS512,
    EdDSA,
}

impl Algorithm {
    /// The algorithm of that name, if it is one of these.
    pub(crate) fn of(name: &str) -> Option<Self> {
        serde_json::from_value(Value::from(name)).ok()
    }

    /// Whether both sides share one secret.
    pub(crate) fn is_symmetric(self) -> bool {
        matches!(self, Self::HS256 | Self::HS384 | Self::HS512)
    }
}

/// A token, read and not verified.
#[derive(Clone, Debug)]
pub(crate) struct Token {
    /// What it says of its signature.
    pub(crate) header: Map<String, Value>,
    /// What it claims.
    pub(crate) claims: Map<String, Value>,
    signed: Box<[u8]>,
    signature: Box<[u8]>,
}

/// A token that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unreadable;

impl Token {
    /// Reads `header.claims.signature`.
    pub(crate) fn parse(text: &[u8]) -> Result<Self, Unreadable> {
        if text.len() > TOKEN_BYTES_MAX {
            return Err(Unreadable);
        }
        let mut parts = text.split(|byte| *byte == b'.');
        let (Some(header), Some(claims), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(Unreadable);
        };
        let decode = |part: &[u8]| URL_SAFE.decode(part).map_err(|_| Unreadable);
        let object = |part: &[u8]| serde_json::from_slice(&decode(part)?).map_err(|_| Unreadable);
        let token = Self {
            header: object(header)?,
            claims: object(claims)?,
            signature: decode(signature)?.into(),
            signed: text[..header.len() + 1 + claims.len()].into(),
        };
        // What an issuer declares critical must be understood, and nothing is.
        if token.header.contains_key("crit") {
            return Err(Unreadable);
        }
        Ok(token)
    }

    /// The algorithm it says it is signed with.
    pub(crate) fn algorithm(&self) -> Option<Algorithm> {
        Algorithm::of(self.header.get("alg")?.as_str()?)
    }

    /// The key it says it is signed with.
    pub(crate) fn key_id(&self) -> Option<&str> {
        self.header.get("kid")?.as_str()
    }

    /// Whether `key` signed it with `algorithm`.
    pub(crate) fn is_signed_by(&self, key: &Key, algorithm: Algorithm) -> bool {
        key.verifies(algorithm, &self.signed, &self.signature)
    }

    /// A claim that is a text.
    pub(crate) fn text(&self, claim: &str) -> Option<&str> {
        self.claims.get(claim)?.as_str()
    }

    /// A claim that is a time, in unix seconds.
    pub(crate) fn time(&self, claim: &str) -> Option<f64> {
        self.claims.get(claim)?.as_f64()
    }
}

#[cfg(test)]
mod tests;
