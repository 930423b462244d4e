//! Service versions: written once, never changed.

use gatewright_model::id::{ServiceId, ServiceVersionId};
use gatewright_model::lifecycle::ServiceVersion;
use gatewright_model::resource::service::ServiceKind;
use gatewright_model::resource::{AsSent, Labels, Plugins};
use serde::{Deserialize, Serialize};

use super::database::{Row, query};
use super::sealed_members::Members;
use super::{Reading, Stamp, StoreError, Writing, to_json};

/// A service version without its routes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct VersionSummary {
    pub(crate) id: ServiceVersionId,
    pub(crate) service_id: ServiceId,
    pub(crate) version: String,
    pub(crate) name: String,
    pub(crate) desc: AsSent<String>,
    pub(crate) labels: AsSent<Labels>,
    pub(crate) kind: ServiceKind,
    pub(crate) plugins: AsSent<Plugins>,
    pub(crate) created_at: i64,
}

/// What column `content` holds: everything that has no column of its own.
#[derive(Serialize, Deserialize)]
pub(super) struct Content {
    #[serde(default, skip_serializing_if = "AsSent::is_absent")]
    pub(super) desc: AsSent<String>,
    /// As they were sent; the column of that name is what lists filter by.
    #[serde(default, skip_serializing_if = "AsSent::is_absent")]
    pub(super) labels: AsSent<Labels>,
    #[serde(rename = "type")]
    pub(super) kind: ServiceKind,
    #[serde(default, skip_serializing_if = "AsSent::is_absent")]
    pub(super) plugins: AsSent<Plugins>,
    /// Whether a service without a version was given an upstream, be it like the one that is assumed without.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) has_upstream: bool,
}

impl Content {
    /// The labels as they were sent; what was stored before that was kept has them in the column alone.
    pub(super) fn labels(&mut self, row: &Row) -> Result<AsSent<Labels>, StoreError> {
        match self.labels.is_absent() {
            true => Ok(row.json::<Labels>("labels")?.into()),
            false => Ok(std::mem::take(&mut self.labels)),
        }
    }
}

/// The columns of a summary, of table alias `v`; other tables' columns may follow.
pub(super) const SUMMARY_COLUMNS: &str = "v.id AS version_id, v.service_id, v.version, v.name, v.labels, v.content, v.created_at AS version_created_at";

pub(super) fn read_summary(row: &Row, members: &Members) -> Result<VersionSummary, StoreError> {
    let mut content: Content = members.open(&row.text("service_id")?, &row.text("content")?)?;
    let labels = content.labels(row)?;
    Ok(VersionSummary {
        id: row.parsed("version_id")?,
        service_id: row.parsed("service_id")?,
        version: row.text("version")?,
        name: row.text("name")?,
        desc: content.desc,
        labels,
        kind: content.kind,
        plugins: content.plugins,
        created_at: row.integer("version_created_at")?,
    })
}

/// What a version holds beside [`SUMMARY_COLUMNS`].
const ROUTES_COLUMNS: &str = "v.routes, v.stream_routes";

/// A whole version out of [`SUMMARY_COLUMNS`] and [`ROUTES_COLUMNS`].
fn read_whole(row: &Row, members: &Members) -> Result<ServiceVersion, StoreError> {
    let summary = read_summary(row, members)?;
    let service = summary.service_id.as_str();
    let routes = members.open(service, &row.text("routes")?)?;
    let stream_routes = members.open(service, &row.text("stream_routes")?)?;
    Ok(ServiceVersion {
        id: summary.id,
        service_id: summary.service_id,
        version: summary.version,
        name: summary.name,
        desc: summary.desc,
        labels: summary.labels,
        kind: summary.kind,
        plugins: summary.plugins,
        routes,
        stream_routes,
    })
}

impl Reading {
    pub(crate) async fn service_version_get(
        &mut self,
        id: &ServiceVersionId,
    ) -> Result<Option<ServiceVersion>, StoreError> {
        let one = query(format!(
            "SELECT {SUMMARY_COLUMNS}, {ROUTES_COLUMNS} FROM service_version v WHERE v.id = $1"
        ));
        let members = self.members();
        self.tx.row(one.bind(id.as_str())).await?.map(|row| read_whole(&row, &members)).transpose()
    }

    /// A version without its routes.
    pub(crate) async fn service_version_summary(
        &mut self,
        id: &ServiceVersionId,
    ) -> Result<Option<VersionSummary>, StoreError> {
        let one = query(format!("SELECT {SUMMARY_COLUMNS} FROM service_version v WHERE v.id = $1"));
        let members = self.members();
        self.tx.row(one.bind(id.as_str())).await?.map(|row| read_summary(&row, &members)).transpose()
    }

    /// The version of a service that has this number, without its routes.
    pub(crate) async fn service_version_summary_numbered(
        &mut self,
        service_id: &ServiceId,
        version: &str,
    ) -> Result<Option<VersionSummary>, StoreError> {
        let one = query(format!(
            "SELECT {SUMMARY_COLUMNS} FROM service_version v WHERE v.service_id = $1 AND v.version = $2"
        ));
        let members = self.members();
        self.tx
            .row(one.bind(service_id.as_str()).bind(version))
            .await?
            .map(|row| read_summary(&row, &members))
            .transpose()
    }

    /// The version of a service that has this number.
    pub(crate) async fn service_version_numbered(
        &mut self,
        service_id: &ServiceId,
        version: &str,
    ) -> Result<Option<ServiceVersion>, StoreError> {
        let one = query(format!(
            "SELECT {SUMMARY_COLUMNS}, {ROUTES_COLUMNS} FROM service_version v WHERE v.service_id = $1 AND v.version = $2"
        ));
        let members = self.members();
        self.tx
            .row(one.bind(service_id.as_str()).bind(version))
            .await?
            .map(|row| read_whole(&row, &members))
            .transpose()
    }

    /// Whether this service has a version of this number.
    pub(crate) async fn service_version_exists(
        &mut self,
        service_id: &ServiceId,
        version: &str,
    ) -> Result<bool, StoreError> {
        let one = query("SELECT id FROM service_version WHERE service_id = $1 AND version = $2");
        Ok(self.tx.row(one.bind(service_id.as_str()).bind(version)).await?.is_some())
    }
}

impl Writing {
    pub(crate) async fn service_version_insert(
        &mut self,
        stamp: Stamp,
        version: &ServiceVersion,
    ) -> Result<(), StoreError> {
        let insert = query(
            "INSERT INTO service_version (id, service_id, version, name, labels, content, routes, stream_routes, created_at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        );
        let content = Content {
            desc: version.desc.clone(),
            labels: version.labels.clone(),
            kind: version.kind,
            plugins: version.plugins.clone(),
            has_upstream: false,
        };
        let insert = insert.bind(version.id.as_str()).bind(version.service_id.as_str());
        let insert = insert.bind(version.version.as_str()).bind(version.name.as_str());
        let (members, service) = (self.members(), &version.service_id);
        let insert = insert.bind(to_json(&version.labels)?).bind(members.seal(service, &content)?);
        let insert = insert.bind(members.seal(service, &version.routes)?);
        let insert = insert.bind(members.seal(service, &version.stream_routes)?);
        self.tx.execute_one(insert.bind(stamp.at)).await
    }
}
