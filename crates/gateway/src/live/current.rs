//! The one pointer that is swapped, and how a worker reads it.
//!
//! A request takes the live configuration once and finishes on it. Cloning the shared `Arc` for every request would
//! make all workers write the same counter; instead each worker keeps its own [`Rc`] around it and looks at the
//! shared pointer only to see whether it changed.

use std::cell::RefCell;
use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use arc_swap::cache::Cache;
use tokio::sync::watch;

use super::LiveConfig;
use crate::upstream::discovered::table::{Board, Table};

/// The live configuration of the process.
#[derive(Clone)]
pub(crate) struct Current {
    live: Arc<ArcSwap<LiveConfig>>,
    /// Where discovered nodes stand.
    board: Board,
    /// When it began to be served, in milliseconds since 1970; 0: not yet.
    since: Arc<AtomicU64>,
    /// Told of every swap.
    swapped: watch::Sender<()>,
}

impl Current {
    pub(crate) fn new(live: LiveConfig) -> Self {
        Self {
            live: Arc::new(ArcSwap::from_pointee(live)),
            board: Board::default(),
            since: Arc::default(),
            swapped: watch::Sender::default(),
        }
    }

    /// Where discovered nodes stand.
    pub(crate) fn board(&self) -> &Board {
        &self.board
    }

    /// Makes `live` what new requests run on. Requests in flight finish on what they started with.
    pub(crate) fn swap(&self, live: Arc<LiveConfig>) {
        self.board.serve(&live.registries);
        self.live.store(live);
        self.served_from_now();
    }

    fn served_from_now(&self) {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.since.store(u64::try_from(now.as_millis()).unwrap_or_default(), Ordering::Relaxed);
        self.swapped.send_replace(());
    }

    /// Wakes whenever something else is served.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.swapped.subscribe()
    }

    /// How long after 1970 what is live began to be served.
    pub(crate) fn served_since(&self) -> Option<Duration> {
        let since = self.since.load(Ordering::Relaxed);
        (since > 0).then(|| Duration::from_millis(since))
    }

    /// Makes `live` what new requests run on, unless there is something already.
    pub(crate) fn begin(&self, live: &Arc<LiveConfig>) -> bool {
        let now = self.live.load();
        if now.revision.is_some() {
            return false;
        }
        let before = self.live.compare_and_swap(&now, Arc::clone(live));
        let began = Arc::ptr_eq(&before, &now);
        if began {
            self.board.serve(&live.registries);
            self.served_from_now();
        }
        began
    }

    pub(crate) fn load(&self) -> Arc<LiveConfig> {
        self.live.load_full()
    }

    /// A reader for one worker.
    pub(crate) fn reader(&self) -> Reader {
        let mut config = Cache::new(Arc::clone(&self.live));
        let mut table = Cache::new(Arc::clone(self.board.table()));
        let live = Live::of(config.load(), table.load());
        Reader { caches: RefCell::new((config, table)), live: RefCell::new(live) }
    }
}

/// One worker's view of the live configuration.
pub(crate) struct Reader {
    caches: RefCell<(Cached<LiveConfig>, Cached<Table>)>,
    live: RefCell<Live>,
}

type Cached<T> = Cache<Arc<ArcSwap<T>>, Arc<T>>;

/// A live configuration held by a request, and the nodes that were discovered for it.
#[derive(Clone)]
pub(crate) struct Live(Rc<Taken>);

struct Taken {
    config: Arc<LiveConfig>,
    table: Arc<Table>,
}

impl Live {
    fn of(config: &Arc<LiveConfig>, table: &Arc<Table>) -> Self {
        Self(Rc::new(Taken { config: Arc::clone(config), table: Arc::clone(table) }))
    }

    /// The upstreams with discovered nodes.
    pub(crate) fn table(&self) -> &Table {
        &self.0.table
    }
}

impl Deref for Live {
    type Target = LiveConfig;

    fn deref(&self) -> &LiveConfig {
        &self.0.config
    }
}

impl Reader {
    /// The newest live configuration.
    pub(crate) fn take(&self) -> Live {
        let mut caches = self.caches.borrow_mut();
        let (config, table) = &mut *caches;
        // In this order: what a configuration names is on the table before the configuration is live, and stays there
        // as long as anybody holds the configuration.
        let (config, table) = (config.load(), table.load());
        let mut live = self.live.borrow_mut();
        if !Arc::ptr_eq(config, &live.0.config) || !Arc::ptr_eq(table, &live.0.table) {
            *live = Live::of(config, table);
        }
        live.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gatewright_model::snapshot::Revision;

    fn at(revision: u64) -> LiveConfig {
        LiveConfig { revision: Some(Revision(revision)), ..LiveConfig::empty() }
    }

    #[test]
    fn a_request_finishes_on_the_configuration_it_started_with() {
        let current = Current::new(at(1));
        let reader = current.reader();
        let request = reader.take();
        current.swap(Arc::new(at(2)));
        assert_eq!(request.revision, Some(Revision(1)));
        assert_eq!(reader.take().revision, Some(Revision(2)));
    }

    #[test]
    fn a_kept_configuration_never_replaces_a_newer_one() {
        let current = Current::new(LiveConfig::empty());
        assert!(current.begin(&Arc::new(at(1))));
        current.swap(Arc::new(at(2)));
        assert!(!current.begin(&Arc::new(at(1))));
        assert_eq!(current.load().revision, Some(Revision(2)));
    }

    #[test]
    fn nothing_of_an_old_configuration_is_kept_once_its_requests_are_done() {
        let current = Current::new(at(1));
        let reader = current.reader();
        let first = Arc::downgrade(&current.load());
        current.swap(Arc::new(at(2)));
        drop(reader.take());
        assert!(first.upgrade().is_none());
    }
}
