//! Which nodes are healthy.
//!
//! There is one checker for each node and configuration of checks in the process, however many upstreams and
//! workers ask. It runs on the background runtime as long as an upstream holds it; requests read one word of it.
//! A configuration change finds the checker that is already running; if the checks themselves changed, a new one
//! starts from what the old one knew.
//!
//! * [`state`]: what is known of a node, and how observations change it; pure.
//! * [`probe`]: one probe.
//! * [`passive`]: what proxied answers say.
//! * [`statuses`]: a set of statuses.

pub(crate) mod passive;
pub(crate) mod probe;
pub(crate) mod state;
pub(crate) mod statuses;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use gatewright_model::resource::checks::{ActiveCheck, Checks};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;

use super::node::Place;
use crate::tls::node::NodeSession;
use probe::Probe;
use state::{Health, Seen, Thresholds};

/// Probes that run at the same time in the process: a file descriptor each.
const PROBES_MAX: usize = 256;

/// The shortest pause between two probes, whatever a configuration says.
const INTERVAL_MIN: Duration = Duration::from_millis(50);

/// The checkers of the process.
pub(crate) struct Checkers {
    runtime: Handle,
    probing: Arc<Semaphore>,
    running: Running,
}

/// By node, so that a checker finds its predecessor.
type Running = Arc<Mutex<HashMap<NodeName, Vec<Known>>>>;

/// Host as it was written, and port.
type NodeName = (Box<str>, u16);

struct Known {
    /// Everything that makes two checkers of a node differ.
    configuration: String,
    checker: Weak<Checker>,
    health: Weak<Health>,
}

/// What an upstream asks of its nodes.
pub(crate) struct CheckPlan<'c> {
    checks: &'c Checks,
    configuration: String,
    concurrency: Arc<Semaphore>,
}

impl<'c> CheckPlan<'c> {
    pub(crate) fn new(checks: &'c Checks) -> Self {
        Self {
            checks,
            configuration: serde_json::to_string(checks).unwrap_or_default(),
            concurrency: Arc::new(Semaphore::new(usize::from(checks.active.concurrency).max(1))),
        }
    }
}

/// How the probes of a node ask.
pub(crate) struct Asking<'a> {
    /// The `Host` they carry.
    pub(crate) host: &'a [u8],
    /// What the node must show over TLS; absent: probes go without.
    pub(crate) tls: Option<Arc<NodeSession>>,
}

/// Checks one node until it is dropped.
pub(crate) struct Checker {
    node: NodeName,
    health: Arc<Health>,
    running: Weak<Mutex<HashMap<NodeName, Vec<Known>>>>,
    task: AbortHandle,
}

impl Checkers {
    /// Checkers that run on `runtime`.
    pub(crate) fn new(runtime: Handle) -> Self {
        Self { runtime, probing: Arc::new(Semaphore::new(PROBES_MAX)), running: Running::default() }
    }

    /// The checker of a node: the one that is running, or a new one.
    ///
    /// # Errors
    /// When no valid probe can be made of the configuration.
    pub(crate) fn checker(
        &self,
        plan: &CheckPlan<'_>,
        (node_host, port): (&str, u16),
        place: &Arc<Place>,
        asking: Asking<'_>,
    ) -> Result<Arc<Checker>, hyper::http::Error> {
        let session = asking.tls.as_ref().map_or(0, |tls| tls.number);
        let host = String::from_utf8_lossy(asking.host);
        let configuration = format!("{session} {host} {}", plan.configuration);
        let node: NodeName = (node_host.into(), port);
        let probe = Probe::compile(&plan.checks.active, asking)?;
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let known = running.entry(node.clone()).or_default();
        let same = known.iter().find(|known| known.configuration == configuration);
        if let Some(checker) = same.and_then(|known| known.checker.upgrade()) {
            return Ok(checker);
        }
        let healthy = known.iter().rev().find_map(|known| known.health.upgrade());
        let health = Arc::new(Health::new(healthy.is_none_or(|health| health.is_healthy())));
        let checking = Checking {
            node: node.clone(),
            health: Arc::clone(&health),
            place: Arc::clone(place),
            probe,
            rhythm: Rhythm::of(&plan.checks.active),
            port: plan.checks.active.port,
            turns: [Arc::clone(&plan.concurrency), Arc::clone(&self.probing)],
        };
        let task = self.runtime.spawn(checking.run()).abort_handle();
        let running = Arc::downgrade(&self.running);
        let checker = Arc::new(Checker { node, health: Arc::clone(&health), running, task });
        known.retain(|known| known.health.strong_count() > 0 && known.configuration != configuration);
        known.push(Known {
            configuration,
            checker: Arc::downgrade(&checker),
            health: Arc::downgrade(&health),
        });
        Ok(checker)
    }
}

impl Checker {
    pub(crate) fn health(&self) -> &Health {
        &self.health
    }

    /// Takes note of what a proxied request saw.
    pub(crate) fn note(&self, seen: Seen, thresholds: Thresholds) {
        note(&self.node, &self.health, seen, thresholds);
    }
}

impl Drop for Checker {
    fn drop(&mut self) {
        self.task.abort();
        let Some(running) = self.running.upgrade() else { return };
        let mut running = running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = running.get_mut(&self.node) {
            known.retain(|known| known.checker.strong_count() > 0);
            if known.is_empty() {
                running.remove(&self.node);
            }
        }
    }
}

