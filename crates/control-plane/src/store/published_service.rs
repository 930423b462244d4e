//! Services as they are active in gateway groups: a version, or what was written straight to the group, under a
//! runtime configuration.
//!
//! Every write carries the group's revision of that moment, so that "changed since" is one indexed query, and a
//! removal leaves a tombstone with its revision.

use std::collections::{BTreeMap, HashMap};

use gatewright_model::id::{GatewayGroupId, ObjectId, ServiceId, ServiceVersionId};
use gatewright_model::lifecycle::{RouteVersion, RuntimeConfiguration};
use gatewright_model::resource::service::ServiceKind;
use gatewright_model::resource::upstream::Upstream;
use gatewright_model::resource::{AsSent, Labels, Plugins};
use gatewright_model::snapshot::{PublishedService, Revision};
use serde::de::DeserializeOwned;

use super::database::{Row, query};
use super::list::{self, ListFilter, Listed, Scope, Source};
use super::object_count::{Counted, PUBLISHED_SERVICE};
use super::rollout::{self, OnGateways, RolloutSummary};
use super::route::kind_text;
use super::sealed_members::Members;
use super::service_version::Content;
use super::witness::Subject;
use super::{ObjectKey, ObjectKind, Reading, Stamp, StoreError, Writing, from_json, to_json};

/// A published service without its routes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct PublishedServiceRow {
    pub(crate) gateway_group_id: GatewayGroupId,
    pub(crate) gateway_group_name: String,
    pub(crate) service_id: ServiceId,
    /// None: a service without a version.
    pub(crate) version: Option<ActiveVersion>,
    pub(crate) content: ServiceContent,
    pub(crate) runtime: RuntimeConfiguration,
    pub(crate) publish_time: i64,
    pub(crate) created_at: i64,
    pub(crate) updated_at: i64,
    /// Rises with every change of the service, not with those of its routes and further upstreams.
    pub(crate) change_number: i64,
    /// What is under way.
    pub(crate) rollout: Option<RolloutSummary>,
}

/// The version that is active.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ActiveVersion {
    pub(crate) id: ServiceVersionId,
    pub(crate) number: String,
    pub(crate) created_at: i64,
}

/// What a published service says beside its routes and its runtime configuration.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ServiceContent {
    pub(crate) name: String,
    pub(crate) desc: AsSent<String>,
    pub(crate) labels: AsSent<Labels>,
    pub(crate) kind: ServiceKind,
    pub(crate) plugins: AsSent<Plugins>,
    /// Whether a service without a version was given an upstream, be it like the one that is assumed without.
    pub(crate) has_upstream: bool,
}

/// What a publish makes true.
#[derive(Clone, Copy)]
pub(crate) struct Placement<'a> {
    pub(crate) gateway_group_id: &'a GatewayGroupId,
    pub(crate) service_id: &'a ServiceId,
    pub(crate) service_version_id: &'a ServiceVersionId,
    pub(crate) runtime: &'a RuntimeConfiguration,
    pub(crate) revision: Revision,
}

/// What a write straight to a group makes true; which version is active stays.
pub(crate) struct ServiceWrite<'a> {
    pub(crate) gateway_group_id: &'a GatewayGroupId,
    pub(crate) service_id: &'a ServiceId,
    pub(crate) content: &'a ServiceContent,
    pub(crate) runtime: &'a RuntimeConfiguration,
    pub(crate) revision: Revision,
}

const COLUMNS: &str = "p.gateway_group_id, g.name AS gateway_group_name, p.service_id, p.name, p.labels, p.content, \
    p.runtime_configuration, p.publish_time, p.created_at, p.updated_at, p.change_number, \
    COALESCE(p.service_version_id, '') AS version_id, COALESCE(v.version, '') AS version, \
    COALESCE(v.created_at, 0) AS version_created_at, \
    COALESCE(ro.id, '') AS rollout_id, COALESCE(ro.kind, '') AS rollout_kind, \
    COALESCE(ro.share, 0) AS rollout_share, COALESCE(cv.version, '') AS rollout_version";

const TABLES: &str = "published_service p JOIN gateway_group g ON g.id = p.gateway_group_id \
    LEFT JOIN service_version v ON v.id = p.service_version_id \
    LEFT JOIN rollout ro ON ro.gateway_group_id = p.gateway_group_id AND ro.service_id = p.service_id \
    AND ro.ended_at IS NULL LEFT JOIN service_version cv ON cv.id = ro.service_version_id";

