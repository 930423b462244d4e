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
