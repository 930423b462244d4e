//! What conditions can read of a request, without copying it.
//!
//! A value is a slice of the head wherever the head holds it as such; only what has to be put together (a repeated
//! field, an escaped parameter, a number as text) is made anew.
//! Whatever a request does not have is missing, which is a value of its own in expressions.

use std::borrow::Cow;

use gatewright_model::expression::{Value, Variable, Variables};
use gatewright_model::message::{self, RequestHead};

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
    match variable {
        Variable::Scheme => Some(Value::text(b"http")),
        _ => message::variable(request, variable),
    }
}

fn text<'a>(bytes: Vec<u8>) -> Value<'a> {
    Value::Text(Cow::Owned(bytes))
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
}
