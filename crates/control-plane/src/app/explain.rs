//! Explaining a request: which route of a group would serve it, with the published versions or with others.

use std::sync::Arc;

use gatewright_model::id::GatewayGroupId;
use gatewright_model::rehearsal::{Explanation, RehearsalError};
use gatewright_model::snapshot::PublishedService;
use gatewright_model::validation::Violations;

use super::document::ExplainWish;
use super::runtime_configuration::runtime_default;
use super::{Action, App, Caller, Refusal};
use crate::distribution::Standing;

impl App {
    /// Explains a request in a group. A version that is named takes the place of the published one and keeps the
    /// runtime configuration of the group; nothing is changed.
    pub(crate) async fn explain(
        &self,
        caller: &Caller,
        group: &GatewayGroupId,
        wish: ExplainWish,
    ) -> Result<Explanation, Refusal> {
        caller.must(Action::GetPublishedService, group.as_str())?;
        let rehearsal = Arc::clone(self.parts.rehearsal.as_ref().ok_or(Refusal::NoRehearsal)?);
        let (mut tx, settings, mut services) = self.standing(group).await?;
        for named in wish.services {
            let id = named.service_id;
            let version = tx.service_version_numbered(&id, &named.version).await?;
            let not_found =
                || Refusal::NotFound { noun: "service version", id: format!("{id}@{}", named.version) };
            let version = version.ok_or_else(not_found)?;
            let runtime = match services.get(&id) {
                Some(active) => active.service.runtime.clone(),
                None => {
                    let template = tx.service_template_get(&id).await?.map(|row| row.template);
                    runtime_default(template.as_ref())
                }
            };
            let named = Standing::imagined(Arc::new(PublishedService::new(version, runtime)));
            Arc::make_mut(&mut services).insert(id, named);
        }
        drop(tx);
        let request = wish.request;
        let rehearsing = tokio::task::spawn_blocking(move || {
            let services: Vec<_> = services.values().map(|standing| Arc::clone(&standing.service)).collect();
            rehearsal.rehearse(&services, settings, &request)
        });
        let explained =
            rehearsing.await.map_err(|error| Refusal::Unavailable { reason: error.to_string() })?;
        explained.map_err(|error| match error {
            RehearsalError::Target(wrong) => Violations::one("/uri", wrong.to_string()).into(),
            RehearsalError::Head(wrong) => Violations::one("", wrong).into(),
            RehearsalError::Services(violations) => violations.into(),
        })
    }
}
