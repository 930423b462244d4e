//! Templates: text with `{{ }}`, `{* *}` and `{% %}` in it, parsed when they are written and run for each message.
//!
//! Running one costs bounded time and space, whatever the template and the message are.

use std::rc::Rc;

use super::functions::{Escapes, escape, length};
use super::script::{Expression, Operator, Parser, Statement};
use super::tokens::{Token, tokens};
use super::value::{Table, Value};

/// Steps one run may take.
const STEPS_MAX: usize = 1_000_000;

/// Bytes of what one run may write.
const OUTPUT_BYTES_MAX: usize = 64 * 1024 * 1024;

/// A template.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Template {
    statements: Vec<Statement>,
    /// Variables of the request that it reads.
    pub(super) variables: Vec<String>,
}

/// What a template is run with.
pub(super) struct Input<'i> {
    /// What was decoded: a table, or something else that has no members.
    pub(super) root: Value,
    /// What it was decoded from.
    pub(super) body: &'i str,
    /// The values of the variables that it reads, in their order.
    pub(super) variables: Vec<Value>,
}

impl Template {
    /// Parses `text`.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut parser = Parser::new(split(text)?);
        let statements = parser.all()?;
        Ok(Self { statements, variables: parser.variables })
    }

    /// What it makes of `input`.
    pub(super) fn run(&self, input: &Input<'_>) -> Result<String, String> {
        let mut run = Run { input, names: Vec::new(), out: String::new(), steps: 0 };
        run.block(&self.statements)?;
        Ok(run.out)
    }
}

/// The tokens of a template.
fn split(text: &str) -> Result<Vec<Token>, String> {
    let (mut found, mut plain, mut rest) = (Vec::new(), String::new(), text);
    while let Some(at) = rest.find('{') {
        let (before, from) = rest.split_at(at);
        let (is_escaped, before) = match before.strip_suffix('\\') {
            Some(before) if from.len() > 1 => (true, before),
            _ => (false, before),
        };
        plain.push_str(before);
        let opening = from.get(..2).unwrap_or_default();
        let closing = match opening {
            _ if is_escaped => None,
            "{{" => Some("}}"),
            "{*" => Some("*}"),
            "{%" => Some("%}"),
            "{#" => Some("#}"),
            "{(" => Some(")}"),
            "{[" => Some("]}"),
            _ => None,
        };
        let inside = closing.and_then(|closing| from[2..].split_once(closing));
        let Some((inside, after)) = inside else {
            plain.push('{');
            rest = &from[1..];
            continue;
        };
        if !plain.is_empty() {
            found.push(Token::Emit(std::mem::take(&mut plain)));
        }
        rest = after;
        match opening {
            "{%" => {
                tokens(inside, &mut found)?;
                rest = rest.strip_prefix('\n').unwrap_or(rest);
            }
            "{#" => {}
            "{(" | "{[" => {
                return Err(format!("`{opening}{inside}` names another template, of which there is none"));
            }
            _ => {
                found.push(Token::Begin(opening == "{{"));
                tokens(inside, &mut found)?;
                found.push(Token::Over);
            }
        }
    }
    plain.push_str(rest);
    if !plain.is_empty() {
        found.push(Token::Emit(plain));
    }
    Ok(found)
}

/// One run of a template.
struct Run<'r> {
    input: &'r Input<'r>,
    /// Names that are defined, inner ones last.
    names: Vec<(String, Value)>,
    out: String,
    steps: usize,
}

