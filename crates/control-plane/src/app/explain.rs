//! Explaining a request: which route of a group would serve it, with the published versions or with others, now or in
//! the past.

use std::sync::Arc;

use gatewright_model::id::GatewayGroupId;
use gatewright_model::rehearsal::{Explanation, RehearsalError};
use gatewright_model::snapshot::{PublishedService, Revision};
use gatewright_model::validation::Violations;
use serde::Serialize;
use utoipa::ToSchema;

use super::document::ExplainWish;
use super::runtime_configuration::runtime_default;
use super::{Action, App, Caller, Refusal};
use crate::distribution::{Services, Standing};
use crate::store::{Past, Reading};

/// Which route serves a request, and in which revision of the group.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Explained {
    /// The revision of the group that the request was explained with.
    pub(crate) revision: u64,
    #[serde(flatten)]
    pub(crate) explanation: Explanation,
}

impl App {
    /// Explains a request in a group. A version that is named takes the place of the published one and keeps the
    /// runtime configuration of the group; nothing is changed.
    pub(crate) async fn explain(
        &self,
        caller: &Caller,
        group: &GatewayGroupId,
        wish: ExplainWish,
    ) -> Result<Explained, Refusal> {
        caller.must(Action::GetPublishedService, group.as_str())?;
        let rehearsal = Arc::clone(self.parts.rehearsal.as_ref().ok_or(Refusal::NoRehearsal)?);
        let (mut tx, mut settings, mut services) = self.standing(group).await?;
        let (revision, past) = past(&mut tx, group, &wish).await?;
        settings = past.settings.unwrap_or(settings);
        go_back(&mut services, past);
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
            let named = Standing::new(Arc::new(PublishedService::new(version, runtime)));
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
        let explanation = explained.map_err(|error| match error {
            RehearsalError::Target(wrong) => Violations::one("/uri", wrong.to_string()).into(),
            RehearsalError::Head(wrong) => Violations::one("", wrong).into(),
            RehearsalError::Services(violations) => Refusal::from(violations),
        })?;
        Ok(Explained { revision: revision.0, explanation })
    }
}

/// The revision that is asked about, and how the group differed in it from what it is now.
async fn past(
    tx: &mut Reading,
    group: &GatewayGroupId,
    wish: &ExplainWish,
) -> Result<(Revision, Past), Refusal> {
    let not_found = || Refusal::NotFound { noun: "gateway group", id: group.to_string() };
    let reach = tx.past_reach(group).await?.ok_or_else(not_found)?;
    let forgotten = |asked: String| Refusal::PastForgotten {
        group: group.to_string(),
        asked,
        oldest: reach.oldest.0,
        oldest_since: reach.oldest_since,
        newest: reach.newest.0,
    };
    let revision = match (wish.revision, wish.time) {
        (None, None) => reach.newest,
        (Some(_), Some(_)) => {
            return Err(Violations::one("/time", "name a revision or a time, not both").into());
        }
        (Some(asked), None) if asked > reach.newest.0 => {
            let newest = reach.newest;
            let message = format!("revision {asked} is not there yet; the newest of the group is {newest}");
            return Err(Violations::one("/revision", message).into());
        }
        (Some(asked), None) if asked < reach.oldest.0 => return Err(forgotten(format!("revision {asked}"))),
        (Some(asked), None) => Revision(asked),
        (None, Some(time)) if time < reach.oldest_since => {
            return Err(forgotten(format!("what stood at {time}")));
        }
        (None, Some(time)) => tx.past_revision_at(group, time, reach).await?.max(reach.oldest),
    };
    let past = match revision == reach.newest {
        true => Past::default(),
        false => tx.past_state(group, revision).await?,
    };
    Ok((revision, past))
}

/// Makes of what stands what stood.
fn go_back(services: &mut Services, past: Past) {
    if past.services.is_empty() {
        return;
    }
    let services = Arc::make_mut(services);
    for (id, service) in past.services {
        match service {
            Some(service) => drop(services.insert(id, Standing::new(Arc::new(service)))),
            None => drop(services.remove(&id)),
        }
    }
}
