//! Which stream route serves a connection: a pure function of the configuration and of what is known of the connection.
//!
//! The order is that of [`Claim::precedence`]. Claims are found by port, then by server name, so that a thousand
//! databases behind one port cost a connection no more than a few lookups.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use gatewright_model::id::{RouteId, ServiceId};
use gatewright_model::stream::claim::{Arrival, Carrier, Claim, Greeting};
use gatewright_model::validation::Violations;

use crate::live::LiveService;

/// The stream routes of a configuration.
#[derive(Default)]
pub(crate) struct StreamRouter {
    /// By what carries them and the port they name.
    ports: HashMap<(Carrier, Option<u16>), Port>,
    /// What it was compiled from, in the order of their ids.
    services: Vec<Arc<LiveService>>,
    /// What is claimed twice, by the service that does not get it.
    refused: Vec<(ServiceId, Violations)>,
}

/// The claims that name one port, or none.
#[derive(Default)]
struct Port {
    /// By the server name they ask for; each list begins with the most specific.
    by_name: HashMap<Name, Vec<Entry>>,
    reads_tls: bool,
}

/// A server name: absent, in full, or the end of one.
#[derive(PartialEq, Eq, Hash)]
enum Name {
    Any,
    Exact(Box<[u8]>),
    Suffix(Box<[u8]>),
}

/// A stream route and what it claims.
pub(crate) struct Entry {
    claim: Claim,
    pub(crate) service: Arc<LiveService>,
    /// Its place among the stream routes of the service.
    pub(crate) route: usize,
}

impl StreamRouter {
    /// The router of these services, in the order of their ids; `before`, if they are the same.
    pub(crate) fn compile(before: &Arc<Self>, services: Vec<Arc<LiveService>>) -> Arc<Self> {
        let same = services.len() == before.services.len()
            && services.iter().zip(&before.services).all(|(one, other)| Arc::ptr_eq(one, other));
        if same {
            return Arc::clone(before);
        }
        let mut router = Self::default();
        let mut holders: HashMap<String, (ServiceId, RouteId)> = HashMap::new();
        for service in &services {
            let mut refused = Violations::default();
            for (place, (route, claim)) in service.published.claims().enumerate() {
                let text = claim.to_string();
                if let Some((other, other_route)) = holders.get(&text) {
                    let message =
                        format!("claims {text}, which stream route `{other_route}` of service `{other}` has");
                    refused.add(format!("/stream_routes/{place}"), message);
                    continue;
                }
                holders.insert(text, (service.published.service_id.clone(), route.route_id.clone()));
                let mut routes = service.published.stream_routes.iter();
                let Some(route) = routes.position(|one| std::ptr::eq(one, route)) else { continue };
                router.insert(Entry { claim, service: Arc::clone(service), route });
            }
            if !refused.is_empty() {
                router.refused.push((service.published.service_id.clone(), refused));
            }
        }
        for port in router.ports.values_mut() {
            port.by_name
                .values_mut()
                .for_each(|entries| entries.sort_by(|a, b| a.claim.precedence(&b.claim)));
        }
        router.services = services;
        Arc::new(router)
    }

    fn insert(&mut self, entry: Entry) {
        let port = self.ports.entry((entry.claim.carrier, entry.claim.port)).or_default();
        port.reads_tls |= entry.claim.reads_tls;
        let name = match &entry.claim.server_name {
            None => Name::Any,
            Some(name) if name.is_suffix() => Name::Suffix(name.name().into()),
            Some(name) => Name::Exact(name.name().into()),
        };
        port.by_name.entry(name).or_default().push(entry);
    }

    /// The stream route that serves a connection.
    pub(crate) fn find(&self, arrival: &Arrival<'_>) -> Option<&Entry> {
        let places = [Some(arrival.server.port()), None];
        places.into_iter().find_map(|port| self.ports.get(&(arrival.carrier, port))?.find(arrival))
    }

    /// Whether the beginning of connections to this port decides about them.
    pub(crate) fn reads_tls(&self, carrier: Carrier, port: u16) -> bool {
        let places = [Some(port), None];
        places.into_iter().any(|port| self.ports.get(&(carrier, port)).is_some_and(|port| port.reads_tls))
    }

    /// Whether there is this stream route.
    pub(crate) fn has(&self, service: &ServiceId, route: &RouteId) -> bool {
        let place = self.services.binary_search_by(|one| one.published.service_id.cmp(service));
        let found = place.ok().map(|place| &self.services[place].published);
        found.is_some_and(|published| published.claims().any(|(one, _)| one.route_id == *route))
    }

    /// What must be open: the ports that are named, with the services that name them, and for what every port is taken.
    pub(crate) fn wanted(&self) -> BTreeMap<(Carrier, Option<u16>), BTreeSet<&ServiceId>> {
        let ports = self.ports.iter().map(|(key, port)| {
            let entries = port.by_name.values().flatten();
            (*key, entries.map(|entry| &entry.service.published.service_id).collect())
        });
        ports.collect()
    }

    /// What is claimed twice, by the service that does not get it.
    pub(crate) fn refused(&self) -> &[(ServiceId, Violations)] {
        &self.refused
    }
}

impl Port {
    fn find(&self, arrival: &Arrival<'_>) -> Option<&Entry> {
        let first = |name: Name| self.by_name.get(&name)?.iter().find(|entry| entry.claim.accepts(arrival));
        let Greeting::Tls(Some(name)) = arrival.greeting else { return first(Name::Any) };
        // The address of the gateway counts for more than the name, so each of them may have the best.
        let dots = name.bytes().enumerate().filter(|(_, byte)| *byte == b'.').map(|(at, _)| &name[at..]);
        let suffixes = dots.map(|suffix| Name::Suffix(suffix.as_bytes().into()));
        let names = [Name::Exact(name.as_bytes().into()), Name::Any].into_iter().chain(suffixes);
        names.filter_map(first).min_by(|a, b| a.claim.precedence(&b.claim))
    }
}

