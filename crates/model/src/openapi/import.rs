//! A document becomes a service.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::notes::Notes;
use super::security::Demands;
use super::{
    Document, DocumentError, Import, METHODS, NoteKind, PLUGINS_EXTENSION, TAG, escaped, path, server,
};
use crate::limits;
use crate::path_pattern::PathPattern;
use crate::resource::route::Route;
use crate::resource::service::{ServiceKind, ServiceTemplate};
use crate::resource::{AsSent, Labels, Plugins};

/// The service that `document` describes, called `name` or else as the document is.
///
/// # Errors
/// When no service can be made of it; what is merely missing in the service is a note.
pub fn import(document: &Document, name: Option<&str>) -> Result<Import, DocumentError> {
    let mut notes = Notes::default();
    let root = document.members();
    note_others(root, "", "the document", &ROOT, &mut notes);
    let service = service(root, name, &mut notes)?;
    let mut reader = Reader {
        document,
        notes,
        demands: Demands::new(document),
        routes: Vec::new(),
        names: BTreeSet::new(),
    };
    for (path, item) in root.get("paths").and_then(Value::as_object).into_iter().flatten() {
        reader.path(path, item)?;
    }
    let Reader { notes, demands, routes, .. } = reader;
    let (suggestions, notes) = (demands.finish(), notes.finish());
    if routes.is_empty() {
        let reason = notes.iter().find(|note| note.kind == NoteKind::Skipped);
        let reason = reason.map_or("`paths` has none", |note| note.message.as_str());
        return Err(DocumentError::NoOperations(reason.to_owned()));
    }
    Ok(Import { service, routes, suggestions, notes })
}

/// What is read of a document; the rest is noted.
const ROOT: [&str; 7] = ["openapi", "info", "servers", "paths", "tags", "security", "components"];
const INFO: [&str; 4] = ["title", "description", "summary", "version"];
const PATH: [&str; 3] = ["$ref", "summary", "description"];
const OPERATION: [&str; 5] = ["operationId", "summary", "description", "tags", "security"];

fn service(
    root: &Map<String, Value>,
    name: Option<&str>,
    notes: &mut Notes,
) -> Result<ServiceTemplate, DocumentError> {
    let empty = Map::new();
    let info = root.get("info").and_then(Value::as_object).unwrap_or(&empty);
    note_others(info, "/info", "info", &INFO, notes);
    if let Some(version) = info.get("version").and_then(Value::as_str) {
        let message = format!("a template has no version; publish it as one, such as `{}`", cut(version, 40));
        notes.add(NoteKind::Unused, "/info/version", message);
    }
    let title = name.or_else(|| text(info, "title")).map(str::trim).filter(|title| !title.is_empty());
    let title = title.ok_or(DocumentError::NoTitle)?;
    let name = cut(title, limits::SERVICE_NAME_LENGTH_MAX);
    if name.len() < title.len() {
        notes.add(NoteKind::Adapted, "/info/title", "the title is cut: a name has at most 100 characters");
    }
    let desc = description(&[text(info, "summary"), text(info, "description")], "/info", notes);
    let components = root.get("components").and_then(Value::as_object).unwrap_or(&empty);
    note_others(components, "/components", "components", &["securitySchemes"], notes);
    let mut labels = Labels::new();
    for (index, tag) in root.get("tags").and_then(Value::as_array).into_iter().flatten().enumerate() {
        let Some(tag) = tag.as_object() else { continue };
        note_others(tag, &format!("/tags/{index}"), "a tag", &["name"], notes);
        labels.extend(text(tag, "name").map(|name| (name.to_owned(), TAG.to_owned())));
    }
    let place = server::place(root.get("servers").unwrap_or(&Value::Null), notes);
    Ok(ServiceTemplate {
        name: name.to_owned(),
        desc: desc.into(),
        labels: labels.into(),
        kind: ServiceKind::Http,
        hosts: Vec::new(),
        path_prefix: place.path_prefix,
        // The backend is found below the same prefix: that is what the document says.
        strip_path_prefix: false,
        forward_raw_path: false,
        plugins: plugins(root, "", notes).into(),
        upstream: place.upstream,
    })
}

struct Reader<'d> {
    document: &'d Document,
    notes: Notes,
    demands: Demands<'d>,
    routes: Vec<Route>,
    names: BTreeSet<String>,
}

