//! JSON Schemas of configurations, generated from their Rust types.
//!
//! The generator speaks OpenAPI; what is published here is plain: references are written out, an optional field is
//! one that may be absent (never `null`), and only defaults that are something are named.
//! Rules between fields cannot be said by a type; a kind adds them to what was generated.

use gatewright_model::validation::document_of;
use serde_json::{Map, Value};
use utoipa::ToSchema;

/// The schema of `T`.
pub(crate) fn of<T: ToSchema>() -> Value {
    let mut document = document_of::<T>();
    let components = document.as_object_mut().and_then(|object| object.remove("components"));
    let schemas = components.and_then(|mut components| components.get_mut("schemas").map(Value::take));
    plain(document, &schemas.unwrap_or_default())
}

/// The schema of `T`, and rules between its fields.
pub(crate) fn with<T: ToSchema>(rules: Value) -> Value {
    let mut schema = of::<T>();
    if let (Value::Object(schema), Value::Object(rules)) = (&mut schema, rules) {
        schema.extend(rules);
    }
    schema
}

/// `schema` where the field at `path` (`a.b`, `list[].c`) is what `form` says; its description and default stay.
pub(crate) fn field(mut schema: Value, path: &str, form: Value) -> Value {
    let mut field = &mut schema;
    for step in path.split('.') {
        let name = step.trim_end_matches("[]");
        field = &mut field["properties"][name];
        if name != step {
            field = &mut field["items"];
        }
    }
    let mut replaced = form;
    for word in ["description", "default"] {
        if let Some(kept) = field.get(word).filter(|kept| !kept.is_null()) {
            replaced[word] = kept.clone();
        }
    }
    *field = replaced;
    schema
}

/// `schema` where the fields `names` have to be there, and so have no default.
pub(crate) fn required(mut schema: Value, names: &[&str]) -> Value {
    for name in names {
        if let Some(field) = schema["properties"][name].as_object_mut() {
            field.remove("default");
        }
    }
    schema["required"] = names.to_vec().into();
    schema
}

/// A map with at least one member; members are what `values` says.
pub(crate) fn map(values: &Value) -> Value {
    serde_json::json!({ "type": "object", "minProperties": 1, "additionalProperties": values })
}

/// Exactly one of these fields must be there.
pub(crate) fn one_of(fields: &[&str]) -> Value {
    serde_json::json!({ "oneOf": requirements(fields) })
}

/// At least one of these fields must be there.
pub(crate) fn any_of(fields: &[&str]) -> Value {
    serde_json::json!({ "anyOf": requirements(fields) })
}

fn requirements(fields: &[&str]) -> Vec<Value> {
    fields.iter().map(|field| serde_json::json!({ "required": [field] })).collect()
}

fn plain(schema: Value, components: &Value) -> Value {
    match schema {
        Value::Array(items) => items.into_iter().map(|item| plain(item, components)).collect(),
        Value::Object(object) => plain_object(object, components),
        other => other,
    }
}

fn plain_object(mut object: Map<String, Value>, components: &Value) -> Value {
    if let Some(reference) = object.get("$ref").and_then(Value::as_str) {
        let name = reference.rsplit('/').next().unwrap_or_default();
        let mut resolved = plain(components[name].clone(), components);
        object.remove("$ref");
        if let Value::Object(resolved) = &mut resolved {
            resolved.extend(object.into_iter().map(|(key, value)| (key, plain(value, components))));
        }
        return resolved;
    }
    if object.get("default") == Some(&Value::Null) {
        object.remove("default");
    }
    // Sizes of integers are a matter of our types, not of the documented fields.
    if object.get("type") != Some(&Value::from("string")) {
        object.remove("format");
    }
    if let Some(Value::Array(names)) = object.get_mut("type") {
        names.retain(|name| name != "null");
        if let [only] = names.as_slice() {
            let only = only.clone();
            object.insert("type".to_owned(), only);
        }
    }
    for word in ["oneOf", "anyOf"] {
        let Some(Value::Array(forms)) = object.get_mut(word) else { continue };
        forms.retain(|form| form.get("type").and_then(Value::as_str) != Some("null"));
        if let [only] = forms.as_mut_slice() {
            let only = only.take();
            object.remove(word);
            let described = object.clone();
            let mut resolved = plain(only, components);
            if let Value::Object(resolved) = &mut resolved {
                resolved.extend(described.into_iter().map(|(key, value)| (key, plain(value, components))));
            }
            return resolved;
        }
    }
    object
        .into_iter()
        .map(|(key, value)| {
            let value = if is_data(&key) { value } else { plain(value, components) };
            (key, value)
        })
        .collect()
}

/// Words whose value is no schema.
fn is_data(word: &str) -> bool {
    matches!(word, "default" | "enum" | "const" | "example" | "examples" | "required")
}
