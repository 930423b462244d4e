//! Writes what is served to disk, beside everything else: a thread of its own, which never holds up a change.
//!
//! While it writes, changes wait; if too many wait, only the newest configuration is kept in mind and written whole.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use gatewright_model::digest::ContentDigest;
use gatewright_model::snapshot::{Revision, Snapshot};

use super::{Cache, Journal};

/// Bytes of changes that wait for the disk; beyond, the configuration is written whole.
const WAITING_BYTES_MAX: usize = 16 << 20;

/// What became of a write.
pub(crate) type Outcome = Result<Revision, String>;

/// Takes what is to be kept; dropped, it finishes what it was given and ends.
pub(crate) struct Writer {
    shared: Arc<Shared>,
}

struct Shared {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Default)]
struct Waiting {
    /// The newest configuration, if it is not on disk.
    snapshot: Option<(Arc<Snapshot>, ContentDigest)>,
    /// The lines that lead to it from what is on disk.
    lines: Vec<Bytes>,
    bytes: usize,
    /// Whether lines are missing.
    is_whole: bool,
    is_closed: bool,
}

impl Writer {
    /// Starts the thread; `report` is called after every write.
    pub(crate) fn start(cache: Cache, report: impl Fn(Outcome) + Send + 'static) -> io::Result<Self> {
        let shared = Arc::new(Shared { waiting: Mutex::default(), changed: Condvar::new() });
        let theirs = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("gatewright-configuration".to_owned());
        thread.spawn(move || write_on(&cache, &theirs, &report))?;
        Ok(Self { shared })
    }

    /// Keeps `snapshot`, to which `line` led from the one given before; none: it led from somewhere else.
    pub(crate) fn keep(&self, snapshot: Arc<Snapshot>, digest: ContentDigest, line: Option<Bytes>) {
        let mut waiting = self.shared.waiting();
        waiting.snapshot = Some((snapshot, digest));
        match line {
            Some(line) if !waiting.is_whole && waiting.bytes + line.len() <= WAITING_BYTES_MAX => {
                waiting.bytes += line.len();
                waiting.lines.push(line);
            }
            _ => {
                waiting.is_whole = true;
                waiting.lines.clear();
            }
        }
        self.shared.changed.notify_one();
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.shared.waiting().is_closed = true;
        self.shared.changed.notify_one();
    }
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for something to write; none: there will be nothing more.
    fn next(&self) -> Option<(Arc<Snapshot>, ContentDigest, Vec<Bytes>, bool)> {
        let mut waiting = self.waiting();
        loop {
            if let Some((snapshot, digest)) = waiting.snapshot.take() {
                let is_closed = waiting.is_closed;
                let Waiting { lines, is_whole, .. } =
                    std::mem::replace(&mut *waiting, Waiting { is_closed, ..Waiting::default() });
                return Some((snapshot, digest, lines, is_whole));
            }
            if waiting.is_closed {
                return None;
            }
            waiting = self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

fn write_on(cache: &Cache, shared: &Shared, report: &impl Fn(Outcome)) {
    // Whoever writes now ends before long; what is given meanwhile waits.
    if let Some(Err(error)) = cache.turn.as_ref().map(std::fs::File::lock) {
        return report(Err(error.to_string()));
    }
    let mut journal: Option<Journal> = None;
    while let Some((snapshot, digest, lines, is_whole)) = shared.next() {
        // After a failure nobody knows what is in the file, so it is left as it is.
        let appended = journal.take().filter(|journal| !is_whole && !journal.is_long());
        let written = match appended {
            Some(mut journal) => cache.append(&mut journal, &lines).map(|()| journal),
            None => serde_json::to_vec(&snapshot.to_message(digest))
                .map_err(io::Error::from)
                .and_then(|line| cache.write_whole(&line)),
        };
        let outcome = written.map(|written| {
            journal = Some(written);
            snapshot.revision
        });
        report(outcome.map_err(|error| error.to_string()));
    }
}
