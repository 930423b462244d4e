//! The audit log: lists, what there is to filter by, and exports.

use axum::body::Body;
use axum::extract::{Extension, FromRequestParts, Query, State};
use axum::http::request::Parts;
use axum::http::{HeaderName, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use gatewright_model::diff::Change;
use gatewright_model::validation::Violations;
use serde::Serialize;
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use super::call::Operations;
use super::error::{ApiError, Refusals};
use super::request::{direction, positive};
use super::{Many, ManyAnswer, Single, SingleAnswer, many, single};
use crate::app::{App, Broken, Caller, Refusal, Verified};
use crate::store::{AuditFilter, AuditRow, Link, Listed, Page};

/// Rows of one page: unlike other lists this one has no end, so without a page it is this many.
const PAGE_SIZE_MAX: i64 = 1000;

/// One thing that was done, or refused.
#[derive(Serialize, ToSchema)]
pub(super) struct AuditLogView {
    id: String,
    event_time: i64,
    event_type: String,
    operator: OperatorView,
    /// `dashboard` with a session, else `api`.
    source: String,
    /// The name of the access token, if one was used.
    token_name: String,
    ip_address: String,
    gateway_group_id: String,
    resource_id: String,
    resource_name: String,
    /// Why it was refused; empty: it was not.
    error_message: String,
    http_request: HttpRequestView,
    http_response: HttpResponseView,
    /// What changed, before and after, secrets masked; absent: nothing that is kept here.
    #[serde(skip_serializing_if = "Value::is_null")]
    #[schema(required = false, value_type = ChangesView)]
    changes: Value,
    /// The row's place in the chain, counted from 1 without gaps; 0: it is older than the chain.
    position: i64,
    /// SHA-256 over the hash of the row before it and everything this row says, in hexadecimal.
    hash: String,
}

/// What a call changed.
#[derive(ToSchema)]
#[allow(dead_code, reason = "documents what the store writes")]
struct ChangesView {
    /// The objects that came, changed or went.
    objects: Vec<ObjectChangeView>,
    /// How many changes of fields are left out, because there was no room for them.
    omitted: u64,
}

/// What became of an object.
#[derive(ToSchema)]
#[allow(dead_code, reason = "documents what the store writes")]
struct ObjectChangeView {
    noun: String,
    id: String,
    /// What it belongs to; absent: it stands for itself.
    #[schema(required = false)]
    owner: String,
    /// `created`, `changed` or `deleted`.
    outcome: String,
    changes: Vec<Change>,
}

/// Who did it.
#[derive(Serialize, ToSchema)]
pub(super) struct OperatorView {
    id: String,
    username: String,
}

/// What was sent, secrets masked.
#[derive(Serialize, ToSchema)]
pub(super) struct HttpRequestView {
    method: String,
    uri: String,
    user_agent: String,
    /// The body; absent: none was read.
    #[serde(skip_serializing_if = "Value::is_null")]
    #[schema(required = false)]
    body: Value,
}

/// What was answered.
#[derive(Serialize, ToSchema)]
pub(super) struct HttpResponseView {
    status_code: i64,
}

impl From<AuditRow> for AuditLogView {
    fn from(row: AuditRow) -> Self {
        // A body that was cut is no JSON any more.
        let read = |text: &str| match text {
            "" => Value::Null,
            text => serde_json::from_str(text).unwrap_or_else(|_| text.into()),
        };
        let (body, changes) = (read(&row.body), read(&row.changes));
        Self {
            id: row.id,
            event_time: row.event_time,
            event_type: row.event_type,
            operator: OperatorView { id: row.operator_id, username: row.operator_name },
            source: row.source,
            token_name: row.token_name,
            ip_address: row.ip_address,
            gateway_group_id: row.gateway_group_id,
            resource_id: row.resource_id,
            resource_name: row.resource_name,
            error_message: row.error_message,
            http_request: HttpRequestView {
                method: row.method,
                uri: row.uri,
                user_agent: row.user_agent,
                body,
            },
            http_response: HttpResponseView { status_code: row.status },
            changes,
            position: row.position,
            hash: row.hash,
        }
    }
}

/// Whether the chain of the audit log holds.
#[derive(Serialize, ToSchema)]
pub(super) struct VerificationView {
    /// Whether every row is as it was written, in its place, and none is missing.
    holds: bool,
    /// How many rows are in order, up to the first one that is not.
    rows: i64,
    /// How many rows are older than the chain and covered by nothing.
    uncovered: i64,
    /// The last row that is in order, to be noted elsewhere: whoever writes the whole chain anew cannot write that.
    head: LinkView,
    /// Where the chain breaks, if it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    broken: Option<BrokenView>,
}

/// A place in the chain, and the hash of the row there.
#[derive(Serialize, ToSchema)]
pub(super) struct LinkView {
    position: i64,
    hash: String,
}

/// Where the chain breaks.
#[derive(Serialize, ToSchema)]
pub(super) struct BrokenView {
    /// The first row that is not in order; absent: it is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    row: Option<AuditLogView>,
    reason: String,
}

impl From<Verified> for VerificationView {
    fn from(verified: Verified) -> Self {
        let Verified { rows, uncovered, head, broken } = verified;
        let broken_view = |Broken { row, reason }| BrokenView { row: row.map(Into::into), reason };
        Self {
            holds: broken.is_none(),
            rows,
            uncovered,
            head: LinkView { position: head.position, hash: head.hash },
            broken: broken.map(broken_view),
        }
    }
}

/// A type of event.
#[derive(Serialize, ToSchema)]
pub(super) struct EventTypeView {
    key: String,
    name: String,
}

/// What the audit log can be filtered by.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code, reason = "documents what AuditQuery reads")]
pub(super) struct AuditParameters {
    /// A type of event, as `/api/audit_logs/event_types` lists them.
    event_type: Option<String>,
    /// The id of the user who did it.
    operator_id: Option<String>,
    /// The id of what was changed.
    resource_id: Option<String>,
    /// The gateway group in which it was changed.
    gateway_group_id: Option<String>,
    /// Not before, in unix seconds.
    start_at: Option<i64>,
    /// Not after, in unix seconds.
    end_at: Option<i64>,
    /// `desc` (the default) or `asc`, by time.
    direction: Option<String>,
    /// Which page, counted from 1.
    #[param(minimum = 1)]
    page: Option<i64>,
    /// Rows on a page; never more than 1000, whatever is asked for.
    #[param(minimum = 1)]
    page_size: Option<i64>,
}

/// The same, parsed.
pub(super) struct AuditQuery {
    filter: AuditFilter,
    page: Page,
    is_csv: bool,
}

impl<S: Send + Sync> FromRequestParts<S> for AuditQuery {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let pairs = Query::<Vec<(String, String)>>::from_request_parts(parts, state).await;
        let Query(pairs) = pairs.map_err(|rejection| Violations::one("", rejection.body_text()))?;
        let mut violations = Violations::default();
        let query = Self::parse(pairs, &mut violations);
        violations.into_result()?;
        Ok(query)
    }
}

