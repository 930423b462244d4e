//! `gatewright quick`: publishes a service for a backend in one line.
//!
//! It designs a service template with one route for everything below the path prefix and publishes it under the next
//! version number. Running it again with other flags changes the service. It only ever touches templates it made
//! itself, which it knows by a label.

use std::str::FromStr;

use serde_json::{Map, Value, json};

use super::{Failure, admin_client};
use crate::admin_client::AdminClient;
use crate::announce;
use crate::arguments::Quick;
use crate::shell::quoted;

/// The label of templates that this command made.
const LABEL: (&str, &str) = ("made-by", "gatewright-quick");

/// Why nothing was published.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    /// The name leaves nothing an id can be made of.
    #[error("`{name}` has no letter or digit to make a service id of; choose another --name")]
    Name { name: String },
    /// Somebody designed a service of that id by hand.
    #[error("service template `{id}` exists and was not made by `gatewright quick`; choose another --name")]
    NotOurs { id: String },
    /// The gateway group does not exist.
    #[error("gateway group `{id}` does not exist (--group); there are: {known}")]
    NoSuchGroup { id: String, known: String },
}

/// A backend, as its URL names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Backend {
    scheme: &'static str,
    host: String,
    port: u16,
}

impl FromStr for Backend {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let uri: ureq::http::Uri = text.parse().map_err(|_| "write it as http://host:port")?;
        let (scheme, default_port) = match uri.scheme_str() {
            Some("http") => ("http", 80),
            Some("https") => ("https", 443),
            _ => return Err("write it as http://host:port or https://host:port"),
        };
        let authority = uri.authority().ok_or("it names no host")?;
        if authority.as_str().contains('@') {
            return Err("user names and passwords in URLs are not supported");
        }
        if !matches!(uri.path_and_query().map_or("", |rest| rest.as_str()), "" | "/") {
            return Err("a backend is a host and a port; leave the path away");
        }
        let port = authority.port_u16().unwrap_or(default_port);
        let port_is_odd = authority.port().is_none() && authority.as_str().ends_with(':');
        if port == 0 || port_is_odd {
            return Err("the port is not a number from 1 to 65535");
        }
        Ok(Self { scheme, host: authority.host().to_owned(), port })
    }
}

impl Backend {
    /// How a gateway reaches the backend.
    fn upstream(&self) -> Value {
        let address = self.host.trim_matches(['[', ']']);
        let is_local = address.parse::<std::net::IpAddr>().is_ok() || self.host == "localhost";
        json!({
            "scheme": self.scheme,
            // A backend known by its domain name usually tells its sites apart by it.
            "pass_host": if is_local { "pass" } else { "node" },
            "nodes": [{ "host": self.host, "port": self.port, "weight": 1, "priority": 0 }],
        })
    }
}

/// Publishes the service and prints the curl that reaches it.
pub(crate) fn run(arguments: &Quick) -> Result<(), Failure> {
    let client = admin_client(&arguments.access)?;
    let name = arguments.name.clone().unwrap_or_else(|| name_of(&arguments.path, &arguments.backend));
    let id = id_of(&name)?;
    if client.service_template_find(&id)?.is_some_and(|found| found["labels"][LABEL.0] != LABEL.1) {
        return Err(Refusal::NotOurs { id }.into());
    }
    let group = arguments.group.as_str();
    let published = published_everywhere(&client, group, &id)?;
    let version = next_version(published.versions.iter().map(String::as_str));

    let runtime = runtime_configuration(arguments);
    client.service_template_put(&id, &template(&name, &runtime))?;
    client.route_template_put(&format!("{id}-all"), &route(&id))?;
    client.service_publish(group, &id, &version)?;
    // A publish keeps what the group had; what the flags now say otherwise is changed there.
    let changes = published.here.map(|service| differences(&service, &runtime)).unwrap_or_default();
    if !changes.is_empty() {
        client.runtime_configuration_patch(group, &id, &Value::Object(changes))?;
    }

    announce::line(format_args!("published service `{id}` {version} to gateway group `{group}`"));
    announce::line(curl(arguments));
    Ok(())
}

/// The name of a service nobody named: its path, or where its backend is.
fn name_of(path: &str, backend: &Backend) -> String {
    match path.trim_matches('/') {
        "" => format!("{}-{}", backend.host, backend.port),
        path => path.to_owned(),
    }
}

/// The id that belongs to a name: the same each time, so that a second run finds what the first one made.
pub(super) fn id_of(name: &str) -> Result<String, Refusal> {
    let letter = |c: char| {
        if c.is_ascii_alphanumeric() || c == '.' || c == '_' { c.to_ascii_lowercase() } else { '-' }
    };
    let id: String = name.chars().map(letter).collect();
    let id = id.trim_matches(['-', '.']);
    if id.is_empty() { Err(Refusal::Name { name: name.to_owned() }) } else { Ok(id.to_owned()) }
}

