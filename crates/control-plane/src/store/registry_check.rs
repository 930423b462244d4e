//! What gateway instances found when they looked at service registries: one row for each change.

use gatewright_model::id::GatewayGroupId;
use gatewright_model::protocol::RegistryReport;

use super::database::{Row, query};
use super::{InstanceRow, Reading, StoreError, Writing};

/// Rows of one answer without a page.
const ROWS_MAX: i64 = 1000;

/// How long a row is kept, in seconds.
const KEPT_SECONDS: i64 = 30 * 24 * 60 * 60;

/// What an instance found from then on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RegistryCheckRow {
    pub(crate) service_registry_id: String,
    pub(crate) instance_id: String,
    pub(crate) hostname: String,
    pub(crate) healthy: bool,
    /// Why it was not healthy.
    pub(crate) reason: String,
    pub(crate) checked_at: i64,
}

impl Reading {
    /// What was found of a registry, the newest first.
    pub(crate) async fn registry_check_list(
        &mut self,
        group: &GatewayGroupId,
        registry: &str,
    ) -> Result<Vec<RegistryCheckRow>, StoreError> {
        let some = query(
            "SELECT service_registry_id, instance_id, hostname, healthy, reason, checked_at FROM registry_check \
             WHERE gateway_group_id = $1 AND service_registry_id = $2 \
             ORDER BY checked_at DESC, instance_id LIMIT $3",
        );
        let rows = self.tx.rows(some.bind(group.as_str()).bind(registry).bind(ROWS_MAX)).await?;
        rows.iter().map(read).collect()
    }
}

impl Writing {
    /// Keeps what an instance found, unless it found the same before.
    pub(crate) async fn registry_check_put(
        &mut self,
        row: &InstanceRow,
        report: &RegistryReport,
    ) -> Result<(), StoreError> {
        let (group, heartbeat) = (row.gateway_group_id.as_str(), &row.heartbeat);
        let put = query(
            "INSERT INTO registry_check (gateway_group_id, service_registry_id, instance_id, hostname, healthy, \
             reason, checked_at) SELECT $1, $2, $3, $4, $5, $6, $7 WHERE $5 <> COALESCE((SELECT healthy \
             FROM registry_check WHERE gateway_group_id = $1 AND service_registry_id = $2 AND instance_id = $3 \
             ORDER BY checked_at DESC LIMIT 1), -1) \
             ON CONFLICT (gateway_group_id, service_registry_id, instance_id, checked_at) DO UPDATE SET \
             healthy = excluded.healthy, reason = excluded.reason",
        );
        let put = put.bind(group).bind(report.id.as_str()).bind(heartbeat.instance_id.as_str());
        let put = put.bind(heartbeat.hostname.as_str()).bind(i64::from(report.healthy));
        self.tx.execute(put.bind(report.reason.as_str()).bind(row.heartbeat_at)).await?;
        let expire = query(
            "DELETE FROM registry_check WHERE gateway_group_id = $1 AND service_registry_id = $2 AND checked_at < $3",
        );
        let expire = expire.bind(group).bind(report.id.as_str());
        self.tx.execute(expire.bind(row.heartbeat_at - KEPT_SECONDS)).await?;
        Ok(())
    }

    /// Forgets what was found of a registry.
    pub(crate) async fn registry_check_delete(
        &mut self,
        group: &GatewayGroupId,
        registry: &str,
    ) -> Result<(), StoreError> {
        let delete =
            query("DELETE FROM registry_check WHERE gateway_group_id = $1 AND service_registry_id = $2");
        self.tx.execute(delete.bind(group.as_str()).bind(registry)).await?;
        Ok(())
    }
}

fn read(row: &Row) -> Result<RegistryCheckRow, StoreError> {
    Ok(RegistryCheckRow {
        service_registry_id: row.text("service_registry_id")?,
        instance_id: row.text("instance_id")?,
        hostname: row.text("hostname")?,
        healthy: row.integer("healthy")? != 0,
        reason: row.text("reason")?,
        checked_at: row.integer("checked_at")?,
    })
}
