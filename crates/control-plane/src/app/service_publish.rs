//! Publishing: a version becomes active in a gateway group.
//!
//! * All services of a call, or none.
//! * A new version is a copy of the template and its routes at this moment; its number was never used before.
//! * An existing version is published again only where it ran once (roll back) or from where it runs now
//!   (synchronise), so that nothing becomes active that nobody has seen working; unless the publisher insists.
//! * What was written straight to a group becomes a version, there and where it is synchronised to.
//! * A publish with an idempotency key happens once, however often it is sent.
//! * The group's runtime configuration survives: explicit wishes first, then what the group has, then the template.

use std::collections::BTreeSet;

use gatewright_model::id::{GatewayGroupId, ServiceId, ServiceVersionId};
use gatewright_model::lifecycle::{RuntimeConfiguration, ServiceVersion};
use gatewright_model::limits;
use gatewright_model::resource::Plugins;
use gatewright_model::resource::service::ServiceKind;
use gatewright_model::rollout::Share;
use gatewright_model::snapshot::Revision;
use gatewright_model::validation::Violations;
use serde::{Deserialize, Serialize};

use super::document::{Idempotency, PublishWish, ServicePublishWish};
use super::group_service::group_service_version;
use super::instance::instances_must_run;
use super::plugin::stream_plugins_check;
use super::published_service::{group_must_exist, published_service};
use super::rollout::wish::BakeWish;
use super::rollout::{rollout_insert, rollout_overtake};
use super::runtime_configuration::runtime_default;
use super::service_version::version_of_template;
use super::{Action, App, Caller, Refusal, Warnings, persistently};
use crate::store::{
    Call, NumberedVersion, Placement, PublishReceipt, PublishedServiceRow, Reading, RolloutKind, RolloutRow,
    Stamp, Writing,
};

/// What is active after a publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PublishOutcome {
    /// The group's revision that contains it.
    pub(crate) revision: Revision,
    pub(crate) versions: Vec<(ServiceId, ServiceVersionId, String)>,
    /// What the publisher should know, such as routes that are never served.
    pub(crate) warnings: Warnings,
    /// Whether it had been published before, by an earlier sending of the same call.
    pub(crate) is_repeated: bool,
}

/// What is kept of an outcome under an idempotency key.
#[derive(Serialize, Deserialize)]
struct Receipt {
    revision: Revision,
    versions: Vec<(ServiceId, ServiceVersionId, String)>,
}

/// What one service of a publish comes to.
struct Plan {
    version: ServiceVersion,
    /// Whether the version has to be written first.
    is_new: bool,
    runtime: RuntimeConfiguration,
    /// The version that is active until now.
    before: Option<NumberedVersion>,
    /// Where the service was without a version until now.
    unversioned: Option<PublishedServiceRow>,
}

impl App {
    pub(crate) async fn service_publish(
        &self,
        caller: &Caller,
        wish: PublishWish,
    ) -> Result<PublishOutcome, Refusal> {
        caller.must(Action::PublishServices, wish.gateway_group_id.as_str())?;
        for source in wish.services.iter().filter_map(|service| service.source_gateway_group_id.as_ref()) {
            caller.must(Action::PublishServices, source.as_str())?;
        }
        persistently(|| self.publish(caller, &wish)).await
    }

