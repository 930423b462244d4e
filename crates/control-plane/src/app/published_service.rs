//! Published services: what is active in a group, what was, and taking it out.

use gatewright_model::id::{GatewayGroupId, ServiceId};
use gatewright_model::snapshot::Revision;

use super::rollout::rollout_overtake;
use super::{Action, App, Caller, Refusal, gateway_group, must_be_as_expected, persistently};
use crate::distribution::DELTA_REVISIONS_MAX;
use crate::store::{Direction, ListFilter, Listed, ObjectKind, PublicationRow, PublishedServiceRow, Reading};

/// What callers call it.
pub(super) const NOUN: &str = "published service";

impl App {
    pub(crate) async fn published_service_list(
        &self,
        caller: &Caller,
        group: &GatewayGroupId,
        filter: &ListFilter,
    ) -> Result<Listed<PublishedServiceRow>, Refusal> {
        caller.must(Action::GetPublishedService, group.as_str())?;
        let mut tx = self.store().read().await?;
        group_must_exist(&mut tx, group).await?;
        Ok(tx.published_service_list(group, filter).await?)
    }

    pub(crate) async fn published_service_get(
        &self,
        caller: &Caller,
        group: &GatewayGroupId,
        service: &ServiceId,
    ) -> Result<PublishedServiceRow, Refusal> {
        caller.must(Action::GetPublishedService, group.as_str())?;
        published_service(&mut self.store().read().await?, group, service).await
    }

    /// Every group in which the service is active.
    pub(crate) async fn published_service_everywhere(
        &self,
        caller: &Caller,
        service: &ServiceId,
        filter: &ListFilter,
    ) -> Result<Listed<PublishedServiceRow>, Refusal> {
        caller.must(Action::GetPublishedService, "*")?;
        Ok(self.store().read().await?.published_service_everywhere(service, filter).await?)
    }

    /// Every publication of the service in the group, also after it was taken out.
    pub(crate) async fn published_service_history(
        &self,
        caller: &Caller,
        group: &GatewayGroupId,
        service: &ServiceId,
        direction: Direction,
    ) -> Result<Vec<PublicationRow>, Refusal> {
        caller.must(Action::GetPublishedService, group.as_str())?;
        let mut tx = self.store().read().await?;
        group_must_exist(&mut tx, group).await?;
        let history = tx.publication_list(group, service, direction).await?;
        if history.is_empty() {
            return Err(not_found(service));
        }
        Ok(history)
    }

    /// Takes a service out of a group; its history stays.
    pub(crate) async fn published_service_delete(
        &self,
        caller: &Caller,
        group: &GatewayGroupId,
        service: &ServiceId,
    ) -> Result<(), Refusal> {
        caller.must(Action::DeletePublishedService, group.as_str())?;
        persistently(|| self.unpublish(caller, group, service)).await
    }

    async fn unpublish(
        &self,
        caller: &Caller,
        group: &GatewayGroupId,
        service: &ServiceId,
    ) -> Result<(), Refusal> {
        let mut tx = self.store().write().await?;
        let before = published_service(&mut tx, group, service).await?;
        must_be_as_expected(NOUN, service.as_str(), Some(before.change_number))?;
        let stamp = tx.stamp(self.world().now()).await?;
        rollout_overtake(&mut tx, stamp, group, service, caller.username()).await?;
        let revision = tx.gateway_group_raise(group).await?;
        tx.published_service_delete(group, service, revision, forgotten(revision)).await?;
        tx.group_object_delete_owned(group, ObjectKind::ServiceUpstream, service.as_str(), revision).await?;
        tx.commit().await?;
        self.hints().changed(group);
        Ok(())
    }
}

/// Up to which revision tombstones are forgotten.
pub(super) fn forgotten(revision: Revision) -> Revision {
    Revision(revision.0.saturating_sub(DELTA_REVISIONS_MAX))
}

pub(super) fn not_found(service: &ServiceId) -> Refusal {
    Refusal::NotFound { noun: NOUN, id: service.to_string() }
}

pub(super) async fn published_service(
    tx: &mut Reading,
    group: &GatewayGroupId,
    service: &ServiceId,
) -> Result<PublishedServiceRow, Refusal> {
    group_must_exist(tx, group).await?;
    tx.published_service_get(group, service).await?.ok_or_else(|| not_found(service))
}

pub(super) async fn group_must_exist(tx: &mut Reading, group: &GatewayGroupId) -> Result<(), Refusal> {
    match tx.gateway_group_revision(group).await? {
        Some(_) => Ok(()),
        None => Err(Refusal::NotFound { noun: gateway_group::NOUN, id: group.to_string() }),
    }
}
