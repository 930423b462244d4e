//! Whether a node is healthy: one word that observations change and requests read.
//!
//! The rule is a pure function of what was known and what was seen. A good answer of a healthy node changes
//! nothing, so that the request path reads the word and, while all is well, never writes it.

use std::sync::atomic::{AtomicU64, Ordering};

/// What a probe or a proxied request saw of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    Success,
    /// An answer with a status that counts as a failure, or none that is HTTP.
    HttpFailure,
    /// A connection that was refused or broke.
    TcpFailure,
    Timeout,
}

impl Seen {
    /// The name by which logs know it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::HttpFailure => "http_failure",
            Self::TcpFailure => "tcp_failure",
            Self::Timeout => "timeout",
        }
    }
}

/// How often something must be seen in a row until it counts; 0: it never does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Thresholds {
    pub(crate) successes: u8,
    pub(crate) http_failures: u8,
    pub(crate) tcp_failures: u8,
    pub(crate) timeouts: u8,
}

/// What is known of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) healthy: bool,
    pub(crate) successes: u8,
    pub(crate) http_failures: u8,
    pub(crate) tcp_failures: u8,
    pub(crate) timeouts: u8,
}

impl Tally {
    const fn fresh(healthy: bool) -> Self {
        Self { healthy, successes: 0, http_failures: 0, tcp_failures: 0, timeouts: 0 }
    }

    /// What is known after `seen`. A success ends a row of failures, and the reverse.
    fn after(self, seen: Seen, thresholds: Thresholds) -> Self {
        let threshold = match seen {
            Seen::Success => thresholds.successes,
            Seen::HttpFailure => thresholds.http_failures,
            Seen::TcpFailure => thresholds.tcp_failures,
            Seen::Timeout => thresholds.timeouts,
        };
        if threshold == 0 {
            return self;
        }
        let mut next = self;
        let counter = match seen {
            Seen::Success if self.healthy => return Self::fresh(true),
            Seen::Success => &mut next.successes,
            _ if !self.healthy => return Self::fresh(false),
            Seen::HttpFailure => &mut next.http_failures,
            Seen::TcpFailure => &mut next.tcp_failures,
            Seen::Timeout => &mut next.timeouts,
        };
        *counter = counter.saturating_add(1);
        if *counter >= threshold { Self::fresh(!self.healthy) } else { next }
    }

    fn pack(self) -> u64 {
        let Self { healthy, successes, http_failures, tcp_failures, timeouts } = self;
        u64::from_le_bytes([u8::from(healthy), successes, http_failures, tcp_failures, timeouts, 0, 0, 0])
    }

    fn unpack(word: u64) -> Self {
        let [healthy, successes, http_failures, tcp_failures, timeouts, ..] = word.to_le_bytes();
        Self { healthy: healthy != 0, successes, http_failures, tcp_failures, timeouts }
    }
}

/// The word.
#[derive(Debug)]
pub(crate) struct Health(AtomicU64);

impl Health {
    /// Nodes start healthy, unless an earlier check found otherwise.
    pub(crate) fn new(healthy: bool) -> Self {
        Self(AtomicU64::new(Tally::fresh(healthy).pack()))
    }

    pub(crate) fn is_healthy(&self) -> bool {
        self.0.load(Ordering::Relaxed) & 1 != 0
    }

    pub(crate) fn tally(&self) -> Tally {
        Tally::unpack(self.0.load(Ordering::Relaxed))
    }

    /// Takes note; says what the node became if it changed.
    pub(crate) fn note(&self, seen: Seen, thresholds: Thresholds) -> Option<bool> {
        let changed = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| {
            let after = Tally::unpack(word).after(seen, thresholds).pack();
            (after != word).then_some(after)
        });
        let before = Tally::unpack(changed.ok()?);
        let after = before.after(seen, thresholds);
        (before.healthy != after.healthy).then_some(after.healthy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Seen::{HttpFailure, Success, TcpFailure, Timeout};

    const THRESHOLDS: Thresholds =
        Thresholds { successes: 2, http_failures: 3, tcp_failures: 2, timeouts: 0 };

    #[test]
    fn a_row_of_the_same_turns_a_node_over() {
        let cases: &[(bool, &[Seen], bool)] = &[
            (true, &[], true),
            (true, &[TcpFailure], true),
            (true, &[TcpFailure, TcpFailure], false),
            (true, &[TcpFailure, Success, TcpFailure], true),
            (true, &[TcpFailure, HttpFailure, HttpFailure], true),
            (true, &[HttpFailure, TcpFailure, HttpFailure, HttpFailure], false),
            (true, &[Timeout; 100], true),
            (false, &[Success], false),
            (false, &[Success, Success], true),
            (false, &[Success, TcpFailure, Success], false),
            (false, &[Success, Success, TcpFailure], true),
        ];
        for (start, seen, expected) in cases {
            let health = Health::new(*start);
            let turns = seen.iter().filter(|seen| health.note(**seen, THRESHOLDS).is_some()).count();
            assert_eq!(health.is_healthy(), *expected, "{seen:?}");
            assert_eq!(turns, usize::from(start != expected), "{seen:?}");
        }
    }

    #[test]
    fn what_is_known_survives_packing() {
        let tally = Tally { healthy: true, successes: 1, http_failures: 2, tcp_failures: 3, timeouts: 254 };
        assert_eq!(Tally::unpack(tally.pack()), tally);
    }
}
