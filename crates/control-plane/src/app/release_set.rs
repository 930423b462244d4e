//! Release sets: several services to several gateway groups, all or nothing.
//!
//! * First every healthy instance of every group compiles what it would serve, and says so or why not. Until all have,
//!   nothing is published anywhere; a set that one instance cannot compile leaves no trace but its audit row.
//! * Then one transaction makes all of it true, with one new revision for each group.
//! * What was prepared is what is published: if a group has changed meanwhile, the set is refused.
//! * One roll back puts back what each group had, unless somebody has published something else since.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use gatewright_model::id::{GatewayGroupId, ServiceId};
use gatewright_model::lifecycle::{RuntimeConfiguration, ServiceVersion};
use gatewright_model::snapshot::{PublishedService, Revision};
use gatewright_model::validation::Violations;
use tokio::time::Instant;

use super::instance::{InstanceStatus, instances_must_run};
use super::published_service::{forgotten, group_must_exist};
use super::release_set_document::ReleaseWish;
use super::runtime_configuration::runtime_default;
use super::service_publish::must_be_servable;
use super::service_version::version_of_template;
use super::{Action, App, Caller, Refusal, persistently};
use crate::store::{
    Call, NumberedVersion, ObjectKind, Placement, Reading, ReleaseSet, ReleaseSetRow, ReleasedGroup,
    ReleasedService, RolledBack, Writing,
};

/// What callers call it.
const NOUN: &str = "release set";

/// How often answers are looked for at least: those to other control planes come through the store.
const PAUSE_MAX: Duration = Duration::from_millis(250);

/// What a release set comes to.
struct Plan {
    groups: Vec<GroupPlan>,
    /// Versions that have to be written first.
    new: Vec<ServiceVersion>,
}

struct GroupPlan {
    group: GatewayGroupId,
    /// The revision that it was planned for.
    base: Revision,
    services: Vec<ServicePlan>,
}

struct ServicePlan {
    version: ServiceVersion,
    runtime: RuntimeConfiguration,
    before: Option<NumberedVersion>,
    /// What gateways would serve.
    candidate: PublishedService,
}

impl App {
    /// Publishes services to groups, once every healthy instance has compiled them.
    pub(crate) async fn release_set_create(
        &self,
        caller: &Caller,
        wish: ReleaseWish,
        patience: Duration,
    ) -> Result<ReleaseSetRow, Refusal> {
        for group in &wish.groups {
            caller.must(Action::PublishServices, group.gateway_group_id.as_str())?;
        }
        let plan = self.release_plan(&wish).await?;
        let id: String = self.world().id();
        let is_dry_run = Call::current().is_some_and(|call| call.is_dry_run());
        if !is_dry_run {
            let prepared = self.release_prepare(&id, &plan, patience).await;
            self.preparation_end(&id, &plan).await?;
            prepared?;
        }
        persistently(|| self.release_publish(caller, &id, &plan)).await
    }

    async fn release_plan(&self, wish: &ReleaseWish) -> Result<Plan, Refusal> {
        let mut tx = self.store().read().await?;
        let (mut versions, mut new, mut violations) = (BTreeMap::new(), Vec::new(), Violations::default());
        let mut groups = Vec::with_capacity(wish.groups.len());
        for (place, wished) in wish.groups.iter().enumerate() {
            let group = &wished.gateway_group_id;
            group_must_exist(&mut tx, group).await?;
            let base = tx.gateway_group_revision(group).await?.unwrap_or_default();
            let (_, _, standing) = self.standing(group).await?;
            let mut services = Vec::with_capacity(wished.services.len());
            for (index, service) in wished.services.iter().enumerate() {
                let key = (service.service_id.clone(), service.version.clone());
                if !versions.contains_key(&key) {
                    let (version, is_new) = self.release_version(&mut tx, &key).await?;
                    must_be_servable(&version, &format!("/groups/{place}/services/{index}"), &mut violations);
                    if is_new {
                        new.push(version.clone());
                    }
                    versions.insert(key.clone(), version);
                }
                let active = standing.get(&key.0).map(|active| &*active.service);
                services.push(service_plan(&mut tx, group, versions[&key].clone(), active).await?);
            }
            let plugins =
                services.iter().flat_map(|plan: &ServicePlan| plan.version.plugin_names()).collect();
            instances_must_run(&mut tx, group, plugins, self.world().now()).await?;
            groups.push(GroupPlan { group: group.clone(), base, services });
        }
        violations.into_result()?;
        Ok(Plan { groups, new })
    }

    /// The version of that number, or else a new one of the template.
    async fn release_version(
        &self,
        tx: &mut Reading,
        (service, number): &(ServiceId, String),
    ) -> Result<(ServiceVersion, bool), Refusal> {
        if let Some(version) = tx.service_version_numbered(service, number).await? {
            return Ok((version, false));
        }
        Ok((version_of_template(tx, self.world().id(), service, number).await?.0, true))
    }

