//! Admin keys of gateway groups, one for each at most; only their SHA-256 is stored.

use gatewright_model::id::GatewayGroupId;

use super::database::query;
use super::witness::Subject;
use super::{Reading, Stamp, StoreError, Writing};

impl Reading {
    /// The group whose admin key has this SHA-256.
    pub(crate) async fn group_admin_key_group(
        &mut self,
        sha256: &str,
    ) -> Result<Option<GatewayGroupId>, StoreError> {
        let one = query("SELECT gateway_group_id FROM group_admin_key WHERE key_sha256 = $1").bind(sha256);
        self.tx.row(one).await?.map(|row| row.parsed("gateway_group_id")).transpose()
    }
}

impl Writing {
    /// Gives the group a key; the one it had before is worth nothing from then on.
    pub(crate) async fn group_admin_key_put(
        &mut self,
        stamp: Stamp,
        group: &GatewayGroupId,
        sha256: &str,
    ) -> Result<(), StoreError> {
        self.witness(Subject::GroupAdminKey(group.clone())).await?;
        let put = query(
            "INSERT INTO group_admin_key (gateway_group_id, key_sha256, created_at) VALUES ($1, $2, $3) \
             ON CONFLICT (gateway_group_id) DO UPDATE SET key_sha256 = excluded.key_sha256, \
             created_at = excluded.created_at",
        );
        self.tx.execute_one(put.bind(group.as_str()).bind(sha256).bind(stamp.at)).await
    }
}
