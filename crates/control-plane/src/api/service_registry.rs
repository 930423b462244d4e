//! Service registries of a gateway group. Secrets in them are masked in every answer.

use std::collections::BTreeMap;

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
use super::{Many, ManyAnswer, Nothing, Single, SingleAnswer, TaggedAnswer, many, single, tagged, warned};
use crate::app::group_document::parse_with_id;
use crate::app::{Object, Shelf, secrets_mask};
use crate::store::Order;

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
            associated_services_count: None,
            created_at: object.created_at,
            updated_at: object.updated_at,
        }
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
    let query = query.must_order_by(None)?;
    let listed = call.app.object_list::<ServiceRegistry>(&call.caller, call.shelf(), &query.filter).await?;
    let uses = call.app.service_registry_uses(&call.group).await?;
    Ok(many(listed.map(|object| ServiceRegistryView::of(&call.group, object).used_by(&uses))))
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
    tagged(object.change_number, warned(ServiceRegistryView::of(&call.group, object), &warnings))
}

/// Shows a service registry.
#[utoipa::path(get, path = "/api/gateway_groups/{gateway_group_id}/service_registries/{service_registry_id}",
    tag = "service registry",
    params(("gateway_group_id" = String, Path), ("service_registry_id" = String, Path)),
    responses((status = 200, body = Single<ServiceRegistryView>), Refusals))]
pub(super) async fn service_registry_get(call: GroupPathCall) -> TaggedAnswer<ServiceRegistryView> {
    let id = call.registry()?;
    let object = call.app.object_get::<ServiceRegistry>(&call.caller, call.shelf(), &id).await?;
    tagged(object.change_number, single(ServiceRegistryView::of(&call.group, object)))
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
    tagged(object.change_number, warned(ServiceRegistryView::of(&call.group, object), &warnings))
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
