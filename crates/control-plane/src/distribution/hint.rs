//! Hints between a change and those who distribute it: within one process at once, and what other control planes
//! change as their database announces it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use gatewright_model::id::GatewayGroupId;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::store::{Announcement, Announcements};

/// How long to wait before listening again to a database that cannot be reached.
const RECONNECT_PAUSE: Duration = Duration::from_secs(1);

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

    /// Something may have changed in any group.
    fn changed_anywhere(&self) {
        let groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        groups.values().for_each(|sender| {
            sender.send_replace(());
        });
    }

    /// Passes on what other control planes announce, until it is stopped.
    pub(crate) async fn follow(self, mut announcements: Announcements, stopping: CancellationToken) {
        loop {
            let announcement = tokio::select! {
                () = stopping.cancelled() => return,
                announcement = announcements.next() => announcement,
            };
            match announcement {
                Ok(Announcement::Group(group)) => self.changed(&group),
                Ok(Announcement::Missed) => self.changed_anywhere(),
                Err(error) => {
                    tracing::warn!(%error, "changes of other control planes are not heard; they are looked for");
                    tokio::select! {
                        () = stopping.cancelled() => return,
                        () = tokio::time::sleep(RECONNECT_PAUSE) => self.changed_anywhere(),
                    }
                }
            }
        }
    }

    /// Wakes on every change of `group` after this call; several changes may wake once.
    pub(crate) fn subscribe(&self, group: &GatewayGroupId) -> watch::Receiver<()> {
        let mut groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        groups.entry(group.clone()).or_insert_with(|| watch::channel(()).0).subscribe()
    }
}
