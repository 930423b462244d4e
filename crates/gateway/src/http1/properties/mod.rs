//! What must hold for every sequence of bytes: checked by ordinary tests on generated messages and on the committed
//! seeds, and by the fuzz targets on whatever libFuzzer thinks of.
//!
//! Each function takes bytes and panics where the codec is wrong. The yardstick is a second reader for each kind of
//! message, slow and obvious: it splits lines and looks at them. The codec may refuse more than it (limits, hosts,
//! targets), but what the codec accepts, both must read alike.

#[cfg(test)]
mod tests;

use bytes::{Buf, BytesMut};
use gatewright_model::message::{Fields, Method, RequestHead, ResponseHead, Version};
use gatewright_model::target::{encode_path, parse_target};

use super::chunked::{self, Decoder, Step};
use super::framing::Framing;
use super::scan::{self, Progress};
use super::{HEAD_BYTES_MAX, Malformed, TARGET_BYTES_MAX, request, response, write};

/// A head as the obvious reader sees it.
#[derive(Debug, PartialEq, Eq)]
struct Obvious<'a> {
    start: &'a [u8],
    fields: Vec<(&'a [u8], &'a [u8])>,
}

impl<'a> Obvious<'a> {
    /// `None`: not a head in the strict reading of RFC 9112 sections 2 to 5.
    fn read(head: &'a [u8]) -> Option<Self> {
        let mut lines = split_lines(head.strip_suffix(b"\r\n\r\n")?);
        let start = lines.remove(0);
        let fields: Option<_> = lines.into_iter().map(field_line).collect();
        Some(Self { start, fields: fields? })
    }

    fn values(&self, name: &str) -> Vec<&'a [u8]> {
        let named = self.fields.iter().filter(|(have, _)| have.eq_ignore_ascii_case(name.as_bytes()));
        named.map(|(_, value)| *value).collect()
    }

    /// What the fields declare; `Err`: nothing that has one meaning.
    fn framing(&self) -> Result<Option<Framing>, ()> {
        match (self.values("content-length").as_slice(), self.values("transfer-encoding").as_slice()) {
            ([], []) => Ok(None),
            ([], [coding]) if coding.eq_ignore_ascii_case(b"chunked") => Ok(Some(Framing::Chunked)),
            ([length], []) => {
                let text = std::str::from_utf8(length).map_err(|_| ())?;
                let number: u64 = text.parse().map_err(|_| ())?;
                if number.to_string() == text { Ok(Some(Framing::Length(number))) } else { Err(()) }
            }
            _ => Err(()),
        }
    }
}

fn split_lines(text: &[u8]) -> Vec<&[u8]> {
    let mut lines = Vec::new();
    let mut rest = text;
    while let Some(end) = rest.windows(2).position(|pair| pair == b"\r\n") {
        lines.push(&rest[..end]);
        rest = &rest[end + 2..];
    }
    lines.push(rest);
    lines
}

fn field_line(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    let is_text = |byte: &u8| matches!(byte, b'\t' | b' '..=b'~' | 0x80..);
    (is_token(name) && value.iter().all(is_text)).then(|| (name, trim(value)))
}

fn is_token(text: &[u8]) -> bool {
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    !text.is_empty() && text.iter().all(allowed)
}

fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// Feeds `received` to `read` in growing buffers and gives where the first head lies; every way of cutting must
/// give the same.
fn head_of(received: &[u8], is_request: bool) -> Option<BytesMut> {
    let read_in_pieces_of = |length: usize| -> Result<Option<BytesMut>, Malformed> {
        let mut progress = Progress::default();
        let mut buffer = BytesMut::new();
        for piece in received.chunks(length) {
            buffer.extend_from_slice(piece);
            if is_request {
                scan::skip_line_break(&mut buffer, &mut progress);
            }
            if let Some(end) = scan::head_end(&buffer, &mut progress)? {
                return Ok(Some(buffer.split_to(end)));
            }
        }
        Ok(None)
    };
    let whole = read_in_pieces_of(received.len().max(1));
    for length in [1, 2, 7] {
        assert_eq!(read_in_pieces_of(length), whole, "cut into pieces of {length}");
    }
    whole.ok().flatten().filter(|head| head.len() <= HEAD_BYTES_MAX)
}

fn lines_of(fields: &Fields) -> Vec<(&[u8], &[u8])> {
    fields.iter().map(|field| (fields.bytes(field.name), fields.bytes(field.value))).collect()
}

/// Request heads: read like the obvious reader, normalised once and for all, and the same after being written.
/// Answers with the framing and the bytes of the head, for what follows it.
pub(crate) fn request_head(received: &[u8]) -> Option<(Framing, usize)> {
    let bytes = head_of(received, true)?;
    let mut head = RequestHead::default();
    let framing = request::parse(&bytes, &mut head).ok()?;

    let obvious = Obvious::read(&bytes);
    assert!(obvious.is_some(), "no obvious reader takes this for a head");
    let obvious = obvious?;
    let words: Vec<&[u8]> = obvious.start.split(|byte| *byte == b' ').collect();
    let version: &[u8] = if head.version == Version::Http10 { b"HTTP/1.0" } else { b"HTTP/1.1" };
    assert_eq!(words, [head.bytes(head.method_text), head.bytes(head.target), version]);
    assert!(is_token(words[0]));
    assert_eq!(lines_of(&head.fields), obvious.fields);
    let declared = obvious.framing().map(|framing| framing.filter(|it| *it != Framing::Length(0)));
    assert_eq!(declared.map(|framing| framing.unwrap_or(Framing::None)), Ok(framing));
    assert!(obvious.values("host").len() <= 1);

    let (path, host) = (head.bytes(head.path), head.bytes(head.host));
    assert!(path.starts_with(b"/") && !path.contains(&0));
    assert!(!host.iter().any(u8::is_ascii_uppercase));
    let mut written = Vec::new();
    encode_path(path, &mut written);
    assert_eq!(parse_target(&written).map(|again| again.path.into_owned()), Ok(path.to_vec()));
    if head.version == Version::Http11 {
        let forwarded = if head.path_is_plain { path.to_vec() } else { written };
        // Escapes make a path longer; one that no longer fits is forwarded but would not be accepted here.
        if forwarded.len() <= TARGET_BYTES_MAX {
            same_when_written(&head, framing, &forwarded);
        }
    }
    let skipped = if received.starts_with(b"\r\n") { 2 } else { 0 };
    Some((framing, skipped + bytes.len()))
}

