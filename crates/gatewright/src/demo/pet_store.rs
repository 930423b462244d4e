//! The design of the pet store: what a user would write to the admin API.

use std::net::SocketAddr;

use serde_json::{Value, json};

/// Id and name of the service.
pub(super) const SERVICE: &str = "pet-store";

/// The host the pet store accepts; a client names it in a header, so no DNS is needed to try it.
pub(crate) const HOST: &str = "petstore.example.com";

/// The path prefix of the pet store, removed before a request goes to a backend.
pub(super) const PATH_PREFIX: &str = "/store";

/// The version that is published first.
pub(super) const VERSION: &str = "1.0.0";

/// How many backends there are.
pub(super) const NODES: usize = 2;

/// The service template.
pub(super) fn template(addresses: &[SocketAddr]) -> Value {
    json!({
        "name": SERVICE,
        "desc": "pets, from two backends that come with the demo",
        "type": "http",
        "hosts": [HOST],
        "path_prefix": PATH_PREFIX,
        "strip_path_prefix": true,
        "upstream": { "nodes": nodes(addresses) },
    })
}

/// The nodes of the upstream.
pub(super) fn nodes(addresses: &[SocketAddr]) -> Value {
    let node = |address: &SocketAddr| json!({ "host": address.ip(), "port": address.port(), "weight": 1 });
    addresses.iter().map(node).collect()
}

/// The ports of `nodes`, if these can be the demo's own backends.
pub(super) fn recorded_ports(nodes: &Value) -> Option<[u16; NODES]> {
    let port = |node: &Value| {
        let is_own = node["host"] == super::backend::ADDRESS.to_string();
        is_own.then(|| u16::try_from(node["port"].as_u64()?).ok()).flatten()
    };
    let ports: Vec<u16> = nodes.as_array()?.iter().map(port).collect::<Option<_>>()?;
    ports.try_into().ok()
}

/// The route templates of the first version, with their ids.
pub(super) fn routes() -> [(&'static str, Value); 2] {
    let route = |name: &str, path: &str| json!({ "name": name, "service_id": SERVICE, "paths": [path], "methods": ["GET"] });
    [("pet-store-get-pet", route("get-pet", "/pets/*")), ("pet-store-list-pets", route("list-pets", "/pets"))]
}

/// Id, path and template of the route with which `version` differs visibly from those before it.
pub(super) fn additional_route(version: &str) -> (String, String, Value) {
    let name = format!("new-in-{version}");
    let path = format!("/{name}");
    let route = json!({ "name": name, "service_id": SERVICE, "paths": [path], "methods": ["GET"] });
    (format!("{SERVICE}-{name}"), path, route)
}

#[cfg(test)]
mod tests {
    use gatewright_model::resource::route::Route;
    use gatewright_model::resource::service::ServiceTemplate;

    use super::*;

    #[test]
    fn the_design_is_valid() {
        let addresses = ["127.0.0.1:4001".parse().unwrap(), "127.0.0.1:4002".parse().unwrap()];
        let template: ServiceTemplate = serde_json::from_value(template(&addresses)).unwrap();
        assert_eq!(template.upstream.unwrap().nodes.len(), NODES);
        for (_, route) in routes() {
            serde_json::from_value::<Route>(route).unwrap();
        }
    }

    #[test]
    fn recorded_ports_are_those_of_own_backends_only() {
        let node = |host: &str, port: u64| json!({"host": host, "port": port, "weight": 1, "priority": 0});
        for (nodes, expected) in [
            (json!([node("127.0.0.1", 4001), node("127.0.0.1", 4002)]), Some([4001, 4002])),
            (json!([node("127.0.0.1", 4001)]), None),
            (json!([node("127.0.0.1", 4001), node("10.0.0.1", 4002)]), None),
            (json!([node("127.0.0.1", 4001), node("127.0.0.1", 70_000)]), None),
            (json!(null), None),
        ] {
            assert_eq!(recorded_ports(&nodes), expected, "{nodes}");
        }
    }
}
