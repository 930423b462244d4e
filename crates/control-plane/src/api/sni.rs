//! SNIs of a gateway group: which certificates clients are shown for which server names.

use gatewright_model::id::ObjectId;
use gatewright_model::resource::sni::Sni;
use gatewright_model::resource::ssl::TlsProtocol;
use gatewright_model::resource::{AsSent, Labels};
use serde::Serialize;
use utoipa::ToSchema;

use super::error::Refusals;
use super::group_call::{GroupCall, GroupParameter};
use super::group_object::{object_create, object_delete, object_get, object_list, object_patch, object_put};
use super::request::{Json, ListParameters, ListQuery};
use super::{Many, ManyAnswer, Nothing, Single, SingleAnswer, TaggedAnswer};
use crate::app::Object;

/// Server names, and the certificates for them.
#[derive(Serialize, ToSchema)]
pub(super) struct SniView {
    id: String,
    name: String,
    #[serde(skip_serializing_if = "AsSent::is_absent")]
    #[schema(value_type = String, required = false)]
    desc: AsSent<String>,
    #[serde(skip_serializing_if = "AsSent::is_absent")]
    #[schema(value_type = Labels, required = false)]
    labels: AsSent<Labels>,
    hosts: Vec<String>,
    certificate_ids: Vec<ObjectId>,
    #[serde(skip_serializing_if = "AsSent::is_absent")]
    #[schema(value_type = Vec<ObjectId>, required = false)]
    ca_certificate_ids: AsSent<Vec<ObjectId>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    client_depth: Option<u32>,
    #[serde(skip_serializing_if = "AsSent::is_absent")]
    #[schema(value_type = Vec<TlsProtocol>, required = false)]
    ssl_protocols: AsSent<Vec<TlsProtocol>>,
    /// Whether the SNI is used: 1 yes, 0 no.
    status: u8,
    created_at: i64,
    updated_at: i64,
}

impl From<Object<Sni>> for SniView {
    fn from(object: Object<Sni>) -> Self {
        let sni = object.content;
        Self {
            id: object.id,
            name: sni.name,
            desc: sni.desc,
            labels: sni.labels,
            hosts: sni.hosts,
            certificate_ids: sni.certificate_ids,
            ca_certificate_ids: sni.ca_certificate_ids,
            client_depth: sni.client_depth,
            ssl_protocols: sni.ssl_protocols,
            status: sni.status.into(),
            created_at: object.created_at,
            updated_at: object.updated_at,
        }
    }
}

/// Lists the SNIs of a gateway group.
#[utoipa::path(get, path = "/apisix/admin/snis", tag = "certificate",
    params(GroupParameter, ListParameters),
    responses((status = 200, body = Many<SniView>), Refusals))]
pub(super) async fn sni_list(call: GroupCall, query: ListQuery) -> ManyAnswer<SniView> {
    object_list::<Sni>(call, query).await
}

/// Creates an SNI.
#[utoipa::path(post, path = "/apisix/admin/snis", tag = "certificate",
    params(GroupParameter),
    request_body = Sni,
    responses((status = 200, body = Single<SniView>), Refusals))]
pub(super) async fn sni_create(call: GroupCall, Json(body): Json) -> TaggedAnswer<SniView> {
    object_create::<Sni>(call, body).await
}

/// Shows an SNI.
#[utoipa::path(get, path = "/apisix/admin/snis/{sni_id}", tag = "certificate",
    params(("sni_id" = String, Path), GroupParameter),
    responses((status = 200, body = Single<SniView>), Refusals))]
pub(super) async fn sni_get(call: GroupCall) -> TaggedAnswer<SniView> {
    object_get::<Sni>(call).await
}

/// Creates an SNI under an id of the caller's choice, or replaces it whole.
#[utoipa::path(put, path = "/apisix/admin/snis/{sni_id}", tag = "certificate",
    params(("sni_id" = String, Path), GroupParameter),
    request_body = Sni,
    responses((status = 200, body = Single<SniView>), Refusals))]
pub(super) async fn sni_put(call: GroupCall, Json(body): Json) -> TaggedAnswer<SniView> {
    object_put::<Sni>(call, body).await
}

/// Changes an SNI by a merge object (RFC 7386) or a JSON patch (RFC 6902).
#[utoipa::path(patch, path = "/apisix/admin/snis/{sni_id}", tag = "certificate",
    params(("sni_id" = String, Path), GroupParameter),
    request_body = serde_json::Value,
    responses((status = 200, body = Single<SniView>), Refusals))]
pub(super) async fn sni_patch(call: GroupCall, Json(body): Json) -> TaggedAnswer<SniView> {
    object_patch::<Sni>(call, body).await
}

/// Deletes an SNI; the certificates stay.
#[utoipa::path(delete, path = "/apisix/admin/snis/{sni_id}", tag = "certificate",
    params(("sni_id" = String, Path), GroupParameter),
    responses((status = 200, body = Single<Nothing>), Refusals))]
pub(super) async fn sni_delete(call: GroupCall) -> SingleAnswer<Nothing> {
    object_delete::<Sni>(call).await
}
