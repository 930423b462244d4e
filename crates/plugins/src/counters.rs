//! State per key that all workers share, as the limits need it: found without a lock, bounded, forgotten when idle.
//!
//! A limit is one for the whole gateway instance, so this is the one thing workers share on the request path. Each
//! state is a few atomics, and the map of them is read without waiting for anybody.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use papaya::HashMap;

/// Keys one plugin instance counts at a time: what an attacker can invent must not fill the memory.
pub(crate) const KEYS_MAX: usize = 1 << 20;

/// New keys after which idle ones are looked for.
const SWEEP_AFTER: usize = 4096;

/// States by key.
pub(crate) struct Counters<T> {
    states: HashMap<Box<[u8]>, Arc<T>>,
    keys_max: usize,
    made: AtomicUsize,
}

impl<T> Default for Counters<T> {
    fn default() -> Self {
        Self { states: HashMap::new(), keys_max: KEYS_MAX, made: AtomicUsize::new(0) }
    }
}

impl<T: Default> Counters<T> {
    /// The state of `key`; `None`: there are too many keys that are not idle.
    pub(crate) fn of(&self, key: &[u8], is_idle: impl Fn(&T) -> bool) -> Option<Arc<T>> {
        let states = self.states.pin();
        if let Some(state) = states.get(key) {
            return Some(Arc::clone(state));
        }
        let made = self.made.fetch_add(1, Ordering::Relaxed);
        if made % SWEEP_AFTER == SWEEP_AFTER - 1 || states.len() >= self.keys_max {
            // A state that somebody holds is in use, however idle it looks.
            states.retain(|_, state| Arc::strong_count(state) > 1 || !is_idle(state));
        }
        if states.len() >= self.keys_max {
            return None;
        }
        Some(Arc::clone(states.get_or_insert_with(key.into(), Arc::default)))
    }
}

/// Time in hundredths of a second, as it fits beside a count; it wraps after more than a year.
pub(crate) fn ticks(time: std::time::Duration) -> u32 {
    #[allow(clippy::cast_possible_truncation, reason = "it wraps on purpose")]
    let ticks = (time.as_millis() / 10) as u32;
    ticks
}

/// A window of time and how much of its limit is used up.
#[derive(Debug, Default)]
pub(crate) struct Window {
    /// Two windows by parity; a fixed window uses the first alone.
    slots: [AtomicU64; 2],
}

/// What came of taking one from a limit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Taken {
    /// Whether there was one left.
    pub(crate) allowed: bool,
    /// How many are left.
    pub(crate) remaining: u64,
    /// Hundredths of a second until the window is over.
    pub(crate) reset: u32,
}

fn pack(stamp: u32, count: u32) -> u64 {
    u64::from(stamp) << 32 | u64::from(count)
}

#[allow(clippy::cast_possible_truncation, reason = "the halves are taken apart")]
fn unpack(state: u64) -> (u32, u32) {
    ((state >> 32) as u32, state as u32)
}

impl Window {
    /// Takes one from a window that begins with its first request.
    pub(crate) fn take_fixed(&self, now: u32, length: u32, limit: u64) -> Taken {
        let mut state = self.slots[0].load(Ordering::Relaxed);
        loop {
            let (mut start, mut count) = unpack(state);
            if count == 0 || now.wrapping_sub(start) >= length {
                (start, count) = (now, 0);
            }
            let reset = length - now.wrapping_sub(start);
            if u64::from(count) >= limit {
                return Taken { allowed: false, remaining: 0, reset };
            }
            let next = pack(start, count.saturating_add(1));
            match self.slots[0].compare_exchange_weak(state, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Taken { allowed: true, remaining: limit - u64::from(count) - 1, reset },
                Err(changed) => state = changed,
            }
        }
    }

    /// Takes one from a window that slides: what the window before used counts as far as it still reaches into it.
    pub(crate) fn take_sliding(&self, now: u32, length: u32, limit: u64) -> Taken {
        let index = now / length;
        let elapsed = now % length;
        let (current, previous) = (&self.slots[index as usize % 2], &self.slots[(index as usize + 1) % 2]);
        let (stamp, before) = unpack(previous.load(Ordering::Relaxed));
        let before = if stamp.wrapping_add(1) == index { u64::from(before) } else { 0 };
        let reaching = before * u64::from(length - elapsed) / u64::from(length);
        let reset = length - elapsed;
        let mut state = current.load(Ordering::Relaxed);
        loop {
            let (stamp, count) = unpack(state);
            let count = if stamp == index { count } else { 0 };
            let used = reaching + u64::from(count);
            if used >= limit {
                return Taken { allowed: false, remaining: 0, reset };
            }
            let next = pack(index, count.saturating_add(1));
            match current.compare_exchange_weak(state, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Taken { allowed: true, remaining: limit - used - 1, reset },
                Err(changed) => state = changed,
            }
        }
    }

