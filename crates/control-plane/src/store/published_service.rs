//! Published services: which version is active in which gateway group, and under which runtime configuration.
//!
//! Every write carries the group's revision of that moment, so that "changed since" is one indexed query, and a
//! removal leaves a tombstone with its revision.

use gatewright_model::id::{GatewayGroupId, ServiceId, ServiceVersionId};
use gatewright_model::lifecycle::RuntimeConfiguration;
use gatewright_model::snapshot::{PublishedService, Revision};

use super::database::{Row, query};
use super::list::{self, ListFilter, Listed, Source};
use super::service_version::{VersionSummary, read_summary, read_whole};
use super::{Reading, Stamp, StoreError, Writing, to_json};

/// A published service without its routes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct PublishedServiceRow {
    pub(crate) gateway_group_id: GatewayGroupId,
    pub(crate) gateway_group_name: String,
    pub(crate) version: VersionSummary,
    pub(crate) runtime: RuntimeConfiguration,
    pub(crate) publish_time: i64,
    pub(crate) updated_at: i64,
}

/// What a publish makes true.
pub(crate) struct Placement<'a> {
    pub(crate) gateway_group_id: &'a GatewayGroupId,
    pub(crate) service_id: &'a ServiceId,
    pub(crate) service_version_id: &'a ServiceVersionId,
    pub(crate) runtime: &'a RuntimeConfiguration,
    pub(crate) revision: Revision,
}

const COLUMNS: &str = "p.gateway_group_id, g.name AS gateway_group_name, p.runtime_configuration, p.publish_time, \
    p.updated_at, v.id AS version_id, v.service_id, v.version, v.name, v.labels, v.content, \
    v.created_at AS version_created_at";

const TABLES: &str = "published_service p JOIN service_version v ON v.id = p.service_version_id \
    JOIN gateway_group g ON g.id = p.gateway_group_id";

const SOURCE: Source = Source { columns: COLUMNS, tables: TABLES, object: "p", named: "v" };

fn read(row: &Row) -> Result<PublishedServiceRow, StoreError> {
    Ok(PublishedServiceRow {
        gateway_group_id: row.parsed("gateway_group_id")?,
        gateway_group_name: row.text("gateway_group_name")?,
        version: read_summary(row)?,
        runtime: row.json("runtime_configuration")?,
        publish_time: row.integer("publish_time")?,
        updated_at: row.integer("updated_at")?,
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
        self.tx.row(one.bind(group.as_str()).bind(service.as_str())).await?.as_ref().map(read).transpose()
    }

    pub(crate) async fn published_service_list(
        &mut self,
        group: &GatewayGroupId,
        filter: &ListFilter,
    ) -> Result<Listed<PublishedServiceRow>, StoreError> {
        list::select(&mut self.tx, &SOURCE, Some(("p.gateway_group_id", group.as_str())), filter, read).await
    }

    /// The groups in which a service is published.
    pub(crate) async fn published_service_groups(
        &mut self,
        service: &ServiceId,
    ) -> Result<Vec<GatewayGroupId>, StoreError> {
        let all = query(
            "SELECT gateway_group_id FROM published_service WHERE service_id = $1 ORDER BY gateway_group_id",
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
    pub(crate) async fn published_service_changes(
        &mut self,
        group: &GatewayGroupId,
        since: Revision,
    ) -> Result<Vec<PublishedService>, StoreError> {
        let changed = query(
            "SELECT p.runtime_configuration, v.id AS version_id, v.service_id, v.version, v.name, v.labels, \
             v.content, v.created_at AS version_created_at, v.routes \
             FROM published_service p JOIN service_version v ON v.id = p.service_version_id \
             WHERE p.gateway_group_id = $1 AND p.revision > $2 ORDER BY p.revision, p.service_id",
        );
        let rows = self.tx.rows(changed.bind(group.as_str()).bind(number(since))).await?;
        let whole =
            |row: &Row| Ok(PublishedService::new(read_whole(row)?, row.json("runtime_configuration")?));
        rows.iter().map(whole).collect()
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
    /// Makes a version active in a group, in place of the one that was.
    pub(crate) async fn published_service_put(
        &mut self,
        stamp: Stamp,
        placement: &Placement<'_>,
    ) -> Result<(), StoreError> {
        let (group, service) = (placement.gateway_group_id.as_str(), placement.service_id.as_str());
        let forget = query("DELETE FROM removed_service WHERE gateway_group_id = $1 AND service_id = $2");
        self.tx.execute(forget.bind(group).bind(service)).await?;
        let put = query(
            "INSERT INTO published_service (gateway_group_id, service_id, service_version_id, \
             runtime_configuration, revision, publish_time, created_at, updated_at, created_number, change_number) \
             VALUES ($1, $2, $3, $4, $5, $6, $6, $6, $7, $7) \
             ON CONFLICT (gateway_group_id, service_id) DO UPDATE SET \
             service_version_id = excluded.service_version_id, \
             runtime_configuration = excluded.runtime_configuration, revision = excluded.revision, \
             publish_time = excluded.publish_time, updated_at = excluded.updated_at, \
             change_number = excluded.change_number",
        );
        let put = put.bind(group).bind(service).bind(placement.service_version_id.as_str());
        let put = put.bind(to_json(placement.runtime)?).bind(number(placement.revision));
        self.tx.execute_one(put.bind(stamp.at).bind(stamp.number)).await
    }

    /// Replaces the runtime configuration of a published service.
    pub(crate) async fn runtime_configuration_update(
        &mut self,
        stamp: Stamp,
        placement: &Placement<'_>,
    ) -> Result<(), StoreError> {
        let update = query(
            "UPDATE published_service SET runtime_configuration = $3, revision = $4, updated_at = $5, \
             change_number = $6 WHERE gateway_group_id = $1 AND service_id = $2",
        );
        let update = update.bind(placement.gateway_group_id.as_str()).bind(placement.service_id.as_str());
        let update = update.bind(to_json(placement.runtime)?).bind(number(placement.revision));
        self.tx.execute_one(update.bind(stamp.at).bind(stamp.number)).await
    }

    /// Takes a service out of a group and leaves a tombstone. Tombstones up to `forgotten` are dropped: gateways
    /// that are still behind it are sent everything.
    pub(crate) async fn published_service_delete(
        &mut self,
        group: &GatewayGroupId,
        service: &ServiceId,
        revision: Revision,
        forgotten: Revision,
    ) -> Result<(), StoreError> {
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
}

/// A revision as the database counts; one that no group can reach stays unreachable.
fn number(revision: Revision) -> i64 {
    i64::try_from(revision.0).unwrap_or(i64::MAX)
}
