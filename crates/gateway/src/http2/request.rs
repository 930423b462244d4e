//! The head of a request that came over HTTP/2 into a [`RequestHead`], and the head of one to a node.
//!
//! The `h2` crate has refused heads without or with repeated pseudo-header fields, connection fields, upper-case
//! names and bytes that no name or value has. What is left to refuse is what an HTTP/1 node would understand
//! differently (RFC 9113 section 10.3).

use gatewright_model::message::{Known, Method, RequestHead, Span, Version};
use gatewright_model::target::is_authority;
use http::request::Parts;
use http::uri::{self, PathAndQuery, Scheme};
use http::{HeaderMap, Request};

use crate::http1::framing::Framing;
use crate::http1::{FIELDS_MAX, Malformed, TARGET_BYTES_MAX, request};

/// Why a request is not one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// It breaks the protocol: the stream is reset.
    Protocol,
    /// It deserves an answer.
    Malformed(Malformed),
}

impl From<Malformed> for Refusal {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}

/// Reads `parts` into `head`; `ended`: neither body nor trailers follow. Says how long the body is, with
/// [`Framing::Chunked`] where only its last frame tells.
pub(crate) fn read(parts: &Parts, ended: bool, head: &mut RequestHead) -> Result<Framing, Refusal> {
    head.clear();
    head.version = Version::Http2;
    head.method = Method::of(parts.method.as_str().as_bytes());
    // A tunnel would carry bytes that nobody has checked.
    if head.method == Method::Connect {
        return Err(Malformed::Method.into());
    }
    let path = parts.uri.path_and_query().filter(|path| is_a_path(path)).ok_or(Refusal::Protocol)?;
    if path.as_str().len() > TARGET_BYTES_MAX {
        return Err(Malformed::TargetTooLong.into());
    }
    if parts.headers.len() > FIELDS_MAX {
        return Err(Malformed::TooManyFields.into());
    }
    head.method_text = head.fields.intern(parts.method.as_str().as_bytes());
    head.target = head.fields.intern(path.as_str().as_bytes());
    read_fields(parts, head);
    let framing = match Framing::of_request(&head.fields, head.version)? {
        Framing::Length(_) if ended => return Err(Refusal::Protocol),
        _ if ended => Framing::None,
        Framing::None if head.fields.known(Known::ContentLength).next().is_none() => Framing::Chunked,
        declared => declared,
    };
    let authority = parts.uri.authority().map(|authority| head.fields.intern(authority.as_str().as_bytes()));
    resolve(authority, head)?;
    Ok(framing)
}

/// Works out where the request goes and on which path.
fn resolve(authority: Option<Span>, head: &mut RequestHead) -> Result<(), Malformed> {
    request::resolve_path(head)?;
    let has_host = head.fields.known(Known::Host).next().is_some();
    let host = if has_host || authority.is_none() { request::host_field(head)? } else { None };
    if let (Some(authority), Some(host)) = (authority, host)
        && !head.bytes(authority).eq_ignore_ascii_case(head.bytes(host))
    {
        return Err(Malformed::TwoHosts);
    }
    let authority = authority.or(host).unwrap_or_default();
    if !is_authority(head.bytes(authority)) {
        return Err(Malformed::Host);
    }
    head.authority = authority;
    head.host = request::lower_case_host(head, authority)?;
    Ok(())
}

/// What a node is asked, beside the fields.
pub(crate) struct Asked<'a> {
    pub(crate) method: &'a [u8],
    pub(crate) scheme: Scheme,
    pub(crate) authority: &'a [u8],
    pub(crate) target: &'a [u8],
}

/// The head of a request to a node; `None`: HTTP/2 cannot carry it.
pub(crate) fn write(asked: &Asked<'_>, fields: HeaderMap) -> Option<Request<()>> {
    let mut uri = uri::Parts::default();
    uri.scheme = Some(asked.scheme.clone());
    uri.authority = Some(asked.authority.try_into().ok()?);
    uri.path_and_query = Some(asked.target.try_into().ok()?);
    let mut request = Request::new(());
    *request.method_mut() = http::Method::from_bytes(asked.method).ok()?;
    *request.uri_mut() = uri.try_into().ok()?;
    *request.version_mut() = http::Version::HTTP_2;
    *request.headers_mut() = fields;
    Some(request)
}

/// Whether it is what `:path` must be; the library reads a missing one as the root.
fn is_a_path(path: &PathAndQuery) -> bool {
    path.as_str().starts_with('/') && (path.as_str() != "/" || *path == PathAndQuery::from_static("/"))
}

fn read_fields(parts: &Parts, head: &mut RequestHead) {
    let fields = &mut head.fields;
    super::append(&parts.headers, fields);
    // A client may cut a cookie into crumbs; outside HTTP/2 they are one field again (RFC 9113 section 8.2.3).
    let crumbs: Vec<&[u8]> = parts.headers.get_all("cookie").iter().map(|crumb| crumb.as_bytes()).collect();
    if crumbs.len() > 1 {
        fields.set("cookie", &crumbs.join(&b"; "[..]));
    }
}
