//! The context of a trace as W3C Trace Context has it: `00-<trace>-<parent span>-<flags>`.

use super::{SpanId, TraceId};

/// The header field.
pub(crate) const FIELD: &str = "traceparent";

/// The flag of a trace that is recorded.
const SAMPLED: u8 = 1;

/// Where a request comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Context {
    pub(crate) trace: TraceId,
    pub(crate) span: SpanId,
    pub(crate) sampled: bool,
}

impl Context {
    /// What the field says; `None`: nothing that has to be understood.
    pub(crate) fn parse(value: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(value).ok()?.trim();
        let mut parts = text.split('-');
        let version = parts.next().filter(|version| version.len() == 2 && *version != "ff")?;
        let (trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?);
        // Later versions may say more, the first one must not.
        if version == "00" && parts.next().is_some() || flags.len() != 2 {
            return None;
        }
        let flags = u8::from_str_radix(flags, 16).ok()?;
        u8::from_str_radix(version, 16).ok()?;
        Some(Self {
            trace: TraceId::parse(trace)?,
            span: SpanId::parse(span)?,
            sampled: flags & SAMPLED != 0,
        })
    }

    pub(crate) fn text(&self) -> String {
        format!("00-{}-{}-{:02x}", self.trace.text(), self.span.text(), u8::from(self.sampled))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_understood_is_written_the_same() {
        let (trace, span) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
        for (text, expected) in [
            (format!("00-{trace}-{span}-01"), Some(format!("00-{trace}-{span}-01"))),
            (format!("00-{trace}-{span}-00"), Some(format!("00-{trace}-{span}-00"))),
            (format!("00-{trace}-{span}-03"), Some(format!("00-{trace}-{span}-01"))),
            (format!("cc-{trace}-{span}-01-more"), Some(format!("00-{trace}-{span}-01"))),
            (format!("00-{trace}-{span}-01-more"), None),
            (format!("ff-{trace}-{span}-01"), None),
            (format!("00-{}-{span}-01", "0".repeat(32)), None),
            (format!("00-{trace}-{}-01", "0".repeat(16)), None),
            (format!("00-{}-{span}-01", &trace[1..]), None),
            ("00".to_owned(), None),
            (String::new(), None),
        ] {
            assert_eq!(Context::parse(text.as_bytes()).map(|context| context.text()), expected, "{text}");
        }
    }
}
