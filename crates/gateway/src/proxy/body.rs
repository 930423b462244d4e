//! What conditions can read of a request's body: form fields, places in JSON, GraphQL operations.
//!
//! A body is read before matching only if a condition that is actually reached asks for it, and only up to
//! [`BODY_BYTES_MAX`]; beyond that, or if it is not what its `Content-Type` says, its variables are missing. It is
//! parsed at most once per request, and forwarded exactly as it came.

use std::borrow::Cow;
use std::cell::{Cell, OnceCell};

use apollo_parser::cst::{CstNode, Definition, OperationDefinition, Selection};
use bytes::Bytes;
use futures_util::{FutureExt, stream};
use gatewright_model::expression::{Value, Variable};
use gatewright_model::message::RequestHead;
use serde_json::Value as Json;

/// Bytes of a body that conditions can see.
pub(crate) const BODY_BYTES_MAX: usize = 1024 * 1024;

/// How deep a GraphQL document may nest, and of how many tokens it may consist.
const GRAPHQL_DEPTH_MAX: usize = 100;
const GRAPHQL_TOKENS_MAX: usize = 100_000;

/// A request's body, as far as matching has it.
pub(crate) enum Body {
    /// It was not read; set once a condition asks for it.
    Unread(Cell<bool>),
    /// It was read as a whole, or turned out to be too large.
    Read(Option<ReadBody>),
}

impl Body {
    /// A body that may have to be read.
    pub(crate) fn unread() -> Self {
        Self::Unread(Cell::new(false))
    }

    /// Whether a condition asked for it in vain.
    pub(crate) fn is_wanted(&self) -> bool {
        matches!(self, Self::Unread(wanted) if wanted.get())
    }

    /// The value of a variable that lies in the body.
    pub(crate) fn get<'a>(&'a self, variable: &Variable, request: &'a RequestHead) -> Option<Value<'a>> {
        match self {
            Self::Unread(wanted) => {
                wanted.set(true);
                None
            }
            Self::Read(body) => body.as_ref()?.get(variable, request),
        }
    }
}

/// A body that was read as a whole.
pub(crate) struct ReadBody {
    bytes: Bytes,
    parsed: OnceCell<Parsed>,
    graphql: OnceCell<Option<Graphql>>,
}

/// A body as its `Content-Type` says to read it.
enum Parsed {
    Fields(Vec<(String, String)>),
    Json(Json),
    Other,
}

/// The first operation of a GraphQL document.
#[derive(Debug, PartialEq, Eq)]
struct Graphql {
    name: String,
    operation: String,
    root_fields: Vec<String>,
}

impl ReadBody {
    pub(crate) fn new(bytes: Bytes) -> Self {
        Self { bytes, parsed: OnceCell::new(), graphql: OnceCell::new() }
    }

    fn get<'a>(&'a self, variable: &Variable, request: &'a RequestHead) -> Option<Value<'a>> {
        match variable {
            Variable::PostArg(name) => {
                let is_form = content_type(request).essence == "application/x-www-form-urlencoded";
                is_form.then(|| self.field(name, request))?
            }
            Variable::PostArgPath(path) => match self.parsed(request) {
                Parsed::Fields(_) => self.field(path, request),
                Parsed::Json(json) => place(json, path),
                Parsed::Other => None,
            },
            Variable::GraphqlName => Some(Value::text(self.graphql(request)?.name.as_bytes())),
            Variable::GraphqlOperation => Some(Value::text(self.graphql(request)?.operation.as_bytes())),
            Variable::GraphqlRootFields => {
                let fields = self.graphql(request)?.root_fields.iter();
                Some(Value::List(fields.map(|field| Value::text(field.as_bytes())).collect()))
            }
            _ => None,
        }
    }

