//! Instance tokens of gateway groups; only their SHA-256 is stored.

use gatewright_model::id::GatewayGroupId;

use super::database::query;
use super::{Reading, Stamp, StoreError, Writing};

impl Reading {
    /// The group whose token has this SHA-256.
    pub(crate) async fn instance_token_group(
        &mut self,
        sha256: &str,
    ) -> Result<Option<GatewayGroupId>, StoreError> {
        let one = query("SELECT gateway_group_id FROM instance_token WHERE token_sha256 = $1").bind(sha256);
        self.tx.row(one).await?.map(|row| row.parsed("gateway_group_id")).transpose()
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
        let insert = query(
            "INSERT INTO instance_token (id, gateway_group_id, token_sha256, created_at) VALUES ($1, $2, $3, $4)",
        );
        self.tx.execute_one(insert.bind(id).bind(group.as_str()).bind(sha256).bind(stamp.at)).await
    }
}
