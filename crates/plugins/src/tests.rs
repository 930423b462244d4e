//! What holds for every plugin: order, documented fields, validation.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::{ALL, Kind, find, validate, validate_metadata};

/// The documented fields of every plugin of this release, one a line.
const DOCUMENTED: &str = include_str!("../testdata/documented-fields.txt");

#[test]
fn plugins_are_listed_in_running_order() {
    let order: Vec<_> = ALL.iter().map(|kind| (-kind.priority, kind.name)).collect();
    let mut sorted = order.clone();
    sorted.sort_unstable();
    assert_eq!(order, sorted);
}

#[test]
fn every_plugin_has_the_documented_fields() {
    for kind in ALL {
        let generated = lines(kind);
        let documented: BTreeSet<String> = DOCUMENTED
            .lines()
            .filter_map(|line| line.strip_prefix(&format!("{} ", kind.name)))
            .map(str::to_owned)
            .collect();
        assert!(!documented.is_empty(), "{} has no documented fields; add them to testdata", kind.name);
        let missing: Vec<_> = documented.difference(&generated).collect();
        let further: Vec<_> = generated.difference(&documented).collect();
        assert!(
            missing.is_empty() && further.is_empty(),
            "{}\ndocumented, but not generated:\n{missing:#?}\ngenerated, but not documented:\n{further:#?}",
            kind.name
        );
    }
}

#[test]
fn an_unknown_plugin_is_refused() {
    assert!(find("no-such-plugin").is_none());
    let violations = validate("no-such-plugin", &json!({})).to_string();
    assert_eq!(violations, "unknown plugin `no-such-plugin`");
    assert!(!validate_metadata("ip-restriction", &json!({})).is_empty());
}

#[test]
fn the_member_that_every_configuration_has_is_checked() {
    let meta = |meta: Value| {
        validate("request-id", &json!({ "_meta": meta }))
            .iter()
            .map(|wrong| wrong.path.clone())
            .collect::<Vec<_>>()
    };
    assert!(meta(json!({"disable": true, "priority": 5, "filter": [["uri", "==", "/"]]})).is_empty());
    assert_eq!(meta(json!({"disable": 1})), ["/_meta/disable"]);
    assert_eq!(meta(json!({"filter": [["uri", "=", "/"]]})), ["/_meta/filter/0/1"]);
    assert_eq!(meta(json!({"pre_function": "return function() end"})), ["/_meta/pre_function"]);
}

/// Priority, fields and rules of a kind, one a line.
fn lines(kind: &Kind) -> BTreeSet<String> {
    let mut lines = BTreeSet::from([format!("priority {}", kind.priority)]);
    describe("config", &(kind.schema)(), &mut lines);
    if let Some(metadata) = kind.metadata {
        describe("metadata", &metadata(), &mut lines);
    }
    if let Some(credential) = kind.credential {
        describe("credential", &(credential.schema)(), &mut lines);
    }
    lines
}

fn describe(scope: &str, schema: &Value, lines: &mut BTreeSet<String>) {
    for word in ["oneOf", "anyOf", "dependencies", "minProperties"] {
        if let Some(rule) = schema.get(word) {
            lines.insert(format!("{scope} {word} {}", canonical(rule)));
        }
    }
    properties(scope, "", schema, "", lines);
}

fn properties(scope: &str, path: &str, schema: &Value, when: &str, lines: &mut BTreeSet<String>) {
    let required: Vec<&str> =
        schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        let default = field.get("default").map_or(String::new(), |value| format!(" = {}", canonical(value)));
        let needed = if required.contains(&name.as_str()) { " required" } else { "" };
        let kind = if is_upstream(&path) { "upstream".to_owned() } else { kind_of(field) };
        lines.insert(format!("{scope} {path}: {kind}{default}{needed}{when}"));
        inside(scope, &path, field, when, lines);
    }
    if let Some(condition) = schema.get("if") {
        let value = condition["properties"]["policy"]["enum"][0].as_str().unwrap_or_default();
        properties(scope, path, &schema["then"], &format!(" when {value}"), lines);
        properties(scope, path, &schema["else"], when, lines);
    }
}

fn inside(scope: &str, path: &str, field: &Value, when: &str, lines: &mut BTreeSet<String>) {
    if is_upstream(path) {
        return;
    }
    properties(scope, path, field, when, lines);
    if let Some(items) = field.get("items") {
        inside(scope, &format!("{path}[]"), items, when, lines);
    }
    for form in
        ["oneOf", "anyOf"].iter().filter_map(|word| field.get(word)).filter_map(Value::as_array).flatten()
    {
        inside(scope, path, form, when, lines);
    }
}

/// An upstream is documented once, where upstreams are.
fn is_upstream(path: &str) -> bool {
    path.ends_with("[].upstream")
}

/// Type and limits of a field.
fn kind_of(field: &Value) -> String {
    let forms = field.get("oneOf").or_else(|| field.get("anyOf")).and_then(Value::as_array);
    if let Some(forms) = forms {
        let kinds: BTreeSet<String> = forms.iter().map(kind_of).collect();
        return kinds.into_iter().collect::<Vec<_>>().join("|");
    }
    let mut kind = field["type"].as_str().unwrap_or("any").to_owned();
    if let Some(items) = field.get("items").map(kind_of).filter(|items| items != "any") {
        kind = format!("{kind} of {items}");
    }
    for word in [
        "enum",
        "minimum",
        "exclusiveMinimum",
        "maximum",
        "minLength",
        "maxLength",
        "minItems",
        "maxItems",
        "uniqueItems",
        "minProperties",
    ] {
        if let Some(value) = field.get(word).filter(|value| **value != Value::Bool(false)) {
            kind = format!("{kind} {word} {}", canonical(value));
        }
    }
    kind
}

/// JSON with sorted members and numbers as what they are worth.
fn canonical(value: &Value) -> String {
    match value {
        Value::Number(number) => number.as_f64().unwrap_or_default().to_string(),
        Value::Array(items) => format!("[{}]", items.iter().map(canonical).collect::<Vec<_>>().join(",")),
        Value::Object(members) => {
            let mut members: Vec<_> =
                members.iter().map(|(key, value)| format!("\"{key}\":{}", canonical(value))).collect();
            members.sort();
            format!("{{{}}}", members.join(","))
        }
        other => other.to_string(),
    }
}