    fn field<'a>(&'a self, name: &str, request: &RequestHead) -> Option<Value<'a>> {
        let Parsed::Fields(fields) = self.parsed(request) else { return None };
        let (_, value) = fields.iter().find(|(key, _)| key == name)?;
        Some(Value::text(value.as_bytes()))
    }

    fn parsed(&self, request: &RequestHead) -> &Parsed {
        self.parsed.get_or_init(|| {
            let content_type = content_type(request);
            match content_type.essence.as_str() {
                "application/x-www-form-urlencoded" => {
                    Parsed::Fields(form_urlencoded::parse(&self.bytes).into_owned().collect())
                }
                "multipart/form-data" => multipart(&self.bytes, &content_type.full),
                essence if essence == "application/json" || essence.ends_with("+json") => {
                    serde_json::from_slice(&self.bytes).map_or(Parsed::Other, Parsed::Json)
                }
                _ => Parsed::Other,
            }
        })
    }

    fn graphql(&self, request: &RequestHead) -> Option<&Graphql> {
        let read = || {
            let document = match (content_type(request).essence.as_str(), self.parsed(request)) {
                (_, Parsed::Json(json)) => Cow::Borrowed(json.get("query")?.as_str()?),
                ("application/graphql", _) => Cow::Borrowed(std::str::from_utf8(&self.bytes).ok()?),
                _ => query_argument(request)?,
            };
            graphql(&document)
        };
        self.graphql.get_or_init(read).as_ref()
    }
}

struct ContentType {
    full: String,
    /// Type and subtype in lower case, without parameters.
    essence: String,
}

fn content_type(request: &RequestHead) -> ContentType {
    let value = request.fields.named(b"content-type").next().unwrap_or_default();
    let full = String::from_utf8_lossy(value).into_owned();
    let essence = full.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    ContentType { full, essence }
}

/// The fields of a multipart form. Its parser reads from a stream; here everything is there already, so it never
/// has to wait.
fn multipart(bytes: &Bytes, content_type: &str) -> Parsed {
    let read = || {
        let boundary = multer::parse_boundary(content_type).ok()?;
        let whole = stream::iter([Ok::<_, std::convert::Infallible>(bytes.clone())]);
        let mut form = multer::Multipart::new(whole, boundary);
        let mut fields = Vec::new();
        while let Some(field) = form.next_field().now_or_never()?.ok()? {
            let name = field.name().unwrap_or_default().to_owned();
            fields.push((name, field.text().now_or_never()?.ok()?));
        }
        Some(Parsed::Fields(fields))
    };
    read().unwrap_or(Parsed::Other)
}

/// The place in `json` that `path` names: keys joined by dots, or JSONPath (RFC 9535), which gives a list.
fn place<'a>(json: &'a Json, path: &str) -> Option<Value<'a>> {
    if path.contains(['[', '*']) || path.contains("..") {
        let from_root = if path.starts_with('$') { path.to_owned() } else { format!("$.{path}") };
        let nodes = serde_json_path::JsonPath::parse(&from_root).ok()?.query(json).all();
        if nodes.is_empty() {
            return None;
        }
        return Some(Value::List(nodes.into_iter().filter_map(Value::from_json).collect()));
    }
    let found = path.split('.').try_fold(json, |at, key| at.get(key))?;
    Value::from_json(found)
}

/// The document of a GraphQL request by `GET`.
fn query_argument(request: &RequestHead) -> Option<Cow<'_, str>> {
    let query = request.bytes(request.query?);
    form_urlencoded::parse(query).find(|(key, _)| key == "query").map(|(_, value)| value)
}

fn graphql(document: &str) -> Option<Graphql> {
    let parser = apollo_parser::Parser::new(document)
        .recursion_limit(GRAPHQL_DEPTH_MAX)
        .token_limit(GRAPHQL_TOKENS_MAX);
    let tree = parser.parse();
    if tree.errors().next().is_some() {
        return None;
    }
    let operation = tree.document().definitions().find_map(|definition| match definition {
        Definition::OperationDefinition(operation) => Some(operation),
        _ => None,
    })?;
    Some(Graphql {
        name: operation.name().map(|name| name.text().to_string()).unwrap_or_default(),
        // A document may begin with its selection: then it is a query.
        operation: operation.operation_type().map_or("query".to_owned(), |kind| kind.source_string()),
        root_fields: root_fields(&operation),
    })
}

