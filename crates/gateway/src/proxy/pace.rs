//! How long the sender of a body is waited for, and how much it may send.

use std::cell::Cell;
use std::num::NonZeroU64;
use std::time::Duration;

use super::relay::Broken;
use crate::worker::timer::{Clock, TICK, Timer, ticks};

/// How much longer a sender may be waited for in total. It starts with little, gains with every byte, and loses only
/// while it is waited for: a sender that was fast may pause, one that drips a byte now and then may not.
#[derive(Debug)]
pub(crate) struct Pace {
    bytes_per_tick: f64,
    /// Ticks left.
    left: f64,
    left_max: f64,
}

impl Pace {
    /// What a sender is granted before it has sent anything.
    const GRACE: Duration = Duration::from_secs(10);

    /// At least `bytes_per_second`, and never a longer silence than `silence_max`.
    pub(crate) fn new(bytes_per_second: NonZeroU64, silence_max: Duration) -> Self {
        let ticks = |duration: Duration| duration.as_secs_f64() / TICK.as_secs_f64();
        #[allow(clippy::cast_precision_loss, reason = "no rate is so precise")]
        let bytes_per_tick = bytes_per_second.get() as f64 * TICK.as_secs_f64();
        Self { bytes_per_tick, left: ticks(Self::GRACE.min(silence_max)), left_max: ticks(silence_max) }
    }

    /// How long the next bytes may be waited for.
    fn allowed(&self) -> Duration {
        TICK.mul_f64(self.left.max(0.0))
    }

    /// So many bytes came after so many ticks.
    fn received(&mut self, bytes: usize, waited: u64) {
        #[allow(clippy::cast_precision_loss, reason = "one read, and the time it took")]
        let (bytes, waited) = (bytes as f64, waited as f64);
        self.left = (self.left - waited + bytes / self.bytes_per_tick).min(self.left_max);
    }
}

/// When the two sides of an exchange were last heard: one that is silent may be waiting for the other.
pub(crate) struct Talk<'c> {
    clock: &'c Clock,
    client: Cell<Option<u64>>,
    node: Cell<Option<u64>>,
}

/// What one side knows of the other.
#[derive(Clone, Copy)]
pub(crate) struct Side<'a> {
    clock: &'a Clock,
    own: &'a Cell<Option<u64>>,
    other: &'a Cell<Option<u64>>,
}

impl<'c> Talk<'c> {
    pub(crate) fn new(clock: &'c Clock) -> Self {
        Self { clock, client: Cell::default(), node: Cell::default() }
    }

    pub(crate) fn client(&self) -> Side<'_> {
        Side { clock: self.clock, own: &self.client, other: &self.node }
    }

    pub(crate) fn node(&self) -> Side<'_> {
        Side { clock: self.clock, own: &self.node, other: &self.client }
    }
}

impl Side<'_> {
    /// This side said something.
    pub(crate) fn spoke(self) {
        self.own.set(Some(self.clock.now()));
    }

    /// Whether the other side said something within `limit`.
    fn is_spoken_to(self, limit: Duration) -> bool {
        self.other.get().is_some_and(|at| self.clock.now() < at.saturating_add(ticks(limit)))
    }
}

/// How long a source is waited for, and what it may still send.
pub(super) struct Waiting<'a> {
    pub(super) timer: &'a Timer,
    read_limit: Duration,
    pace: Option<Pace>,
    side: Option<Side<'a>>,
    pub(super) bytes_max: Option<NonZeroU64>,
    bytes: u64,
}

impl<'a> Waiting<'a> {
    pub(super) fn new(
        timer: &'a Timer,
        read_limit: Duration,
        pace: Option<Pace>,
        side: Option<Side<'a>>,
    ) -> Self {
        Self { timer, read_limit, pace, side, bytes_max: None, bytes: 0 }
    }

    /// Waits for `read`, which may be given up and begun again without losing anything; `size` says how much it
    /// brought.
    pub(super) async fn until<T>(
        &mut self,
        mut read: impl AsyncFnMut() -> T,
        size: impl Fn(&T) -> usize,
    ) -> Result<T, Broken> {
        loop {
            let allowed = self.pace.as_ref().map_or(self.read_limit, Pace::allowed).min(self.read_limit);
            let begun = self.timer.now();
            match self.timer.limit(allowed, read()).await {
                Ok(read) => {
                    if let Some(pace) = &mut self.pace {
                        pace.received(size(&read), self.timer.now() - begun);
                    }
                    self.spoke();
                    return Ok(read);
                }
                // The other side is alive, and this one may be waiting for it.
                Err(_) if self.side.is_some_and(|side| side.is_spoken_to(self.read_limit)) => {}
                Err(_) => return Err(Broken::SourceTimeout),
            }
        }
    }

    pub(super) fn spoke(&self) {
        if let Some(side) = self.side {
            side.spoke();
        }
    }

    /// So much more of the body came.
    pub(super) fn count(&mut self, bytes: usize) -> Result<(), Broken> {
        self.bytes += bytes as u64;
        let too_large = self.bytes_max.is_some_and(|max| self.bytes > max.get());
        if too_large { Err(Broken::SourceTooLarge) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many seconds a sender lasts that sends `bytes` every `seconds`, up to ten minutes.
    fn lasts(bytes: usize, seconds: u64) -> u64 {
        let mut pace = Pace::new(NonZeroU64::new(240).unwrap(), Duration::from_secs(60));
        let mut now = 0;
        while now < 600 {
            let allowed = pace.allowed();
            if allowed < Duration::from_secs(seconds) {
                return now + allowed.as_secs();
            }
            pace.received(bytes, seconds * 10);
            now += seconds;
        }
        now
    }

    #[test]
    fn a_sender_lasts_as_long_as_it_keeps_pace() {
        for (bytes, seconds, expected) in [
            (1, 8, 10),
            (0, 1, 10),
            (100, 1, 17),
            (240, 1, 600),
            (2400, 10, 600),
            // Fast enough on the whole, but no silence is longer than the limit.
            (1_000_000, 20, 10),
            (1_000_000, 10, 600),
        ] {
            let lasted = lasts(bytes, seconds);
            assert!(lasted.abs_diff(expected) <= 1, "{bytes} B / {seconds} s: {lasted} s, not {expected}");
        }
    }

    #[test]
    fn a_sender_that_was_fast_may_pause_for_as_long_as_any_silence_may_last() {
        let mut pace = Pace::new(NonZeroU64::new(240).unwrap(), Duration::from_secs(60));
        pace.received(1_000_000, 0);
        assert_eq!(pace.allowed(), Duration::from_secs(60));
        pace.received(1, 590);
        assert!(pace.allowed() < Duration::from_millis(1100), "{:?}", pace.allowed());
    }
}
