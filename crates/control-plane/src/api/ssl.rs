//! SSL objects of a gateway group. Views have no private keys.

use axum::extract::State;
use gatewright_model::id::ObjectId;
use gatewright_model::resource::Labels;
use gatewright_model::resource::ssl::{ClientVerification, Ssl, SslKind};
use serde::Serialize;
use utoipa::ToSchema;

use super::error::Refusals;
use super::request::{Ids, Json, ListParameters, ListQuery};
use super::target_group::{GroupParameter, TargetGroup};
use super::{Many, ManyAnswer, Nothing, Single, SingleAnswer, many, single, warned};
use crate::app::group_document::parse_with_id;
use crate::app::{App, Caller, Object, Shelf, validity};

/// An SSL object, without its private keys.
#[derive(Serialize, ToSchema)]
pub(super) struct SslView {
    id: String,
    #[serde(rename = "type")]
    kind: SslKind,
    /// As they were sent.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    snis: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    cert: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    certs: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    client: Option<ClientVerification>,
    #[serde(skip_serializing_if = "Labels::is_empty")]
    #[schema(required = false)]
    labels: Labels,
    /// Whether the object is used: 1 yes, 0 no.
    status: u8,
    /// From when on the certificates are valid.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    validity_start: Option<i64>,
    /// Until when the certificates are valid.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    validity_end: Option<i64>,
    /// The same as `validity_end`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    exptime: Option<i64>,
    created_at: i64,
    updated_at: i64,
}

impl From<Object<Ssl>> for SslView {
    fn from(object: Object<Ssl>) -> Self {
        let validity = validity(&object.content);
        let ssl = object.content;
        Self {
            id: object.id,
            kind: ssl.kind,
            snis: ssl.snis,
            cert: ssl.cert,
            certs: ssl.certs,
            client: ssl.client,
            labels: ssl.labels,
            status: ssl.status.into(),
            validity_start: validity.map(|validity| validity.start),
            validity_end: validity.map(|validity| validity.end),
            exptime: validity.map(|validity| validity.end),
            created_at: object.created_at,
            updated_at: object.updated_at,
        }
    }
}

/// Lists the SSL objects of a gateway group.
#[utoipa::path(get, path = "/apisix/admin/ssls", tag = "certificate",
    params(GroupParameter, ListParameters),
    responses((status = 200, body = Many<SslView>), Refusals))]
pub(super) async fn ssl_list(
    caller: Caller,
    State(app): State<App>,
    TargetGroup(group): TargetGroup,
    query: ListQuery,
) -> ManyAnswer<SslView> {
    let shelf = Shelf { group: &group, owner: "" };
    let query = query.must_order_by(None)?;
    Ok(many(app.object_list::<Ssl>(&caller, shelf, &query.filter).await?))
}

/// Creates an SSL object.
#[utoipa::path(post, path = "/apisix/admin/ssls", tag = "certificate",
    params(GroupParameter),
    request_body = Ssl,
    responses((status = 200, body = Single<SslView>), Refusals))]
pub(super) async fn ssl_create(
    caller: Caller,
    State(app): State<App>,
    TargetGroup(group): TargetGroup,
    Json(body): Json,
) -> SingleAnswer<SslView> {
    let shelf = Shelf { group: &group, owner: "" };
    let (row, warnings) = app.object_create(&caller, shelf, parse_with_id::<Ssl, ObjectId>(body)?).await?;
    Ok(warned(row.into(), &warnings))
}

/// Shows an SSL object.
#[utoipa::path(get, path = "/apisix/admin/ssls/{ssl_id}", tag = "certificate",
    params(("ssl_id" = String, Path), GroupParameter),
    responses((status = 200, body = Single<SslView>), Refusals))]
pub(super) async fn ssl_get(
    caller: Caller,
    State(app): State<App>,
    TargetGroup(group): TargetGroup,
    ids: Ids,
) -> SingleAnswer<SslView> {
    let shelf = Shelf { group: &group, owner: "" };
    Ok(single(app.object_get::<Ssl>(&caller, shelf, &ids.id::<ObjectId>("ssl_id")?).await?.into()))
}

/// Creates an SSL object under an id of the caller's choice, or replaces it whole.
#[utoipa::path(put, path = "/apisix/admin/ssls/{ssl_id}", tag = "certificate",
    params(("ssl_id" = String, Path), GroupParameter),
    request_body = Ssl,
    responses((status = 200, body = Single<SslView>), Refusals))]
pub(super) async fn ssl_put(
    caller: Caller,
    State(app): State<App>,
    TargetGroup(group): TargetGroup,
    ids: Ids,
    Json(body): Json,
) -> SingleAnswer<SslView> {
    let shelf = Shelf { group: &group, owner: "" };
    let document = parse_with_id::<Ssl, ObjectId>(body)?;
    let (row, warnings) = app.object_put(&caller, shelf, &ids.id::<ObjectId>("ssl_id")?, document).await?;
    Ok(warned(row.into(), &warnings))
}

/// Deletes an SSL object.
#[utoipa::path(delete, path = "/apisix/admin/ssls/{ssl_id}", tag = "certificate",
    params(("ssl_id" = String, Path), GroupParameter),
    responses((status = 200, body = Single<Nothing>), Refusals))]
pub(super) async fn ssl_delete(
    caller: Caller,
    State(app): State<App>,
    TargetGroup(group): TargetGroup,
    ids: Ids,
) -> SingleAnswer<Nothing> {
    let shelf = Shelf { group: &group, owner: "" };
    app.object_delete::<Ssl>(&caller, shelf, &ids.id::<ObjectId>("ssl_id")?).await?;
    Ok(single(Nothing {}))
}
