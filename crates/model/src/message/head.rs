//! Request and response heads.

use super::{Fields, Span};

/// The head of a request as it was received and edited since.
#[derive(Clone, Debug, Default)]
pub struct RequestHead {
    /// The fields, and the buffer that every span of this head points into.
    pub fields: Fields,
    /// The method, classified.
    pub method: Method,
    /// The method as written.
    pub method_text: Span,
    /// The method the client used, where another one is forwarded.
    pub method_before: Option<Method>,
    /// The request target as written.
    pub target: Span,
    /// The path as written; empty where the target names none.
    pub raw_path: Span,
    /// The normalised path: what is matched and, unless changed since, what is forwarded.
    pub path: Span,
    /// Whether the path can be forwarded byte by byte, without encoding it again.
    pub path_is_plain: bool,
    /// The query without its `?`, if there is a `?`.
    pub query: Option<Span>,
    /// The authority the request is for, as written: a host, perhaps with a port.
    pub authority: Span,
    /// The host the request is for, in lower case and without a port.
    pub host: Span,
    /// The protocol version.
    pub version: Version,
}

impl RequestHead {
    /// The bytes of a span of this head.
    #[must_use]
    pub fn bytes(&self, span: Span) -> &[u8] {
        self.fields.bytes(span)
    }

    /// The method the client used, which decides what an answer to it looks like.
    #[must_use]
    pub fn client_method(&self) -> Method {
        self.method_before.unwrap_or(self.method)
    }

    /// Forgets everything and keeps the allocations.
    pub fn clear(&mut self) {
        let mut fields = std::mem::take(&mut self.fields);
        fields.clear();
        *self = Self { fields, ..Self::default() };
    }
}

/// The head of a response.
#[derive(Clone, Debug, Default)]
pub struct ResponseHead {
    /// The fields, and the buffer that every span of this head points into.
    pub fields: Fields,
    /// The status code.
    pub status: u16,
    /// The reason phrase as written.
    pub reason: Span,
    /// The protocol version.
    pub version: Version,
}

impl ResponseHead {
    /// The bytes of a span of this head.
    #[must_use]
    pub fn bytes(&self, span: Span) -> &[u8] {
        self.fields.bytes(span)
    }

    /// Forgets everything and keeps the allocations.
    pub fn clear(&mut self) {
        let mut fields = std::mem::take(&mut self.fields);
        fields.clear();
        *self = Self { fields, ..Self::default() };
    }
}

/// A version of the protocol a message came in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Version {
    Http10,
    #[default]
    Http11,
    Http2,
}

/// A request method. Methods are case-sensitive (RFC 9110 section 9.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
#[allow(missing_docs, reason = "each is the method of that name")]
pub enum Method {
    #[default]
    Get,
    Post,
    Put,
    Delete,
    Patch,
    Head,
    Options,
    Trace,
    Connect,
    Purge,
    /// Any other method; it matches no list of methods.
    Other,
}

impl Method {
    /// The method spelt `text`.
    #[must_use]
    pub fn of(text: &[u8]) -> Self {
        match text {
            b"GET" => Self::Get,
            b"POST" => Self::Post,
            b"PUT" => Self::Put,
            b"DELETE" => Self::Delete,
            b"PATCH" => Self::Patch,
            b"HEAD" => Self::Head,
            b"OPTIONS" => Self::Options,
            b"TRACE" => Self::Trace,
            b"CONNECT" => Self::Connect,
            b"PURGE" => Self::Purge,
            _ => Self::Other,
        }
    }

    /// Whether a request with this method is expected to have a body, so that one without says so (RFC 9110 section
    /// 8.6).
    #[must_use]
    pub fn has_body(self) -> bool {
        matches!(self, Self::Post | Self::Put | Self::Patch)
    }

    /// Whether sending the request twice means the same as sending it once (RFC 9110 section 9.2.2).
    #[must_use]
    pub fn is_idempotent(self) -> bool {
        matches!(self, Self::Get | Self::Head | Self::Put | Self::Delete | Self::Options | Self::Trace)
    }
}
