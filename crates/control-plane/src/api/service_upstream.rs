//! Upstreams of a service in a gateway group.

use gatewright_model::resource::service::ServiceKind;
use gatewright_model::resource::upstream::Upstream;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::error::Refusals;
use super::group_call::{GroupCall, GroupParameter};
use super::group_service::upstream_view;
use super::request::{Json, ListParameters, ListQuery};
use super::{Many, ManyAnswer, Nothing, Single, SingleAnswer, TaggedAnswer, many, single, tagged, warned};
use crate::app::Object;

/// An upstream of a service, with its id and times.
#[derive(Serialize, ToSchema)]
pub(super) struct ServiceUpstreamView {
    #[serde(flatten)]
    #[schema(value_type = Upstream)]
    upstream: Value,
}

impl From<Object<Upstream>> for ServiceUpstreamView {
    fn from(object: Object<Upstream>) -> Self {
        let mut upstream = upstream_view(&object.content, ServiceKind::Http);
        if let Value::Object(members) = &mut upstream {
            members.insert("id".to_owned(), object.id.into());
            members.insert("created_at".to_owned(), object.created_at.into());
            members.insert("updated_at".to_owned(), object.updated_at.into());
        }
        Self { upstream }
    }
}

/// Lists the upstreams of a service in a gateway group; the default one has the id of the service.
#[utoipa::path(get, path = "/apisix/admin/services/{service_id}/upstreams", tag = "service in a group",
    params(("service_id" = String, Path), GroupParameter, ListParameters),
    responses((status = 200, body = Many<ServiceUpstreamView>), Refusals))]
pub(super) async fn service_upstream_list(
    call: GroupCall,
    query: ListQuery,
) -> ManyAnswer<ServiceUpstreamView> {
    let query = query.must_order_by(None)?;
    let service = call.ids.id("service_id")?;
    Ok(many(call.app.service_upstream_list(&call.caller, &call.group, &service, &query.filter).await?))
}

/// Shows an upstream of a service in a gateway group.
#[utoipa::path(get, path = "/apisix/admin/services/{service_id}/upstreams/{upstream_id}", tag = "service in a group",
    params(("service_id" = String, Path), ("upstream_id" = String, Path), GroupParameter),
    responses((status = 200, body = Single<ServiceUpstreamView>), Refusals))]
pub(super) async fn service_upstream_get(call: GroupCall) -> TaggedAnswer<ServiceUpstreamView> {
    let (service, id) = (call.ids.id("service_id")?, call.ids.id("upstream_id")?);
    let row = call.app.service_upstream_get(&call.caller, &call.group, &service, &id).await?;
    tagged(row.change_number, single(row.into()))
}

/// Creates a further upstream of a service, or replaces one whole; under the id of the service, the default one.
#[utoipa::path(put, path = "/apisix/admin/services/{service_id}/upstreams/{upstream_id}", tag = "service in a group",
    params(("service_id" = String, Path), ("upstream_id" = String, Path), GroupParameter),
    request_body = Upstream,
    responses((status = 200, body = Single<ServiceUpstreamView>), Refusals))]
pub(super) async fn service_upstream_put(
    call: GroupCall,
    Json(body): Json,
) -> TaggedAnswer<ServiceUpstreamView> {
    let (service, id) = (call.ids.id("service_id")?, call.ids.id("upstream_id")?);
    let (object, warnings) =
        call.app.service_upstream_put(&call.caller, &call.group, &service, &id, body).await?;
    tagged(object.change_number, warned(object.into(), &warnings))
}

/// Deletes a further upstream of a service; rules that name it fall back to the default one.
#[utoipa::path(delete, path = "/apisix/admin/services/{service_id}/upstreams/{upstream_id}", tag = "service in a group",
    params(("service_id" = String, Path), ("upstream_id" = String, Path), GroupParameter),
    responses((status = 200, body = Single<Nothing>), Refusals))]
pub(super) async fn service_upstream_delete(call: GroupCall) -> SingleAnswer<Nothing> {
    let (service, id) = (call.ids.id("service_id")?, call.ids.id("upstream_id")?);
    call.app.service_upstream_delete(&call.caller, &call.group, &service, &id).await?;
    Ok(single(Nothing {}))
}
