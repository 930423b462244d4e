//! The thread that writes the access log out.
//!
//! Workers hand over batches through a channel with an end; what does not fit is dropped and counted. The file is
//! opened anew when asked, so that whoever renamed it gets a fresh one; if that fails, the old one stays in use.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use super::{BATCH_BYTES, Destination, Settings};

/// Batches that may wait: with [`BATCH_BYTES`] each, about four megabytes.
const BATCHES_MAX: usize = 256;

/// How often losses are told of.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(10);

/// Lines that are handed over together.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) bytes: Vec<u8>,
    pub(crate) lines: u64,
}

/// The way from workers to the writer.
#[derive(Clone)]
pub(crate) struct Channel {
    sender: SyncSender<Batch>,
    shared: Arc<Shared>,
}

struct Shared {
    settings: Settings,
    reopen: AtomicBool,
    ending: AtomicBool,
    /// Lines that did not fit into the channel.
    dropped: AtomicU64,
    /// Lines that could not be written.
    failed: AtomicU64,
}

impl Channel {
    pub(crate) fn settings(&self) -> &Settings {
        &self.shared.settings
    }

    /// Hands over what is in `batch` and empties it.
    pub(crate) fn send(&self, batch: &mut Batch) {
        let room = Vec::with_capacity(batch.bytes.len().min(2 * BATCH_BYTES));
        let full = Batch { bytes: std::mem::replace(&mut batch.bytes, room), lines: batch.lines };
        batch.lines = 0;
        if let Err(TrySendError::Full(lost) | TrySendError::Disconnected(lost)) = self.sender.try_send(full) {
            self.shared.dropped.fetch_add(lost.lines, Ordering::Relaxed);
            batch.bytes = lost.bytes;
            batch.bytes.clear();
        }
    }

    /// Has the file opened anew.
    pub(crate) fn reopen(&self) {
        self.shared.reopen.store(true, Ordering::Release);
        self.wake();
    }

    /// Has the writer end once it has written what was handed over.
    pub(crate) fn end(&self) {
        self.shared.ending.store(true, Ordering::Release);
        self.wake();
    }

    /// Lets the writer look at what it was told; without room for that it is awake anyway.
    fn wake(&self) {
        let _ = self.sender.try_send(Batch::default());
    }

    /// Lines lost so far: for lack of room, and for lack of a disk that takes them.
    pub(crate) fn lost(&self) -> (u64, u64) {
        (self.shared.dropped.load(Ordering::Relaxed), self.shared.failed.load(Ordering::Relaxed))
    }
}

/// Opens the log and starts the thread that writes it; `ended` is dropped when that is over.
///
/// # Errors
/// When the file cannot be opened or the thread not started.
pub(crate) fn start(settings: Settings, ended: impl Send + 'static) -> io::Result<Channel> {
    let output = Output::open(&settings.to)?;
    let (sender, batches) = sync_channel(BATCHES_MAX);
    let shared = Arc::new(Shared {
        settings,
        reopen: AtomicBool::new(false),
        ending: AtomicBool::new(false),
        dropped: AtomicU64::new(0),
        failed: AtomicU64::new(0),
    });
    let writer = Writer { output, shared: Arc::clone(&shared), told_of: (0, 0), told_at: None };
    std::thread::Builder::new().name("gatewright-access-log".to_owned()).spawn(move || {
        writer.run(&batches);
        drop(ended);
    })?;
    Ok(Channel { sender, shared })
}

enum Output {
    Stdout(io::Stdout),
    File(File),
}

