//! The bytes of a response head into a [`ResponseHead`].
//!
//! Upstreams are read as strictly as clients: an answer that could be framed in two ways is no answer.

use std::mem::MaybeUninit;

use gatewright_model::message::{Method, ResponseHead, Version};

use super::framing::Framing;
use super::request::{refusal, span_in};
use super::{FIELDS_MAX, Malformed};

/// Reads the head in `received` (which ends with its empty line), the answer to a request with `method`, into
/// `head` and decides how long the body is.
pub(crate) fn parse(received: &[u8], method: Method, head: &mut ResponseHead) -> Result<Framing, Malformed> {
    let mut slots = [const { MaybeUninit::uninit() }; FIELDS_MAX];
    let mut parsed = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    match config.parse_response_with_uninit_headers(&mut parsed, received, &mut slots) {
        Ok(httparse::Status::Complete(length)) if length == received.len() => {}
        Ok(_) => return Err(Malformed::Syntax),
        Err(error) => return Err(refusal(error)),
    }
    let (Some(status), Some(version)) = (parsed.code, parsed.version) else {
        return Err(Malformed::Syntax);
    };
    if !(100..=599).contains(&status) {
        return Err(Malformed::Status);
    }
    head.clear();
    head.fields.load(received);
    head.status = status;
    head.version = if version == 0 { Version::Http10 } else { Version::Http11 };
    if let Some(reason) = parsed.reason.filter(|reason| !reason.is_empty()) {
        head.reason = span_in(received, reason.as_bytes());
    }
    for field in parsed.headers.iter() {
        let name = span_in(received, field.name.as_bytes());
        head.fields.record(name, span_in(received, field.value));
    }
    Framing::of_response(&head.fields, method, status)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, method: Method) -> Result<(u16, Framing), Malformed> {
        let mut head = ResponseHead::default();
        let framing = parse(text.as_bytes(), method, &mut head)?;
        Ok((head.status, framing))
    }

    #[test]
    fn an_answer_is_read() {
        let text = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n";
        assert_eq!(check(text, Method::Get), Ok((200, Framing::Length(3))));
        assert_eq!(check(text, Method::Head), Ok((200, Framing::None)));
        assert_eq!(check("HTTP/1.0 200\r\n\r\n", Method::Get), Ok((200, Framing::UntilClose)));
    }

    #[test]
    fn garbage_is_not_an_answer() {
        for bad in [
            "garbage\r\n\r\n",
            "HTTP/0.9 200 OK\r\n\r\n",
            "HTTP/2.0 200 OK\r\n\r\n",
            "HTTP/1.1 999 What\r\n\r\n",
            "HTTP/1.1 20 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA : b\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n",
        ] {
            assert!(check(bad, Method::Get).is_err(), "{bad:?}");
        }
    }
}
