//! CA certificates of a gateway group.

use gatewright_model::resource::certificate::CaCertificate;
use gatewright_model::resource::{AsSent, Labels};
use serde::Serialize;
use utoipa::ToSchema;

use super::error::Refusals;
use super::group_call::{GroupCall, GroupParameter};
use super::group_object::{object_create, object_delete, object_get, object_list, object_patch, object_put};
use super::request::{Json, ListParameters, ListQuery};
use super::{Many, ManyAnswer, Nothing, Single, SingleAnswer, TaggedAnswer};
use crate::app::{Object, validity};

/// Authorities that certificates of clients must come from.
#[derive(Serialize, ToSchema)]
pub(super) struct CaCertificateView {
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

impl From<Object<CaCertificate>> for CaCertificateView {
    fn from(object: Object<CaCertificate>) -> Self {
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

/// Lists the CA certificates of a gateway group.
#[utoipa::path(get, path = "/apisix/admin/ca_certificates", tag = "certificate",
    params(GroupParameter, ListParameters),
    responses((status = 200, body = Many<CaCertificateView>), Refusals))]
pub(super) async fn ca_certificate_list(call: GroupCall, query: ListQuery) -> ManyAnswer<CaCertificateView> {
    object_list::<CaCertificate>(call, query).await
}

/// Creates a CA certificate.
#[utoipa::path(post, path = "/apisix/admin/ca_certificates", tag = "certificate",
    params(GroupParameter),
    request_body = CaCertificate,
    responses((status = 200, body = Single<CaCertificateView>), Refusals))]
pub(super) async fn ca_certificate_create(
    call: GroupCall,
    Json(body): Json,
) -> TaggedAnswer<CaCertificateView> {
    object_create::<CaCertificate>(call, body).await
}

/// Shows a CA certificate.
#[utoipa::path(get, path = "/apisix/admin/ca_certificates/{ca_certificate_id}", tag = "certificate",
    params(("ca_certificate_id" = String, Path), GroupParameter),
    responses((status = 200, body = Single<CaCertificateView>), Refusals))]
pub(super) async fn ca_certificate_get(call: GroupCall) -> TaggedAnswer<CaCertificateView> {
    object_get::<CaCertificate>(call).await
}

/// Creates a CA certificate under an id of the caller's choice, or replaces it whole.
#[utoipa::path(put, path = "/apisix/admin/ca_certificates/{ca_certificate_id}", tag = "certificate",
    params(("ca_certificate_id" = String, Path), GroupParameter),
    request_body = CaCertificate,
    responses((status = 200, body = Single<CaCertificateView>), Refusals))]
pub(super) async fn ca_certificate_put(call: GroupCall, Json(body): Json) -> TaggedAnswer<CaCertificateView> {
    object_put::<CaCertificate>(call, body).await
}

/// Changes a CA certificate by a merge object (RFC 7386) or a JSON patch (RFC 6902).
#[utoipa::path(patch, path = "/apisix/admin/ca_certificates/{ca_certificate_id}", tag = "certificate",
    params(("ca_certificate_id" = String, Path), GroupParameter),
    request_body = serde_json::Value,
    responses((status = 200, body = Single<CaCertificateView>), Refusals))]
pub(super) async fn ca_certificate_patch(
    call: GroupCall,
    Json(body): Json,
) -> TaggedAnswer<CaCertificateView> {
    object_patch::<CaCertificate>(call, body).await
}

/// Deletes a CA certificate that no SNI uses.
#[utoipa::path(delete, path = "/apisix/admin/ca_certificates/{ca_certificate_id}", tag = "certificate",
    params(("ca_certificate_id" = String, Path), GroupParameter),
    responses((status = 200, body = Single<Nothing>), Refusals))]
pub(super) async fn ca_certificate_delete(call: GroupCall) -> SingleAnswer<Nothing> {
    object_delete::<CaCertificate>(call).await
}
