//! Values as templates have them: those of JSON and XML, with what Lua says of them.

use std::fmt::Write as _;
use std::rc::Rc;

use serde_json::Value as Json;

/// A value.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) enum Value {
    #[default]
    Nil,
    Bool(bool),
    Number(f64),
    Text(Rc<str>),
    Table(Rc<Table>),
}

/// Elements by place, and members by name in their order.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Table {
    pub(super) list: Vec<Value>,
    pub(super) members: Vec<(Rc<str>, Value)>,
}

impl Value {
    pub(super) fn text(text: impl AsRef<str>) -> Self {
        Self::Text(text.as_ref().into())
    }

    /// A value of JSON; `null` is `nil`.
    pub(super) fn of_json(json: &Json) -> Self {
        match json {
            Json::Null => Self::Nil,
            Json::Bool(truth) => Self::Bool(*truth),
            Json::Number(number) => Self::Number(number.as_f64().unwrap_or_default()),
            Json::String(text) => Self::text(text),
            Json::Array(items) => {
                let list = items.iter().map(Self::of_json).collect();
                Self::Table(Rc::new(Table { list, members: Vec::new() }))
            }
            Json::Object(members) => {
                let members =
                    members.iter().map(|(name, value)| (name.as_str().into(), Self::of_json(value)));
                Self::Table(Rc::new(Table { list: Vec::new(), members: members.collect() }))
            }
        }
    }

    /// As JSON; a table is a list if it has no members, and an object otherwise.
    pub(super) fn to_json(&self) -> Json {
        match self {
            Self::Nil => Json::Null,
            Self::Bool(truth) => Json::Bool(*truth),
            Self::Number(number) => {
                shown_number(*number).parse::<serde_json::Number>().map_or(Json::Null, Json::Number)
            }
            Self::Text(text) => Json::String(text.to_string()),
            Self::Table(table) if table.members.is_empty() && !table.list.is_empty() => {
                table.list.iter().map(Self::to_json).collect()
            }
            Self::Table(table) => {
                let places = table.list.iter().enumerate();
                let places = places.map(|(index, value)| ((index + 1).to_string(), value.to_json()));
                let named = table.members.iter().map(|(name, value)| (name.to_string(), value.to_json()));
                places.chain(named).collect()
            }
        }
    }

    /// Whether it counts as true: everything but `nil` and `false` does.
    pub(super) fn is_true(&self) -> bool {
        !matches!(self, Self::Nil | Self::Bool(false))
    }

    /// What it is called.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Nil => "nil",
            Self::Bool(_) => "boolean",
            Self::Number(_) => "number",
            Self::Text(_) => "string",
            Self::Table(_) => "table",
        }
    }

    /// As text, as it is written out.
    pub(super) fn shown(&self) -> String {
        match self {
            Self::Nil => "nil".to_owned(),
            Self::Bool(truth) => truth.to_string(),
            Self::Number(number) => shown_number(*number),
            Self::Text(text) => text.to_string(),
            Self::Table(_) => "table".to_owned(),
        }
    }

    /// As a number, if it is one or reads like one.
    pub(super) fn number(&self) -> Option<f64> {
        match self {
            Self::Number(number) => Some(*number),
            Self::Text(text) => text.trim().parse().ok().filter(|number: &f64| number.is_finite()),
            _ => None,
        }
    }

    /// A member of a table, or what stands at a place of it.
    pub(super) fn at(&self, index: &Self) -> Result<Self, String> {
        let Self::Table(table) = self else {
            return Err(format!("attempt to index a {} value (`{}`)", self.kind(), index.shown()));
        };
        Ok(match index {
            Self::Number(place) => table.at(*place),
            Self::Text(name) => table.member(name),
            _ => Self::Nil,
        })
    }
}

impl Table {
    pub(super) fn member(&self, name: &str) -> Value {
        let named = self.members.iter().find(|(known, _)| **known == *name);
        named.map_or(Value::Nil, |(_, value)| value.clone())
    }

    fn at(&self, place: f64) -> Value {
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "casts of floats saturate, and whatever is no place has nothing"
        )]
        let index = (place as usize).checked_sub(1).filter(|_| place.fract() == 0.0);
        index.and_then(|index| self.list.get(index)).cloned().unwrap_or_default()
    }

    /// Adds a value by name; a name that is there already has a list of values from then on.
    pub(super) fn add(&mut self, name: &str, value: Value) {
        match self.members.iter_mut().find(|(known, _)| **known == *name) {
            None => self.members.push((name.into(), value)),
            Some((_, known)) => *known = joined(std::mem::take(known), value),
        }
    }
}

fn joined(known: Value, value: Value) -> Value {
    match known {
        Value::Table(table) if table.members.is_empty() && !table.list.is_empty() => {
            let mut table = Rc::unwrap_or_clone(table);
            table.list.push(value);
            Value::Table(Rc::new(table))
        }
        first => Value::Table(Rc::new(Table { list: vec![first, value], members: Vec::new() })),
    }
}

/// A number as Lua writes it: with up to fourteen digits.
pub(super) fn shown_number(number: f64) -> String {
    if number.is_nan() {
        return "nan".to_owned();
    }
    if number.is_infinite() {
        return if number > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    if number.fract() == 0.0 && number.abs() < 1e15 {
        return format!("{number:.0}");
    }
    let rounded: f64 = format!("{number:.13e}").parse().unwrap_or(number);
    let mut text = String::new();
    // Writing into text cannot fail.
    let _ = match rounded.abs() {
        1e-5..1e15 => write!(text, "{rounded}"),
        _ => write!(text, "{rounded:e}"),
    };
    text
}
