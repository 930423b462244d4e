//! Gateway instances as their heartbeats describe them, and the epoch of the store.

use gatewright_model::id::{GatewayGroupId, InstanceId};
use gatewright_model::protocol::{Epoch, Heartbeat};

use super::database::{Row, query};
use super::{Reading, StoreError, Writing, to_json};

/// A gateway instance as it is stored.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct InstanceRow {
    pub(crate) gateway_group_id: GatewayGroupId,
    pub(crate) ip: String,
    pub(crate) heartbeat: Heartbeat,
    /// When the certificate it came with runs out; none: it came with a token.
    pub(crate) certificate_expires_at: Option<i64>,
    /// Since when it serves something other than the newest revision, without getting closer.
    pub(crate) behind_since: Option<i64>,
    pub(crate) heartbeat_at: i64,
    /// When its first heartbeat came.
    pub(crate) created_at: i64,
}

fn read(row: &Row) -> Result<InstanceRow, StoreError> {
    Ok(InstanceRow {
        gateway_group_id: row.parsed("gateway_group_id")?,
        ip: row.text("ip")?,
        heartbeat: row.json("heartbeat")?,
        certificate_expires_at: row.optional_integer("certificate_expires_at")?,
        behind_since: row.optional_integer("behind_since")?,
        heartbeat_at: row.integer("heartbeat_at")?,
        created_at: row.integer("created_at")?,
    })
}

const COLUMNS: &str =
    "id, gateway_group_id, ip, heartbeat, certificate_expires_at, behind_since, heartbeat_at, created_at";

impl Reading {
    /// The epoch in which the revisions of this store are counted.
    pub(crate) async fn store_epoch(&mut self) -> Result<Epoch, StoreError> {
        let row = self.tx.row(query("SELECT store, number FROM store_epoch")).await?;
        let row = row.ok_or(StoreError::NotFound)?;
        Ok(Epoch { store: row.text("store")?, number: row.integer("number")?.unsigned_abs() })
    }

    /// The instances of a group, or of all; there are as many as there are gateways.
    pub(crate) async fn instance_list(
        &mut self,
        group: Option<&GatewayGroupId>,
    ) -> Result<Vec<InstanceRow>, StoreError> {
        let all = match group {
            Some(group) => query(format!(
                "SELECT {COLUMNS} FROM gateway_instance WHERE gateway_group_id = $1 ORDER BY id"
            ))
            .bind(group.as_str()),
            None => query(format!("SELECT {COLUMNS} FROM gateway_instance ORDER BY id")),
        };
        self.tx.rows(all).await?.iter().map(read).collect()
    }

    /// The instances that were silent since `before`.
    pub(crate) async fn instance_silent_list(&mut self, before: i64) -> Result<Vec<InstanceRow>, StoreError> {
        let silent = query(format!(
            "SELECT {COLUMNS} FROM gateway_instance WHERE heartbeat_at < $1 ORDER BY id LIMIT 100"
        ));
        self.tx.rows(silent.bind(before)).await?.iter().map(read).collect()
    }
}

impl Writing {
    /// Begins another epoch: gateways that are ahead of the store go back to it.
    pub(crate) async fn store_epoch_raise(&mut self) -> Result<(), StoreError> {
        self.tx.execute_one(query("UPDATE store_epoch SET number = number + 1")).await
    }

    /// Keeps what a heartbeat said, unless a later one is kept already.
    pub(crate) async fn instance_put(&mut self, row: &InstanceRow) -> Result<(), StoreError> {
        let put = query(
            "INSERT INTO gateway_instance (id, gateway_group_id, hostname, ip, version, heartbeat, behind_since, \
             heartbeat_at, created_at, certificate_expires_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) \
             ON CONFLICT (id) DO UPDATE SET gateway_group_id = excluded.gateway_group_id, \
             hostname = excluded.hostname, ip = excluded.ip, version = excluded.version, \
             heartbeat = excluded.heartbeat, \
             certificate_expires_at = excluded.certificate_expires_at, behind_since = excluded.behind_since, \
             heartbeat_at = excluded.heartbeat_at WHERE gateway_instance.heartbeat_at <= excluded.heartbeat_at",
        );
        let heartbeat = &row.heartbeat;
        let put = put.bind(heartbeat.instance_id.as_str()).bind(row.gateway_group_id.as_str());
        let put =
            put.bind(heartbeat.hostname.as_str()).bind(row.ip.as_str()).bind(heartbeat.version.as_str());
        let put = put.bind(to_json(heartbeat)?).bind(row.behind_since);
        let put = put.bind(row.heartbeat_at).bind(row.created_at).bind(row.certificate_expires_at);
        self.tx.execute(put).await?;
        Ok(())
    }

    /// Forgets an instance; whether there was one.
    pub(crate) async fn instance_delete(
        &mut self,
        group: &GatewayGroupId,
        id: &InstanceId,
    ) -> Result<bool, StoreError> {
        let delete = query("DELETE FROM gateway_instance WHERE id = $1 AND gateway_group_id = $2");
        Ok(self.tx.execute(delete.bind(id.as_str()).bind(group.as_str())).await? > 0)
    }
}
