//! What is intended, kept: the only place that knows SQL.
//!
//! * A change is one [`Writing`] transaction: it is durable when [`Writing::commit`] has answered, and it never
//!   happened if the transaction is dropped.
//! * A change in which a statement was refused can only be dropped.
//! * A [`Reading`] sees one moment: what several queries of it answer fits together.
//! * Rules are not kept here but in `app`; constraints (unique names, immutable versions) are the second line.
//! * Query texts are written so that SQLite and PostgreSQL accept them; what differs is in [`database`] alone.
//!   Migrations are written twice, under the same numbers, and end in the same tables.

mod database_url;

mod database;
#[cfg(test)]
pub(crate) mod faults;
#[cfg(test)]
pub(crate) mod plans;
mod postgres;
#[cfg(test)]
pub(crate) mod seed;
mod sqlite;

mod announcements;
mod list;
mod object_count;
mod schema;
mod sealed;
mod sealed_members;
mod transfer;
mod witness;

mod access_token;
mod audit_chain;
mod audit_log;
mod authority;
mod call;
mod core_usage;
mod gateway_group;
mod group_admin_key;
mod group_object;
mod group_route;
mod instance;
mod instance_token;
mod label;
mod past_state;
mod publication;
mod publish_receipt;
mod published_service;
mod registry_check;
mod release_set;
mod rollout;
mod route;
mod route_template;
mod service_template;
mod service_version;
mod session;
mod stream_claim;
mod user;

use std::ops::{Deref, DerefMut};
use std::path::Path;

pub(crate) use access_token::{AccessTokenRow, NewAccessToken};
pub(crate) use announcements::{Announcement, Announcements};
pub(crate) use audit_chain::Link;
pub(crate) use audit_log::{AuditFilter, AuditRow};
pub(crate) use authority::{AuthorityRow, InstanceCertificateRow};
pub(crate) use call::{Call, entity_tag};
pub(crate) use core_usage::CoreUsageRow;
pub use database_url::{DatabaseUrl, DatabaseUrlError};
pub(crate) use gateway_group::{CountedKind, GatewayGroupRow};
pub(crate) use group_object::{ObjectKey, ObjectKind, ObjectRow, ObjectWrite};
pub(crate) use group_route::RouteKey;
pub(crate) use instance::InstanceRow;
pub(crate) use instance_token::InstanceTokenRow;
pub(crate) use label::LabelledKind;
pub(crate) use list::{Direction, ListFilter, Listed, Order, Page};
pub(crate) use past_state::Past;
pub(crate) use publication::PublicationRow;
pub(crate) use publish_receipt::PublishReceipt;
pub(crate) use published_service::{
    ActiveVersion, Placement, PublishedServiceRow, ServiceContent, ServiceWrite,
};
pub(crate) use registry_check::RegistryCheckRow;
pub(crate) use release_set::{
    NumberedVersion, ReleaseSet, ReleaseSetRow, ReleasedGroup, ReleasedService, RolledBack,
};
pub(crate) use rollout::{End, Outcome, Plan, RolloutKind, RolloutRow, RolloutSummary};
pub(crate) use route::{RouteRow, RouteWrite};
pub(crate) use sealed::SecretKey;
use serde::Serialize;
use serde::de::DeserializeOwned;
pub(crate) use service_template::ServiceTemplateRow;
pub(crate) use service_version::VersionSummary;
pub(crate) use stream_claim::ClaimHolder;
pub(crate) use transfer::{backup, transfer};
pub(crate) use user::{KnownUser, PasswordState, UserRow, UserSummary};

use database::{Database, Transaction, query};
use database_url::Place;
use past_state::Making;
use postgres::Postgres;
use sqlite::Sqlite;
use witness::Witnessed;

/// Why the store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    /// What should be changed is not there (any more).
    #[error("the object is not in the store")]
    NotFound,
    /// A constraint forbids the change.
    #[error("a constraint of the store forbids this: {reason}")]
    Conflict {
        /// What the database said.
        reason: String,
    },
    /// The database did not answer, or not in a way that makes sense.
    #[error("the store is unavailable: {reason}")]
    Unavailable {
        /// What the database said.
        reason: String,
    },
    /// The connection was lost between a commit and its confirmation.
    #[error("the store did not confirm a change, which may or may not have happened: {reason}")]
    Unconfirmed {
        /// What the database said.
        reason: String,
    },
    /// Somebody else made the database undo the change, such as a deadlock with a stranger's statement.
    #[error("the change was interrupted: {reason}")]
    Interrupted {
        /// What the database said.
        reason: String,
    },
    /// There is no room left.
    #[error("the disk of the store is full: {reason}")]
    Full {
        /// What the database said.
        reason: String,
    },
    /// A text cannot be stored.
    #[error("a text contains a NUL character")]
    NulInText,
    /// The caller named a condition that nobody looked at.
    #[error("the call has a condition that was not looked at")]
    ConditionUnread,
}

