//! Every operation of the admin API, on one page; the OpenAPI document is made of the same list.

use axum::http::{HeaderValue, header};
use axum::middleware::{from_fn_with_state, map_response};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Router};
use gatewright_model::validation::Violation;
use utoipa::OpenApi;
use utoipa::openapi::Deprecated;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouter};
use utoipa_axum::routes;

use super::call::{FORMER, Operations, call_serve, dry_run_document};
use super::error::{ApiError, ErrorBody};
use super::parameters::parameters_document;
use super::version::ApiVersion;
use super::{
    access_token, audit_log, ca_certificate, canary, certificate, conflict_check, consumer, core_usage,
    credential, explain, gateway_group, global_rule, group_route, group_service, instance,
    instance_certificate, instance_token, label, license, metrics, openapi, plugin, plugin_metadata, preview,
    proto, published_service, release_set, role, rollout, route_template, runtime_configuration, schema,
    secret_provider, service_diff, service_publish, service_registry, service_template, service_upstream,
    service_version, session, sni, ssl, stream_route, stream_route_template, user, validate, variable,
    version,
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
        .routes(routes!(
            gateway_group::gateway_group_get,
            gateway_group::gateway_group_put,
            gateway_group::gateway_group_delete
        ))
        .routes(routes!(gateway_group::gateway_group_count))
        .routes(routes!(explain::explain))
        .routes(routes!(preview::service_preview))
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
        .routes(routes!(
            stream_route_template::stream_route_template_list,
            stream_route_template::stream_route_template_create
        ))
        .routes(routes!(
            stream_route_template::stream_route_template_get,
            stream_route_template::stream_route_template_put,
            stream_route_template::stream_route_template_delete
        ))
        .routes(routes!(service_publish::service_publish))
        .routes(routes!(conflict_check::conflict_check))
        .routes(routes!(release_set::release_set_list, release_set::release_set_create))
        .routes(routes!(release_set::release_set_get))
        .routes(routes!(release_set::release_set_roll_back))
        .routes(routes!(service_diff::service_diff))
        .routes(routes!(openapi::openapi_convert))
        .routes(routes!(openapi::openapi_import))
        .routes(routes!(openapi::service_import))
        .routes(routes!(openapi::service_template_import))
        .routes(routes!(openapi::service_export))
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
        .routes(routes!(published_service::published_service_everywhere))
        .routes(routes!(service_version::service_version_numbered))
        .routes(routes!(service_version::service_version_get))
        .routes(routes!(service_version::service_version_routes))
        .routes(routes!(service_version::service_version_route_get))
        .routes(routes!(service_version::service_version_stream_routes))
        .routes(routes!(service_version::service_version_stream_route_get))
        .routes(routes!(label::label_list))
        .routes(routes!(schema::core_schema_get))
        .merge(group_operations())
        .merge(object_operations())
        .merge(instance_operations())
        .merge(identity_operations())
}

/// A path that had another name in former releases of the documented interface, where clients still look for it.
struct Renamed {
    before: &'static str,
    now: &'static str,
}

const SECRETS: Renamed = Renamed { before: "/apisix/admin/secrets", now: "/apisix/admin/secret_providers" };
const TOKENS: Renamed = Renamed { before: "/api/settings/tokens", now: "/api/tokens" };

/// The operations at both of their paths.
fn renamed(
    name: &Renamed,
    (schemas, mut paths, methods): UtoipaMethodRouter<App>,
) -> UtoipaMethodRouter<App> {
    for (path, mut item) in paths.paths.clone() {
        let operations = [&mut item.get, &mut item.post, &mut item.put, &mut item.delete];
        for operation in operations.into_iter().flatten() {
            operation.deprecated = Some(Deprecated::True);
            operation.operation_id = operation.operation_id.take().map(|id| id + FORMER);
        }
        paths.paths.insert(path.replacen(name.now, name.before, 1), item);
    }
    (schemas, paths, methods)
}

/// Versions that come into a gateway group under watch.
fn rollout_operations() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(rollout::rollout_get, rollout::rollout_start))
        .routes(routes!(rollout::rollout_list))
        .routes(routes!(rollout::rollout_share_put))
        .routes(routes!(rollout::rollout_promote))
        .routes(routes!(rollout::rollout_abort))
}

/// What is written straight to a gateway group.
fn group_operations() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .merge(rollout_operations())
        .merge(service_registry_operations())
        .routes(routes!(group_service::group_service_list, group_service::group_service_create))
        .routes(routes!(
            group_service::group_service_get,
            group_service::group_service_put,
            group_service::group_service_patch,
            group_service::group_service_delete
        ))
        .routes(routes!(group_route::group_route_list, group_route::group_route_create))
        .routes(routes!(
            group_route::group_route_get,
            group_route::group_route_put,
            group_route::group_route_patch,
            group_route::group_route_delete
        ))
        .routes(routes!(stream_route::stream_route_list, stream_route::stream_route_create))
        .routes(routes!(
            stream_route::stream_route_get,
            stream_route::stream_route_put,
            stream_route::stream_route_patch,
            stream_route::stream_route_delete
        ))
        .routes(routes!(canary::canary_promote))
        .routes(routes!(canary::canary_abandon))
        .routes(routes!(service_upstream::service_upstream_list))
        .routes(routes!(
            service_upstream::service_upstream_get,
            service_upstream::service_upstream_put,
            service_upstream::service_upstream_delete
        ))
        .routes(routes!(validate::configuration_validate))
}

