//! What the head of a request says, by the names of variables.
//!
//! A value is a slice of the head wherever the head holds it as such; only what has to be put together (a repeated
//! field, an escaped parameter) is made anew.

use std::borrow::Cow;

use super::{RequestHead, Version};
use crate::expression::{Value, Variable};
use crate::target;

/// The value of `variable`, if it is one that the head of a request says.
#[must_use]
pub fn variable<'a>(request: &'a RequestHead, variable: &Variable) -> Option<Value<'a>> {
    Some(match variable {
        Variable::Uri => Value::text(request.bytes(request.path)),
        Variable::RequestUri => text(request_uri(request)),
        Variable::RealRequestUri => Value::text(request.bytes(request.target)),
        Variable::Host => Value::text(request.bytes(request.host)),
        Variable::RequestMethod => Value::text(request.bytes(request.method_text)),
        Variable::ServerProtocol => match request.version {
            Version::Http10 => Value::text(b"HTTP/1.0"),
            Version::Http11 => Value::text(b"HTTP/1.1"),
            Version::Http2 => Value::text(b"HTTP/2.0"),
        },
        Variable::QueryString => Value::text(request.bytes(request.query?)),
        Variable::IsArgs => Value::text(if request.query.is_some() { b"?" } else { b"" }),
        Variable::Http(name) => header(request, name.as_bytes())?,
        Variable::Arg(name) => argument(request.bytes(request.query?), name.as_bytes())?,
        Variable::Cookie(name) => cookie(request, name.as_bytes())?,
        _ => return None,
    })
}

fn request_uri(request: &RequestHead) -> Vec<u8> {
    let mut uri = Vec::new();
    target::encode_path(request.bytes(request.path), &mut uri);
    if let Some(query) = request.query {
        uri.push(b'?');
        uri.extend_from_slice(request.bytes(query));
    }
    uri
}

fn text<'a>(bytes: Vec<u8>) -> Value<'a> {
    Value::Text(Cow::Owned(bytes))
}

/// The field of that name; repeated ones are joined with `, `.
fn header<'a>(request: &'a RequestHead, name: &[u8]) -> Option<Value<'a>> {
    let fields = &request.fields;
    let same = |candidate: &[u8]| {
        let folded = |byte: &u8| if *byte == b'_' { b'-' } else { byte.to_ascii_lowercase() };
        candidate.len() == name.len() && candidate.iter().map(folded).eq(name.iter().copied())
    };
    let mut values =
        fields.iter().filter(|field| same(fields.bytes(field.name))).map(|field| fields.bytes(field.value));
    let first = values.next()?;
    let Some(second) = values.next() else { return Some(Value::text(first)) };
    let mut joined = [first, b", ", second].concat();
    for value in values {
        joined.extend_from_slice(b", ");
        joined.extend_from_slice(value);
    }
    Some(text(joined))
}

/// The first parameter of that name: decoded, or `true` if it is written without `=`.
fn argument<'a>(query: &'a [u8], name: &[u8]) -> Option<Value<'a>> {
    for pair in query.split(|byte| *byte == b'&') {
        let equals = pair.iter().position(|byte| *byte == b'=');
        let key = &pair[..equals.unwrap_or(pair.len())];
        if *decoded(key) != *name {
            continue;
        }
        return Some(match equals {
            None => Value::Bool(true),
            Some(equals) => Value::Text(decoded(&pair[equals + 1..])),
        });
    }
    None
}

/// Percent-decoded as far as the escapes are valid; `+` stays what it is.
#[must_use]
pub fn decoded(text: &[u8]) -> Cow<'_, [u8]> {
    if !text.contains(&b'%') {
        return Cow::Borrowed(text);
    }
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        match (byte, after) {
            (b'%', [high, low, after @ ..]) => match (digit(*high), digit(*low)) {
                (Some(high), Some(low)) => {
                    out.push(high << 4 | low);
                    rest = after;
                }
                _ => out.push(b'%'),
            },
            _ => out.push(*byte),
        }
    }
    Cow::Owned(out)
}

fn cookie<'a>(request: &'a RequestHead, name: &[u8]) -> Option<Value<'a>> {
    for line in request.fields.named(b"cookie") {
        for pair in line.split(|byte| *byte == b';') {
            let Some(equals) = pair.iter().position(|byte| *byte == b'=') else { continue };
            if pair[..equals].trim_ascii() == name {
                return Some(Value::text(pair[equals + 1..].trim_ascii()));
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_escape_that_is_none_stays_as_it_is() {
        for (text, expected) in
            [("100%", "100%"), ("%zz", "%zz"), ("%4", "%4"), ("%41%", "A%"), ("a+b", "a+b")]
        {
            assert_eq!(decoded(text.as_bytes()), expected.as_bytes());
        }
    }
}
