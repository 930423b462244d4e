//! How many cores gateways use: now, and at most in each hour of the last year.

use super::{Action, App, Caller, InstanceStatus, Refusal};
use crate::store::CoreUsageRow;

/// Seconds of an hour.
const HOUR: i64 = 60 * 60;

/// Seconds for which hours are kept.
const KEPT: i64 = 400 * 24 * HOUR;

impl App {
    /// The cores of the instances that are not lost.
    pub(crate) async fn cores_now(&self, caller: &Caller) -> Result<i64, Refusal> {
        caller.must(Action::GetGatewayInstance, "*")?;
        self.cores().await
    }

    async fn cores(&self) -> Result<i64, Refusal> {
        let instances = self.instances_now(None).await?;
        let living = instances.iter().filter(|instance| instance.status <= InstanceStatus::OutOfSync);
        Ok(living.map(|instance| i64::from(instance.row.heartbeat.cores)).sum())
    }

    /// Notes how many cores are in use.
    pub(crate) async fn cores_record(&self) -> Result<(), Refusal> {
        let cores = self.cores().await?;
        let now = self.world().now();
        let mut tx = self.store().write().await?;
        tx.core_usage_put(CoreUsageRow { hour: now - now.rem_euclid(HOUR), cores }).await?;
        tx.core_usage_expire(now - KEPT).await?;
        tx.commit_aside().await?;
        Ok(())
    }

    /// The most cores in use at a time, for each hour that begins in a span.
    pub(crate) async fn core_usage_list(
        &self,
        caller: &Caller,
        begin_at: i64,
        end_at: i64,
    ) -> Result<Vec<CoreUsageRow>, Refusal> {
        caller.must(Action::GetGatewayInstance, "*")?;
        self.cores_record().await?;
        Ok(self.store().read().await?.core_usage_list(begin_at, end_at).await?)
    }
}