fn root_fields(operation: &OperationDefinition) -> Vec<String> {
    let selections = operation.selection_set().into_iter().flat_map(|set| set.selections());
    let name = |selection| match selection {
        Selection::Field(field) => field.name().map(|name| name.text().to_string()),
        _ => None,
    };
    selections.filter_map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads `name` from a request with this content type and body.
    fn read(content_type: &str, body: &str, name: &str) -> Option<String> {
        let mut request = RequestHead::default();
        let text =
            format!("POST /?query=%7Bviewer%7D HTTP/1.1\r\nHost: a\r\nContent-Type: {content_type}\r\n\r\n");
        crate::http1::request::parse(text.as_bytes(), &mut request).expect("a request");
        let body = Body::Read(Some(ReadBody::new(Bytes::copy_from_slice(body.as_bytes()))));
        let value = body.get(&Variable::of(name), &request)?;
        Some(match value {
            Value::Text(text) => String::from_utf8_lossy(&text).into_owned(),
            other => format!("{other:?}"),
        })
    }

    #[test]
    fn fields_of_forms_can_be_read() {
        let form = "application/x-www-form-urlencoded; charset=utf-8";
        assert_eq!(read(form, "a=1%202&a=3&b", "post_arg_a").as_deref(), Some("1 2"));
        assert_eq!(read(form, "a=1&b", "post_arg_b").as_deref(), Some(""));
        assert_eq!(read(form, "a=1", "post_arg.a").as_deref(), Some("1"));
        assert_eq!(read(form, "a=1", "post_arg_none"), None);
        let multipart = "--XX\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1\r\n--XX--\r\n";
        assert_eq!(read("multipart/form-data; boundary=XX", multipart, "post_arg.a").as_deref(), Some("1"));
        assert_eq!(read("multipart/form-data; boundary=YY", multipart, "post_arg.a"), None);
        assert_eq!(read("text/plain", "a=1", "post_arg_a"), None);
    }

    #[test]
    fn places_in_json_can_be_read() {
        let json = r#"{"model": "x", "user": {"age": 7}, "messages": [{"role": "a"}, {"role": "b"}]}"#;
        for (name, expected) in [
            ("post_arg.model", Some("x")),
            ("post_arg.user.age", Some("Number(7.0)")),
            ("post_arg.user", Some("Object")),
            ("post_arg.user.name", None),
            ("post_arg.messages[*].role", Some(r#"List([Text([97]), Text([98])])"#)),
            ("post_arg.messages[9]", None),
            ("post_arg.messages[", None),
            ("post_arg_model", None),
        ] {
            assert_eq!(read("application/json", json, name).as_deref(), expected, "{name}");
        }
        assert_eq!(read("application/json", "{broken", "post_arg.model"), None);
    }

    #[test]
    fn the_first_operation_of_graphql_can_be_read() {
        let document = "fragment F on R { id } mutation Rename($n: String) { alias: repo(name: $n) { id } owner { id } }";
        let json = serde_json::json!({ "query": document }).to_string();
        for (kind, body) in [("application/json", json.as_str()), ("application/graphql", document)] {
            assert_eq!(read(kind, body, "graphql_name").as_deref(), Some("Rename"));
            assert_eq!(read(kind, body, "graphql_operation").as_deref(), Some("mutation"));
            let fields = read(kind, body, "graphql_root_fields");
            assert_eq!(fields, Some(format!("List([Text({:?}), Text({:?})])", b"repo", b"owner")));
        }
        assert_eq!(read("", "", "graphql_operation").as_deref(), Some("query"), "from the query of a GET");
        assert_eq!(read("application/graphql", "query { broken", "graphql_name"), None);
        let deep = format!("{}{}", "{a".repeat(10_000), "}".repeat(10_000));
        assert_eq!(read("application/graphql", &deep, "graphql_name"), None);
    }

    #[test]
    fn a_body_that_was_not_read_says_that_it_is_wanted() {
        let (body, request) = (Body::unread(), RequestHead::default());
        assert!(!body.is_wanted());
        assert!(body.get(&Variable::of("post_arg_a"), &request).is_none());
        assert!(body.is_wanted());
    }
}
