//! Service registries of a gateway group. Secrets in them are masked in every answer.

use std::collections::{BTreeMap, BTreeSet};

use axum::extract::Query;
use gatewright_discovery::browse::{Found, Place};
use gatewright_model::id::{GatewayGroupId, ObjectId};
use gatewright_model::resource::Labels;
use gatewright_model::resource::service_registry::{
    ConsulConfig, DnsConfig, EurekaConfig, KubernetesConfig, NacosConfig, RegistryCheck, RegistryKind,
    ServiceRegistry,
};
use serde::Serialize;
use utoipa::ToSchema;

use super::error::{ApiError, Refusals};
use super::group_call::GroupPathCall;
use super::published_service::PublishedServiceView;
use super::request::{Json, ListParameters, ListQuery};
use super::{
    Many, ManyAnswer, Nothing, Single, SingleAnswer, TaggedAnswer, listed, many, single, tagged, warned,
};
use crate::app::group_document::parse_with_id;
use crate::app::{Object, RegistryCheckFilter, RegistryHealth, Shelf, paged, secrets_mask};
use crate::store::{Direction, ListFilter, Listed, Order, RegistryCheckRow};

/// A service registry, secrets masked.
#[derive(Serialize, ToSchema)]
pub(super) struct ServiceRegistryView {
    id: String,
    gateway_group_id: String,
    name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schema(required = false)]
    desc: String,
    #[serde(skip_serializing_if = "Labels::is_empty")]
    #[schema(required = false)]
    labels: Labels,
    #[serde(rename = "type")]
    kind: RegistryKind,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    kubernetes_config: Option<KubernetesConfig>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    nacos_config: Option<NacosConfig>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    consul_config: Option<ConsulConfig>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    eureka_config: Option<EurekaConfig>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    dns_config: Option<DnsConfig>,
    health_check: RegistryCheck,
    /// `healthy` while every living gateway of the group that has looked finds it, else `lost_connection`.
    status: &'static str,
    /// When a gateway last found it; absent: none has.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    last_connect_time: Option<i64>,
    /// How many services of the group find nodes there; only in lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    associated_services_count: Option<usize>,
    created_at: i64,
    updated_at: i64,
}

impl ServiceRegistryView {
    fn of(group: &GatewayGroupId, object: Object<ServiceRegistry>) -> Self {
        let mut content = object.content;
        secrets_mask(&mut content);
        Self {
            id: object.id,
            gateway_group_id: group.to_string(),
            name: content.name,
            desc: content.desc,
            labels: content.labels,
            kind: content.kind,
            kubernetes_config: content.kubernetes_config,
            nacos_config: content.nacos_config,
            consul_config: content.consul_config,
            eureka_config: content.eureka_config,
            dns_config: content.dns_config,
            health_check: content.health_check,
            status: status(false),
            last_connect_time: None,
            associated_services_count: None,
            created_at: object.created_at,
            updated_at: object.updated_at,
        }
    }

    fn found(self, health: &BTreeMap<String, RegistryHealth>) -> Self {
        let RegistryHealth { healthy, last_connect_time } = health.get(&self.id).copied().unwrap_or_default();
        Self { status: status(healthy), last_connect_time, ..self }
    }

    fn used_by(self, uses: &BTreeMap<String, usize>) -> Self {
        Self { associated_services_count: Some(uses.get(&self.id).copied().unwrap_or_default()), ..self }
    }
}

impl GroupPathCall {
    fn registry(&self) -> Result<ObjectId, ApiError> {
        self.ids.id("service_registry_id")
    }

    fn shelf(&self) -> Shelf<'_> {
        Shelf { group: &self.group, owner: "" }
    }
}

/// Lists the service registries of a gateway group.
#[utoipa::path(get, path = "/api/gateway_groups/{gateway_group_id}/service_registries", tag = "service registry",
    params(("gateway_group_id" = String, Path), ListParameters),
    responses((status = 200, body = Many<ServiceRegistryView>), Refusals))]
