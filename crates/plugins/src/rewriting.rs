//! New paths and queries, written with variables and with what a regular expression captured.
//!
//! Where path ends and query begins is settled when the text is parsed: a `?` inside a value never starts a query.

use std::ops::Range;

use gatewright_model::expression::{Pattern, Variables};

use crate::exchange::Exchange;
use crate::template::Template;

/// A path to be, and a query if it brings one.
#[derive(Debug)]
pub(crate) struct Rewritten {
    path: Template,
    query: Option<Template>,
}

/// A path, and a query.
pub(crate) type Written = (Vec<u8>, Option<Vec<u8>>);

impl Rewritten {
    pub(crate) fn parse(text: &str) -> Self {
        match text.split_once('?') {
            Some((path, query)) => Self { path: Template::parse(path), query: Some(Template::parse(query)) },
            None => Self { path: Template::parse(text), query: None },
        }
    }

    pub(crate) fn render<'c>(
        &self,
        variables: &dyn Variables,
        captured: &dyn Fn(usize) -> Option<&'c [u8]>,
    ) -> Written {
        let mut path = self.path.render_captured(variables, captured);
        if path.first() != Some(&b'/') {
            path.insert(0, b'/');
        }
        path.retain(|byte| *byte != 0);
        let query = self.query.as_ref().map(|query| {
            let mut out = Vec::new();
            encode_query(&query.render_captured(variables, captured), &mut out);
            out
        });
        (path, query)
    }
}

/// A regular expression, and what its match becomes.
#[derive(Debug)]
pub(crate) struct Substitution {
    pub(crate) pattern: Pattern,
    pub(crate) replacement: Rewritten,
}

impl Substitution {
    /// `subject` with its first match replaced; what stands around the match stays.
    pub(crate) fn apply(
        &self,
        subject: &[u8],
        groups: &[Option<Range<usize>>],
        variables: &dyn Variables,
    ) -> Written {
        let captured = |group: usize| subject.get(groups.get(group)?.clone()?);
        let whole = groups.first().cloned().flatten().unwrap_or(0..subject.len());
        let (before, after) = (&subject[..whole.start], &subject[whole.end..]);
        let mut path = before.to_vec();
        path.extend(self.replacement.path.render_captured(variables, &captured));
        let query = self.replacement.query.as_ref().map(|query| {
            let mut out = Vec::new();
            encode_query(&query.render_captured(variables, &captured), &mut out);
            encode_query(after, &mut out);
            out
        });
        if query.is_none() {
            path.extend_from_slice(after);
        }
        if path.first() != Some(&b'/') {
            path.insert(0, b'/');
        }
        (path, query)
    }
}

/// Puts `query` in front of the query the request has.
pub(crate) fn append_query(exchange: &mut Exchange<'_>, query: Option<Vec<u8>>) {
    let Some(mut query) = query else { return };
    if let Some(own) = exchange.request.query {
        query.push(b'&');
        query.extend_from_slice(exchange.request.bytes(own));
    }
    exchange.set_query(Some(&query));
}

/// Appends `text` so that it stays one query: what has no place in one is escaped.
pub(crate) fn encode_query(text: &[u8], out: &mut Vec<u8>) {
    const HEXADECIMAL: &[u8; 16] = b"0123456789ABCDEF";
    for byte in text {
        if byte.is_ascii_graphic() && !b"\"#<>".contains(byte) {
            out.push(*byte);
        } else {
            out.extend([b'%', HEXADECIMAL[usize::from(byte >> 4)], HEXADECIMAL[usize::from(byte & 15)]]);
        }
    }
}
