//! Where frames of HTTP/2 begin in the bytes of a connection (RFC 9113 section 4.1), for those who only watch.

/// Bytes of a frame's head: length, kind, flags, stream.
const HEAD_BYTES: usize = 9;

/// RST_STREAM, and the code with which a stream is refused for want of room.
const RST_STREAM: u8 = 0x3;
const REFUSED_STREAM: [u8; 4] = [0, 0, 0, 7];

/// A frame that has begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Begun {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    /// Bytes of its payload.
    pub(crate) length: usize,
}

/// Follows the frames of one direction.
#[derive(Default)]
pub(crate) struct Frames {
    /// Bytes of the preface or of a frame's payload that are still to come.
    skipping: usize,
    /// The head of the next frame as far as it has come.
    head: [u8; HEAD_BYTES],
    head_bytes: usize,
}

impl Frames {
    /// Of a connection that begins with so many other bytes.
    pub(crate) fn after(skipping: usize) -> Self {
        Self { skipping, ..Self::default() }
    }

    /// Whether nothing of a frame has come without the rest of it.
    pub(crate) fn is_between(&self) -> bool {
        self.skipping == 0 && self.head_bytes == 0
    }

    /// The next frame that begins in `bytes`, which are taken up to its payload; `None`: all of them are taken.
    pub(crate) fn next(&mut self, bytes: &mut &[u8]) -> Option<Begun> {
        self.skip(bytes);
        let count = (HEAD_BYTES - self.head_bytes).min(bytes.len());
        self.head[self.head_bytes..self.head_bytes + count].copy_from_slice(&bytes[..count]);
        self.head_bytes += count;
        *bytes = &bytes[count..];
        if self.head_bytes < HEAD_BYTES {
            return None;
        }
        self.head_bytes = 0;
        let [high, middle, low, kind, flags, ..] = self.head;
        let length = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
        self.skipping = length;
        Some(Begun { kind, flags, length })
    }

    /// Passes over what is left of a payload; hands back what of it is in `bytes`.
    fn skip<'b>(&mut self, bytes: &mut &'b [u8]) -> &'b [u8] {
        let (payload, rest) = bytes.split_at(self.skipping.min(bytes.len()));
        self.skipping -= payload.len();
        *bytes = rest;
        payload
    }
}

/// Counts the streams that the gateway refuses because too many are open: the `h2` crate does that by itself.
#[derive(Default)]
pub(crate) struct Refusals {
    frames: Frames,
    /// The code of a reset as far as it has gone.
    code: Option<([u8; 4], usize)>,
}

impl Refusals {
    /// How many refusals end in the next bytes that go to the client.
    pub(crate) fn see(&mut self, mut bytes: &[u8]) -> u32 {
        let mut count = 0;
        loop {
            if let Some((mut code, mut got)) = self.code.take() {
                for byte in self.frames.skip(&mut bytes) {
                    code[got.min(3)] = *byte;
                    got += 1;
                }
                if got < code.len() {
                    self.code = Some((code, got));
                    return count;
                }
                count += u32::from(code == REFUSED_STREAM);
            }
            match self.frames.next(&mut bytes) {
                None => return count,
                Some(Begun { kind: RST_STREAM, length: 4, .. }) => self.code = Some(([0; 4], 0)),
                Some(_) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_counted_however_the_bytes_are_cut() {
        let reset = |code: u8| [0, 0, 4, RST_STREAM, 0, 0, 0, 0, 1, 0, 0, 0, code].to_vec();
        // DATA that looks like a refusal does not count.
        let data = [vec![0, 0, 13, 0, 0, 0, 0, 0, 1], reset(7)].concat();
        let bytes = [reset(7), data, reset(8), vec![0, 0, 0, 4, 1, 0, 0, 0, 0], reset(7)].concat();
        for piece in [1, 2, 9, 11, 12, 13, bytes.len()] {
            let mut refusals = Refusals::default();
            let count: u32 = bytes.chunks(piece).map(|part| refusals.see(part)).sum();
            assert_eq!(count, 2, "in pieces of {piece}");
        }
    }
}
