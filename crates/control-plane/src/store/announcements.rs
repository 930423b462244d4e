//! What other control planes of the same database change.
//!
//! An announcement is a hint: it carries no configuration, and a lost one costs latency only.

use gatewright_model::id::GatewayGroupId;
use sqlx::postgres::PgListener;

use super::StoreError;

/// Something changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Announcement {
    /// Something that this group serves.
    Group(GatewayGroupId),
    /// Something may have: the connection was lost and is back.
    Missed,
}

/// The announcements of a database, as they come.
pub(crate) struct Announcements {
    listener: PgListener,
}

impl Announcements {
    pub(super) fn new(listener: PgListener) -> Self {
        Self { listener }
    }

    /// Waits for the next one. After an error, the call after it connects again.
    pub(crate) async fn next(&mut self) -> Result<Announcement, StoreError> {
        loop {
            let Some(notification) = self.listener.try_recv().await? else {
                return Ok(Announcement::Missed);
            };
            match notification.payload().parse() {
                Ok(group) => return Ok(Announcement::Group(group)),
                Err(_) => tracing::debug!(payload = notification.payload(), "an announcement names no group"),
            }
        }
    }
}
