//! Services in a gateway group, written straight to it: live at once, and without a version unless one was published.
//!
//! Of a service that was published only name, description, labels and runtime configuration can be written here: a
//! version means the same everywhere, so its plugins and routes never change.

use gatewright_model::id::{GatewayGroupId, ServiceId, ServiceVersionId};
use gatewright_model::lifecycle::{RouteVersion, RuntimeConfiguration, ServiceVersion};
use gatewright_model::resource::route::Route;
use gatewright_model::resource::service::{Service, ServiceKind};
use gatewright_model::resource::stream_route::StreamRoute;
use gatewright_model::resource::upstream::Upstream;
use gatewright_model::snapshot::Revision;
use gatewright_model::validation::Violations;
use serde_json::Value;

use super::document::Warnings;
use super::group_document::{ServiceDocument, service_parse};
use super::instance::instances_must_run;
use super::published_service::{group_must_exist, published_service};
use super::{Action, App, Caller, Patch, Refusal, must_be_as_expected};
use crate::store::{
    Call, ListFilter, PublishedServiceRow, Reading, RouteRow, ServiceContent, ServiceWrite, Writing,
};

/// What callers call it.
const NOUN: &str = "service";

impl App {
    pub(crate) async fn group_service_create(
        &self,
        caller: &Caller,
        group: &GatewayGroupId,
        document: ServiceDocument,
    ) -> Result<(PublishedServiceRow, Warnings), Refusal> {
        caller.must(Action::CreatePublishedService, group.as_str())?;
        let id = document.id.unwrap_or_else(|| self.world().id());
        let mut tx = self.store().write().await?;
        group_must_exist(&mut tx, group).await?;
        if tx.published_service_get(group, &id).await?.is_some() {
            return Err(Refusal::IdTaken { noun: NOUN, id: id.to_string() });
        }
        let (row, revision) = self.group_service_write(&mut tx, group, &id, document.content).await?;
        Call::concerns(id.as_str(), &row.content.name);
        let duplicates = self.commit_services(tx, group, revision).await?;
        Ok((row, document.warnings.and(duplicates)))
    }

    /// Creates the service under this id, or replaces it whole; its routes stay.
    pub(crate) async fn group_service_put(
        &self,
        caller: &Caller,
        group: &GatewayGroupId,
        id: &ServiceId,
        document: ServiceDocument,
    ) -> Result<(PublishedServiceRow, Warnings), Refusal> {
        caller.must(Action::UpdatePublishedService, group.as_str())?;
        let mut tx = self.store().write().await?;
        group_must_exist(&mut tx, group).await?;
        let before = tx.published_service_get(group, id).await?;
        must_be_as_expected(NOUN, id.as_str(), before.map(|row| row.change_number))?;
        let (row, revision) = self.group_service_write(&mut tx, group, id, document.content).await?;
        let duplicates = self.commit_services(tx, group, revision).await?;
        Ok((row, document.warnings.and(duplicates)))
    }

    pub(crate) async fn group_service_patch(
        &self,
        caller: &Caller,
        group: &GatewayGroupId,
        id: &ServiceId,
        patch: &Patch,
    ) -> Result<(PublishedServiceRow, Warnings), Refusal> {
        caller.must(Action::UpdatePublishedService, group.as_str())?;
        let mut tx = self.store().write().await?;
        let before = published_service(&mut tx, group, id).await?;
        must_be_as_expected(NOUN, id.as_str(), Some(before.change_number))?;
        let after = patch.apply(serde_json::to_value(as_document(before)).unwrap_or(Value::Null))?;
        let document = service_parse(after)?;
        let (row, revision) = self.group_service_write(&mut tx, group, id, document.content).await?;
        let duplicates = self.commit_services(tx, group, revision).await?;
        Ok((row, document.warnings.and(duplicates)))
    }

