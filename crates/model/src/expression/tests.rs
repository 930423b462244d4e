//! Expressions: what each rule says, case by case.

use serde_json::{Value as Json, json};

use super::*;
use crate::limits;

/// `true`, `false` or the violations of `expression` for `variables`.
fn check(expression: &Json, variables: &Json) -> String {
    let elements = expression.as_array().expect("a list");
    let variables = NamedVariables::new(variables.as_object().expect("an object"));
    match Expression::parse(elements) {
        Ok(expression) => expression.holds(&variables).to_string(),
        Err(violations) => violations.to_string(),
    }
}

/// Checks one rule on the variable `x`; `null` stands for a missing one.
fn check_rules(cases: &[(Json, Json, bool)]) {
    for (rule, value, expected) in cases {
        let mut elements = vec![json!("x")];
        elements.extend(rule.as_array().expect("a list").iter().cloned());
        let found = check(&json!([elements]), &json!({ "x": value }));
        assert_eq!(found, expected.to_string(), "{rule} {value}");
    }
}

#[test]
fn equality_is_strict_but_for_numbers_on_the_right() {
    check_rules(&[
        (json!(["==", "a"]), json!("a"), true),
        (json!(["==", "a"]), json!("A"), false),
        (json!(["==", "18"]), json!("18"), true),
        (json!(["==", "18"]), json!(18), false),
        (json!(["==", 18]), json!("18.0"), true),
        (json!(["==", 18]), json!(" 0x12 "), true),
        (json!(["==", 18]), json!("18a"), false),
        (json!(["==", true]), json!(true), true),
        (json!(["==", true]), json!("true"), false),
        (json!(["==", ["a"]]), json!("a"), false),
        (json!(["==", null]), json!(null), true),
        (json!(["=="]), json!(null), true),
        (json!(["==", ""]), json!(null), false),
        (json!(["~=", "a"]), json!(null), true),
        (json!(["~=", null]), json!(null), false),
        (json!(["~="]), json!("a"), true),
        (json!(["~=", 18]), json!("18"), false),
        (json!(["~=", 18]), json!("x"), true),
    ]);
}

#[test]
fn a_rule_of_two_elements_compares_as_it_is_written() {
    check_rules(&[
        (json!(["a"]), json!("a"), true),
        (json!(["A"]), json!("A"), true),
        (json!(["A"]), json!("a"), false),
        (json!([5]), json!("5"), true),
    ]);
}

#[test]
fn order_is_numeric_and_nothing_else_is_ordered() {
    check_rules(&[
        (json!([">", 10]), json!("11"), true),
        (json!([">", "9"]), json!("10"), true),
        (json!([">", 10]), json!(10), false),
        (json!([">=", 10]), json!("10"), true),
        (json!(["<", 1000]), json!("1e2"), true),
        (json!(["<=", "a"]), json!("a"), false),
        (json!([">", null]), json!("5"), false),
        (json!(["<", 5]), json!(null), false),
        (json!([">", 5]), json!("inf"), false),
    ]);
}

#[test]
fn negation_is_true_exactly_when_the_condition_is_not() {
    check_rules(&[
        (json!(["!", "==", "a"]), json!("b"), true),
        (json!(["!", "~=", "a"]), json!(null), false),
        (json!(["!", ">", 5]), json!(null), true),
        (json!(["!", "in", ["a"]]), json!("a"), false),
        (json!(["!", "~~", "^a"]), json!("b"), true),
        (json!(["!", "ipmatch", "10.0.0.0/8"]), json!("no address"), true),
    ]);
}

#[test]
fn lists_are_searched_by_type_and_value() {
    check_rules(&[
        (json!(["in", ["1", "2"]]), json!("2"), true),
        (json!(["in", ["1", "2"]]), json!(2), false),
        (json!(["in", [1, 2]]), json!("2"), false),
        (json!(["IN", ["a", true]]), json!(true), true),
        (json!(["in", "abc"]), json!("a"), false),
        (json!(["has", "a"]), json!(["b", "a"]), true),
        (json!(["has", "a"]), json!("a"), false),
        (json!(["has", 1]), json!(["1"]), false),
        (json!(["has", "a"]), json!(null), false),
    ]);
}

#[test]
fn addresses_match_their_networks() {
    check_rules(&[
        (json!(["ipmatch", "10.1.2.3/8"]), json!("10.9.9.9"), true),
        (json!(["ipmatch", ["192.168.0.1", "::1"]]), json!("::1"), true),
        (json!(["ipmatch", ["::1"]]), json!("0:0:0:0:0:0:0:1"), true),
        (json!(["ipmatch", ["[::1]"]]), json!("[::1]"), true),
        (json!(["ipmatch", ["127.0.0.1"]]), json!("::ffff:127.0.0.1"), false),
        (json!(["ipmatch", ["0.0.0.0/0"]]), json!("::1"), false),
        (json!(["ipmatch", ["0.0.0.0/0"]]), json!("8.8.8.8"), true),
        (json!(["ipmatch", ["0.0.0.0/0"]]), json!(null), false),
        (json!(["ipmatch", ["0.0.0.0/0"]]), json!("localhost"), false),
    ]);
}

