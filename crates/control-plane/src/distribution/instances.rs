//! What gateways have said of themselves lately, before it is written to the store.
//!
//! A heartbeat costs a place in memory; what came together is written together (see `app::instance`), so that a
//! thousand gateways that apply a revision cost one transaction.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gatewright_model::id::InstanceId;
use gatewright_model::protocol::{Epoch, Heartbeat, RegistryReport};
use gatewright_model::snapshot::Revision;
use tokio::sync::watch;

use crate::app::Proved;
use crate::store::InstanceRow;

/// Instances that are remembered: twice the gateways that may watch, since instance ids may change.
const INSTANCES_MAX: usize = 20_000;

/// Seconds after which an instance that went silent is only in the store.
const REMEMBERED_SECONDS: i64 = 60 * 60;

/// The instances that this control plane hears from.
#[derive(Clone)]
pub(crate) struct Instances {
    seen: Arc<Mutex<HashMap<InstanceId, Seen>>>,
    heard: watch::Sender<()>,
}

struct Seen {
    row: InstanceRow,
    is_written: bool,
    /// What it had applied when that was last compared with the newest revision.
    applied_before: Option<Revision>,
    /// What it had found of registries when that was last written.
    registries_before: Vec<RegistryReport>,
}

impl Default for Instances {
    fn default() -> Self {
        Self { seen: Arc::default(), heard: watch::Sender::new(()) }
    }
}

/// There are too many instances.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("this control plane remembers {INSTANCES_MAX} instances, and takes no more")]
pub(crate) struct TooMany;

impl Instances {
    /// Takes a heartbeat.
    pub(crate) fn heard(
        &self,
        proved: &Proved,
        ip: IpAddr,
        heartbeat: Heartbeat,
        now: i64,
    ) -> Result<(), TooMany> {
        let group = &proved.gateway_group_id;
        let mut seen = self.seen();
        let id = heartbeat.instance_id.clone();
        if seen.len() >= INSTANCES_MAX && !seen.contains_key(&id) {
            return Err(TooMany);
        }
        let known = seen.remove(&id);
        let same_group = known.filter(|known| known.row.gateway_group_id == *group);
        let (behind_since, applied_before, created_at, registries_before) =
            same_group.map_or((None, None, now, Vec::new()), |known| {
                let Seen { row, applied_before, registries_before, .. } = known;
                (row.behind_since, applied_before, row.created_at, registries_before)
            });
        let gateway_group_id = group.clone();
        let ip = ip.to_string();
        let row = InstanceRow {
            gateway_group_id,
            ip,
            heartbeat,
            certificate_expires_at: proved.expires_at,
            behind_since,
            heartbeat_at: now,
            created_at,
        };
        seen.insert(id, Seen { row, is_written: false, applied_before, registries_before });
        drop(seen);
        self.heard.send_replace(());
        Ok(())
    }

    /// Wakes on every heartbeat after this call.
    pub(crate) fn subscribe(&self) -> watch::Receiver<()> {
        self.heard.subscribe()
    }

    /// What is not in the store yet.
    pub(crate) fn unwritten(&self) -> Vec<InstanceRow> {
        let seen = self.seen();
        seen.values().filter(|seen| !seen.is_written).map(|seen| seen.row.clone()).collect()
    }

    /// The newest revision of its group is `newest`: says since when the instance lags behind, if it does.
    pub(crate) fn compare(&self, row: &InstanceRow, newest: &(Epoch, Revision), now: i64) -> Option<i64> {
        let mut seen = self.seen();
        let Some(seen) = seen.get_mut(&row.heartbeat.instance_id) else { return row.behind_since };
        let applied = row.heartbeat.applied;
        let has_moved = applied != seen.applied_before;
        seen.applied_before = applied;
        let is_newest = applied == Some(newest.1) && row.heartbeat.epoch.as_ref() == Some(&newest.0);
        seen.row.behind_since = match (is_newest, has_moved) {
            (true, _) => None,
            (false, true) => Some(now),
            (false, false) => seen.row.behind_since.or(Some(now)),
        };
        seen.row.behind_since
    }

