//! Instance tokens of gateway groups; only their SHA-256 is stored.

use gatewright_model::id::GatewayGroupId;

use super::database::{Row, query};
use super::witness::Subject;
use super::{Reading, Stamp, StoreError, Writing};

/// A token with which instances join a group, as far as it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct InstanceTokenRow {
    pub(crate) id: String,
    pub(crate) created_at: i64,
}

impl Reading {
    /// The group whose token has this SHA-256.
    pub(crate) async fn instance_token_group(
        &mut self,
        sha256: &str,
    ) -> Result<Option<GatewayGroupId>, StoreError> {
        let one = query("SELECT gateway_group_id FROM instance_token WHERE token_sha256 = $1").bind(sha256);
        self.tx.row(one).await?.map(|row| row.parsed("gateway_group_id")).transpose()
    }

    /// The tokens of a group, the newest first.
    pub(crate) async fn instance_token_list(
        &mut self,
        group: &GatewayGroupId,
    ) -> Result<Vec<InstanceTokenRow>, StoreError> {
        let all = query(
            "SELECT id, created_at FROM instance_token WHERE gateway_group_id = $1 ORDER BY created_at DESC, id",
        );
        let rows = self.tx.rows(all.bind(group.as_str())).await?;
        let read =
            |row: &Row| Ok(InstanceTokenRow { id: row.text("id")?, created_at: row.integer("created_at")? });
        rows.iter().map(read).collect()
    }
}

impl Writing {
    pub(crate) async fn instance_token_insert(
        &mut self,
        stamp: Stamp,
        id: &str,
        group: &GatewayGroupId,
        sha256: &str,
    ) -> Result<(), StoreError> {
        self.witness(Subject::InstanceToken(id.to_owned())).await?;
        let insert = query(
            "INSERT INTO instance_token (id, gateway_group_id, token_sha256, created_at) VALUES ($1, $2, $3, $4)",
        );
        self.tx.execute_one(insert.bind(id).bind(group.as_str()).bind(sha256).bind(stamp.at)).await
    }

    /// Revokes a token, and lets every control plane look whom that concerns; whether there was one.
    pub(crate) async fn instance_token_delete(
        &mut self,
        group: &GatewayGroupId,
        id: &str,
    ) -> Result<bool, StoreError> {
        self.witness(Subject::InstanceToken(id.to_owned())).await?;
        let delete = query("DELETE FROM instance_token WHERE id = $1 AND gateway_group_id = $2");
        let deleted = self.tx.execute(delete.bind(id).bind(group.as_str())).await? > 0;
        self.tx.announce(group.as_str()).await?;
        Ok(deleted)
    }
}
