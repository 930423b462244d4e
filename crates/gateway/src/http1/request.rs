//! The bytes of a request head into a [`RequestHead`].
//!
//! After [`parse`] succeeded the head has one meaning: its framing is decided, its host is known and lower-case,
//! and its path is normalised.

use std::borrow::Cow;
use std::mem::MaybeUninit;

use gatewright_model::message::{Known, Method, RequestHead, Span, Version};
use gatewright_model::target::{is_authority, parse_target};

use super::framing::Framing;
use super::{FIELDS_MAX, HEAD_BYTES_MAX, Malformed, TARGET_BYTES_MAX};

/// Reads the head in `received` (which ends with its empty line) into `head` and decides how long the body is.
pub(crate) fn parse(received: &[u8], head: &mut RequestHead) -> Result<Framing, Malformed> {
    read_lines(received, head)?;
    // A tunnel would carry bytes that nobody has checked.
    if head.method == Method::Connect {
        return Err(Malformed::Method);
    }
    if head.target.len() > TARGET_BYTES_MAX {
        return Err(Malformed::TargetTooLong);
    }
    let framing = Framing::of_request(&head.fields, head.version)?;
    resolve_target(head)?;
    Ok(framing)
}

fn read_lines(received: &[u8], head: &mut RequestHead) -> Result<(), Malformed> {
    let mut slots = [const { MaybeUninit::uninit() }; FIELDS_MAX];
    let mut parsed = httparse::Request::new(&mut []);
    match parsed.parse_with_uninit_headers(received, &mut slots) {
        Ok(httparse::Status::Complete(length)) if length == received.len() => {}
        Ok(_) => return Err(Malformed::Syntax),
        Err(httparse::Error::Version) if !names_a_version(received) => return Err(Malformed::Syntax),
        Err(error) => return Err(refusal(error)),
    }
    let (Some(method), Some(target), Some(version)) = (parsed.method, parsed.path, parsed.version) else {
        return Err(Malformed::Syntax);
    };
    head.clear();
    head.fields.load(received);
    head.method = Method::of(method.as_bytes());
    head.method_text = span_in(received, method.as_bytes());
    head.target = span_in(received, target.as_bytes());
    head.version = if version == 0 { Version::Http10 } else { Version::Http11 };
    for field in parsed.headers.iter() {
        let name = span_in(received, field.name.as_bytes());
        head.fields.record(name, span_in(received, field.value));
    }
    Ok(())
}

