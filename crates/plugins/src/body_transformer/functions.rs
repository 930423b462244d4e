//! The functions that templates may call.

use super::value::{Value, shown_number};

/// Bytes of the longest text that a function makes.
const TEXT_BYTES_MAX: usize = 1024 * 1024;

/// A function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Function {
    EscapeXml,
    EscapeJson,
    ToString,
    ToNumber,
    Type,
    Upper,
    Lower,
    Len,
    Sub,
    Rep,
    Reverse,
    Concat,
    Floor,
    Ceil,
    Abs,
    Min,
    Max,
}

/// What they are called.
const NAMED: [(&str, Function); 17] = [
    ("_escape_xml", Function::EscapeXml),
    ("_escape_json", Function::EscapeJson),
    ("tostring", Function::ToString),
    ("tonumber", Function::ToNumber),
    ("type", Function::Type),
    ("string.upper", Function::Upper),
    ("string.lower", Function::Lower),
    ("string.len", Function::Len),
    ("string.sub", Function::Sub),
    ("string.rep", Function::Rep),
    ("string.reverse", Function::Reverse),
    ("table.concat", Function::Concat),
    ("math.floor", Function::Floor),
    ("math.ceil", Function::Ceil),
    ("math.abs", Function::Abs),
    ("math.min", Function::Min),
    ("math.max", Function::Max),
];

impl Function {
    pub(super) fn named(name: &str) -> Option<Self> {
        NAMED.iter().find(|(known, _)| *known == name).map(|(_, function)| *function)
    }

    /// All names, for people.
    pub(super) fn names() -> String {
        NAMED.map(|(name, _)| format!("`{name}`")).join(", ")
    }

    pub(super) fn call(self, arguments: &[Value]) -> Result<Value, String> {
        let argument = |index: usize| arguments.get(index).cloned().unwrap_or_default();
        let first = argument(0);
        let number = |index: usize| {
            let given = argument(index);
            given.number().ok_or_else(|| self.wrong("number", &given))
        };
        Ok(match self {
            Self::EscapeXml => Value::text(escape(&self.text(&first)?, XML)),
            Self::EscapeJson => Value::text(first.to_json().to_string()),
            Self::ToString => Value::text(first.shown()),
            Self::ToNumber => first.number().map_or(Value::Nil, Value::Number),
            Self::Type => Value::text(first.kind()),
            Self::Upper => Value::text(self.text(&first)?.to_ascii_uppercase()),
            Self::Lower => Value::text(self.text(&first)?.to_ascii_lowercase()),
            Self::Len => length(self.text(&first)?.len()),
            Self::Sub => {
                let to = if arguments.len() > 2 { number(2)? } else { -1.0 };
                Value::text(part(&self.text(&first)?, number(1)?, to))
            }
            Self::Rep => self.repeated(&self.text(&first)?, number(1)?)?,
            Self::Reverse => Value::text(self.text(&first)?.chars().rev().collect::<String>()),
            Self::Concat => self.concatenated(&first, &argument(1))?,
            Self::Floor => Value::Number(number(0)?.floor()),
            Self::Ceil => Value::Number(number(0)?.ceil()),
            Self::Abs => Value::Number(number(0)?.abs()),
            Self::Min | Self::Max => {
                let mut best = number(0)?;
                for index in 1..arguments.len() {
                    let next = number(index)?;
                    best = if self == Self::Min { best.min(next) } else { best.max(next) };
                }
                Value::Number(best)
            }
        })
    }

    fn text(self, value: &Value) -> Result<String, String> {
        match value {
            Value::Text(text) => Ok(text.to_string()),
            Value::Number(number) => Ok(shown_number(*number)),
            other => Err(self.wrong("string", other)),
        }
    }

    fn repeated(self, text: &str, times: f64) -> Result<Value, String> {
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "casts of floats saturate"
        )]
        let times = times as usize;
        match text.len().checked_mul(times) {
            Some(..=TEXT_BYTES_MAX) => Ok(Value::text(text.repeat(times))),
            _ => Err("the text that `string.rep` would make is too long".to_owned()),
        }
    }

    fn concatenated(self, list: &Value, separator: &Value) -> Result<Value, String> {
        let Value::Table(table) = list else { return Err(self.wrong("table", list)) };
        let separator = if *separator == Value::Nil { String::new() } else { self.text(separator)? };
        let parts: Result<Vec<_>, _> = table.list.iter().map(|value| self.text(value)).collect();
        Ok(Value::text(parts?.join(&separator)))
    }

    fn wrong(self, wanted: &str, given: &Value) -> String {
        let name =
            NAMED.iter().find(|(_, function)| *function == self).map_or("a function", |(name, _)| *name);
        format!("bad argument to `{name}` ({wanted} expected, got {})", given.kind())
    }
}

pub(super) fn length(length: usize) -> Value {
    #[allow(clippy::cast_precision_loss, reason = "nothing here has that many elements")]
    Value::Number(length as f64)
}

/// From one place to another, both counted from 1, or from the end if they are negative; places are bytes.
fn part(text: &str, from: f64, to: f64) -> String {
    #[allow(clippy::cast_precision_loss, reason = "no text is that long")]
    let length = text.len() as f64;
    let place = |place: f64| if place < 0.0 { length + place + 1.0 } else { place };
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "casts of floats saturate")]
    let (from, to) = (place(from).max(1.0) as usize, place(to).clamp(0.0, length) as usize);
    String::from_utf8_lossy(text.as_bytes().get(from - 1..to).unwrap_or_default()).into_owned()
}

/// Letters, and what is written in their place.
pub(super) type Escapes = [(char, &'static str)];

/// Those of `_escape_xml`.
const XML: &Escapes = &[('&', "&amp;"), ('<', "&lt;"), ('>', "&gt;"), ('\'', "&apos;"), ('"', "&quot;")];

/// The text with the letters of `table` written as it says.
pub(super) fn escape(text: &str, table: &Escapes) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match table.iter().find(|(known, _)| *known == letter) {
            Some((_, written)) => escaped.push_str(written),
            None => escaped.push(letter),
        }
    }
    escaped
}
