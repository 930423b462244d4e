//! Protos of a gateway group.

use gatewright_model::resource::proto::Proto;
use gatewright_model::resource::{AsSent, Labels};
use serde::Serialize;
use utoipa::ToSchema;

use super::error::Refusals;
use super::group_call::{GroupCall, GroupParameter};
use super::group_object::{object_create, object_delete, object_get, object_list, object_patch, object_put};
use super::request::{Json, ListParameters, ListQuery};
use super::{Many, ManyAnswer, Nothing, Single, SingleAnswer, TaggedAnswer};
use crate::app::Object;

/// A proto: what a gRPC service can be asked.
#[derive(Serialize, ToSchema)]
pub(super) struct ProtoView {
    id: String,
    #[serde(skip_serializing_if = "AsSent::is_absent")]
    #[schema(value_type = String, required = false)]
    name: AsSent<String>,
    #[serde(skip_serializing_if = "AsSent::is_absent")]
    #[schema(value_type = String, required = false)]
    desc: AsSent<String>,
    #[serde(skip_serializing_if = "AsSent::is_absent")]
    #[schema(value_type = Labels, required = false)]
    labels: AsSent<Labels>,
    content: String,
    created_at: i64,
    updated_at: i64,
}

impl From<Object<Proto>> for ProtoView {
    fn from(object: Object<Proto>) -> Self {
        let content = object.content;
        Self {
            id: object.id,
            name: content.name,
            desc: content.desc,
            labels: content.labels,
            content: content.content,
            created_at: object.created_at,
            updated_at: object.updated_at,
        }
    }
}

/// Lists the protos of a gateway group.
#[utoipa::path(get, path = "/apisix/admin/protos", tag = "proto",
    params(GroupParameter, ListParameters),
    responses((status = 200, body = Many<ProtoView>), Refusals))]
pub(super) async fn proto_list(call: GroupCall, query: ListQuery) -> ManyAnswer<ProtoView> {
    object_list::<Proto>(call, query).await
}

/// Creates a proto.
#[utoipa::path(post, path = "/apisix/admin/protos", tag = "proto",
    params(GroupParameter),
    request_body = Proto,
    responses((status = 200, body = Single<ProtoView>), Refusals))]
pub(super) async fn proto_create(call: GroupCall, Json(body): Json) -> TaggedAnswer<ProtoView> {
    object_create::<Proto>(call, body).await
}

/// Shows a proto.
#[utoipa::path(get, path = "/apisix/admin/protos/{proto_id}", tag = "proto",
    params(("proto_id" = String, Path), GroupParameter),
    responses((status = 200, body = Single<ProtoView>), Refusals))]
pub(super) async fn proto_get(call: GroupCall) -> TaggedAnswer<ProtoView> {
    object_get::<Proto>(call).await
}

/// Creates a proto under an id of the caller's choice, or replaces it whole.
#[utoipa::path(put, path = "/apisix/admin/protos/{proto_id}", tag = "proto",
    params(("proto_id" = String, Path), GroupParameter),
    request_body = Proto,
    responses((status = 200, body = Single<ProtoView>), Refusals))]
pub(super) async fn proto_put(call: GroupCall, Json(body): Json) -> TaggedAnswer<ProtoView> {
    object_put::<Proto>(call, body).await
}

/// Changes a proto by a merge object (RFC 7386) or a JSON patch (RFC 6902).
#[utoipa::path(patch, path = "/apisix/admin/protos/{proto_id}", tag = "proto",
    params(("proto_id" = String, Path), GroupParameter),
    request_body = serde_json::Value,
    responses((status = 200, body = Single<ProtoView>), Refusals))]
pub(super) async fn proto_patch(call: GroupCall, Json(body): Json) -> TaggedAnswer<ProtoView> {
    object_patch::<Proto>(call, body).await
}

/// Deletes a proto; routes that transcode with it answer 503.
#[utoipa::path(delete, path = "/apisix/admin/protos/{proto_id}", tag = "proto",
    params(("proto_id" = String, Path), GroupParameter),
    responses((status = 200, body = Single<Nothing>), Refusals))]
pub(super) async fn proto_delete(call: GroupCall) -> SingleAnswer<Nothing> {
    object_delete::<Proto>(call).await
}