const SOURCE: Source =
    Source { columns: COLUMNS, tables: TABLES, object: "p", named: "p", id: "service_id", owner: None };

fn read(row: &Row, members: &Members) -> Result<PublishedServiceRow, StoreError> {
    let version = match row.text("version_id")?.is_empty() {
        true => None,
        false => Some(ActiveVersion {
            id: row.parsed("version_id")?,
            number: row.text("version")?,
            created_at: row.integer("version_created_at")?,
        }),
    };
    Ok(PublishedServiceRow {
        gateway_group_id: row.parsed("gateway_group_id")?,
        gateway_group_name: row.text("gateway_group_name")?,
        service_id: row.parsed("service_id")?,
        version,
        content: read_content(row, members)?,
        runtime: read_runtime(row, members)?,
        publish_time: row.integer("publish_time")?,
        created_at: row.integer("created_at")?,
        updated_at: row.integer("updated_at")?,
        change_number: row.integer("change_number")?,
        rollout: rollout::read_summary(row)?,
    })
}

fn read_runtime(row: &Row, members: &Members) -> Result<RuntimeConfiguration, StoreError> {
    members.open(&row.text("service_id")?, &row.text("runtime_configuration")?)
}

fn read_content(row: &Row, members: &Members) -> Result<ServiceContent, StoreError> {
    let mut content: Content = members.open(&row.text("service_id")?, &row.text("content")?)?;
    let labels = content.labels(row)?;
    let Content { desc, kind, plugins, has_upstream, .. } = content;
    Ok(ServiceContent { name: row.text("name")?, desc, labels, kind, plugins, has_upstream })
}

/// A published service as gateways get it, with routes if it has a version.
fn read_whole(row: &Row, members: &Members) -> Result<PublishedService, StoreError> {
    let content = read_content(row, members)?;
    let has_version = !row.text("version_id")?.is_empty();
    Ok(PublishedService {
        service_id: row.parsed("service_id")?,
        service_version_id: has_version.then(|| row.parsed("version_id")).transpose()?,
        version: has_version.then(|| row.text("version")).transpose()?,
        name: content.name,
        kind: content.kind,
        plugins: content.plugins.into_inner(),
        routes: members.open(&row.text("service_id")?, &row.text("routes")?)?,
        stream_routes: members.open(&row.text("service_id")?, &row.text("stream_routes")?)?,
        upstreams: BTreeMap::new(),
        canary: None,
        compared_with: None,
        runtime: read_runtime(row, members)?,
    })
}

impl Reading {
    pub(crate) async fn published_service_get(
        &mut self,
        group: &GatewayGroupId,
        service: &ServiceId,
    ) -> Result<Option<PublishedServiceRow>, StoreError> {
        let one = query(format!(
            "SELECT {COLUMNS} FROM {TABLES} WHERE p.gateway_group_id = $1 AND p.service_id = $2"
        ));
        let members = self.members();
        let row = self.tx.row(one.bind(group.as_str()).bind(service.as_str())).await?;
        row.map(|row| read(&row, &members)).transpose()
    }

    pub(crate) async fn published_service_list(
        &mut self,
        group: &GatewayGroupId,
        filter: &ListFilter,
    ) -> Result<Listed<PublishedServiceRow>, StoreError> {
        let fixed = [("p.gateway_group_id", group.as_str())];
        let counted = Some(Counted { group: group.as_str(), noun: PUBLISHED_SERVICE });
        let (members, scope) = (self.members(), Scope { fixed: &fixed, counted });
        list::select(&mut self.tx, &SOURCE, scope, filter, |row| read(row, &members)).await
    }

    /// The groups in which a service is active, with or without a version.
    pub(crate) async fn published_service_everywhere(
        &mut self,
        service: &ServiceId,
        filter: &ListFilter,
    ) -> Result<Listed<PublishedServiceRow>, StoreError> {
        let scope = Scope { fixed: &[("p.service_id", service.as_str())], counted: None };
        let members = self.members();
        list::select(&mut self.tx, &SOURCE, scope, filter, |row| read(row, &members)).await
    }

