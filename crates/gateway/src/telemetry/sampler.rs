//! Heads of a few requests, for previews.
//!
//! What a request costs that is not sampled is one relaxed load. How many are sampled does not depend on the load: a
//! clock puts tickets out, and a request that finds one takes it. A sampled request waits for nobody: where another
//! worker is at the ring, its head is not kept.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use gatewright_model::message::RequestHead;
use gatewright_model::sample::{AgedHead, HEADS_PER_SENDING_MAX, SampledHead, SamplingSettings};
use tokio::sync::watch;

use super::record::Outcome;

/// Between two clocks' strikes at least.
const TICK_MIN: Duration = Duration::from_millis(100);

/// Takes a few heads and keeps them for a while.
pub(crate) struct Sampler {
    /// Heads that may be taken until the clock strikes.
    tickets: AtomicU32,
    ring: Mutex<Ring>,
    /// The settings; none: nobody has said that heads are wanted.
    wanted: watch::Sender<Option<SamplingSettings>>,
    /// Says which life the heads are numbered in.
    pub(crate) life: u64,
}

/// The newest heads, numbered from 0 over the life of the process.
#[derive(Default)]
struct Ring {
    settings: SamplingSettings,
    /// The number of the oldest head.
    first: u64,
    heads: VecDeque<(Instant, SampledHead)>,
}

impl Sampler {
    pub(crate) fn new() -> Self {
        let (tickets, ring) = (AtomicU32::new(0), Mutex::default());
        Self { tickets, ring, wanted: watch::Sender::new(None), life: fastrand::u64(..) }
    }

    /// What is to be kept of a request as it is matched; almost always nothing.
    #[inline]
    pub(crate) fn begin(&self, request: &RequestHead) -> Option<Box<SampledHead>> {
        if self.tickets.load(Ordering::Relaxed) == 0 { None } else { self.take(request) }
    }

