//! Frames that cost much and carry nothing, counted as they arrive.
//!
//! A client may send a ping, change its settings or give up a request, but one that does little else is working
//! against the gateway. Every kind has a bucket that refills with time; a client that empties one is told to calm
//! down and loses its connection. The frames are counted in the bytes under the `h2` crate, which answers most of
//! them by itself and tells nobody. The head of a request that has begun and does not end is noticed here as well: the
//! crate waits for it for ever, and with it whatever else the connection is to bring.

use super::frames::{Begun, Frames};
use crate::worker::timer::TICK;

/// Frames that may come at once, and how many more in a second.
const RESETS: Allowance = Allowance { burst: 200, per_second: 20 };
const CONTROLS: Allowance = Allowance { burst: 1000, per_second: 100 };

#[derive(Clone, Copy)]
struct Allowance {
    burst: u32,
    per_second: u32,
}

/// What is left of an allowance.
struct Bucket {
    allowance: Allowance,
    left: u32,
    /// The tick at which it was last filled.
    filled_at: u64,
}

impl Bucket {
    fn new(allowance: Allowance) -> Self {
        Self { allowance, left: allowance.burst, filled_at: 0 }
    }

    /// Takes one out at the tick `now`; `false`: there is none left.
    fn take(&mut self, now: u64) -> bool {
        let ticks_per_second = u64::try_from(1000 / TICK.as_millis()).unwrap_or(1);
        let seconds = now.saturating_sub(self.filled_at) / ticks_per_second;
        if seconds > 0 {
            let more = u32::try_from(seconds).unwrap_or(u32::MAX).saturating_mul(self.allowance.per_second);
            self.left = self.left.saturating_add(more).min(self.allowance.burst);
            self.filled_at = now;
        }
        let some_left = self.left > 0;
        self.left = self.left.saturating_sub(1);
        some_left
    }
}

/// Counts what one client sends.
pub(crate) struct Counter {
    frames: Frames,
    resets: Bucket,
    controls: Bucket,
    /// The tick at which the head of a request began that is not here as a whole.
    block_since: Option<u64>,
    /// Whether the frame that is being passed over is the last one of a head.
    ends_block: bool,
}

impl Counter {
    /// For a connection that begins with so many bytes of preface.
    pub(crate) fn new(preface_bytes: usize) -> Self {
        Self {
            frames: Frames::after(preface_bytes),
            resets: Bucket::new(RESETS),
            controls: Bucket::new(CONTROLS),
            block_since: None,
            ends_block: false,
        }
    }

    /// Since which tick the head of a request has been arriving.
    pub(crate) fn head_since(&self) -> Option<u64> {
        self.block_since
    }

    /// Counts the frames in the next bytes of the connection, at the tick `now`; `false`: it is too much.
    pub(crate) fn see(&mut self, mut bytes: &[u8], now: u64) -> bool {
        let mut allowed = true;
        loop {
            // The head of a request is here once the last byte of its last frame is.
            let begun = self.frames.next(&mut bytes);
            if (begun.is_some() || self.frames.is_between()) && std::mem::take(&mut self.ends_block) {
                self.block_since = None;
            }
            let Some(begun) = begun else { return allowed };
            allowed &= self.frame(begun, now);
        }
    }

    fn frame(&mut self, Begun { kind, flags, length }: Begun, now: u64) -> bool {
        const END_STREAM: u8 = 0x1;
        const END_HEADERS: u8 = 0x4;
        match kind {
            // DATA that neither carries anything nor ends anything.
            0x0 if length == 0 && flags & END_STREAM == 0 => self.controls.take(now),
            // HEADERS, CONTINUATION: counted by what they ask for.
            0x1 | 0x9 => {
                self.block_since.get_or_insert(now);
                self.ends_block = flags & END_HEADERS != 0;
                true
            }
            // DATA, WINDOW_UPDATE: so are they.
            0x0 | 0x8 => true,
            // RST_STREAM
            0x3 => self.resets.take(now),
            // PRIORITY, SETTINGS, PING, and what nobody knows.
            _ => self.controls.take(now),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATA: u8 = 0;
    const RST_STREAM: u8 = 3;
    const SETTINGS: u8 = 4;
    const PING: u8 = 6;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u8::try_from(payload.len()).unwrap();
        [&[0, 0, length, kind, flags, 0, 0, 0, 1], payload].concat()
    }

    /// How many of these frames pass at the tick `now`, in pieces of `piece` bytes.
    fn passing(counter: &mut Counter, frame: &[u8], piece: usize, now: u64) -> usize {
        let mut count = 0;
        while frame.chunks(piece).fold(true, |passes, part| counter.see(part, now) & passes) {
            count += 1;
            assert!(count < 10_000, "there is no limit");
        }
        count
    }

    #[test]
    fn floods_end_however_they_are_cut_and_work_goes_on() {
        for piece in [1, 4, 9, 100] {
            for (kind, payload, allowed) in [
                (RST_STREAM, &[0, 0, 0, 8][..], 200),
                (PING, &[0; 8][..], 1000),
                (SETTINGS, b"", 1000),
                (DATA, b"", 1000),
                (0xbb, b"unknown", 1000),
            ] {
                let mut counter = Counter::new(24);
                assert!(counter.see(&[0; 24], 0));
                let work = frame(DATA, 0, &[RST_STREAM; 200]);
                assert!((0..5000).all(|_| work.chunks(piece).all(|part| counter.see(part, 0))));
                assert_eq!(passing(&mut counter, &frame(kind, 0, payload), piece, 0), allowed, "{kind}");
            }
        }
    }

    #[test]
    fn a_head_arrives_from_its_first_frame_to_the_last_byte_of_its_last() {
        const HEADERS: u8 = 1;
        const CONTINUATION: u8 = 9;
        for piece in [1, 4, 100] {
            let mut counter = Counter::new(0);
            let mut arriving = |bytes: &[u8], now| {
                assert!(bytes.chunks(piece).all(|part| counter.see(part, now)));
                counter.head_since()
            };
            let (first, last) = (frame(HEADERS, 0, b"head"), frame(CONTINUATION, 4, b"rest"));
            assert_eq!(arriving(&frame(DATA, 0, b"data"), 1), None);
            assert_eq!(arriving(&first, 2), Some(2));
            assert_eq!(arriving(&frame(CONTINUATION, 0, b""), 3), Some(2));
            assert_eq!(arriving(&last[..last.len() - 1], 4), Some(2));
            assert_eq!(arriving(&last[last.len() - 1..], 5), None);
            assert_eq!(arriving(&frame(HEADERS, 4, b""), 6), None);
            assert_eq!(arriving(&frame(HEADERS, 4, b"head"), 7), None);
        }
    }

    #[test]
    fn time_forgives() {
        let mut counter = Counter::new(0);
        let reset = frame(RST_STREAM, 0, &[0, 0, 0, 8]);
        assert_eq!(passing(&mut counter, &reset, 100, 0), 200);
        assert_eq!(passing(&mut counter, &reset, 100, 9), 0);
        assert_eq!(passing(&mut counter, &reset, 100, 10), 20);
        assert_eq!(passing(&mut counter, &reset, 100, 100_000), 200);
    }

    #[test]
    fn an_empty_last_data_frame_is_no_flood() {
        let mut counter = Counter::new(0);
        let last = frame(DATA, 1, b"");
        assert!((0..5000).all(|_| counter.see(&last, 0)));
    }
}
