//! How many objects there are, without counting them: triggers keep it, in the transaction of every change.

use gatewright_model::id::GatewayGroupId;

use super::database::{Transaction, query};
use super::{Reading, StoreError};

/// What published services are counted as.
pub(super) const PUBLISHED_SERVICE: &str = "service";

/// What is counted together: objects of one noun, in one group or in all.
#[derive(Clone, Copy, Debug)]
pub(super) struct Counted<'a> {
    /// Empty: the objects belong to no group.
    pub(super) group: &'a str,
    pub(super) noun: &'a str,
}

/// How many there are.
pub(super) async fn total(tx: &mut Transaction, counted: Counted<'_>) -> Result<i64, StoreError> {
    let one = query("SELECT total FROM object_count WHERE gateway_group_id = $1 AND noun = $2");
    let row = tx.row(one.bind(counted.group).bind(counted.noun)).await?;
    row.map_or(Ok(0), |row| row.integer("total"))
}

impl Reading {
    /// What a group still holds: how many objects of which noun.
    pub(crate) async fn gateway_group_contents(
        &mut self,
        group: &GatewayGroupId,
    ) -> Result<Vec<(String, i64)>, StoreError> {
        let counts = query("SELECT noun, total FROM object_count WHERE gateway_group_id = $1 ORDER BY noun");
        let rows = self.tx.rows(counts.bind(group.as_str())).await?;
        rows.iter().map(|row| Ok((row.text("noun")?, row.integer("total")?))).collect()
    }
}
