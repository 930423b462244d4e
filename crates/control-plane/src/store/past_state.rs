//! What stood in a group before a change replaced it, so that requests of a past revision can be explained.
//!
//! Every operation that writes a service of a group, one of its routes or its canary, or the group itself, copies first
//! what was there, with the revision that ends it; what a transaction has copied once stays as it was before the
//! transaction. What stands now is not copied, so what never changes is kept once.
//! Of each group so many changes are kept; the group knows the oldest revision of which nothing is lost.

use std::collections::{BTreeMap, HashMap};

use gatewright_model::id::{GatewayGroupId, RouteId, ServiceId};
use gatewright_model::lifecycle::RouteVersion;
use gatewright_model::matching::MatchSettings;
use gatewright_model::resource::gateway_group::GatewayGroup;
use gatewright_model::resource::route::Route;
use gatewright_model::snapshot::{PublishedService, Revision};

use super::database::{Row, query};
use super::group_route::RouteKey;
use super::published_service::number;
use super::service_version::Content;
use super::{Reading, StoreError, Writing};

/// Changes of services, routes and settings that are kept of one group. One takes a few kilobytes.
const PAST_STATES_MAX: i64 = 10_000;

/// Revisions between two looks for what is too much.
const PRUNE_REVISIONS: i64 = 100;

const SERVICE: &str = "service";
const ROUTE: &str = "route";
const GROUP: &str = "gateway_group";

/// The revisions that a transaction makes, and when.
#[derive(Default)]
pub(super) struct Making {
    revisions: HashMap<GatewayGroupId, i64>,
    /// Unix seconds.
    now: i64,
}

/// How a group differed from what it is now.
#[derive(Default)]
pub(crate) struct Past {
    /// How it matched; none: as now.
    pub(crate) settings: Option<MatchSettings>,
    /// The services that have changed since, as they were; none: there was no such service.
    pub(crate) services: BTreeMap<ServiceId, Option<PublishedService>>,
}

/// Which past of a group is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PastReach {
    pub(crate) oldest: Revision,
    /// Since when the oldest one stood, in unix seconds.
    pub(crate) oldest_since: i64,
    pub(crate) newest: Revision,
}

impl Writing {
    /// Notes when the changes of this transaction happen.
    pub(super) fn making_now(&mut self, now: i64) {
        self.making.now = now;
    }

    /// Notes the revision that this transaction makes of a group.
    pub(super) fn making_revision(&mut self, group: &GatewayGroupId, revision: Revision) {
        self.making.revisions.entry(group.clone()).or_insert(number(revision));
    }

    /// Keeps what a service of a group is, before it is changed.
    pub(super) async fn past_service_keep(
        &mut self,
        group: &GatewayGroupId,
        service: &ServiceId,
    ) -> Result<(), StoreError> {
        let copy = "INSERT INTO past_state (gateway_group_id, noun, id, until_revision, until_time, content, name, \
             runtime_configuration, service_version_id, rollout_id, rollout_share) \
             SELECT p.gateway_group_id, $2, p.service_id, $4, $5, p.content, p.name, p.runtime_configuration, \
             p.service_version_id, COALESCE(r.id, ''), COALESCE(r.share, 0) \
             FROM published_service p LEFT JOIN rollout r ON r.gateway_group_id = p.gateway_group_id \
             AND r.service_id = p.service_id AND r.ended_at IS NULL AND r.kind = 'canary' \
             WHERE p.gateway_group_id = $1 AND p.service_id = $3 \
             ON CONFLICT (gateway_group_id, noun, id, until_revision) DO NOTHING";
        self.past_keep(group, SERVICE, service.as_str(), copy).await
    }

    /// Keeps what a route of a service without a version is, before it is changed. Those of other kinds are not matched.
    pub(super) async fn past_route_keep(&mut self, key: RouteKey<'_>) -> Result<(), StoreError> {
        let copy = "INSERT INTO past_state (gateway_group_id, noun, id, until_revision, until_time, content, name, \
             service_id) \
             SELECT gateway_group_id, $2, id, $4, $5, content, name, service_id FROM group_route \
             WHERE gateway_group_id = $1 AND kind = 'http' AND id = $3 \
             ON CONFLICT (gateway_group_id, noun, id, until_revision) DO NOTHING";
        self.past_keep(key.group, ROUTE, key.id.as_str(), copy).await
    }

    /// Keeps how a group matches, before it is changed.
    pub(super) async fn past_group_keep(&mut self, group: &GatewayGroupId) -> Result<(), StoreError> {
        let copy = "INSERT INTO past_state (gateway_group_id, noun, id, until_revision, until_time, content) \
             SELECT id, $2, id, $4, $5, content FROM gateway_group WHERE id = $1 AND id = $3 \
             ON CONFLICT (gateway_group_id, noun, id, until_revision) DO NOTHING";
        self.past_keep(group, GROUP, group.as_str(), copy).await
    }