    /// Whether nothing of it counts any more.
    pub(crate) fn is_over(&self, now: u32, length: u32) -> bool {
        let [first, second] = self.slots.each_ref().map(|slot| unpack(slot.load(Ordering::Relaxed)));
        let index = now / length;
        let is_old = |stamp: u32| now.wrapping_sub(stamp) >= length && index.wrapping_sub(stamp) > 1;
        is_old(first.0) && (second.1 == 0 || is_old(second.0))
    }
}

/// A bucket that leaks at a steady rate.
#[derive(Debug, Default)]
pub(crate) struct Bucket {
    /// When it will be empty, in microseconds.
    empty_at: AtomicU64,
}

impl Bucket {
    /// Adds one request that takes `interval` to leak; answers how long it has to wait, or `None` where more than
    /// `burst` would have to.
    pub(crate) fn add(&self, now: u64, interval: f64, burst: f64) -> Option<u64> {
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "intervals are positive and bounded"
        )]
        let interval_micros = interval as u64;
        let mut state = self.empty_at.load(Ordering::Relaxed);
        loop {
            let waits = state.saturating_sub(now);
            #[allow(clippy::cast_precision_loss, reason = "a wait of years needs no microseconds")]
            let excess = waits as f64 / interval;
            if excess > burst {
                return None;
            }
            let next = state.max(now) + interval_micros;
            match self.empty_at.compare_exchange_weak(state, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Some(waits),
                Err(changed) => state = changed,
            }
        }
    }

    /// Whether nothing is left in it.
    pub(crate) fn is_empty(&self, now: u64) -> bool {
        self.empty_at.load(Ordering::Relaxed) <= now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fixed_window_begins_with_its_first_request() {
        let window = Window::default();
        let takes = [(1000, true, 1, 500), (1100, true, 0, 400), (1499, false, 0, 1), (1500, true, 1, 500)];
        for (now, allowed, remaining, reset) in takes {
            assert_eq!(window.take_fixed(now, 500, 2), Taken { allowed, remaining, reset }, "{now}");
        }
        assert!(!window.is_over(1999, 500) && window.is_over(2000, 500));
    }

    #[test]
    fn a_sliding_window_remembers_the_one_before() {
        let window = Window::default();
        (0..10).for_each(|_| assert!(window.take_sliding(950, 100, 10).allowed));
        assert!(!window.take_sliding(960, 100, 10).allowed);
        // A quarter into the next window, three quarters of the ten still count.
        let taken: Vec<bool> = (0..4).map(|_| window.take_sliding(1025, 100, 10).allowed).collect();
        assert_eq!(taken, [true, true, true, false]);
        assert!(window.take_sliding(1150, 100, 10).allowed);
        assert_eq!(window.take_sliding(5000, 100, 10).remaining, 9);
    }

    #[test]
    fn a_bucket_leaks_at_its_rate() {
        let bucket = Bucket::default();
        let second = 1_000_000.0;
        assert_eq!(bucket.add(0, second, 1.0), Some(0));
        assert_eq!(bucket.add(0, second, 1.0), Some(1_000_000));
        assert_eq!(bucket.add(0, second, 1.0), None);
        assert_eq!(bucket.add(500_000, second, 1.0), None);
        assert_eq!(bucket.add(1_000_000, second, 1.0), Some(1_000_000));
        assert!(!bucket.is_empty(1_000_000) && bucket.is_empty(3_000_000));
    }

    #[test]
    fn c13_keys_that_a_client_invents_are_bounded() {
        let counters: Counters<AtomicUsize> = Counters { keys_max: 1000, ..Counters::default() };
        let of = |key: usize, is_idle: bool| counters.of(&key.to_be_bytes(), |_| is_idle).is_some();
        assert_eq!((0..10_000).filter(|key| of(*key, false)).count(), 1000);
        assert!(of(7, false), "those that are known still count");
        assert!(of(10_000, true), "there is room again once some are idle");
        assert!(counters.states.len() <= 1000);
    }

    #[test]
    fn idle_keys_are_forgotten_and_held_ones_kept() {
        let counters: Counters<AtomicUsize> = Counters::default();
        let held = counters.of(b"held", |_| true).unwrap();
        held.store(7, Ordering::Relaxed);
        for index in 0..2 * SWEEP_AFTER {
            counters.of(&index.to_be_bytes(), |_| true);
        }
        assert!(counters.states.len() <= SWEEP_AFTER + 1);
        assert_eq!(counters.of(b"held", |_| true).unwrap().load(Ordering::Relaxed), 7);
    }
}