/// Whether the request line ends in some HTTP version, if not in one that is supported.
fn names_a_version(received: &[u8]) -> bool {
    let line = received.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let third = line.splitn(3, |byte| *byte == b' ').nth(2).unwrap_or_default();
    matches!(third, [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9'])
}

/// What a failure of the parser means for the sender.
pub(super) fn refusal(error: httparse::Error) -> Malformed {
    match error {
        httparse::Error::TooManyHeaders => Malformed::TooManyFields,
        httparse::Error::Version => Malformed::Version,
        httparse::Error::Status => Malformed::Status,
        _ => Malformed::Syntax,
    }
}

/// Where `part`, a slice of `whole`, lies in it.
pub(super) fn span_in(whole: &[u8], part: &[u8]) -> Span {
    let start = part.as_ptr() as usize - whole.as_ptr() as usize;
    Span::new(start, start + part.len())
}

/// What a head is composed of that nobody sent.
pub(crate) struct Composition<'a> {
    /// None: a method that no list of methods has.
    pub(crate) method: Option<&'a str>,
    pub(crate) target: &'a str,
    pub(crate) fields: &'a [(&'a str, &'a str)],
}

/// Puts together the head that [`parse`] would have read, for requests that are only thought of. A host that is none
/// is kept as it is: it matches nothing but what accepts every host.
pub(crate) fn compose(composition: &Composition<'_>) -> Result<RequestHead, Malformed> {
    let Composition { method, target, fields } = composition;
    if target.len() > TARGET_BYTES_MAX {
        return Err(Malformed::TargetTooLong);
    }
    if fields.len() > FIELDS_MAX {
        return Err(Malformed::TooManyFields);
    }
    if fields.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>() > HEAD_BYTES_MAX {
        return Err(Malformed::HeadTooLong);
    }
    let is_spelt = |(name, value): &(&str, &str)| {
        let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        let text = |byte: u8| byte == b'\t' || byte >= b' ' && byte != 0x7f;
        !name.is_empty() && name.bytes().all(token) && value.bytes().all(text)
    };
    if !fields.iter().all(is_spelt) {
        return Err(Malformed::Syntax);
    }
    let mut head = RequestHead { method: Method::Other, ..RequestHead::default() };
    if let Some(method) = method {
        head.method = Method::of(method.as_bytes());
        head.method_text = head.fields.intern(method.as_bytes());
    }
    head.target = head.fields.intern(target.as_bytes());
    for (name, value) in *fields {
        head.fields.append(name, value.trim_ascii().as_bytes());
    }
    let authority = resolve_path(&mut head)?;
    let host = head.fields.iter().find(|field| field.known == Known::Host).map(|field| field.value);
    if let Some(authority) = authority.or(host) {
        head.authority = authority;
        head.host = match lower_case_host(&mut head, authority) {
            Ok(host) if is_authority(head.bytes(authority)) => host,
            _ => head.fields.intern_changed(authority, <[u8]>::make_ascii_lowercase),
        };
    }
    Ok(head)
}

/// Works out from target and `Host` where the request goes and on which path.
fn resolve_target(head: &mut RequestHead) -> Result<(), Malformed> {
    let authority = resolve_path(head)?;
    let host = host_field(head)?;
    // An absolute target decides, whatever Host says (RFC 9112 section 3.2.2).
    head.authority = authority.or(host).unwrap_or_default();
    head.host = match authority.or(host) {
        Some(authority) => lower_case_host(head, authority)?,
        None => Span::default(),
    };
    Ok(())
}

/// Works out path and query; hands back the authority of an absolute target.
pub(crate) fn resolve_path(head: &mut RequestHead) -> Result<Option<Span>, Malformed> {
    let (authority, path, path_is_plain, query, normal) = {
        let raw = head.bytes(head.target);
        let target = parse_target(raw).map_err(|_| Malformed::Target)?;
        let part = |range: std::ops::Range<usize>| head.target.part(range);
        let normal = match target.path {
            Cow::Borrowed(_) => None,
            Cow::Owned(normal) => Some(normal),
        };
        (target.authority.map(part), part(target.raw_path), normal.is_none(), target.query.map(part), normal)
    };
    head.raw_path = path;
    head.path = match normal {
        Some(normal) => head.fields.intern(&normal),
        // `http://host` names no path, which means the root.
        None if path.is_empty() => head.fields.intern(b"/"),
        None => path,
    };
    head.path_is_plain = path_is_plain && head.bytes(head.path).iter().all(u8::is_ascii);
    head.query = query;
    Ok(authority)
}

/// The one `Host`; HTTP/1.0 may do without, HTTP/1.1 may not (RFC 9112 section 3.2).
pub(crate) fn host_field(head: &RequestHead) -> Result<Option<Span>, Malformed> {
    let mut hosts = head.fields.iter().filter(|field| field.known == Known::Host).map(|field| field.value);
    match (hosts.next(), hosts.next()) {
        (Some(host), None) if is_authority(head.bytes(host)) => Ok(Some(host)),
        (None, None) if head.version == Version::Http10 => Ok(None),
        _ => Err(Malformed::Host),
    }
}

/// The host of an authority, without its port.
pub(crate) fn lower_case_host(head: &mut RequestHead, authority: Span) -> Result<Span, Malformed> {
    let text = head.bytes(authority);
    let colon = match text.first() {
        Some(b'[') => memchr::memchr(b']', text).map(|end| end + 1),
        _ => memchr::memchr(b':', text),
    };
    let end = colon.unwrap_or(text.len());
    let port = text.get(end + 1..).unwrap_or_default();
    let port_fits =
        port.is_empty() || std::str::from_utf8(port).is_ok_and(|port| port.parse::<u16>().is_ok());
    if !port_fits {
        return Err(Malformed::Host);
    }
    let host = authority.part(0..end);
    if head.bytes(host).iter().any(u8::is_ascii_uppercase) {
        return Ok(head.fields.intern_changed(host, <[u8]>::make_ascii_lowercase));
    }
    Ok(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Method, host, path and query as they were understood.
    fn understood(text: &str) -> Result<(String, String, Option<String>), Malformed> {
        let mut head = RequestHead::default();
        parse(text.as_bytes(), &mut head)?;
        let show = |span| String::from_utf8_lossy(head.bytes(span)).into_owned();
        Ok((show(head.host), show(head.path), head.query.map(show)))
    }

    fn is(
        host: &str,
        path: &str,
        query: Option<&str>,
    ) -> Result<(String, String, Option<String>), Malformed> {
        Ok((host.to_owned(), path.to_owned(), query.map(str::to_owned)))
    }

    #[test]
    fn host_path_and_query_are_what_will_be_matched() {
        for (target, host, expected) in [
            ("/a/b?c=d", "Example.COM:8080", is("example.com", "/a/b", Some("c=d"))),
            ("/a//b/../%63", "example.com", is("example.com", "/a/c", None)),
            ("/", "[::1]:80", is("[::1]", "/", None)),
            ("http://Other.example", "example.com", is("other.example", "/", None)),
            ("http://other.example:81?x", "example.com", is("other.example", "/", Some("x"))),
        ] {
            let text = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n");
            assert_eq!(understood(&text), expected, "{text}");
        }
        assert_eq!(understood("GET / HTTP/1.0\r\n\r\n"), is("", "/", None));
    }

    #[test]
    fn a_host_that_is_not_one_host_is_refused() {
        for host in ["", "a b", "a,b", "a/b", "user@a", "a:99999", "a:x", "[::1", "\u{e9}"] {
            let text = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
            assert_eq!(understood(&text), Err(Malformed::Host), "{host:?}");
        }
        assert_eq!(understood("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"), Err(Malformed::Host));
        assert_eq!(understood("GET / HTTP/1.1\r\n\r\n"), Err(Malformed::Host));
    }
}