    async fn group_service_write(
        &self,
        tx: &mut Writing,
        group: &GatewayGroupId,
        id: &ServiceId,
        service: Service,
    ) -> Result<(PublishedServiceRow, Revision), Refusal> {
        let before = tx.published_service_get(group, id).await?;
        let (content, runtime) = parts(service, before.as_ref());
        if let Some(before) = &before {
            must_stay_the_same(tx, before, &content).await?;
        }
        let plugins = content.plugins.keys().cloned().collect();
        instances_must_run(tx, group, plugins, self.world().now()).await?;
        let stamp = tx.stamp(self.world().now()).await?;
        let revision = tx.gateway_group_raise(group).await?;
        let write = ServiceWrite {
            gateway_group_id: group,
            service_id: id,
            content: &content,
            runtime: &runtime,
            revision,
        };
        if before.is_some() {
            tx.group_service_update(stamp, &write).await?;
        } else {
            tx.group_service_insert(stamp, &write).await?;
        }
        Ok((published_service(tx, group, id).await?, revision))
    }
}

/// What a version holds, and the kind of a service that has routes, cannot be written over.
async fn must_stay_the_same(
    tx: &mut Reading,
    before: &PublishedServiceRow,
    after: &ServiceContent,
) -> Result<(), Refusal> {
    let (old, new) = (&before.content, after);
    if let Some(version) = &before.version
        && (old.kind != new.kind || old.plugins != new.plugins)
    {
        return Err(Refusal::VersionImmutable { service: old.name.clone(), version: version.number.clone() });
    }
    if old.kind != new.kind && tx.group_route_count(&before.gateway_group_id, &before.service_id).await? > 0 {
        let message = "a service that has routes cannot change its type; delete the routes first";
        return Err(Violations::one("/type", message).into());
    }
    Ok(())
}

/// What a service without a version would be as a version.
pub(super) async fn group_service_version(
    tx: &mut Reading,
    row: &PublishedServiceRow,
    id: ServiceVersionId,
    number: String,
) -> Result<ServiceVersion, Refusal> {
    let filter = ListFilter::default();
    let (group, service) = (&row.gateway_group_id, &row.service_id);
    let routes = tx.group_route_list::<Route>(group, ServiceKind::Http, Some(service), &filter).await?;
    let stream_routes =
        tx.group_route_list::<StreamRoute>(group, ServiceKind::Stream, Some(service), &filter).await?;
    let ServiceContent { name, desc, labels, kind, plugins, .. } = row.content.clone();
    Ok(ServiceVersion {
        id,
        service_id: service.clone(),
        version: number,
        name,
        desc,
        labels,
        kind,
        plugins,
        routes: as_versions(routes.rows),
        stream_routes: as_versions(stream_routes.rows),
    })
}

fn as_versions<T>(rows: Vec<RouteRow<T>>) -> Vec<RouteVersion<T>> {
    let mut routes: Vec<_> =
        rows.into_iter().map(|row| RouteVersion { route_id: row.id, route: row.route }).collect();
    routes.sort_by(|a, b| a.route_id.cmp(&b.route_id));
    routes
}

fn parts(service: Service, before: Option<&PublishedServiceRow>) -> (ServiceContent, RuntimeConfiguration) {
    let (kind, runtime) = (service.kind(), service.runtime());
    let status = service.status.or(before.map(|before| before.runtime.status)).unwrap_or_default();
    let raw_before = before.is_some_and(|before| before.runtime.forward_raw_path);
    let forward_raw_path = service.forward_raw_path.unwrap_or(raw_before);
    let content = ServiceContent {
        name: service.name,
        desc: service.desc,
        labels: service.labels,
        kind,
        plugins: service.plugins,
        has_upstream: service.upstream.is_some(),
    };
    (content, RuntimeConfiguration { forward_raw_path, status, ..runtime })
}

/// The document that a patch changes.
fn as_document(row: PublishedServiceRow) -> Service {
    let PublishedServiceRow { content, runtime, .. } = row;
    Service {
        name: content.name,
        desc: content.desc,
        labels: content.labels,
        kind: Some(content.kind),
        hosts: runtime.hosts,
        path_prefix: runtime.path_prefix,
        strip_path_prefix: runtime.strip_path_prefix,
        plugins: content.plugins,
        upstream: Some(runtime.upstream)
            .filter(|upstream| content.has_upstream || *upstream != Upstream::default()),
        status: Some(runtime.status),
        forward_raw_path: Some(runtime.forward_raw_path).filter(|raw| *raw),
    }
}
