//! Global rules of a gateway group.

use axum::extract::State;
use gatewright_model::id::ObjectId;
use gatewright_model::resource::global_rule::GlobalRule;
use gatewright_model::resource::{Labels, Plugins};
use serde::Serialize;
use utoipa::ToSchema;

use super::error::Refusals;
use super::request::{Ids, Json, ListParameters, ListQuery};
use super::target_group::{GroupParameter, TargetGroup};
use super::{Many, ManyAnswer, Nothing, Single, SingleAnswer, many, single, warned};
use crate::app::group_document::parse_with_id;
use crate::app::{App, Caller, Object, Shelf};

/// A global rule: one plugin for every request of the group.
#[derive(Serialize, ToSchema)]
pub(super) struct GlobalRuleView {
    id: String,
    #[serde(skip_serializing_if = "Labels::is_empty")]
    #[schema(required = false)]
    labels: Labels,
    #[serde(skip_serializing_if = "Plugins::is_empty")]
    #[schema(value_type = std::collections::BTreeMap<String, Object>, required = false)]
    plugins: Plugins,
    created_at: i64,
    updated_at: i64,
}

impl From<Object<GlobalRule>> for GlobalRuleView {
    fn from(object: Object<GlobalRule>) -> Self {
        Self {
            id: object.id,
            labels: object.content.labels,
            plugins: object.content.plugins,
            created_at: object.created_at,
            updated_at: object.updated_at,
        }
    }
}

/// Lists the global rules of a gateway group.
#[utoipa::path(get, path = "/apisix/admin/global_rules", tag = "global rule",
    params(GroupParameter, ListParameters),
    responses((status = 200, body = Many<GlobalRuleView>), Refusals))]
pub(super) async fn global_rule_list(
    caller: Caller,
    State(app): State<App>,
    TargetGroup(group): TargetGroup,
    query: ListQuery,
) -> ManyAnswer<GlobalRuleView> {
    let shelf = Shelf { group: &group, owner: "" };
    let query = query.must_order_by(None)?;
    Ok(many(app.object_list::<GlobalRule>(&caller, shelf, &query.filter).await?))
}

/// Creates a global rule.
#[utoipa::path(post, path = "/apisix/admin/global_rules", tag = "global rule",
    params(GroupParameter),
    request_body = GlobalRule,
    responses((status = 200, body = Single<GlobalRuleView>), Refusals))]
pub(super) async fn global_rule_create(
    caller: Caller,
    State(app): State<App>,
    TargetGroup(group): TargetGroup,
    Json(body): Json,
) -> SingleAnswer<GlobalRuleView> {
    let shelf = Shelf { group: &group, owner: "" };
    let (row, warnings) =
        app.object_create(&caller, shelf, parse_with_id::<GlobalRule, ObjectId>(body)?).await?;
    Ok(warned(row.into(), &warnings))
}

/// Shows a global rule.
#[utoipa::path(get, path = "/apisix/admin/global_rules/{global_rule_id}", tag = "global rule",
    params(("global_rule_id" = String, Path), GroupParameter),
    responses((status = 200, body = Single<GlobalRuleView>), Refusals))]
pub(super) async fn global_rule_get(
    caller: Caller,
    State(app): State<App>,
    TargetGroup(group): TargetGroup,
    ids: Ids,
) -> SingleAnswer<GlobalRuleView> {
    let shelf = Shelf { group: &group, owner: "" };
    Ok(single(
        app.object_get::<GlobalRule>(&caller, shelf, &ids.id::<ObjectId>("global_rule_id")?).await?.into(),
    ))
}

/// Creates a global rule, or replaces it whole; its id is the name of its plugin.
#[utoipa::path(put, path = "/apisix/admin/global_rules/{global_rule_id}", tag = "global rule",
    params(("global_rule_id" = String, Path), GroupParameter),
    request_body = GlobalRule,
    responses((status = 200, body = Single<GlobalRuleView>), Refusals))]
pub(super) async fn global_rule_put(
    caller: Caller,
    State(app): State<App>,
    TargetGroup(group): TargetGroup,
    ids: Ids,
    Json(body): Json,
) -> SingleAnswer<GlobalRuleView> {
    let shelf = Shelf { group: &group, owner: "" };
    let document = parse_with_id::<GlobalRule, ObjectId>(body)?;
    let (row, warnings) =
        app.object_put(&caller, shelf, &ids.id::<ObjectId>("global_rule_id")?, document).await?;
    Ok(warned(row.into(), &warnings))
}

/// Deletes a global rule.
#[utoipa::path(delete, path = "/apisix/admin/global_rules/{global_rule_id}", tag = "global rule",
    params(("global_rule_id" = String, Path), GroupParameter),
    responses((status = 200, body = Single<Nothing>), Refusals))]
pub(super) async fn global_rule_delete(
    caller: Caller,
    State(app): State<App>,
    TargetGroup(group): TargetGroup,
    ids: Ids,
) -> SingleAnswer<Nothing> {
    let shelf = Shelf { group: &group, owner: "" };
    app.object_delete::<GlobalRule>(&caller, shelf, &ids.id::<ObjectId>("global_rule_id")?).await?;
    Ok(single(Nothing {}))
}
