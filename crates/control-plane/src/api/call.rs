//! What every call that may change something has in common: dry runs, other sites' pages, and the audit log.
//!
//! The types of events are the ids of the operations, so that a new operation is recorded without another line.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{MatchedPath, RawPathParams, Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use gatewright_model::validation::Violations;
use utoipa::openapi::OpenApi;
use utoipa::openapi::path::{Operation, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::{ObjectBuilder, Type};

use super::error::{ApiError, ErrorMessage};
use super::request::Peer;
use crate::app::{App, NAME_BYTES_MAX, cut};
use crate::mask::{mask_uri, scrub};
use crate::store::{AuditRow, Call};

/// Bytes of an address with its query that the audit log keeps.
const URI_BYTES_MAX: usize = 4096;

/// What the ids of operations end in at the path they had before; they are the same operations.
pub(super) const FORMER: &str = "_former";

/// The operations that may change something.
#[derive(Clone)]
pub(super) struct Operations(Arc<BTreeMap<(String, String), Event>>);

/// What the audit log calls an operation.
struct Event {
    key: String,
    name: String,
}

impl Operations {
    pub(super) fn of(openapi: &OpenApi) -> Self {
        let mut events = BTreeMap::new();
        for (path, item) in &openapi.paths.paths {
            let writes =
                [("POST", &item.post), ("PUT", &item.put), ("PATCH", &item.patch), ("DELETE", &item.delete)];
            for (method, operation) in writes {
                if let Some(event) = operation.as_ref().and_then(event) {
                    events.insert((method.to_owned(), path.clone()), event);
                }
            }
        }
        Self(Arc::new(events))
    }

    /// Key and name of every type of event.
    pub(super) fn event_types(&self) -> BTreeMap<String, String> {
        self.0.values().map(|event| (event.key.clone(), event.name.clone())).collect()
    }

    fn find(&self, method: &Method, path: &str) -> Option<&Event> {
        self.0.get(&(method.to_string(), path.to_owned()))
    }
}

/// None: the operation only looks, although it takes a body.
fn event(operation: &Operation) -> Option<Event> {
    let id = operation.operation_id.as_deref()?;
    let key = id.strip_suffix(FORMER).unwrap_or(id).to_owned();
    let name = operation.summary.clone().unwrap_or_default().trim_end_matches('.').to_owned();
    let looking = ["explain", "_validate", "_check", "_diff", "_convert", "service_export", "_preview"];
    let only_looks = looking.iter().any(|end| key.ends_with(end));
    (!only_looks).then_some(Event { key, name })
}

/// Says in the document that every change can be tried first.
pub(super) fn dry_run_document(openapi: &mut OpenApi) {
    let parameter = ParameterBuilder::new()
        .name("dry-run")
        .parameter_in(ParameterIn::Query)
        .description(Some("`all`: the same checks and the same answer, and nothing is stored."))
        .schema(Some(ObjectBuilder::new().schema_type(Type::String).enum_values(Some(["all"]))))
        .build();
    for item in openapi.paths.paths.values_mut() {
        let writes = [&mut item.post, &mut item.put, &mut item.patch, &mut item.delete];
        for operation in writes.into_iter().flatten().filter(|operation| event(operation).is_some()) {
            operation.parameters.get_or_insert_default().push(parameter.clone().into());
        }
    }
}

/// Serves a call that may change something, and sees to its audit row; others pass.
pub(super) async fn call_serve(
    State((app, operations)): State<(App, Operations)>,
    matched: Option<MatchedPath>,
    ids: RawPathParams,
    request: Request,
    next: Next,
) -> Response {
    let path = matched.as_ref().map_or("", MatchedPath::as_str);
    let Some(event) = operations.find(request.method(), path) else { return next.run(request).await };
    let address = Peer::of(request.extensions()).address.to_string();
    let row = AuditRow { event_type: event.key.clone(), ip_address: address.clone(), ..app.audit_log_row() };
    let dry_run = is_dry_run(&request);
    let condition = request.headers().get(header::IF_MATCH);
    // What is not text is no tag of ours.
    let condition = condition.map(|tags| tags.to_str().unwrap_or_default().to_owned());
    let call = Call::new(described(row, &request, &ids), matches!(dry_run, Ok(true)), condition);
    let mut response = match dry_run.and_then(|_| must_be_same_site(request.headers())) {
        Ok(()) => call.scope(next.run(request)).await,
        Err(error) => error.into_response(),
    };
    let message = response.extensions_mut().remove::<ErrorMessage>();
    let status = response.status();
    let is_known = status != StatusCode::UNAUTHORIZED;
    // Trying is no change; trying doors is worth a row all the same.
    let is_worth_a_row = !call.is_dry_run() || !is_known || status == StatusCode::FORBIDDEN;
    if !call.is_recorded() && is_worth_a_row {
        let message = message.map_or_else(String::new, |message| scrub(&call.secrets(), &message.0));
        call.complete(|row| {
            row.status = i64::from(status.as_u16());
            row.error_message = cut(&message, URI_BYTES_MAX);
        });
        app.audit_log_record(&call, &address, is_known).await;
    }
    response
}

/// `row` with what the head of the request says.
fn described(mut row: AuditRow, request: &Request, ids: &RawPathParams) -> AuditRow {
    row.method = request.method().to_string();
    row.uri = cut(&mask_uri(request.uri().path(), request.uri().query()), URI_BYTES_MAX);
    let user_agent = request.headers().get(header::USER_AGENT).and_then(|value| value.to_str().ok());
    row.user_agent = cut(user_agent.unwrap_or_default(), NAME_BYTES_MAX);
    for (name, value) in ids {
        // The last id of a path is the object; a group before it is where.
        row.resource_id = cut(value, NAME_BYTES_MAX);
        if name == "gateway_group_id" {
            row.gateway_group_id = cut(value, NAME_BYTES_MAX);
        }
    }
    if let Some(group) = parameter(request, "gateway_group_id") {
        row.gateway_group_id = cut(&group, NAME_BYTES_MAX);
    }
    row
}

fn parameter(request: &Request, name: &str) -> Option<String> {
    let query = axum::extract::Query::<Vec<(String, String)>>::try_from_uri(request.uri()).ok()?;
    query.0.into_iter().find(|(key, _)| key == name).map(|(_, value)| value)
}

/// A misspelt dry run must not become a change.
fn is_dry_run(request: &Request) -> Result<bool, ApiError> {
    match parameter(request, "dry-run").as_deref() {
        None => Ok(false),
        Some("all") => Ok(true),
        Some(_) => Err(Violations::one("/dry-run", "value must be all").into()),
    }
}

/// Browsers say whose page a call comes from; ours are served from the same origin, and nobody else's may write.
fn must_be_same_site(headers: &HeaderMap) -> Result<(), ApiError> {
    match headers.get("sec-fetch-site").map(|value| value.as_bytes()) {
        Some(b"cross-site" | b"same-site") => Err(ApiError::CrossSite),
        _ => Ok(()),
    }
}