    async fn publish(&self, caller: &Caller, wish: &PublishWish) -> Result<PublishOutcome, Refusal> {
        let group = &wish.gateway_group_id;
        let mut tx = self.store().write().await?;
        if let Some(receipt) = receipt(&mut tx, caller, wish.idempotency.as_ref()).await? {
            drop(tx);
            return Ok(self.repeated(group, receipt).await);
        }
        group_must_exist(&mut tx, group).await?;
        let mut plans = Vec::new();
        let mut violations = Violations::default();
        for (index, service) in wish.services.iter().enumerate() {
            let plan = self.plan(&mut tx, wish, service).await?;
            must_be_servable(&plan.version, &format!("/services/{index}"), &mut violations);
            plans.push(plan);
        }
        violations.into_result()?;
        let plugins = plans.iter().flat_map(|plan| plan.version.plugin_names()).collect();
        instances_must_run(&mut tx, group, plugins, self.world().now()).await?;
        let stamp = tx.stamp(self.world().now()).await?;
        let revision = tx.gateway_group_raise(group).await?;
        for plan in &plans {
            let service = &plan.version.service_id;
            Call::concerns(service.as_str(), &plan.version.name);
            self.place(&mut tx, stamp, group, revision, plan, caller).await?;
            if let Some(bake) = &wish.guard {
                let row = self.guarded(stamp, caller, group, (plan, bake))?;
                rollout_insert(&mut tx, stamp, &row).await?;
            }
        }
        let sources: BTreeSet<_> = plans
            .iter()
            .filter_map(|plan| Some(plan.unversioned.as_ref()?.gateway_group_id.clone()))
            .filter(|source| source != group)
            .collect();
        let versions = plans.into_iter().map(|plan| plan.version);
        let versions = versions.map(|version| (version.service_id, version.id, version.version)).collect();
        let receipt = Receipt { revision, versions };
        if let Some(Idempotency { key, wish_sha256 }) = &wish.idempotency {
            let outcome = serde_json::to_string(&receipt).unwrap_or_default();
            let receipt = PublishReceipt { wish_sha256: wish_sha256.clone(), outcome };
            tx.publish_receipt_insert(stamp, caller.username(), key, &receipt).await?;
        }
        let warnings = self.commit_services(tx, group, revision).await?;
        sources.iter().for_each(|source| self.hints().changed(source));
        let Receipt { revision, versions } = receipt;
        Ok(PublishOutcome { revision, versions, warnings, is_repeated: false })
    }

    /// The watch over what was just published.
    fn guarded(
        &self,
        stamp: Stamp,
        caller: &Caller,
        group: &GatewayGroupId,
        (plan, bake): (&Plan, &BakeWish),
    ) -> Result<RolloutRow, Refusal> {
        let (service, version) = (&plan.version.service_id, &plan.version);
        if version.kind == ServiceKind::Stream {
            let message = format!(
                "service `{service}` is a stream service, whose versions are not compared; publish it without"
            );
            return Err(Violations::one("/guard", message).into());
        }
        let nothing = || {
            let message =
                format!("nothing of service `{service}` ran there before: there is no version to go back to");
            Violations::one("/guard", message)
        };
        let before = plan.before.clone().filter(|before| before.id != version.id).ok_or_else(nothing)?;
        let mut row = self.rollout_row(stamp, caller, (group, service), RolloutKind::GuardedPublish);
        (row.plan, row.share, row.baseline) = (bake.plan(), Share::ALL, before);
        row.candidate = NumberedVersion { id: version.id.clone(), number: version.version.clone() };
        Ok(row)
    }

    /// What an earlier sending was answered, and what is true of it now.
    async fn repeated(&self, group: &GatewayGroupId, receipt: Receipt) -> PublishOutcome {
        let Receipt { revision, versions } = receipt;
        let published = versions.iter().map(|(service, ..)| service.clone()).collect();
        let warnings = self.duplicates_warn(group, published, Vec::new()).await;
        PublishOutcome { revision, versions, warnings, is_repeated: true }
    }

    async fn plan(
        &self,
        tx: &mut Reading,
        wish: &PublishWish,
        service: &ServicePublishWish,
    ) -> Result<Plan, Refusal> {
        let group = &wish.gateway_group_id;
        let active = tx.published_service_get(group, &service.service_id).await?;
        if let Some(source) = &service.source_gateway_group_id {
            let before = numbered(active.as_ref());
            let plan = self.plan_sync(tx, (source, group), active, service).await?;
            return Ok(Plan { before, ..plan });
        }
        if active.as_ref().is_some_and(|row| row.version.is_none()) {
            return Err(Refusal::Unversioned {
                service: service.service_id.to_string(),
                group: group.to_string(),
            });
        }
        if wish.create_new_version {
            let number = service.version.clone().unwrap_or_default();
            let (version, template) =
                version_of_template(tx, self.world().id(), &service.service_id, &number).await?;
            if tx.service_version_exists(&service.service_id, &number).await? {
                let active = active.and_then(|active| Some(active.version?.number));
                return Err(Refusal::VersionTaken { service: template.name, version: number, active });
            }
            let before = numbered(active.as_ref());
            let base = active.map(|active| active.runtime);
            let base = base.unwrap_or_else(|| RuntimeConfiguration::of_template(&template));
            let runtime = service.runtime.clone().over(base);
            return Ok(Plan { version, is_new: true, runtime, before, unversioned: None });
        }
        let version = existing_version(tx, group, service).await?;
        let before = numbered(active.as_ref());
        let runtime = runtime_there(tx, active, service).await?;
        Ok(Plan { version, is_new: false, runtime, before, unversioned: None })
    }