    /// What the instance finds of registries otherwise than it did when this was last asked.
    pub(crate) fn registries_changed(&self, row: &InstanceRow) -> Vec<RegistryReport> {
        let now = &row.heartbeat.registries;
        let mut seen = self.seen();
        let Some(seen) = seen.get_mut(&row.heartbeat.instance_id) else { return now.clone() };
        let before = std::mem::replace(&mut seen.registries_before, now.clone());
        let is_news = |report: &&RegistryReport| {
            !before.iter().any(|known| known.id == report.id && known.healthy == report.healthy)
        };
        now.iter().filter(is_news).cloned().collect()
    }

    /// These rows are in the store; what has been silent for long need not be remembered besides.
    pub(crate) fn written(&self, rows: &[InstanceRow], now: i64) {
        let mut seen = self.seen();
        for row in rows {
            if let Some(seen) = seen.get_mut(&row.heartbeat.instance_id) {
                seen.is_written =
                    seen.row.heartbeat == row.heartbeat && seen.row.heartbeat_at == row.heartbeat_at;
            }
        }
        seen.retain(|_, seen| !seen.is_written || now - seen.row.heartbeat_at < REMEMBERED_SECONDS);
    }

    /// Somebody has removed it; it comes back with its next heartbeat.
    pub(crate) fn forget(&self, id: &InstanceId) {
        self.seen().remove(id);
    }

    fn seen(&self) -> MutexGuard<'_, HashMap<InstanceId, Seen>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn heartbeat(id: &str, applied: Option<u64>) -> Heartbeat {
        Heartbeat {
            instance_id: id.parse().unwrap(),
            hostname: "h".to_owned(),
            version: "1.0.0".to_owned(),
            ports: vec![9080],
            stream_ports: gatewright_model::stream::ports::Ports::default(),
            cores: 1,
            epoch: Some(epoch()),
            applied: applied.map(Revision),
            persisted: None,
            quarantined: Vec::new(),
            plugins: Vec::new(),
            prepared: None,
            versions: Vec::new(),
            registries: Vec::new(),
        }
    }

    fn proved() -> Proved {
        Proved { gateway_group_id: "g".parse().unwrap(), expires_at: None }
    }

    fn epoch() -> Epoch {
        "store.1".parse().unwrap()
    }

    /// Hears a heartbeat and writes it: since when the instance lags behind.
    fn beat(instances: &Instances, applied: u64, newest: u64, now: i64) -> Option<i64> {
        instances.heard(&proved(), Ipv4Addr::LOCALHOST.into(), heartbeat("i", Some(applied)), now).unwrap();
        let rows = instances.unwritten();
        let behind_since = instances.compare(&rows[0], &(epoch(), Revision(newest)), now);
        instances.written(&rows, now);
        assert!(instances.unwritten().is_empty());
        behind_since
    }

    #[test]
    fn an_instance_that_gets_closer_does_not_lag_behind_for_long() {
        let instances = Instances::default();
        assert_eq!(beat(&instances, 1, 1, 100), None);
        assert_eq!(beat(&instances, 1, 2, 110), Some(110));
        assert_eq!(beat(&instances, 1, 9, 120), Some(110), "it stands still");
        assert_eq!(beat(&instances, 5, 19, 130), Some(130), "it moves, though not as fast as the changes");
        assert_eq!(beat(&instances, 19, 19, 140), None);
    }

    #[test]
    fn what_was_heard_while_it_was_written_is_written_again() {
        let instances = Instances::default();
        let hear = |applied| {
            let heartbeat = heartbeat("i", Some(applied));
            instances.heard(&proved(), Ipv4Addr::LOCALHOST.into(), heartbeat, 100).unwrap();
        };
        hear(1);
        let rows = instances.unwritten();
        hear(2);
        instances.written(&rows, 100);
        assert_eq!(instances.unwritten()[0].heartbeat.applied, Some(Revision(2)));
    }

    #[test]
    fn p28_more_instances_than_can_be_gateways_are_refused_and_known_ones_are_not() {
        let instances = Instances::default();
        let hear = |number: usize| {
            let heartbeat = heartbeat(&format!("i{number}"), None);
            instances.heard(&proved(), Ipv4Addr::LOCALHOST.into(), heartbeat, 100)
        };
        (0..INSTANCES_MAX).for_each(|number| hear(number).unwrap());
        assert_eq!(hear(INSTANCES_MAX), Err(TooMany));
        assert_eq!(hear(0), Ok(()));
    }
}