impl Run<'_> {
    fn block(&mut self, statements: &[Statement]) -> Result<(), String> {
        let outside = self.names.len();
        let ran = statements.iter().try_for_each(|statement| self.statement(statement));
        self.names.truncate(outside);
        ran
    }

    fn step(&mut self) -> Result<(), String> {
        self.steps += 1;
        match self.steps {
            ..=STEPS_MAX => Ok(()),
            _ => Err(format!("it takes more than {STEPS_MAX} steps")),
        }
    }

    fn write(&mut self, text: &str) -> Result<(), String> {
        if self.out.len() + text.len() > OUTPUT_BYTES_MAX {
            return Err(format!("it writes more than {OUTPUT_BYTES_MAX} bytes"));
        }
        self.out.push_str(text);
        Ok(())
    }

    fn statement(&mut self, statement: &Statement) -> Result<(), String> {
        self.step()?;
        match statement {
            Statement::Emit(text) => self.write(text),
            Statement::Write { value, is_escaped } => match self.value(value)? {
                Value::Nil => Ok(()),
                Value::Text(text) if *is_escaped => self.write(&escape(&text, HTML)),
                other => self.write(&other.shown()),
            },
            Statement::If(branches) => {
                for (condition, block) in branches {
                    if self.value(condition)?.is_true() {
                        return self.block(block);
                    }
                }
                Ok(())
            }
            Statement::Each { names, over, is_list, block } => {
                let over = self.value(over)?;
                self.each(names, &over, *is_list, block)
            }
            Statement::Count { name, from, to, step, block } => {
                let step = step.as_ref().map_or(Ok(Value::Number(1.0)), |step| self.value(step))?;
                let (from, to) = (self.number(from)?, self.number(to)?);
                let step = step.number().filter(|step| *step != 0.0).ok_or("a loop needs a step")?;
                let mut at = from;
                while (step > 0.0 && at <= to) || (step < 0.0 && at >= to) {
                    self.step()?;
                    self.within(vec![(name.clone(), Value::Number(at))], block)?;
                    at += step;
                }
                Ok(())
            }
            Statement::Local(name, value) => {
                let value = self.value(value)?;
                self.names.push((name.clone(), value));
                Ok(())
            }
            Statement::Assign(name, value) => {
                let value = self.value(value)?;
                match self.names.iter_mut().rev().find(|(known, _)| known == name) {
                    Some((_, known)) => *known = value,
                    // Outside of every block, as a global of Lua would be.
                    None => self.names.insert(0, (name.clone(), value)),
                }
                Ok(())
            }
            Statement::Block(block) => self.block(block),
        }
    }

    fn each(
        &mut self,
        (first, second): &(String, Option<String>),
        over: &Value,
        is_list: bool,
        block: &[Statement],
    ) -> Result<(), String> {
        let Value::Table(table) = over else {
            return Err(format!("attempt to loop over a {} value", over.kind()));
        };
        let table = Rc::clone(table);
        let places = table.list.iter().enumerate().map(|(index, value)| (length(index + 1), value));
        // A list ends where there is nothing.
        let places = places.take_while(|(_, value)| !is_list || **value != Value::Nil);
        let named = table.members.iter().filter(|_| !is_list);
        let named = named.map(|(name, value)| (Value::Text(Rc::clone(name)), value));
        for (key, value) in places.chain(named).filter(|(_, value)| **value != Value::Nil) {
            self.step()?;
            let mut names = vec![(first.clone(), key)];
            names.extend(second.iter().map(|second| (second.clone(), value.clone())));
            self.within(names, block)?;
        }
        Ok(())
    }

    /// Runs a block in which these names are defined.
    fn within(&mut self, names: Vec<(String, Value)>, block: &[Statement]) -> Result<(), String> {
        let outside = self.names.len();
        self.names.extend(names);
        self.block(block)?;
        self.names.truncate(outside);
        Ok(())
    }

    fn number(&mut self, expression: &Expression) -> Result<f64, String> {
        let value = self.value(expression)?;
        value.number().ok_or_else(|| format!("attempt to perform arithmetic on a {} value", value.kind()))
    }

    fn value(&mut self, expression: &Expression) -> Result<Value, String> {
        self.step()?;
        Ok(match expression {
            Expression::Nil => Value::Nil,
            Expression::Bool(truth) => Value::Bool(*truth),
            Expression::Number(number) => Value::Number(*number),
            Expression::Text(text) => Value::text(text),
            Expression::Name(name) => self.named(name),
            Expression::Variable(index) => self.input.variables.get(*index).cloned().unwrap_or_default(),
            Expression::Index(value, index) => {
                let (value, index) = (self.value(value)?, self.value(index)?);
                value.at(&index)?
            }
            Expression::Not(value) => Value::Bool(!self.value(value)?.is_true()),
            Expression::Minus(value) => Value::Number(-self.number(value)?),
            Expression::Length(value) => match self.value(value)? {
                Value::Text(text) => length(text.len()),
                Value::Table(table) => length(table.list.len()),
                other => return Err(format!("attempt to get the length of a {} value", other.kind())),
            },
            Expression::Binary(Operator::Or, left, right) => {
                let left = self.value(left)?;
                if left.is_true() { left } else { self.value(right)? }
            }
            Expression::Binary(Operator::And, left, right) => {
                let left = self.value(left)?;
                if left.is_true() { self.value(right)? } else { left }
            }
            Expression::Binary(operator, left, right) => {
                let (left, right) = (self.value(left)?, self.value(right)?);
                calculated(*operator, &left, &right)?
            }
            Expression::Call(function, arguments) => {
                let arguments: Result<Vec<_>, _> =
                    arguments.iter().map(|argument| self.value(argument)).collect();
                function.call(&arguments?)?
            }
        })
    }

    /// What a name stands for: something defined, the body, or a member of what was decoded.
    fn named(&self, name: &str) -> Value {
        if let Some((_, value)) = self.names.iter().rev().find(|(known, _)| known == name) {
            return value.clone();
        }
        let member = match &self.input.root {
            Value::Table(table) => table.member(name),
            _ => Value::Nil,
        };
        match (name, member) {
            ("_body", Value::Nil) => Value::text(self.input.body),
            ("context", Value::Nil) => self.input.root.clone(),
            (_, member) => member,
        }
    }
}

