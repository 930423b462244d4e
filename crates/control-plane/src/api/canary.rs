//! The end of a canary by upstream.

use axum::extract::State;
use gatewright_model::id::ObjectId;

use super::error::Refusals;
use super::published_service::PublishedServiceView;
use super::request::Ids;
use super::{Single, SingleAnswer, single};
use crate::app::{App, Caller, CanaryEnd};

/// Makes a further upstream of a service its default one, and removes the rules that sent traffic to it (our extension).
#[utoipa::path(post, tag = "published service",
    path = "/api/gateway_groups/{gateway_group_id}/services/{service_id}/upstreams/{upstream_id}/promote",
    params(("gateway_group_id" = String, Path), ("service_id" = String, Path), ("upstream_id" = String, Path)),
    responses((status = 200, body = Single<PublishedServiceView>), Refusals))]
pub(super) async fn canary_promote(
    caller: Caller,
    State(app): State<App>,
    ids: Ids,
) -> SingleAnswer<PublishedServiceView> {
    canary_end(&caller, &app, &ids, CanaryEnd::Promote).await
}

/// Deletes a further upstream of a service, and the rules that sent traffic to it (our extension).
#[utoipa::path(post, tag = "published service",
    path = "/api/gateway_groups/{gateway_group_id}/services/{service_id}/upstreams/{upstream_id}/abandon",
    params(("gateway_group_id" = String, Path), ("service_id" = String, Path), ("upstream_id" = String, Path)),
    responses((status = 200, body = Single<PublishedServiceView>), Refusals))]
pub(super) async fn canary_abandon(
    caller: Caller,
    State(app): State<App>,
    ids: Ids,
) -> SingleAnswer<PublishedServiceView> {
    canary_end(&caller, &app, &ids, CanaryEnd::Abandon).await
}

async fn canary_end(
    caller: &Caller,
    app: &App,
    ids: &Ids,
    end: CanaryEnd,
) -> SingleAnswer<PublishedServiceView> {
    let (group, service) = (ids.id("gateway_group_id")?, ids.id("service_id")?);
    let upstream: ObjectId = ids.id("upstream_id")?;
    Ok(single(app.canary_end(caller, (&group, &service), &upstream, end).await?.into()))
}
