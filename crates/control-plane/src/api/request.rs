//! What callers send: credentials, ids in paths, lists' parameters, and bodies within limits.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::{Extensions, HeaderMap, header, request::Parts};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use gatewright_model::limits;
use gatewright_model::validation::Violations;
use serde_json::Value;
use utoipa::IntoParams;

use super::error::ApiError;
use super::strict_json::Strict;
use crate::app::{App, Caller, Credentials, Digest, Refusal, audit_log_note_body, json_depth};
use crate::store::{Direction, ListFilter, Order, Page};

/// Bytes of one body: clients write documents of hundreds of kilobytes, and nothing legitimate is larger than this.
pub(super) const BODY_BYTES_MAX: usize = 4 << 20;

/// How long one body may take to arrive: slow writers hold no memory for ever.
pub(super) const BODY_READ_TIMEOUT: Duration = Duration::from_secs(60);

/// Objects on a page for which no size was asked.
const PAGE_SIZE_DEFAULT: i64 = 20;

const TOKEN_HEADER: &str = "x-api-key";
const TOKEN_COOKIE: &str = "X-API-KEY";

/// The cookie of a session.
pub(super) const SESSION_COOKIE: &str = "gatewright_session";

/// Where a call came from, as its connection says; never a header, which anybody can write.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) address: IpAddr,
    pub(crate) is_tls: bool,
    /// The digest of the certificate it has shown, if it has.
    pub(crate) certificate: Option<Digest>,
}

impl Peer {
    pub(super) fn of(extensions: &Extensions) -> Self {
        let unknown = Self { address: IpAddr::V4(Ipv4Addr::UNSPECIFIED), is_tls: false, certificate: None };
        extensions.get().cloned().unwrap_or(unknown)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Peer {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        Ok(Self::of(&parts.extensions))
    }
}

impl FromRequestParts<App> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let credentials = credentials(&parts.headers).ok_or(Refusal::Unauthenticated)?;
        Ok(app.caller_identify(credentials, Peer::of(&parts.extensions).address).await?)
    }
}

/// The first credentials that are there decide: header, then cookies, then HTTP Basic.
fn credentials(headers: &HeaderMap) -> Option<Credentials> {
    if let Some(token) = headers.get(TOKEN_HEADER) {
        return Some(Credentials::Token(token.to_str().ok()?.to_owned()));
    }
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    for (name, value) in
        cookies.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='))
    {
        match name {
            TOKEN_COOKIE => return Some(Credentials::Token(value.to_owned())),
            SESSION_COOKIE => return Some(Credentials::Session(value.to_owned())),
            _ => {}
        }
    }
    let (scheme, encoded) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (username, password) = decoded.split_once(':')?;
    Some(Credentials::Password { username: username.to_owned(), password: password.to_owned() })
}

/// A JSON body within our limits.
pub(super) struct Json(pub(super) Value);

impl FromRequest<App> for Json {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &App) -> Result<Self, ApiError> {
        Ok(Self(json(&read(request.into_body()).await?)?))
    }
}

/// A JSON body within our limits, where none need be sent; `null` says nothing either.
pub(super) struct OptionalJson(pub(super) Option<Value>);

impl FromRequest<App> for OptionalJson {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &App) -> Result<Self, ApiError> {
        let bytes = read(request.into_body()).await?;
        let is_empty = bytes.iter().all(u8::is_ascii_whitespace);
        let body = if is_empty { Value::Null } else { json(&bytes)? };
        Ok(Self(Some(body).filter(|body| !body.is_null())))
    }
}

fn json(bytes: &[u8]) -> Result<Value, ApiError> {
    let Strict(value) = serde_json::from_slice(bytes).map_err(ApiError::NotJson)?;
    if json_depth(&value) > limits::JSON_DEPTH_MAX {
        return Err(ApiError::TooDeep);
    }
    audit_log_note_body(&value);
    Ok(value)
}

async fn read(body: Body) -> Result<bytes::Bytes, ApiError> {
    use http_body_util::{BodyExt as _, LengthLimitError, Limited};
    let reading = Limited::new(body, BODY_BYTES_MAX).collect();
    match tokio::time::timeout(BODY_READ_TIMEOUT, reading).await.map_err(|_| ApiError::TooSlow)? {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(ApiError::TooLarge),
        Err(error) => Err(ApiError::BodyBrokeOff(error.to_string())),
    }
}

/// The longest idempotency key.
const IDEMPOTENCY_KEY_BYTES_MAX: usize = 255;

/// The key under which a call that is sent again is one with the first.
pub(super) struct IdempotencyKey(pub(super) Option<String>);

impl<S: Send + Sync> FromRequestParts<S> for IdempotencyKey {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let Some(key) = parts.headers.get("idempotency-key") else { return Ok(Self(None)) };
        let is_usable = |key: &&str| !key.is_empty() && key.len() <= IDEMPOTENCY_KEY_BYTES_MAX;
        match key.to_str().ok().filter(is_usable) {
            Some(key) => Ok(Self(Some(key.to_owned()))),
            None => {
                let message = format!("value must be 1 to {IDEMPOTENCY_KEY_BYTES_MAX} characters of ASCII");
                Err(Violations::one("/Idempotency-Key", message).into())
            }
        }
    }
}

/// The ids in a path, by the names the path gives them.
pub(super) struct Ids(HashMap<String, String>);

