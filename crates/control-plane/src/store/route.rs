//! What routes and stream routes have in common, whether they belong to a template or to a gateway group.

use gatewright_model::id::{RouteId, ServiceId};
use gatewright_model::resource::Labels;
use gatewright_model::resource::service::ServiceKind;
use serde::de::DeserializeOwned;

use super::StoreError;
use super::database::Row;
use super::sealed_members::Members;

/// A route as it is stored; `T` is what its kind says.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct RouteRow<T> {
    pub(crate) id: RouteId,
    pub(crate) service_id: ServiceId,
    pub(crate) route: T,
    pub(crate) created_at: i64,
    pub(crate) updated_at: i64,
    /// Rises with every change of the route.
    pub(crate) change_number: i64,
}

/// What is written about a route.
pub(crate) struct RouteWrite<'a, T> {
    pub(crate) service_id: &'a ServiceId,
    pub(crate) name: &'a str,
    pub(crate) labels: &'a Labels,
    pub(crate) route: &'a T,
}

/// What a list of routes reads of a table that is called `r`.
pub(super) const COLUMNS: &str = "r.id, r.service_id, r.content, r.created_at, r.updated_at, r.change_number";

/// How a kind stands in the tables.
pub(super) fn kind_text(kind: ServiceKind) -> &'static str {
    match kind {
        ServiceKind::Http => "http",
        ServiceKind::Stream => "stream",
    }
}

/// What routes of a kind are counted as.
pub(super) fn route_noun(kind: ServiceKind) -> &'static str {
    match kind {
        ServiceKind::Http => "http_route",
        ServiceKind::Stream => "stream_route",
    }
}

pub(super) fn read<T: DeserializeOwned>(row: &Row, members: &Members) -> Result<RouteRow<T>, StoreError> {
    Ok(RouteRow {
        id: row.parsed("id")?,
        service_id: row.parsed("service_id")?,
        route: members.open(&row.text("service_id")?, &row.text("content")?)?,
        created_at: row.integer("created_at")?,
        updated_at: row.integer("updated_at")?,
        change_number: row.integer("change_number")?,
    })
}
