//! What is counted for each route and for each version of a service, and for how long.
//!
//! A handle is resolved when a configuration is compiled and found again when the same route is compiled anew, so
//! that publishing never resets a counter. Counters themselves are made for each worker by its first request.
//! Only so many routes and versions get series of their own; what comes later shares one series, whose labels are
//! [`OTHER`]. What was removed from the configuration stays for a while, so that its last numbers are scraped.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use gatewright_model::rollout::verdict::Counts;

use super::counter::{Counter, Distribution, Histogram};
use crate::telemetry::record::Outcome;

/// The label of what has no series of its own.
pub(crate) const OTHER: &str = "~other~";

/// Routes, and versions, with series of their own. A route has up to 70 series, so this is a scrape of some ten
/// megabytes at most.
pub(crate) const SERIES_MAX: usize = 2000;

/// Whether series have numbers of their own: nobody knows yet, they do, or they share.
const UNDECIDED: u8 = 0;
const OWN: u8 = 1;
const SHARED: u8 = 2;

/// How long series are kept after what they are about has gone.
const KEPT: Duration = Duration::from_secs(600);

/// Whose numbers these are: a service, and a route or a version of it.
pub(crate) type Labels = (Box<str>, Box<str>);

/// What is counted of one thing, for each worker.
pub(crate) struct Series<C> {
    labels: Labels,
    /// Whether it has series of its own; decided by its first request.
    admission: AtomicU8,
    counts: Box<[OnceLock<Box<C>>]>,
    /// Who shares; absent: this is the shared one.
    other: Option<Arc<Series<C>>>,
    admissions: Arc<AtomicUsize>,
}

/// Of a route.
#[derive(Default)]
#[repr(align(128))]
pub(crate) struct RouteCounts {
    pub(crate) by_class: [Counter; CLASSES.len()],
    pub(crate) total: Histogram,
    pub(crate) upstream: Histogram,
    pub(crate) gateway: Histogram,
    pub(crate) bytes_in: Counter,
    pub(crate) bytes_out: Counter,
}

/// Of a version of a service.
#[derive(Default)]
#[repr(align(128))]
pub(crate) struct VersionCounts {
    pub(crate) by_class: [Counter; CLASSES.len()],
    pub(crate) total: Histogram,
}

/// Classes of status codes.
pub(crate) const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

fn class(status: u16) -> usize {
    usize::from(status / 100).clamp(1, CLASSES.len()) - 1
}

impl RouteCounts {
    pub(crate) fn count(&self, outcome: &Outcome<'_>) {
        self.by_class[class(outcome.status)].add(1);
        self.total.observe(outcome.total);
        self.gateway.observe(outcome.gateway());
        if let Some(upstream) = outcome.upstream {
            self.upstream.observe(upstream);
        }
        self.bytes_in.add(outcome.bytes_in);
        self.bytes_out.add(outcome.bytes_out);
    }
}

impl VersionCounts {
    pub(crate) fn count(&self, outcome: &Outcome<'_>) {
        self.by_class[class(outcome.status)].add(1);
        self.total.observe(outcome.total);
    }
}

impl Series<VersionCounts> {
    /// What all workers counted.
    pub(crate) fn counts(&self) -> Counts {
        let sum = |class: usize| self.read().map(|counts| counts.by_class[class].get()).sum::<u64>();
        let ends = Distribution::of(self.read().map(|counts| &counts.total)).cumulative;
        let before = std::iter::once(0).chain(ends);
        Counts {
            requests: (0..CLASSES.len()).map(sum).sum(),
            failures: sum(CLASSES.len() - 1),
            latencies: ends.iter().zip(before).map(|(end, before)| end.saturating_sub(before)).collect(),
        }
    }
}

impl<C: Default> Series<C> {
    fn new(labels: Labels, workers: usize, other: Option<Arc<Self>>, admissions: &Arc<AtomicUsize>) -> Self {
        let counts = (0..workers.max(1)).map(|_| OnceLock::new()).collect();
        Self {
            labels,
            admission: AtomicU8::new(UNDECIDED),
            counts,
            other,
            admissions: Arc::clone(admissions),
        }
    }

    /// What `worker` counts; only for the thread of that worker.
    pub(crate) fn of(&self, worker: usize) -> &C {
        let series = match &self.other {
            Some(other) if self.admission.load(Ordering::Relaxed) != OWN && !self.admit() => other,
            _ => self,
        };
        series.counts[worker % series.counts.len()].get_or_init(Box::default)
    }

    fn admit(&self) -> bool {
        if self.admission.load(Ordering::Relaxed) == SHARED {
            return false;
        }
        let more = |admitted| (admitted < SERIES_MAX).then_some(admitted + 1);
        let is_room = self.admissions.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok();
        let decision = if is_room { OWN } else { SHARED };
        let decided =
            self.admission.compare_exchange(UNDECIDED, decision, Ordering::Relaxed, Ordering::Relaxed);
        if decided.is_err() && is_room {
            self.admissions.fetch_sub(1, Ordering::Relaxed);
        }
        decided.map_or_else(|other| other, |_| decision) == OWN
    }

