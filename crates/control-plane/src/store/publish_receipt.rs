//! Receipts of publishes: what was answered to a call that carried an idempotency key.
//!
//! A receipt is written in the transaction of its publish, so it is there exactly if the publish is.

use super::database::query;
use super::{Reading, Stamp, StoreError, Writing};

/// How long a receipt is kept: nobody sends a call again a day later and means the same.
const KEPT_SECONDS: i64 = 24 * 60 * 60;

/// How many changes later a receipt is dropped even if it is younger, so that there are never more than this.
const KEPT_MAX: i64 = 100_000;

/// What a publish left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PublishReceipt {
    /// The SHA-256 of what was asked for.
    pub(crate) wish_sha256: String,
    /// What was answered, as JSON.
    pub(crate) outcome: String,
}

impl Reading {
    /// The receipt that `caller` has for a key.
    pub(crate) async fn publish_receipt_get(
        &mut self,
        caller: &str,
        key: &str,
    ) -> Result<Option<PublishReceipt>, StoreError> {
        let one = query(
            "SELECT wish_sha256, outcome FROM publish_receipt WHERE caller = $1 AND idempotency_key = $2",
        );
        let row = self.tx.row(one.bind(caller).bind(key)).await?;
        row.map(|row| {
            Ok(PublishReceipt { wish_sha256: row.text("wish_sha256")?, outcome: row.text("outcome")? })
        })
        .transpose()
    }
}

impl Writing {
    /// Keeps a receipt, and drops those that nobody will ask for any more.
    pub(crate) async fn publish_receipt_insert(
        &mut self,
        stamp: Stamp,
        caller: &str,
        key: &str,
        receipt: &PublishReceipt,
    ) -> Result<(), StoreError> {
        let old = query("DELETE FROM publish_receipt WHERE created_at < $1 OR created_number < $2");
        self.tx.execute(old.bind(stamp.at - KEPT_SECONDS).bind(stamp.number - KEPT_MAX)).await?;
        let insert = query(
            "INSERT INTO publish_receipt (caller, idempotency_key, wish_sha256, outcome, created_at, created_number) \
             VALUES ($1, $2, $3, $4, $5, $6)",
        );
        let insert = insert.bind(caller).bind(key).bind(receipt.wish_sha256.as_str());
        self.tx.execute_one(insert.bind(receipt.outcome.as_str()).bind(stamp.at).bind(stamp.number)).await
    }
}
