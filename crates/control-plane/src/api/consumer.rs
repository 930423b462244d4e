//! Consumers of a gateway group.

use gatewright_model::resource::consumer::Consumer;
use gatewright_model::resource::{AsSent, Labels, Plugins};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::error::Refusals;
use super::group_call::{GroupCall, GroupParameter};
use super::group_object::{object_create, object_delete, object_get, object_list, object_patch, object_put};
use super::request::{Json, ListParameters, ListQuery};
use super::{Many, ManyAnswer, Nothing, Single, SingleAnswer, TaggedAnswer};
use crate::app::Object;

/// A consumer: somebody who calls.
#[derive(Serialize, ToSchema)]
pub(super) struct ConsumerView {
    username: String,
    #[serde(skip_serializing_if = "AsSent::is_absent")]
    #[schema(value_type = String, required = false)]
    desc: AsSent<String>,
    #[serde(skip_serializing_if = "AsSent::is_absent")]
    #[schema(value_type = Labels, required = false)]
    labels: AsSent<Labels>,
    #[serde(skip_serializing_if = "AsSent::is_absent")]
    #[schema(value_type = std::collections::BTreeMap<String, Object>, required = false)]
    plugins: AsSent<Plugins>,
    created_at: i64,
    updated_at: i64,
}

impl From<Object<Consumer>> for ConsumerView {
    fn from(object: Object<Consumer>) -> Self {
        let consumer = object.content;
        Self {
            username: consumer.username,
            desc: consumer.desc,
            labels: consumer.labels,
            plugins: consumer.plugins,
            created_at: object.created_at,
            updated_at: object.updated_at,
        }
    }
}

/// Lists the consumers of a gateway group.
#[utoipa::path(get, path = "/apisix/admin/consumers", tag = "consumer",
    params(GroupParameter, ListParameters),
    responses((status = 200, body = Many<ConsumerView>), Refusals))]
pub(super) async fn consumer_list(call: GroupCall, query: ListQuery) -> ManyAnswer<ConsumerView> {
    object_list::<Consumer>(call, query).await
}

/// Creates a consumer.
#[utoipa::path(post, path = "/apisix/admin/consumers", tag = "consumer",
    params(GroupParameter),
    request_body = Consumer,
    responses((status = 200, body = Single<ConsumerView>), Refusals))]
pub(super) async fn consumer_create(call: GroupCall, Json(body): Json) -> TaggedAnswer<ConsumerView> {
    object_create::<Consumer>(call, body).await
}

/// Shows a consumer.
#[utoipa::path(get, path = "/apisix/admin/consumers/{username}", tag = "consumer",
    params(("username" = String, Path), GroupParameter),
    responses((status = 200, body = Single<ConsumerView>), Refusals))]
pub(super) async fn consumer_get(call: GroupCall) -> TaggedAnswer<ConsumerView> {
    object_get::<Consumer>(call).await
}

/// Creates a consumer under an id of the caller's choice, or replaces it whole.
#[utoipa::path(put, path = "/apisix/admin/consumers/{username}", tag = "consumer",
    params(("username" = String, Path), GroupParameter),
    request_body = Consumer,
    responses((status = 200, body = Single<ConsumerView>), Refusals))]
pub(super) async fn consumer_put(call: GroupCall, Json(mut body): Json) -> TaggedAnswer<ConsumerView> {
    if let Value::Object(members) = &mut body {
        members.entry("username").or_insert_with(|| call.ids.text("username").into());
    }
    object_put::<Consumer>(call, body).await
}

/// Changes a consumer by a merge object (RFC 7386) or a JSON patch (RFC 6902).
#[utoipa::path(patch, path = "/apisix/admin/consumers/{username}", tag = "consumer",
    params(("username" = String, Path), GroupParameter),
    request_body = Value,
    responses((status = 200, body = Single<ConsumerView>), Refusals))]
pub(super) async fn consumer_patch(call: GroupCall, Json(body): Json) -> TaggedAnswer<ConsumerView> {
    object_patch::<Consumer>(call, body).await
}

/// Deletes a consumer and its credentials.
#[utoipa::path(delete, path = "/apisix/admin/consumers/{username}", tag = "consumer",
    params(("username" = String, Path), GroupParameter),
    responses((status = 200, body = Single<Nothing>), Refusals))]
pub(super) async fn consumer_delete(call: GroupCall) -> SingleAnswer<Nothing> {
    object_delete::<Consumer>(call).await
}
