//! JSON in, every violation at once out.
//!
//! A document is checked against the JSON Schema generated from its Rust type, then parsed, then checked for rules
//! between fields. The first step reports everything it finds, each with the JSON path of the field; only a
//! document without violations is parsed.
//! The wording (`value must be a string`) is what published clients assert on.

use std::fmt;

use jsonschema::error::{TypeKind, ValidationErrorKind};
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::{PartialSchema, ToSchema};

/// One thing wrong with a document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Violation {
    /// Where, as a JSON pointer (RFC 6901); empty: the whole document.
    pub path: String,
    /// What is wrong and what was expected.
    pub message: String,
}

/// Everything wrong with a document, in the order it was found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, thiserror::Error)]
pub struct Violations(Vec<Violation>);

impl Violations {
    /// A single violation.
    #[must_use]
    pub fn one(path: impl Into<String>, message: impl Into<String>) -> Self {
        let mut violations = Self::default();
        violations.add(path, message);
        violations
    }

    /// Notes that `message` holds at `path`.
    pub fn add(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.0.push(Violation { path: path.into(), message: message.into() });
    }

    /// Takes over what another check found, at a deeper place.
    pub fn absorb(&mut self, at: &str, others: Violations) {
        self.0.extend(others.0.into_iter().map(|v| Violation { path: format!("{at}{}", v.path), ..v }));
    }

    /// The same, found at a deeper place.
    #[must_use]
    pub fn below(self, at: &str) -> Self {
        let mut moved = Self::default();
        moved.absorb(at, self);
        moved
    }

    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What is wrong, one by one.
    pub fn iter(&self) -> std::slice::Iter<'_, Violation> {
        self.0.iter()
    }

    /// `Ok` if nothing is wrong.
    ///
    /// # Errors
    /// Itself, if something is.
    pub fn into_result(self) -> Result<(), Self> {
        if self.is_empty() { Ok(()) } else { Err(self) }
    }
}

impl fmt::Display for Violations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, violation) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { " | " };
            if violation.path.is_empty() {
                write!(f, "{separator}{}", violation.message)?;
            } else {
                write!(f, "{separator}Error at \"{}\": {}", violation.path, violation.message)?;
            }
        }
        Ok(())
    }
}

/// The compiled JSON Schema of one Rust type.
pub struct Schema {
    validator: jsonschema::Validator,
    document: Value,
}

impl Schema {
    /// The schema generated for `T`, with everything it refers to.
    ///
    /// # Panics
    /// If the generated schema is not a valid JSON Schema, which the tests of every type used so rule out.
    #[must_use]
    pub fn of<T: ToSchema>() -> Self {
        let document = document_of::<T>();
        match Self::compile(document) {
            Ok(schema) => schema,
            Err(error) => unreachable!("the schema generated for {} is invalid: {error}", T::name()),
        }
    }

    /// The schema that `document` is.
    ///
    /// # Errors
    /// What keeps it from being a JSON Schema.
    pub fn compile(document: Value) -> Result<Self, String> {
        let validator = jsonschema::validator_for(&document).map_err(|error| error.to_string())?;
        Ok(Self { validator, document })
    }

    /// The schema as a self-contained JSON document.
    #[must_use]
    pub fn document(&self) -> &Value {
        &self.document
    }

    /// Reports everything in `document` that the schema forbids.
    #[must_use]
    pub fn violations(&self, document: &Value) -> Violations {
        let mut violations = Violations::default();
        for error in self.validator.iter_errors(document) {
            describe(&error, &mut violations);
        }
        violations
    }
}

/// The schema generated for `T` with everything it refers to, as a JSON document.
#[must_use]
pub fn document_of<T: ToSchema>() -> Value {
    let mut referenced = Vec::new();
    T::schemas(&mut referenced);
    let mut schema = json!(<T as PartialSchema>::schema());
    if let Value::Object(object) = &mut schema {
        let schemas: serde_json::Map<String, Value> =
            referenced.into_iter().map(|(name, schema)| (name, json!(schema))).collect();
        object.insert("components".to_owned(), json!({ "schemas": schemas }));
    }
    schema
}

