//! The chunked transfer coding (RFC 9112 section 7.1), decoded strictly.
//!
//! The decoder consumes bytes and says which of them are data. Chunk extensions are read within limits and dropped,
//! as a recipient may (section 7.1.1); trailers are kept, for their sender may mean them for the receiver. What is
//! forwarded is framed anew. A missing carriage return, blanks around a size, a size with a sign, or a trailer that
//! is no field are refused: readers disagree about them.

use gatewright_model::message::Fields;

use super::{FIELDS_MAX, Malformed};

/// Hexadecimal digits of a chunk size: more than 15 could overflow.
const SIZE_DIGITS_MAX: u8 = 15;

/// Bytes of extensions or trailers of one body.
const EXTRA_BYTES_MAX: u32 = 8 * 1024;

/// What the next byte belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Size { digits: u8 },
    ExtensionStart,
    Extension,
    SizeFeed,
    Data,
    DataReturn,
    DataFeed,
    TrailerStart,
    TrailerName,
    Trailer,
    TrailerFeed,
    EndFeed,
    Done,
}

/// Reads a chunked body piece by piece.
#[derive(Clone, Debug)]
pub(crate) struct Decoder {
    state: State,
    remaining: u64,
    extra: u32,
    trailers: usize,
    /// The lines of the trailers; empty, without memory of its own, for a body without.
    trailer_bytes: Vec<u8>,
}

/// What a piece of input means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The bytes `start..end` are data; everything up to `end` is consumed.
    Data { start: usize, end: usize },
    /// Everything is consumed and more is needed.
    More,
    /// The body ended after `consumed` bytes.
    End { consumed: usize },
}

impl Decoder {
    pub(crate) fn new() -> Self {
        Self {
            state: State::Size { digits: 0 },
            remaining: 0,
            extra: 0,
            trailers: 0,
            trailer_bytes: Vec::new(),
        }
    }

    /// Reads `input` up to and including the next run of data.
    pub(crate) fn step(&mut self, input: &[u8]) -> Result<Step, Malformed> {
        let mut at = 0;
        while at < input.len() {
            if self.state == State::Data {
                let available = (input.len() - at) as u64;
                let taken = available.min(self.remaining);
                self.remaining -= taken;
                if self.remaining == 0 {
                    self.state = State::DataReturn;
                }
                #[allow(clippy::cast_possible_truncation, reason = "at most the length of the input")]
                let end = at + taken as usize;
                return Ok(Step::Data { start: at, end });
            }
            self.state = self.next(input[at])?;
            match self.state {
                State::TrailerName | State::Trailer => self.trailer_bytes.push(input[at]),
                State::TrailerFeed => self.trailer_bytes.push(b'\n'),
                _ => {}
            }
            at += 1;
            if self.state == State::Done {
                return Ok(Step::End { consumed: at });
            }
        }
        Ok(Step::More)
    }

    /// The trailers of a body that ended; `None`: it has none.
    pub(crate) fn trailers(&self) -> Option<Fields> {
        if self.trailer_bytes.is_empty() {
            return None;
        }
        let mut fields = Fields::default();
        let lines = self.trailer_bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        for line in lines {
            let colon = memchr::memchr(b':', line)?;
            let name = fields.intern(&line[..colon]);
            let value = fields.intern(line[colon + 1..].trim_ascii());
            fields.record(name, value);
        }
        Some(fields)
    }

    fn next(&mut self, byte: u8) -> Result<State, Malformed> {
        match (self.state, byte) {
            (State::Size { digits }, _) if byte.is_ascii_hexdigit() => self.size_digit(digits, byte),
            (State::Size { digits: 1.. }, b'\r') => Ok(State::SizeFeed),
            (State::Size { digits: 1.. }, b';') => Ok(State::ExtensionStart),
            (State::ExtensionStart, b'\t' | b' ') => self.count_extra(State::ExtensionStart),
            // An extension has a name: a bare `;` means nothing, and something to some readers.
            (State::ExtensionStart, _) if is_token(byte) => self.count_extra(State::Extension),
            (State::Extension, b'\r') => Ok(State::SizeFeed),
            (State::Extension, b'\t' | b' '..=b'~' | 0x80..) => self.count_extra(State::Extension),
            (State::SizeFeed, b'\n') if self.remaining > 0 => Ok(State::Data),
            (State::SizeFeed, b'\n') => Ok(State::TrailerStart),
            (State::DataReturn, b'\r') => Ok(State::DataFeed),
            (State::DataFeed, b'\n') => Ok(State::Size { digits: 0 }),
            (State::TrailerStart, b'\r') => Ok(State::EndFeed),
            (State::TrailerStart, _) if is_token(byte) => self.trailer(),
            (State::TrailerName, _) if is_token(byte) => self.count_extra(State::TrailerName),
            (State::TrailerName, b':') => self.count_extra(State::Trailer),
            (State::Trailer, b'\r') => Ok(State::TrailerFeed),
            (State::Trailer, b'\t' | b' '..=b'~' | 0x80..) => self.count_extra(State::Trailer),
            (State::TrailerFeed, b'\n') => Ok(State::TrailerStart),
            (State::EndFeed, b'\n') => Ok(State::Done),
            _ => Err(Malformed::Chunk),
        }
    }

