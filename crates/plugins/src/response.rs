//! The response to an exchange as plugins see it: its head, and what becomes of its body.
//!
//! A body passes untouched unless a plugin says otherwise. What changes it does so piece by piece, or takes its place
//! as a whole; either way the length that the head announced is no longer true and goes.

use bytes::Bytes;
use gatewright_model::message::{Fields, Known, ResponseHead};

/// Who gave the response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The upstream, with this status.
    Upstream(u16),
    /// The gateway itself or one of its plugins.
    Gateway,
}

/// A response on its way to the client.
pub struct Response<'r> {
    /// Its head.
    pub head: &'r mut ResponseHead,
    /// Who gave it.
    pub origin: Origin,
    /// Whether the message has a body at all: answers to HEAD have none, whatever their head says.
    pub has_body: bool,
    /// Whether its sender says where the body ends: where only the connection ends, a body that was cut short looks
    /// like one that is whole.
    pub is_delimited: bool,
    /// The fields as the upstream sent them, before any plugin changed them; only for plugins that asked for them
    /// ([`crate::exchange::State::keeps_received`]).
    pub received: Option<Fields>,
    /// What becomes of the body.
    pub body: ResponseBody,
    /// All that comes after the head, where a plugin wanted to have it first.
    pub whole: Option<Whole>,
}

/// What comes after the head of a response, read as a whole.
#[derive(Clone, Debug, Default)]
pub struct Whole {
    /// The body.
    pub body: Bytes,
    /// What stands behind it.
    pub trailers: Fields,
}

/// What becomes of the body of a response.
#[derive(Default)]
pub enum ResponseBody {
    /// It passes.
    #[default]
    Pass,
    /// Something else is sent in its place.
    Replaced(Bytes),
    /// It passes through these, in order.
    Filtered(Vec<Box<dyn BodyFilter>>),
}

/// Changes a body while it passes.
pub trait BodyFilter {
    /// Takes the next piece and appends what it became.
    fn push(&mut self, piece: &[u8], out: &mut Vec<u8>);

    /// Appends what is left when the body is over.
    fn finish(&mut self, out: &mut Vec<u8>);

    /// The same, for one that reads the trailers behind the body or takes them away.
    fn finish_before(&mut self, _trailers: &mut Option<Fields>, out: &mut Vec<u8>) {
        self.finish(out);
    }

    /// Whether the body comes out as it went in.
    fn only_looks(&self) -> bool {
        false
    }
}

impl Response<'_> {
    /// The first value of a field.
    #[must_use]
    pub fn field<'a>(&'a self, name: &'a str) -> Option<&'a [u8]> {
        self.head.fields.named(name.as_bytes()).next()
    }

    /// Makes `name` have exactly this value.
    pub fn set_field(&mut self, name: &str, value: &[u8]) {
        self.head.fields.set(name, value);
    }

    /// The length the head announces.
    #[must_use]
    pub fn content_length(&self) -> Option<u64> {
        let text = self.head.fields.known(Known::ContentLength).next()?;
        std::str::from_utf8(text).ok()?.parse().ok()
    }

    /// Sends `body` in place of what comes; filters of earlier plugins are forgotten with what they would filter.
    pub fn replace_body(&mut self, body: impl Into<Bytes>) {
        self.forget_body();
        self.body = ResponseBody::Replaced(body.into());
    }

    /// Lets the body pass through `filter`.
    pub fn filter_body(&mut self, filter: Box<dyn BodyFilter>) {
        self.forget_body();
        self.observe_body(filter);
    }

    /// Lets the body pass by `filter`, which only looks: the head stays as it is.
    pub fn observe_body(&mut self, mut filter: Box<dyn BodyFilter>) {
        self.body = match std::mem::take(&mut self.body) {
            ResponseBody::Pass => ResponseBody::Filtered(vec![filter]),
            ResponseBody::Filtered(mut filters) => {
                filters.push(filter);
                ResponseBody::Filtered(filters)
            }
            // What is there as a whole is filtered at once.
            ResponseBody::Replaced(body) => {
                let mut out = Vec::with_capacity(body.len());
                filter.push(&body, &mut out);
                filter.finish_before(&mut None, &mut out);
                ResponseBody::Replaced(out.into())
            }
        };
    }

    /// Shows the body to `observer` as the upstream sends it, before anything else changes it. It only looks, and
    /// learns of the end only if the body came to it. Where another plugin sends something else, it sees nothing.
    pub fn observe_received(&mut self, observer: Box<dyn BodyFilter>) {
        match &mut self.body {
            ResponseBody::Pass => self.body = ResponseBody::Filtered(vec![observer]),
            ResponseBody::Filtered(filters) => filters.insert(0, observer),
            ResponseBody::Replaced(_) => {}
        }
    }

    /// Drops what the head says of exactly this body, and of how it is written.
    pub(crate) fn forget_identity(&mut self) {
        for name in ["Content-Encoding", "ETag", "Last-Modified"] {
            self.head.fields.remove(name.as_bytes());
        }
    }

    /// Drops what the head says of a body that will be another one.
    fn forget_body(&mut self) {
        self.head.fields.remove_known(Known::ContentLength);
        for name in ["Content-MD5", "Digest", "Accept-Ranges"] {
            self.head.fields.remove(name.as_bytes());
        }
    }
}

/// Passes `piece` through all filters.
pub fn push_all(filters: &mut [Box<dyn BodyFilter>], piece: &[u8], out: &mut Vec<u8>) {
    match filters {
        [] => out.extend_from_slice(piece),
        [only] => only.push(piece, out),
        [first, rest @ ..] => {
            let mut between = Vec::new();
            first.push(piece, &mut between);
            push_all(rest, &between, out);
        }
    }
}

/// Ends the body for all filters; what they leave of `trailers` stands behind it.
pub fn finish_all(filters: &mut [Box<dyn BodyFilter>], trailers: &mut Option<Fields>, out: &mut Vec<u8>) {
    if let [first, rest @ ..] = filters {
        let mut between = Vec::new();
        first.finish_before(trailers, &mut between);
        if !between.is_empty() {
            push_all(rest, &between, out);
        }
        finish_all(rest, trailers, out);
    }
}