fn describe(error: &jsonschema::ValidationError<'_>, violations: &mut Violations) {
    let path = error.instance_path().as_str();
    let message = match error.kind() {
        ValidationErrorKind::Required { property } => {
            let name = property.as_str().unwrap_or_default();
            return violations.add(format!("{path}/{name}"), format!("property \"{name}\" is missing"));
        }
        ValidationErrorKind::Type { kind } => type_message(kind),
        ValidationErrorKind::MinLength { limit } => format!("minimum string length is {limit}"),
        ValidationErrorKind::MaxLength { limit } => format!("maximum string length is {limit}"),
        ValidationErrorKind::MinItems { limit } => format!("minimum number of items is {limit}"),
        ValidationErrorKind::MaxItems { limit } => format!("maximum number of items is {limit}"),
        ValidationErrorKind::UniqueItems => "duplicate items found".to_owned(),
        ValidationErrorKind::Minimum { limit } => format!("number must be at least {limit}"),
        ValidationErrorKind::Maximum { limit } => format!("number must be at most {limit}"),
        ValidationErrorKind::ExclusiveMinimum { limit } => format!("number must be more than {limit}"),
        ValidationErrorKind::Pattern { pattern } => {
            format!("string doesn't match the regular expression \"{pattern}\"")
        }
        ValidationErrorKind::Enum { options } => format!("value is not one of the allowed values {options}"),
        ValidationErrorKind::OneOfNotValid { context } | ValidationErrorKind::AnyOf { context } => {
            match meant_form(path, context) {
                Some(errors) => return errors.iter().for_each(|error| describe(error, violations)),
                None => "value has none of the allowed forms".to_owned(),
            }
        }
        _ => error.to_string(),
    };
    violations.add(path, message);
}

/// Of several allowed forms, the one whose type the value has: what is wrong inside it is what the writer wants to
/// know.
fn meant_form<'a>(
    path: &str,
    forms: &'a [Vec<jsonschema::ValidationError<'static>>],
) -> Option<&'a Vec<jsonschema::ValidationError<'static>>> {
    let is_other_type = |error: &jsonschema::ValidationError<'_>| {
        matches!(error.kind(), ValidationErrorKind::Type { .. }) && error.instance_path().as_str() == path
    };
    let mut meant = forms.iter().filter(|errors| !errors.iter().any(is_other_type));
    let first = meant.next()?;
    meant.next().is_none().then_some(first)
}

fn type_message(kind: &TypeKind) -> String {
    let names = match kind {
        TypeKind::Single(one) => vec![*one],
        TypeKind::Multiple(several) => several.iter().collect(),
    };
    let names: Vec<String> = names.iter().map(ToString::to_string).filter(|name| name != "null").collect();
    let named = names.join(" or ");
    let article = if named.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
    format!("value must be {article} {named}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::route::Route;
    use crate::resource::service::ServiceTemplate;

    fn check<T: ToSchema>(document: &Value) -> String {
        Schema::of::<T>().violations(document).to_string()
    }

    #[test]
    fn every_violation_is_reported_with_its_path() {
        let document = json!({"path_prefix": 12345, "hosts": ["ok.example", "b d"], "upstream": {"nodes": [{"host": "h", "port": 0, "weight": 1}], "retries": "x"}});
        let found = Schema::of::<ServiceTemplate>().violations(&document);
        let mut paths: Vec<_> = found.iter().map(|v| v.path.as_str()).collect();
        paths.sort_unstable();
        assert_eq!(
            paths,
            ["/hosts/1", "/name", "/path_prefix", "/upstream/nodes/0/port", "/upstream/retries"]
        );
    }

    #[test]
    fn a_wrong_type_is_worded_as_published_clients_expect() {
        let document = json!({"name": "n", "path_prefix": 12345});
        assert_eq!(check::<ServiceTemplate>(&document), "Error at \"/path_prefix\": value must be a string");
    }

    #[test]
    fn limits_of_routes_hold() {
        let long = format!("/{}", "x".repeat(4096));
        for (paths, expected) in [
            (json!([]), "Error at \"/paths\": minimum number of items is 1"),
            (json!([123]), "Error at \"/paths/0\": value must be a string"),
            (json!(["pets"]), "Error at \"/paths/0\": string doesn't match the regular expression \"^/\""),
            (json!([long]), "Error at \"/paths/0\": maximum string length is 4096"),
            (json!(vec!["/a"; 65]), "Error at \"/paths\": maximum number of items is 64"),
            (json!(vec!["/a"; 64]), ""),
        ] {
            assert_eq!(check::<Route>(&json!({"name": "r", "paths": paths})), expected);
        }
        assert_eq!(
            check::<Route>(&json!({"name": "r", "paths": ["/a"], "methods": ["GET", "GET"]})),
            "Error at \"/methods\": duplicate items found"
        );
        assert!(
            check::<Route>(&json!({"name": "r", "paths": ["/a"], "methods": ["get"]})).contains("/methods/0")
        );
    }

    #[test]
    fn names_have_their_documented_lengths() {
        assert_eq!(check::<ServiceTemplate>(&json!({"name": "x".repeat(100)})), "");
        assert_eq!(
            check::<ServiceTemplate>(&json!({"name": "x".repeat(101)})),
            "Error at \"/name\": maximum string length is 100"
        );
        assert_eq!(
            check::<ServiceTemplate>(&json!({"name": ""})),
            "Error at \"/name\": minimum string length is 1"
        );
    }
}