    /// Has every healthy instance compile its part, and waits for what they say.
    async fn release_prepare(&self, id: &str, plan: &Plan, patience: Duration) -> Result<(), Refusal> {
        let mut tx = self.store().write().await?;
        let now = self.world().now();
        for GroupPlan { group, services, .. } in &plan.groups {
            let candidates: Vec<_> = services.iter().map(|service| service.candidate.clone()).collect();
            if !tx.preparation_insert((id, now), group, &candidates).await? {
                return Err(Refusal::BeingPrepared { group: group.to_string() });
            }
        }
        tx.commit_aside().await?;
        plan.groups.iter().for_each(|plan| self.hints().changed(&plan.group));
        let deadline = Instant::now() + patience;
        let mut heard = self.instances().subscribe();
        loop {
            heard.borrow_and_update();
            let (mut silent, mut complaints) = (Vec::new(), Vec::new());
            for GroupPlan { group, .. } in &plan.groups {
                for instance in self.instances_now(Some(group)).await? {
                    let heartbeat = &instance.row.heartbeat;
                    let name =
                        format!("gateway instance `{}` ({})", heartbeat.instance_id, heartbeat.hostname);
                    match heartbeat.prepared.as_ref().filter(|prepared| prepared.id == id) {
                        Some(prepared) => complaints.extend(
                            prepared
                                .complaints
                                .iter()
                                .map(|one| format!("{name}: `{}`: {}", one.id, one.reason)),
                        ),
                        None if is_asked(instance.status) => silent.push(name),
                        None => {}
                    }
                }
            }
            if !complaints.is_empty() {
                return Err(Refusal::NotPrepared { instances: complaints.join("; ") });
            }
            if silent.is_empty() {
                return Ok(());
            }
            if Instant::now() >= deadline {
                let said =
                    format!("nothing was heard within {} s of {}", patience.as_secs(), silent.join(", "));
                return Err(Refusal::NotPrepared { instances: said });
            }
            let pause = PAUSE_MAX.min(deadline - Instant::now());
            let _ = tokio::time::timeout(pause, heard.changed()).await;
        }
    }

    /// Nobody waits any more, however it went.
    async fn preparation_end(&self, id: &str, plan: &Plan) -> Result<(), Refusal> {
        let mut tx = self.store().write().await?;
        for GroupPlan { group, .. } in &plan.groups {
            tx.preparation_delete(id, group).await?;
        }
        Ok(tx.commit_aside().await?)
    }

    async fn release_publish(
        &self,
        caller: &Caller,
        id: &str,
        plan: &Plan,
    ) -> Result<ReleaseSetRow, Refusal> {
        let mut tx = self.store().write().await?;
        for GroupPlan { group, base, .. } in &plan.groups {
            if tx.gateway_group_revision(group).await? != Some(*base) {
                return Err(Refusal::ChangedWhilePreparing { group: group.to_string() });
            }
        }
        let stamp = tx.stamp(self.world().now()).await?;
        for version in &plan.new {
            if tx.service_version_exists(&version.service_id, &version.version).await? {
                let (service, version) = (version.name.clone(), version.version.clone());
                return Err(Refusal::VersionTaken { service, version, active: None });
            }
            tx.service_version_insert(stamp, version).await?;
        }
        let mut groups = Vec::with_capacity(plan.groups.len());
        for GroupPlan { group, services, .. } in &plan.groups {
            let revision = tx.gateway_group_raise(group).await?;
            for service in services {
                let placement = Placement {
                    gateway_group_id: group,
                    service_id: &service.version.service_id,
                    service_version_id: &service.version.id,
                    runtime: &service.runtime,
                    revision,
                };
                self.activate(&mut tx, stamp, &placement, caller).await?;
                Call::concerns(service.version.service_id.as_str(), &service.version.name);
            }
            self.streams_claim_changed(&mut tx, group, revision).await?;
            groups.push(released(group, revision, services));
        }
        let set = ReleaseSet { published_by: caller.username().to_owned(), groups, rolled_back: None };
        tx.release_set_insert(stamp, id, &set).await?;
        tx.commit().await?;
        plan.groups.iter().for_each(|plan| self.hints().changed(&plan.group));
        Ok(ReleaseSetRow { id: id.to_owned(), set, created_at: stamp.at })
    }

    /// The newest release sets.
    pub(crate) async fn release_set_list(&self, caller: &Caller) -> Result<Vec<ReleaseSetRow>, Refusal> {
        caller.must(Action::GetPublishedService, "*")?;
        Ok(self.store().read().await?.release_set_list().await?)
    }

    pub(crate) async fn release_set_get(&self, caller: &Caller, id: &str) -> Result<ReleaseSetRow, Refusal> {
        caller.must(Action::GetPublishedService, "*")?;
        release_set(&mut self.store().read().await?, id).await
    }

    /// Puts back what each group had before a release set, as one change.
    pub(crate) async fn release_set_roll_back(
        &self,
        caller: &Caller,
        id: &str,
    ) -> Result<ReleaseSetRow, Refusal> {
        let set = release_set(&mut self.store().read().await?, id).await?.set;
        for group in &set.groups {
            caller.must(Action::PublishServices, group.gateway_group_id.as_str())?;
        }
        persistently(|| self.roll_back(caller, id)).await
    }

