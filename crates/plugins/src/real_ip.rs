//! `real-ip`: takes the client's address from what a proxy in front says.
//!
//! Without `trusted_addresses` every client can claim any address: set them wherever addresses decide anything.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use gatewright_model::expression::{AddressSet, Variable};
use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::exchange::{Exchange, Flow};
use crate::ip_restriction::addresses;
use crate::kind::{self, Built, Category, Kind, Phase, Phases, Plugin, Site};
use crate::schema;

pub(crate) const KIND: Kind = Kind {
    name: "real-ip",
    priority: 23000,
    category: Category::Other,
    phases: Phases::of(&[Phase::Rewrite]),
    schema: schema::of::<Config>,
    metadata: None,
    credential: None,
    build,
};

#[derive(Deserialize, ToSchema)]
struct Config {
    /// The variable that holds the address, such as `http_x_forwarded_for`.
    #[schema(min_length = 1)]
    source: String,
    /// Addresses and networks that may say so; absent: everybody.
    #[serde(default)]
    #[schema(min_items = 1)]
    trusted_addresses: Option<Vec<String>>,
    /// Whether trusted addresses at the end of a list are skipped.
    #[serde(default)]
    #[schema(required = false, default = false)]
    recursive: bool,
}

struct RealIp {
    source: Variable,
    trusted: Option<AddressSet>,
    recursive: bool,
}

fn build(config: Value, _: &Site<'_>) -> Built {
    let config: Config = kind::parse(config)?;
    let trusted = config.trusted_addresses.map(|list| addresses(&list, "/trusted_addresses")).transpose()?;
    let source = Variable::of(config.source.trim_start_matches('$'));
    Ok(Arc::new(RealIp { source, trusted, recursive: config.recursive }))
}

impl RealIp {
    fn trusts(&self, address: IpAddr) -> bool {
        self.trusted.as_ref().is_none_or(|trusted| trusted.contains(address.to_canonical()))
    }

    /// The address in a list that counts: the last, or the last that is not trusted.
    fn pick(&self, list: &str) -> Option<SocketAddr> {
        let mut picked = None;
        for entry in list.rsplit(',') {
            let Some(address) = parse(entry.trim()) else { break };
            picked = Some(address);
            let known = self.trusted.as_ref().is_some_and(|set| set.contains(address.ip().to_canonical()));
            if !self.recursive || !known {
                break;
            }
        }
        picked
    }
}

/// An address, perhaps with a port.
fn parse(text: &str) -> Option<SocketAddr> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    bare.parse().map(|ip| SocketAddr::new(ip, 0)).or_else(|_| text.parse()).ok()
}

impl Plugin for RealIp {
    fn rewrite(&self, exchange: &mut Exchange<'_>) -> Flow {
        if !self.trusts(exchange.client.peer.ip()) {
            return Flow::Continue;
        }
        let said = exchange.text(&self.source);
        let picked = said.and_then(|text| self.pick(std::str::from_utf8(&text).ok()?));
        if let Some(mut address) = picked {
            if address.port() == 0 {
                address.set_port(exchange.client.peer.port());
            }
            exchange.state.client_address = Some(address);
        }
        Flow::Continue
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{Trial, refused};
    use serde_json::json;

    #[test]
    fn the_address_is_taken_from_whom_is_trusted() {
        let forwarded = |more: serde_json::Value| {
            let mut config = json!({"source": "http_x_forwarded_for"});
            config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            config
        };
        let trusting = json!({"trusted_addresses": ["10.0.0.0/8"]});
        let recursive = json!({"trusted_addresses": ["10.0.0.0/8"], "recursive": true});
        for (config, client, request, expected) in [
            (json!({"source": "arg_ip"}), "10.0.0.9", "GET /?ip=1.2.3.4", "1.2.3.4:5000"),
            (json!({"source": "arg_ip"}), "10.0.0.9", "GET /?ip=1.2.3.4:81", "1.2.3.4:81"),
            (json!({"source": "arg_ip"}), "10.0.0.9", "GET /?ip=[2001:db8::1]", "[2001:db8::1]:5000"),
            (json!({"source": "arg_ip"}), "10.0.0.9", "GET /?ip=none", "10.0.0.9:5000"),
            (json!({"source": "arg_ip"}), "10.0.0.9", "GET /", "10.0.0.9:5000"),
            (
                forwarded(trusting.clone()),
                "10.0.0.9",
                "GET /\nX-Forwarded-For: 6.6.6.6, 1.2.3.4",
                "1.2.3.4:5000",
            ),
            (forwarded(trusting), "11.0.0.9", "GET /\nX-Forwarded-For: 1.2.3.4", "11.0.0.9:5000"),
            (
                forwarded(recursive.clone()),
                "10.0.0.9",
                "GET /\nX-Forwarded-For: 6.6.6.6, 1.2.3.4, 10.1.1.1",
                "1.2.3.4:5000",
            ),
            (
                forwarded(recursive.clone()),
                "10.0.0.9",
                "GET /\nX-Forwarded-For: 10.2.2.2, 10.1.1.1",
                "10.2.2.2:5000",
            ),
            (forwarded(recursive), "10.0.0.9", "GET /\nX-Forwarded-For: x, 10.1.1.1", "10.1.1.1:5000"),
        ] {
            let trial = Trial::of("real-ip", config.clone()).from(client);
            let run = trial.run(request);
            let address =
                run.state.client_address.map_or(format!("{client}:5000"), |address| address.to_string());
            assert_eq!(address, expected, "{config} {request}");
        }
    }

    #[test]
    fn later_plugins_go_by_the_new_address() {
        let trial = Trial::all(&json!({
            "real-ip": {"source": "arg_ip"}, "ip-restriction": {"blacklist": ["1.2.3.4"]},
        }));
        assert!(trial.run("GET /?ip=1.2.3.4").answered().starts_with("403 "));
        assert_eq!(trial.run("GET /").answered(), "");
    }

    #[test]
    fn whom_nobody_can_trust_is_refused() {
        assert_eq!(refused("real-ip", &json!({"source": ""})), ["/source"]);
        assert_eq!(
            refused("real-ip", &json!({"source": "a", "trusted_addresses": ["x"]})),
            ["/trusted_addresses/0"]
        );
    }
}
