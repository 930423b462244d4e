//! The chain of digests over the audit log: each row's hash covers the hash of the row before it and everything the row
//! says, and one more row keeps both ends of the chain.
//!
//! A row that was changed, taken out, put in or moved breaks the chain there. Whoever can write to the database can
//! write the whole chain anew; that shows against a head that somebody noted elsewhere.
//! Changes follow one another on both databases, so the head that a change has read is still the head when it writes.

use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::AuditRow;
use super::database::query;
use super::{Reading, StoreError, Writing};

/// A place in the chain, and the hash of the row there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Link {
    /// Counted from 1 without gaps; 0: before the first row.
    pub(crate) position: i64,
    pub(crate) hash: String,
}

/// Both ends of the chain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ends {
    /// The last row that is not kept any more, or the place before the first.
    pub(crate) anchor: Link,
    /// The newest row.
    pub(crate) head: Link,
}

impl Link {
    /// The link that `row` is if it comes after this one.
    pub(crate) fn next(&self, row: &AuditRow) -> Self {
        let position = self.position + 1;
        // A JSON array of texts and numbers: what ends where is certain.
        let said = json!([
            self.hash,
            position,
            row.number,
            row.id,
            row.event_time,
            row.event_type,
            row.operator_id,
            row.operator_name,
            row.source,
            row.token_name,
            row.ip_address,
            row.gateway_group_id,
            row.resource_id,
            row.resource_name,
            row.method,
            row.uri,
            row.user_agent,
            row.body,
            row.status,
            row.error_message,
            row.changes,
        ]);
        Self { position, hash: hex::encode(Sha256::digest(said.to_string())) }
    }

    /// What `row` says of its own place.
    pub(crate) fn of(row: &AuditRow) -> Self {
        Self { position: row.position, hash: row.hash.clone() }
    }
}

impl Reading {
    /// Both ends of the chain.
    pub(crate) async fn audit_chain_ends(&mut self) -> Result<Ends, StoreError> {
        let one = query(
            "SELECT anchor_position, anchor_hash, head_position, head_hash FROM audit_chain WHERE id = 1",
        );
        let row = self.tx.row(one).await?.ok_or(StoreError::NotFound)?;
        Ok(Ends {
            anchor: Link { position: row.integer("anchor_position")?, hash: row.text("anchor_hash")? },
            head: Link { position: row.integer("head_position")?, hash: row.text("head_hash")? },
        })
    }
}

impl Writing {
    pub(super) async fn audit_chain_head_put(&mut self, head: &Link) -> Result<(), StoreError> {
        let update = query("UPDATE audit_chain SET head_position = $1, head_hash = $2 WHERE id = 1");
        self.tx.execute_one(update.bind(head.position).bind(head.hash.as_str())).await
    }

    pub(super) async fn audit_chain_anchor_put(&mut self, anchor: &Link) -> Result<(), StoreError> {
        let update = query("UPDATE audit_chain SET anchor_position = $1, anchor_hash = $2 WHERE id = 1");
        self.tx.execute_one(update.bind(anchor.position).bind(anchor.hash.as_str())).await
    }
}
