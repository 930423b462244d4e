//! What a line of the access log consists of: a JSON object with fixed fields, or text with variables.
//!
//! Lines of requests and lines of streams have variables of their own, and are made alike.
//! A format is read once, at the start; a line then only asks for values in turn.
//! Whatever a client sent is escaped, so that nobody can write a line of their own or end a field early, and cut,
//! so that a line has an end.

use std::io::Write;

use super::stream::{self, StreamVariable};
use super::variable::{NAMES, Shown, Told, Variable};
use crate::proxy::body::Body;

/// Bytes of one value; what is longer is cut.
const VALUE_BYTES_MAX: usize = 8 * 1024;

/// The fields of a JSON line, in their order.
pub const JSON_FIELDS: &[&str] = &[
    "time_iso8601",
    "hostname",
    "gateway_group_id",
    "revision",
    "remote_addr",
    "remote_port",
    "scheme",
    "server_protocol",
    "ssl_protocol",
    "ssl_server_name",
    "request_id",
    "request_method",
    "host",
    "request_uri",
    "request_length",
    "status",
    "reject_reason",
    "cut_reason",
    "bytes_sent",
    "request_time",
    "gateway_time",
    "service_id",
    "service_name",
    "service_version",
    "route_id",
    "route_name",
    "consumer_name",
    "upstream_addr",
    "upstream_tries",
    "upstream_connect_time",
    "upstream_header_time",
    "upstream_response_time",
    "http_user_agent",
    "http_referer",
    "instance_id",
];

/// The format that web servers have shared for decades. The gateway knows no user of HTTP authentication.
const COMBINED: &str = "$remote_addr - - [$time_local] \"$request\" $status $body_bytes_sent \"$http_referer\" \"$http_user_agent\"";

/// What the lines of requests say.
pub type Format = LineFormat<Variable>;

/// What the lines of streams say.
pub type StreamFormat = LineFormat<StreamVariable>;

/// What lines say that consist of such variables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LineFormat<V>(Shape<V>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Shape<V> {
    /// What stands before each value, such as `,"status":`, and the value.
    Json(Vec<(Box<str>, V)>),
    Text(Vec<Piece<V>>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece<V> {
    Literal(Box<str>),
    Value(V),
}

/// The variables of one kind of line.
#[derive(Clone, Copy)]
struct Vocabulary<V> {
    of: fn(&str) -> Option<V>,
    json_fields: &'static [&'static str],
    combined: &'static str,
    /// What is known, for people.
    known: fn() -> String,
}

const OF_REQUESTS: Vocabulary<Variable> = Vocabulary {
    of: Variable::of,
    json_fields: JSON_FIELDS,
    combined: COMBINED,
    known: || {
        let names: Vec<_> = NAMES.iter().map(|known| known.name).collect();
        format!("{}, and the variables of conditions that need no body", names.join(", "))
    },
};

const OF_STREAMS: Vocabulary<StreamVariable> = Vocabulary {
    of: StreamVariable::of,
    json_fields: stream::JSON_FIELDS,
    combined: stream::COMBINED,
    known: || stream::NAMES.iter().map(|known| known.name).collect::<Vec<_>>().join(", "),
};

/// A format names variables that there are not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown variables in the access log format: {}; it knows {known}", .unknown.join(", "))]
pub struct UnknownVariables {
    /// Their names.
    pub unknown: Vec<String>,
    /// What is known instead.
    known: String,
}

impl Default for Format {
    fn default() -> Self {
        json(OF_REQUESTS)
    }
}

impl Default for StreamFormat {
    fn default() -> Self {
        json(OF_STREAMS)
    }
}

impl Format {
    /// Reads a format: `json`, `combined`, or text with `$name` or `${name}`.
    ///
    /// # Errors
    /// Every name that is no variable.
    pub fn parse(text: &str) -> Result<Self, UnknownVariables> {
        parse(text, OF_REQUESTS)
    }

    /// The lines of streams that stand beside lines like these, where nobody says otherwise.
    #[must_use]
    pub fn of_streams(&self) -> StreamFormat {
        match self.0 {
            Shape::Json(_) => StreamFormat::default(),
            // It names variables that there are.
            Shape::Text(_) => parse(stream::COMBINED, OF_STREAMS).unwrap_or_default(),
        }
    }

