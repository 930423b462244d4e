//! The version of the API, by which clients choose how they behave.

use std::sync::Arc;

use axum::{Extension, Json};

use super::{Single, single};

/// The release of the published API that ours equals in behaviour. Clients switch features on by comparing it
/// (named upstreams from 3.5.0, conditions on routes from 3.2.16, validation from 3.9.10), so it says what we speak,
/// not which release of Gatewright this is; a setting, because some clients want to hear another one.
#[derive(Clone)]
pub(super) struct ApiVersion(pub(super) Arc<str>);

/// The version of the API that is spoken.
#[utoipa::path(get, path = "/api/version", tag = "system", security(()),
    responses((status = 200, body = Single<String>)))]
pub(super) async fn version_get(
    Extension(ApiVersion(version)): Extension<ApiVersion>,
) -> Json<Single<String>> {
    single(version.to_string())
}
