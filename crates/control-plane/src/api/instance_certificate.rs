//! Certificates with which gateway instances prove their group.

use axum::extract::{Query, State};
use gatewright_model::validation::Violations;
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use super::error::Refusals;
use super::request::Ids;
use super::{Many, ManyAnswer, Nothing, Single, SingleAnswer, listed, single};
use crate::app::{App, Caller, INSTANCE_DAYS_DEFAULT, INSTANCE_DAYS_MAX, InstanceCertificate};
use crate::store::InstanceCertificateRow;

/// A new certificate of a gateway group.
#[derive(Serialize, ToSchema)]
pub(super) struct InstanceCertificateView {
    id: String,
    gateway_group_id: String,
    /// PEM.
    certificate: String,
    /// PEM; it is answered this once.
    private_key: String,
    /// The certificate of the authority that signed it and those of the control planes, in PEM.
    ca_certificate: String,
    /// When it runs out, in unix seconds.
    expiry: i64,
}

impl From<InstanceCertificate> for InstanceCertificateView {
    fn from(signed: InstanceCertificate) -> Self {
        Self {
            id: signed.id,
            gateway_group_id: signed.gateway_group_id.into(),
            certificate: signed.certificate,
            private_key: signed.private_key,
            ca_certificate: signed.authority,
            expiry: signed.expires_at,
        }
    }
}

/// A certificate as far as it is known afterwards.
#[derive(Serialize, ToSchema)]
pub(super) struct InstanceCertificateSummaryView {
    id: String,
    gateway_group_id: String,
    /// When it runs out, in unix seconds.
    expiry: i64,
    created_at: i64,
}

impl From<InstanceCertificateRow> for InstanceCertificateSummaryView {
    fn from(row: InstanceCertificateRow) -> Self {
        Self {
            id: row.id,
            gateway_group_id: row.gateway_group_id.into(),
            expiry: row.expires_at,
            created_at: row.created_at,
        }
    }
}

/// The parameters of signing.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code, reason = "documents what is read by hand")]
pub(super) struct SigningParameters {
    /// For how many days the certificate is good; without: 365.
    #[param(minimum = 1, maximum = 3650)]
    days: Option<u32>,
}

/// Signs a certificate with which gateway instances join a group; those before stay valid.
#[utoipa::path(post, path = "/api/gateway_groups/{gateway_group_id}/dp_client_certificates",
    tag = "gateway instance", params(("gateway_group_id" = String, Path), SigningParameters),
    responses((status = 200, body = Single<InstanceCertificateView>), Refusals))]
pub(super) async fn instance_certificate_create(
    caller: Caller,
    State(app): State<App>,
    ids: Ids,
    Query(pairs): Query<Vec<(String, String)>>,
) -> SingleAnswer<InstanceCertificateView> {
    let group = ids.id("gateway_group_id")?;
    let signed = app.instance_certificate_create(&caller, &group, days(&pairs)?).await?;
    Ok(single(signed.into()))
}

fn days(pairs: &[(String, String)]) -> Result<u32, Violations> {
    let Some((_, text)) = pairs.iter().find(|(name, _)| name == "days") else {
        return Ok(INSTANCE_DAYS_DEFAULT);
    };
    let days = text.parse().ok().filter(|days| (1..=INSTANCE_DAYS_MAX).contains(days));
    days.ok_or_else(|| Violations::one("/days", format!("value must be 1 to {INSTANCE_DAYS_MAX}")))
}

/// Lists the certificates of a gateway group that were not revoked, those that run out first in front.
#[utoipa::path(get, path = "/api/gateway_groups/{gateway_group_id}/dp_client_certificates",
    tag = "gateway instance", params(("gateway_group_id" = String, Path)),
    responses((status = 200, body = Many<InstanceCertificateSummaryView>), Refusals))]
pub(super) async fn instance_certificate_list(
    caller: Caller,
    State(app): State<App>,
    ids: Ids,
) -> ManyAnswer<InstanceCertificateSummaryView> {
    Ok(listed(app.instance_certificate_list(&caller, &ids.id("gateway_group_id")?).await?))
}

/// Revokes a certificate: within seconds, instances that came with it get no configuration any more, and serve what
/// they have.
#[utoipa::path(delete,
    path = "/api/gateway_groups/{gateway_group_id}/dp_client_certificates/{dp_client_certificate_id}",
    tag = "gateway instance",
    params(("gateway_group_id" = String, Path), ("dp_client_certificate_id" = String, Path)),
    responses((status = 200, body = Single<Nothing>), Refusals))]
pub(super) async fn instance_certificate_delete(
    caller: Caller,
    State(app): State<App>,
    ids: Ids,
) -> SingleAnswer<Nothing> {
    let group = ids.id("gateway_group_id")?;
    app.instance_certificate_delete(&caller, &group, ids.text("dp_client_certificate_id")).await?;
    Ok(single(Nothing {}))
}
