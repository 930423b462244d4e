//! Expressions: conditions on variables, written as JSON lists and evaluated on every request.
//!
//! `[["arg_v", "==", "2"], ["OR", ["http_x", "~~", "^a"], ["remote_addr", "ipmatch", "10.0.0.0/8"]]]`.
//! An expression is parsed once, with an error that names the element; evaluation neither fails nor blocks, and it
//! allocates nothing for comparisons of text and numbers.
//! A variable that is missing satisfies no condition, except that it differs from everything (`~=`), and that a
//! negated condition (`!`) is true exactly when the condition is not.

mod address;
mod evaluate;
mod number;
mod parse;
mod pattern;
mod variables;

pub use address::AddressSet;
pub use pattern::{Pattern, regex_limits_hit};
pub use variables::{
    FAMILIES, NAMES, NamedVariables, Value, Variable, VariableFamily, VariableName, Variables,
};

use crate::validation::Violations;

/// A parsed expression.
#[derive(Clone, Debug)]
pub struct Expression {
    root: Node,
    warnings: Violations,
}

/// A rule, or several of them joined.
#[derive(Clone, Debug)]
enum Node {
    Rule(Box<Rule>),
    Group { join: Join, nodes: Box<[Node]> },
}

/// How the nodes of a group are joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Join {
    And,
    Or,
    NotAnd,
    NotOr,
}

/// One condition on one variable.
#[derive(Clone, Debug)]
struct Rule {
    variable: Variable,
    negated: bool,
    condition: Condition,
}

/// What a rule demands of its variable.
#[derive(Clone, Debug)]
enum Condition {
    Equal(Literal),
    NotEqual(Literal),
    /// Numeric order; `None`: the right side is no number, so nothing satisfies it.
    Order(Order, Option<f64>),
    Match(Pattern),
    In(Box<[Literal]>),
    Has(Literal),
    IpMatch(AddressSet),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// The right side of a comparison.
#[derive(Clone, Debug, PartialEq)]
enum Literal {
    /// Absent, or JSON `null`: equal to a missing variable.
    Missing,
    Bool(bool),
    Number(f64),
    Text(Box<[u8]>),
    /// A list or an object: equal to nothing.
    Structure,
}

impl Expression {
    /// Parses an expression as routes and plugins carry it.
    ///
    /// # Errors
    /// Everything wrong with it, each with the JSON path of the element and what was expected there.
    pub fn parse(elements: &[serde_json::Value]) -> Result<Self, Violations> {
        let (root, warnings) = parse::parse(elements)?;
        Ok(Self { root, warnings })
    }

    /// What is accepted but surely not meant, such as a regular expression that does not compile and therefore
    /// matches nothing.
    #[must_use]
    pub fn warnings(&self) -> &Violations {
        &self.warnings
    }

    /// Whether the expression is true for `variables`.
    #[must_use]
    pub fn holds(&self, variables: &dyn Variables) -> bool {
        self.root.holds(variables)
    }

    /// The first rule that makes a plain list of rules false, counted from 0; `None` where there is no such single
    /// rule to name.
    #[must_use]
    pub fn failing_rule(&self, variables: &dyn Variables) -> Option<usize> {
        match &self.root {
            Node::Group { join: Join::And, nodes } => nodes.iter().position(|node| !node.holds(variables)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
