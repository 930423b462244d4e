//! Text with variables in it: `$name` and `${name}`, with `\$` for a dollar sign.
//!
//! A variable that is missing is empty. Names that are numbers stand for what a regular expression captured.

use gatewright_model::expression::{Value, Variable, Variables};

/// A parsed text.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Template(Box<[Part]>);

#[derive(Clone, Debug, PartialEq)]
enum Part {
    Text(Box<[u8]>),
    Variable(Variable),
    Captured(usize),
}

impl Template {
    /// Parses `text`; every text is one.
    pub(crate) fn parse(text: &str) -> Self {
        let (mut parts, mut plain, mut rest) = (Vec::new(), Vec::new(), text);
        while let Some(dollar) = rest.find('$') {
            let before = &rest[..dollar];
            let after = &rest[dollar + 1..];
            let escaped = before.ends_with('\\');
            let (name, length) = name(after);
            if escaped || name.is_empty() {
                plain.extend_from_slice(
                    before.strip_suffix('\\').filter(|_| escaped).unwrap_or(before).as_bytes(),
                );
                plain.push(b'$');
                rest = after;
                continue;
            }
            plain.extend_from_slice(before.as_bytes());
            if !plain.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut plain).into()));
            }
            parts.push(match name.parse() {
                Ok(group) => Part::Captured(group),
                Err(_) => Part::Variable(Variable::of(name)),
            });
            rest = &after[length..];
        }
        plain.extend_from_slice(rest.as_bytes());
        if !plain.is_empty() || parts.is_empty() {
            parts.push(Part::Text(plain.into()));
        }
        Self(parts.into())
    }

    /// The text for these variables.
    pub(crate) fn render(&self, variables: &dyn Variables) -> Vec<u8> {
        self.render_captured(variables, &|_| None)
    }

    /// The text for these variables; `None` if it has variables and none of them is there.
    pub(crate) fn render_some(&self, variables: &dyn Variables) -> Option<Vec<u8>> {
        let mut found = !self.0.iter().any(|part| matches!(part, Part::Variable(_)));
        let mut out = Vec::new();
        self.render_to(variables, &|_| None, &mut out, &mut |value, out| {
            found = true;
            out.extend_from_slice(value);
        });
        found.then_some(out)
    }

    /// The text for these variables and captures.
    pub(crate) fn render_captured<'c>(
        &self,
        variables: &dyn Variables,
        captured: &dyn Fn(usize) -> Option<&'c [u8]>,
    ) -> Vec<u8> {
        let mut out = Vec::new();
        self.render_to(variables, captured, &mut out, &mut |value, out| out.extend_from_slice(value));
        out
    }

    /// Appends the text to `out`; `put` writes the value of a variable.
    pub(crate) fn render_to<'c>(
        &self,
        variables: &dyn Variables,
        captured: &dyn Fn(usize) -> Option<&'c [u8]>,
        out: &mut Vec<u8>,
        put: &mut dyn FnMut(&[u8], &mut Vec<u8>),
    ) {
        for part in &*self.0 {
            match part {
                Part::Text(text) => out.extend_from_slice(text),
                Part::Captured(group) => out.extend_from_slice(captured(*group).unwrap_or_default()),
                Part::Variable(variable) => {
                    if let Some(value) = variables.get(variable) {
                        put(&text_of(&value), out);
                    }
                }
            }
        }
    }
}

/// The variable name that `text` begins with, and how much of `text` it takes.
fn name(text: &str) -> (&str, usize) {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let run = |text: &str| text.bytes().position(|byte| !is_part(byte)).unwrap_or(text.len());
    match text.strip_prefix('{') {
        Some(inner) => {
            let end = run(inner);
            if inner[end..].starts_with('}') { (&inner[..end], end + 2) } else { ("", 0) }
        }
        None => {
            let end = run(text);
            (&text[..end], end)
        }
    }
}

/// A value as text; lists and objects have none.
pub(crate) fn text_of<'v>(value: &'v Value<'_>) -> std::borrow::Cow<'v, [u8]> {
    match value {
        Value::Text(text) => std::borrow::Cow::Borrowed(text),
        Value::Number(number) => std::borrow::Cow::Owned(number.to_string().into_bytes()),
        Value::Bool(truth) => std::borrow::Cow::Borrowed(if *truth { b"true" } else { b"false" }),
        Value::List(_) | Value::Object => std::borrow::Cow::Borrowed(b""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gatewright_model::expression::NamedVariables;
    use serde_json::json;

    #[test]
    fn variables_are_written_out_and_the_rest_stays() {
        let named = json!({"uri": "/a", "host": "h", "arg_n": 5, "arg_flag": true});
        let variables = NamedVariables::new(named.as_object().unwrap());
        for (text, expected) in [
            ("plain", "plain"),
            ("", ""),
            ("$uri", "/a"),
            ("https://$host$uri?x", "https://h/a?x"),
            ("${host}x-$arg_n", "hx-5"),
            ("\\$uri $", "$uri $"),
            ("${host", "${host"),
            ("[$arg_none][$arg_flag]", "[][true]"),
            ("$1/$2", "one/"),
            ("$-", "$-"),
        ] {
            let rendered = Template::parse(text)
                .render_captured(&variables, &|group| (group == 1).then_some(&b"one"[..]));
            assert_eq!(String::from_utf8(rendered).unwrap(), expected, "{text}");
        }
    }
}
