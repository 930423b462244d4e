//! What publishing would change: the services, what gets in each other's way, and what of the requests that came
//! lately would have gone elsewhere.
//!
//! Nothing is changed, and nothing is asked of gateways: what they have sampled is here already, and whoever knows how
//! they match replays it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use gatewright_model::conflict::Conflicts;
use gatewright_model::diff::{ServiceDiff, ServiceState, diff};
use gatewright_model::id::{GatewayGroupId, ServiceId};
use gatewright_model::lifecycle::{RuntimeConfiguration, ServiceVersion};
use gatewright_model::rehearsal::Rehearse;
use gatewright_model::sample::SampledHead;
use gatewright_model::snapshot::{PublishedService, Revision};
use gatewright_model::validation::Violations;

use super::blast_radius::{BlastRadius, blast_radius};
use super::conflict_check::analyse;
use super::document::StateWish;
use super::gateway_group::gateway_group;
use super::preview_document::{PreviewWish, PreviewedService};
use super::runtime_configuration::runtime_default;
use super::service_diff::state;
use super::service_publish::must_be_servable;
use super::service_version::version_of_template;
use super::{Action, App, Caller, Refusal};
use crate::distribution::{GroupHeads, Services, Standing};
use crate::store::Reading;

/// What publishing would change.
pub(crate) struct Preview {
    /// The revision of the group that the wish was compared with.
    pub(crate) revision: Revision,
    pub(crate) services: Vec<ServicePreview>,
    pub(crate) conflicts: Conflicts,
    /// The requests that came lately; none: this control plane was built without the gateway.
    pub(crate) blast_radius: Option<BlastRadius>,
    /// Whether the group samples requests at all.
    pub(crate) is_sampled: bool,
    pub(crate) heads: GroupHeads,
}

/// What publishing would change about one service.
pub(crate) struct ServicePreview {
    pub(crate) service_id: ServiceId,
    /// The version that would be published; none: a new one of the template.
    pub(crate) version: Option<String>,
    /// The version that is; none: the service is not published, or has no version.
    pub(crate) published: Option<String>,
    /// What differs from what is published; none: the service is not published.
    pub(crate) diff: Option<ServiceDiff>,
    /// Why a publish would be refused.
    pub(crate) refusals: Violations,
}

/// A service as a publish would make it.
struct Candidate {
    version: ServiceVersion,
    is_template: bool,
    service: Arc<PublishedService>,
}

impl App {
    /// What publishing `wish` to a group would change; nothing is changed.
    pub(crate) async fn service_preview(
        &self,
        caller: &Caller,
        group: &GatewayGroupId,
        wish: PreviewWish,
    ) -> Result<Preview, Refusal> {
        caller.must(Action::PublishServices, group.as_str())?;
        let (mut tx, settings, standing) = self.standing(group).await?;
        let row = gateway_group(&mut tx, group).await?;
        let sampling = row.group.sampling_settings();
        let (mut services, mut candidates) = (Vec::new(), Vec::new());
        for wished in &wish.services {
            let active = standing.get(&wished.service_id);
            let candidate = candidate(&mut tx, wished, active.map(|active| &*active.service)).await?;
            let before = match active {
                Some(_) => {
                    let (service_id, gateway_group_id) = (wished.service_id.clone(), Some(group.clone()));
                    let published = StateWish { service_id, version: None, gateway_group_id };
                    Some(state(&mut tx, &published).await?)
                }
                None => None,
            };
            let after = ServiceState::of_version(&candidate.version, Some(candidate.service.runtime.clone()));
            let mut refusals = Violations::default();
            must_be_servable(&candidate.version, "", &mut refusals);
            services.push(ServicePreview {
                service_id: wished.service_id.clone(),
                version: (!candidate.is_template).then(|| candidate.version.version.clone()),
                published: active.and_then(|active| active.service.version.clone()),
                diff: before.map(|before| diff(&before, &after)),
                refusals,
            });
            candidates.push(candidate.service);
        }
        drop(tx);
        let heads = self.heads().of(group, &sampling, self.world().now());
        let after = with(&standing, &candidates);
        let touched: BTreeSet<ServiceId> = candidates.iter().map(|one| one.service_id.clone()).collect();
        let conflicts = analyse(Arc::clone(&after), settings, touched).await?;
        let blast_radius = match &self.parts.rehearsal {
            Some(rehearsal) => {
                let rehearsal = Arc::clone(rehearsal);
                let sampled = heads.heads.clone();
                Some(replay(rehearsal, (standing, after), candidates, settings, sampled).await?)
            }
            None => None,
        };
        let is_sampled = sampling.heads_per_second > 0;
        Ok(Preview { revision: row.revision, services, conflicts, blast_radius, is_sampled, heads })
    }
}

/// The services that would stand.
fn with(standing: &Services, candidates: &[Arc<PublishedService>]) -> Services {
    let mut after: BTreeMap<_, _> = (**standing).clone();
    let standing = |service: &Arc<PublishedService>| Standing::new(Arc::clone(service));
    after.extend(candidates.iter().map(|service| (service.service_id.clone(), standing(service))));
    Arc::new(after)
}

/// Off the threads that serve calls: it may take a second.
async fn replay(
    rehearsal: Arc<dyn Rehearse>,
    (before, after): (Services, Services),
    candidates: Vec<Arc<PublishedService>>,
    settings: gatewright_model::matching::MatchSettings,
    heads: Vec<SampledHead>,
) -> Result<BlastRadius, Refusal> {
    let replaying = tokio::task::spawn_blocking(move || {
        let standing: Vec<_> = before.values().map(|standing| Arc::clone(&standing.service)).collect();
        let requests: Vec<_> = heads.iter().map(SampledHead::request).collect();
        let replayed = rehearsal.replay(&standing, &candidates, settings, &requests)?;
        Ok(blast_radius(&before, &after, &heads, &replayed))
    });
    replaying.await.map_err(|error| Refusal::Unavailable { reason: error.to_string() })?
}

/// The wished-for version, or the template as it is now, under what the group has of its own.
async fn candidate(
    tx: &mut Reading,
    wish: &PreviewedService,
    active: Option<&PublishedService>,
) -> Result<Candidate, Refusal> {
    let id = &wish.service_id;
    let (version, default) = match &wish.version {
        Some(number) => {
            let version = tx.service_version_numbered(id, number).await?;
            let not_found = || Refusal::NotFound { noun: "service version", id: format!("{id}@{number}") };
            let template = tx.service_template_get(id).await?.map(|row| row.template);
            (version.ok_or_else(not_found)?, runtime_default(template.as_ref()))
        }
        None => {
            // The version is never written, so any id does.
            let version_id = id.as_str().parse().map_err(|_| Refusal::Conflict)?;
            let (version, template) = version_of_template(tx, version_id, id, "").await?;
            (version, RuntimeConfiguration::of_template(&template))
        }
    };
    let runtime = active.map_or(default, |active| active.runtime.clone());
    let mut service = PublishedService::new(version.clone(), runtime);
    // Further upstreams belong to the group and survive a publish.
    service.upstreams = active.map(|active| active.upstreams.clone()).unwrap_or_default();
    Ok(Candidate { version, is_template: wish.version.is_none(), service: Arc::new(service) })
}