#[test]
fn regular_expressions_speak_the_dialect_of_the_reference() {
    let cases = [
        ("[Dd]ev", "Development", true),
        ("^.$", "é", false),
        ("^..$", "é", true),
        ("é+$", "xé", true),
        ("^[é]{2}$", "é", true),
        ("^a.c$", "a\nc", false),
        ("^b$", "b\n", true),
        ("^b$", "b\n\n", false),
        (r"b\z", "b\n", false),
        (r"b\Z", "b\n", true),
        ("(?m)^b$", "a\nb\nc", true),
        ("^b$", "a\nb\nc", false),
        ("(a$|b)c", "bc", true),
        ("^(?!/internal)/", "/public", true),
        ("^(?!/internal)/", "/internal/x", false),
        ("(?<!a)b", "ab", false),
        (r"^(a+)\1$", "aaaa", true),
        (r"^(a+)\1$", "aaa", false),
        ("^a++b", "aaab", true),
        ("^(?>a+)ab", "aaab", false),
        (r"(?<y>\d{4})-(?P<m>\d\d)", "2024-05", true),
        (r"(?'q'a)\k<q>", "aa", true),
        (r"\Qa.b\E", "a.b", true),
        (r"\Qa.b\E", "axb", false),
        (r"^\h\H$", "\tx", true),
        (r"^\R$", "\r\n", true),
        (r"a\<b\>", "a<b>", true),
        (r"^\/v\d+\/", "/v1/x", true),
        ("{id}", "/{id}", true),
        ("^a{2}$", "aa", true),
        ("a{,2}", "a{,2}", true),
        (r"^[\w-.]+$", "a-b.c", true),
        ("^[[a]+$", "[a", true),
        ("^[]a]+$", "]a", true),
        ("^[a&&b]+$", "a&b", true),
        ("^[[:alpha:]-]+$", "a-b", true),
        (r"^[\h]$", " ", true),
        ("a(?#comment)b", "ab", true),
        (r"\bcat\b", "concat", false),
        ("", "abc", true),
    ];
    for (pattern, value, expected) in cases {
        let found = check(&json!([["x", "~~", pattern]]), &json!({ "x": value }));
        assert_eq!(found, expected.to_string(), "{pattern} {value:?}");
    }
}

#[test]
fn case_is_ignored_for_ascii_only() {
    check_rules(&[
        (json!(["~*", "^abc$"]), json!("ABC"), true),
        (json!(["~~", "^abc$"]), json!("ABC"), false),
        (json!(["~*", "É"]), json!("é"), false),
        (json!(["~*", "(?!x)ABC"]), json!("abc"), true),
        (json!(["~~", "^1"]), json!(11), true),
        (json!(["~~", "true"]), json!(true), true),
        (json!(["~~", "."]), json!(["a"]), false),
    ]);
}

#[test]
fn a_regular_expression_that_does_not_compile_matches_nothing_and_is_warned_about() {
    for pattern in ["[0", "(", "*a", "(?<n", "\\"] {
        let elements = [json!(["x", "~~", pattern])];
        let expression = Expression::parse(&elements).expect("an expression");
        assert!(!expression.holds(&NamedVariables::new(json!({"x": "0"}).as_object().unwrap())), "{pattern}");
        assert_eq!(
            expression.warnings().iter().map(|w| w.path.as_str()).collect::<Vec<_>>(),
            ["/0/2"],
            "{pattern}"
        );
    }
}

#[test]
fn a_regular_expression_that_backtracks_without_end_is_given_up_and_counted() {
    let elements = [json!(["x", "~~", r"^(?:(a|aa)\1?)+$"])];
    let expression = Expression::parse(&elements).expect("an expression");
    for value in ["a".repeat(60) + "b", "a".repeat(limits::REGEX_BACKTRACK_SUBJECT_MAX + 1)] {
        let before = regex_limits_hit();
        assert!(!expression.holds(&NamedVariables::new(json!({ "x": value }).as_object().unwrap())));
        assert!(regex_limits_hit() > before);
    }
}