    async fn roll_back(&self, caller: &Caller, id: &str) -> Result<ReleaseSetRow, Refusal> {
        let mut tx = self.store().write().await?;
        let mut row = release_set(&mut tx, id).await?;
        if row.set.rolled_back.is_some() {
            return Err(Refusal::RolledBackAlready { id: id.to_owned() });
        }
        let mut runtimes = BTreeMap::new();
        let mut overtaken = BTreeSet::new();
        for ReleasedGroup { gateway_group_id: group, services, .. } in &row.set.groups {
            for service in services {
                let active = tx.published_service_get(group, &service.service_id).await?;
                let runs = active.as_ref().and_then(|active| Some(&active.version.as_ref()?.id));
                if runs != Some(&service.after.id) {
                    overtaken.insert(format!("service `{}` in gateway group `{group}`", service.service));
                }
                let runtime = active.map(|active| active.runtime);
                runtimes
                    .extend(runtime.map(|runtime| ((group.clone(), service.service_id.clone()), runtime)));
            }
        }
        if !overtaken.is_empty() {
            let services = overtaken.into_iter().collect::<Vec<_>>().join(", ");
            return Err(Refusal::ReleaseOvertaken { id: id.to_owned(), services });
        }
        let stamp = tx.stamp(self.world().now()).await?;
        for ReleasedGroup { gateway_group_id: group, services, .. } in &row.set.groups {
            let revision = tx.gateway_group_raise(group).await?;
            for service in services {
                Call::concerns(service.service_id.as_str(), &service.service);
                let Some(before) = &service.before else {
                    take_out(&mut tx, group, &service.service_id, revision).await?;
                    continue;
                };
                let runtime = &runtimes[&(group.clone(), service.service_id.clone())];
                let (service_id, service_version_id) = (&service.service_id, &before.id);
                let placement =
                    Placement { gateway_group_id: group, service_id, service_version_id, runtime, revision };
                self.activate(&mut tx, stamp, &placement, caller).await?;
            }
            self.streams_claim_changed(&mut tx, group, revision).await?;
        }
        row.set.rolled_back = Some(RolledBack { at: stamp.at, by: caller.username().to_owned() });
        tx.release_set_update(id, &row.set).await?;
        tx.commit().await?;
        row.set.groups.iter().for_each(|group| self.hints().changed(&group.gateway_group_id));
        Ok(row)
    }
}

/// Whether an instance has a say: one that is lost serves what it has, and learns of everything when it comes back.
fn is_asked(status: InstanceStatus) -> bool {
    status == InstanceStatus::Healthy
}

async fn service_plan(
    tx: &mut Reading,
    group: &GatewayGroupId,
    version: ServiceVersion,
    active: Option<&PublishedService>,
) -> Result<ServicePlan, Refusal> {
    let id = &version.service_id;
    let before = match active {
        None => None,
        Some(PublishedService { service_version_id: Some(version), version: Some(number), .. }) => {
            Some(NumberedVersion { id: version.clone(), number: number.clone() })
        }
        Some(_) => {
            return Err(Refusal::Unversioned { service: id.to_string(), group: group.to_string() });
        }
    };
    let runtime = match active {
        Some(active) => active.runtime.clone(),
        None => {
            let template = tx.service_template_get(id).await?.map(|row| row.template);
            runtime_default(template.as_ref())
        }
    };
    let mut candidate = PublishedService::new(version.clone(), runtime.clone());
    // Further upstreams belong to the group and survive a publish.
    candidate.upstreams = active.map(|active| active.upstreams.clone()).unwrap_or_default();
    Ok(ServicePlan { version, runtime, before, candidate })
}

fn released(group: &GatewayGroupId, revision: Revision, services: &[ServicePlan]) -> ReleasedGroup {
    let released = services.iter().map(|ServicePlan { version, before, .. }| ReleasedService {
        service_id: version.service_id.clone(),
        service: version.name.clone(),
        before: before.clone(),
        after: NumberedVersion { id: version.id.clone(), number: version.version.clone() },
    });
    ReleasedGroup { gateway_group_id: group.clone(), revision: revision.0, services: released.collect() }
}

async fn take_out(
    tx: &mut Writing,
    group: &GatewayGroupId,
    service: &ServiceId,
    revision: Revision,
) -> Result<(), Refusal> {
    tx.published_service_delete(group, service, revision, forgotten(revision)).await?;
    tx.group_object_delete_owned(group, ObjectKind::ServiceUpstream, service.as_str(), revision).await?;
    Ok(())
}

async fn release_set(tx: &mut Reading, id: &str) -> Result<ReleaseSetRow, Refusal> {
    let row = tx.release_set_get(id).await?;
    row.ok_or_else(|| Refusal::NotFound { noun: NOUN, id: id.to_owned() })
}
