//! `request-validation`: refuses requests whose header fields or body do not satisfy a JSON Schema.
//!
//! Defaults of the body's schema are filled in, and what is forwarded then is the completed document. The body is held
//! back until it is there as a whole.

use std::collections::HashSet;
use std::sync::Arc;

use gatewright_model::message::RequestHead;
use gatewright_model::validation::Violations;
use jsonschema::Validator;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use crate::exchange::{Answer, Body, Exchange, Flow};
use crate::kind::{self, Built, Category, Kind, Phase, Phases, Plugin, Site};
use crate::schema;

pub(crate) const KIND: Kind = Kind {
    name: "request-validation",
    priority: 2800,
    category: Category::Validation,
    phases: Phases::of(&[Phase::Rewrite]),
    schema: || {
        let schema = schema::with::<Config>(schema::any_of(&["header_schema", "body_schema"]));
        let object = json!({ "type": "object" });
        schema::field(schema::field(schema, "header_schema", object.clone()), "body_schema", object)
    },
    metadata: None,
    credential: None,
    build,
};

#[derive(Deserialize, ToSchema)]
#[serde(default)]
#[schema(default)]
struct Config {
    /// JSON Schema of the header fields, as an object of strings.
    #[schema(value_type = Object)]
    header_schema: Option<Value>,
    /// JSON Schema of the body, which is JSON or a form.
    #[schema(value_type = Object)]
    body_schema: Option<Value>,
    /// Bytes of the longest body.
    #[schema(minimum = 1)]
    max_req_body_size: u64,
    /// Status of the answer to requests that do not satisfy.
    #[schema(minimum = 200, maximum = 599)]
    rejected_code: u16,
    /// What it says, instead of what is wrong.
    #[schema(min_length = 1, max_length = 256)]
    rejected_msg: Option<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            header_schema: None,
            body_schema: None,
            max_req_body_size: 64 * 1024 * 1024,
            rejected_code: 400,
            rejected_msg: None,
        }
    }
}

struct RequestValidation {
    header: Option<(Value, Validator)>,
    body: Option<(Value, Validator)>,
    body_bytes_max: usize,
    status: u16,
    message: Option<String>,
}

fn build(config: Value, _: &Site<'_>) -> Built {
    let config: Config = kind::parse(config)?;
    let mut violations = Violations::default();
    let mut compile = |schema: Option<Value>, at: &str| {
        let schema = schema?;
        if goes_round(&schema) {
            violations.add(
                at,
                "refers to itself without going deeper into the data, or in a chain that is too long",
            );
            return None;
        }
        match jsonschema::options().with_draft(jsonschema::Draft::Draft7).build(&schema) {
            Ok(validator) => Some((schema, validator)),
            Err(error) => {
                violations.add(at, format!("is not a JSON Schema: {error}"));
                None
            }
        }
    };
    let header = compile(config.header_schema, "/header_schema");
    let body = compile(config.body_schema, "/body_schema");
    violations.into_result()?;
    Ok(Arc::new(RequestValidation {
        header,
        body,
        body_bytes_max: usize::try_from(config.max_req_body_size).unwrap_or(usize::MAX),
        status: config.rejected_code,
        message: config.rejected_msg,
    }))
}

/// Parts of a schema that one value may be checked against, each reached from the one before: checking is recursive.
const PARTS_DEEP_MAX: usize = 100;

/// Whether checking one value against some part of `document` would come back to the same part and the same value.
fn goes_round(document: &Value) -> bool {
    let mut parts = vec![document];
    let (mut path, mut ending) = (Vec::new(), HashSet::new());
    while let Some(part) = parts.pop() {
        match part {
            Value::Object(members) => {
                if never_ends(part, document, &mut path, &mut ending) {
                    return true;
                }
                parts.extend(members.values());
            }
            Value::Array(items) => parts.extend(items),
            _ => {}
        }
    }
    false
}

/// Follows what is checked on the same value as `part`; `path` leads here, and what is in `ending` is known to end.
fn never_ends<'s>(
    part: &'s Value,
    document: &'s Value,
    path: &mut Vec<&'s Value>,
    ending: &mut HashSet<*const Value>,
) -> bool {
    if ending.contains(&std::ptr::from_ref(part)) {
        return false;
    }
    if path.len() >= PARTS_DEEP_MAX || path.iter().any(|before| std::ptr::eq(*before, part)) {
        return true;
    }
    path.push(part);
    // In this draft a reference replaces what stands beside it.
    let round = match part["$ref"].as_str().map(|reference| reference.strip_prefix('#')) {
        Some(pointer) => pointer
            .and_then(|pointer| document.pointer(pointer))
            .is_some_and(|target| never_ends(target, document, path, ending)),
        None => {
            let lists = ["allOf", "anyOf", "oneOf"].into_iter().filter_map(|name| part[name].as_array());
            let single = ["not", "if", "then", "else"].into_iter().filter_map(|name| part.get(name));
            let dependent = part["dependencies"].as_object().into_iter().flat_map(Map::values);
            lists
                .flatten()
                .chain(single)
                .chain(dependent)
                .any(|next| never_ends(next, document, path, ending))
        }
    };
    path.pop();
    if !round {
        ending.insert(std::ptr::from_ref(part));
    }
    round
}