    /// Keeps all routes of a service without a version, before they are deleted.
    pub(super) async fn past_routes_keep(
        &mut self,
        group: &GatewayGroupId,
        service: &ServiceId,
    ) -> Result<(), StoreError> {
        let until = self.revision_made(group).await?;
        let copy = query(
            "INSERT INTO past_state (gateway_group_id, noun, id, until_revision, until_time, content, name, service_id) \
             SELECT gateway_group_id, $2, id, $4, $5, content, name, service_id FROM group_route \
             WHERE gateway_group_id = $1 AND kind = 'http' AND service_id = $3 \
             ON CONFLICT (gateway_group_id, noun, id, until_revision) DO NOTHING",
        );
        let copy = copy.bind(group.as_str()).bind(ROUTE).bind(service.as_str());
        let copy = copy.bind(until).bind(self.making.now);
        self.tx.execute(copy).await?;
        Ok(())
    }

    /// Copies one object, or that it is not there, unless this transaction has copied it already.
    async fn past_keep(
        &mut self,
        group: &GatewayGroupId,
        noun: &str,
        id: &str,
        copy: &str,
    ) -> Result<(), StoreError> {
        let until = self.revision_made(group).await?;
        let now = self.making.now;
        let copy = query(copy.to_owned()).bind(group.as_str()).bind(noun).bind(id).bind(until).bind(now);
        if self.tx.execute(copy).await? > 0 {
            return Ok(());
        }
        let absent = query(
            "INSERT INTO past_state (gateway_group_id, noun, id, until_revision, until_time, content) \
             VALUES ($1, $2, $3, $4, $5, NULL) \
             ON CONFLICT (gateway_group_id, noun, id, until_revision) DO NOTHING",
        );
        let absent = absent.bind(group.as_str()).bind(noun).bind(id).bind(until).bind(now);
        self.tx.execute(absent).await?;
        Ok(())
    }

    /// The revision of a group that this transaction makes, or will make.
    async fn revision_made(&mut self, group: &GatewayGroupId) -> Result<i64, StoreError> {
        if let Some(made) = self.making.revisions.get(group) {
            return Ok(*made);
        }
        let newest = self.gateway_group_revision(group).await?;
        Ok(number(newest.ok_or(StoreError::NotFound)?) + 1)
    }

    /// Forgets the oldest changes of a group while there are too many, now and then.
    pub(super) async fn past_prune(
        &mut self,
        group: &GatewayGroupId,
        revision: Revision,
    ) -> Result<(), StoreError> {
        match number(revision) % PRUNE_REVISIONS {
            0 => self.past_prune_to(group, PAST_STATES_MAX).await,
            _ => Ok(()),
        }
    }

    /// Forgets the oldest changes of a group beyond the newest `max`.
    pub(super) async fn past_prune_to(&mut self, group: &GatewayGroupId, max: i64) -> Result<(), StoreError> {
        let last = query(
            "SELECT until_revision, until_time FROM past_state WHERE gateway_group_id = $1 \
             ORDER BY until_revision DESC LIMIT 1 OFFSET $2",
        );
        let Some(last) = self.tx.row(last.bind(group.as_str()).bind(max)).await? else { return Ok(()) };
        let (revision, since) = (last.integer("until_revision")?, last.integer("until_time")?);
        let forget = query("DELETE FROM past_state WHERE gateway_group_id = $1 AND until_revision <= $2");
        self.tx.execute(forget.bind(group.as_str()).bind(revision)).await?;
        let note = query("UPDATE gateway_group SET past_since = $2, past_since_time = $3 WHERE id = $1");
        self.tx.execute_one(note.bind(group.as_str()).bind(revision).bind(since)).await
    }
}

impl Reading {
    /// Which past of a group is known; none: there is no such group.
    pub(crate) async fn past_reach(
        &mut self,
        group: &GatewayGroupId,
    ) -> Result<Option<PastReach>, StoreError> {
        let one = query("SELECT revision, past_since, past_since_time FROM gateway_group WHERE id = $1");
        let Some(row) = self.tx.row(one.bind(group.as_str())).await? else { return Ok(None) };
        let revision = |column| Ok::<_, StoreError>(Revision(row.integer(column)?.unsigned_abs()));
        Ok(Some(PastReach {
            oldest: revision("past_since")?,
            oldest_since: row.integer("past_since_time")?,
            newest: revision("revision")?,
        }))
    }

