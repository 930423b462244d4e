//! The tries of one request: which node is next, and when it is enough.
//!
//! A node is tried once. Healthy nodes come first; if none is healthy all are used, because a check may be wrong
//! and no answer certainly is.
//! Repeats of what a node may already have worked on are bounded by a budget, so that an upstream in trouble is
//! not finished off by its own gateway; a try that found no connection cost the upstream nothing and is free.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::balance::Asked;
use super::health::passive::Passive;
use super::health::state::Seen;
use super::node::Node;
use super::per_worker::PerWorker;
use super::{RETRIES_MAX, Upstream};
use crate::proxy::reject::RejectReason;
use crate::worker::timer::ticks;

/// What a repeat costs; a request brings in 1. So at most a fifth of the requests is repeated.
const REPEAT_COST: u32 = 5;

/// Repeats that may be saved up: a short failure is bridged even with little traffic.
const REPEATS_SAVED_MAX: u32 = 10;

/// What is left for repeats, for each worker.
pub(super) struct Budget(PerWorker<AtomicU32>);

impl Budget {
    pub(super) fn new(workers: usize) -> Self {
        Self(PerWorker::new(workers, |_| AtomicU32::new(REPEAT_COST * REPEATS_SAVED_MAX)))
    }

    fn earn(&self, worker: usize) {
        let saved = self.0.of(worker);
        let now = saved.load(Ordering::Relaxed);
        if now < REPEAT_COST * REPEATS_SAVED_MAX {
            saved.store(now + 1, Ordering::Relaxed);
        }
    }

    fn is_left(&self, worker: usize) -> bool {
        self.0.of(worker).load(Ordering::Relaxed) >= REPEAT_COST
    }

    fn spend(&self, worker: usize) -> bool {
        let saved = self.0.of(worker);
        let left = saved.load(Ordering::Relaxed).checked_sub(REPEAT_COST);
        left.inspect(|left| saved.store(*left, Ordering::Relaxed)).is_some()
    }
}

/// The tries of one request.
pub(crate) struct Tries<'u> {
    upstream: &'u Upstream,
    asked: Asked,
    /// Empty, without memory of its own, unless a try fails.
    tried: Vec<usize>,
    /// The tick after which no further try starts.
    last_start: u64,
}

/// What came of a try, as far as the next one is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failed {
    /// There was no connection, so nothing was sent.
    Unsent,
    /// The request was sent and nothing was answered, or nothing that counts; the caller made sure that it may be
    /// repeated.
    Unanswered,
}

impl<'u> Tries<'u> {
    /// Of a request that asks at the tick `now`.
    pub(crate) fn new(upstream: &'u Upstream, asked: Asked, now: u64) -> Self {
        upstream.budget.earn(asked.worker);
        let last_start = match upstream.retry_timeout {
            Duration::ZERO => u64::MAX,
            timeout => now.saturating_add(ticks(timeout)),
        };
        Self { upstream, asked, tried: Vec::new(), last_start }
    }

    /// The first try; `None`: there is no node.
    pub(crate) fn first(&self) -> Option<Try<'u>> {
        self.choose()
    }

    /// Another try after `last` failed, if there may be one.
    pub(crate) fn another(&mut self, last: &Try<'_>, failed: Failed, now: u64) -> Option<Try<'u>> {
        self.tried.push(last.index);
        if self.tried.len() > self.upstream.retries.min(RETRIES_MAX) || now > self.last_start {
            return None;
        }
        let next = self.choose()?;
        if failed == Failed::Unanswered && !self.upstream.budget.spend(self.asked.worker) {
            return None;
        }
        Some(next)
    }

    /// Whether `last`, which was answered with `status` at the tick `now`, is rather followed by another try than
    /// taken for the answer.
    pub(crate) fn rejects(&self, last: &Try<'_>, status: u16, now: u64) -> bool {
        let Upstream { nodes, retry_statuses, retries, budget, .. } = self.upstream;
        if !retry_statuses.contains(status)
            || self.tried.len() >= (*retries).min(RETRIES_MAX)
            || now > self.last_start
            || !budget.is_left(self.asked.worker)
        {
            return false;
        }
        let all_unhealthy = !nodes.iter().any(|node| node.is_healthy());
        let mut others =
            nodes.iter().enumerate().filter(|(node, _)| *node != last.index && !self.tried.contains(node));
        others.any(|(_, node)| all_unhealthy || node.is_healthy())
    }

    fn choose(&self) -> Option<Try<'u>> {
        let Upstream { balance, nodes, .. } = self.upstream;
        let untried = |node: usize| !self.tried.contains(&node);
        let healthy = balance.next(self.asked, |node| untried(node) && nodes[node].is_healthy());
        let index = match healthy {
            Some(index) => index,
            None if nodes.iter().any(|node| node.is_healthy()) => return None,
            None => balance.next(self.asked, untried)?,
        };
        Some(Try::begin(self.upstream, self.asked.worker, index))
    }
}

/// One attempt at a node, counted as in flight until it is dropped.
pub(crate) struct Try<'u> {
    pub(crate) node: &'u Node,
    upstream: &'u Upstream,
    worker: usize,
    index: usize,
    begun: Option<Instant>,
}

