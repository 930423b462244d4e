//! Servers: where a document says that a service is, as path prefix and upstream.

use serde_json::{Map, Value};

use super::NoteKind;
use super::notes::Notes;
use crate::resource::upstream::{Node, PassHost, Scheme, Upstream};

/// What the servers of a document say.
#[derive(Debug, Default)]
pub(super) struct Place {
    pub(super) path_prefix: Option<String>,
    pub(super) upstream: Option<Upstream>,
}

/// One server, taken apart.
#[derive(Debug, PartialEq, Eq)]
struct Address {
    scheme: Option<Scheme>,
    host: String,
    port: u16,
    path: String,
}

/// The first server says scheme and path; others with the same are further nodes.
pub(super) fn place(servers: &Value, notes: &mut Notes) -> Place {
    let mut place = Place::default();
    let mut first: Option<Address> = None;
    for (index, server) in servers.as_array().into_iter().flatten().enumerate() {
        let at = format!("/servers/{index}");
        let Some(members) = server.as_object() else {
            notes.add(NoteKind::Skipped, &at, "a server is not an object");
            continue;
        };
        for name in members.keys().filter(|name| !matches!(name.as_str(), "url" | "variables")) {
            notes.add(NoteKind::Unused, &format!("{at}/{name}"), format!("`{name}` of a server"));
        }
        let url = members.get("url").and_then(Value::as_str).unwrap_or("/");
        let address = match filled_in(url, members).and_then(|url| parsed(&url)) {
            Ok(address) => address,
            Err(reason) => {
                notes.add(NoteKind::Skipped, &at, format!("server `{}`: {reason}", shown(url)));
                continue;
            }
        };
        if url.contains('{') {
            let message = format!("variables of server `{}` have the values of their defaults", shown(url));
            notes.add(NoteKind::Adapted, &at, message);
        }
        match &first {
            Some(first) if first.scheme != address.scheme || first.path != address.path => {
                let message = "a server with another scheme or path than the first is not served";
                notes.add(NoteKind::Skipped, &at, message);
                continue;
            }
            Some(_) => {}
            None => place.path_prefix = Some(address.path.clone()).filter(|path| !path.is_empty()),
        }
        if let Some(scheme) = address.scheme {
            // A backend known by its domain name usually tells its sites apart by it.
            let upstream = place.upstream.get_or_insert_with(|| Upstream {
                scheme,
                pass_host: PassHost::Node,
                ..Upstream::default()
            });
            let node = Node { host: address.host.clone(), port: address.port, weight: 1, priority: 0 };
            if !upstream.nodes.contains(&node) {
                upstream.nodes.push(node);
            }
        } else {
            notes.add(NoteKind::Adapted, &at, "the server names no host, so the service has no node for it");
        }
        first.get_or_insert(address);
    }
    place
}

/// A URL without what might be a secret.
fn shown(url: &str) -> String {
    let without_user = match (url.find("://"), url.find('@')) {
        (Some(scheme), Some(at)) if at > scheme => format!("{}{}", &url[..scheme + 3], &url[at + 1..]),
        _ => url.to_owned(),
    };
    without_user.chars().take(200).collect()
}

/// The URL with every variable at its default.
fn filled_in(url: &str, server: &Map<String, Value>) -> Result<String, String> {
    let mut filled = String::new();
    let mut rest = url;
    while let Some(open) = rest.find('{') {
        let close = rest[open..].find('}').ok_or("a `{` is not closed")? + open;
        let name = &rest[open + 1..close];
        let variable = server.get("variables").and_then(|variables| variables.get(name));
        let default = variable.and_then(|variable| variable.get("default"));
        let value = match default {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Number(number)) => number.to_string(),
            _ => return Err(format!("variable `{name}` has no default")),
        };
        filled.push_str(&rest[..open]);
        filled.push_str(&value);
        rest = &rest[close + 1..];
    }
    filled.push_str(rest);
    Ok(filled)
}

fn parsed(url: &str) -> Result<Address, String> {
    if url.contains(['?', '#']) {
        return Err("a server has no query and no fragment".to_owned());
    }
    let Some((scheme, rest)) = url.split_once("://") else {
        let path = if url.starts_with('/') || url.is_empty() { url.to_owned() } else { format!("/{url}") };
        return Ok(Address { scheme: None, host: String::new(), port: 0, path: prefix(&path)? });
    };
    let (scheme, default_port) = match scheme.to_ascii_lowercase().as_str() {
        "http" => (Scheme::Http, 80),
        "https" => (Scheme::Https, 443),
        other => return Err(format!("scheme `{other}` is neither http nor https")),
    };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    if authority.contains('@') {
        return Err("a server has no user information".to_owned());
    }
    let after_address = authority.rfind(']').unwrap_or(0);
    let (host, port) = match authority[after_address..].find(':') {
        None => (authority, default_port),
        Some(at) => {
            let (host, port) = authority.split_at(after_address + at);
            let port = port[1..].parse().ok().filter(|port| *port > 0);
            (host, port.ok_or("the port is not a number from 1 to 65535")?)
        }
    };
    if host.is_empty() || host.contains(char::is_whitespace) {
        return Err("there is no host".to_owned());
    }
    Ok(Address { scheme: Some(scheme), host: host.to_ascii_lowercase(), port, path: prefix(path)? })
}

/// The path of a server as a path prefix; empty: none.
fn prefix(path: &str) -> Result<String, String> {
    let decoded = super::path::percent_decoded(path.trim_end_matches('/'));
    decoded.ok_or_else(|| "its path has an escape that is no text".to_owned())
}
