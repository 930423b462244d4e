//! What tracers do alike: identifiers, and the context that comes with a request and goes on with it.
//!
//! * `w3c`: `traceparent` (W3C Trace Context).
//! * `b3`: `b3` and `X-B3-…`.

pub(crate) mod b3;
pub(crate) mod w3c;

use crate::exchange::Surroundings;

/// Sixteen bytes that a trace is known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TraceId(pub(crate) u128);

/// Eight bytes that a span is known by within its trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SpanId(pub(crate) u64);

impl TraceId {
    pub(crate) fn random(surroundings: &dyn Surroundings) -> Self {
        Self((u128::from(surroundings.random()) << 64 | u128::from(surroundings.random())).max(1))
    }

    /// Thirty-two digits, not all of them zero.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        hexadecimal(text, 32).filter(|id| *id != 0).map(Self)
    }

    pub(crate) fn text(self) -> String {
        format!("{:032x}", self.0)
    }

    /// Whether it is among this fraction of all traces; everybody who asks decides alike.
    pub(crate) fn is_among(self, fraction: f64) -> bool {
        #[allow(clippy::cast_precision_loss, reason = "a share of traces needs no more digits")]
        let place = (self.0 & u128::from(u64::MAX)) as f64 / u64::MAX as f64;
        fraction >= 1.0 || place < fraction
    }
}

impl SpanId {
    pub(crate) fn random(surroundings: &dyn Surroundings) -> Self {
        Self(surroundings.random().max(1))
    }

    /// Sixteen digits, not all of them zero.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        hexadecimal(text, 16).and_then(|id| u64::try_from(id).ok()).filter(|id| *id != 0).map(Self)
    }

    pub(crate) fn text(self) -> String {
        format!("{:016x}", self.0)
    }
}

fn hexadecimal(text: &str, digits: usize) -> Option<u128> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_hexdigit());
    (text.len() == digits && is_number).then(|| u128::from_str_radix(text, 16).ok())?
}
