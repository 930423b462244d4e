//! JSON lists to expressions, with every error at its element.

use serde_json::Value as Json;

use super::address::AddressSet;
use super::{Condition, Join, Literal, Node, Order, Pattern, Rule, Variable, number};
use crate::limits;
use crate::validation::Violations;

const OPERATORS: &str = "==, ~=, >, >=, <, <=, ~~, ~*, in, has, ipmatch";

pub(super) fn parse(elements: &[Json]) -> Result<(Node, Violations), Violations> {
    let mut parser = Parser::default();
    if elements.is_empty() {
        return Ok((Node::Group { join: Join::And, nodes: Box::default() }, Violations::default()));
    }
    let is_wrapped = match &elements[0] {
        Json::String(word) => join(word).is_some(),
        _ => true,
    };
    let root = if is_wrapped {
        parser.group(elements, "", 1)
    } else {
        parser.wrong("", "rule should be wrapped inside brackets: expected a list of rules, or AND, OR, !AND, !OR and rules")
    };
    match root {
        Some(root) if parser.violations.is_empty() => Ok((root, parser.warnings)),
        _ => Err(parser.violations),
    }
}

#[derive(Default)]
struct Parser {
    violations: Violations,
    warnings: Violations,
    nodes: usize,
}

impl Parser {
    fn wrong<T>(&mut self, at: &str, message: impl Into<String>) -> Option<T> {
        self.violations.add(at, message);
        None
    }

    /// A list of rules, with or without a word that joins them.
    fn group(&mut self, elements: &[Json], at: &str, depth: usize) -> Option<Node> {
        if depth > limits::EXPRESSION_DEPTH_MAX {
            return self.wrong(at, format!("groups are nested deeper than {}", limits::EXPRESSION_DEPTH_MAX));
        }
        let word = elements.first().and_then(Json::as_str).and_then(join);
        let (join, first) = word.map_or((Join::And, 0), |join| (join, 1));
        if word.is_some() && elements.len() < 3 {
            return self.wrong(at, "rule too short: expected at least two rules after AND, OR, !AND or !OR");
        }
        let parsed: Vec<_> = elements[first..]
            .iter()
            .enumerate()
            .map(|(index, element)| self.node(element, &format!("{at}/{}", first + index), depth))
            .collect();
        let nodes: Option<Box<[Node]>> = parsed.into_iter().collect();
        Some(Node::Group { join, nodes: nodes? })
    }

    fn node(&mut self, element: &Json, at: &str, depth: usize) -> Option<Node> {
        self.nodes += 1;
        if self.nodes > limits::EXPRESSION_RULES_MAX {
            let message = format!("an expression has at most {} rules", limits::EXPRESSION_RULES_MAX);
            // One violation is enough; the rest of a huge list would only repeat it.
            return if self.nodes == limits::EXPRESSION_RULES_MAX + 1 {
                self.wrong(at, message)
            } else {
                None
            };
        }
        let Json::Array(elements) = element else {
            return self.wrong(at, "expected a rule [variable, operator, value] or a list of rules");
        };
        match elements.first() {
            None => self.wrong(at, "rule too short: expected [variable, operator, value]"),
            Some(Json::Array(_)) => self.group(elements, at, depth + 1),
            Some(Json::String(word)) if join(word).is_some() => self.group(elements, at, depth + 1),
            Some(Json::String(name)) => self.rule(name, elements, at),
            Some(_) => self.wrong(&format!("{at}/0"), "expected the name of a variable"),
        }
    }

    fn rule(&mut self, name: &str, elements: &[Json], at: &str) -> Option<Node> {
        if name == "!" {
            return self.wrong(
                &format!("{at}/0"),
                "bad 'not' expression: `!` stands after the variable, as in [variable, \"!\", operator, value]",
            );
        }
        if !Variable::is_name(name) {
            let message =
                format!("the name of a variable has 1 to {} bytes", limits::VARIABLE_NAME_LENGTH_MAX);
            return self.wrong(&format!("{at}/0"), message);
        }
        let negated = elements.get(1).and_then(Json::as_str) == Some("!");
        let operator_at = if negated { 2 } else { 1 };
        let condition = match elements.get(operator_at) {
            None if negated => self.wrong(at, "bad 'not' expression: expected an operator after `!`"),
            None => self.wrong(at, "invalid expression: expected an operator and a value after the variable"),
            Some(operator) => self.condition(operator, elements, operator_at, at),
        };
        Some(Node::Rule(Box::new(Rule { variable: Variable::of(name), negated, condition: condition? })))
    }

