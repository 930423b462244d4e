//! Expressions, one JSON list and one JSON object of variables on two lines: parsing and evaluating never panics and
//! never takes long (libFuzzer's own time limit ends a run that does), and an answer does not change.

#![no_main]

use gatewright_model::expression::{Expression, NamedVariables};
use libfuzzer_sys::fuzz_target;
use serde_json::{Map, Value};

fuzz_target!(|text: &str| {
    let (expression, variables) = text.split_once('\n').unwrap_or((text, "{}"));
    let Ok(elements) = serde_json::from_str::<Vec<Value>>(expression) else { return };
    let variables = serde_json::from_str::<Map<String, Value>>(variables).unwrap_or_default();
    let variables = NamedVariables::new(&variables);
    match Expression::parse(&elements) {
        Err(violations) => assert!(violations.iter().count() > 0, "a refusal names what is wrong"),
        Ok(parsed) => {
            let holds = parsed.holds(&variables);
            assert_eq!(parsed.holds(&variables), holds);
            if parsed.failing_rule(&variables).is_some() {
                assert!(!holds, "a rule fails and the expression holds");
            }
        }
    }
});
