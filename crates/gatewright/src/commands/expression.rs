//! `gatewright expression`: evaluates expressions, one per line, so that they can be tried and tested.

use gatewright_model::expression::{self, NamedVariables};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{Failure, lines};
use crate::arguments::Expression;

/// One line.
#[derive(Deserialize)]
struct Case {
    expr: Value,
    #[serde(default)]
    vars: Map<String, Value>,
}

/// Prints `true`, `false` or `error: …` for each case.
pub(crate) fn run(arguments: &Expression) -> Result<(), Failure> {
    Ok(lines::answer(&arguments.cases, answer)?)
}

fn answer(line: &str) -> String {
    match evaluate(line) {
        Ok(holds) => holds.to_string(),
        Err(reason) => format!("error: {}", reason.replace('\n', " ")),
    }
}

fn evaluate(line: &str) -> Result<bool, String> {
    let case: Case = serde_json::from_str(line).map_err(|error| error.to_string())?;
    let Value::Array(elements) = &case.expr else { return Err("`expr` is not a list".to_owned()) };
    let expression = expression::Expression::parse(elements).map_err(|violations| violations.to_string())?;
    Ok(expression.holds(&NamedVariables::new(&case.vars)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_is_true_false_or_an_error_that_names_the_element() {
        for (line, expected) in [
            (r#"{"expr": [["arg_v", "==", "2"]], "vars": {"arg_v": "2"}}"#, "true"),
            (r#"{"expr": [["arg_v", "==", "2"]], "vars": {}}"#, "false"),
            (r#"{"expr": []}"#, "true"),
            (r#"{"expr": 1}"#, "error: `expr` is not a list"),
        ] {
            assert_eq!(answer(line), expected, "{line}");
        }
        let unknown = answer(r#"{"expr": [["arg_v", "=", "2"]], "vars": {}}"#);
        assert!(unknown.starts_with("error: Error at \"/0/1\": "), "{unknown}");
        assert!(answer("no json").starts_with("error: "));
    }
}
