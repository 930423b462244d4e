//! Edits of header fields, as the plugins that rewrite heads configure them.
//!
//! A value never carries a line break into a head, whatever a variable holds, and the fields that frame a message
//! cannot be edited at all: that would let one message be read as two.

use gatewright_model::expression::Variables;
use gatewright_model::message::{Fields, Known};
use gatewright_model::validation::Violations;
use serde_json::{Map, Value, json};

use crate::schema;
use crate::template::Template;

/// Parsed edits, in the order they are made: add, set, remove.
#[derive(Debug, Default)]
pub(crate) struct Edits {
    add: Vec<(Box<str>, Template)>,
    set: Vec<(Box<str>, Template)>,
    remove: Vec<Box<str>>,
}

impl Edits {
    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.add.is_empty() && self.set.is_empty() && self.remove.is_empty()
    }

    /// Parses `{"add": …, "set": …, "remove": …}`, or a map of fields to set.
    pub(crate) fn parse(document: &Value, at: &str, violations: &mut Violations) -> Self {
        let mut edits = Self::default();
        let Some(members) = document.as_object() else {
            violations.add(at, "value must be an object");
            return edits;
        };
        let is_grouped = |(name, value): (&String, &Value)| match name.as_str() {
            "add" | "set" => value.is_object() || value.is_array(),
            "remove" => value.is_array(),
            _ => false,
        };
        if !members.iter().all(is_grouped) {
            edits.set = fields(members, at, violations);
            return edits;
        }
        match members.get("add") {
            Some(Value::Object(map)) => edits.add = fields(map, &format!("{at}/add"), violations),
            Some(Value::Array(lines)) => edits.add = field_lines(lines, &format!("{at}/add"), violations),
            _ => {}
        }
        if let Some(Value::Object(map)) = members.get("set") {
            edits.set = fields(map, &format!("{at}/set"), violations);
        }
        if let Some(Value::Array(names)) = members.get("remove") {
            for (index, name) in names.iter().filter_map(Value::as_str).enumerate() {
                check_name(name, &format!("{at}/remove/{index}"), violations);
                edits.remove.push(name.into());
            }
        }
        edits
    }

    /// Makes the edits on `fields`; the values were rendered before, because they are read from the same message.
    pub(crate) fn apply(&self, rendered: Rendered, fields: &mut Fields) {
        for ((name, _), value) in self.add.iter().zip(rendered.add) {
            fields.append(name, &value);
        }
        for (name, _) in &self.set {
            fields.remove(name.as_bytes());
        }
        for ((name, _), value) in self.set.iter().zip(rendered.set) {
            fields.append(name, &value);
        }
        for name in &self.remove {
            fields.remove(name.as_bytes());
        }
    }

    /// The values for these variables and captures.
    pub(crate) fn render<'c>(
        &self,
        variables: &dyn Variables,
        captured: &dyn Fn(usize) -> Option<&'c [u8]>,
    ) -> Rendered {
        let render =
            |(_, template): &(Box<str>, Template)| one_line(template.render_captured(variables, captured));
        Rendered { add: self.add.iter().map(render).collect(), set: self.set.iter().map(render).collect() }
    }

    /// The last value that is set for `name`, taken out of the edits.
    pub(crate) fn take_set(&mut self, name: &str) -> Option<Template> {
        let index = self.set.iter().rposition(|(set, _)| set.eq_ignore_ascii_case(name))?;
        Some(self.set.remove(index).1)
    }
}

/// Values of edits, in their order.
pub(crate) struct Rendered {
    add: Vec<Vec<u8>>,
    set: Vec<Vec<u8>>,
}

fn fields(map: &Map<String, Value>, at: &str, violations: &mut Violations) -> Vec<(Box<str>, Template)> {
    let mut parsed = Vec::with_capacity(map.len());
    for (name, value) in map {
        check_name(name, &format!("{at}/{name}"), violations);
        let values = match value {
            Value::Array(values) => values.as_slice(),
            one => std::slice::from_ref(one),
        };
        parsed.extend(values.iter().map(|value| (name.as_str().into(), Template::parse(&value_text(value)))));
    }
    parsed
}

/// Lines of the form `name: value`.
fn field_lines(lines: &[Value], at: &str, violations: &mut Violations) -> Vec<(Box<str>, Template)> {
    let mut parsed = Vec::with_capacity(lines.len());
    for (index, line) in lines.iter().filter_map(Value::as_str).enumerate() {
        let Some((name, value)) = line.split_once(':') else {
            violations.add(format!("{at}/{index}"), "expected `name: value`");
            continue;
        };
        let name = name.trim();
        check_name(name, &format!("{at}/{index}"), violations);
        parsed.push((name.into(), Template::parse(value.trim())));
    }
    parsed
}

/// `value` without what would begin another line.
pub(crate) fn one_line(mut value: Vec<u8>) -> Vec<u8> {
    value.retain(|byte| *byte == b'\t' || (*byte >= b' ' && *byte != 0x7f));
    value
}

/// A JSON string or number as the text of a field.
pub(crate) fn value_text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Refuses what is no name of a field, and the names that frame a message.
pub(crate) fn check_name(name: &str, at: &str, violations: &mut Violations) {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || !name.bytes().all(is_token) {
        violations.add(at, format!("`{name}` is not the name of a header field"));
    }
    let frames = matches!(
        Known::of(name.as_bytes()),
        Known::ContentLength
            | Known::TransferEncoding
            | Known::Connection
            | Known::Upgrade
            | Known::Trailer
            | Known::Te
    );
    if frames {
        violations
            .add(at, format!("header field `{name}` frames the message and cannot be changed; leave it out"));
    }
}

/// The schema of `{"add": …, "set": …, "remove": …}` on a request, or a map of fields to set.
pub(crate) fn headers_schema() -> Value {
    let scalar = json!({ "oneOf": [{ "type": "string" }, { "type": "number" }] });
    let list = json!({ "type": "array", "minItems": 1, "items": scalar });
    let several = json!({ "oneOf": [{ "type": "string" }, { "type": "number" }, list] });
    let grouped = json!({
        "type": "object",
        "minProperties": 1,
        "additionalProperties": false,
        "properties": {
            "add": schema::map(&several),
            "set": schema::map(&several),
            "remove": { "type": "array", "minItems": 1, "items": { "type": "string" } },
        },
    });
    json!({ "oneOf": [grouped, schema::map(&scalar)] })
}
