//! Global rules of a gateway group.

use gatewright_model::resource::global_rule::GlobalRule;
use gatewright_model::resource::{AsSent, Labels, Plugins};
use serde::Serialize;
use utoipa::ToSchema;

use super::error::Refusals;
use super::group_call::{GroupCall, GroupParameter};
use super::group_object::{object_create, object_delete, object_get, object_list, object_put};
use super::request::{Json, ListParameters, ListQuery};
use super::{Many, ManyAnswer, Nothing, Single, SingleAnswer, TaggedAnswer};
use crate::app::Object;

/// A global rule: one plugin for every request of the group.
#[derive(Serialize, ToSchema)]
pub(super) struct GlobalRuleView {
    id: String,
    #[serde(skip_serializing_if = "AsSent::is_absent")]
    #[schema(value_type = Labels, required = false)]
    labels: AsSent<Labels>,
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
pub(super) async fn global_rule_list(call: GroupCall, query: ListQuery) -> ManyAnswer<GlobalRuleView> {
    object_list::<GlobalRule>(call, query).await
}

/// Creates a global rule.
#[utoipa::path(post, path = "/apisix/admin/global_rules", tag = "global rule",
    params(GroupParameter),
    request_body = GlobalRule,
    responses((status = 200, body = Single<GlobalRuleView>), Refusals))]
pub(super) async fn global_rule_create(call: GroupCall, Json(body): Json) -> TaggedAnswer<GlobalRuleView> {
    object_create::<GlobalRule>(call, body).await
}

/// Shows a global rule.
#[utoipa::path(get, path = "/apisix/admin/global_rules/{global_rule_id}", tag = "global rule",
    params(("global_rule_id" = String, Path), GroupParameter),
    responses((status = 200, body = Single<GlobalRuleView>), Refusals))]
pub(super) async fn global_rule_get(call: GroupCall) -> TaggedAnswer<GlobalRuleView> {
    object_get::<GlobalRule>(call).await
}

/// Creates a global rule, or replaces it whole; its id is the name of its plugin.
#[utoipa::path(put, path = "/apisix/admin/global_rules/{global_rule_id}", tag = "global rule",
    params(("global_rule_id" = String, Path), GroupParameter),
    request_body = GlobalRule,
    responses((status = 200, body = Single<GlobalRuleView>), Refusals))]
pub(super) async fn global_rule_put(call: GroupCall, Json(body): Json) -> TaggedAnswer<GlobalRuleView> {
    object_put::<GlobalRule>(call, body).await
}

/// Deletes a global rule.
#[utoipa::path(delete, path = "/apisix/admin/global_rules/{global_rule_id}", tag = "global rule",
    params(("global_rule_id" = String, Path), GroupParameter),
    responses((status = 200, body = Single<Nothing>), Refusals))]
pub(super) async fn global_rule_delete(call: GroupCall) -> SingleAnswer<Nothing> {
    object_delete::<GlobalRule>(call).await
}
