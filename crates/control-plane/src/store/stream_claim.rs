//! What the stream routes of a group's services claim, each claim as the text that says it in full.
//!
//! That two services never claim the same is a constraint; who holds a claim is asked before, so that the refusal can
//! name both.

use gatewright_model::id::{GatewayGroupId, RouteId, ServiceId};

use super::database::query;
use super::{Reading, StoreError, Writing};

/// Who claims something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClaimHolder {
    pub(crate) service_id: ServiceId,
    pub(crate) service: String,
    pub(crate) route_id: RouteId,
}

impl Reading {
    /// Who claims this in the group, if anybody does.
    pub(crate) async fn stream_claim_holder(
        &mut self,
        group: &GatewayGroupId,
        claim: &str,
    ) -> Result<Option<ClaimHolder>, StoreError> {
        let one = query(
            "SELECT c.service_id, c.route_id, p.name FROM stream_claim c JOIN published_service p \
             ON p.gateway_group_id = c.gateway_group_id AND p.service_id = c.service_id \
             WHERE c.gateway_group_id = $1 AND c.claim = $2",
        );
        let row = self.tx.row(one.bind(group.as_str()).bind(claim)).await?;
        let holder = row.map(|row| {
            Ok(ClaimHolder {
                service_id: row.parsed("service_id")?,
                service: row.text("name")?,
                route_id: row.parsed("route_id")?,
            })
        });
        holder.transpose()
    }
}

impl Writing {
    /// Takes back everything that a service claims, and says what that was.
    pub(crate) async fn stream_claim_take(
        &mut self,
        group: &GatewayGroupId,
        service: &ServiceId,
    ) -> Result<Vec<String>, StoreError> {
        let all = query(
            "SELECT claim FROM stream_claim WHERE gateway_group_id = $1 AND service_id = $2 ORDER BY claim",
        );
        let rows = self.tx.rows(all.bind(group.as_str()).bind(service.as_str())).await?;
        let delete = query("DELETE FROM stream_claim WHERE gateway_group_id = $1 AND service_id = $2");
        self.tx.execute(delete.bind(group.as_str()).bind(service.as_str())).await?;
        rows.iter().map(|row| row.text("claim")).collect()
    }

    /// Claims something for a stream route.
    pub(crate) async fn stream_claim_insert(
        &mut self,
        group: &GatewayGroupId,
        service: &ServiceId,
        route: &RouteId,
        claim: &str,
    ) -> Result<(), StoreError> {
        let insert = query(
            "INSERT INTO stream_claim (gateway_group_id, service_id, route_id, claim) VALUES ($1, $2, $3, $4)",
        );
        let insert = insert.bind(group.as_str()).bind(service.as_str()).bind(route.as_str()).bind(claim);
        self.tx.execute_one(insert).await
    }
}
