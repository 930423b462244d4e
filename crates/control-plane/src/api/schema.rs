//! The schemas of what can be written to a group.

use serde_json::Value;

use super::error::Refusals;
use super::{Single, SingleAnswer, single};
use crate::app::{Caller, core_schema};

/// Shows the JSON schemas of services, routes and the rest, with the defaults that reads fill in.
#[utoipa::path(get, path = "/api/schema/core", tag = "system",
    responses((status = 200, body = Single<Value>), Refusals))]
pub(super) async fn core_schema_get(_caller: Caller) -> SingleAnswer<Value> {
    Ok(single(core_schema()))
}