    #[cold]
    fn take(&self, request: &RequestHead) -> Option<Box<SampledHead>> {
        let one_less = |tickets: u32| tickets.checked_sub(1);
        self.tickets.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).ok()?;
        let ring = self.try_ring()?;
        let line = [request.method_text, request.authority, request.target].map(|span| request.bytes(span));
        let head = SampledHead::of(&ring.settings, line.into(), |name| request.fields.named(name.as_bytes()));
        head.map(Box::new)
    }

    /// The exchange whose head was taken is over.
    pub(crate) fn keep(&self, mut head: SampledHead, outcome: &Outcome<'_>, now: Instant) {
        head.service_id = outcome.service().map(|service| service.published.service_id.clone());
        head.route_id = outcome.route().map(|route| route.route_id.clone());
        head.status = outcome.status;
        if let Some(mut ring) = self.try_ring() {
            ring.push(now, head);
        }
    }

    /// How heads are to be sampled from now on.
    pub(crate) fn configure(&self, settings: SamplingSettings) {
        let is_news = self.wanted.borrow().as_ref() != Some(&settings);
        if is_news {
            let mut ring = self.ring();
            // What was taken under other settings may be more than is wanted now.
            ring.first += ring.heads.len() as u64;
            ring.heads.clear();
            ring.settings.clone_from(&settings);
            drop(ring);
            self.wanted.send_replace(Some(settings));
        }
    }

    /// The heads from number `next` on, as many as go into one sending, and the number of the first of them.
    pub(crate) fn heads(&self, next: u64, now: Instant) -> (u64, Vec<AgedHead>) {
        let mut ring = self.ring();
        ring.forget(now);
        let first = next.max(ring.first);
        let skipped = usize::try_from(first - ring.first).unwrap_or(usize::MAX);
        let aged = |(at, head): &(Instant, SampledHead)| {
            let age = u32::try_from(now.saturating_duration_since(*at).as_secs()).unwrap_or(u32::MAX);
            AgedHead { age, head: head.clone() }
        };
        let heads = ring.heads.iter().skip(skipped).take(HEADS_PER_SENDING_MAX).map(aged).collect();
        (first, heads)
    }

    /// Puts tickets out as the settings say, for ever.
    pub(crate) async fn strike(&self) {
        let mut wanted = self.wanted.subscribe();
        loop {
            let rate = wanted.borrow_and_update().as_ref().map_or(0, |settings| settings.heads_per_second);
            let pause = match rate {
                0 => None,
                rate => Some(TICK_MIN.max(Duration::from_secs(1) / u32::from(rate))),
            };
            // Tickets that nobody took are gone: a quiet hour is no reason for a burst.
            let tickets = pause.map_or(0.0, |pause| (f64::from(rate) * pause.as_secs_f64()).round());
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most a hundred")]
            self.tickets.store(tickets as u32, Ordering::Relaxed);
            let changed = wanted.changed();
            let is_over = match pause {
                None => changed.await.is_err(),
                Some(pause) => matches!(tokio::time::timeout(pause, changed).await, Ok(Err(_))),
            };
            if is_over {
                return;
            }
        }
    }

    fn try_ring(&self) -> Option<MutexGuard<'_, Ring>> {
        match self.ring.try_lock() {
            Ok(ring) => Some(ring),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ring {
    fn push(&mut self, now: Instant, head: SampledHead) {
        while self.heads.len() >= self.settings.kept as usize && self.heads.pop_front().is_some() {
            self.first += 1;
        }
        if self.settings.kept > 0 {
            self.heads.push_back((now, head));
        }
    }

    /// Forgets what is older than it may be.
    fn forget(&mut self, now: Instant) {
        let retention = Duration::from_secs(self.settings.retention.into());
        while self.heads.front().is_some_and(|(at, _)| now.saturating_duration_since(*at) > retention) {
            self.heads.pop_front();
            self.first += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::LiveConfig;
    use crate::telemetry::record::Record;

    fn request(path: &str) -> RequestHead {
        let mut head = RequestHead::default();
        let text = format!("GET {path} HTTP/1.1\r\nHost: a.example\r\nX-Team: blue\r\nCookie: s=1\r\n\r\n");
        crate::http1::request::parse(text.as_bytes(), &mut head).unwrap();
        head
    }

    fn settings(kept: u32) -> SamplingSettings {
        SamplingSettings { kept, headers: vec!["x-team".to_owned()], ..SamplingSettings::default() }
    }

    /// A request from its match to its end, as an exchange has it.
    fn pass(sampler: &Sampler, path: &str, at: Instant) {
        let live = LiveConfig::empty();
        let record = Record::new(&live, at);
        if let Some(head) = sampler.begin(&request(path)) {
            record.answered(204);
            sampler.keep(*head, &record.outcome(), at);
        }
    }

    fn paths(sampler: &Sampler, next: u64, now: Instant) -> (u64, Vec<String>) {
        let (first, heads) = sampler.heads(next, now);
        (first, heads.into_iter().map(|aged| aged.head.path).collect())
    }

    #[test]
    fn only_requests_with_a_ticket_are_kept_and_nothing_is_before_somebody_asks() {
        let (sampler, now) = (Sampler::new(), Instant::now());
        pass(&sampler, "/before", now);
        sampler.configure(settings(10));
        pass(&sampler, "/no-ticket", now);
        sampler.tickets.store(2, Ordering::Relaxed);
        ["/a?secret=1", "/b", "/c"].iter().for_each(|path| pass(&sampler, path, now));
        assert_eq!(paths(&sampler, 0, now), (0, vec!["/a".to_owned(), "/b".to_owned()]));
        let (_, heads) = sampler.heads(0, now + Duration::from_secs(5));
        let head = &heads[0].head;
        assert_eq!((heads[0].age, head.status, head.host.as_str()), (5, 204, "a.example"));
        assert_eq!(head.headers, [("x-team".to_owned(), "blue".to_owned())]);
    }

    #[test]
    fn the_newest_heads_are_kept_for_a_while_and_numbered_on() {
        let (sampler, begun) = (Sampler::new(), Instant::now());
        sampler.configure(settings(2));
        sampler.tickets.store(100, Ordering::Relaxed);
        ["/0", "/1", "/2"].iter().for_each(|path| pass(&sampler, path, begun));
        assert_eq!(paths(&sampler, 0, begun), (1, vec!["/1".to_owned(), "/2".to_owned()]));
        assert_eq!(paths(&sampler, 2, begun), (2, vec!["/2".to_owned()]));
        assert_eq!(paths(&sampler, 3, begun), (3, Vec::new()));
        let later = begun + Duration::from_secs(3601);
        assert_eq!(paths(&sampler, 0, later), (3, Vec::new()));
        // Other settings forget what was taken under the old ones.
        pass(&sampler, "/3", later);
        sampler.configure(settings(3));
        assert_eq!(paths(&sampler, 0, later), (4, Vec::new()));
    }

    #[test]
    fn a_request_without_a_ticket_costs_no_allocation() {
        let sampler = Sampler::new();
        sampler.configure(settings(10));
        let head = request("/");
        let allocations = allocation_counter::measure(|| assert!(sampler.begin(&head).is_none()));
        assert_eq!(allocations.count_total, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn tickets_come_with_the_clock_and_are_not_saved_up() {
        let sampler = Sampler::new();
        sampler.configure(SamplingSettings { heads_per_second: 20, ..settings(10) });
        let striking = tokio::time::timeout(Duration::from_secs(5), sampler.strike());
        assert!(striking.await.is_err(), "it goes on for ever");
        assert_eq!(sampler.tickets.load(Ordering::Relaxed), 2);
        sampler.configure(SamplingSettings { heads_per_second: 0, ..settings(10) });
        assert!(tokio::time::timeout(Duration::from_secs(5), sampler.strike()).await.is_err());
        assert_eq!(sampler.tickets.load(Ordering::Relaxed), 0);
    }
}