/// The store of a control plane.
#[derive(Clone)]
pub(crate) struct Store {
    database: Database,
    secret_key: Option<SecretKey>,
}

impl Store {
    /// Opens a database, migrating it as needed; a SQLite file is created as well.
    pub(crate) async fn open(url: &DatabaseUrl) -> Result<Self, StoreError> {
        match url.place() {
            Place::Sqlite(path) => Self::open_sqlite(path).await,
            Place::Postgres(options) => {
                Ok(Self { database: Database::Postgres(Postgres::open(options).await?), secret_key: None })
            }
        }
    }

    /// Opens the SQLite database at `path`, creating and migrating it as needed.
    pub(crate) async fn open_sqlite(path: &Path) -> Result<Self, StoreError> {
        Ok(Self { database: Database::Sqlite(Sqlite::open(path).await?), secret_key: None })
    }

    /// What other control planes of this database change; none: there can be no others.
    pub(crate) async fn announcements(&self) -> Result<Option<Announcements>, StoreError> {
        match &self.database {
            Database::Sqlite(_) => Ok(None),
            Database::Postgres(postgres) => Ok(Some(Announcements::new(postgres.listen().await?))),
        }
    }

    /// Looks at one moment of the store.
    pub(crate) async fn read(&self) -> Result<Reading, StoreError> {
        Ok(Reading { tx: self.database.begin_reading().await?, secret_key: self.secret_key.clone() })
    }

    /// Starts a change; changes follow one another.
    pub(crate) async fn write(&self) -> Result<Writing, StoreError> {
        let tx = self.database.begin_writing().await?;
        let reading = Reading { tx, secret_key: self.secret_key.clone() };
        Ok(Writing { reading, witnessed: Witnessed::default(), making: Making::default() })
    }

    /// Waits for transactions in progress and closes the database.
    pub(crate) async fn close(&self) {
        self.database.close().await;
    }
}

/// One moment of the store.
pub(crate) struct Reading {
    tx: Transaction,
    secret_key: Option<SecretKey>,
}

/// A change in progress; it can read what it has written.
pub(crate) struct Writing {
    reading: Reading,
    /// What it is about to change, as it was before.
    witnessed: Witnessed,
    /// What it makes of groups.
    making: Making,
}

impl Deref for Writing {
    type Target = Reading;

    fn deref(&self) -> &Reading {
        &self.reading
    }
}

impl DerefMut for Writing {
    fn deref_mut(&mut self) -> &mut Reading {
        &mut self.reading
    }
}

/// When a change happened: by the clock, and by the order of all changes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stamp {
    /// Unix seconds.
    pub(crate) at: i64,
    /// Higher than that of every change before.
    pub(crate) number: i64,
}

impl Writing {
    /// The stamp of a change at `now`.
    pub(crate) async fn stamp(&mut self, now: i64) -> Result<Stamp, StoreError> {
        let raise = query("UPDATE change_counter SET value = value + 1 WHERE id = 1 RETURNING value");
        let number = self.tx.row(raise).await?.ok_or(StoreError::NotFound)?.integer("value")?;
        self.making_now(now);
        Ok(Stamp { at: now, number })
    }

    /// Makes the change durable, together with the audit row of the call that it is made for. Once this has
    /// answered, a crash cannot undo it. In a dry run it answers the same, and nothing is stored.
    pub(crate) async fn commit(mut self) -> Result<(), StoreError> {
        let Some(call) = Call::current() else { return self.commit_aside().await };
        if call.has_unread_condition() {
            return Err(StoreError::ConditionUnread);
        }
        if call.is_dry_run() {
            return Ok(());
        }
        if !call.is_recorded() {
            let changes = self.changes().await?;
            self.audit_log_append(&call, changes).await?;
        }
        self.commit_aside().await?;
        call.set_recorded();
        Ok(())
    }

    /// Makes a change durable that happens beside what the call asks for, such as when a token was last used.
    pub(crate) async fn commit_aside(self) -> Result<(), StoreError> {
        self.reading.tx.commit().await
    }
}

/// A document as it is stored.
fn to_json<T: Serialize>(content: &T) -> Result<String, StoreError> {
    let unwritable =
        |error| StoreError::Unavailable { reason: format!("a document cannot be written: {error}") };
    serde_json::to_string(content).map_err(unwritable)
}

/// A document out of the store; one that cannot be read was damaged or written by a newer release.
fn from_json<T: DeserializeOwned>(text: &str) -> Result<T, StoreError> {
    let unreadable =
        |error| StoreError::Unavailable { reason: format!("a stored document cannot be read: {error}") };
    serde_json::from_str(text).map_err(unreadable)
}

#[cfg(test)]
mod tests;