fn same_when_written(head: &RequestHead, framing: Framing, path: &[u8]) {
    let mut written = Vec::new();
    write::request_start(head, |out| out.extend_from_slice(path), &mut written);
    head.fields.write_to(&mut written);
    write::end(&mut written);
    let mut again = RequestHead::default();
    let read = request::parse(&written, &mut again);
    assert_eq!(read, Ok(framing), "{}", String::from_utf8_lossy(&written));
    assert_eq!(again.bytes(again.path), head.bytes(head.path));
    assert_eq!(lines_of(&again.fields), lines_of(&head.fields));
}

/// Response heads: read like the obvious reader and the same after being written.
pub(crate) fn response_head(received: &[u8]) {
    let Some(bytes) = head_of(received, false) else { return };
    for method in [Method::Get, Method::Head] {
        let mut head = ResponseHead::default();
        let Ok(framing) = response::parse(&bytes, method, &mut head) else { continue };
        let Some(obvious) = Obvious::read(&bytes) else {
            unreachable!("no obvious reader takes this for a head")
        };
        let version: &[u8] = if head.version == Version::Http10 { b"HTTP/1.0 " } else { b"HTTP/1.1 " };
        let status = head.status.to_string();
        assert!(obvious.start.starts_with(&[version, status.as_bytes()].concat()));
        let reason = obvious.start[version.len() + 3..].strip_prefix(b" ").unwrap_or_default();
        assert!(head.reason.is_empty() || head.bytes(head.reason) == reason);
        assert_eq!(lines_of(&head.fields), obvious.fields);
        let declared = obvious.framing();
        assert!(declared.is_ok(), "two framings were accepted");
        if framing != Framing::None || !matches!(head.status, 100..=199 | 204 | 304) && method != Method::Head
        {
            assert_eq!(declared, Ok(Some(framing).filter(|framing| *framing != Framing::UntilClose)));
        }

        let mut written = Vec::new();
        write::response_start(&head, &mut written);
        write::end(&mut written);
        let mut again = ResponseHead::default();
        assert_eq!(response::parse(&written, method, &mut again), Ok(framing));
        assert_eq!((again.status, lines_of(&again.fields)), (head.status, lines_of(&head.fields)));
    }
}

/// Chunked bodies: however they are cut, data and end are those the obvious reader sees.
pub(crate) fn chunked(received: &[u8]) {
    let whole = decode(received, received.len().max(1));
    for piece in [1, 2, 5] {
        assert_eq!(decode(received, piece), whole, "cut into pieces of {piece}");
    }
    let Ok(Some((data, consumed))) = whole else { return };
    assert_eq!(obvious_body(received), Some((data.clone(), consumed)));

    let mut written = Vec::new();
    data.chunks(11).for_each(|chunk| chunked::write_chunk(chunk, &mut written));
    written.extend_from_slice(chunked::LAST_CHUNK);
    let length = written.len();
    assert_eq!(decode(&written, length), Ok(Some((data, length))));
}

/// The data of a chunked body and the bytes it takes; `None`: it has not ended yet.
pub(crate) fn decode(received: &[u8], piece: usize) -> Result<Option<(Vec<u8>, usize)>, Malformed> {
    let mut decoder = Decoder::new();
    let mut data = Vec::new();
    let mut consumed = 0;
    for mut part in received.chunks(piece) {
        while !part.is_empty() {
            let step = decoder.step(part)?;
            let taken = match step {
                Step::Data { start, end } => {
                    assert!(start <= end && end <= part.len());
                    data.extend_from_slice(&part[start..end]);
                    end
                }
                Step::More => part.len(),
                Step::End { consumed: taken } => return Ok(Some((data, consumed + taken))),
            };
            part.advance(taken);
            consumed += taken;
        }
    }
    Ok(None)
}

fn obvious_body(received: &[u8]) -> Option<(Vec<u8>, usize)> {
    let line = |at: usize| {
        let end = received[at..].windows(2).position(|pair| pair == b"\r\n")?;
        Some((&received[at..at + end], at + end + 2))
    };
    let mut data = Vec::new();
    let mut at = 0;
    loop {
        let (size_line, after) = line(at)?;
        let size = size_line.split(|byte| *byte == b';').next()?;
        let digits = size.iter().all(u8::is_ascii_hexdigit);
        let size = usize::from_str_radix(std::str::from_utf8(size).ok()?, 16).ok().filter(|_| digits)?;
        at = after;
        if size == 0 {
            break;
        }
        let rest = received[at..].get(size..)?;
        data.extend_from_slice(&received[at..at + size]);
        if !rest.starts_with(b"\r\n") {
            return None;
        }
        at += size + 2;
    }
    loop {
        let (trailer, after) = line(at)?;
        at = after;
        if trailer.is_empty() {
            return Some((data, at));
        }
        field_line(trailer)?;
    }
}
