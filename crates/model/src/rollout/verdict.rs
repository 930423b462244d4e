//! Whether a candidate is worse than the version it is compared with, by what gateways counted of both.
//!
//! Pure, and made of counts alone: what is not known leads to no verdict.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Share;
use crate::id::ServiceId;

/// Upper ends, in microseconds, of the buckets that latencies are counted in; one more holds what takes longer.
pub const LATENCY_ENDS: [u64; 17] = [
    200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000, 2_000_000,
    5_000_000, 10_000_000, 30_000_000, 60_000_000,
];

/// Milliseconds that a latency must be higher at least to count as worse: below it, ratios are noise.
const LATENCY_MILLISECONDS_MIN: f64 = 5.0;

/// The part of requests that the compared latency holds for.
const QUANTILE: f64 = 0.95;

/// What a gateway counted of one version since it started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionCounts {
    /// The service.
    pub service_id: ServiceId,
    /// The number of the version.
    pub version: String,
    /// What was counted.
    #[serde(flatten)]
    pub counts: Counts,
}

/// Requests, how many of them failed, and how long they took.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Requests that were answered.
    pub requests: u64,
    /// Those that were answered with a status of 500 or more.
    pub failures: u64,
    /// How many fell into each bucket of [`LATENCY_ENDS`], and one more.
    pub latencies: Vec<u64>,
}

impl Counts {
    /// What was counted since `mark`. Less than there was then means that the counting began anew.
    #[must_use]
    pub fn since(&self, mark: &Self) -> Self {
        if self.requests < mark.requests {
            return self.clone();
        }
        let bucket = |index: usize| mark.latencies.get(index).copied().unwrap_or_default();
        let latencies = self.latencies.iter().enumerate();
        Self {
            requests: self.requests - mark.requests,
            failures: self.failures.saturating_sub(mark.failures),
            latencies: latencies.map(|(index, count)| count.saturating_sub(bucket(index))).collect(),
        }
    }

    /// Adds what somebody else counted.
    pub fn add(&mut self, other: &Self) {
        self.requests = self.requests.saturating_add(other.requests);
        self.failures = self.failures.saturating_add(other.failures);
        if self.latencies.len() < other.latencies.len() {
            self.latencies.resize(other.latencies.len(), 0);
        }
        for (sum, count) in self.latencies.iter_mut().zip(&other.latencies) {
            *sum = sum.saturating_add(*count);
        }
    }

    /// The part of the requests that failed; none: there were none.
    #[must_use]
    pub fn failure_ratio(&self) -> Option<f64> {
        #[allow(clippy::cast_precision_loss, reason = "a ratio of counts needs no more")]
        (self.requests > 0).then(|| self.failures as f64 / self.requests as f64)
    }

    /// What 95 of 100 requests took at most, in milliseconds, as far as buckets tell.
    #[must_use]
    #[allow(clippy::cast_precision_loss, reason = "an estimate")]
    pub fn latency_milliseconds(&self) -> Option<f64> {
        let total: u64 = self.latencies.iter().sum();
        let wanted = total as f64 * QUANTILE;
        let mut below = 0_u64;
        for (index, count) in self.latencies.iter().enumerate().filter(|(_, count)| **count > 0) {
            if (below + count) as f64 >= wanted {
                let start = index.checked_sub(1).and_then(|index| LATENCY_ENDS.get(index)).copied();
                let start = start.unwrap_or_default() as f64;
                // Nobody knows how long the longest took; the last end is the least of it.
                let end = LATENCY_ENDS.get(index).map_or(start, |end| *end as f64);
                let inside = (wanted - below as f64) / *count as f64;
                return Some((start + (end - start) * inside) / 1000.0);
            }
            below += count;
        }
        None
    }
}

/// What gateways had counted when a comparison began: by instance, then by version.
pub type Marks = BTreeMap<String, BTreeMap<String, Counts>>;

/// By how much a candidate may be worse.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
#[schema(default)]
pub struct Guard {
    /// By how many percentage points more of its requests may fail.
    #[serde(rename = "error_margin_percent")]
    #[schema(value_type = f64, minimum = 0, maximum = 100, default = 5)]
    pub error_margin: Share,
    /// How many percent of its requests may fail, whatever the other version does.
    #[serde(rename = "error_max_percent")]
    #[schema(value_type = f64, minimum = 0, maximum = 100, default = 50)]
    pub error_max: Share,
    /// By how many percent longer 95 of 100 requests may take; 0: latency is not compared.
    #[serde(rename = "latency_margin_percent")]
    #[schema(maximum = 100_000)]
    pub latency_margin: u32,
    /// Requests of a version that must have been answered before anything is said about it.
    #[schema(minimum = 1, maximum = 1_000_000_000)]
    pub requests_min: u64,
}

impl Default for Guard {
    fn default() -> Self {
        let (error_margin, error_max) = (Share::of_hundredths(500), Share::of_hundredths(5000));
        Self { error_margin, error_max, latency_margin: 100, requests_min: 20 }
    }
}

