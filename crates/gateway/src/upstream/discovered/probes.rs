//! Whether registries are there: looked at now and then, whether or not a service is looked for.

use std::collections::BTreeMap;
use std::time::Duration;

use gatewright_discovery::Trouble;
use gatewright_model::id::ObjectId;
use gatewright_model::protocol::{HEARTBEAT_LIST_MAX, REASON_LENGTH_MAX, RegistryReport};
use tokio::task::JoinSet;

use super::registries::Connected;
use super::table::Board;

/// What was found of each registry when it was last looked at.
pub(super) type Looked = BTreeMap<ObjectId, Result<(), Trouble>>;

/// Looks at the registries of the configuration that is served, as often as each asks for, as long as the gateway runs.
pub(crate) async fn look(board: Board) {
    let mut registries = board.registries();
    loop {
        let now = registries.borrow_and_update().clone();
        let mut looking = JoinSet::new();
        if let Some(now) = now {
            board.looked(|looked| looked.retain(|id, _| now.contains(id)));
            for (id, connected) in now.iter() {
                looking.spawn(look_at(id.clone(), connected.clone(), board.clone()));
            }
        }
        // An error means that the process ends. What looked before ends with `looking`.
        if registries.changed().await.is_err() {
            return;
        }
    }
}

async fn look_at(id: ObjectId, connected: Connected, board: Board) {
    let check = connected.written.health_check;
    let (interval, timeout) = (u64::from(check.probe_interval), u64::from(check.probe_timeout));
    loop {
        let probing = async {
            match &connected.registry {
                Ok(registry) => registry.probe().await,
                Err(trouble) => Err(trouble.clone()),
            }
        };
        let found = tokio::time::timeout(Duration::from_secs(timeout), probing).await;
        let found =
            found.unwrap_or_else(|_| Err(Trouble::new(format!("no answer within {timeout} seconds"))));
        board.looked(|looked| {
            let before = looked.insert(id.clone(), found.clone());
            match (&before, &found) {
                (Some(Ok(())) | None, Err(trouble)) => {
                    tracing::warn!(registry = %id, reason = %trouble, "the connection to a service registry is lost");
                }
                (Some(Err(_)), Ok(())) => tracing::info!(registry = %id, "a service registry is there again"),
                _ => {}
            }
        });
        tokio::time::sleep(Duration::from_secs(interval)).await;
    }
}

/// What heartbeats say of it.
pub(super) fn reports(looked: &Looked) -> Vec<RegistryReport> {
    let report = |(id, found): (&ObjectId, &Result<(), Trouble>)| {
        let reason = found.as_ref().err().map(ToString::to_string).unwrap_or_default();
        RegistryReport {
            id: id.clone(),
            healthy: found.is_ok(),
            reason: reason.replace('\0', " ").chars().take(REASON_LENGTH_MAX).collect(),
        }
    };
    looked.iter().map(report).take(HEARTBEAT_LIST_MAX).collect()
}
