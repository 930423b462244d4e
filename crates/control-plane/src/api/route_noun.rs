//! What the operations on routes of a gateway group have in common; the nouns beside this file only write them down.

use gatewright_model::resource::route::Route;
use gatewright_model::resource::stream_route::StreamRoute;
use serde_json::Value;

use super::group_call::GroupCall;
use super::group_route::GroupRouteView;
use super::request::ListQuery;
use super::stream_route::StreamRouteView;
use super::{ManyAnswer, Nothing, SingleAnswer, TaggedAnswer, many, single, tagged, warned};
use crate::app::group_document::group_route_parse;
use crate::app::{Patch, RouteContent};
use crate::store::RouteRow;

/// How a kind of route stands in paths and answers.
pub(super) trait RouteNoun: RouteContent {
    /// What paths call its id.
    const ID: &'static str;
    /// What answers show of it.
    type View: From<RouteRow<Self>>;
}

impl RouteNoun for Route {
    const ID: &'static str = "route_id";
    type View = GroupRouteView;
}

impl RouteNoun for StreamRoute {
    const ID: &'static str = "stream_route_id";
    type View = StreamRouteView;
}

pub(super) async fn route_list<N: RouteNoun>(call: GroupCall, query: ListQuery) -> ManyAnswer<N::View> {
    let query = query.must_order_by(None)?;
    let GroupCall { app, caller, group, .. } = call;
    Ok(many(app.group_route_list::<N>(&caller, &group, query.service_id.as_ref(), &query.filter).await?))
}

pub(super) async fn route_create<N: RouteNoun>(call: GroupCall, body: Value) -> TaggedAnswer<N::View> {
    let document = group_route_parse::<N>(body)?;
    let (row, warnings) = call.app.group_route_create(&call.caller, &call.group, document).await?;
    tagged(row.change_number, warned(row.into(), &warnings))
}

pub(super) async fn route_get<N: RouteNoun>(call: GroupCall) -> TaggedAnswer<N::View> {
    let id = call.ids.id(N::ID)?;
    let row = call.app.group_route_get::<N>(&call.caller, &call.group, &id).await?;
    tagged(row.change_number, single(row.into()))
}

pub(super) async fn route_put<N: RouteNoun>(call: GroupCall, body: Value) -> TaggedAnswer<N::View> {
    let document = group_route_parse::<N>(body)?;
    let id = call.ids.id(N::ID)?;
    let (row, warnings) = call.app.group_route_put(&call.caller, &call.group, &id, document).await?;
    tagged(row.change_number, warned(row.into(), &warnings))
}

pub(super) async fn route_patch<N: RouteNoun>(call: GroupCall, body: Value) -> TaggedAnswer<N::View> {
    let patch = Patch::parse(body)?;
    let id = call.ids.id(N::ID)?;
    let (row, warnings) = call.app.group_route_patch::<N>(&call.caller, &call.group, &id, &patch).await?;
    tagged(row.change_number, warned(row.into(), &warnings))
}

pub(super) async fn route_delete<N: RouteNoun>(call: GroupCall) -> SingleAnswer<Nothing> {
    let id = call.ids.id(N::ID)?;
    call.app.group_route_delete::<N>(&call.caller, &call.group, &id).await?;
    Ok(single(Nothing {}))
}
