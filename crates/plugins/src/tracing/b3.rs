//! The context of a trace as Zipkin has it: one field `b3`, or `X-B3-TraceId` and its like.

use super::SpanId;
use crate::exchange::Exchange;

/// What comes with a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Context {
    /// Sixteen or thirty-two digits.
    pub(crate) trace: Option<String>,
    pub(crate) span: Option<SpanId>,
    pub(crate) parent: Option<SpanId>,
    /// Whether it was decided already to record the trace.
    pub(crate) sampled: Option<bool>,
    /// It is to be recorded whatever happens.
    pub(crate) debug: bool,
}

/// The single field says something that is no context.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

impl Context {
    /// What `exchange` brings along.
    ///
    /// # Errors
    /// When the single field is malformed; of the several fields, those that are malformed are ignored.
    pub(crate) fn of(exchange: &Exchange<'_>) -> Result<Self, Malformed> {
        let text = |name: &'static str| {
            exchange.field(name).and_then(|value| std::str::from_utf8(value).ok()).map(str::trim)
        };
        if let Some(single) = text("b3").filter(|single| !single.is_empty()) {
            return Self::parse(single);
        }
        let sampled = text("x-b3-sampled").and_then(decision);
        let debug = text("x-b3-flags") == Some("1");
        Ok(Self {
            trace: text("x-b3-traceid").filter(|trace| is_trace(trace)).map(str::to_ascii_lowercase),
            span: text("x-b3-spanid").and_then(SpanId::parse),
            parent: text("x-b3-parentspanid").and_then(SpanId::parse),
            sampled: if debug { Some(true) } else { sampled },
            debug,
        })
    }

    fn parse(single: &str) -> Result<Self, Malformed> {
        // It may say nothing but the decision.
        if let Some(sampled) = decision(single) {
            return Ok(Self { sampled: Some(sampled), debug: single == "d", ..Self::default() });
        }
        let mut parts = single.split('-');
        let trace = parts.next().filter(|trace| is_trace(trace)).ok_or(Malformed)?;
        let span = parts.next().and_then(SpanId::parse).ok_or(Malformed)?;
        let (decided, parent) = (parts.next(), parts.next());
        if parts.next().is_some() {
            return Err(Malformed);
        }
        Ok(Self {
            trace: Some(trace.to_ascii_lowercase()),
            span: Some(span),
            parent: parent.map(|parent| SpanId::parse(parent).ok_or(Malformed)).transpose()?,
            sampled: decided.map(|decided| decision(decided).ok_or(Malformed)).transpose()?,
            debug: decided == Some("d"),
        })
    }
}

fn decision(text: &str) -> Option<bool> {
    match text {
        "1" | "d" | "true" => Some(true),
        "0" | "false" => Some(false),
        _ => None,
    }
}

fn is_trace(text: &str) -> bool {
    matches!(text.len(), 16 | 32) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_field_says_everything_or_is_malformed() {
        let (trace, span) = ("80f198ee56343ba864fe8b2a57d3eff7", "e457b5a2e4d86bd1");
        let full = Context {
            trace: Some(trace.to_owned()),
            span: SpanId::parse(span),
            parent: SpanId::parse("05e3ac9a4f6e3b90"),
            sampled: Some(true),
            debug: false,
        };
        let plain = Context { parent: None, sampled: None, ..full.clone() };
        for (text, expected) in [
            (format!("{trace}-{span}-1-05e3ac9a4f6e3b90"), Ok(full.clone())),
            (format!("{trace}-{span}"), Ok(plain.clone())),
            (format!("{trace}-{span}-d"), Ok(Context { sampled: Some(true), debug: true, ..plain.clone() })),
            (format!("{trace}-{span}-0"), Ok(Context { sampled: Some(false), ..plain })),
            ("0".to_owned(), Ok(Context { sampled: Some(false), ..Context::default() })),
            (trace.to_owned(), Err(Malformed)),
            (format!("{trace}-short"), Err(Malformed)),
            (format!("{trace}-{span}-maybe"), Err(Malformed)),
            (format!("{trace}-{span}-1-05e3ac9a4f6e3b90-x"), Err(Malformed)),
        ] {
            assert_eq!(Context::parse(&text), expected, "{text}");
        }
    }
}