/// What a gateway group has beside services.
fn object_operations() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(consumer::consumer_list, consumer::consumer_create))
        .routes(routes!(
            consumer::consumer_get,
            consumer::consumer_put,
            consumer::consumer_patch,
            consumer::consumer_delete
        ))
        .routes(routes!(credential::credential_list, credential::credential_create))
        .routes(routes!(
            credential::credential_get,
            credential::credential_put,
            credential::credential_delete
        ))
        .routes(routes!(certificate::certificate_list, certificate::certificate_create))
        .routes(routes!(
            certificate::certificate_get,
            certificate::certificate_put,
            certificate::certificate_patch,
            certificate::certificate_delete
        ))
        .routes(routes!(ca_certificate::ca_certificate_list, ca_certificate::ca_certificate_create))
        .routes(routes!(
            ca_certificate::ca_certificate_get,
            ca_certificate::ca_certificate_put,
            ca_certificate::ca_certificate_patch,
            ca_certificate::ca_certificate_delete
        ))
        .routes(routes!(sni::sni_list, sni::sni_create))
        .routes(routes!(sni::sni_get, sni::sni_put, sni::sni_patch, sni::sni_delete))
        .routes(routes!(ssl::ssl_list, ssl::ssl_create))
        .routes(routes!(ssl::ssl_get, ssl::ssl_put, ssl::ssl_delete))
        .routes(routes!(global_rule::global_rule_list, global_rule::global_rule_create))
        .routes(routes!(
            global_rule::global_rule_get,
            global_rule::global_rule_put,
            global_rule::global_rule_delete
        ))
        .routes(routes!(plugin_metadata::plugin_metadata_list))
        .routes(routes!(
            plugin_metadata::plugin_metadata_get,
            plugin_metadata::plugin_metadata_put,
            plugin_metadata::plugin_metadata_delete
        ))
        .routes(routes!(proto::proto_list, proto::proto_create))
        .routes(routes!(proto::proto_get, proto::proto_put, proto::proto_patch, proto::proto_delete))
        .routes(routes!(plugin::plugin_metadata_default_get))
        .routes(routes!(plugin::plugin_summary_list))
        .routes(routes!(plugin::plugins_list))
        .routes(routes!(plugin::plugin_get))
        .routes(renamed(&SECRETS, routes!(secret_provider::secret_provider_list)))
        .routes(renamed(
            &SECRETS,
            routes!(
                secret_provider::secret_provider_get,
                secret_provider::secret_provider_put,
                secret_provider::secret_provider_delete
            ),
        ))
}

/// Where nodes are found.
fn service_registry_operations() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(service_registry::service_registry_list, service_registry::service_registry_create))
        .routes(routes!(
            service_registry::service_registry_get,
            service_registry::service_registry_put,
            service_registry::service_registry_delete
        ))
        .routes(routes!(service_registry::service_registry_service_list))
        .routes(routes!(service_registry::service_registry_check_list))
        .routes(routes!(service_registry::service_registry_internal_service_list))
        .routes(routes!(service_registry::service_registry_namespace_list))
        .routes(routes!(service_registry::service_registry_group_list))
        .routes(routes!(service_registry::service_registry_group_service_list))
        .routes(routes!(service_registry::service_registry_metadata_list))
}

/// The gateways that run.
fn instance_operations() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(instance::instance_list))
        .routes(routes!(instance::instance_count))
        .routes(routes!(core_usage::core_usage_now))
        .routes(routes!(core_usage::core_usage_export))
        .routes(routes!(instance::gateway_group_instance_list))
        .routes(routes!(instance::instance_delete))
        .routes(routes!(instance_token::instance_token_list, instance_token::instance_token_create))
        .routes(routes!(instance_token::instance_token_delete))
        .routes(routes!(
            instance_certificate::instance_certificate_list,
            instance_certificate::instance_certificate_create
        ))
        .routes(routes!(instance_certificate::instance_certificate_delete))
        .routes(routes!(instance::gateway_group_applied))
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
        .routes(routes!(user::user_me, user::user_me_put))
        .routes(routes!(user::gateway_group_permitted_users))
        .routes(routes!(user::service_permitted_users))
        .routes(routes!(role::role_list))
        .routes(routes!(role::role_get))
        .routes(routes!(role::permission_list))
        .routes(routes!(user::user_password_reset))
        .routes(routes!(user::user_roles_put))
        .routes(renamed(&TOKENS, routes!(access_token::access_token_list, access_token::access_token_create)))
        .routes(renamed(&TOKENS, routes!(access_token::access_token_check_name)))
        .routes(renamed(
            &TOKENS,
            routes!(
                access_token::access_token_get,
                access_token::access_token_put,
                access_token::access_token_delete
            ),
        ))
        .routes(renamed(&TOKENS, routes!(access_token::access_token_regenerate)))
        .routes(routes!(audit_log::audit_log_list))
        .routes(routes!(audit_log::audit_log_event_type_list))
        .routes(routes!(audit_log::audit_log_export))
        .routes(routes!(audit_log::audit_log_verify))
        .routes(routes!(license::license_get, license::license_put))
}

/// The OpenAPI document, as it is served and committed.
pub(crate) fn document() -> String {
    let (_, mut openapi) = operations().split_for_parts();
    dry_run_document(&mut openapi);
    parameters_document(&mut openapi);
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
        .route("/metrics", get(metrics::metrics))
        .route("/openapi.json", get(openapi))
        .fallback(|| async { ApiError::NoSuchPath.into_response() })
        .method_not_allowed_fallback(|| async { ApiError::NoSuchMethod.into_response() })
        .layer(map_response(as_data))
        .with_state(app)
}

/// What browsers are told with every answer: it is data and no page, nothing frames it, and nobody keeps it.
async fn as_data(mut response: Response) -> Response {
    for (name, value) in [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
        (header::CACHE_CONTROL, "no-store"),
    ] {
        response.headers_mut().entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}