impl AuditQuery {
    fn parse(pairs: Vec<(String, String)>, violations: &mut Violations) -> Self {
        let (mut filter, mut is_csv) = (AuditFilter::default(), false);
        let (mut number, mut size) = (1, PAGE_SIZE_MAX);
        for (name, value) in pairs {
            match name.as_str() {
                "event_type" => filter.event_type = value,
                "operator_id" => filter.operator_id = value,
                "resource_id" => filter.resource_id = value,
                "gateway_group_id" => filter.gateway_group_id = value,
                "start_at" => filter.start_at = seconds("/start_at", &value, violations),
                "end_at" => filter.end_at = seconds("/end_at", &value, violations),
                "direction" => filter.direction = direction(&value, violations),
                "page" => number = positive("/page", &value, violations).unwrap_or(1),
                "page_size" => size = positive("/page_size", &value, violations).unwrap_or(1),
                "format" => match value.as_str() {
                    "csv" => is_csv = true,
                    "json" => {}
                    _ => violations.add("/format", "value must be json or csv"),
                },
                _ => {}
            }
        }
        let limit = size.min(PAGE_SIZE_MAX);
        Self { filter, page: Page { offset: limit.saturating_mul(number - 1), limit }, is_csv }
    }
}

fn seconds(at: &str, value: &str, violations: &mut Violations) -> Option<i64> {
    let seconds = value.parse().ok();
    if seconds.is_none() {
        violations.add(at, "value must be an integer (unix seconds)");
    }
    seconds
}

