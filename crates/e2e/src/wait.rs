//! Waiting for an observation, with a deadline that only a broken product reaches.

use std::time::{Duration, Instant};

/// After this long something is broken. Generous, because test machines are slow and busy.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Between two looks.
const INTERVAL: Duration = Duration::from_millis(5);

/// Looks until `look` sees something, and hands that back; `what` names it if it never comes.
///
/// # Panics
/// At the deadline.
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(start.elapsed() < DEADLINE, "still not seen after {DEADLINE:?}: {what}");
        std::thread::sleep(INTERVAL);
    }
}

/// Looks until `look` is true.
///
/// # Panics
/// At the deadline.
pub fn until_true(what: &str, mut look: impl FnMut() -> bool) {
    until(what, || look().then_some(()));
}

/// Waits for a moment of a schedule: load that is offered at a rate has no other observable than the clock.
pub fn until_moment(moment: Instant) {
    std::thread::sleep(moment.saturating_duration_since(Instant::now()));
}