impl Output {
    fn open(to: &Destination) -> io::Result<Self> {
        Ok(match to {
            Destination::Stdout => Self::Stdout(io::stdout()),
            Destination::File(path) => Self::File(open(path)?),
        })
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Stdout(stdout) => {
                let mut stdout = stdout.lock();
                stdout.write_all(bytes)?;
                stdout.flush()
            }
            Self::File(file) => file.write_all(bytes),
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}

struct Writer {
    output: Output,
    shared: Arc<Shared>,
    /// Losses already told of.
    told_of: (u64, u64),
    told_at: Option<Instant>,
}

impl Writer {
    fn run(mut self, batches: &Receiver<Batch>) {
        loop {
            let ending = self.shared.ending.load(Ordering::Acquire);
            let received = if ending { batches.try_recv().ok() } else { batches.recv().ok() };
            if self.shared.reopen.swap(false, Ordering::AcqRel) {
                self.reopen();
            }
            let Some(batch) = received else { return };
            if batch.lines > 0 {
                self.write(&batch);
            }
            self.complain();
        }
    }

    fn reopen(&mut self) {
        match Output::open(&self.shared.settings.to) {
            Ok(output) => {
                self.output = output;
                tracing::info!("the access log was opened anew");
            }
            Err(error) => {
                tracing::error!(%error, "the access log cannot be opened anew; the old file stays in use");
            }
        }
    }

    fn write(&mut self, batch: &Batch) {
        if let Err(error) = self.output.write(&batch.bytes) {
            self.shared.failed.fetch_add(batch.lines, Ordering::Relaxed);
            tracing::debug!(%error, lines = batch.lines, "the access log cannot be written");
        }
    }

    /// Tells of losses, but not all the time.
    fn complain(&mut self) {
        let lost = (self.shared.dropped.load(Ordering::Relaxed), self.shared.failed.load(Ordering::Relaxed));
        if lost == self.told_of || self.told_at.is_some_and(|told_at| told_at.elapsed() < COMPLAINT_INTERVAL)
        {
            return;
        }
        let (dropped, failed) = (lost.0 - self.told_of.0, lost.1 - self.told_of.1);
        tracing::warn!(dropped, failed, "lines of the access log were lost: the disk is too slow, or full");
        self.told_of = lost;
        self.told_at = Some(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    fn settings(to: Destination) -> Settings {
        Settings { to, format: Default::default(), stream_format: Default::default(), sample: 1.0 }
    }

    fn batch(text: &str) -> Batch {
        Batch { bytes: text.as_bytes().to_vec(), lines: 1 }
    }

    #[test]
    fn what_was_handed_over_before_the_end_is_written() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("access.log");
        let (ended, ends) = channel::<()>();
        let log = start(settings(Destination::File(path.clone())), ended).unwrap();
        for number in 0..100 {
            log.send(&mut batch(&format!("{number}\n")));
        }
        log.end();
        assert!(ends.recv().is_err(), "the writer ended");
        let expected: String = (0..100).map(|number| format!("{number}\n")).collect();
        assert_eq!(std::fs::read_to_string(path).unwrap(), expected);
        assert_eq!(log.lost(), (0, 0));
    }

    #[test]
    fn lines_without_room_are_dropped_and_counted() {
        let (sender, batches) = sync_channel(2);
        let shared = Shared {
            settings: settings(Destination::Stdout),
            reopen: AtomicBool::new(false),
            ending: AtomicBool::new(false),
            dropped: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        };
        let log = Channel { sender, shared: Arc::new(shared) };
        for number in 0..5 {
            let mut batch = batch(&number.to_string());
            log.send(&mut batch);
            assert!(batch.bytes.is_empty() && batch.lines == 0);
        }
        assert_eq!(log.lost(), (3, 0));
        let kept: Vec<_> = batches.try_iter().map(|batch| batch.bytes).collect();
        assert_eq!(kept, [b"0", b"1"], "what came first");
    }

    #[test]
    fn lines_that_cannot_be_written_are_counted() {
        let (ended, ends) = channel::<()>();
        let log = start(settings(Destination::File("/dev/full".into())), ended).unwrap();
        log.send(&mut batch("a\n"));
        log.end();
        assert!(ends.recv().is_err());
        assert_eq!(log.lost(), (0, 1));
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_refused_at_the_start() {
        assert!(start(settings(Destination::File("/no/such/directory/log".into())), ()).is_err());
    }
}
