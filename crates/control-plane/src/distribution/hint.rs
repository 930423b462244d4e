//! Hints between a change and those who distribute it, within one process.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use gatewright_model::id::GatewayGroupId;
use tokio::sync::watch;

/// Who waits for changes of which group. Groups are few, so entries stay.
#[derive(Clone, Default)]
pub(crate) struct Hints {
    groups: Arc<Mutex<HashMap<GatewayGroupId, watch::Sender<()>>>>,
}

impl Hints {
    /// Something that the gateways of `group` serve has changed.
    pub(crate) fn changed(&self, group: &GatewayGroupId) {
        let groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = groups.get(group) {
            sender.send_replace(());
        }
    }

    /// Wakes on every change of `group` after this call; several changes may wake once.
    pub(crate) fn subscribe(&self, group: &GatewayGroupId) -> watch::Receiver<()> {
        let mut groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        groups.entry(group.clone()).or_insert_with(|| watch::channel(()).0).subscribe()
    }
}
