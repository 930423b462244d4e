//! What conditions can read of a request, without copying it.
//!
//! A value is a slice of the head wherever the head holds it as such; only what has to be put together (a repeated
//! field, an escaped parameter, a number as text) is made anew.
//! Whatever a request does not have is missing, which is a value of its own in expressions.

use std::borrow::Cow;

use gatewright_model::expression::{Value, Variable, Variables};
use gatewright_model::message::{RequestHead, Version};
use gatewright_model::target;

use super::body::Body;
use super::headers::ClientAddress;
use crate::tls::handshake::Session;

/// The variables of a request that was read but not matched yet.
pub(crate) struct RequestVariables<'a> {
    pub(crate) request: &'a RequestHead,
    pub(crate) client: &'a ClientAddress,
    pub(crate) body: &'a Body,
}

impl Variables for RequestVariables<'_> {
    fn get<'a>(&'a self, variable: &Variable) -> Option<Value<'a>> {
        let RequestVariables { request, client, body } = self;
        Some(match variable {
            Variable::RemoteAddr => Value::text(client.address.as_bytes()),
            Variable::RemotePort => text(client.peer.port().to_string().into_bytes()),
            Variable::ServerAddr => text(client.local.ip().to_canonical().to_string().into_bytes()),
            Variable::ServerPort => Value::text(client.port.as_bytes()),
            Variable::Scheme => Value::text(client.scheme()),
            Variable::SslServerName
            | Variable::SslProtocol
            | Variable::SslCipher
            | Variable::SslClientVerify
            | Variable::SslClientSubject
            | Variable::SslClientIssuer
            | Variable::SslClientSerial => return variable_of_session(client.session.as_deref()?, variable),
            inside_body if inside_body.needs_body() => body.get(inside_body, request)?,
            _ => return variable_of_head(request, variable),
        })
    }
}

/// What a TLS session says of itself and of the client's certificate.
fn variable_of_session<'a>(session: &'a Session, variable: &Variable) -> Option<Value<'a>> {
    let subject = || session.client.subject();
    Some(match variable {
        Variable::SslServerName => Value::text(session.server_name.as_deref()?.as_bytes()),
        Variable::SslProtocol => Value::text(session.version.as_bytes()),
        Variable::SslCipher => Value::text(session.cipher.as_bytes()),
        Variable::SslClientVerify => text(session.client.verdict().into_bytes()),
        Variable::SslClientSubject => Value::text(subject()?.name.as_bytes()),
        Variable::SslClientIssuer => Value::text(subject()?.issuer.as_bytes()),
        Variable::SslClientSerial => Value::text(subject()?.serial.as_bytes()),
        _ => return None,
    })
}

/// The variables that the head of a request says, whether or not anybody sent it.
pub(crate) fn variable_of_head<'a>(request: &'a RequestHead, variable: &Variable) -> Option<Value<'a>> {
    Some(match variable {
        Variable::Uri => Value::text(request.bytes(request.path)),
        Variable::RequestUri => text(request_uri(request)),
        Variable::RealRequestUri => Value::text(request.bytes(request.target)),
        Variable::Host => Value::text(request.bytes(request.host)),
        Variable::Scheme => Value::text(b"http"),
        Variable::RequestMethod => Value::text(request.bytes(request.method_text)),
        Variable::ServerProtocol => match request.version {
            Version::Http10 => Value::text(b"HTTP/1.0"),
            Version::Http11 => Value::text(b"HTTP/1.1"),
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
        let equals = memchr::memchr(b'=', pair);
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
fn decoded(text: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memchr(b'%', text).is_none() {
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
            let Some(equals) = memchr::memchr(b'=', pair) else { continue };
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

    fn read(lines: &str, name: &str) -> Option<String> {
        let mut head = RequestHead::default();
        crate::http1::request::parse(lines.as_bytes(), &mut head).expect("a request");
        let client =
            ClientAddress::new("10.0.0.9:5000".parse().unwrap(), "10.0.0.1:9080".parse().unwrap(), None);
        let variables = RequestVariables { request: &head, client: &client, body: &Body::unread() };
        let value = variables.get(&Variable::of(name))?;
        Some(match value {
            Value::Text(text) => String::from_utf8_lossy(&text).into_owned(),
            other => format!("{other:?}"),
        })
    }

    #[test]
    fn what_a_request_says_can_be_read() {
        let request = "GET /a//b%20c?x=1%202&flag&empty=&x=9 HTTP/1.1\r\nHost: Example.com:81\r\nX-Tag: one\r\n\
                       Cookie: a=1; session=xyz\r\nX_Tag: two\r\nX-Tag: three\r\n\r\n";
        for (name, expected) in [
            ("uri", Some("/a/b c")),
            ("request_uri", Some("/a/b%20c?x=1%202&flag&empty=&x=9")),
            ("real_request_uri", Some("/a//b%20c?x=1%202&flag&empty=&x=9")),
            ("args", Some("x=1%202&flag&empty=&x=9")),
            ("is_args", Some("?")),
            ("arg_x", Some("1 2")),
            ("arg_flag", Some("Bool(true)")),
            ("arg_empty", Some("")),
            ("arg_none", None),
            ("host", Some("example.com")),
            ("http_host", Some("Example.com:81")),
            ("http_x_tag", Some("one, two, three")),
            ("http_absent", None),
            ("cookie_session", Some("xyz")),
            ("cookie_Session", None),
            ("request_method", Some("GET")),
            ("remote_addr", Some("10.0.0.9")),
            ("remote_port", Some("5000")),
            ("server_addr", Some("10.0.0.1")),
            ("server_port", Some("9080")),
            ("server_protocol", Some("HTTP/1.1")),
            ("scheme", Some("http")),
            ("uri_param_id", None),
        ] {
            assert_eq!(read(request, name).as_deref(), expected, "{name}");
        }
    }

    #[test]
    fn an_escape_that_is_none_stays_as_it_is() {
        for (text, expected) in
            [("100%", "100%"), ("%zz", "%zz"), ("%4", "%4"), ("%41%", "A%"), ("a+b", "a+b")]
        {
            assert_eq!(decoded(text.as_bytes()), expected.as_bytes());
        }
    }
}