impl<S: Send + Sync> FromRequestParts<S> for Ids {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let path = Path::<HashMap<String, String>>::from_request_parts(parts, state).await;
        path.map(|Path(ids)| Self(ids)).map_err(|_| Violations::one("", "the path is not UTF-8").into())
    }
}

impl Ids {
    /// The text that the path calls `name`, for ids that only we make.
    pub(super) fn text(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }

    /// The id that the path calls `name`.
    pub(super) fn id<I: TryFrom<String, Error: std::fmt::Display>>(&self, name: &str) -> Result<I, ApiError> {
        let text = self.0.get(name).cloned().unwrap_or_default();
        I::try_from(text).map_err(|error| Violations::one(format!("/{name}"), error.to_string()).into())
    }
}

/// The parameters every list has.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code, reason = "documents what ListQuery reads")]
pub(super) struct ListParameters {
    /// Which page, counted from 1; without page and page_size everything is listed.
    #[param(minimum = 1)]
    page: Option<i64>,
    /// Objects on a page.
    #[param(minimum = 1)]
    page_size: Option<i64>,
    /// A part of the name, in any case.
    search: Option<String>,
    /// The exact name.
    name: Option<String>,
    /// What to order by: `updated_at` (the default), `created_at` or `name`; published services also
    /// `publish_time`, service templates also `last_published`, service registries also `last_connect_time`.
    order_by: Option<String>,
    /// `desc` (the default) or `asc`.
    direction: Option<String>,
    /// Labels that must all be there, as `labels[key]=value`.
    #[param(style = DeepObject, explode, value_type = std::collections::BTreeMap<String, String>, required = false)]
    labels: Option<String>,
}

/// A list's parameters, parsed.
#[derive(Debug)]
pub(super) struct ListQuery {
    pub(super) filter: ListFilter,
    pub(super) service_id: Option<gatewright_model::id::ServiceId>,
}

impl<S: Send + Sync> FromRequestParts<S> for ListQuery {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let pairs = Query::<Vec<(String, String)>>::from_request_parts(parts, state).await;
        let Query(pairs) = pairs.map_err(|rejection| Violations::one("", rejection.body_text()))?;
        let mut violations = Violations::default();
        let query = Self::parse(&pairs, &mut violations);
        violations.into_result()?;
        Ok(query)
    }
}

impl ListQuery {
    /// Orders that only some lists have.
    pub(super) fn must_order_by(self, special: Option<Order>) -> Result<Self, ApiError> {
        match self.filter.order {
            Order::CreatedAt | Order::UpdatedAt | Order::Name => Ok(self),
            other if Some(other) == special => Ok(self),
            _ => Err(Violations::one("/order_by", "this list cannot be ordered by that").into()),
        }
    }

    fn parse(pairs: &[(String, String)], violations: &mut Violations) -> Self {
        let mut query = Self { filter: ListFilter::default(), service_id: None };
        let (mut page, mut page_size) = (None, None);
        for (name, value) in pairs {
            match name.as_str() {
                "page" => page = positive("/page", value, violations),
                "page_size" => page_size = positive("/page_size", value, violations),
                "search" if !value.is_empty() => query.filter.search = Some(value.clone()),
                "name" if !value.is_empty() => query.filter.name = Some(value.clone()),
                "order_by" => query.filter.order = order(value, violations),
                "direction" => query.filter.direction = direction(value, violations),
                "service_id" => match value.parse() {
                    Ok(id) => query.service_id = Some(id),
                    Err(error) => violations.add("/service_id", format!("{error}")),
                },
                // Clients send parameters of other releases; what is unknown filters nothing.
                _ => {
                    let key = name.strip_prefix("labels[").and_then(|rest| rest.strip_suffix(']'));
                    query.filter.labels.extend(key.map(|key| (key.to_owned(), value.clone())));
                }
            }
        }
        if page.is_some() || page_size.is_some() {
            let limit = page_size.unwrap_or(PAGE_SIZE_DEFAULT);
            let offset = limit.saturating_mul(page.unwrap_or(1) - 1);
            query.filter.page = Some(Page { offset, limit });
        }
        query
    }
}

pub(super) fn positive(at: &str, value: &str, violations: &mut Violations) -> Option<i64> {
    let number = value.parse().ok().filter(|number: &i64| *number >= 1);
    if number.is_none() {
        violations.add(at, "value must be an integer of at least 1");
    }
    number
}

fn order(value: &str, violations: &mut Violations) -> Order {
    match value {
        "created_at" => Order::CreatedAt,
        "updated_at" | "" => Order::UpdatedAt,
        "name" => Order::Name,
        "publish_time" => Order::PublishTime,
        "last_published" => Order::LastPublished,
        "connect_time" | "last_connect_time" => Order::ConnectTime,
        _ => {
            violations.add(
                "/order_by",
                "value is none of created_at, updated_at, name, publish_time, last_published, last_connect_time",
            );
            Order::default()
        }
    }
}

pub(super) fn direction(value: &str, violations: &mut Violations) -> Direction {
    if value.is_empty() || value.eq_ignore_ascii_case("desc") {
        return Direction::Descending;
    }
    if !value.eq_ignore_ascii_case("asc") {
        violations.add("/direction", "value must be asc or desc");
    }
    Direction::Ascending
}

/// The parameter of histories, which are read by [`ListQuery`] too.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code, reason = "documents what ListQuery reads")]
pub(super) struct HistoryParameters {
    /// `desc` (the default) or `asc`, by publish time.
    direction: Option<String>,
}
