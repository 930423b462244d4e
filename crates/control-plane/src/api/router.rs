//! Every operation of the admin API, on one page; the OpenAPI document is made of the same list.

use axum::http::header;
use axum::middleware::from_fn_with_state;
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Extension, Router};
use gatewright_model::validation::Violation;
use utoipa::OpenApi;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::call::{Operations, call_serve, dry_run_document};
use super::error::{ApiError, ErrorBody};
use super::version::ApiVersion;
use super::{
    access_token, audit_log, conflict_check, explain, gateway_group, license, published_service,
    route_template, runtime_configuration, service_diff, service_publish, service_template, session, user,
    variable, version,
};
use crate::app::App;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Gatewright admin API",
        description = "Design services as templates, publish them as versions to gateway groups.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    components(schemas(ErrorBody, Violation)),
    modifiers(&Security),
    security(("access_token" = []), ("password" = []))
)]
struct Api;

struct Security;

impl utoipa::Modify for Security {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let components = openapi.components.get_or_insert_default();
        let token = SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::new("X-API-KEY")));
        components.add_security_scheme("access_token", token);
        let password = SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Basic).build());
        components.add_security_scheme("password", password);
    }
}

fn operations() -> OpenApiRouter<App> {
    OpenApiRouter::with_openapi(Api::openapi())
        .routes(routes!(version::version_get))
        .routes(routes!(gateway_group::gateway_group_list, gateway_group::gateway_group_create))
        .routes(routes!(gateway_group::gateway_group_get, gateway_group::gateway_group_put))
        .routes(routes!(explain::explain))
        .routes(routes!(gateway_group::gateway_group_admin_key_put))
        .routes(routes!(service_template::service_template_list, service_template::service_template_create))
        .routes(routes!(
            service_template::service_template_get,
            service_template::service_template_put,
            service_template::service_template_patch,
            service_template::service_template_delete
        ))
        .routes(routes!(route_template::route_template_list, route_template::route_template_create))
        .routes(routes!(
            route_template::route_template_get,
            route_template::route_template_put,
            route_template::route_template_patch,
            route_template::route_template_delete
        ))
        .routes(routes!(service_publish::service_publish))
        .routes(routes!(conflict_check::conflict_check))
        .routes(routes!(service_diff::service_diff))
        .routes(routes!(published_service::published_service_list))
        .routes(routes!(
            published_service::published_service_get,
            published_service::published_service_delete
        ))
        .routes(routes!(published_service::published_service_history))
        .routes(routes!(
            runtime_configuration::runtime_configuration_get,
            runtime_configuration::runtime_configuration_patch
        ))
        .routes(routes!(variable::variable_list))
        .merge(identity_operations())
}

/// Who may do what, and who did.
fn identity_operations() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(session::session_create))
        .routes(routes!(session::session_delete))
        .routes(routes!(session::password_put))
        .routes(routes!(user::user_invite))
        .routes(routes!(user::user_list))
        .routes(routes!(user::user_get, user::user_delete))
        .routes(routes!(user::user_password_reset))
        .routes(routes!(user::user_roles_put))
        .routes(routes!(access_token::access_token_list, access_token::access_token_create))
        .routes(routes!(access_token::access_token_check_name))
        .routes(routes!(
            access_token::access_token_get,
            access_token::access_token_put,
            access_token::access_token_delete
        ))
        .routes(routes!(access_token::access_token_regenerate))
        .routes(routes!(audit_log::audit_log_list))
        .routes(routes!(audit_log::audit_log_event_type_list))
        .routes(routes!(audit_log::audit_log_export))
        .routes(routes!(license::license_get, license::license_put))
}

/// The OpenAPI document, as it is served and committed.
pub(crate) fn document() -> String {
    let (_, mut openapi) = operations().split_for_parts();
    dry_run_document(&mut openapi);
    let text = openapi.to_pretty_json();
    let text =
        text.unwrap_or_else(|error| unreachable!("the document is made of plain JSON values: {error}"));
    format!("{text}\n")
}

/// The admin API over `app`, which says that it speaks `api_version`.
pub(crate) fn admin_router(app: App, api_version: &str) -> Router {
    let (router, openapi) = operations().split_for_parts();
    let operations = Operations::of(&openapi);
    let text = document();
    let openapi = move || std::future::ready(([(header::CONTENT_TYPE, "application/json")], text.clone()));
    router
        .route_layer(from_fn_with_state((app.clone(), operations.clone()), call_serve))
        .layer(Extension(operations))
        .layer(Extension(ApiVersion(api_version.into())))
        .route("/openapi.json", get(openapi))
        .fallback(|| async { ApiError::NoSuchPath.into_response() })
        .method_not_allowed_fallback(|| async { ApiError::NoSuchMethod.into_response() })
        .with_state(app)
}
