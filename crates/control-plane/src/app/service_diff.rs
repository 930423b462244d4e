//! What differs between two states of services.

use gatewright_model::diff::{ServiceDiff, ServiceState, diff};
use gatewright_model::validation::Violations;

use super::document::{DiffWish, StateWish};
use super::group_service::group_service_version;
use super::published_service::published_service;
use super::service_template::service_template;
use super::{Action, App, Caller, Refusal};
use crate::store::Reading;

impl App {
    /// Compares two states as they are at one moment; they may be of two services.
    pub(crate) async fn service_diff(&self, caller: &Caller, wish: DiffWish) -> Result<ServiceDiff, Refusal> {
        may_see(caller, "/before", &wish.before)?;
        may_see(caller, "/after", &wish.after)?;
        let mut tx = self.store().read().await?;
        let before = state(&mut tx, &wish.before).await?;
        let after = state(&mut tx, &wish.after).await?;
        Ok(diff(&before, &after))
    }
}

fn may_see(caller: &Caller, at: &str, wish: &StateWish) -> Result<(), Refusal> {
    match (&wish.version, &wish.gateway_group_id) {
        (Some(_), Some(_)) => {
            let message = "name either a version or a gateway group: a group says which version it has";
            Err(Violations::one(at, message).into())
        }
        (_, Some(group)) => caller.must(Action::GetPublishedService, group.as_str()),
        (_, None) => caller.must(Action::GetServiceTemplate, wish.service_id.as_str()),
    }
}

pub(super) async fn state(tx: &mut Reading, wish: &StateWish) -> Result<ServiceState, Refusal> {
    let id = &wish.service_id;
    if let Some(group) = &wish.gateway_group_id {
        let active = published_service(tx, group, id).await?;
        let version = match &active.version {
            Some(version) => tx.service_version_get(&version.id).await?.ok_or(Refusal::Conflict)?,
            // The version is never written, so any id does.
            None => {
                let version_id = id.as_str().parse().map_err(|_| Refusal::Conflict)?;
                group_service_version(tx, &active, version_id, String::new()).await?
            }
        };
        return Ok(ServiceState::of_version(&version, Some(active.runtime)));
    }
    if let Some(number) = &wish.version {
        let version = tx.service_version_numbered(id, number).await?;
        let not_found = || Refusal::NotFound { noun: "service version", id: format!("{id}@{number}") };
        return Ok(ServiceState::of_version(&version.ok_or_else(not_found)?, None));
    }
    let template = service_template(tx, id).await?.template;
    Ok(ServiceState::of_template(&template, &tx.route_template_snapshot(id).await?))
}