    /// The condition whose operator stands at `operator_at`; in a rule of two elements a value may stand there.
    fn condition(
        &mut self,
        operator: &Json,
        elements: &[Json],
        operator_at: usize,
        at: &str,
    ) -> Option<Condition> {
        let value = elements.get(operator_at + 1).unwrap_or(&Json::Null);
        let value_at = format!("{at}/{}", operator_at + 1);
        let operator_path = format!("{at}/{operator_at}");
        let word = operator.as_str().unwrap_or_default();
        let order = |order| Some(Condition::Order(order, order_limit(value)));
        match word.to_ascii_lowercase().as_str() {
            "==" => Some(Condition::Equal(literal(value))),
            "~=" => Some(Condition::NotEqual(literal(value))),
            ">" => order(Order::Greater),
            ">=" => order(Order::GreaterOrEqual),
            "<" => order(Order::Less),
            "<=" => order(Order::LessOrEqual),
            "~~" => self.pattern(value, &value_at, false),
            "~*" => self.pattern(value, &value_at, true),
            "in" => self.list(value, &value_at),
            "has" => Some(Condition::Has(literal(value))),
            "ipmatch" => self.addresses(value, &value_at),
            _ if elements.len() == 2 => Some(Condition::Equal(literal(operator))),
            _ => {
                let shown = operator.as_str().map_or_else(|| operator.to_string(), str::to_owned);
                let shown: String = shown.chars().take(80).collect();
                self.wrong(&operator_path, format!("invalid operator '{shown}': expected one of {OPERATORS}"))
            }
        }
    }

    fn pattern(&mut self, value: &Json, at: &str, ignore_case: bool) -> Option<Condition> {
        let Json::String(text) = value else {
            return self.wrong(at, "expected a regular expression as text");
        };
        if text.len() > limits::REGEX_LENGTH_MAX {
            let message = format!("a regular expression has at most {} bytes", limits::REGEX_LENGTH_MAX);
            return self.wrong(at, message);
        }
        let pattern = match Pattern::compile(text, ignore_case) {
            Ok(pattern) => pattern,
            Err(reason) => {
                self.warnings.add(
                    at,
                    format!("the regular expression does not compile and matches nothing: {reason}"),
                );
                Pattern::matching_nothing()
            }
        };
        Some(Condition::Match(pattern))
    }

    fn list(&mut self, value: &Json, at: &str) -> Option<Condition> {
        let items: &[Json] = match value {
            Json::Array(items) => items,
            _ => {
                self.warnings.add(at, "`in` expects a list; nothing is in this value");
                &[]
            }
        };
        self.check_length(items, at)?;
        Some(Condition::In(items.iter().map(literal).collect()))
    }

    fn addresses(&mut self, value: &Json, at: &str) -> Option<Condition> {
        let (items, is_list) = match value {
            Json::Array(items) => (items.as_slice(), true),
            other => (std::slice::from_ref(other), false),
        };
        self.check_length(items, at)?;
        if items.is_empty() {
            return self.wrong(at, "invalid ip address: expected at least one address or network");
        }
        let mut entries = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            let item_at = if is_list { format!("{at}/{index}") } else { at.to_owned() };
            match item.as_str().map(AddressSet::parse_entry) {
                Some(Ok(entry)) => entries.push(entry),
                Some(Err(message)) => self.violations.add(item_at, message),
                None => self.violations.add(item_at, "invalid ip address: expected text or a list of texts"),
            }
        }
        (entries.len() == items.len()).then(|| Condition::IpMatch(AddressSet::new(entries)))
    }

    fn check_length(&mut self, items: &[Json], at: &str) -> Option<()> {
        if items.len() > limits::EXPRESSION_LIST_MAX {
            return self.wrong(at, format!("a list has at most {} elements", limits::EXPRESSION_LIST_MAX));
        }
        Some(())
    }
}

fn join(word: &str) -> Option<Join> {
    let words = [("AND", Join::And), ("OR", Join::Or), ("!AND", Join::NotAnd), ("!OR", Join::NotOr)];
    words.iter().find(|(spelling, _)| spelling.eq_ignore_ascii_case(word)).map(|(_, join)| *join)
}

fn literal(value: &Json) -> Literal {
    match value {
        Json::Null => Literal::Missing,
        Json::Bool(truth) => Literal::Bool(*truth),
        Json::Number(number) => number.as_f64().map_or(Literal::Structure, Literal::Number),
        Json::String(text) => Literal::Text(text.as_bytes().into()),
        Json::Array(_) | Json::Object(_) => Literal::Structure,
    }
}

fn order_limit(value: &Json) -> Option<f64> {
    match value {
        Json::Number(number) => number.as_f64(),
        Json::String(text) => number::from_text(text.as_bytes()),
        _ => None,
    }
}