    /// The groups in which a version of a service is published.
    pub(crate) async fn published_service_groups(
        &mut self,
        service: &ServiceId,
    ) -> Result<Vec<GatewayGroupId>, StoreError> {
        let all = query(
            "SELECT gateway_group_id FROM published_service \
             WHERE service_id = $1 AND service_version_id IS NOT NULL ORDER BY gateway_group_id",
        );
        let rows = self.tx.rows(all.bind(service.as_str())).await?;
        rows.iter().map(|row| row.parsed("gateway_group_id")).collect()
    }

    /// Whether a version is active in any group.
    pub(crate) async fn service_version_is_active(
        &mut self,
        version: &ServiceVersionId,
    ) -> Result<bool, StoreError> {
        let any = query("SELECT service_id FROM published_service WHERE service_version_id = $1 LIMIT 1");
        Ok(self.tx.row(any.bind(version.as_str())).await?.is_some())
    }

    /// The services of a group that changed after `since`, whole, in a stable order.
    ///
    /// What belongs to them is joined so that SQLite begins with the services: it takes `CROSS JOIN` to mean this
    /// order, and would else read all that belongs to any service, because it cannot know that few have changed.
    pub(crate) async fn published_service_changes(
        &mut self,
        group: &GatewayGroupId,
        since: Revision,
    ) -> Result<Vec<PublishedService>, StoreError> {
        let changed = query(
            "SELECT p.service_id, p.name, p.labels, p.content, p.runtime_configuration, \
             COALESCE(p.service_version_id, '') AS version_id, COALESCE(v.version, '') AS version, \
             COALESCE(v.routes, '[]') AS routes, COALESCE(v.stream_routes, '[]') AS stream_routes \
             FROM published_service p LEFT JOIN service_version v ON v.id = p.service_version_id \
             WHERE p.gateway_group_id = $1 AND p.revision > $2 ORDER BY p.revision, p.service_id",
        );
        let members = self.members();
        let rows = self.tx.rows(changed.bind(group.as_str()).bind(number(since))).await?;
        let mut services = rows.iter().map(|row| read_whole(row, &members)).collect::<Result<Vec<_>, _>>()?;
        let mut routes = self.group_route_changes(group, since, ServiceKind::Http).await?;
        let mut stream_routes = self.group_route_changes(group, since, ServiceKind::Stream).await?;
        let mut upstreams = self.service_upstream_changes(group, since).await?;
        let mut rollouts = self.rollout_changes(group, since).await?;
        for service in &mut services {
            match rollouts.remove(&service.service_id) {
                Some(OnGateways::Canary(canary)) => service.canary = Some(canary),
                Some(OnGateways::ComparedWith(version)) => service.compared_with = Some(version),
                None => {}
            }
            service.upstreams = upstreams.remove(&service.service_id).unwrap_or_default();
            if service.service_version_id.is_none() {
                service.routes = routes.remove(&service.service_id).unwrap_or_default();
                service.stream_routes = stream_routes.remove(&service.service_id).unwrap_or_default();
            }
        }
        Ok(services)
    }

    /// The routes of this kind of the services without a version that changed after `since`, ordered by id.
    async fn group_route_changes<R: DeserializeOwned>(
        &mut self,
        group: &GatewayGroupId,
        since: Revision,
        kind: ServiceKind,
    ) -> Result<HashMap<ServiceId, Vec<RouteVersion<R>>>, StoreError> {
        let changed = query(
            "SELECT r.service_id, r.id, r.content FROM published_service p CROSS JOIN group_route r \
             WHERE p.gateway_group_id = $1 AND p.revision > $2 AND r.gateway_group_id = p.gateway_group_id \
             AND r.service_id = p.service_id AND r.kind = $3 ORDER BY r.service_id, r.id",
        );
        let members = self.members();
        let mut routes: HashMap<ServiceId, Vec<RouteVersion<R>>> = HashMap::new();
        let changed = changed.bind(group.as_str()).bind(number(since)).bind(kind_text(kind));
        for row in self.tx.rows(changed).await? {
            let route = members.open(&row.text("service_id")?, &row.text("content")?)?;
            let route = RouteVersion { route_id: row.parsed("id")?, route };
            routes.entry(row.parsed("service_id")?).or_default().push(route);
        }
        Ok(routes)
    }

