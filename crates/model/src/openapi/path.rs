//! Paths: `/pets/{petId}` in a document, `/pets/:petId` in a route.
//!
//! A parameter that is only part of a segment has no equal in a path of ours. It becomes a parameter for the whole
//! segment and a condition on the rest of the path, which together match what was written.

use serde_json::{Value, json};

/// A path of a document, as a route says it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Written {
    pub(super) path: String,
    /// Conditions that the path alone does not say.
    pub(super) vars: Vec<Value>,
    /// Literal text that means something else in a route.
    pub(super) is_wider: bool,
}

/// `path` as a route says it.
///
/// # Errors
/// Why there is no such route.
pub(super) fn imported(path: &str) -> Result<Written, String> {
    if !path.starts_with('/') {
        return Err("a path starts with `/`".to_owned());
    }
    if path.contains(['?', '#']) {
        return Err("a path has no query and no fragment".to_owned());
    }
    let mut written = Written::default();
    let mut rest = String::new();
    for (number, segment) in path[1..].split('/').enumerate() {
        let pieces = pieces(segment)?;
        let (ours, pattern) = match pieces.as_slice() {
            [Piece::Name(name)] => (format!(":{name}"), None),
            pieces if pieces.iter().all(|piece| matches!(piece, Piece::Literal(_))) => {
                let literal: String = pieces.iter().map(Piece::text).collect();
                written.is_wider |= literal.contains('*') || literal.len() > 1 && literal.starts_with(':');
                (literal, None)
            }
            pieces => (format!(":segment{number}"), Some(pattern(pieces))),
        };
        written.path.push('/');
        written.path.push_str(&ours);
        // From the first such segment on, the condition says the rest of the path.
        if pattern.is_some() || !rest.is_empty() {
            let literal = regex::escape(&ours);
            let is_name = matches!(pieces.as_slice(), [Piece::Name(_)]);
            rest.push('/');
            rest.push_str(&pattern.unwrap_or_else(|| if is_name { "[^/]+".to_owned() } else { literal }));
        }
    }
    if !rest.is_empty() {
        written.vars = vec![json!(["uri", "~~", format!("{rest}$")])];
    }
    Ok(written)
}

enum Piece {
    Literal(String),
    Name(String),
}

impl Piece {
    fn text(&self) -> &str {
        match self {
            Self::Literal(text) | Self::Name(text) => text,
        }
    }
}

fn pieces(segment: &str) -> Result<Vec<Piece>, String> {
    let mut pieces = Vec::new();
    let mut rest = segment;
    while let Some(open) = rest.find('{') {
        let close = rest[open..].find('}').ok_or("a `{` is not closed")? + open;
        if open > 0 {
            pieces.push(literal(&rest[..open])?);
        }
        let name = &rest[open + 1..close];
        if name.is_empty() || name.contains('{') {
            return Err("a parameter has no name".to_owned());
        }
        pieces.push(Piece::Name(name.to_owned()));
        rest = &rest[close + 1..];
    }
    if rest.contains('}') {
        return Err("a `}` was not opened".to_owned());
    }
    if !rest.is_empty() {
        pieces.push(literal(rest)?);
    }
    Ok(pieces)
}

fn literal(text: &str) -> Result<Piece, String> {
    let decoded = percent_decoded(text).ok_or("a `%` is not followed by two hexadecimal digits of UTF-8")?;
    Ok(Piece::Literal(decoded))
}

fn pattern(pieces: &[Piece]) -> String {
    let piece = |piece: &Piece| match piece {
        Piece::Literal(text) => regex::escape(text),
        Piece::Name(_) => "[^/]+".to_owned(),
    };
    pieces.iter().map(piece).collect()
}

/// Text with its escapes undone; none: they are no text.
pub(super) fn percent_decoded(text: &str) -> Option<String> {
    if !text.contains('%') {
        return Some(text.to_owned());
    }
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let mut digit = || char::from(bytes.next()?).to_digit(16);
        let value = digit()? * 16 + digit()?;
        decoded.push(u8::try_from(value).ok()?);
    }
    String::from_utf8(decoded).ok()
}

/// A path of a route, as a document says it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Exported {
    pub(super) path: String,
    /// Its parameters, in their order.
    pub(super) parameters: Vec<String>,
    /// Whether the route takes more than the document can say.
    pub(super) is_narrower: bool,
}

/// `path` as a document says it.
pub(super) fn exported(path: &str) -> Exported {
    let mut exported = Exported::default();
    for segment in path.trim_start_matches('/').split('/') {
        let star = segment.find('*');
        exported.path.push('/');
        match (segment.strip_prefix(':'), star) {
            (Some(name), None) if !name.is_empty() => exported.parameter(name),
            (_, Some(at)) => {
                // A star takes any number of segments, a parameter one.
                exported.is_narrower = true;
                let name = if at == 0 { &segment[1..] } else { "" };
                exported.path.push_str(&escaped(&segment[..at]));
                exported.parameter(if name.is_empty() { "rest" } else { name });
            }
            _ => exported.path.push_str(&escaped(segment)),
        }
    }
    exported
}

impl Exported {
    fn parameter(&mut self, name: &str) {
        let mut name = name.to_owned();
        while self.parameters.contains(&name) {
            name.push('_');
        }
        self.path.push_str(&format!("{{{name}}}"));
        self.parameters.push(name);
    }
}

/// Literal text with what would be read as something else escaped.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '{' | '}' | '?' | '#' | '%' => escaped.push_str(&format!("%{:02X}", u32::from(character))),
            _ => escaped.push(character),
        }
    }
    escaped
}
