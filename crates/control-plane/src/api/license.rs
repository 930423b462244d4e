//! The licence: none is needed. Published clients ask for one and send one all the same.

use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::error::Refusals;
use super::{Single, SingleAnswer, single};
use crate::app::{Action, App, Caller};

/// That no licence is needed.
#[derive(Serialize, ToSchema)]
pub(super) struct LicenseView {
    /// Whether a licence is needed: never.
    is_needed: bool,
    /// Who may use the control plane.
    customer: &'static str,
    /// The end of the licence; 0: never.
    expired_at: i64,
    /// How many cores gateways may have; 0: any number.
    max_dp_cores: i64,
}

const NONE_NEEDED: LicenseView =
    LicenseView { is_needed: false, customer: "everybody", expired_at: 0, max_dp_cores: 0 };

/// Answers that no licence is needed.
#[utoipa::path(get, path = "/api/license", tag = "system",
    responses((status = 200, body = Single<LicenseView>), Refusals))]
pub(super) async fn license_get(caller: Caller, State(_): State<App>) -> SingleAnswer<LicenseView> {
    caller.must(Action::GetLicense, "*")?;
    Ok(single(NONE_NEEDED))
}

/// Answers that no licence is needed; what is sent is not read.
#[utoipa::path(put, path = "/api/license", tag = "system",
    responses((status = 200, body = Single<LicenseView>), Refusals))]
pub(super) async fn license_put(caller: Caller, State(_): State<App>) -> SingleAnswer<LicenseView> {
    caller.must(Action::UpdateLicense, "*")?;
    Ok(single(NONE_NEEDED))
}
