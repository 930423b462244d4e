//! Heads back into bytes.

use gatewright_model::message::{RequestHead, ResponseHead};

/// Writes a request line for `target` and the fields of `head`; the caller adds fields and ends the head.
pub(crate) fn request_start(head: &RequestHead, target: impl FnOnce(&mut Vec<u8>), out: &mut Vec<u8>) {
    out.extend_from_slice(head.bytes(head.method_text));
    out.push(b' ');
    target(out);
    out.extend_from_slice(b" HTTP/1.1\r\n");
}

/// Writes a status line and the fields of `head`; the caller adds fields and ends the head.
pub(crate) fn response_start(head: &ResponseHead, out: &mut Vec<u8>) {
    out.extend_from_slice(b"HTTP/1.1 ");
    status_digits(head.status, out);
    out.push(b' ');
    if head.reason.is_empty() {
        out.extend_from_slice(reason_phrase(head.status).as_bytes());
    } else {
        out.extend_from_slice(head.bytes(head.reason));
    }
    out.extend_from_slice(b"\r\n");
    head.fields.write_to(out);
}

/// Writes one field line.
pub(crate) fn field(name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Ends a head.
pub(crate) fn end(out: &mut Vec<u8>) {
    out.extend_from_slice(b"\r\n");
}

/// Writes a status code, which is always three digits.
pub(crate) fn status_digits(status: u16, out: &mut Vec<u8>) {
    let digit = |place: u16| b'0' + u8::try_from(status / place % 10).unwrap_or(0);
    out.extend_from_slice(&[digit(100), digit(10), digit(1)]);
}

/// The phrase for statuses that arrive without one or that the gateway gives itself.
pub(crate) fn reason_phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        413 => "Content Too Large",
        414 => "URI Too Long",
        417 => "Expectation Failed",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "",
    }
}
