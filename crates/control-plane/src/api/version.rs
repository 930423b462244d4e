//! The version of the API, by which clients choose how they behave.

use axum::Json;

use super::{Single, single};

/// The release of the published API that ours equals in behaviour. Clients switch features on by comparing it
/// (named upstreams from 3.5.0, conditions on routes from 3.2.16, validation from 3.9.10), so it says what we speak,
/// not which release of Gatewright this is.
const API_VERSION: &str = "3.9.14";

/// The version of the API that is spoken.
#[utoipa::path(get, path = "/api/version", tag = "system", security(()),
    responses((status = 200, body = Single<String>)))]
pub(super) async fn version_get() -> Json<Single<&'static str>> {
    single(API_VERSION)
}