impl<'d> Reader<'d> {
    fn path(&mut self, path: &str, item: &'d Value) -> Result<(), DocumentError> {
        let at = format!("/paths/{}", escaped(path));
        if path.starts_with("x-") {
            self.notes.add(NoteKind::Unused, &at, format!("extension `{}`", cut(path, 100)));
            return Ok(());
        }
        let item = match self.document.resolve(item) {
            Ok(item) => item,
            Err(reference) => {
                let message =
                    format!("reference `{}` leads nowhere inside the document", cut(reference, 200));
                self.notes.add(NoteKind::Skipped, &at, message);
                return Ok(());
            }
        };
        let Some(members) = item.as_object() else {
            self.notes.add(NoteKind::Skipped, &at, "a path is not an object");
            return Ok(());
        };
        let known: Vec<&str> = PATH.into_iter().chain(METHODS).collect();
        note_others(members, &at, "a path", &known, &mut self.notes);
        let written = match path::imported(path).and_then(routable) {
            Ok(written) => written,
            Err(reason) => {
                let message = format!("path `{}` cannot be routed: {reason}", cut(path, 200));
                self.notes.add(NoteKind::Skipped, &at, message);
                return Ok(());
            }
        };
        if written.is_wider {
            let message = "a `*`, or a `:` at the start of a segment, stands for more than itself in a route";
            self.notes.add(NoteKind::Adapted, &at, message);
        }
        let of_path = plugins(members, &at, &mut self.notes);
        for method in METHODS {
            let Some(operation) = members.get(method) else { continue };
            let at = format!("{at}/{method}");
            let Some(operation) = operation.as_object() else {
                self.notes.add(NoteKind::Skipped, &at, "an operation is not an object");
                continue;
            };
            if self.routes.len() >= limits::ROUTES_PER_SERVICE_MAX {
                return Err(DocumentError::TooManyOperations);
            }
            let route = self.route((method, path), &written, (members, operation), &at);
            let route = Route {
                plugins: of_path.clone().into_iter().chain(route.plugins.into_inner()).collect(),
                ..route
            };
            self.demands.enter(operation, &at, &route.name, &mut self.notes);
            self.routes.push(route);
        }
        Ok(())
    }

    fn route(
        &mut self,
        (method, path): (&str, &str),
        written: &path::Written,
        (item, operation): (&Map<String, Value>, &Map<String, Value>),
        at: &str,
    ) -> Route {
        note_others(operation, at, "an operation", &OPERATION, &mut self.notes);
        let method = method.to_ascii_uppercase();
        let id = text(operation, "operationId").filter(|id| !id.is_empty()).map(str::to_owned);
        let place = format!("{method} {path}");
        let name = match id {
            Some(id) if self.names.contains(&id) => {
                let message = "an operation id stands twice; the later route is called after its path";
                self.notes.add(NoteKind::Adapted, &format!("{at}/operationId"), message);
                place
            }
            Some(id) => id,
            None => place,
        };
        self.names.insert(name.clone());
        let tags = operation.get("tags").and_then(Value::as_array).into_iter().flatten();
        let labels = tags.filter_map(Value::as_str).map(|tag| (tag.to_owned(), TAG.to_owned())).collect();
        let said = [operation, item].map(|said| [text(said, "summary"), text(said, "description")]);
        // What is said of the path holds where the operation says nothing.
        let said = if said[0] == [None, None] { said[1] } else { said[0] };
        Route {
            name,
            desc: description(&said, at, &mut self.notes).into(),
            labels,
            paths: vec![written.path.clone()],
            methods: vec![method].into(),
            hosts: Vec::new(),
            remote_addrs: AsSent::default(),
            vars: written.vars.clone().into(),
            // The conditional route is the more specific one, whatever the lengths of the two paths are.
            priority: i64::from(!written.vars.is_empty()),
            enable_websocket: AsSent::default(),
            timeout: None,
            plugins: plugins(operation, at, &mut self.notes).into(),
        }
    }
}

fn routable(written: path::Written) -> Result<path::Written, String> {
    PathPattern::parse("", &written.path, true)?;
    Ok(written)
}

/// The plugins that the extension among `members` says.
fn plugins(members: &Map<String, Value>, at: &str, notes: &mut Notes) -> Plugins {
    match members.get(PLUGINS_EXTENSION) {
        None => Plugins::new(),
        Some(Value::Object(plugins)) if plugins.values().all(Value::is_object) => plugins.clone(),
        Some(_) => {
            let message = format!("`{PLUGINS_EXTENSION}` is not an object of plugins and configurations");
            notes.add(NoteKind::Skipped, &format!("{at}/{PLUGINS_EXTENSION}"), message);
            Plugins::new()
        }
    }
}

/// Notes the members that nothing is made of.
fn note_others(members: &Map<String, Value>, at: &str, of: &str, known: &[&str], notes: &mut Notes) {
    let others = members.keys().map(String::as_str);
    for name in others.filter(|name| !known.contains(name) && *name != PLUGINS_EXTENSION) {
        let is_extension = name.starts_with("x-");
        let name_shown = cut(name, 100);
        let message = if is_extension {
            format!("extension `{name_shown}` of {of}")
        } else {
            format!("`{name_shown}` of {of}")
        };
        notes.add(NoteKind::Unused, &format!("{at}/{}", escaped(name)), message);
    }
}

fn text<'v>(members: &'v Map<String, Value>, name: &str) -> Option<&'v str> {
    members.get(name).and_then(Value::as_str)
}

fn description(said: &[Option<&str>], at: &str, notes: &mut Notes) -> String {
    let mut parts: Vec<&str> = said.iter().flatten().map(|part| part.trim()).collect();
    parts.retain(|part| !part.is_empty());
    parts.dedup();
    let whole = parts.join("\n\n");
    let kept = cut(&whole, limits::TEXT_LENGTH_MAX);
    if kept.len() < whole.len() {
        notes.add(NoteKind::Adapted, at, "a description is cut");
    }
    kept.to_owned()
}

/// The first `max` characters.
fn cut(text: &str, max: usize) -> &str {
    text.char_indices().nth(max).map_or(text, |(at, _)| &text[..at])
}
