//! Throttles: how often something may fail within a while before it is refused unseen.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// Keys remembered at once; beyond, the oldest window is forgotten.
const KEYS_MAX: usize = 10_000;

/// Counts failures by key in windows of fixed length.
pub(super) struct Throttle {
    failures_max: u32,
    window_seconds: i64,
    seen: Mutex<HashMap<String, Window>>,
}

struct Window {
    began_at: i64,
    failures: u32,
}

impl Throttle {
    pub(super) fn new(failures_max: u32, window_seconds: i64) -> Self {
        Self { failures_max, window_seconds, seen: Mutex::default() }
    }

    /// Whether another attempt is allowed.
    pub(super) fn allows(&self, key: &str, now: i64) -> bool {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let current = seen.get(key).filter(|window| now - window.began_at < self.window_seconds);
        current.is_none_or(|window| window.failures < self.failures_max)
    }

    pub(super) fn failed(&self, key: &str, now: i64) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() >= KEYS_MAX && !seen.contains_key(key) {
            seen.retain(|_, window| now - window.began_at < self.window_seconds);
            let oldest = seen.iter().min_by_key(|(_, window)| window.began_at).map(|(key, _)| key.clone());
            if let Some(oldest) = oldest.filter(|_| seen.len() >= KEYS_MAX) {
                seen.remove(&oldest);
            }
        }
        let window = seen.entry(key.to_owned()).or_insert(Window { began_at: now, failures: 0 });
        if now - window.began_at >= self.window_seconds {
            *window = Window { began_at: now, failures: 0 };
        }
        window.failures = window.failures.saturating_add(1);
    }

    /// Forgets what failed before.
    pub(super) fn succeeded(&self, key: &str) {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_refused_after_its_failures_and_until_the_window_ends() {
        let throttle = Throttle::new(2, 60);
        throttle.failed("a", 100);
        assert!(throttle.allows("a", 100));
        throttle.failed("a", 110);
        assert!(!throttle.allows("a", 110) && !throttle.allows("a", 159));
        assert!(throttle.allows("b", 110) && throttle.allows("a", 160));
    }

    #[test]
    fn a_success_forgets_and_memory_is_bounded() {
        let throttle = Throttle::new(1, 60);
        throttle.failed("a", 100);
        throttle.succeeded("a");
        assert!(throttle.allows("a", 100));
        for key in 0..=KEYS_MAX {
            throttle.failed(&key.to_string(), 100);
        }
        assert_eq!(throttle.seen.lock().unwrap().len(), KEYS_MAX);
    }
}