    /// The further upstreams of the services that changed after `since`.
    async fn service_upstream_changes(
        &mut self,
        group: &GatewayGroupId,
        since: Revision,
    ) -> Result<HashMap<ServiceId, BTreeMap<ObjectId, Upstream>>, StoreError> {
        let changed = query(
            "SELECT o.owner, o.id, o.sealed FROM published_service p CROSS JOIN group_object o \
             WHERE p.gateway_group_id = $1 AND p.revision > $2 AND o.gateway_group_id = p.gateway_group_id \
             AND o.kind = 'service_upstream' AND o.owner = p.service_id",
        );
        let mut upstreams: HashMap<ServiceId, BTreeMap<ObjectId, Upstream>> = HashMap::new();
        for row in self.tx.rows(changed.bind(group.as_str()).bind(number(since))).await? {
            let (owner, id) = (row.text("owner")?, row.text("id")?);
            let key = ObjectKey { group, kind: ObjectKind::ServiceUpstream, owner: &owner, id: &id };
            let document = self.secret_key()?.open(&key.place(), &row.text("sealed")?)?;
            let of_service = upstreams.entry(row.parsed("owner")?).or_default();
            of_service.insert(row.parsed("id")?, from_json(&document)?);
        }
        Ok(upstreams)
    }

    /// The services that were removed from a group after `since` and are not back.
    pub(crate) async fn removed_service_list(
        &mut self,
        group: &GatewayGroupId,
        since: Revision,
    ) -> Result<Vec<ServiceId>, StoreError> {
        let removed = query(
            "SELECT service_id FROM removed_service WHERE gateway_group_id = $1 AND revision > $2 \
             ORDER BY service_id",
        );
        let rows = self.tx.rows(removed.bind(group.as_str()).bind(number(since))).await?;
        rows.iter().map(|row| row.parsed("service_id")).collect()
    }
}

impl Writing {
    /// Content and runtime configuration of a service as they are stored.
    fn service_sealed(&self, write: &ServiceWrite<'_>) -> Result<(String, String), StoreError> {
        let ServiceContent { desc, labels, kind, plugins, has_upstream, .. } = write.content.clone();
        let content = Content { desc, labels, kind, plugins, has_upstream };
        let members = self.members();
        Ok((members.seal(write.service_id, &content)?, members.seal(write.service_id, write.runtime)?))
    }

    /// Makes a version active in a group, in place of the one that was.
    pub(crate) async fn published_service_put(
        &mut self,
        stamp: Stamp,
        placement: &Placement<'_>,
    ) -> Result<(), StoreError> {
        let Placement { gateway_group_id, service_id, .. } = *placement;
        self.witness(Subject::PublishedService(gateway_group_id.clone(), service_id.clone())).await?;
        let (group, service) = (placement.gateway_group_id, placement.service_id);
        self.past_service_keep(group, service).await?;
        self.removed_service_forget(group, service).await?;
        let put = query(
            "INSERT INTO published_service (gateway_group_id, service_id, service_version_id, name, labels, content, \
             runtime_configuration, revision, publish_time, created_at, updated_at, created_number, change_number) \
             VALUES ($1, $2, $3, (SELECT name FROM service_version WHERE id = $3), \
             (SELECT labels FROM service_version WHERE id = $3), \
             (SELECT content FROM service_version WHERE id = $3), $4, $5, $6, $6, $6, $7, $7) \
             ON CONFLICT (gateway_group_id, service_id) DO UPDATE SET \
             service_version_id = excluded.service_version_id, name = excluded.name, labels = excluded.labels, \
             content = excluded.content, \
             runtime_configuration = excluded.runtime_configuration, revision = excluded.revision, \
             publish_time = excluded.publish_time, updated_at = excluded.updated_at, \
             change_number = excluded.change_number",
        );
        let put = put.bind(group.as_str()).bind(service.as_str()).bind(placement.service_version_id.as_str());
        let put = put.bind(self.members().seal(service, placement.runtime)?).bind(number(placement.revision));
        self.tx.execute_one(put.bind(stamp.at).bind(stamp.number)).await
    }

