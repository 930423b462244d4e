//! The admin API over HTTP: who calls, what they send, what they are answered; the rules are in `app`.
//!
//! One file per noun. [`router`] lists every operation on one page; [`error`] alone knows status codes; views are
//! structs written out field by field, so that nothing stored becomes public by accident.
//! A good addition is a handler of three lines: the call into `app`, and the view of what came back.

mod call;
mod error;
mod group_call;
mod parameters;
mod request;
mod router;
mod strict_json;

mod access_token;
mod audit_log;
mod canary;
mod conflict_check;
mod core_usage;
mod explain;
mod gateway_group;
mod instance;
mod instance_certificate;
mod instance_token;
mod license;
mod openapi;
mod preview;
mod published_service;
mod release_set;
mod role;
mod rollout;
mod route_template;
mod runtime_configuration;
mod service_diff;
mod service_publish;
mod service_registry;
mod service_template;
mod service_version;
mod session;
mod stream_route_template;
mod user;
mod variable;
mod version;

mod metrics;

mod group_route;
mod group_service;
mod route_noun;
mod service_upstream;
mod stream_route;

mod group_object;

mod ca_certificate;
mod certificate;
mod consumer;
mod credential;
mod global_rule;
mod plugin_metadata;
mod proto;
mod secret_provider;
mod sni;
mod ssl;

mod label;
mod plugin;
mod schema;
mod validate;

use axum::Json;
use axum::http::{HeaderName, header};
use serde::Serialize;
use utoipa::ToSchema;

pub(crate) use request::Peer;
pub(crate) use router::{admin_router, document};

use crate::app::Warnings;
use crate::store::{Listed, entity_tag};
use error::ApiError;

/// The answer about one object.
#[derive(Serialize, ToSchema)]
pub(crate) struct Single<T> {
    /// The object.
    value: T,
    /// What the caller should know although the call succeeded, such as fields that were ignored.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    warning_msg: Option<String>,
}

/// The answer about several objects.
#[derive(Serialize, ToSchema)]
pub(crate) struct Many<T> {
    /// The objects, or one page of them.
    list: Vec<T>,
    /// How many there are on all pages.
    total: i64,
}

/// The answer where nothing is left to show.
#[derive(Serialize, ToSchema)]
pub(crate) struct Nothing {}

type SingleAnswer<T> = Result<Json<Single<T>>, ApiError>;
type ManyAnswer<T> = Result<Json<Many<T>>, ApiError>;

/// One object with the tag of its state, for `If-Match`.
type TaggedAnswer<T> = Result<([(HeaderName, String); 1], Json<Single<T>>), ApiError>;

/// `answer`, with the tag of an object whose last change has this number.
fn tagged<T>(change_number: i64, answer: Json<Single<T>>) -> TaggedAnswer<T> {
    Ok(([(header::ETAG, entity_tag(change_number))], answer))
}

fn single<T>(value: T) -> Json<Single<T>> {
    Json(Single { value, warning_msg: None })
}

fn warned<T>(value: T, warnings: &Warnings) -> Json<Single<T>> {
    Json(Single { value, warning_msg: warnings.message() })
}

/// Everything there is, on one page.
fn listed<R, T: From<R>>(rows: Vec<R>) -> Json<Many<T>> {
    let total = i64::try_from(rows.len()).unwrap_or(i64::MAX);
    many(Listed { rows, total })
}

fn many<R, T: From<R>>(listed: Listed<R>) -> Json<Many<T>> {
    let Listed { rows, total } = listed.map(T::from);
    Json(Many { list: rows, total })
}
