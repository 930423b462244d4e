//! What the OpenAPI document says of parameters and patches, which mean the same everywhere, said once.
//!
//! An operation names its parameters; which texts they may be follows from the name. Where this is more exact than
//! what a handler checks, a wrong text is answered as an object that does not exist.

use gatewright_model::resource::secret_provider::SECRET_MANAGERS;
use gatewright_model::{id, limits};
use utoipa::openapi::path::{Parameter, ParameterIn};
use utoipa::openapi::schema::{ObjectBuilder, SchemaType, Type};
use utoipa::openapi::{Content, OpenApi, RefOr, Required};

/// Completes the parameters of every operation, and the bodies of patches.
pub(super) fn parameters_document(openapi: &mut OpenApi) {
    for (path, item) in &mut openapi.paths.paths {
        let patch = item.patch.as_mut().and_then(|operation| operation.request_body.as_mut());
        if let Some(RefOr::T(body)) = patch {
            for content in body.content.values_mut() {
                // A merge patch, or a JSON patch.
                let types = SchemaType::from_iter([Type::Object, Type::Array]);
                let schema = ObjectBuilder::new().schema_type(types);
                *content = RefOr::T(Content::new(Some(schema)));
            }
        }
        let operations = [&mut item.get, &mut item.post, &mut item.put, &mut item.patch, &mut item.delete];
        for operation in operations.into_iter().flatten() {
            for parameter in operation.parameters.iter_mut().flatten() {
                if let RefOr::T(parameter) = parameter {
                    complete(path, parameter);
                }
            }
        }
    }
}

fn complete(path: &str, parameter: &mut Parameter) {
    let is_query = parameter.parameter_in == ParameterIn::Query;
    let schema = match parameter.name.as_str() {
        "field" if !is_query => one_of(&["status"]),
        "resource_type" if path.contains("/count/") => one_of(&["ssl", "consumer", "gateway_instance"]),
        "resource_type" if !is_query => one_of(&["gateway_group", "consumer", "ssl", "service", "route"]),
        "secret_manager" if !is_query => one_of(&SECRET_MANAGERS),
        _ if parameter.parameter_in == ParameterIn::Path => id_schema(),
        "gateway_group_id" if path.starts_with("/apisix/admin/") => {
            // Only a group's own admin key can do without.
            parameter.required = Required::True;
            id_schema()
        }
        "service_id" if is_query => id_schema(),
        "direction" if is_query => pattern("^([aA][sS][cC]|[dD][eE][sS][cC])?$"),
        "order_by" if is_query => one_of(orders(path)),
        "wait" if is_query => pattern("^([0-9]{1,5}ms|[12]?[0-9]{1,2}s?|[0-5]m)$"),
        "format" if is_query => one_of(&["json", "csv"]),
        _ => return,
    };
    parameter.schema = Some(schema.into());
}

/// What the list at `path` can be ordered by; empty: the default.
fn orders(path: &str) -> &'static [&'static str] {
    match path {
        "/api/services/template" => &["", "updated_at", "created_at", "name", "last_published"],
        "/api/gateway_groups/{gateway_group_id}/services"
        | "/api/services/{service_id}/published_services" => {
            &["", "updated_at", "created_at", "name", "publish_time"]
        }
        _ if path.contains("/instances") => &["last_heartbeat_time", "created_at"],
        _ => &["", "updated_at", "created_at", "name"],
    }
}

fn id_schema() -> ObjectBuilder {
    pattern(id::PATTERN).min_length(Some(1)).max_length(Some(limits::ID_LENGTH_MAX))
}

fn pattern(pattern: &str) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String).pattern(Some(pattern))
}

fn one_of(values: &[&str]) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(values.iter().copied()))
}
