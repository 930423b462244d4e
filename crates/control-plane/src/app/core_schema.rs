//! The schemas of what can be written to a group, as published clients read them: to learn defaults.
//!
//! Clients walk `properties` and array items and do not follow references, so everything is written out. Exactly the
//! defaults that reads add are announced here: one too many or too few, and every synchronisation finds a difference
//! that is none.

use gatewright_model::resource::consumer::{Consumer, Credential};
use gatewright_model::resource::global_rule::GlobalRule;
use gatewright_model::resource::plugin_metadata::PluginMetadata;
use gatewright_model::resource::proto::Proto;
use gatewright_model::resource::route::Route;
use gatewright_model::resource::service::Service;
use gatewright_model::resource::ssl::Ssl;
use gatewright_model::resource::stream_route::StreamRoute;
use gatewright_model::resource::upstream::Upstream;
use serde_json::{Map, Value, json};

use super::group_document::Documented;

/// The schema of every kind, by the names clients look them up under.
pub(crate) fn core_schema() -> Value {
    let timeout = json!({"connect": 60, "send": 60, "read": 60});
    let stream_upstream = json!({
        "name": "default", "scheme": "tcp", "type": "roundrobin", "hash_on": "vars", "nodes": [{"priority": 0}],
        "retry_timeout": 0, "timeout": timeout
    });
    let upstream = json!({
        "name": "default", "scheme": "http", "type": "roundrobin", "hash_on": "vars", "nodes": [{"priority": 0}],
        "retry_timeout": 0, "timeout": timeout, "pass_host": "pass", "discovery_args": {},
        "keepalive_pool": {"size": 320, "idle_timeout": 60, "requests": 1000}
    });
    let service = |upstream: &Value| json!({"strip_path_prefix": true, "upstream": upstream});
    json!({
        "service": announced::<Service>(&service(&upstream)),
        "stream_service": announced::<Service>(&json!({"upstream": stream_upstream})),
        "upstream": announced::<Upstream>(&upstream),
        "route": announced::<Route>(&json!({"priority": 0, "timeout": timeout})),
        "stream_route": announced::<StreamRoute>(&json!({})),
        "ssl": announced::<Ssl>(&json!({})),
        "consumer": announced::<Consumer>(&json!({})),
        "consumer_credential": announced::<Credential>(&json!({})),
        "global_rule": announced::<GlobalRule>(&json!({})),
        "plugin_metadata": announced::<PluginMetadata>(&json!({})),
        "proto": announced::<Proto>(&json!({})),
    })
}

/// The schema of `T` without references, with these defaults and no others.
fn announced<T: Documented>(defaults: &Value) -> Value {
    let document = T::schema_compiled().document();
    let mut schema = written_out(document, document);
    if let Value::Object(members) = &mut schema {
        members.remove("components");
    }
    set_defaults(&mut schema, defaults);
    schema
}

/// `schema` with its references replaced by what they refer to, and without defaults.
fn written_out(schema: &Value, document: &Value) -> Value {
    match schema {
        Value::Object(members) => {
            let reference =
                members.get("$ref").and_then(Value::as_str).and_then(|text| text.strip_prefix('#'));
            if let Some(target) = reference.and_then(|pointer| document.pointer(pointer)) {
                return written_out(target, document);
            }
            let members = members.iter().filter(|(name, _)| *name != "default");
            let written = members.map(|(name, value)| (name.clone(), written_out(value, document)));
            Value::Object(written.collect::<Map<_, _>>())
        }
        Value::Array(items) => items.iter().map(|item| written_out(item, document)).collect(),
        plain => plain.clone(),
    }
}

fn set_defaults(schema: &mut Value, defaults: &Value) {
    let Value::Object(defaults) = defaults else { return };
    for (name, default) in defaults {
        let Some(property) = schema.get_mut("properties").and_then(|all| all.get_mut(name)) else { continue };
        match default {
            Value::Object(members) if !members.is_empty() => set_defaults(property, default),
            Value::Array(items) => {
                // Of the forms a list may have, clients know the list.
                let forms = property.get_mut("oneOf").and_then(Value::as_array_mut);
                if let Some(list) =
                    forms.and_then(|forms| forms.iter().find(|form| form["type"] == "array").cloned())
                {
                    *property = list;
                }
                if let (Some(list), Some(item)) = (property.get_mut("items"), items.first()) {
                    set_defaults(list, item);
                }
            }
            leaf => property["default"] = leaf.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a published client collects.
    fn collected(schema: &Value) -> Value {
        let mut defaults = Map::new();
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            let below = match property["type"].as_str() {
                _ if property.get("default").is_some() => property["default"].clone(),
                Some("object") => collected(property),
                Some("array") => json!([collected(&property["items"])]),
                _ => Value::Null,
            };
            let says_something = !below.is_null()
                && below != json!([{}])
                && (below != json!({}) || property.get("default").is_some());
            if says_something {
                defaults.insert(name.clone(), below);
            }
        }
        Value::Object(defaults)
    }

    #[test]
    fn exactly_the_defaults_that_clients_expect_are_announced() {
        let schema = core_schema();
        let timeout = json!({"connect": 60, "send": 60, "read": 60});
        let upstream = json!({
            "name": "default", "type": "roundrobin", "hash_on": "vars", "scheme": "http", "pass_host": "pass",
            "retry_timeout": 0, "timeout": timeout, "discovery_args": {}, "nodes": [{"priority": 0}],
            "keepalive_pool": {"size": 320, "idle_timeout": 60, "requests": 1000}
        });
        let stream_upstream = json!({
            "scheme": "tcp", "type": "roundrobin", "hash_on": "vars", "name": "default", "nodes": [{"priority": 0}],
            "retry_timeout": 0, "timeout": timeout
        });
        for (kind, expected) in [
            ("route", json!({"priority": 0, "timeout": timeout})),
            ("service", json!({"strip_path_prefix": true, "upstream": upstream})),
            ("stream_service", json!({"upstream": stream_upstream})),
            ("upstream", upstream.clone()),
            ("ssl", json!({})),
            ("consumer", json!({})),
            ("consumer_credential", json!({})),
            ("global_rule", json!({})),
            ("plugin_metadata", json!({})),
            ("proto", json!({})),
            ("stream_route", json!({})),
        ] {
            assert_eq!(collected(&schema[kind]), expected, "{kind}");
        }
    }

    #[test]
    fn nothing_is_left_to_look_up() {
        assert!(!core_schema().to_string().contains("$ref"));
    }
}