    /// The revision that stood at `time`, in unix seconds, as far as anything that is kept says so.
    pub(crate) async fn past_revision_at(
        &mut self,
        group: &GatewayGroupId,
        time: i64,
        reach: PastReach,
    ) -> Result<Revision, StoreError> {
        let next = query(
            "SELECT MIN(until_revision) AS later FROM past_state WHERE gateway_group_id = $1 AND until_time > $2",
        );
        let row = self.tx.row(next.bind(group.as_str()).bind(time)).await?;
        let next = row.map(|row| row.optional_integer("later")).transpose()?.flatten();
        // Whatever else raised it changed nothing that is matched.
        Ok(next.map_or(reach.newest, |next| Revision(next.unsigned_abs().saturating_sub(1))))
    }

    /// How a group at `revision` differed from what it is now.
    pub(crate) async fn past_state(
        &mut self,
        group: &GatewayGroupId,
        revision: Revision,
    ) -> Result<Past, StoreError> {
        let changed = query(
            "SELECT q.noun, q.id, q.content, q.name, q.service_id, q.runtime_configuration, q.rollout_id, \
             q.rollout_share, COALESCE(q.service_version_id, '') AS version_id, COALESCE(v.version, '') AS version, \
             COALESCE(v.routes, '[]') AS routes \
             FROM past_state q LEFT JOIN service_version v ON v.id = q.service_version_id \
             WHERE q.gateway_group_id = $1 AND q.until_revision > $2 AND NOT EXISTS (\
             SELECT 1 FROM past_state e WHERE e.gateway_group_id = q.gateway_group_id AND e.noun = q.noun \
             AND e.id = q.id AND e.until_revision > $2 AND e.until_revision < q.until_revision)",
        );
        let rows = self.tx.rows(changed.bind(group.as_str()).bind(number(revision))).await?;
        let mut routes = self.past_routes(group, revision).await?;
        let mut past = Past::default();
        for row in &rows {
            let content = row.optional_text("content")?;
            match (row.text("noun")?.as_str(), content) {
                (GROUP, Some(content)) => {
                    let group: GatewayGroup = super::from_json(&content)?;
                    past.settings = Some(group.match_settings());
                }
                (ROUTE, content) => {
                    let id: RouteId = row.parsed("id")?;
                    routes.remove(&id);
                    if let Some(content) = content {
                        let service = row.text("service_id")?;
                        let route = self.members().open(&service, &content)?;
                        routes.insert(id, (row.parsed("service_id")?, route));
                    }
                }
                (SERVICE, None) => drop(past.services.insert(row.parsed("id")?, None)),
                (SERVICE, Some(content)) => {
                    let service = self.past_service(row, &content).await?;
                    past.services.insert(row.parsed("id")?, Some(service));
                }
                _ => {}
            }
        }
        for (route_id, (service, route)) in routes {
            if let Some(Some(service)) = past.services.get_mut(&service)
                && service.service_version_id.is_none()
            {
                service.routes.push(RouteVersion { route_id, route });
            }
        }
        Ok(past)
    }

    /// A service as it was, with routes if it had a version.
    async fn past_service(&mut self, row: &Row, content: &str) -> Result<PublishedService, StoreError> {
        let (id, members) = (row.text("id")?, self.members());
        let has_version = !row.text("version_id")?.is_empty();
        let content: Content = members.open(&id, content)?;
        let rollout = row.text("rollout_id")?;
        let canary = match rollout.is_empty() {
            true => None,
            false => self.rollout_canary(&rollout, row.integer("rollout_share")?).await?,
        };
        Ok(PublishedService {
            service_id: row.parsed("id")?,
            service_version_id: has_version.then(|| row.parsed("version_id")).transpose()?,
            version: has_version.then(|| row.text("version")).transpose()?,
            name: row.text("name")?,
            kind: content.kind,
            plugins: content.plugins.into_inner(),
            routes: members.open(&id, &row.text("routes")?)?,
            // Requests are what is explained.
            stream_routes: Vec::new(),
            // Which upstream a request reaches is decided after it is matched.
            upstreams: BTreeMap::new(),
            canary,
            compared_with: None,
            runtime: members.open(&id, &row.text("runtime_configuration")?)?,
        })
    }

    /// The routes that the services without a version which have changed since `revision` have now.
    async fn past_routes(
        &mut self,
        group: &GatewayGroupId,
        revision: Revision,
    ) -> Result<BTreeMap<RouteId, (ServiceId, Route)>, StoreError> {
        let now = query(
            "SELECT r.service_id, r.id, r.content FROM group_route r \
             WHERE r.gateway_group_id = $1 AND r.kind = 'http' AND EXISTS (\
             SELECT 1 FROM past_state q WHERE q.gateway_group_id = $1 AND q.noun = 'service' \
             AND q.id = r.service_id AND q.until_revision > $2)",
        );
        let members = self.members();
        let rows = self.tx.rows(now.bind(group.as_str()).bind(number(revision))).await?;
        let read = |row: &Row| {
            let route = members.open(&row.text("service_id")?, &row.text("content")?)?;
            Ok((row.parsed("id")?, (row.parsed("service_id")?, route)))
        };
        rows.iter().map(read).collect()
    }
}
