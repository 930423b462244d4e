//! Where the frames of a WebSocket begin and end (RFC 6455 section 5.2), and the one frame the gateway says itself.
//!
//! A tunnel passes bytes and changes none, so nothing but their boundaries is of interest: between two frames, and
//! nowhere else, something may be said.

/// Bytes of a frame's head: two, a long length, and a mask.
const HEAD_BYTES_MAX: usize = 14;

/// The status of a close: the endpoint is going away (RFC 6455 section 7.4.1).
const GOING_AWAY: [u8; 2] = 1001_u16.to_be_bytes();

/// The head of a close frame with a status; to a node, which is a server, it is masked.
const CLOSE: u8 = 0x88;
const MASKED: u8 = 0x80;

/// Tells a client that the gateway goes away.
pub(super) fn goodbye_to_client() -> Vec<u8> {
    let [high, low] = GOING_AWAY;
    vec![CLOSE, 2, high, low]
}

/// Tells a node that the gateway goes away.
pub(super) fn goodbye_to_node() -> Vec<u8> {
    let mask = fastrand::u32(..).to_be_bytes();
    let [high, low] = GOING_AWAY;
    [&[CLOSE, MASKED | 2], &mask[..], &[high ^ mask[0], low ^ mask[1]]].concat()
}

/// Follows the frames of one direction.
#[derive(Debug, Default)]
pub(super) struct Frames {
    /// The head of the frame that has begun, as far as it has come.
    head: [u8; HEAD_BYTES_MAX],
    head_bytes: usize,
    /// Bytes of its payload that are still to come.
    payload: u64,
    closed: bool,
}

impl Frames {
    /// Whether nothing of a frame has come without the rest of it.
    pub(super) fn is_between(&self) -> bool {
        self.head_bytes == 0 && self.payload == 0
    }

    /// Whether a close has passed, after which nothing may be said.
    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Follows all of `bytes`.
    pub(super) fn follow(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let taken = self.step(bytes);
            bytes = &bytes[taken..];
        }
    }

    /// Follows `bytes` to the end of the frame that has begun; says how many of them belong to it.
    pub(super) fn finish(&mut self, bytes: &[u8]) -> usize {
        let mut taken = 0;
        while !self.is_between() && taken < bytes.len() {
            taken += self.step(&bytes[taken..]);
        }
        taken
    }

    /// Takes in the rest of a payload, or one byte of a head; says how many bytes that was.
    fn step(&mut self, bytes: &[u8]) -> usize {
        if self.payload > 0 {
            let taken = usize::try_from(self.payload).map_or(bytes.len(), |payload| payload.min(bytes.len()));
            self.payload -= taken as u64;
            return taken;
        }
        self.head[self.head_bytes] = bytes[0];
        self.head_bytes += 1;
        if let Some(payload) = self.payload_length() {
            self.closed |= self.head[0] & 0x0f == CLOSE & 0x0f;
            (self.head_bytes, self.payload) = (0, payload);
        }
        1
    }

    /// How long the payload is; `None`: the head is not here as a whole.
    fn payload_length(&self) -> Option<u64> {
        let [_, second, ref rest @ ..] = self.head;
        if self.head_bytes < 2 {
            return None;
        }
        let long = match second & !MASKED {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let mask = if second & MASKED == 0 { 0 } else { 4 };
        if self.head_bytes < 2 + long + mask {
            return None;
        }
        let number = |bytes: &[u8]| bytes.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        Some(if long == 0 { u64::from(second & !MASKED) } else { number(&rest[..long]) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A frame with a payload of so many bytes.
    fn frame(first: u8, masked: bool, length: usize) -> Vec<u8> {
        let mask = if masked { MASKED } else { 0 };
        let mut bytes = vec![first];
        match u16::try_from(length) {
            Ok(short @ ..126) => bytes.push(mask | u8::try_from(short).unwrap()),
            Ok(long) => bytes.extend([&[mask | 126], &long.to_be_bytes()[..]].concat()),
            Err(_) => bytes.extend([&[mask | 127], &(length as u64).to_be_bytes()[..]].concat()),
        }
        bytes.extend(std::iter::repeat_n(7, if masked { 4 } else { 0 }));
        bytes.extend(std::iter::repeat_n(0x88, length));
        bytes
    }

    #[test]
    fn frames_end_where_they_say_however_they_are_cut() {
        for masked in [false, true] {
            for length in [0, 1, 125, 126, 65_535, 65_536, 100_000] {
                let bytes = frame(0x82, masked, length);
                for piece in [1, 3, 4096, bytes.len()] {
                    let mut frames = Frames::default();
                    let last = bytes.len() - 1;
                    bytes[..last].chunks(piece).for_each(|part| frames.follow(part));
                    assert!(!frames.is_between(), "{length} in pieces of {piece}");
                    let rest = [&bytes[last..], b"next"].concat();
                    assert_eq!(frames.finish(&rest), 1);
                    assert!(frames.is_between() && !frames.is_closed());
                    assert_eq!(frames.finish(b"next"), 0, "what follows is another frame");
                }
            }
        }
    }

    #[test]
    fn a_close_is_noticed_and_a_goodbye_is_one() {
        for goodbye in [goodbye_to_client(), goodbye_to_node()] {
            let mut frames = Frames::default();
            frames.follow(&frame(0x02, true, 5));
            assert!(!frames.is_closed());
            frames.follow(&goodbye);
            assert!(frames.is_closed() && frames.is_between(), "{goodbye:?}");
        }
        let masked = goodbye_to_node();
        let status = [masked[6] ^ masked[2], masked[7] ^ masked[3]];
        assert_eq!(u16::from_be_bytes(status), 1001);
    }
}