impl Plugin for RequestValidation {
    fn rewrite(&self, exchange: &mut Exchange<'_>) -> Flow {
        if let Some((schema, validator)) = &self.header {
            let fields = header_document(exchange.request, schema);
            if let Some(wrong) = wrong(validator, &fields) {
                return self.reject(&wrong);
            }
        }
        let Some((schema, validator)) = &self.body else { return Flow::Continue };
        if exchange.request.fields.named(b"content-type").count() > 1 {
            return self.reject("there is more than one Content-Type");
        }
        let bytes = match &exchange.state.body {
            Body::Unread => return Flow::ReadBody(self.body_bytes_max),
            Body::TooLarge => return self.reject("the body is too large"),
            Body::Read(bytes) if bytes.is_empty() => return self.reject("the body is empty"),
            Body::Read(bytes) => exchange.state.body_replaced.as_ref().unwrap_or(bytes).clone(),
        };
        let is_form = exchange.field("Content-Type").is_some_and(|value| {
            value.to_ascii_lowercase().starts_with(b"application/x-www-form-urlencoded")
        });
        let mut document = match is_form {
            true => form_document(&bytes),
            false => match serde_json::from_slice(&bytes) {
                Ok(document) => document,
                Err(error) => return self.reject(&format!("the body is not JSON: {error}")),
            },
        };
        let is_completed = complete(&mut document, schema, 0);
        if let Some(wrong) = wrong(validator, &document) {
            return self.reject(&wrong);
        }
        if is_completed && !is_form {
            exchange.state.body_replaced = Some(document.to_string().into());
        }
        Flow::Continue
    }
}

impl RequestValidation {
    fn reject(&self, wrong: &str) -> Flow {
        let text = self.message.as_deref().unwrap_or(wrong).to_owned();
        let answer = Answer::new(self.status).field("Content-Type", "text/plain; charset=utf-8").body(text);
        Flow::respond(answer)
    }
}

/// What is wrong with `document` first.
fn wrong(validator: &Validator, document: &Value) -> Option<String> {
    let error = validator.iter_errors(document).next()?;
    let path = error.instance_path().as_str().trim_start_matches('/');
    Some(if path.is_empty() {
        error.to_string()
    } else {
        format!("property \"{path}\" validation failed: {error}")
    })
}

/// The fields as an object: under the names of the schema, whatever their case, and in lower case otherwise.
fn header_document(head: &RequestHead, schema: &Value) -> Value {
    let named = schema
        .get("properties")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .map(|(name, _)| name.as_str());
    let required =
        schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    let names: Vec<&str> = named.chain(required).collect();
    let mut document: Map<String, Value> = Map::new();
    for field in head.fields.iter() {
        let name = String::from_utf8_lossy(head.bytes(field.name)).into_owned();
        let value = String::from_utf8_lossy(head.bytes(field.value)).into_owned();
        let known = names.iter().find(|known| known.eq_ignore_ascii_case(&name));
        let key = known.map_or_else(|| name.to_ascii_lowercase(), |known| (*known).to_owned());
        match document.get_mut(&key) {
            Some(Value::String(before)) => {
                before.push_str(", ");
                before.push_str(&value);
            }
            _ => {
                document.insert(key, value.into());
            }
        }
    }
    document.into()
}

fn form_document(bytes: &[u8]) -> Value {
    let pairs = form_urlencoded::parse(bytes).into_owned();
    Value::Object(pairs.map(|(name, value)| (name, Value::String(value))).collect())
}

/// How deep defaults are filled in.
const DEPTH_MAX: usize = 32;

/// Fills in the defaults of absent members; says whether there were any.
fn complete(document: &mut Value, schema: &Value, depth: usize) -> bool {
    let mut changed = false;
    if depth > DEPTH_MAX {
        return false;
    }
    if let (Some(members), Some(properties)) =
        (document.as_object_mut(), schema.get("properties").and_then(Value::as_object))
    {
        for (name, member) in properties {
            match (members.get_mut(name), member.get("default")) {
                (Some(value), _) => changed |= complete(value, member, depth + 1),
                (None, Some(default)) => {
                    members.insert(name.clone(), default.clone());
                    changed = true;
                }
                (None, None) => {}
            }
        }
    }
    if let (Some(items), Some(item)) = (document.as_array_mut(), schema.get("items")) {
        for value in items {
            changed |= complete(value, item, depth + 1);
        }
    }
    changed
}

