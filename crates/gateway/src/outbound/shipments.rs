//! What plugins tell others: waited for when the gateway ends, and what could not be told counted and complained of.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use gatewright_plugins::outbound::Waiting;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

/// How often operators are told of the same plugin.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(10);

/// What is on its way, and what was lost, by plugin. The locks are taken only where something was lost.
#[derive(Debug, Default)]
pub(crate) struct Shipments {
    on_their_way: TaskTracker,
    closing: watch::Sender<bool>,
    lost: Mutex<BTreeMap<&'static str, u64>>,
    complained: Mutex<BTreeMap<&'static str, Instant>>,
}

impl Shipments {
    /// Does `work` on `runtime`; the end of the gateway waits for it.
    pub(super) fn follow(&self, work: Waiting<()>, runtime: &Handle) {
        self.on_their_way.spawn_on(work, runtime);
    }

    /// Waits until the gateway ends.
    pub(super) fn closing(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut closing = self.closing.subscribe();
        async move {
            // The sender is gone only when everything is.
            let _ = closing.wait_for(|closing| *closing).await;
        }
    }

    /// Has everything sent that waits for more, and waits for that; says whether it was in time.
    pub(crate) async fn finish(&self, timeout: Duration) -> bool {
        self.closing.send_replace(true);
        self.on_their_way.close();
        tokio::time::timeout(timeout, self.on_their_way.wait()).await.is_ok()
    }

    /// So many entries of `plugin` were lost.
    pub(super) fn count(&self, plugin: &'static str, entries: u64) {
        *lock(&self.lost).entry(plugin).or_default() += entries;
    }

    /// Whether it is time to tell operators of `plugin` again.
    pub(super) fn may_complain(&self, plugin: &'static str, now: Instant) -> bool {
        let mut complained = lock(&self.complained);
        let last = complained.get(plugin);
        let due = last.is_none_or(|last| now.saturating_duration_since(*last) >= COMPLAINT_INTERVAL);
        if due {
            complained.insert(plugin, now);
        }
        due
    }

    /// What was lost so far.
    pub(crate) fn read(&self) -> BTreeMap<&'static str, u64> {
        lock(&self.lost).clone()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_loss_is_counted_and_few_are_complained_of() {
        let (losses, now) = (Shipments::default(), Instant::now());
        losses.count("a", 2);
        losses.count("a", 1);
        losses.count("b", 1);
        assert_eq!(losses.read(), BTreeMap::from([("a", 3), ("b", 1)]));
        let told: Vec<bool> = [0, 1, 9, 10, 11]
            .into_iter()
            .map(|seconds| losses.may_complain("a", now + Duration::from_secs(seconds)))
            .collect();
        assert_eq!(told, [true, false, false, true, false]);
        assert!(losses.may_complain("b", now));
    }
}