pub(super) async fn service_registry_list(
    call: GroupPathCall,
    query: ListQuery,
) -> ManyAnswer<ServiceRegistryView> {
    let ListFilter { order, direction, page, .. } = query.filter;
    let by_connect_time = order == Order::ConnectTime;
    let mut filter = query.must_order_by(Some(Order::ConnectTime))?.filter;
    if by_connect_time {
        (filter.order, filter.page) = (Order::default(), None);
    }
    let found = call.app.object_list::<ServiceRegistry>(&call.caller, call.shelf(), &filter).await?;
    let uses = call.app.service_registry_uses(&call.group).await?;
    let health = call.app.service_registry_health(&call.group).await?;
    let mut found =
        found.map(|object| ServiceRegistryView::of(&call.group, object).used_by(&uses).found(&health));
    if by_connect_time {
        found.rows.sort_by_key(|view| view.last_connect_time);
        if direction == Direction::Descending {
            found.rows.reverse();
        }
        let Listed { rows, .. } = found;
        found = paged(rows, &ListFilter { page, ..ListFilter::default() });
    }
    Ok(many(found))
}

/// Connects a service registry to a gateway group.
#[utoipa::path(post, path = "/api/gateway_groups/{gateway_group_id}/service_registries", tag = "service registry",
    params(("gateway_group_id" = String, Path)),
    request_body = ServiceRegistry,
    responses((status = 200, body = Single<ServiceRegistryView>), Refusals))]
pub(super) async fn service_registry_create(
    call: GroupPathCall,
    Json(body): Json,
) -> TaggedAnswer<ServiceRegistryView> {
    let document = parse_with_id::<ServiceRegistry, ObjectId>(body)?;
    let (object, warnings) = call.app.object_create(&call.caller, call.shelf(), document).await?;
    let health = call.app.service_registry_health(&call.group).await?;
    let change_number = object.change_number;
    tagged(change_number, warned(ServiceRegistryView::of(&call.group, object).found(&health), &warnings))
}

/// Shows a service registry.
#[utoipa::path(get, path = "/api/gateway_groups/{gateway_group_id}/service_registries/{service_registry_id}",
    tag = "service registry",
    params(("gateway_group_id" = String, Path), ("service_registry_id" = String, Path)),
    responses((status = 200, body = Single<ServiceRegistryView>), Refusals))]
pub(super) async fn service_registry_get(call: GroupPathCall) -> TaggedAnswer<ServiceRegistryView> {
    let id = call.registry()?;
    let object = call.app.object_get::<ServiceRegistry>(&call.caller, call.shelf(), &id).await?;
    let health = call.app.service_registry_health(&call.group).await?;
    let change_number = object.change_number;
    tagged(change_number, single(ServiceRegistryView::of(&call.group, object).found(&health)))
}

/// Replaces a service registry whole, or connects one under an id of the caller's choice.
#[utoipa::path(put, path = "/api/gateway_groups/{gateway_group_id}/service_registries/{service_registry_id}",
    tag = "service registry",
    params(("gateway_group_id" = String, Path), ("service_registry_id" = String, Path)),
    request_body = ServiceRegistry,
    responses((status = 200, body = Single<ServiceRegistryView>), Refusals))]
pub(super) async fn service_registry_put(
    call: GroupPathCall,
    Json(body): Json,
) -> TaggedAnswer<ServiceRegistryView> {
    let id = call.registry()?;
    let document = parse_with_id::<ServiceRegistry, ObjectId>(body)?;
    let (object, warnings) = call.app.object_put(&call.caller, call.shelf(), &id, document).await?;
    let health = call.app.service_registry_health(&call.group).await?;
    let change_number = object.change_number;
    tagged(change_number, warned(ServiceRegistryView::of(&call.group, object).found(&health), &warnings))
}

/// Disconnects a service registry; refused while a service of the group finds its nodes there.
#[utoipa::path(delete, path = "/api/gateway_groups/{gateway_group_id}/service_registries/{service_registry_id}",
    tag = "service registry",
    params(("gateway_group_id" = String, Path), ("service_registry_id" = String, Path)),
    responses((status = 200, body = Single<Nothing>), Refusals))]
pub(super) async fn service_registry_delete(call: GroupPathCall) -> SingleAnswer<Nothing> {
    let id = call.registry()?;
    call.app.object_delete::<ServiceRegistry>(&call.caller, call.shelf(), &id).await?;
    Ok(single(Nothing {}))
}

/// Lists the services of the group that find their nodes in a registry.
#[utoipa::path(get, tag = "service registry",
    path = "/api/gateway_groups/{gateway_group_id}/service_registries/{service_registry_id}/connected_services",
    params(("gateway_group_id" = String, Path), ("service_registry_id" = String, Path), ListParameters),
    responses((status = 200, body = Many<PublishedServiceView>), Refusals))]
