//! Variables that expressions can read.

use axum::Json;
use gatewright_model::expression::{FAMILIES, NAMES};
use serde::Serialize;
use utoipa::ToSchema;

use super::error::Refusals;
use super::{Single, single};
use crate::app::Caller;

/// A variable, or the start of the names of several.
#[derive(Serialize, ToSchema)]
pub(super) struct VariableView {
    /// The name; one that ends in `_` or `.` is followed by a name of the writer's choice.
    name: &'static str,
    /// What it holds.
    desc: &'static str,
}

/// Lists the variables that expressions can read.
#[utoipa::path(get, path = "/apisix/admin/variables", tag = "variable",
    responses((status = 200, body = Single<Vec<VariableView>>), Refusals))]
pub(super) async fn variable_list(_: Caller) -> Json<Single<Vec<VariableView>>> {
    let fixed = NAMES.iter().map(|name| VariableView { name: name.name, desc: name.description });
    let families = FAMILIES
        .iter()
        .map(|family| VariableView { name: family.name.trim_end_matches('*'), desc: family.description });
    single(fixed.chain(families).collect())
}
