//! The part of Lua that templates may use: expressions and statements, parsed when they are written.
//!
//! There are values, operators, conditions, loops over what is there, and a closed list of functions. What is missing
//! (functions of one's own, modules, loops that may not end) is refused with its reason.

use super::functions::Function;
use super::tokens::{Token, shown};

/// Levels that expressions and blocks may be nested: parsing and running recurse this deep.
const DEPTH_MAX: usize = 64;

/// What has a value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Expression {
    Nil,
    Bool(bool),
    Number(f64),
    Text(String),
    Name(String),
    /// A variable of the request, by its place among those that the template reads.
    Variable(usize),
    Index(Box<Expression>, Box<Expression>),
    Not(Box<Expression>),
    Minus(Box<Expression>),
    Length(Box<Expression>),
    Binary(Operator, Box<Expression>, Box<Expression>),
    Call(Function, Vec<Expression>),
}

/// What stands between two values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    Or,
    And,
    Equal,
    Unequal,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    Join,
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
    Power,
}

/// Operators with how strongly they bind what is left and right of them.
const OPERATORS: [(&str, Operator, u8, u8); 15] = [
    ("or", Operator::Or, 1, 1),
    ("and", Operator::And, 2, 2),
    ("==", Operator::Equal, 3, 3),
    ("~=", Operator::Unequal, 3, 3),
    ("<", Operator::Less, 3, 3),
    ("<=", Operator::LessEqual, 3, 3),
    (">", Operator::Greater, 3, 3),
    (">=", Operator::GreaterEqual, 3, 3),
    ("..", Operator::Join, 5, 4),
    ("+", Operator::Add, 6, 6),
    ("-", Operator::Subtract, 6, 6),
    ("*", Operator::Multiply, 7, 7),
    ("/", Operator::Divide, 7, 7),
    ("%", Operator::Remainder, 7, 7),
    ("^", Operator::Power, 10, 9),
];

/// How strongly `not`, `#` and `-` bind what follows.
const UNARY: u8 = 8;

/// What a template does, one after the other.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Statement {
    Emit(String),
    Write {
        value: Expression,
        is_escaped: bool,
    },
    /// Conditions with what follows if they hold, the first one that does.
    If(Vec<(Expression, Vec<Statement>)>),
    Each {
        names: (String, Option<String>),
        over: Expression,
        is_list: bool,
        block: Vec<Statement>,
    },
    Count {
        name: String,
        from: Expression,
        to: Expression,
        step: Option<Expression>,
        block: Vec<Statement>,
    },
    Local(String, Expression),
    Assign(String, Expression),
    Block(Vec<Statement>),
}

/// Reads tokens.
pub(super) struct Parser {
    tokens: std::vec::IntoIter<Token>,
    next: Option<Token>,
    depth: usize,
    /// Variables of the request that are read.
    pub(super) variables: Vec<String>,
}

impl Parser {
    pub(super) fn new(tokens: Vec<Token>) -> Self {
        let mut tokens = tokens.into_iter();
        let next = tokens.next();
        Self { tokens, next, depth: 0, variables: Vec::new() }
    }

    /// Everything up to the end.
    pub(super) fn all(&mut self) -> Result<Vec<Statement>, String> {
        let block = self.block()?;
        match &self.next {
            None => Ok(block),
            Some(token) => Err(format!("{} has no beginning", shown(token))),
        }
    }

    fn advance(&mut self) -> Option<Token> {
        std::mem::replace(&mut self.next, self.tokens.next())
    }

    fn is(&self, sign: &str) -> bool {
        matches!(&self.next, Some(Token::Sign(next)) if *next == sign)
    }

    fn take(&mut self, sign: &str) -> bool {
        let found = self.is(sign);
        if found {
            self.advance();
        }
        found
    }

    fn expect(&mut self, sign: &str) -> Result<(), String> {
        match self.take(sign) {
            true => Ok(()),
            false => Err(format!(
                "`{sign}` is missing before {}",
                self.next.as_ref().map_or("the end".to_owned(), shown)
            )),
        }
    }

