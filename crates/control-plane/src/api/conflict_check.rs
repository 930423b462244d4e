//! Conflicts between routes.

use axum::extract::State;
use gatewright_model::conflict::{Conflict, ConflictKind, Conflicts, RoutePlace};
use serde::Serialize;
use utoipa::ToSchema;

use super::error::Refusals;
use super::request::Json;
use super::{Single, SingleAnswer, warned};
use crate::app::document::{PublishWish, conflict_check_parse};
use crate::app::{App, Caller};

/// What publishing the services would bring. (Published clients know `duplicate` and `overlapping`; the rest is ours.)
#[derive(Default, Serialize, ToSchema)]
pub(super) struct ConflictsView {
    /// Routes of different services that match the same, the winner first.
    duplicate: Vec<Vec<PlaceView>>,
    /// Routes of different services of which one covers the other, the winner first.
    overlapping: Vec<Vec<PlaceView>>,
    /// Routes that another one leaves nothing for.
    shadowed: Vec<ShadowView>,
    /// Routes none of whose paths is ever served.
    unreachable: Vec<ShadowView>,
    /// Whether there was more to compare or to report than the limits allow.
    truncated: bool,
}

/// One path of one route at one host.
#[derive(Serialize, ToSchema)]
pub(super) struct PlaceView {
    service_id: String,
    service_name: String,
    route_id: String,
    route_name: String,
    /// Host and path; only a path for every host.
    url: String,
}

/// A route that is not served, and why.
#[derive(Serialize, ToSchema)]
pub(super) struct ShadowView {
    /// What is served instead; none: nothing could match the loser anyway.
    #[serde(skip_serializing_if = "Option::is_none")]
    winner: Option<PlaceView>,
    loser: PlaceView,
    /// What decides.
    reason: String,
}

impl From<RoutePlace> for PlaceView {
    fn from(place: RoutePlace) -> Self {
        Self {
            url: place.url(),
            service_id: place.service_id,
            service_name: place.service_name,
            route_id: place.route_id,
            route_name: place.route_name,
        }
    }
}

/// Two routes that get in each other's way, or one that is in its own.
#[derive(Serialize, ToSchema)]
pub(super) struct ConflictView {
    /// `duplicate`: they match the same; `overlapping`: one covers the other, and both serve requests; `shadowed`: the
    /// winner leaves nothing at this place; `unreachable`: no place of the loser is ever served.
    #[schema(value_type = String)]
    kind: ConflictKind,
    /// What serves the requests that both could serve; absent: nothing could match the loser anyway.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    winner: Option<PlaceView>,
    loser: PlaceView,
    /// What decides.
    reason: String,
}

impl From<Conflict> for ConflictView {
    fn from(conflict: Conflict) -> Self {
        let Conflict { kind, winner, loser, reason } = conflict;
        Self { kind, winner: winner.map(PlaceView::from), loser: loser.into(), reason }
    }
}

impl From<Conflicts> for ConflictsView {
    fn from(found: Conflicts) -> Self {
        let mut view = Self { truncated: found.truncated, ..Self::default() };
        for conflict in found.conflicts {
            let spans_services = conflict.spans_services();
            let Conflict { kind, winner, loser, reason } = conflict;
            let (winner, loser) = (winner.map(PlaceView::from), PlaceView::from(loser));
            match kind {
                ConflictKind::Duplicate if spans_services => {
                    view.duplicate.push(winner.into_iter().chain([loser]).collect());
                }
                ConflictKind::Overlapping => {
                    view.overlapping.push(winner.into_iter().chain([loser]).collect());
                }
                ConflictKind::Duplicate | ConflictKind::Shadowed => {
                    view.shadowed.push(ShadowView { winner, loser, reason });
                }
                ConflictKind::Unreachable => view.unreachable.push(ShadowView { winner, loser, reason }),
            }
        }
        view
    }
}

/// Says which routes would get in each other's way if the services were published; nothing is changed.
#[utoipa::path(post, path = "/api/services/conflict_check", tag = "published service", request_body = PublishWish,
    responses((status = 200, body = Single<ConflictsView>), Refusals))]
pub(super) async fn conflict_check(
    caller: Caller,
    State(app): State<App>,
    Json(body): Json,
) -> SingleAnswer<ConflictsView> {
    let document = conflict_check_parse(body)?;
    let found = app.conflict_check(&caller, document.content).await?;
    Ok(warned(found.into(), &document.warnings))
}
