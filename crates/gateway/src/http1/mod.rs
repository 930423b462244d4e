//! The HTTP/1 codec: bytes in, decisions out.
//!
//! Everything here is a function over bytes and knows no sockets, so each decision can be tested as data and
//! fuzzed. A message whose framing could be read in two ways is refused, never repaired: what a client and an
//! upstream understand differently is how requests are smuggled (RFC 9112 section 11.2).
//!
//! * [`scan`]: where a head ends.
//! * [`request`], [`response`]: a head's bytes into a [`gatewright_model::message`] head.
//! * [`framing`]: how long the body is.
//! * [`chunked`]: the chunked transfer coding.
//! * [`write`]: heads back into bytes.

pub(crate) mod chunked;
pub(crate) mod framing;
pub(crate) mod request;
pub(crate) mod response;
pub(crate) mod scan;
pub(crate) mod write;

#[cfg(any(test, fuzzing))]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a check that fails says where")]
pub(crate) mod properties;

/// Bytes of a head we accept: request line and fields together.
pub(crate) const HEAD_BYTES_MAX: usize = 60 * 1024;

/// Bytes of a request target we accept.
pub(crate) const TARGET_BYTES_MAX: usize = 16 * 1024;

/// Field lines in a head we accept.
pub(crate) const FIELDS_MAX: usize = 100;

/// Why a message was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Malformed {
    #[error("a line ends without a carriage return")]
    BareLineFeed,
    #[error("the head is not HTTP/1")]
    Syntax,
    #[error("the HTTP version is not supported")]
    Version,
    #[error("the request target is too long")]
    TargetTooLong,
    #[error("the head is too large")]
    HeadTooLong,
    #[error("there are too many fields")]
    TooManyFields,
    #[error("the method is not supported")]
    Method,
    #[error("the request target is not valid")]
    Target,
    #[error("the Host is missing, repeated or not valid")]
    Host,
    #[error("`:authority` and Host name two hosts")]
    TwoHosts,
    #[error("Content-Length and Transfer-Encoding together")]
    TwoFramings,
    #[error("the Content-Length is repeated or not a number")]
    ContentLength,
    #[error("the Transfer-Encoding is not exactly `chunked`")]
    TransferEncoding,
    #[error("a chunk is malformed")]
    Chunk,
    #[error("the status code is not valid here")]
    Status,
}

impl Malformed {
    /// The name by which logs and metrics know it: a limit has its own, whatever else is wrong is one thing.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::TargetTooLong => "target_too_long",
            Self::HeadTooLong => "head_too_large",
            Self::TooManyFields => "too_many_fields",
            _ => "malformed",
        }
    }

    /// The status that tells a client what was wrong with its request.
    pub(crate) fn status(self) -> u16 {
        match self {
            Self::TargetTooLong => 414,
            Self::HeadTooLong | Self::TooManyFields => 431,
            Self::Version => 505,
            Self::Method => 405,
            Self::BareLineFeed
            | Self::Syntax
            | Self::Target
            | Self::Host
            | Self::TwoHosts
            | Self::TwoFramings
            | Self::ContentLength
            | Self::TransferEncoding
            | Self::Chunk
            | Self::Status => 400,
        }
    }
}
