//! What a control plane sends, as lines: unpacked if it is packed, and cut at line ends.
//!
//! A line is complete or absent, and no line is larger than [`MESSAGE_BYTES_MAX`], packed or not.

use std::io::{self, Write as _};

use bytes::Bytes;
use gatewright_model::protocol::{ENCODING, MESSAGE_BYTES_MAX};
use zstd::stream::write::Decoder;

/// The memory that unpacking may take, as a power of two: what the other end's level asks for, several times.
const WINDOW_LOG_MAX: u32 = 23;

/// Bytes that are unpacked at once; they become a thousand times as many at most.
const STEP_BYTES: usize = 16 << 10;

/// Why what was received is no lines.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoLine {
    #[error("a message is larger than {MESSAGE_BYTES_MAX} bytes")]
    TooLarge,
    #[error("it is packed as `{0}`, which nobody asked for")]
    Encoding(String),
    #[error("it cannot be unpacked: {0}")]
    Packed(#[from] io::Error),
}

/// Takes what arrives and gives lines.
pub(super) struct Lines {
    unpacking: Option<Decoder<'static, Vec<u8>>>,
    /// The beginning of a line, up to where it was searched for its end.
    line: Vec<u8>,
    /// Arrived, and not looked at yet.
    rest: Bytes,
    /// Unpacked, and not looked at yet.
    unpacked: Bytes,
}

impl Lines {
    /// Lines that travel in this encoding.
    pub(super) fn encoded(encoding: Option<&str>) -> Result<Self, NoLine> {
        let unpacking = match encoding {
            None => None,
            Some(ENCODING) => {
                let mut decoder = Decoder::new(Vec::new())?;
                decoder.window_log_max(WINDOW_LOG_MAX)?;
                Some(decoder)
            }
            Some(other) => return Err(NoLine::Encoding(other.to_owned())),
        };
        Ok(Self { unpacking, line: Vec::new(), rest: Bytes::new(), unpacked: Bytes::new() })
    }

    /// Takes what arrived, after the last of what arrived before was given.
    pub(super) fn take(&mut self, arrived: Bytes) {
        debug_assert!(self.rest.is_empty(), "nothing is lost");
        self.rest = arrived;
    }

    /// The next line, with its end, if all of it has arrived.
    pub(super) fn next(&mut self) -> Result<Option<Bytes>, NoLine> {
        loop {
            if let Some(end) = memchr::memchr(b'\n', &self.unpacked) {
                self.line.extend_from_slice(&self.unpacked.split_to(end + 1));
                return Ok(Some(Bytes::from(std::mem::take(&mut self.line))));
            }
            self.line.extend_from_slice(&std::mem::take(&mut self.unpacked));
            if self.line.len() > MESSAGE_BYTES_MAX {
                return Err(NoLine::TooLarge);
            }
            if self.rest.is_empty() {
                return Ok(None);
            }
            let step = self.rest.split_to(self.rest.len().min(STEP_BYTES));
            self.unpacked = match &mut self.unpacking {
                None => step,
                Some(decoder) => {
                    decoder.write_all(&step)?;
                    decoder.flush()?;
                    Bytes::from(std::mem::take(decoder.get_mut()))
                }
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lines of `bytes`, which arrive in pieces of this size.
    fn lines(encoding: Option<&str>, bytes: &[u8], size: usize) -> Vec<String> {
        let mut lines = Lines::encoded(encoding).unwrap();
        let mut found = Vec::new();
        for piece in bytes.chunks(size) {
            lines.take(Bytes::copy_from_slice(piece));
            while let Some(line) = lines.next().unwrap() {
                found.push(String::from_utf8(line.to_vec()).unwrap());
            }
        }
        found
    }

    #[test]
    fn lines_are_the_same_however_they_travel_and_arrive() {
        let long = format!("{}\n", "x".repeat(200_000));
        let expected = ["a\n", "\n", &long, "b\n"];
        let plain = expected.concat();
        let packed: Vec<u8> =
            expected.iter().flat_map(|line| zstd::bulk::compress(line.as_bytes(), 1).unwrap()).collect();
        assert!(packed.len() < 1000, "{}", packed.len());
        for size in [1, 2, 7, 100_000, 1_000_000] {
            assert_eq!(lines(None, plain.as_bytes(), size), expected, "{size}");
            assert_eq!(lines(Some("zstd"), &packed, size), expected, "{size}");
        }
        assert!(lines(None, b"no end", 3).is_empty());
    }

    #[test]
    fn what_is_damaged_or_packed_otherwise_is_refused() {
        let mut lines = Lines::encoded(Some("zstd")).unwrap();
        lines.take(Bytes::from_static(b"this is no zstd at all"));
        assert!(matches!(lines.next(), Err(NoLine::Packed(_))));
        assert!(matches!(Lines::encoded(Some("br")), Err(NoLine::Encoding(_))));
    }
}
