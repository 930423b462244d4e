//! How long a body is (RFC 9112 section 6.3), decided strictly.

use gatewright_model::message::{Fields, Known, Method, Version};

use super::Malformed;

/// How the end of a body is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// There is no body.
    None,
    /// So many bytes follow.
    Length(u64),
    /// Pieces follow, the last of them marked: chunks, or the frames of an HTTP/2 stream.
    Chunked,
    /// Everything until the connection closes (responses only).
    UntilClose,
}

impl Framing {
    /// The framing of a request.
    pub(crate) fn of_request(fields: &Fields, version: Version) -> Result<Self, Malformed> {
        match declared(fields)? {
            // An HTTP/1.0 proxy in the path would not see the chunks (RFC 9112 section 6.1).
            Some(Self::Chunked) if version == Version::Http10 => Err(Malformed::TransferEncoding),
            Some(Self::Length(0)) | None => Ok(Self::None),
            Some(declared) => Ok(declared),
        }
    }

    /// The framing of a response to a request with `method`.
    pub(crate) fn of_response(fields: &Fields, method: Method, status: u16) -> Result<Self, Malformed> {
        let declared = declared(fields)?;
        let bodiless = method == Method::Head || matches!(status, 100..=199 | 204 | 304);
        Ok(if bodiless { Self::None } else { declared.unwrap_or(Self::UntilClose) })
    }
}

/// What the fields declare, if they declare anything.
fn declared(fields: &Fields) -> Result<Option<Framing>, Malformed> {
    let mut lengths = fields.known(Known::ContentLength);
    let mut encodings = fields.known(Known::TransferEncoding);
    match (lengths.next(), encodings.next()) {
        (None, None) => Ok(None),
        (Some(_), Some(_)) => Err(Malformed::TwoFramings),
        (None, Some(encoding)) => {
            let only = encodings.next().is_none() && encoding.eq_ignore_ascii_case(b"chunked");
            if only { Ok(Some(Framing::Chunked)) } else { Err(Malformed::TransferEncoding) }
        }
        (Some(length), None) => {
            // Repetition is refused even when the values agree: not every reader compares them.
            if lengths.next().is_some() {
                return Err(Malformed::ContentLength);
            }
            content_length(length).map(|length| Some(Framing::Length(length)))
        }
    }
}

/// Digits only, no leading zero: `+5`, `0x5`, `5, 5` and `005` are numbers to some readers only.
fn content_length(value: &[u8]) -> Result<u64, Malformed> {
    let plain = value == b"0" || (value.first().is_some_and(|first| matches!(first, b'1'..=b'9')));
    if !plain || !value.iter().all(u8::is_ascii_digit) {
        return Err(Malformed::ContentLength);
    }
    let mut length: u64 = 0;
    for digit in value {
        let next = length.checked_mul(10).and_then(|tens| tens.checked_add(u64::from(digit - b'0')));
        length = next.ok_or(Malformed::ContentLength)?;
    }
    Ok(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(lines: &[(&str, &str)]) -> Fields {
        let mut fields = Fields::default();
        for (name, value) in lines {
            fields.append(name, value.as_bytes());
        }
        fields
    }

    fn request(lines: &[(&str, &str)]) -> Result<Framing, Malformed> {
        Framing::of_request(&fields(lines), Version::Http11)
    }

    #[test]
    fn one_plain_declaration_is_believed() {
        assert_eq!(request(&[]), Ok(Framing::None));
        assert_eq!(request(&[("Content-Length", "0")]), Ok(Framing::None));
        assert_eq!(request(&[("content-length", "18446744073709551615")]), Ok(Framing::Length(u64::MAX)));
        assert_eq!(request(&[("Transfer-Encoding", "Chunked")]), Ok(Framing::Chunked));
    }

    #[test]
    fn two_meanings_are_refused() {
        let (length, encoding) = ("Content-Length", "Transfer-Encoding");
        assert_eq!(request(&[(length, "5"), (encoding, "chunked")]), Err(Malformed::TwoFramings));
        for bad in ["", "+5", "-1", "0x5", "5 ", "5, 5", "5,6", "005", "18446744073709551616", "5_0", "٥"] {
            assert_eq!(request(&[(length, bad)]), Err(Malformed::ContentLength), "{bad:?}");
        }
        assert_eq!(request(&[(length, "5"), (length, "5")]), Err(Malformed::ContentLength));
        for bad in
            ["", "xchunked", "chunked, chunked", "gzip, chunked", "chunked, gzip", "identity", "\x0bchunked"]
        {
            assert_eq!(request(&[(encoding, bad)]), Err(Malformed::TransferEncoding), "{bad:?}");
        }
        assert_eq!(
            request(&[(encoding, "chunked"), (encoding, "chunked")]),
            Err(Malformed::TransferEncoding)
        );
        let old = Framing::of_request(&fields(&[(encoding, "chunked")]), Version::Http10);
        assert_eq!(old, Err(Malformed::TransferEncoding));
    }

    #[test]
    fn some_responses_have_no_body_whatever_they_declare() {
        let declared = fields(&[("Content-Length", "5")]);
        for (method, status, expected) in [
            (Method::Get, 200, Framing::Length(5)),
            (Method::Head, 200, Framing::None),
            (Method::Get, 204, Framing::None),
            (Method::Get, 304, Framing::None),
        ] {
            assert_eq!(Framing::of_response(&declared, method, status), Ok(expected));
        }
        assert_eq!(Framing::of_response(&fields(&[]), Method::Get, 200), Ok(Framing::UntilClose));
    }
}
