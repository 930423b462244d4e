//! The head of an answer: for a client that speaks HTTP/2, and of a node that does.

use gatewright_model::message::{Method, ResponseHead, Version};
use http::response::Parts;
use http::{Response, StatusCode};

use crate::http1::framing::Framing;
use crate::http1::{FIELDS_MAX, Malformed};

/// The head as it is sent; `None`: HTTP/2 cannot carry it.
pub(crate) fn write(head: &ResponseHead) -> Option<Response<()>> {
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::from_u16(head.status).ok()?;
    *response.headers_mut() = super::map_of(&head.fields);
    Some(response)
}

/// Reads the answer to a request with `method` into `head`; `ended`: neither body nor trailers follow. Says how long
/// the body is, with [`Framing::Chunked`] where only its last frame tells.
pub(crate) fn read(
    parts: &Parts,
    ended: bool,
    method: Method,
    head: &mut ResponseHead,
) -> Result<Framing, Malformed> {
    head.clear();
    head.version = Version::Http2;
    head.status = parts.status.as_u16();
    if !(200..=599).contains(&head.status) {
        return Err(Malformed::Status);
    }
    if parts.headers.len() > FIELDS_MAX {
        return Err(Malformed::TooManyFields);
    }
    super::append(&parts.headers, &mut head.fields);
    match Framing::of_response(&head.fields, method, head.status)? {
        _ if ended => Ok(Framing::None),
        Framing::UntilClose => Ok(Framing::Chunked),
        declared => Ok(declared),
    }
}
