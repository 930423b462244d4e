//! Numbers that one thread raises and any thread may read.
//!
//! A counter has a single writer, its worker, so raising it is a plain load and store: no locked instruction, and no
//! memory that another worker writes.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A number that only one thread changes.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    /// Only to be called by the thread the counter belongs to.
    pub(crate) fn add(&self, count: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(count), Ordering::Relaxed);
    }

    /// Only to be called by the thread the counter belongs to.
    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Upper ends of the buckets: microseconds, and the same in seconds as text. Those of APISIX, and two below for what
/// the gateway itself takes.
pub(crate) const BUCKETS: [(u64, &str); 17] = [
    (200, "0.0002"),
    (500, "0.0005"),
    (1_000, "0.001"),
    (2_000, "0.002"),
    (5_000, "0.005"),
    (10_000, "0.01"),
    (20_000, "0.02"),
    (50_000, "0.05"),
    (100_000, "0.1"),
    (200_000, "0.2"),
    (500_000, "0.5"),
    (1_000_000, "1"),
    (2_000_000, "2"),
    (5_000_000, "5"),
    (10_000_000, "10"),
    (30_000_000, "30"),
    (60_000_000, "60"),
];

/// The upper ends of [`BUCKETS`] in milliseconds.
pub(crate) const BUCKETS_MILLIS: [(u64, &str); BUCKETS.len()] = [
    (200, "0.2"),
    (500, "0.5"),
    (1_000, "1"),
    (2_000, "2"),
    (5_000, "5"),
    (10_000, "10"),
    (20_000, "20"),
    (50_000, "50"),
    (100_000, "100"),
    (200_000, "200"),
    (500_000, "500"),
    (1_000_000, "1000"),
    (2_000_000, "2000"),
    (5_000_000, "5000"),
    (10_000_000, "10000"),
    (30_000_000, "30000"),
    (60_000_000, "60000"),
];

/// How long things took.
#[derive(Debug, Default)]
pub(crate) struct Histogram {
    /// One for each bucket, and one for what is longer than the last.
    counts: [Counter; BUCKETS.len() + 1],
    microseconds: Counter,
}

impl Histogram {
    /// Only to be called by the thread the histogram belongs to.
    pub(crate) fn observe(&self, time: Duration) {
        let microseconds = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let bucket = BUCKETS.iter().position(|(end, _)| microseconds <= *end).unwrap_or(BUCKETS.len());
        self.counts[bucket].add(1);
        self.microseconds.add(microseconds);
    }
}

/// What several histograms say together.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Distribution {
    /// How many took at most as long as each bucket's end; the last one: all.
    pub(crate) cumulative: [u64; BUCKETS.len() + 1],
    pub(crate) seconds: f64,
}

impl Distribution {
    pub(crate) fn of<'h>(histograms: impl Iterator<Item = &'h Histogram>) -> Self {
        let mut sum = Self::default();
        let mut microseconds: u64 = 0;
        for histogram in histograms {
            for (count, counter) in sum.cumulative.iter_mut().zip(&histogram.counts) {
                *count += counter.get();
            }
            microseconds = microseconds.wrapping_add(histogram.microseconds.get());
        }
        for bucket in 1..sum.cumulative.len() {
            sum.cumulative[bucket] += sum.cumulative[bucket - 1];
        }
        sum.seconds = Duration::from_micros(microseconds).as_secs_f64();
        sum
    }

    pub(crate) fn count(&self) -> u64 {
        self.cumulative[BUCKETS.len()]
    }
}

/// How often things happened and how long they took together, by name; a plugin more than there is room for is not
/// counted.
pub(crate) struct Times(Box<[(OnceLock<&'static str>, Counter, Counter)]>);

impl Default for Times {
    fn default() -> Self {
        Self((0..NAMES_MAX).map(|_| Default::default()).collect())
    }
}

impl Times {
    /// Only to be called by the thread the times belong to.
    pub(crate) fn add(&self, name: &'static str, took: Duration) {
        for (known, count, nanoseconds) in &self.0 {
            if *known.get_or_init(|| name) == name {
                count.add(1);
                return nanoseconds.add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
            }
        }
    }

    /// Names with how often and how long.
    pub(crate) fn read(&self) -> impl Iterator<Item = (&'static str, u64, Duration)> {
        let read = |(name, count, nanoseconds): &(OnceLock<&'static str>, Counter, Counter)| {
            Some((*name.get()?, count.get(), Duration::from_nanos(nanoseconds.get())))
        };
        self.0.iter().map_while(read)
    }
}

/// Names counted at the same time; there are fewer causes than this, each a constant of the program.
const NAMES_MAX: usize = 128;

/// Counters by name, for things that happen rarely and for causes that each place names for itself.
pub(crate) struct Tally(Box<[(OnceLock<&'static str>, Counter)]>);

impl Default for Tally {
    fn default() -> Self {
        Self((0..NAMES_MAX).map(|_| Default::default()).collect())
    }
}

impl Tally {
    /// Only to be called by the thread the tally belongs to.
    pub(crate) fn count(&self, name: &'static str) {
        for (known, counter) in &self.0 {
            if *known.get_or_init(|| name) == name {
                return counter.add(1);
            }
        }
    }

    pub(crate) fn read(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.0.iter().map_while(|(name, counter)| Some((*name.get()?, counter.get())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_rise_and_their_names_are_their_ends() {
        assert!(BUCKETS.is_sorted_by(|one, next| one.0 < next.0));
        for (microseconds, text) in BUCKETS {
            assert_eq!(text.parse::<f64>().unwrap(), Duration::from_micros(microseconds).as_secs_f64());
        }
        for ((end, text), (microseconds, _)) in BUCKETS_MILLIS.iter().zip(BUCKETS) {
            assert_eq!((*end, text.parse::<f64>().unwrap()), (microseconds, microseconds as f64 / 1000.0));
        }
    }

    #[test]
    fn what_took_exactly_as_long_as_a_bucket_is_in_it() {
        let (one, other) = (Histogram::default(), Histogram::default());
        one.observe(Duration::from_micros(200));
        one.observe(Duration::from_micros(201));
        other.observe(Duration::from_secs(61));
        let sum = Distribution::of([&one, &other].into_iter());
        assert_eq!(sum.cumulative[..3], [1, 2, 2]);
        assert_eq!((sum.cumulative[BUCKETS.len() - 1], sum.count()), (2, 3));
        assert_eq!(sum.seconds, 61.000_401);
    }

    #[test]
    fn times_are_added_up_by_name() {
        let times = Times::default();
        for (name, millis) in [("a", 1), ("b", 2), ("a", 3)] {
            times.add(name, Duration::from_millis(millis));
        }
        let expected = [("a", 2, Duration::from_millis(4)), ("b", 1, Duration::from_millis(2))];
        assert_eq!(times.read().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_tally_counts_by_name() {
        let tally = Tally::default();
        ["a", "b", "a"].into_iter().for_each(|name| tally.count(name));
        assert_eq!(tally.read().collect::<Vec<_>>(), [("a", 2), ("b", 1)]);
    }
}
