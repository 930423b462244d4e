//! Evaluation: does an expression hold for these variables?

use std::borrow::Cow;

use super::{Condition, Join, Literal, Node, Order, Rule, Value, Variables, number};

impl Node {
    pub(super) fn holds(&self, variables: &dyn Variables) -> bool {
        match self {
            Self::Rule(rule) => rule.holds(variables),
            Self::Group { join, nodes } => {
                let mut nodes = nodes.iter();
                match join {
                    Join::And => nodes.all(|node| node.holds(variables)),
                    Join::Or => nodes.any(|node| node.holds(variables)),
                    Join::NotAnd => !nodes.all(|node| node.holds(variables)),
                    Join::NotOr => !nodes.any(|node| node.holds(variables)),
                }
            }
        }
    }
}

impl Rule {
    fn holds(&self, variables: &dyn Variables) -> bool {
        let value = variables.get(&self.variable);
        self.condition.holds(value.as_ref()) != self.negated
    }
}

impl Condition {
    fn holds(&self, value: Option<&Value<'_>>) -> bool {
        match self {
            Self::Equal(literal) => equal(value, literal),
            Self::NotEqual(literal) => !equal(value, literal),
            Self::Order(order, limit) => {
                let (Some(left), Some(right)) = (value.and_then(to_number), *limit) else { return false };
                match order {
                    Order::Less => left < right,
                    Order::LessOrEqual => left <= right,
                    Order::Greater => left > right,
                    Order::GreaterOrEqual => left >= right,
                }
            }
            Self::Match(pattern) => value.and_then(to_text).is_some_and(|text| pattern.is_match(&text)),
            Self::In(list) => value.is_some_and(|value| list.iter().any(|literal| same(value, literal))),
            Self::Has(literal) => match value {
                Some(Value::List(items)) => items.iter().any(|item| same(item, literal)),
                _ => false,
            },
            Self::IpMatch(addresses) => match value {
                Some(Value::Text(text)) => addresses.contains_text(text),
                _ => false,
            },
        }
    }
}

/// `==`: a number on the right makes a number of the left; everything else must be of the same type.
fn equal(value: Option<&Value<'_>>, literal: &Literal) -> bool {
    match (value, literal) {
        (None, literal) => *literal == Literal::Missing,
        (Some(value), Literal::Number(number)) => to_number(value) == Some(*number),
        (Some(value), literal) => same(value, literal),
    }
}

/// Equality of type and value.
fn same(value: &Value<'_>, literal: &Literal) -> bool {
    match (value, literal) {
        (Value::Text(text), Literal::Text(other)) => **text == **other,
        #[allow(clippy::float_cmp, reason = "the numbers were written, not computed")]
        (Value::Number(number), Literal::Number(other)) => number == other,
        (Value::Bool(truth), Literal::Bool(other)) => truth == other,
        _ => false,
    }
}

fn to_number(value: &Value<'_>) -> Option<f64> {
    match value {
        Value::Number(number) => Some(*number),
        Value::Text(text) => number::from_text(text),
        Value::Bool(_) | Value::List(_) | Value::Object => None,
    }
}

fn to_text<'a>(value: &'a Value<'a>) -> Option<Cow<'a, [u8]>> {
    match value {
        Value::Text(text) => Some(Cow::Borrowed(text)),
        Value::Number(number) => Some(Cow::Owned(number::to_text(*number).into_bytes())),
        Value::Bool(true) => Some(Cow::Borrowed(b"true")),
        Value::Bool(false) => Some(Cow::Borrowed(b"false")),
        Value::List(_) | Value::Object => None,
    }
}