fn calculated(operator: Operator, left: &Value, right: &Value) -> Result<Value, String> {
    let number = |value: &Value| {
        value.number().ok_or_else(|| format!("attempt to perform arithmetic on a {} value", value.kind()))
    };
    let ordered = || match (left, right) {
        (Value::Number(left), Value::Number(right)) => Ok(left.partial_cmp(right)),
        (Value::Text(left), Value::Text(right)) => Ok(Some(left.cmp(right))),
        _ => Err(format!("attempt to compare {} with {}", left.kind(), right.kind())),
    };
    Ok(match operator {
        Operator::Equal => Value::Bool(left == right),
        Operator::Unequal => Value::Bool(left != right),
        Operator::Less => Value::Bool(ordered()?.is_some_and(std::cmp::Ordering::is_lt)),
        Operator::LessEqual => Value::Bool(ordered()?.is_some_and(std::cmp::Ordering::is_le)),
        Operator::Greater => Value::Bool(ordered()?.is_some_and(std::cmp::Ordering::is_gt)),
        Operator::GreaterEqual => Value::Bool(ordered()?.is_some_and(std::cmp::Ordering::is_ge)),
        Operator::Join => {
            let text = |value: &Value| match value {
                Value::Text(_) | Value::Number(_) => Ok(value.shown()),
                other => Err(format!("attempt to concatenate a {} value", other.kind())),
            };
            let joined = text(left)? + &text(right)?;
            if joined.len() > OUTPUT_BYTES_MAX {
                return Err(format!("a text is longer than {OUTPUT_BYTES_MAX} bytes"));
            }
            Value::text(joined)
        }
        Operator::Add => Value::Number(number(left)? + number(right)?),
        Operator::Subtract => Value::Number(number(left)? - number(right)?),
        Operator::Multiply => Value::Number(number(left)? * number(right)?),
        Operator::Divide => Value::Number(number(left)? / number(right)?),
        Operator::Remainder => {
            let (left, right) = (number(left)?, number(right)?);
            Value::Number(left - (left / right).floor() * right)
        }
        Operator::Power => Value::Number(number(left)?.powf(number(right)?)),
        Operator::Or | Operator::And => unreachable!("they do not need both sides"),
    })
}

/// What is escaped in `{{…}}`.
const HTML: &Escapes =
    &[('&', "&amp;"), ('<', "&lt;"), ('>', "&gt;"), ('"', "&quot;"), ('\'', "&#39;"), ('/', "&#47;")];