pub(super) async fn service_registry_service_list(
    call: GroupPathCall,
    query: ListQuery,
) -> ManyAnswer<PublishedServiceView> {
    let query = query.must_order_by(Some(Order::PublishTime))?;
    let id = call.registry()?;
    let services = call.app.service_registry_services(&call.caller, &call.group, &id, &query.filter).await?;
    Ok(many(services))
}

/// What a gateway found of a registry from then on.
#[derive(Serialize, ToSchema)]
pub(super) struct RegistryCheckView {
    service_registry_id: String,
    instance_id: String,
    hostname: String,
    /// `healthy` or `lost_connection`.
    status: &'static str,
    /// When it was found.
    connect_time: i64,
    /// Why the connection was lost.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schema(required = false)]
    reason: String,
}

impl From<RegistryCheckRow> for RegistryCheckView {
    fn from(row: RegistryCheckRow) -> Self {
        Self {
            service_registry_id: row.service_registry_id,
            instance_id: row.instance_id,
            hostname: row.hostname,
            status: status(row.healthy),
            connect_time: row.checked_at,
            reason: row.reason,
        }
    }
}

fn status(healthy: bool) -> &'static str {
    if healthy { "healthy" } else { "lost_connection" }
}

/// The services of a cluster.
#[derive(Serialize, ToSchema)]
pub(super) struct InternalServicesView {
    #[serde(rename = "type")]
    kind: RegistryKind,
    /// Names of services, by namespace.
    internal_services: BTreeMap<String, BTreeSet<String>>,
}

/// A namespace of a Nacos.
#[derive(Serialize, ToSchema)]
pub(super) struct NacosNamespaceView {
    /// Its id.
    namespace: String,
    /// What it is called.
    namespace_show_name: String,
}

impl From<(String, String)> for NacosNamespaceView {
    fn from((namespace, namespace_show_name): (String, String)) -> Self {
        Self { namespace, namespace_show_name }
    }
}

/// The metadata of the instances of a service.
#[derive(Serialize, ToSchema)]
pub(super) struct InstancesMetadataView {
    /// Name and values, one object for each name.
    list: Vec<BTreeMap<String, BTreeSet<String>>>,
    total: usize,
    /// The values of each name.
    value: BTreeMap<String, BTreeSet<String>>,
}

/// Lists when gateways found a registry, and when they lost it.
#[utoipa::path(get, tag = "service registry",
    path = "/api/gateway_groups/{gateway_group_id}/service_registries/{service_registry_id}/health_check_history",
    params(("gateway_group_id" = String, Path), ("service_registry_id" = String, Path),
        ("page" = Option<i64>, Query, minimum = 1), ("page_size" = Option<i64>, Query, minimum = 1),
        ("direction" = Option<String>, Query, description = "`desc` (the default) or `asc`, by connect time."),
        ("order_by" = Option<String>, Query, description = "`connect_time`, which is the only order."),
        ("status" = Option<Vec<String>>, Query, description = "`healthy` or `lost_connection`; both: everything."),
        ("search" = Option<String>, Query, description = "A part of the host name, in any case.")),
    responses((status = 200, body = Many<RegistryCheckView>), Refusals))]
pub(super) async fn service_registry_check_list(
    call: GroupPathCall,
    Query(pairs): Query<Vec<(String, String)>>,
    query: ListQuery,
) -> ManyAnswer<RegistryCheckView> {
    let query = query.must_order_by(Some(Order::ConnectTime))?;
    let wanted = |name: &str| pairs.iter().any(|(key, value)| key.starts_with("status") && value == name);
    let healthy = match (wanted("healthy"), wanted("lost_connection")) {
        (healthy, lost) if healthy == lost => None,
        (healthy, _) => Some(healthy),
    };
    let filter = RegistryCheckFilter { healthy, list: query.filter };
    let id = call.registry()?;
    let found = call.app.service_registry_check_list(&call.caller, &call.group, &id, &filter).await?;
    Ok(many(found))
}

impl GroupPathCall {
    async fn browse(&self, kind: RegistryKind, place: Place) -> Result<Found, ApiError> {
        let id = self.registry()?;
        let found = self.app.service_registry_browse(&self.caller, &self.group, &id, (kind, place)).await?;
        Ok(found)
    }

    fn nacos(&self, name: &str) -> String {
        self.ids.text(name).to_owned()
    }
}