#[cfg(test)]
mod tests {
    use gatewright_model::protocol::Update;
    use gatewright_model::snapshot::{Revision, Snapshot};
    use serde_json::{Value, json};

    use super::*;
    use crate::live::LiveConfig;
    use crate::live::compile::{Quarantined, compile};
    use crate::upstream::Background;

    fn service(id: &str, routes: Value) -> Value {
        json!({
            "service_id": id, "name": id, "type": "stream", "routes": [], "stream_routes": routes, "status": 1,
            "strip_path_prefix": true, "upstream": {"scheme": "tcp", "nodes": {"127.0.0.1:1": 1}}
        })
    }

    fn live(services: &[Value]) -> (LiveConfig, Vec<Quarantined>) {
        let services = services.iter().map(|one| serde_json::from_value(one.clone()).unwrap()).collect();
        let snapshot = Snapshot::default().apply(Update {
            epoch: None,
            revision: Revision(1),
            full: true,
            digest: None,
            settings: Default::default(),
            services,
            removed: Vec::new(),
            objects: Vec::new(),
            removed_objects: Vec::new(),
        });
        compile(&LiveConfig::empty(), &snapshot, &Background::idle(1))
    }

    fn found(live: &LiveConfig, port: u16, remote: &str, greeting: Greeting<'_>) -> Option<String> {
        let server = ([10, 0, 0, 1], port).into();
        let arrival = Arrival { carrier: Carrier::Tcp, server, remote: remote.parse().unwrap(), greeting };
        let entry = live.streams.find(&arrival)?;
        Some(entry.service.published.stream_routes[entry.route].route_id.to_string())
    }

    #[test]
    fn the_most_specific_stream_route_serves() {
        let route = |id: &str, matchers: Value| {
            let mut route = json!({"route_id": id, "name": id});
            route.as_object_mut().unwrap().extend(matchers.as_object().unwrap().clone());
            route
        };
        let (live, quarantined) = live(&[
            service(
                "a",
                json!([
                    route("port", json!({"server_port": 9000})),
                    route("near", json!({"server_port": 9000, "remote_addr": "192.0.2.0/24"})),
                    route("nearest", json!({"server_port": 9000, "remote_addr": "192.0.2.7"})),
                    route("rest", json!({})),
                ]),
            ),
            service(
                "b",
                json!([
                    route("name", json!({"server_port": 9001, "tls": "passthrough", "sni": "db.example"})),
                    route("below", json!({"server_port": 9001, "tls": "passthrough", "sni": "*.example"})),
                    route("tls", json!({"server_port": 9001, "tls": "terminate"})),
                    route(
                        "here",
                        json!({"server_port": 9002, "server_addr": "10.0.0.1", "tls": "terminate"})
                    ),
                    route("named", json!({"server_port": 9002, "tls": "terminate", "sni": "db.example"})),
                ]),
            ),
        ]);
        assert_eq!(quarantined, []);
        let name = |name| Greeting::Tls(Some(name));
        for (port, remote, greeting, expected) in [
            (9000, "198.51.100.1", Greeting::Plain, "port"),
            (9000, "192.0.2.1", Greeting::Plain, "near"),
            (9000, "192.0.2.7", Greeting::Plain, "nearest"),
            (9000, "192.0.2.7", name("db.example"), "nearest"),
            (9001, "192.0.2.7", name("db.example"), "name"),
            (9001, "192.0.2.7", name("other.db.example"), "below"),
            (9001, "192.0.2.7", name("example"), "tls"),
            (9001, "192.0.2.7", Greeting::Tls(None), "tls"),
            (9001, "192.0.2.7", Greeting::Plain, "rest"),
            (9002, "192.0.2.7", name("db.example"), "here"),
            (9003, "192.0.2.7", Greeting::Plain, "rest"),
        ] {
            assert_eq!(
                found(&live, port, remote, greeting).as_deref(),
                Some(expected),
                "{port} {remote} {greeting:?}"
            );
        }
        assert!(live.streams.reads_tls(Carrier::Tcp, 9001) && !live.streams.reads_tls(Carrier::Tcp, 9000));
    }

    #[test]
    fn what_is_claimed_twice_serves_the_first_and_names_the_second() {
        let routes = json!([{"route_id": "r", "name": "r", "server_port": 9000}]);
        let (live, quarantined) = live(&[service("a", routes.clone()), service("b", routes)]);
        let entry = live.streams.find(&Arrival {
            carrier: Carrier::Tcp,
            server: ([127, 0, 0, 1], 9000).into(),
            remote: [127, 0, 0, 1].into(),
            greeting: Greeting::Plain,
        });
        assert_eq!(entry.unwrap().service.published.service_id.as_str(), "a");
        let named: Vec<_> = quarantined.iter().map(|one| format!("{}: {}", one.what, one.reason)).collect();
        assert_eq!(named.len(), 1);
        assert!(
            named[0].contains("service `b`") && named[0].contains("stream route `r` of service `a`"),
            "{named:?}"
        );
    }

    #[test]
    fn a_disabled_service_claims_nothing() {
        let mut disabled = service("a", json!([{"route_id": "r", "name": "r"}]));
        disabled["status"] = json!(0);
        let (live, _) = live(&[disabled]);
        assert_eq!(found(&live, 9000, "192.0.2.1", Greeting::Plain), None);
        assert!(live.streams.wanted().is_empty());
    }
}