    /// The plan to publish what runs in another group; without a version, it becomes one.
    async fn plan_sync(
        &self,
        tx: &mut Reading,
        (source, target): (&GatewayGroupId, &GatewayGroupId),
        active: Option<PublishedServiceRow>,
        service: &ServicePublishWish,
    ) -> Result<Plan, Refusal> {
        let running = published_service(tx, source, &service.service_id).await?;
        if source != target && active.as_ref().is_some_and(|row| row.version.is_none()) {
            let (service, group) = (service.service_id.to_string(), target.to_string());
            return Err(Refusal::Unversioned { service, group });
        }
        let runtime = runtime_there(tx, active, service).await?;
        if let Some(version) = &running.version {
            if service.version.as_ref().is_some_and(|number| *number != version.number) {
                let message =
                    format!("gateway group `{source}` runs version `{}`, not the one given", version.number);
                return Err(Violations::one("/services", message).into());
            }
            let version = tx.service_version_get(&version.id).await?.ok_or(Refusal::Conflict)?;
            return Ok(Plan { version, is_new: false, runtime, before: None, unversioned: None });
        }
        let missing =
            || Violations::one("/services", "property \"version\" is missing: the service has none yet");
        let number = service.version.clone().ok_or_else(missing)?;
        if tx.service_version_exists(&service.service_id, &number).await? {
            let service = running.content.name;
            return Err(Refusal::VersionTaken { service, version: number, active: None });
        }
        let version = group_service_version(tx, &running, self.world().id(), number).await?;
        Ok(Plan { version, is_new: true, runtime, before: None, unversioned: Some(running) })
    }

    async fn place(
        &self,
        tx: &mut Writing,
        stamp: Stamp,
        group: &GatewayGroupId,
        revision: Revision,
        plan: &Plan,
        caller: &Caller,
    ) -> Result<(), Refusal> {
        if plan.is_new {
            tx.service_version_insert(stamp, &plan.version).await?;
        }
        let placement = Placement {
            gateway_group_id: group,
            service_id: &plan.version.service_id,
            service_version_id: &plan.version.id,
            runtime: &plan.runtime,
            revision,
        };
        if let Some(row) = &plan.unversioned {
            let source = &row.gateway_group_id;
            tx.group_route_delete_of(source, &plan.version.service_id).await?;
            if source != group {
                let revision = tx.gateway_group_raise(source).await?;
                let there =
                    Placement { gateway_group_id: source, runtime: &row.runtime, revision, ..placement };
                self.activate(tx, stamp, &there, caller).await?;
            }
        }
        self.activate(tx, stamp, &placement, caller).await
    }

    pub(super) async fn activate(
        &self,
        tx: &mut Writing,
        stamp: Stamp,
        placement: &Placement<'_>,
        caller: &Caller,
    ) -> Result<(), Refusal> {
        let (group, service) = (placement.gateway_group_id, placement.service_id);
        rollout_overtake(tx, stamp, group, service, caller.username()).await?;
        tx.published_service_put(stamp, placement).await?;
        Ok(tx.publication_insert(stamp, &self.world().id(), placement, (caller.username(), "")).await?)
    }
}

/// The runtime configuration under which an existing version runs: what the group has, or else what is wished for.
async fn runtime_there(
    tx: &mut Reading,
    active: Option<PublishedServiceRow>,
    wish: &ServicePublishWish,
) -> Result<RuntimeConfiguration, Refusal> {
    match active {
        Some(active) => Ok(active.runtime),
        None => {
            let template = tx.service_template_get(&wish.service_id).await?.map(|row| row.template);
            Ok(wish.runtime.clone().over(runtime_default(template.as_ref())))
        }
    }
}