/// Lists what was done and what was refused, the newest first.
#[utoipa::path(get, path = "/api/audit_logs", tag = "audit log", params(AuditParameters),
    responses((status = 200, body = Many<AuditLogView>), Refusals))]
pub(super) async fn audit_log_list(
    caller: Caller,
    State(app): State<App>,
    query: AuditQuery,
) -> ManyAnswer<AuditLogView> {
    Ok(many(app.audit_log_list(&caller, &query.filter, query.page).await?))
}

/// What is known of the chain besides.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct VerifyParameters {
    /// A head that was noted before, as `POSITION:HASH`: the row at this place must still be that one.
    #[param(pattern = r"^[0-9]{1,18}:[0-9A-Fa-f]{64}$")]
    known: Option<String>,
}

impl VerifyParameters {
    /// What comes last of a parameter that comes twice counts.
    fn of(pairs: Vec<(String, String)>) -> Self {
        let known = pairs.into_iter().rfind(|(name, _)| name == "known");
        Self { known: known.map(|(_, value)| value) }
    }

    fn link(&self) -> Result<Option<Link>, ApiError> {
        let Some(text) = &self.known else { return Ok(None) };
        let parsed = text.split_once(':').and_then(|(position, hash)| {
            let position = position.parse().ok().filter(|position| *position >= 0)?;
            Some(Link { position, hash: hash.to_ascii_lowercase() })
        });
        let wrong = || Violations::one("/known", "value must be a position and a hash, as POSITION:HASH");
        Ok(Some(parsed.ok_or_else(wrong)?))
    }
}

/// Checks the chain of the audit log: whether every row is as it was written, and where the first one is not (our
/// extension).
#[utoipa::path(get, path = "/api/audit_logs/verify", tag = "audit log", params(VerifyParameters),
    responses((status = 200, body = Single<VerificationView>), Refusals))]
pub(super) async fn audit_log_verify(
    caller: Caller,
    State(app): State<App>,
    Query(pairs): Query<Vec<(String, String)>>,
) -> SingleAnswer<VerificationView> {
    let known = VerifyParameters::of(pairs).link()?;
    Ok(single(app.audit_log_verify(&caller, known.as_ref()).await?.into()))
}

/// Lists the types of events.
#[utoipa::path(get, path = "/api/audit_logs/event_types", tag = "audit log",
    responses((status = 200, body = Many<EventTypeView>), Refusals))]
pub(super) async fn audit_log_event_type_list(
    caller: Caller,
    State(app): State<App>,
    Extension(operations): Extension<Operations>,
) -> ManyAnswer<EventTypeView> {
    app.audit_log_event_type_list(&caller)?;
    let types = operations.event_types().into_iter();
    let rows: Vec<_> = types.map(|(key, name)| EventTypeView { key, name }).collect();
    let total = i64::try_from(rows.len()).unwrap_or(i64::MAX);
    Ok(many(Listed { rows, total }))
}

/// Exports what was done and what was refused, all of it or what the filters leave, the newest first.
#[utoipa::path(get, path = "/api/audit_logs/export", tag = "audit log",
    params(AuditParameters, ("format" = Option<String>, Query, description = "`json` (the default) or `csv`")),
    responses((status = 200, content((Vec<AuditLogView> = "application/json"), (String = "text/csv")),
        description = "An array, or rows of comma-separated values"), Refusals))]