#[test]
fn rules_are_joined_and_nested() {
    let yes = json!(["x", "==", "1"]);
    let no = json!(["x", "==", "2"]);
    for (expression, expected) in [
        (json!([]), true),
        (json!([yes, yes]), true),
        (json!([yes, no]), false),
        (json!(["and", yes, no]), false),
        (json!(["OR", no, yes]), true),
        (json!(["!AND", yes, no]), true),
        (json!(["!or", no, no]), true),
        (json!(["!OR", no, yes]), false),
        (json!([[yes, yes], yes]), true),
        (json!([yes, ["OR", no, [yes, ["!AND", no, yes]]]]), true),
        (json!(["OR", no, no, no, yes]), true),
    ] {
        assert_eq!(check(&expression, &json!({"x": "1"})), expected.to_string(), "{expression}");
    }
}

#[test]
fn errors_name_the_element_and_what_was_expected() {
    for (expression, path, message) in [
        (json!(["x", "==", "v"]), "", "rule should be wrapped inside brackets"),
        (json!(["&&", ["x", "==", "v"], ["x", "==", "v"]]), "", "rule should be wrapped inside brackets"),
        (json!([[]]), "/0", "rule too short"),
        (json!(["OR", ["x", "==", "v"]]), "", "rule too short"),
        (json!(["OR", ["x", "==", "v"], ["AND"]]), "/2", "rule too short"),
        (json!([["x"]]), "/0", "invalid expression"),
        (json!([["x", "==", 1], 5]), "/1", "expected a rule"),
        (json!([[null, "==", 1]]), "/0/0", "expected the name of a variable"),
        (json!([["", "==", 1]]), "/0/0", "the name of a variable has 1 to"),
        (json!([["!", "x", "==", 1]]), "/0/0", "bad 'not' expression"),
        (json!([["x", "!"]]), "/0", "bad 'not' expression"),
        (json!([["x", "===", 1]]), "/0/1", "invalid operator '==='"),
        (json!([["x", "!", "has not", 1]]), "/0/2", "invalid operator 'has not'"),
        (json!([["x", 5, 1]]), "/0/1", "invalid operator '5'"),
        (json!([["x", "~~", 5]]), "/0/2", "expected a regular expression as text"),
        (json!([["x", "ipmatch"]]), "/0/2", "invalid ip address"),
        (json!([["x", "ipmatch", []]]), "/0/2", "invalid ip address"),
        (json!([["x", "ipmatch", ["10.0.0.1", "1.2.3"]]]), "/0/2/1", "invalid ip address"),
        (json!([["x", "ipmatch", "10.0.0.0/33"]]), "/0/2", "invalid ip address"),
        (json!([["a", "==", 1], ["OR", ["b", "==", 1], ["c", "~~", null]]]), "/1/2/2", "expected a regular"),
    ] {
        let violations = Expression::parse(expression.as_array().unwrap()).expect_err("violations");
        let first = violations.iter().next().expect("one violation");
        assert_eq!(first.path, path, "{expression}");
        assert!(first.message.starts_with(message), "{expression}: {}", first.message);
    }
}

#[test]
fn every_error_is_reported() {
    let expression = json!([["x", "=", 1], ["OR", ["y"], ["z", "~~", 1]]]);
    let violations = Expression::parse(expression.as_array().unwrap()).expect_err("violations");
    let paths: Vec<_> = violations.iter().map(|violation| violation.path.as_str()).collect();
    assert_eq!(paths, ["/0/1", "/1/1", "/1/2/2"]);
}

#[test]
fn depth_and_size_are_limited() {
    let nested = |depth| (0..depth).fold(json!(["x", "==", 1]), |inner, _| json!([inner]));
    let parse = |json: &Json| Expression::parse(json.as_array().unwrap());
    assert!(parse(&nested(limits::EXPRESSION_DEPTH_MAX)).is_ok());
    assert!(parse(&nested(limits::EXPRESSION_DEPTH_MAX + 1)).is_err());
    assert!(parse(&json!(vec![json!(["x", "==", 1]); limits::EXPRESSION_RULES_MAX])).is_ok());
    let many = parse(&json!(vec![json!(["x", "==", 1]); limits::EXPRESSION_RULES_MAX * 10]));
    assert_eq!(many.expect_err("too many").iter().count(), 1);
    let long = "a".repeat(limits::REGEX_LENGTH_MAX + 1);
    assert!(parse(&json!([["x", "~~", long]])).is_err());
    assert!(parse(&json!([["x", "in", vec![1; limits::EXPRESSION_LIST_MAX + 1]]])).is_err());
}

#[test]
fn the_first_failing_rule_of_a_plain_list_is_named() {
    let variables = NamedVariables::new(json!({"x": "1"}).as_object().unwrap());
    let parse = |json: Json| Expression::parse(json.as_array().unwrap()).unwrap();
    assert_eq!(parse(json!([["x", "==", "1"], ["x", "==", "2"]])).failing_rule(&variables), Some(1));
    assert_eq!(parse(json!([["x", "==", "1"]])).failing_rule(&variables), None);
}