    /// Has series of its own from now on, whether or not there is room: somebody relies on them.
    fn insist(&self) {
        if self.admission.swap(OWN, Ordering::Relaxed) != OWN {
            self.admissions.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The service and the route or version.
    pub(crate) fn labels(&self) -> (&str, &str) {
        (&self.labels.0, &self.labels.1)
    }

    /// What the workers counted; nothing, if there never was a request.
    pub(crate) fn read(&self) -> impl Iterator<Item = &C> {
        self.counts.iter().filter_map(|counts| counts.get().map(|counts| &**counts))
    }
}

impl<C> Drop for Series<C> {
    fn drop(&mut self) {
        if self.other.is_some() && *self.admission.get_mut() == OWN {
            self.admissions.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Every series of one kind.
pub(crate) struct Registry<C> {
    workers: usize,
    admissions: Arc<AtomicUsize>,
    other: Arc<Series<C>>,
    known: Mutex<BTreeMap<Labels, Known<C>>>,
}

struct Known<C> {
    series: Arc<Series<C>>,
    gone_since: Option<Instant>,
}

impl<C: Default> Registry<C> {
    pub(crate) fn new(workers: usize) -> Self {
        let admissions = Arc::default();
        let other = Series::new((OTHER.into(), OTHER.into()), workers, None, &admissions);
        Self { workers, admissions, other: Arc::new(other), known: Mutex::default() }
    }

    /// The series of these labels, which are made if there are none.
    pub(crate) fn series(&self, service: &str, what: &str) -> Arc<Series<C>> {
        let labels: Labels = (service.into(), what.into());
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = known.entry(labels).or_insert_with_key(|labels| {
            let other = Some(Arc::clone(&self.other));
            let series = Series::new(labels.clone(), self.workers, other, &self.admissions);
            Known { series: Arc::new(series), gone_since: None }
        });
        entry.gone_since = None;
        Arc::clone(&entry.series)
    }

    /// The same, with numbers of their own however many series there are.
    pub(crate) fn series_of_its_own(&self, service: &str, what: &str) -> Arc<Series<C>> {
        let series = self.series(service, what);
        series.insist();
        series
    }

    /// Forgets what has been gone for long at `now`.
    pub(crate) fn sweep(&self, now: Instant) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, known| {
            // A route that never had a request has no number that anybody could miss.
            let used = known.series.admission.load(Ordering::Relaxed) != UNDECIDED;
            let gone = Arc::strong_count(&known.series) == 1;
            let since = if gone { *known.gone_since.get_or_insert(now) } else { now };
            !gone || (used && now.saturating_duration_since(since) < KEPT)
        });
    }

    /// Everything with numbers of its own, and last what the rest shares.
    pub(crate) fn all(&self) -> Vec<Arc<Series<C>>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let own = known.values().filter(|known| known.series.read().next().is_some());
        let own = own.map(|known| Arc::clone(&known.series));
        own.chain(self.other.read().next().map(|_| Arc::clone(&self.other))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(series: &Series<VersionCounts>) -> u64 {
        series.read().map(|counts| counts.by_class[1].get()).sum()
    }

    fn labels(registry: &Registry<VersionCounts>) -> Vec<String> {
        registry.all().iter().map(|series| series.labels().1.to_owned()).collect()
    }

    #[test]
    fn what_is_compiled_again_goes_on_counting() {
        let registry = Registry::<VersionCounts>::new(2);
        let before = registry.series("s", "r");
        before.of(0).by_class[1].add(1);
        let after = registry.series("s", "r");
        drop(before);
        after.of(1).by_class[1].add(1);
        assert_eq!(count(&after), 2);
        assert_eq!(count(&registry.series("s", "other")), 0);
        assert_eq!(labels(&registry), ["r"], "what never had a request has no series");
    }

    #[test]
    fn what_is_gone_stays_for_a_while_and_then_makes_room() {
        let registry = Registry::<VersionCounts>::new(1);
        let (now, series) = (Instant::now(), registry.series("s", "r"));
        series.of(0).by_class[1].add(1);
        registry.sweep(now);
        drop(series);
        registry.sweep(now + KEPT);
        assert_eq!(labels(&registry), ["r"], "it was there a moment ago");
        drop(registry.series("s", "r"));
        registry.sweep(now + KEPT);
        registry.sweep(now + KEPT * 2 - Duration::from_secs(1));
        assert_eq!(labels(&registry), ["r"]);
        registry.sweep(now + KEPT * 2);
        assert_eq!(labels(&registry), [""; 0]);
        assert_eq!(registry.admissions.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn what_somebody_relies_on_has_numbers_of_its_own_beyond_the_limit() {
        let registry = Registry::<VersionCounts>::new(1);
        let all: Vec<_> = (0..SERIES_MAX).map(|route| registry.series("s", &route.to_string())).collect();
        all.iter().for_each(|series| series.of(0).by_class[1].add(1));
        let late = registry.series("s", "late");
        late.of(0).by_class[1].add(1);
        assert_eq!(late.counts().requests, 0, "counted together with others");
        let late = registry.series_of_its_own("s", "late");
        late.of(0).by_class[1].add(1);
        late.of(0).by_class[4].add(1);
        late.of(0).total.observe(Duration::from_micros(700));
        let counts = late.counts();
        assert_eq!((counts.requests, counts.failures, counts.latencies[2]), (2, 1, 1));
        assert_eq!(counts.latencies.iter().sum::<u64>(), 1);
    }

    #[test]
    fn buckets_are_those_that_versions_are_compared_by() {
        let ends = super::super::counter::BUCKETS.map(|(end, _)| end);
        assert_eq!(ends, gatewright_model::rollout::verdict::LATENCY_ENDS);
    }

    #[test]
    fn beyond_the_limit_requests_are_counted_together() {
        let registry = Registry::<VersionCounts>::new(1);
        let all: Vec<_> =
            (0..SERIES_MAX + 10).map(|route| registry.series("s", &route.to_string())).collect();
        for series in &all {
            series.of(0).by_class[1].add(1);
            series.of(0).by_class[1].add(1);
        }
        let read = registry.all();
        assert_eq!(read.len(), SERIES_MAX + 1);
        assert_eq!(read.last().map(|last| (last.labels(), count(last))), Some(((OTHER, OTHER), 20)));
    }
}