    /// Puts a service without a version into a group.
    pub(crate) async fn group_service_insert(
        &mut self,
        stamp: Stamp,
        write: &ServiceWrite<'_>,
    ) -> Result<(), StoreError> {
        let (group, service) = (write.gateway_group_id.clone(), write.service_id.clone());
        self.witness(Subject::PublishedService(group, service)).await?;
        self.past_service_keep(write.gateway_group_id, write.service_id).await?;
        self.removed_service_forget(write.gateway_group_id, write.service_id).await?;
        let insert = query(
            "INSERT INTO published_service (gateway_group_id, service_id, name, labels, content, \
             runtime_configuration, revision, publish_time, created_at, updated_at, created_number, change_number) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $8, $8, $9, $9)",
        );
        let insert = insert.bind(write.gateway_group_id.as_str()).bind(write.service_id.as_str());
        let insert = insert.bind(write.content.name.as_str()).bind(to_json(&write.content.labels)?);
        let (content, runtime) = self.service_sealed(write)?;
        let insert = insert.bind(content).bind(runtime);
        self.tx.execute_one(insert.bind(number(write.revision)).bind(stamp.at).bind(stamp.number)).await
    }

    /// Changes a service in a group; which version is active stays.
    pub(crate) async fn group_service_update(
        &mut self,
        stamp: Stamp,
        write: &ServiceWrite<'_>,
    ) -> Result<(), StoreError> {
        let (group, service) = (write.gateway_group_id.clone(), write.service_id.clone());
        self.witness(Subject::PublishedService(group, service)).await?;
        self.past_service_keep(write.gateway_group_id, write.service_id).await?;
        let update = query(
            "UPDATE published_service SET name = $3, labels = $4, content = $5, runtime_configuration = $6, \
             revision = $7, updated_at = $8, change_number = $9 WHERE gateway_group_id = $1 AND service_id = $2",
        );
        let update = update.bind(write.gateway_group_id.as_str()).bind(write.service_id.as_str());
        let update = update.bind(write.content.name.as_str()).bind(to_json(&write.content.labels)?);
        let (content, runtime) = self.service_sealed(write)?;
        let update = update.bind(content).bind(runtime);
        self.tx.execute_one(update.bind(number(write.revision)).bind(stamp.at).bind(stamp.number)).await
    }

    /// Notes that the routes of a service without a version changed in this revision.
    pub(crate) async fn group_service_touch(
        &mut self,
        group: &GatewayGroupId,
        service: &ServiceId,
        revision: Revision,
    ) -> Result<(), StoreError> {
        self.past_service_keep(group, service).await?;
        let touch = query(
            "UPDATE published_service SET revision = $3 WHERE gateway_group_id = $1 AND service_id = $2",
        );
        let touch = touch.bind(group.as_str()).bind(service.as_str()).bind(number(revision));
        self.tx.execute_one(touch).await
    }

    /// Takes a service out of a group, with its routes if it has no version, and leaves a tombstone. Tombstones up to
    /// `forgotten` are dropped: gateways that are still behind it are sent everything.
    pub(crate) async fn published_service_delete(
        &mut self,
        group: &GatewayGroupId,
        service: &ServiceId,
        revision: Revision,
        forgotten: Revision,
    ) -> Result<(), StoreError> {
        self.witness(Subject::PublishedService(group.clone(), service.clone())).await?;
        self.past_service_keep(group, service).await?;
        self.past_routes_keep(group, service).await?;
        let delete = query("DELETE FROM published_service WHERE gateway_group_id = $1 AND service_id = $2");
        self.tx.execute_one(delete.bind(group.as_str()).bind(service.as_str())).await?;
        let tombstone =
            query("INSERT INTO removed_service (gateway_group_id, service_id, revision) VALUES ($1, $2, $3)");
        let tombstone = tombstone.bind(group.as_str()).bind(service.as_str()).bind(number(revision));
        self.tx.execute_one(tombstone).await?;
        let forget = query("DELETE FROM removed_service WHERE gateway_group_id = $1 AND revision <= $2");
        self.tx.execute(forget.bind(group.as_str()).bind(number(forgotten))).await?;
        Ok(())
    }

    async fn removed_service_forget(
        &mut self,
        group: &GatewayGroupId,
        service: &ServiceId,
    ) -> Result<(), StoreError> {
        let forget = query("DELETE FROM removed_service WHERE gateway_group_id = $1 AND service_id = $2");
        self.tx.execute(forget.bind(group.as_str()).bind(service.as_str())).await?;
        Ok(())
    }
}

/// A revision as the database counts; one that no group can reach stays unreachable.
pub(super) fn number(revision: Revision) -> i64 {
    i64::try_from(revision.0).unwrap_or(i64::MAX)
}
