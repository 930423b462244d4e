//! What tracers do alike: identifiers, and the context that comes with a request and goes on with it.
//!
//! * `w3c`: `traceparent` (W3C Trace Context).
//! * `b3`: `b3` and `X-B3-…`.

pub(crate) mod b3;
pub(crate) mod w3c;

use gatewright_model::expression::Variable;

use crate::exchange::{Exchange, Surroundings};

/// What served a request, beside route and service: attributes, and the variables that hold their values.
const SERVING: [(&str, &str); 4] = [
    ("gatewright.service.version", "service_version"),
    ("gatewright.gateway_group.id", "gateway_group_id"),
    ("gatewright.revision", "revision"),
    ("gatewright.instance.id", "instance_id"),
];

/// What served a request that is over, as far as it is known, by the names that spans give it.
pub(crate) fn serving(exchange: &Exchange<'_>) -> impl Iterator<Item = (&'static str, String)> {
    SERVING.into_iter().filter_map(|(name, variable)| {
        let value = exchange.text(&Variable::Other(variable.into()))?;
        Some((name, String::from_utf8_lossy(&value).into_owned()))
    })
}

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