/// Lists the services of a Kubernetes cluster, which is asked now.
#[utoipa::path(get, tag = "service registry",
    path = "/api/gateway_groups/{gateway_group_id}/service_registries/{service_registry_id}/kubernetes/internal_services",
    params(("gateway_group_id" = String, Path), ("service_registry_id" = String, Path)),
    responses((status = 200, body = Single<InternalServicesView>), Refusals))]
pub(super) async fn service_registry_internal_service_list(
    call: GroupPathCall,
) -> SingleAnswer<InternalServicesView> {
    let kind = RegistryKind::Kubernetes;
    let internal_services = match call.browse(kind, Place::Services).await? {
        Found::Services(services) => services,
        _ => BTreeMap::new(),
    };
    Ok(single(InternalServicesView { kind, internal_services }))
}

/// Lists the namespaces of a Nacos, which is asked now.
#[utoipa::path(get, tag = "service registry",
    path = "/api/gateway_groups/{gateway_group_id}/service_registries/{service_registry_id}/nacos/namespaces",
    params(("gateway_group_id" = String, Path), ("service_registry_id" = String, Path)),
    responses((status = 200, body = Many<NacosNamespaceView>), Refusals))]
pub(super) async fn service_registry_namespace_list(call: GroupPathCall) -> ManyAnswer<NacosNamespaceView> {
    let namespaces = match call.browse(RegistryKind::Nacos, Place::Namespaces).await? {
        Found::Namespaces(namespaces) => namespaces,
        _ => Vec::new(),
    };
    Ok(listed(namespaces))
}

/// Lists the groups of a namespace of a Nacos, which is asked now.
#[utoipa::path(get, tag = "service registry",
    path = "/api/gateway_groups/{gateway_group_id}/service_registries/{service_registry_id}/nacos/namespaces/{nacos_namespace}/groups",
    params(("gateway_group_id" = String, Path), ("service_registry_id" = String, Path),
        ("nacos_namespace" = String, Path)),
    responses((status = 200, body = Many<String>), Refusals))]
pub(super) async fn service_registry_group_list(call: GroupPathCall) -> ManyAnswer<String> {
    let namespace = call.nacos("nacos_namespace");
    Ok(listed(names(call.browse(RegistryKind::Nacos, Place::Groups { namespace }).await?)))
}

/// Lists the services of a group of a Nacos, which is asked now.
#[utoipa::path(get, tag = "service registry",
    path = "/api/gateway_groups/{gateway_group_id}/service_registries/{service_registry_id}/nacos/namespaces/{nacos_namespace}/groups/{nacos_group}/services",
    params(("gateway_group_id" = String, Path), ("service_registry_id" = String, Path),
        ("nacos_namespace" = String, Path), ("nacos_group" = String, Path)),
    responses((status = 200, body = Many<String>), Refusals))]
pub(super) async fn service_registry_group_service_list(call: GroupPathCall) -> ManyAnswer<String> {
    let (namespace, group) = (call.nacos("nacos_namespace"), call.nacos("nacos_group"));
    Ok(listed(names(call.browse(RegistryKind::Nacos, Place::GroupServices { namespace, group }).await?)))
}

fn names(found: Found) -> Vec<String> {
    match found {
        Found::Names(names) => names.into_iter().collect(),
        _ => Vec::new(),
    }
}

/// Lists the metadata of the instances of a service of a Nacos, which is asked now.
#[utoipa::path(get, tag = "service registry",
    path = "/api/gateway_groups/{gateway_group_id}/service_registries/{service_registry_id}/nacos/namespaces/{nacos_namespace}/groups/{nacos_group}/services/{nacos_service}/instances_metadata",
    params(("gateway_group_id" = String, Path), ("service_registry_id" = String, Path),
        ("nacos_namespace" = String, Path), ("nacos_group" = String, Path), ("nacos_service" = String, Path)),
    responses((status = 200, body = InstancesMetadataView), Refusals))]
pub(super) async fn service_registry_metadata_list(
    call: GroupPathCall,
) -> Result<axum::Json<InstancesMetadataView>, ApiError> {
    let (namespace, group) = (call.nacos("nacos_namespace"), call.nacos("nacos_group"));
    let service = call.nacos("nacos_service");
    let place = Place::Metadata { namespace, group, service };
    let value = match call.browse(RegistryKind::Nacos, place).await? {
        Found::Metadata(values) => values,
        _ => BTreeMap::new(),
    };
    let list: Vec<_> =
        value.iter().map(|(name, values)| BTreeMap::from([(name.clone(), values.clone())])).collect();
    Ok(axum::Json(InstancesMetadataView { total: list.len(), list, value }))
}