/// Both sides of a comparison.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// The version on its way.
    pub candidate: Counts,
    /// The one it is compared with.
    pub baseline: Counts,
}

/// What a comparison comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The candidate is worse, and how.
    Worse(String),
    /// It is not worse.
    Fine,
    /// Not enough is known, and what.
    Unknown(String),
}

impl Guard {
    /// The verdict about a candidate.
    #[must_use]
    pub fn judge(&self, comparison: &Comparison) -> Verdict {
        let Comparison { candidate, baseline } = comparison;
        let ratio = candidate.failure_ratio().filter(|_| candidate.requests >= self.requests_min);
        let Some(ratio) = ratio else {
            return Verdict::Unknown(format!(
                "the candidate answered {} of the {} requests that are needed for a comparison",
                candidate.requests, self.requests_min
            ));
        };
        let failed = format!(
            "{} of {} requests failed ({:.2} %)",
            candidate.failures,
            candidate.requests,
            ratio * 100.0
        );
        if ratio > self.error_max.ratio() {
            return Verdict::Worse(format!("{failed}, more than {}", self.error_max));
        }
        let before = baseline.failure_ratio().filter(|_| baseline.requests >= self.requests_min);
        let Some(before) = before else {
            return Verdict::Unknown(format!(
                "the running version answered {} of the {} requests that are needed for a comparison",
                baseline.requests, self.requests_min
            ));
        };
        if ratio > before + self.error_margin.ratio() {
            let (before, margin) = (before * 100.0, self.error_margin);
            return Verdict::Worse(format!(
                "{failed}, and {before:.2} % of the other version: more than {margin} apart"
            ));
        }
        match (candidate.latency_milliseconds(), baseline.latency_milliseconds()) {
            (Some(latency), Some(before)) if self.is_slower(latency, before) => Verdict::Worse(format!(
                "95 % of requests took up to {latency:.1} ms, and {before:.1} ms of the other version: more than {} % longer",
                self.latency_margin
            )),
            _ => Verdict::Fine,
        }
    }

    fn is_slower(&self, latency: f64, before: f64) -> bool {
        self.latency_margin > 0
            && latency - before >= LATENCY_MILLISECONDS_MIN
            && latency > before * (1.0 + f64::from(self.latency_margin) / 100.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(requests: u64, failures: u64, bucket: usize) -> Counts {
        let mut latencies = vec![0; LATENCY_ENDS.len() + 1];
        latencies[bucket] = requests;
        Counts { requests, failures, latencies }
    }

    fn judge(candidate: Counts, baseline: Counts) -> Verdict {
        Guard::default().judge(&Comparison { candidate, baseline })
    }

    #[test]
    fn a_candidate_that_fails_more_or_takes_longer_is_worse() {
        let fine = || counts(1000, 10, 3);
        assert_eq!(judge(counts(100, 1, 3), fine()), Verdict::Fine);
        assert_eq!(judge(counts(100, 6, 3), fine()), Verdict::Fine, "within the margin");
        let Verdict::Worse(reason) = judge(counts(100, 7, 3), fine()) else { panic!("not worse") };
        assert!(
            reason.contains("7 of 100 requests failed (7.00 %)") && reason.contains("1.00 %"),
            "{reason}"
        );
        let Verdict::Worse(reason) = judge(counts(100, 0, 8), fine()) else { panic!("not worse") };
        assert!(reason.contains("longer"), "{reason}");
        assert_eq!(judge(counts(100, 0, 2), counts(1000, 0, 0)), Verdict::Fine, "a millisecond is noise");
    }

    #[test]
    fn what_is_not_known_is_no_verdict() {
        assert!(matches!(judge(Counts::default(), counts(1000, 0, 3)), Verdict::Unknown(_)));
        assert!(matches!(judge(counts(19, 19, 3), counts(1000, 0, 3)), Verdict::Unknown(_)));
        assert!(matches!(judge(counts(100, 40, 3), Counts::default()), Verdict::Unknown(_)));
        assert!(matches!(judge(counts(100, 60, 3), Counts::default()), Verdict::Worse(_)), "bad by itself");
    }

    #[test]
    fn only_what_came_since_the_mark_counts_and_a_restart_begins_anew() {
        let mark = counts(100, 5, 3);
        assert_eq!(counts(150, 9, 3).since(&mark), counts(50, 4, 3));
        assert_eq!(counts(7, 1, 3).since(&mark), counts(7, 1, 3));
        let mut sum = Counts::default();
        sum.add(&counts(3, 1, 3));
        sum.add(&counts(4, 0, 3));
        assert_eq!(sum, counts(7, 1, 3));
    }

    #[test]
    fn a_latency_is_estimated_inside_its_bucket() {
        assert_eq!(counts(0, 0, 3).latency_milliseconds(), None);
        let latency = counts(100, 0, 4).latency_milliseconds().unwrap();
        assert!((4.8..4.9).contains(&latency), "{latency}");
        let longest = counts(10, 0, LATENCY_ENDS.len()).latency_milliseconds().unwrap();
        assert!((longest - 60_000.0).abs() < 1.0, "{longest}");
    }
}
