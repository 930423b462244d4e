//! Consumers of a gateway group.

use axum::extract::State;
use gatewright_model::id::ObjectId;
use gatewright_model::resource::consumer::Consumer;
use gatewright_model::resource::{Labels, Plugins};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::error::Refusals;
use super::request::{Ids, Json, ListParameters, ListQuery};
use super::target_group::{GroupParameter, TargetGroup};
use super::{Many, ManyAnswer, Nothing, Single, SingleAnswer, many, single, warned};
use crate::app::group_document::parse_with_id;
use crate::app::{App, Caller, Object, Patch, Shelf};

/// A consumer: somebody who calls.
#[derive(Serialize, ToSchema)]
pub(super) struct ConsumerView {
    username: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schema(required = false)]
    desc: String,
    #[serde(skip_serializing_if = "Labels::is_empty")]
    #[schema(required = false)]
    labels: Labels,
    #[serde(skip_serializing_if = "Plugins::is_empty")]
    #[schema(value_type = std::collections::BTreeMap<String, Object>, required = false)]
    plugins: Plugins,
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
pub(super) async fn consumer_list(
    caller: Caller,
    State(app): State<App>,
    TargetGroup(group): TargetGroup,
    query: ListQuery,
) -> ManyAnswer<ConsumerView> {
    let shelf = Shelf { group: &group, owner: "" };
    let query = query.must_order_by(None)?;
    Ok(many(app.object_list::<Consumer>(&caller, shelf, &query.filter).await?))
}

/// Creates a consumer.
#[utoipa::path(post, path = "/apisix/admin/consumers", tag = "consumer",
    params(GroupParameter),
    request_body = Consumer,
    responses((status = 200, body = Single<ConsumerView>), Refusals))]
pub(super) async fn consumer_create(
    caller: Caller,
    State(app): State<App>,
    TargetGroup(group): TargetGroup,
    Json(body): Json,
) -> SingleAnswer<ConsumerView> {
    let shelf = Shelf { group: &group, owner: "" };
    let (row, warnings) =
        app.object_create(&caller, shelf, parse_with_id::<Consumer, ObjectId>(body)?).await?;
    Ok(warned(row.into(), &warnings))
}

/// Shows a consumer.
#[utoipa::path(get, path = "/apisix/admin/consumers/{username}", tag = "consumer",
    params(("username" = String, Path), GroupParameter),
    responses((status = 200, body = Single<ConsumerView>), Refusals))]
pub(super) async fn consumer_get(
    caller: Caller,
    State(app): State<App>,
    TargetGroup(group): TargetGroup,
    ids: Ids,
) -> SingleAnswer<ConsumerView> {
    let shelf = Shelf { group: &group, owner: "" };
    Ok(single(app.object_get::<Consumer>(&caller, shelf, &ids.id::<ObjectId>("username")?).await?.into()))
}

/// Creates a consumer under an id of the caller's choice, or replaces it whole.
#[utoipa::path(put, path = "/apisix/admin/consumers/{username}", tag = "consumer",
    params(("username" = String, Path), GroupParameter),
    request_body = Consumer,
    responses((status = 200, body = Single<ConsumerView>), Refusals))]
pub(super) async fn consumer_put(
    caller: Caller,
    State(app): State<App>,
    TargetGroup(group): TargetGroup,
    ids: Ids,
    Json(mut body): Json,
) -> SingleAnswer<ConsumerView> {
    if let Value::Object(members) = &mut body {
        members.entry("username").or_insert_with(|| ids.text("username").into());
    }
    let shelf = Shelf { group: &group, owner: "" };
    let document = parse_with_id::<Consumer, ObjectId>(body)?;
    let (row, warnings) = app.object_put(&caller, shelf, &ids.id::<ObjectId>("username")?, document).await?;
    Ok(warned(row.into(), &warnings))
}

/// Changes a consumer by a merge object (RFC 7386) or a JSON patch (RFC 6902).
#[utoipa::path(patch, path = "/apisix/admin/consumers/{username}", tag = "consumer",
    params(("username" = String, Path), GroupParameter),
    request_body = Value,
    responses((status = 200, body = Single<ConsumerView>), Refusals))]
pub(super) async fn consumer_patch(
    caller: Caller,
    State(app): State<App>,
    TargetGroup(group): TargetGroup,
    ids: Ids,
    Json(body): Json,
) -> SingleAnswer<ConsumerView> {
    let shelf = Shelf { group: &group, owner: "" };
    let patch = Patch::parse(body)?;
    let (row, warnings) =
        app.object_patch::<Consumer>(&caller, shelf, &ids.id::<ObjectId>("username")?, &patch).await?;
    Ok(warned(row.into(), &warnings))
}

/// Deletes a consumer and its credentials.
#[utoipa::path(delete, path = "/apisix/admin/consumers/{username}", tag = "consumer",
    params(("username" = String, Path), GroupParameter),
    responses((status = 200, body = Single<Nothing>), Refusals))]
pub(super) async fn consumer_delete(
    caller: Caller,
    State(app): State<App>,
    TargetGroup(group): TargetGroup,
    ids: Ids,
) -> SingleAnswer<Nothing> {
    let shelf = Shelf { group: &group, owner: "" };
    app.object_delete::<Consumer>(&caller, shelf, &ids.id::<ObjectId>("username")?).await?;
    Ok(single(Nothing {}))
}
