use serde_json::{Value as Json, json};

use super::*;

/// `true`, `false` or the violations of `expression` for `variables`.
fn check(expression: Json, variables: Json) -> String {
    let elements = expression.as_array().expect("a list");
    let variables = NamedVariables::new(variables.as_object().expect("an object"));
    match Expression::parse(elements) {
        Ok(expression) => expression.holds(&variables).to_string(),
        Err(violations) => violations.to_string(),
    }
}