    fn size_digit(&mut self, digits: u8, byte: u8) -> Result<State, Malformed> {
        if digits == SIZE_DIGITS_MAX {
            return Err(Malformed::Chunk);
        }
        let value = match byte {
            b'0'..=b'9' => byte - b'0',
            _ => (byte | 0x20) - b'a' + 10,
        };
        self.remaining = if digits == 0 { 0 } else { self.remaining << 4 } | u64::from(value);
        Ok(State::Size { digits: digits + 1 })
    }

    fn trailer(&mut self) -> Result<State, Malformed> {
        self.trailers += 1;
        if self.trailers > FIELDS_MAX { Err(Malformed::Chunk) } else { self.count_extra(State::TrailerName) }
    }

    fn count_extra(&mut self, state: State) -> Result<State, Malformed> {
        self.extra += 1;
        if self.extra > EXTRA_BYTES_MAX { Err(Malformed::Chunk) } else { Ok(state) }
    }
}

/// The bytes of a field name (RFC 9110 section 5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// The end of a chunked body without trailers.
pub(crate) const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// Appends the end of a chunked body with `trailers`.
pub(crate) fn write_trailers(trailers: &Fields, out: &mut Vec<u8>) {
    out.extend_from_slice(b"0\r\n");
    trailers.write_to(out);
    out.extend_from_slice(b"\r\n");
}

/// Appends one chunk with `data`, which must not be empty.
pub(crate) fn write_chunk(data: &[u8], out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut size = data.len();
    let mut digits = [0_u8; 16];
    let mut first = digits.len();
    while size > 0 {
        first -= 1;
        digits[first] = DIGITS[size % 16];
        size /= 16;
    }
    out.extend_from_slice(&digits[first..]);
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(data);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Decodes `input` cut into pieces of `piece` bytes; gives the data and what is left after the end.
    fn decode(input: &[u8], piece: usize) -> Result<(Vec<u8>, usize), Malformed> {
        let mut decoder = Decoder::new();
        let mut data = Vec::new();
        let mut base = 0;
        for part in input.chunks(piece) {
            let mut at = 0;
            while at < part.len() {
                match decoder.step(&part[at..])? {
                    Step::Data { start, end } => {
                        data.extend_from_slice(&part[at + start..at + end]);
                        at += end;
                    }
                    Step::More => at = part.len(),
                    Step::End { consumed } => return Ok((data, input.len() - base - at - consumed)),
                }
            }
            base += part.len();
        }
        Ok((data, usize::MAX))
    }

    #[test]
    fn data_comes_out_however_it_is_cut() {
        let input = b"4\r\nWiki\r\nA;x=\"y\"\r\n0123456789\r\n0\r\nX-Trailer: t\r\n\r\nNEXT";
        for piece in 1..=input.len() {
            assert_eq!(decode(input, piece).unwrap(), (b"Wiki0123456789".to_vec(), 4), "pieces of {piece}");
        }
    }

    #[test]
    fn trailers_come_out_however_they_are_cut() {
        let input = b"3\r\nabc\r\n0\r\nX-Sum: 9 \r\ngrpc-status:0\r\nEmpty:\r\n\r\n";
        for piece in 1..=input.len() {
            let mut decoder = Decoder::new();
            for part in input.chunks(piece) {
                let mut at = 0;
                while let Ok(Step::Data { end, .. }) = decoder.step(&part[at..]) {
                    at += end;
                }
            }
            let mut out = Vec::new();
            write_trailers(&decoder.trailers().expect("trailers"), &mut out);
            let text = String::from_utf8(out).unwrap();
            assert_eq!(text, "0\r\nX-Sum: 9\r\ngrpc-status: 0\r\nEmpty: \r\n\r\n", "pieces of {piece}");
        }
    }

    #[test]
    fn what_readers_disagree_about_is_refused() {
        for bad in [
            &b"0x5\r\nhello\r\n"[..],
            b"-1\r\n",
            b"5_0\r\n",
            b" 5\r\nhello\r\n",
            b"5 \r\nhello\r\n",
            b"5\nhello\r\n",
            b"\r\n",
            b";\r\n",
            b"1234567890abcdef0\r\n",
            b"5\r\nhello!\r\n",
            b"5\r\nhello\n",
            b"5;a\nb\r\n",
            b"5;a\x00b\r\n",
            b"0\r\n folded\r\n\r\n",
            b"0\r\nX: a\nb\r\n\r\n",
            b"0\r\nGET / HTTP/1.1\r\n\r\n",
            b"0\r\nX\r\n\r\n",
            b"0\r\nX : a\r\n\r\n",
            b"0\r\n: a\r\n\r\n",
        ] {
            for piece in [1, 2, bad.len()] {
                assert_eq!(decode(bad, piece), Err(Malformed::Chunk), "{:?}", String::from_utf8_lossy(bad));
            }
        }
        let endless = [b"5;".as_slice(), &vec![b'x'; 9000]].concat();
        assert_eq!(decode(&endless, 512), Err(Malformed::Chunk));
        let many = [b"0\r\n".as_slice(), &b"a:b\r\n".repeat(101), b"\r\n"].concat();
        assert_eq!(decode(&many, 512), Err(Malformed::Chunk));
    }

    #[test]
    fn what_is_written_is_read_back() {
        for length in [1, 15, 16, 17, 255, 256, 70_000] {
            let body = vec![b'x'; length];
            let mut out = Vec::new();
            write_chunk(&body, &mut out);
            out.extend_from_slice(LAST_CHUNK);
            assert_eq!(decode(&out, 1000).unwrap(), (body, 0));
        }
    }
}