#[cfg(test)]
mod tests {
    use crate::testing::{Trial, refused};
    use serde_json::json;

    #[test]
    fn header_fields_must_satisfy_their_schema() {
        let trial = Trial::of(
            "request-validation",
            json!({"header_schema": {
                "type": "object", "required": ["X-Kind"], "properties": {"X-Kind": {"type": "string", "pattern": "^[a-z]+$"}},
            }}),
        );
        assert_eq!(trial.run("GET /\nx-kind: abc").answered(), "");
        assert!(trial.run("GET /").answered().starts_with("400 "));
        assert!(trial.run("GET /\nX-Kind: 1").answered().contains("property \"X-Kind\" validation failed"));
    }

    #[test]
    fn bodies_must_satisfy_their_schema() {
        let trial = Trial::of(
            "request-validation",
            json!({"rejected_code": 422, "max_req_body_size": 60, "body_schema": {
                "type": "object", "required": ["name"], "properties": {
                    "name": {"type": "string"}, "size": {"type": "integer", "default": 3},
                    "tags": {"type": "array", "items": {"type": "object", "properties": {"on": {"default": true}}}},
                },
            }}),
        );
        for (request, starts) in [
            ("POST /\n\n{\"name\": \"a\"}", ""),
            ("POST /\n\n{\"name\": 5}", "422 property \"name\" validation failed"),
            ("POST /\n\n{}", "422 "),
            ("POST /\n\nname", "422 the body is not JSON"),
            ("POST /", "422 the body is empty"),
            ("POST /\nContent-Type: a/b\nContent-Type: c/d\n\n{}", "422 there is more than one Content-Type"),
            (
                "POST /\n\n{\"name\": \"0123456789012345678901234567890123456789012345678901234\"}",
                "422 the body is too large",
            ),
            ("POST /\nContent-Type: application/x-www-form-urlencoded\n\nname=a%20b", ""),
            ("POST /\nContent-Type: application/x-www-form-urlencoded\n\nnames=a", "422 "),
        ] {
            let answered = trial.run(request).answered();
            assert!(
                answered.starts_with(starts) && answered.is_empty() == starts.is_empty(),
                "{request}: {answered}"
            );
        }
        let run = trial.run("POST /\n\n{\"name\":\"a\",\"tags\":[{}]}");
        let forwarded = run.state.body_replaced.as_deref().unwrap();
        assert_eq!(forwarded, br#"{"name":"a","tags":[{"on":true}],"size":3}"#);
        let run = trial.run("POST /\n\n{\"name\":\"a\", \"size\":1}");
        assert_eq!(run.state.body_replaced, None, "a complete document is forwarded as it came");
    }

    #[test]
    fn the_refusal_is_what_was_asked_for() {
        let config = json!({"rejected_msg": "no", "body_schema": {"type": "array"}});
        assert_eq!(Trial::of("request-validation", config).run("POST /\n\n{}").answered(), "400 no");
    }

    #[test]
    fn a_schema_that_is_none_is_refused() {
        assert_eq!(refused("request-validation", &json!({})), [""]);
        assert_eq!(
            refused("request-validation", &json!({"body_schema": {"type": "sting"}})),
            ["/body_schema"]
        );
    }

    #[test]
    fn p26_a_schema_refers_to_nothing_outside_itself() {
        for reference in ["http://127.0.0.1:1/schema.json", "file:///etc/passwd", "other.json"] {
            let config = json!({"body_schema": {"$ref": reference}});
            assert_eq!(refused("request-validation", &config), ["/body_schema"], "{reference}");
        }
    }

    #[test]
    fn p26_references_that_go_round_end_with_the_data_or_are_refused() {
        let tree = json!({"type": "object", "properties": {"next": {"$ref": "#"}}});
        let trial = Trial::of("request-validation", json!({"body_schema": tree}));
        assert_eq!(trial.run("POST /\n\n{\"next\":{\"next\":{}}}").answered(), "");
        assert!(trial.run("POST /\n\n{\"next\":{\"next\":7}}").answered().starts_with("400 "));
        let pair =
            json!({"definitions": {"a": {"$ref": "#/definitions/b"}, "b": {"$ref": "#/definitions/a"}}});
        let round = |reference: &str| {
            let mut schema = pair.clone();
            schema["allOf"] = json!([{"$ref": reference}]);
            schema
        };
        for schema in [json!({"$ref": "#"}), round("#"), round("#/definitions/a")] {
            assert_eq!(refused("request-validation", &json!({"body_schema": schema})), ["/body_schema"]);
        }
    }
}
