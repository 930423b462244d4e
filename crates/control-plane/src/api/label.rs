//! Labels in use.

use std::collections::{BTreeMap, BTreeSet};

use axum::extract::State;
use gatewright_model::validation::Violations;

use super::error::Refusals;
use super::request::Ids;
use super::{Single, SingleAnswer, single};
use crate::app::{App, Caller};
use crate::store::LabelledKind;

/// Lists the labels that objects of a kind use: every key with its values.
#[utoipa::path(get, path = "/api/labels/{resource_type}", tag = "system",
    params(("resource_type" = String, Path, description = "`gateway_group`, `consumer`, `ssl`, `service` or `route`.")),
    responses((status = 200, body = Single<BTreeMap<String, Vec<String>>>), Refusals))]
pub(super) async fn label_list(
    caller: Caller,
    State(app): State<App>,
    ids: Ids,
) -> SingleAnswer<BTreeMap<String, BTreeSet<String>>> {
    let kind = match ids.text("resource_type") {
        "gateway_group" => LabelledKind::GatewayGroup,
        "consumer" => LabelledKind::Consumer,
        "ssl" => LabelledKind::Ssl,
        "service" => LabelledKind::Service,
        "route" => LabelledKind::Route,
        _ => {
            let message = "value is none of gateway_group, consumer, ssl, service, route";
            return Err(Violations::one("/resource_type", message).into());
        }
    };
    Ok(single(app.label_list(&caller, kind).await?))
}
