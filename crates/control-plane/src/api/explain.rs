//! Explaining requests.

use axum::extract::State;

use super::error::{ErrorBody, Refusals};
use super::request::{Ids, Json};
use super::{Single, SingleAnswer, warned};
use crate::app::document::{ExplainWish, explain_parse};
use crate::app::{App, Caller, Explained};

/// Explains which route of a gateway group serves a request, or once did, and why no other (our extension).
#[utoipa::path(post, path = "/api/gateway_groups/{gateway_group_id}/explain", tag = "gateway group",
    params(("gateway_group_id" = String, Path)), request_body = ExplainWish,
    responses((status = 200, body = Single<Explained>), Refusals,
        (status = 501, description = "The control plane was built without the gateway.", body = ErrorBody)))]
pub(super) async fn explain(
    caller: Caller,
    State(app): State<App>,
    ids: Ids,
    Json(body): Json,
) -> SingleAnswer<Explained> {
    let document = explain_parse(body)?;
    let explanation = app.explain(&caller, &ids.id("gateway_group_id")?, document.content).await?;
    Ok(warned(explanation, &document.warnings))
}
