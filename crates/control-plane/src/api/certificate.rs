//! Certificates of a gateway group. Views have no private keys.

use gatewright_model::resource::certificate::Certificate;
use gatewright_model::resource::{AsSent, Labels};
use serde::Serialize;
use utoipa::ToSchema;

use super::error::Refusals;
use super::group_call::{GroupCall, GroupParameter};
use super::group_object::{object_create, object_delete, object_get, object_list, object_patch, object_put};
use super::request::{Json, ListParameters, ListQuery};
use super::{Many, ManyAnswer, Nothing, Single, SingleAnswer, TaggedAnswer};
use crate::app::{Object, validity};

/// A certificate, without its private key.
#[derive(Serialize, ToSchema)]
pub(super) struct CertificateView {
    id: String,
    name: String,
    #[serde(skip_serializing_if = "AsSent::is_absent")]
    #[schema(value_type = String, required = false)]
    desc: AsSent<String>,
    #[serde(skip_serializing_if = "AsSent::is_absent")]
    #[schema(value_type = Labels, required = false)]
    labels: AsSent<Labels>,
    cert: String,
    /// From when on it is valid.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    validity_start: Option<i64>,
    /// Until when it is valid.
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

impl From<Object<Certificate>> for CertificateView {
    fn from(object: Object<Certificate>) -> Self {
        let validity = validity(std::iter::once(object.content.cert.as_str()));
        let content = object.content;
        Self {
            id: object.id,
            name: content.name,
            desc: content.desc,
            labels: content.labels,
            cert: content.cert,
            validity_start: validity.map(|validity| validity.start),
            validity_end: validity.map(|validity| validity.end),
            exptime: validity.map(|validity| validity.end),
            created_at: object.created_at,
            updated_at: object.updated_at,
        }
    }
}

/// Lists the certificates of a gateway group.
#[utoipa::path(get, path = "/apisix/admin/certificates", tag = "certificate",
    params(GroupParameter, ListParameters),
    responses((status = 200, body = Many<CertificateView>), Refusals))]
pub(super) async fn certificate_list(call: GroupCall, query: ListQuery) -> ManyAnswer<CertificateView> {
    object_list::<Certificate>(call, query).await
}

/// Creates a certificate.
#[utoipa::path(post, path = "/apisix/admin/certificates", tag = "certificate",
    params(GroupParameter),
    request_body = Certificate,
    responses((status = 200, body = Single<CertificateView>), Refusals))]
pub(super) async fn certificate_create(call: GroupCall, Json(body): Json) -> TaggedAnswer<CertificateView> {
    object_create::<Certificate>(call, body).await
}

/// Shows a certificate.
#[utoipa::path(get, path = "/apisix/admin/certificates/{certificate_id}", tag = "certificate",
    params(("certificate_id" = String, Path), GroupParameter),
    responses((status = 200, body = Single<CertificateView>), Refusals))]
pub(super) async fn certificate_get(call: GroupCall) -> TaggedAnswer<CertificateView> {
    object_get::<Certificate>(call).await
}

/// Creates a certificate under an id of the caller's choice, or replaces it whole.
#[utoipa::path(put, path = "/apisix/admin/certificates/{certificate_id}", tag = "certificate",
    params(("certificate_id" = String, Path), GroupParameter),
    request_body = Certificate,
    responses((status = 200, body = Single<CertificateView>), Refusals))]
pub(super) async fn certificate_put(call: GroupCall, Json(body): Json) -> TaggedAnswer<CertificateView> {
    object_put::<Certificate>(call, body).await
}

/// Changes a certificate by a merge object (RFC 7386) or a JSON patch (RFC 6902).
#[utoipa::path(patch, path = "/apisix/admin/certificates/{certificate_id}", tag = "certificate",
    params(("certificate_id" = String, Path), GroupParameter),
    request_body = serde_json::Value,
    responses((status = 200, body = Single<CertificateView>), Refusals))]
pub(super) async fn certificate_patch(call: GroupCall, Json(body): Json) -> TaggedAnswer<CertificateView> {
    object_patch::<Certificate>(call, body).await
}

/// Deletes a certificate that no SNI uses.
#[utoipa::path(delete, path = "/apisix/admin/certificates/{certificate_id}", tag = "certificate",
    params(("certificate_id" = String, Path), GroupParameter),
    responses((status = 200, body = Single<Nothing>), Refusals))]
pub(super) async fn certificate_delete(call: GroupCall) -> SingleAnswer<Nothing> {
    object_delete::<Certificate>(call).await
}