/// The version that is active, if there is one.
fn numbered(active: Option<&PublishedServiceRow>) -> Option<NumberedVersion> {
    let version = active?.version.as_ref()?;
    Some(NumberedVersion { id: version.id.clone(), number: version.number.clone() })
}

/// What an earlier sending of the same call was answered.
async fn receipt(
    tx: &mut Reading,
    caller: &Caller,
    idempotency: Option<&Idempotency>,
) -> Result<Option<Receipt>, Refusal> {
    let Some(Idempotency { key, wish_sha256 }) = idempotency else { return Ok(None) };
    let Some(receipt) = tx.publish_receipt_get(caller.username(), key).await? else { return Ok(None) };
    if receipt.wish_sha256 != *wish_sha256 {
        return Err(Refusal::IdempotencyKeyReused { key: key.clone() });
    }
    let unreadable = |error| Refusal::Unavailable { reason: format!("a receipt cannot be read: {error}") };
    serde_json::from_str(&receipt.outcome).map(Some).map_err(unreadable)
}

/// The version that is wished for by id: one of this service, and one that may become active in this group.
async fn existing_version(
    tx: &mut Reading,
    group: &GatewayGroupId,
    wish: &ServicePublishWish,
) -> Result<ServiceVersion, Refusal> {
    let id = wish.service_version_id.as_ref();
    let not_found = || Refusal::NotFound {
        noun: "service version",
        id: id.map_or_else(String::new, ToString::to_string),
    };
    let id = id.ok_or_else(not_found)?;
    let version = tx.service_version_get(id).await?.filter(|version| version.service_id == wish.service_id);
    let version = version.ok_or_else(not_found)?;
    if wish.version.as_ref().is_some_and(|number| *number != version.version) {
        let message =
            format!("service version `{id}` has the number `{}`, not the one given", version.version);
        return Err(Violations::one("/services", message).into());
    }
    let may_run_here = wish.any_version
        || tx.publication_exists(group, id, &wish.service_id).await?
        || tx.service_version_is_active(id).await?;
    if !may_run_here {
        return Err(Refusal::VersionNotRestorable {
            service: version.name,
            version: version.version,
            group: group.to_string(),
        });
    }
    Ok(version)
}

/// Refuses what gateways of this release could not serve: it would answer 503 from the first request on.
pub(super) fn must_be_servable(version: &ServiceVersion, at: &str, violations: &mut Violations) {
    let service = &version.name;
    let (count, max) = (version.routes.len() + version.stream_routes.len(), limits::ROUTES_PER_SERVICE_MAX);
    if count > max {
        violations.add(at, format!("service `{service}` has {count} routes, more than {max}; split it"));
    }
    for (index, route) in version.stream_routes.iter().enumerate() {
        route.route.check(&format!("{at}/stream_routes/{index}"), violations);
    }
    for (index, route) in version.routes.iter().enumerate() {
        let at = format!("{at}/routes/{index}");
        route.route.check(&at, violations, &mut Violations::default());
    }
    let mut must_be_known = |plugins: &Plugins, place: &str| {
        for (name, config) in plugins {
            if !gatewright_plugins::is_known(name) {
                let message =
                    format!("{place} uses plugin `{name}`, which this release cannot run; remove it");
                violations.add(at, message);
                continue;
            }
            for wrong in gatewright_plugins::validate(name, config).iter() {
                violations.add(at, format!("{place}, plugin `{name}{}`: {}", wrong.path, wrong.message));
            }
        }
    };
    must_be_known(&version.plugins, &format!("service `{service}`"));
    for route in &version.routes {
        must_be_known(&route.route.plugins, &format!("service `{service}`, route `{}`", route.route.name));
    }
    for route in &version.stream_routes {
        let place = format!("service `{service}`, stream route `{}`", route.route.name);
        must_be_known(&route.route.plugins, &place);
    }
    if version.kind == ServiceKind::Stream {
        let of_routes = version.stream_routes.iter().map(|route| &route.route.plugins);
        for plugins in std::iter::once(&version.plugins).chain(of_routes) {
            stream_plugins_check(plugins, at, violations);
        }
    }
}
