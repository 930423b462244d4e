//! Which routes would get in each other's way if services were published.
//!
//! The analysis is the model's; here is only what it is asked about: the published services of the group, with the
//! wished-for ones in their place. What the wish does not touch is not reported.

use std::collections::BTreeSet;
use std::sync::Arc;

use gatewright_model::conflict::{self, Conflict, ConflictKind, Conflicts};
use gatewright_model::id::{GatewayGroupId, ServiceId};
use gatewright_model::lifecycle::RuntimeConfiguration;
use gatewright_model::matching::MatchSettings;
use gatewright_model::snapshot::{PublishedService, Revision};

use super::document::{PublishWish, ServicePublishWish};
use super::gateway_group::gateway_group;
use super::runtime_configuration::runtime_default;
use super::service_version::version_of_template;
use super::{Action, App, Caller, Refusal, Warnings};
use crate::distribution::{SERVICES_KEPT_MAX, Services, Standing};
use crate::store::{ListFilter, Reading, Writing};

/// Duplicates that a change names; the conflict check names all of them.
const WARNED_MAX: usize = 10;

impl App {
    /// What publishing `wish` would bring; nothing is changed.
    pub(crate) async fn conflict_check(
        &self,
        caller: &Caller,
        wish: PublishWish,
    ) -> Result<Conflicts, Refusal> {
        caller.must(Action::PublishServices, wish.gateway_group_id.as_str())?;
        let (mut tx, settings, mut services) = self.standing(&wish.gateway_group_id).await?;
        let mut touched = BTreeSet::new();
        for service in &wish.services {
            let candidate = candidate(&mut tx, &wish, service, &services).await?;
            touched.insert(candidate.service_id.clone());
            let id = candidate.service_id.clone();
            Arc::make_mut(&mut services).insert(id, Standing::new(Arc::new(candidate)));
        }
        drop(tx);
        analyse(services, settings, touched).await
    }

    /// Makes durable what `tx` changed about services of `group` in `revision`, tells the gateways, and names the routes
    /// of these services that are duplicates. In a dry run it answers the same.
    pub(super) async fn commit_services(
        &self,
        mut tx: Writing,
        group: &GatewayGroupId,
        revision: Revision,
    ) -> Result<Warnings, Refusal> {
        let before = Revision(revision.0.saturating_sub(1));
        let written = tx.published_service_changes(group, before).await?;
        self.streams_claim(&mut tx, group, &written).await?;
        tx.commit().await?;
        self.hints().changed(group);
        let touched = written.iter().map(|service| service.service_id.clone()).collect();
        Ok(self.duplicates_warn(group, touched, written).await)
    }

    /// Names the routes of `touched` services that another service's route duplicates, if these were as `written`. The
    /// change has succeeded by then, so trouble here is worth a log line and no more.
    pub(super) async fn duplicates_warn(
        &self,
        group: &GatewayGroupId,
        touched: BTreeSet<ServiceId>,
        written: Vec<PublishedService>,
    ) -> Warnings {
        let mut warnings = Warnings::default();
        match self.duplicates(group, touched, written).await {
            Ok(duplicates) => {
                for Conflict { winner, loser, reason, .. } in duplicates.iter().take(WARNED_MAX) {
                    let winner = winner.as_ref().map_or_else(String::new, |winner| {
                        format!("route `{}` of service `{}`", winner.route_name, winner.service_name)
                    });
                    warnings.add(format!(
                        "route `{}` of service `{}` is never served at `{}`, because {winner} matches the same: {reason}",
                        loser.route_name, loser.service_name, loser.url()
                    ));
                }
                if duplicates.len() > WARNED_MAX {
                    let more = duplicates.len() - WARNED_MAX;
                    warnings.add(format!("{more} more duplicates: see POST /api/services/conflict_check"));
                }
            }
            Err(error) => tracing::warn!(%group, %error, "duplicates were not looked for after a change"),
        }
        warnings
    }

    async fn duplicates(
        &self,
        group: &GatewayGroupId,
        touched: BTreeSet<ServiceId>,
        written: Vec<PublishedService>,
    ) -> Result<Vec<Conflict>, Refusal> {
        let (_, settings, mut services) = self.standing(group).await?;
        for service in written {
            // After a dry run it stands there as it was before.
            if services.get(&service.service_id).is_none_or(|standing| *standing.service != service) {
                let id = service.service_id.clone();
                Arc::make_mut(&mut services).insert(id, Standing::new(Arc::new(service)));
            }
        }
        let mut found = analyse(services, settings, touched).await?.conflicts;
        found.retain(|conflict| conflict.kind == ConflictKind::Duplicate && conflict.spans_services());
        Ok(found)
    }

    /// Reads what stands in the groups, one after the other while there is room, so that the first question about one
    /// finds it in memory.
    pub(crate) async fn standings_warm(&self) -> Result<(), Refusal> {
        let groups = self.store().read().await?.gateway_group_list(&ListFilter::default()).await?;
        for group in groups.rows {
            if self.parts.standings.services_kept() >= SERVICES_KEPT_MAX {
                break;
            }
            self.parts.standings.of(self.store(), &group.id).await?;
        }
        Ok(())
    }

    /// A moment of the store, how the group matches then, and its published services.
    pub(super) async fn standing(
        &self,
        group: &GatewayGroupId,
    ) -> Result<(Reading, MatchSettings, Services), Refusal> {
        let (mut tx, services) = self.parts.standings.of(self.store(), group).await?;
        let settings = gateway_group(&mut tx, group).await?.group.match_settings();
        Ok((tx, settings, services))
    }
}

async fn candidate(
    tx: &mut Reading,
    wish: &PublishWish,
    service: &ServicePublishWish,
    published: &Services,
) -> Result<PublishedService, Refusal> {
    let id = &service.service_id;
    let (version, default) = match &service.service_version_id {
        Some(version_id) if !wish.create_new_version => {
            let found = tx.service_version_get(version_id).await?.filter(|version| version.service_id == *id);
            let not_found = || Refusal::NotFound { noun: "service version", id: version_id.to_string() };
            let template = tx.service_template_get(id).await?.map(|row| row.template);
            (found.ok_or_else(not_found)?, runtime_default(template.as_ref()))
        }
        _ => {
            let number = service.version.as_deref().unwrap_or_default();
            // The version is never written, so any id does.
            let version_id = id.as_str().parse().map_err(|_| Refusal::Conflict)?;
            let (version, template) = version_of_template(tx, version_id, id, number).await?;
            (version, RuntimeConfiguration::of_template(&template))
        }
    };
    let base = published.get(id).map_or(default, |active| active.service.runtime.clone());
    Ok(PublishedService::new(version, service.runtime.clone().over(base)))
}

/// Off the threads that serve calls: it may take a second.
pub(super) async fn analyse(
    services: Services,
    settings: MatchSettings,
    touched: BTreeSet<ServiceId>,
) -> Result<Conflicts, Refusal> {
    let analysis = tokio::task::spawn_blocking(move || {
        let standing = services.values().map(|standing| (&*standing.service, &*standing.reach));
        conflict::analyse_about(standing, settings, &touched)
    });
    analysis.await.map_err(|error| Refusal::Unavailable { reason: error.to_string() })
}