fn note(node: &NodeName, health: &Health, seen: Seen, thresholds: Thresholds) {
    let (host, port) = node;
    match health.note(seen, thresholds) {
        Some(true) => tracing::info!(%host, port, "node is healthy again"),
        Some(false) => tracing::warn!(%host, port, last = seen.name(), "node is unhealthy"),
        None => {}
    }
}

/// When the next probe is sent and what its outcome means.
#[derive(Clone, Copy)]
struct Rhythm {
    healthy_interval: Duration,
    unhealthy_interval: Duration,
    thresholds: Thresholds,
}

impl Rhythm {
    fn of(check: &ActiveCheck) -> Self {
        Self {
            healthy_interval: check.healthy.interval.duration().max(INTERVAL_MIN),
            unhealthy_interval: check.unhealthy.interval.duration().max(INTERVAL_MIN),
            thresholds: Thresholds {
                successes: check.healthy.successes,
                http_failures: check.unhealthy.http_failures,
                tcp_failures: check.unhealthy.tcp_failures,
                timeouts: check.unhealthy.timeouts,
            },
        }
    }
}

/// The task of a checker.
struct Checking {
    node: NodeName,
    health: Arc<Health>,
    place: Arc<Place>,
    probe: Probe,
    rhythm: Rhythm,
    port: Option<u16>,
    /// The upstream's and the process's.
    turns: [Arc<Semaphore>; 2],
}

impl Checking {
    async fn run(self) {
        let mut round: usize = 0;
        loop {
            if let Some(seen) = self.look(round).await {
                note(&self.node, &self.health, seen, self.rhythm.thresholds);
            }
            round = round.wrapping_add(1);
            let healthy = self.health.is_healthy();
            let interval =
                if healthy { self.rhythm.healthy_interval } else { self.rhythm.unhealthy_interval };
            // Jitter keeps the probes of a thousand nodes from marching in step.
            tokio::time::sleep(interval.mul_f64(0.95 + 0.1 * fastrand::f64())).await;
        }
    }

    async fn look(&self, round: usize) -> Option<Seen> {
        let [upstream, process] = &self.turns;
        let _turn = upstream.acquire().await.ok()?;
        let _turn = process.acquire().await.ok()?;
        // A name that does not resolve says nothing about the node behind it.
        let mut address = self.place.settled(round).await?;
        if let Some(port) = self.port {
            address.set_port(port);
        }
        self.probe.run(address).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::Background;
    use serde_json::{Value, json};

    fn checks(active: Value) -> Checks {
        serde_json::from_value(json!({ "active": active })).unwrap()
    }

    fn checker(background: &Background, active: Value, host: &str) -> Arc<Checker> {
        let place = Arc::new(Place::Ip("10.0.0.1:80".parse().unwrap()));
        let checks = checks(active);
        let plan = CheckPlan::new(&checks);
        let asking = Asking { host: host.as_bytes(), tls: None };
        background.materials.checkers.checker(&plan, ("10.0.0.1", 80), &place, asking).unwrap()
    }

    #[test]
    fn the_same_checks_of_the_same_node_share_a_checker() {
        let background = Background::idle(1);
        let one = checker(&background, json!({}), "a");
        assert!(Arc::ptr_eq(&one, &checker(&background, json!({"timeout": 1}), "a")));
        assert!(!Arc::ptr_eq(&one, &checker(&background, json!({"timeout": 2}), "a")));
        assert!(!Arc::ptr_eq(&one, &checker(&background, json!({}), "b")));
    }

    #[test]
    fn changed_checks_start_from_what_is_known() {
        let background = Background::idle(1);
        let old = checker(&background, json!({}), "a");
        let thresholds = Thresholds { successes: 1, http_failures: 1, tcp_failures: 1, timeouts: 1 };
        old.note(Seen::Timeout, thresholds);
        assert!(!checker(&background, json!({"timeout": 2}), "a").health().is_healthy());
    }

    #[test]
    fn what_nobody_holds_is_forgotten() {
        let background = Background::idle(1);
        let (old, new) =
            (checker(&background, json!({}), "a"), checker(&background, json!({"timeout": 2}), "a"));
        let known =
            || background.materials.checkers.running.lock().unwrap().values().map(Vec::len).sum::<usize>();
        assert_eq!(known(), 2);
        drop(old);
        assert_eq!(known(), 1);
        drop(new);
        assert!(background.materials.checkers.running.lock().unwrap().is_empty());
    }

    #[test]
    fn a_probe_that_is_no_request_is_refused() {
        let background = Background::idle(1);
        let place = Arc::new(Place::Ip("10.0.0.1:80".parse().unwrap()));
        for active in [json!({"http_path": "/a b"}), json!({"req_headers": ["X: 1\r\nY: 2"]})] {
            let checks = checks(active.clone());
            let asking = Asking { host: b"a", tls: None };
            let made = background.materials.checkers.checker(
                &CheckPlan::new(&checks),
                ("10.0.0.1", 80),
                &place,
                asking,
            );
            assert!(made.is_err(), "{active}");
        }
    }
}
