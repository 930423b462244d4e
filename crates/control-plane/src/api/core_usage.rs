//! How many cores gateways use.

use axum::extract::{Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use gatewright_model::validation::Violations;
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use super::error::{ApiError, Refusals};
use super::{Single, SingleAnswer, single};
use crate::app::{App, Caller};

/// The cores of gateways.
#[derive(Serialize, ToSchema)]
pub(super) struct CoresView {
    /// Cores of the instances that are not lost.
    current_dp_cores: i64,
}

/// Counts the cores that gateways use.
#[utoipa::path(get, path = "/api/instances/cores", tag = "gateway instance",
    responses((status = 200, body = Single<CoresView>), Refusals))]
pub(super) async fn core_usage_now(caller: Caller, State(app): State<App>) -> SingleAnswer<CoresView> {
    Ok(single(CoresView { current_dp_cores: app.cores_now(&caller).await? }))
}

/// The parameters of an export.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code, reason = "documents what is read by hand")]
pub(super) struct CoreUsageParameters {
    /// From when on, in unix seconds.
    begin_at: i64,
    /// Until when, in unix seconds.
    end_at: i64,
}

/// Exports, as CSV, the most cores that gateways used at a time, for each hour of a span.
#[utoipa::path(get, path = "/api/instances/cores_usages/export", tag = "gateway instance",
    params(CoreUsageParameters),
    responses((status = 200, body = String, content_type = "text/csv"), Refusals))]
pub(super) async fn core_usage_export(
    caller: Caller,
    State(app): State<App>,
    Query(pairs): Query<Vec<(String, String)>>,
) -> Result<Response, ApiError> {
    let mut violations = Violations::default();
    let (begin_at, end_at) =
        (moment(&pairs, "begin_at", &mut violations), moment(&pairs, "end_at", &mut violations));
    violations.into_result()?;
    let rows = app.core_usage_list(&caller, begin_at, end_at).await?;
    let lines: String = rows.iter().map(|row| format!("{},{}\n", row.hour, row.cores)).collect();
    let headers = [
        (header::CONTENT_TYPE, "text/csv"),
        (header::CONTENT_DISPOSITION, "attachment; filename=\"cores-usages.csv\""),
    ];
    Ok((headers, format!("time,max_dp_cores\n{lines}")).into_response())
}

fn moment(pairs: &[(String, String)], name: &str, violations: &mut Violations) -> i64 {
    let found = pairs.iter().find(|(found, _)| found == name).and_then(|(_, value)| value.parse().ok());
    found.unwrap_or_else(|| {
        violations.add(format!("/{name}"), "value must be a time in unix seconds");
        0
    })
}