/// What is published of a service.
struct Published {
    /// Its active versions in all groups; version numbers are unique across them.
    versions: Vec<String>,
    /// The published service in the group that was asked for.
    here: Option<Value>,
}

fn published_everywhere(client: &AdminClient, group: &str, id: &str) -> Result<Published, Failure> {
    let groups = client.gateway_group_list()?;
    if !groups.iter().any(|known| known == group) {
        return Err(Refusal::NoSuchGroup { id: group.to_owned(), known: groups.join(", ") }.into());
    }
    let mut published = Published { versions: Vec::new(), here: None };
    for known in &groups {
        let Some(service) = client.published_service_find(known, id)? else { continue };
        published.versions.extend(service["version"].as_str().map(str::to_owned));
        if known == group {
            published.here = Some(service);
        }
    }
    Ok(published)
}

/// The number after the highest of `versions`; numbers of another form than `1.2.3` do not count.
fn next_version<'a>(versions: impl Iterator<Item = &'a str>) -> String {
    match versions.filter_map(version_parts).max() {
        Some([major, minor, patch]) => format!("{major}.{minor}.{}", patch.saturating_add(1)),
        None => "1.0.0".to_owned(),
    }
}

/// The three numbers of a version `1.2.3`.
pub(crate) fn version_parts(version: &str) -> Option<[u64; 3]> {
    let parts: Vec<u64> = version.split('.').map(|part| part.parse().ok()).collect::<Option<_>>()?;
    parts.try_into().ok()
}

/// What the flags say about hosts, path and backend; absent fields are `null`, which a merge takes as "remove".
fn runtime_configuration(arguments: &Quick) -> Map<String, Value> {
    let hosts = if arguments.host.is_empty() { Value::Null } else { json!(arguments.host) };
    let prefix = if arguments.path == "/" { Value::Null } else { json!(arguments.path) };
    let mut runtime = Map::new();
    runtime.insert("hosts".to_owned(), hosts);
    runtime.insert("path_prefix".to_owned(), prefix);
    runtime.insert("strip_path_prefix".to_owned(), json!(!arguments.keep_prefix));
    runtime.insert("upstream".to_owned(), arguments.backend.upstream());
    runtime
}

fn template(name: &str, runtime: &Map<String, Value>) -> Value {
    let mut template = json!({ "name": name, "type": "http", "labels": { LABEL.0: LABEL.1 } });
    for (field, value) in runtime.iter().filter(|(_, value)| !value.is_null()) {
        template[field] = value.clone();
    }
    template
}

fn route(service_id: &str) -> Value {
    json!({ "name": "all", "service_id": service_id, "paths": ["/*"] })
}

/// The fields of `wanted` that `found` says otherwise. Objects are compared only in the fields that are wanted.
fn differences(found: &Value, wanted: &Map<String, Value>) -> Map<String, Value> {
    let mut changes = Map::new();
    for (field, value) in wanted {
        let here = &found[field];
        match value {
            Value::Object(inner) => {
                let inner = differences(here, inner);
                if !inner.is_empty() {
                    changes.insert(field.clone(), Value::Object(inner));
                }
            }
            Value::Null if here.as_array().is_some_and(Vec::is_empty) => {}
            _ if here == value => {}
            _ => {
                changes.insert(field.clone(), value.clone());
            }
        }
    }
    changes
}

