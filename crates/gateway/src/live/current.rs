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

use super::LiveConfig;

/// The live configuration of the process.
#[derive(Clone)]
pub(crate) struct Current {
    live: Arc<ArcSwap<LiveConfig>>,
    /// When it began to be served, in milliseconds since 1970; 0: not yet.
    since: Arc<AtomicU64>,
}

impl Current {
    pub(crate) fn new(live: LiveConfig) -> Self {
        Self { live: Arc::new(ArcSwap::from_pointee(live)), since: Arc::default() }
    }

    /// Makes `live` what new requests run on. Requests in flight finish on what they started with.
    pub(crate) fn swap(&self, live: Arc<LiveConfig>) {
        self.live.store(live);
        self.served_from_now();
    }

    fn served_from_now(&self) {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.since.store(u64::try_from(now.as_millis()).unwrap_or_default(), Ordering::Relaxed);
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
            self.served_from_now();
        }
        began
    }

    pub(crate) fn load(&self) -> Arc<LiveConfig> {
        self.live.load_full()
    }

    /// A reader for one worker.
    pub(crate) fn reader(&self) -> Reader {
        let live = Live(Rc::new(self.load()));
        Reader { cache: RefCell::new(Cache::new(Arc::clone(&self.live))), live: RefCell::new(live) }
    }
}

/// One worker's view of the live configuration.
pub(crate) struct Reader {
    cache: RefCell<Cache<Arc<ArcSwap<LiveConfig>>, Arc<LiveConfig>>>,
    live: RefCell<Live>,
}

/// A live configuration held by a request.
#[allow(clippy::redundant_allocation, reason = "the inner count is shared between workers, the outer is not")]
#[derive(Clone)]
pub(crate) struct Live(Rc<Arc<LiveConfig>>);

impl Deref for Live {
    type Target = LiveConfig;

    fn deref(&self) -> &LiveConfig {
        &self.0
    }
}

impl Reader {
    /// The newest live configuration.
    pub(crate) fn take(&self) -> Live {
        let mut cache = self.cache.borrow_mut();
        let newest = cache.load();
        let mut live = self.live.borrow_mut();
        if !Arc::ptr_eq(newest, &live.0) {
            *live = Live(Rc::new(Arc::clone(newest)));
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