impl<'u> Try<'u> {
    fn begin(upstream: &'u Upstream, worker: usize, index: usize) -> Self {
        upstream.balance.begin(worker, index);
        let begun = upstream.wants_times.then(Instant::now);
        Self { node: &upstream.nodes[index], upstream, worker, index, begun }
    }

    /// The node began its answer.
    pub(crate) fn answered(&self, status: u16) {
        if let Some(begun) = self.begun {
            self.upstream.balance.measure(self.worker, self.index, Some(begun.elapsed()));
        }
        if let (Some(passive), Some(checker)) = (&self.upstream.passive, &self.node.checker)
            && let Some(seen) = passive.of_status(status)
        {
            checker.note(seen, passive.thresholds);
        }
    }

    /// A connection stands, which is all that can be said of a node where bytes are passed on as they come.
    pub(crate) fn connected(&self) {
        if let Some(begun) = self.begun {
            self.upstream.balance.measure(self.worker, self.index, Some(begun.elapsed()));
        }
        if let (Some(passive), Some(checker)) = (&self.upstream.passive, &self.node.checker) {
            checker.note(Seen::Success, passive.thresholds);
        }
    }

    /// The try came to nothing.
    pub(crate) fn failed(&self, reason: RejectReason) {
        let Some(seen) = Passive::of_failure(reason) else { return };
        if self.begun.is_some() {
            self.upstream.balance.measure(self.worker, self.index, None);
        }
        if let (Some(passive), Some(checker)) = (&self.upstream.passive, &self.node.checker) {
            checker.note(seen, passive.thresholds);
        }
    }
}

impl Drop for Try<'_> {
    fn drop(&mut self) {
        self.upstream.balance.end(self.worker, self.index);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::Background;
    use serde_json::{Value, json};

    const ASKED: Asked = Asked { worker: 0, key: 0 };

    fn upstream(more: Value) -> Upstream {
        let mut document = json!({"nodes": [
            {"host": "10.0.0.1", "port": 80, "weight": 1}, {"host": "10.0.0.2", "port": 80, "weight": 1},
            {"host": "10.0.0.3", "port": 80, "weight": 1}
        ]});
        for (key, value) in more.as_object().unwrap() {
            document[key] = value.clone();
        }
        let resource = serde_json::from_value(document).unwrap();
        Upstream::compile(&resource, None, &Background::idle(1)).map_err(RejectReason::name).unwrap()
    }

    /// The last digits of the nodes tried when every try fails, half a second after the other.
    fn tried(upstream: &Upstream, failed: Failed) -> Vec<char> {
        let mut tries = Tries::new(upstream, ASKED, 0);
        let mut next = tries.first();
        let mut hosts = Vec::new();
        while let Some(current) = next {
            hosts.push(current.node.written.host.chars().next_back().unwrap());
            let now = 5 * hosts.len() as u64;
            next = tries.another(&current, failed, now);
        }
        hosts
    }

    #[test]
    fn every_node_is_tried_once_unless_the_upstream_says_otherwise() {
        for (more, expected) in [
            (json!({}), 3),
            (json!({"retries": 0}), 1),
            (json!({"retries": 1}), 2),
            (json!({"retries": 100}), 3),
            (json!({"retry_timeout": 0.6}), 2),
        ] {
            let tried = tried(&upstream(more.clone()), Failed::Unsent);
            assert_eq!(tried.len(), expected, "{more}: {tried:?}");
        }
    }

    #[test]
    fn repeats_are_at_most_a_fifth_of_the_requests() {
        let upstream = upstream(json!({"retries": 1}));
        let requests = 1000;
        let tries: usize = (0..requests).map(|_| tried(&upstream, Failed::Unanswered).len()).sum();
        let repeats = tries - requests;
        assert!((200..=215).contains(&repeats), "{repeats}");
        let free: usize = (0..requests).map(|_| tried(&upstream, Failed::Unsent).len()).sum();
        assert_eq!(free, 2 * requests, "what was never sent is no load");
    }

    #[test]
    fn unhealthy_nodes_are_left_out_until_all_are_unhealthy() {
        let upstream = upstream(json!({
            "checks": {"active": {}, "passive": {"unhealthy": {"tcp_failures": 1}}},
            "nodes": [
                {"host": "10.0.0.1", "port": 80, "weight": 1, "priority": 1},
                {"host": "10.0.0.2", "port": 80, "weight": 1, "priority": 1},
                {"host": "10.0.0.3", "port": 80, "weight": 1}
            ]
        }));
        let fail = |node: usize| Try::begin(&upstream, 0, node).failed(RejectReason::UpstreamConnectFailed);
        let first = || Tries::new(&upstream, ASKED, 0).first().unwrap().node.written.host.clone();
        fail(0);
        assert_eq!([first(), first()], ["10.0.0.2", "10.0.0.2"]);
        fail(1);
        assert_eq!([first(), first()], ["10.0.0.3", "10.0.0.3"]);
        assert_eq!(tried(&upstream, Failed::Unsent), ['3'], "an unhealthy node is no second try");
        fail(2);
        let mut hosts = tried(&upstream, Failed::Unsent);
        hosts.sort_unstable();
        assert_eq!(hosts, ['1', '2', '3'], "all unhealthy: all are used");
    }
}