fn curl(arguments: &Quick) -> String {
    let proxy = announce::reachable(arguments.proxy);
    let url = quoted(&format!("http://{proxy}{}", arguments.path));
    match arguments.host.first() {
        // `*.example.com` accepts any name below, so any will do.
        Some(host) => format!("curl -H {} {url}", quoted(&format!("Host: {}", host.replacen('*', "www", 1)))),
        None => format!("curl {url}"),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::arguments::{Arguments, Command};

    fn arguments(line: &str) -> Quick {
        let words = ["gatewright", "quick"].into_iter().chain(line.split_whitespace());
        match Arguments::try_parse_from(words).expect("a command line").command {
            Command::Quick(arguments) => arguments,
            _ => panic!("not `quick`"),
        }
    }

    #[test]
    fn a_backend_is_scheme_host_and_port() {
        for (text, expected) in [
            ("http://127.0.0.1:3000", Some(("http", "127.0.0.1", 3000))),
            ("http://127.0.0.1:3000/", Some(("http", "127.0.0.1", 3000))),
            ("http://orders.internal", Some(("http", "orders.internal", 80))),
            ("https://orders.internal", Some(("https", "orders.internal", 443))),
            ("http://[::1]:8080", Some(("http", "[::1]", 8080))),
            ("http://127.0.0.1:3000/api", None),
            ("http://user:pw@127.0.0.1:3000", None),
            ("http://127.0.0.1:0", None),
            ("127.0.0.1:3000", None),
            ("ftp://127.0.0.1", None),
            ("", None),
        ] {
            let expected =
                expected.map(|(scheme, host, port)| Backend { scheme, host: host.to_owned(), port });
            assert_eq!(text.parse::<Backend>().ok(), expected, "{text}");
        }
    }

    #[test]
    fn a_backend_with_a_domain_name_sees_its_own_name() {
        for (url, pass_host) in [
            ("http://127.0.0.1:1", "pass"),
            ("http://[::1]:1", "pass"),
            ("http://localhost:1", "pass"),
            ("https://api.example.com", "node"),
        ] {
            assert_eq!(url.parse::<Backend>().unwrap().upstream()["pass_host"], pass_host, "{url}");
        }
        assert_eq!("https://api.example.com".parse::<Backend>().unwrap().upstream()["scheme"], "https");
    }

    #[test]
    fn name_and_id_follow_from_the_path_or_the_backend() {
        for (line, name, id) in [
            ("http://127.0.0.1:3000 --path /orders", "orders", "orders"),
            ("http://127.0.0.1:3000 --path /v1/My_Orders/", "v1/My_Orders", "v1-my_orders"),
            ("http://127.0.0.1:3000", "127.0.0.1-3000", "127.0.0.1-3000"),
        ] {
            let arguments = arguments(line);
            let found = name_of(&arguments.path, &arguments.backend);
            assert_eq!((found.as_str(), id_of(&found).unwrap().as_str()), (name, id));
        }
        assert!(id_of("--- ---").is_err());
    }

    #[test]
    fn the_next_version_follows_the_highest_published_one() {
        for (published, next) in [
            (vec![], "1.0.0"),
            (vec!["1.0.0"], "1.0.1"),
            (vec!["1.0.9", "1.0.10", "1.0.2"], "1.0.11"),
            (vec!["2.1.3", "10.0.0"], "10.0.1"),
            (vec!["2024-05", "v1"], "1.0.0"),
            (vec!["1.0", "1.0.0.0", "1.2.0"], "1.2.1"),
        ] {
            assert_eq!(next_version(published.iter().copied()), next, "{published:?}");
        }
    }

    #[test]
    fn only_what_the_flags_say_otherwise_is_changed() {
        let wanted = runtime_configuration(&arguments("http://127.0.0.1:3000 --path /orders"));
        let same = json!({
            "hosts": [], "path_prefix": "/orders", "strip_path_prefix": true, "status": 1,
            "upstream": {"name": "default", "scheme": "http", "pass_host": "pass", "retries": 2,
                         "nodes": [{"host": "127.0.0.1", "port": 3000, "weight": 1, "priority": 0}]},
        });
        assert_eq!(differences(&same, &wanted), Map::new());

        let mut other = same;
        other["hosts"] = json!(["shop.example.com"]);
        other["upstream"]["nodes"][0]["port"] = json!(3001);
        let nodes = json!([{"host": "127.0.0.1", "port": 3000, "weight": 1, "priority": 0}]);
        let changes = json!({"hosts": null, "upstream": {"nodes": nodes}});
        assert_eq!(Value::Object(differences(&other, &wanted)), changes);
    }

    #[test]
    fn the_template_says_what_the_flags_say() {
        let runtime = runtime_configuration(&arguments(
            "http://127.0.0.1:3000 --path /o --host a.b --host c.d --keep-prefix",
        ));
        let template = template("o", &runtime);
        assert_eq!(template["hosts"], json!(["a.b", "c.d"]));
        assert_eq!((&template["path_prefix"], &template["strip_path_prefix"]), (&json!("/o"), &json!(false)));
        serde_json::from_value::<gatewright_model::resource::service::ServiceTemplate>(template).unwrap();
    }

    #[test]
    fn the_curl_can_be_pasted() {
        for (line, expected) in [
            ("http://h:1 --path /orders", "curl http://127.0.0.1:9080/orders"),
            ("http://h:1", "curl http://127.0.0.1:9080/"),
            ("http://h:1 --path /a&b --proxy 0.0.0.0:80", "curl 'http://127.0.0.1:80/a&b'"),
            ("http://h:1 --host *.example.com", "curl -H 'Host: www.example.com' http://127.0.0.1:9080/"),
        ] {
            assert_eq!(curl(&arguments(line)), expected);
        }
    }

    #[test]
    fn a_missing_key_names_both_remedies() {
        let mut arguments = arguments("http://h:1 --data-dir /no/such/directory");
        arguments.access.admin_key = None;
        let message = admin_client(&arguments.access).err().expect("no key").to_string();
        for part in ["GATEWRIGHT_ADMIN_KEY", "--data-dir", "/no/such/directory/admin-key"] {
            assert!(message.contains(part), "{message}");
        }
    }
}