impl Input<'_> {
    /// Without anything decoded.
    pub(super) fn nothing() -> Value {
        Value::Table(Rc::new(Table::default()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn run(template: &str) -> Result<String, String> {
        let root = json!({
            "name": "<hello>", "age": 20, "half": 0.5, "yes": true, "none": null, "empty": {},
            "list": ["a", "b", 3], "user": {"first name": "Ann", "tags": ["x"]}, "quote": "say \"hi\"",
        });
        let template = Template::parse(template)?;
        let variables = template.variables.iter().map(|name| Value::text(format!("[{name}]"))).collect();
        template.run(&Input { root: Value::of_json(&root), body: "raw <body>", variables })
    }

    #[test]
    fn templates_are_filled_in() {
        for (template, expected) in [
            ("plain { text }", "plain { text }"),
            ("{{name}}|{*name*}|{{age}}|{{none}}|{{yes}}|{{half}}", "&lt;hello&gt;|<hello>|20||true|0.5"),
            (
                r#"{"foo":"{{name .. " world"}}","bar":{{age+10}}}"#,
                r#"{"foo":"&lt;hello&gt; world","bar":30}"#,
            ),
            ("{{age/3}} {{2^10}} {{7%3}} {{-7%3}} {{1e3*1}} {{-age}}", "6.6666666666667 1024 1 2 1000 -20"),
            ("{{1+2*3}} {{(1+2)*3}} {{2^3^2}} {{-2^2}} {{1 ..2}}", "7 9 512 -4 12"),
            ("{{none or 'x'}} {{age and 1}} {{not none}} {{1 == 1.0}} {{'a' < 'b'}}", "x 1 true true true"),
            (
                "{{list[1]}} {{list[9]}} {{#list}} {{#name}} {{user['first name']}} {{user.tags[1]}}",
                "a  3 7 Ann x",
            ),
            ("{% if age > 18 then %}old{% else %}young{% end %}", "old"),
            ("{% if none then %}a{% elseif age == 20 then %}b{% end %}", "b"),
            ("{% for i, item in ipairs(list) do %}{{i}}={{item}};{% end %}", "1=a;2=b;3=3;"),
            ("{% for key in pairs(user) do %}{{key}},{% end %}", "first name,tags,"),
            ("{% for i = 3, 1, -1 do %}{{i}}{% end %}{% for i=1,2 do %}{{i}}{% end %}", "32112"),
            ("{% local x = 1 %}{% x = x + 1 %}{{x}}{% do local x = 9 end %}{{x}}", "22"),
            ("{% if yes then %}\nline\n{% end %}\nend", "line\nend"),
            (
                "{# a comment #}{{_ctx.var.arg_name}} {*_ctx.var['http_x']*} {*_body*}",
                "[arg_name] [http_x] raw <body>",
            ),
            (
                "{*_escape_json(quote)*} {*_escape_json(list)*} {*_escape_json(user)*}",
                r#""say \"hi\"" ["a","b",3] {"first name":"Ann","tags":["x"]}"#,
            ),
            ("{*_escape_xml(name)*} {*context.age*}", "&lt;hello&gt; 20"),
            (
                "{{string.upper('a')}}{{('B'):lower()}}{{name:sub(2, -2)}}{{tonumber('5')+1}}{{type(list)}}",
                "Abhello6table",
            ),
            (
                "{{table.concat(list, '-')}} {{math.max(1, 3, 2)}} {{math.floor(2.7)}} {{string.rep('ab', 2)}}",
                "a-b-3 3 2 abab",
            ),
            ("{{'a\\'b'}} {{[[long]]}} {{0x10}} \\{{name}}", "a&#39;b long 16 {{name}}"),
        ] {
            assert_eq!(run(template).as_deref(), Ok(expected), "{template}");
        }
    }

    #[test]
    fn what_goes_wrong_while_it_runs_is_said() {
        for (template, expected) in [
            ("{{none.x}}", "attempt to index a nil value (`x`)"),
            ("{{none .. 'x'}}", "attempt to concatenate a nil value"),
            ("{{list + 1}}", "attempt to perform arithmetic on a table value"),
            ("{{1 < 'a'}}", "attempt to compare number with string"),
            ("{% for _, x in ipairs(age) do %}{% end %}", "attempt to loop over a number value"),
            ("{% for i = 1, 2, 0 do %}{% end %}", "a loop needs a step"),
            ("{{_escape_xml(list)}}", "bad argument to `_escape_xml` (string expected, got table)"),
            ("{{string.rep('abc', 1000000000)}}", "the text that `string.rep` would make is too long"),
            ("{% for i = 1, 100000000 do %}{% end %}", "it takes more than 1000000 steps"),
        ] {
            assert_eq!(run(template).unwrap_err(), expected, "{template}");
        }
    }

    #[test]
    fn what_is_no_template_is_refused_with_the_reason() {
        for (template, expected) in [
            ("{% if x then %}", "`end` is missing before the end"),
            ("{% end %}", "`end` has no beginning"),
            ("{% if x %}", "`then` is missing before the end"),
            ("{{}}", "a value is missing before the end of an expression"),
            ("{{a b}}", "`b` is not expected"),
            ("{{'open}}", "text without a closing '"),
            ("{{a ? b}}", "`?` means nothing here"),
            ("{% while true do %}{% end %}", "`while` is not offered"),
            ("{% function f() end %}", "`function` is not offered"),
            (
                "{% local core = require('apisix.core') %}",
                "`require` is not offered: templates cannot run any Lua",
            ),
            ("{{os.time()}}", "only functions that templates offer can be called"),
            ("{{name:gsub('a', 'b')}}", "`string.gsub` is not offered"),
            ("{{_ctx.consumer}}", "only `_ctx.var.NAME` can be read"),
            ("{% a.b = 1 %}", "`a` stands alone"),
            ("{% for k in next, t do %}{% end %}", "a loop goes over `ipairs(…)` or `pairs(…)`"),
            ("{(other.html)}", "`{(other.html` names another template"),
        ] {
            let refused = run(template).unwrap_err();
            assert!(refused.contains(expected), "{template}: {refused}");
        }
        assert!(run(&format!("{{{{{}1{}}}}}", "(".repeat(1000), ")".repeat(1000))).is_err());
    }
}