pub(super) async fn audit_log_export(
    caller: Caller,
    State(app): State<App>,
    query: AuditQuery,
) -> Result<Response, ApiError> {
    let AuditQuery { filter, is_csv, .. } = query;
    // Read before the answer begins, so that a refusal is still one.
    let first = app.audit_log_export(&caller, &filter, i64::MAX).await?;
    let written = if is_csv { csv_header()? } else { "[".to_owned() };
    let export = Export { app, caller, filter, is_csv, rows: Some(first), written, is_first: true };
    let body = Body::from_stream(stream::try_unfold(export, Export::next));
    let (content_type, name) = if is_csv { ("text/csv", "csv") } else { ("application/json", "json") };
    let headers: [(HeaderName, String); 2] = [
        (header::CONTENT_TYPE, content_type.to_owned()),
        (header::CONTENT_DISPOSITION, format!("attachment; filename=\"audit-log.{name}\"")),
    ];
    Ok((headers, body).into_response())
}

/// An export on its way: a few rows at a time, so that it costs little memory however long the log is.
struct Export {
    app: App,
    caller: Caller,
    filter: AuditFilter,
    is_csv: bool,
    /// What comes next; none: everything was sent.
    rows: Option<Vec<AuditRow>>,
    /// What is written but not sent.
    written: String,
    is_first: bool,
}

impl Export {
    async fn next(mut self) -> Result<Option<(String, Self)>, ApiError> {
        let Some(rows) = self.rows.take() else { return Ok(None) };
        let mut text = std::mem::take(&mut self.written);
        let Some(last) = rows.last().map(|row| row.number) else {
            if !self.is_csv {
                text.push_str("]\n");
            }
            return Ok(Some((text, self)));
        };
        for row in rows {
            if self.is_csv {
                text.push_str(&csv_row(&row)?);
                continue;
            }
            if !std::mem::take(&mut self.is_first) {
                text.push_str(",\n");
            }
            text.push_str(&serde_json::to_string(&AuditLogView::from(row)).map_err(unwritable)?);
        }
        self.rows = Some(self.app.audit_log_export(&self.caller, &self.filter, last).await?);
        Ok(Some((text, self)))
    }
}

fn unwritable(error: impl std::fmt::Display) -> ApiError {
    Refusal::Unavailable { reason: format!("an audit row cannot be written: {error}") }.into()
}

const CSV_COLUMNS: [&str; 18] = [
    "id",
    "event_time",
    "event_type",
    "operator_id",
    "operator_name",
    "source",
    "token_name",
    "ip_address",
    "gateway_group_id",
    "resource_id",
    "resource_name",
    "method",
    "uri",
    "status_code",
    "error_message",
    "changes",
    "position",
    "hash",
];

fn csv_header() -> Result<String, ApiError> {
    csv_line(CSV_COLUMNS.map(str::to_owned))
}

fn csv_row(row: &AuditRow) -> Result<String, ApiError> {
    let row = row.clone();
    csv_line([
        row.id,
        row.event_time.to_string(),
        row.event_type,
        row.operator_id,
        row.operator_name,
        row.source,
        row.token_name,
        row.ip_address,
        row.gateway_group_id,
        row.resource_id,
        row.resource_name,
        row.method,
        row.uri,
        row.status.to_string(),
        row.error_message,
        row.changes,
        row.position.to_string(),
        row.hash,
    ])
}

fn csv_line(fields: [String; CSV_COLUMNS.len()]) -> Result<String, ApiError> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(fields.map(inert)).map_err(unwritable)?;
    String::from_utf8(writer.into_inner().map_err(unwritable)?).map_err(unwritable)
}

/// A field that no spreadsheet takes for a formula: names are written by anybody who may write.
fn inert(field: String) -> String {
    let is_formula =
        field.trim_start().starts_with(['=', '+', '-', '@']) || field.starts_with(['\t', '\r', '\n']);
    if is_formula { format!("'{field}") } else { field }
}