    /// Writes the line of an exchange.
    pub(crate) fn write(&self, told: &Told<'_>, out: &mut Vec<u8>) {
        let body = Body::unread();
        let variables = told.variables(&body);
        self.fill(|variable| told.value(variable, &variables), out);
    }
}

impl StreamFormat {
    /// Reads a format: `json`, `combined`, which is the line of Apache APISIX, or text with `$name` or `${name}`.
    ///
    /// # Errors
    /// Every name that is no variable of streams.
    pub fn parse(text: &str) -> Result<Self, UnknownVariables> {
        parse(text, OF_STREAMS)
    }

    /// Writes the line of a stream.
    pub(crate) fn write(&self, told: &stream::Told<'_>, out: &mut Vec<u8>) {
        self.fill(|variable| told.value(*variable), out);
    }
}

impl<V> LineFormat<V> {
    fn fill<'s>(&self, value_of: impl Fn(&V) -> Option<Shown<'s>>, out: &mut Vec<u8>) {
        match &self.0 {
            Shape::Json(fields) => {
                out.push(b'{');
                for (before, variable) in fields {
                    // The first one, the time, always has a value.
                    if let Some(value) = value_of(variable) {
                        out.extend_from_slice(before.as_bytes());
                        write_json(&value, out);
                    }
                }
                out.push(b'}');
            }
            Shape::Text(pieces) => {
                for piece in pieces {
                    match piece {
                        Piece::Literal(literal) => out.extend_from_slice(literal.as_bytes()),
                        Piece::Value(variable) => match value_of(variable) {
                            Some(value) => write_text(&value, out),
                            None => out.push(b'-'),
                        },
                    }
                }
            }
        }
        out.push(b'\n');
    }
}

fn json<V>(vocabulary: Vocabulary<V>) -> LineFormat<V> {
    let known = vocabulary.json_fields.iter().filter_map(|name| Some((*name, (vocabulary.of)(name)?)));
    let fields = known.enumerate().map(|(index, (name, variable))| {
        let comma = if index == 0 { "" } else { "," };
        (format!("{comma}\"{name}\":").into(), variable)
    });
    LineFormat(Shape::Json(fields.collect()))
}

fn parse<V>(text: &str, vocabulary: Vocabulary<V>) -> Result<LineFormat<V>, UnknownVariables> {
    match text {
        "json" => Ok(json(vocabulary)),
        "combined" => parse_text(vocabulary.combined, &vocabulary),
        text => parse_text(text, &vocabulary),
    }
}

fn parse_text<V>(text: &str, vocabulary: &Vocabulary<V>) -> Result<LineFormat<V>, UnknownVariables> {
    let mut pieces = Vec::new();
    let mut unknown = Vec::new();
    let mut literal = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        literal.push_str(before);
        let braced = after.strip_prefix('{').and_then(|after| after.split_once('}'));
        let (name, behind) = braced.unwrap_or_else(|| {
            let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
            after.split_at(after.find(|c| !is_name(c)).unwrap_or(after.len()))
        });
        rest = behind;
        match (vocabulary.of)(name) {
            _ if name.is_empty() => literal.push('$'),
            None => unknown.push(name.to_owned()),
            Some(variable) => {
                if !literal.is_empty() {
                    pieces.push(Piece::Literal(std::mem::take(&mut literal).into()));
                }
                pieces.push(Piece::Value(variable));
            }
        }
    }
    literal.push_str(rest);
    if !literal.is_empty() {
        pieces.push(Piece::Literal(literal.into()));
    }
    match unknown.is_empty() {
        true => Ok(LineFormat(Shape::Text(pieces))),
        false => Err(UnknownVariables { unknown, known: (vocabulary.known)() }),
    }
}

fn write_json(value: &Shown<'_>, out: &mut Vec<u8>) {
    match value {
        Shown::Text(text) => {
            let text = &text[..text.len().min(VALUE_BYTES_MAX)];
            // Writing to memory cannot fail.
            let _ = serde_json::to_writer(out, &String::from_utf8_lossy(text));
        }
        number => number.write(out),
    }
}

fn write_text(value: &Shown<'_>, out: &mut Vec<u8>) {
    match value {
        Shown::Text(text) => {
            for byte in text.iter().take(VALUE_BYTES_MAX) {
                match byte {
                    b'"' | b'\\' | 0..0x20 | 0x7f.. => {
                        let _ = write!(out, "\\x{byte:02X}");
                    }
                    plain => out.push(*plain),
                }
            }
        }
        number => number.write(out),
    }
}
