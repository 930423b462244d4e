//! SSL objects of a gateway group. Views have no private keys.

use gatewright_model::resource::ssl::{ClientVerification, Ssl, SslKind, TlsProtocol};
use gatewright_model::resource::{AsSent, Labels};
use serde::Serialize;
use utoipa::ToSchema;

use super::error::Refusals;
use super::group_call::{GroupCall, GroupParameter};
use super::group_object::{object_create, object_delete, object_get, object_list, object_put};
use super::request::{Json, ListParameters, ListQuery};
use super::{Many, ManyAnswer, Nothing, Single, SingleAnswer, TaggedAnswer};
use crate::app::{Object, validity};

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
    #[serde(skip_serializing_if = "AsSent::is_absent")]
    #[schema(value_type = Vec<String>, required = false)]
    certs: AsSent<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    client: Option<ClientVerification>,
    /// The versions of TLS that are spoken with clients; absent: every one the gateway knows.
    #[serde(skip_serializing_if = "AsSent::is_absent")]
    #[schema(value_type = Vec<TlsProtocol>, required = false)]
    ssl_protocols: AsSent<Vec<TlsProtocol>>,
    #[serde(skip_serializing_if = "AsSent::is_absent")]
    #[schema(value_type = Labels, required = false)]
    labels: AsSent<Labels>,
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
        let validity = validity(object.content.certificates().map(|(_, pem)| pem));
        let ssl = object.content;
        Self {
            id: object.id,
            kind: ssl.kind,
            snis: ssl.snis,
            cert: ssl.cert,
            certs: ssl.certs,
            client: ssl.client,
            ssl_protocols: ssl.ssl_protocols,
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
pub(super) async fn ssl_list(call: GroupCall, query: ListQuery) -> ManyAnswer<SslView> {
    object_list::<Ssl>(call, query).await
}

/// Creates an SSL object.
#[utoipa::path(post, path = "/apisix/admin/ssls", tag = "certificate",
    params(GroupParameter),
    request_body = Ssl,
    responses((status = 200, body = Single<SslView>), Refusals))]
pub(super) async fn ssl_create(call: GroupCall, Json(body): Json) -> TaggedAnswer<SslView> {
    object_create::<Ssl>(call, body).await
}

/// Shows an SSL object.
#[utoipa::path(get, path = "/apisix/admin/ssls/{ssl_id}", tag = "certificate",
    params(("ssl_id" = String, Path), GroupParameter),
    responses((status = 200, body = Single<SslView>), Refusals))]
pub(super) async fn ssl_get(call: GroupCall) -> TaggedAnswer<SslView> {
    object_get::<Ssl>(call).await
}

/// Creates an SSL object under an id of the caller's choice, or replaces it whole.
#[utoipa::path(put, path = "/apisix/admin/ssls/{ssl_id}", tag = "certificate",
    params(("ssl_id" = String, Path), GroupParameter),
    request_body = Ssl,
    responses((status = 200, body = Single<SslView>), Refusals))]
pub(super) async fn ssl_put(call: GroupCall, Json(body): Json) -> TaggedAnswer<SslView> {
    object_put::<Ssl>(call, body).await
}

/// Deletes an SSL object.
#[utoipa::path(delete, path = "/apisix/admin/ssls/{ssl_id}", tag = "certificate",
    params(("ssl_id" = String, Path), GroupParameter),
    responses((status = 200, body = Single<Nothing>), Refusals))]
pub(super) async fn ssl_delete(call: GroupCall) -> SingleAnswer<Nothing> {
    object_delete::<Ssl>(call).await
}
