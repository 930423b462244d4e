//! What this control plane has done for gateways since it started, for its metrics.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::line::Says;

/// The numbers; clones count together.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counts(Arc<Numbers>);

#[derive(Debug, Default)]
struct Numbers {
    watches: AtomicU64,
    changes: AtomicU64,
    full_updates: AtomicU64,
    bytes: AtomicU64,
    heartbeats: AtomicU64,
}

/// The numbers at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counted {
    /// Watches that are open.
    pub(crate) watches: u64,
    /// Updates with what changed.
    pub(crate) changes: u64,
    /// Updates with everything.
    pub(crate) full_updates: u64,
    /// Bytes of updates, as they were sent.
    pub(crate) bytes: u64,
    /// Heartbeats that were taken.
    pub(crate) heartbeats: u64,
}

/// A watch counts as open as long as this lives.
#[derive(Debug)]
pub(super) struct Open(Counts);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.0.watches.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Counts {
    pub(super) fn open(&self) -> Open {
        self.0.watches.fetch_add(1, Ordering::Relaxed);
        Open(self.clone())
    }

    /// A line of `bytes` goes out.
    pub(super) fn sent(&self, says: Says, bytes: u64) {
        let updates = match says {
            Says::Nothing => return,
            Says::Changes => &self.0.changes,
            Says::Everything => &self.0.full_updates,
        };
        updates.fetch_add(1, Ordering::Relaxed);
        self.0.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn heard(&self) {
        self.0.heartbeats.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn now(&self) -> Counted {
        let read = |number: &AtomicU64| number.load(Ordering::Relaxed);
        let Numbers { watches, changes, full_updates, bytes, heartbeats } = &*self.0;
        Counted {
            watches: read(watches),
            changes: read(changes),
            full_updates: read(full_updates),
            bytes: read(bytes),
            heartbeats: read(heartbeats),
        }
    }
}