    fn name(&mut self) -> Result<String, String> {
        match self.advance() {
            Some(Token::Name(name)) => Ok(name),
            other => Err(format!(
                "a name is missing before {}",
                other.as_ref().map_or("the end".to_owned(), shown)
            )),
        }
    }

    fn deeper<T>(&mut self, parse: impl FnOnce(&mut Self) -> Result<T, String>) -> Result<T, String> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(format!("nested more than {DEPTH_MAX} levels deep"));
        }
        let parsed = parse(self);
        self.depth -= 1;
        parsed
    }

    fn block(&mut self) -> Result<Vec<Statement>, String> {
        self.deeper(|parser| {
            let mut block = Vec::new();
            while parser.next.is_some() && !["end", "else", "elseif"].iter().any(|word| parser.is(word)) {
                if !parser.take(";") {
                    block.push(parser.statement()?);
                }
            }
            Ok(block)
        })
    }

    fn statement(&mut self) -> Result<Statement, String> {
        match self.advance() {
            Some(Token::Emit(text)) => Ok(Statement::Emit(text)),
            Some(Token::Begin(is_escaped)) => {
                let value = self.expression()?;
                match self.advance() {
                    Some(Token::Over) => Ok(Statement::Write { value, is_escaped }),
                    other => {
                        Err(format!("{} is not expected", other.as_ref().map_or("the end".to_owned(), shown)))
                    }
                }
            }
            Some(Token::Sign("if")) => self.condition(),
            Some(Token::Sign("for")) => self.repetition(),
            Some(Token::Sign("do")) => {
                let block = self.block()?;
                self.expect("end")?;
                Ok(Statement::Block(block))
            }
            Some(Token::Sign("local")) => {
                let name = self.name()?;
                let value = if self.take("=") { self.expression()? } else { Expression::Nil };
                Ok(Statement::Local(name, value))
            }
            Some(Token::Name(name)) if self.take("=") => Ok(Statement::Assign(name, self.expression()?)),
            Some(Token::Sign(word @ ("while" | "repeat" | "function" | "goto" | "break" | "return"))) => Err(
                format!("`{word}` is not offered: templates have conditions, and loops over what is there"),
            ),
            Some(Token::Name(name)) => Err(format!(
                "`{name}` stands alone: only names are assigned to, and calls stand where a value is wanted"
            )),
            other => Err(format!("{} is not expected", other.as_ref().map_or("the end".to_owned(), shown))),
        }
    }

    fn condition(&mut self) -> Result<Statement, String> {
        let mut branches = Vec::new();
        loop {
            let condition = self.expression()?;
            self.expect("then")?;
            branches.push((condition, self.block()?));
            if self.take("elseif") {
                continue;
            }
            if self.take("else") {
                branches.push((Expression::Bool(true), self.block()?));
            }
            self.expect("end")?;
            return Ok(Statement::If(branches));
        }
    }

    fn repetition(&mut self) -> Result<Statement, String> {
        let first = self.name()?;
        if self.take("=") {
            let from = self.expression()?;
            self.expect(",")?;
            let to = self.expression()?;
            let step = if self.take(",") { Some(self.expression()?) } else { None };
            let block = self.body()?;
            return Ok(Statement::Count { name: first, from, to, step, block });
        }
        let second = if self.take(",") { Some(self.name()?) } else { None };
        self.expect("in")?;
        let iterator = self.name()?;
        let is_list = match iterator.as_str() {
            "ipairs" => true,
            "pairs" => false,
            _ => return Err(format!("a loop goes over `ipairs(…)` or `pairs(…)`, not over `{iterator}`")),
        };
        self.expect("(")?;
        let over = self.expression()?;
        self.expect(")")?;
        let block = self.body()?;
        Ok(Statement::Each { names: (first, second), over, is_list, block })
    }

    fn body(&mut self) -> Result<Vec<Statement>, String> {
        self.expect("do")?;
        let block = self.block()?;
        self.expect("end")?;
        Ok(block)
    }

    fn expression(&mut self) -> Result<Expression, String> {
        self.operation(0)
    }

    fn operation(&mut self, binding: u8) -> Result<Expression, String> {
        self.deeper(|parser| {
            let mut left = parser.operand()?;
            while let Some(Token::Sign(sign)) = parser.next
                && let Some((_, operator, _, right)) =
                    OPERATORS.iter().find(|(known, _, left, _)| *known == sign && *left > binding)
            {
                parser.advance();
                let operand = parser.operation(*right)?;
                left = Expression::Binary(*operator, Box::new(left), Box::new(operand));
            }
            Ok(left)
        })
    }

    fn operand(&mut self) -> Result<Expression, String> {
        if self.take("not") {
            return Ok(Expression::Not(Box::new(self.operation(UNARY)?)));
        }
        if self.take("-") {
            return Ok(Expression::Minus(Box::new(self.operation(UNARY)?)));
        }
        if self.take("#") {
            return Ok(Expression::Length(Box::new(self.operation(UNARY)?)));
        }
        let value = match self.advance() {
            Some(Token::Sign("nil")) => Expression::Nil,
            Some(Token::Sign("true")) => Expression::Bool(true),
            Some(Token::Sign("false")) => Expression::Bool(false),
            Some(Token::Number(number)) => Expression::Number(number),
            Some(Token::Text(text)) => Expression::Text(text),
            Some(Token::Sign("(")) => {
                let inner = self.expression()?;
                self.expect(")")?;
                inner
            }
            Some(Token::Name(name)) => self.named(name)?,
            Some(Token::Sign(word @ ("function" | "{" | "..."))) => {
                return Err(format!(
                    "`{word}` is not offered: functions and tables of one's own cannot be made"
                ));
            }
            other => {
                return Err(format!(
                    "a value is missing before {}",
                    other.as_ref().map_or("the end".to_owned(), shown)
                ));
            }
        };
        self.suffixes(value)
    }

    /// What a name at the beginning of an expression stands for.
    fn named(&mut self, name: String) -> Result<Expression, String> {
        if name == "_ctx" {
            let place = "only `_ctx.var.NAME` can be read of `_ctx`";
            let is_variable = self.take(".") && self.name().is_ok_and(|member| member == "var");
            if !is_variable {
                return Err(place.to_owned());
            }
            let variable = match self.advance() {
                Some(Token::Sign(".")) => self.name()?,
                Some(Token::Sign("[")) => {
                    let Some(Token::Text(variable)) = self.advance() else { return Err(place.to_owned()) };
                    self.expect("]")?;
                    variable
                }
                _ => return Err(place.to_owned()),
            };
            let known = self.variables.iter().position(|known| *known == variable);
            return Ok(Expression::Variable(known.unwrap_or_else(|| {
                self.variables.push(variable);
                self.variables.len() - 1
            })));
        }
        if ["string", "table", "math"].contains(&name.as_str()) && self.is(".") {
            self.advance();
            let function = format!("{name}.{}", self.name()?);
            return self.call(&function, None);
        }
        if self.is("(") {
            return self.call(&name, None);
        }
        Ok(Expression::Name(name))
    }

    fn suffixes(&mut self, mut value: Expression) -> Result<Expression, String> {
        loop {
            value = if self.take(".") {
                let member = self.name()?;
                Expression::Index(Box::new(value), Box::new(Expression::Text(member)))
            } else if self.take("[") {
                let index = self.expression()?;
                self.expect("]")?;
                Expression::Index(Box::new(value), Box::new(index))
            } else if self.take(":") {
                let method = self.name()?;
                self.call(&format!("string.{method}"), Some(value))?
            } else if self.is("(") {
                return Err("only functions that templates offer can be called".to_owned());
            } else {
                return Ok(value);
            };
        }
    }

    fn call(&mut self, name: &str, subject: Option<Expression>) -> Result<Expression, String> {
        let function = Function::named(name).ok_or_else(|| {
            format!("`{name}` is not offered: templates cannot run any Lua, they have {}", Function::names())
        })?;
        self.expect("(")?;
        let mut arguments: Vec<_> = subject.into_iter().collect();
        while !self.take(")") {
            arguments.push(self.expression()?);
            if !self.is(")") {
                self.expect(",")?;
            }
        }
        Ok(Expression::Call(function, arguments))
    }
}
