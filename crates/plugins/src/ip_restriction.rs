//! `ip-restriction`: lets in, or keeps out, the addresses of a list.
//!
//! The address is that of the client as `real-ip` left it. Where a proxy in front hides clients, configure that first:
//! every request would have the proxy's address.

use std::sync::Arc;

use gatewright_model::expression::AddressSet;
use gatewright_model::validation::Violations;
use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::exchange::{Answer, Exchange, Flow};
use crate::kind::{self, Built, Category, Kind, Phase, Phases, Plugin, Site};
use crate::schema;

pub(crate) const KIND: Kind = Kind {
    name: "ip-restriction",
    priority: 3000,
    category: Category::Other,
    phases: Phases::of(&[Phase::Access]),
    schema: || schema::with::<Config>(schema::one_of(&["whitelist", "blacklist"])),
    metadata: None,
    credential: None,
    build,
};

#[derive(Deserialize, ToSchema)]
#[serde(default)]
#[schema(default)]
struct Config {
    /// Addresses and networks that are let in; no others are.
    #[schema(min_items = 1)]
    whitelist: Option<Vec<String>>,
    /// Addresses and networks that are kept out.
    #[schema(min_items = 1)]
    blacklist: Option<Vec<String>>,
    /// What those kept out are told.
    #[schema(min_length = 1, max_length = 1024)]
    message: String,
    /// With which status.
    #[schema(minimum = 403, maximum = 404)]
    response_code: u16,
}

impl Default for Config {
    fn default() -> Self {
        let message = "Your IP address is not allowed".to_owned();
        Self { whitelist: None, blacklist: None, message, response_code: 403 }
    }
}

struct IpRestriction {
    addresses: AddressSet,
    /// Whether the list says who is let in.
    allows: bool,
    status: u16,
    message: String,
}

fn build(config: Value, _: &Site<'_>) -> Built {
    let config: Config = kind::parse(config)?;
    let (list, allows, at) = match (config.whitelist, config.blacklist) {
        (Some(list), _) => (list, true, "/whitelist"),
        (None, list) => (list.unwrap_or_default(), false, "/blacklist"),
    };
    let addresses = addresses(&list, at)?;
    Ok(Arc::new(IpRestriction { addresses, allows, status: config.response_code, message: config.message }))
}

/// The addresses and networks of a list.
pub(crate) fn addresses(list: &[String], at: &str) -> Result<AddressSet, Violations> {
    let mut violations = Violations::default();
    let mut entries = Vec::with_capacity(list.len());
    for (index, text) in list.iter().enumerate() {
        match AddressSet::parse_entry(text) {
            Ok(entry) => entries.push(entry),
            Err(message) => violations.add(format!("{at}/{index}"), message),
        }
    }
    violations.into_result().map(|()| AddressSet::new(entries))
}

impl Plugin for IpRestriction {
    fn access(&self, exchange: &mut Exchange<'_>) -> Flow {
        let listed = self.addresses.contains(exchange.client_address().ip().to_canonical());
        match listed == self.allows {
            true => Flow::Continue,
            false => Flow::respond(Answer::message(self.status, &self.message)),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{Trial, refused};
    use serde_json::json;

    #[test]
    fn lists_let_in_or_keep_out() {
        let not_allowed = "403 {\"message\":\"Your IP address is not allowed\"}\n";
        for (config, client, expected) in [
            (json!({"whitelist": ["10.0.0.0/8", "::1"]}), "10.1.2.3", ""),
            (json!({"whitelist": ["10.0.0.0/8", "::1"]}), "11.1.2.3", not_allowed),
            (json!({"whitelist": ["10.0.0.0/8", "::1"]}), "::1", ""),
            (json!({"whitelist": ["10.0.0.9"]}), "::ffff:10.0.0.9", ""),
            (json!({"blacklist": ["10.0.0.9"]}), "10.0.0.9", not_allowed),
            (json!({"blacklist": ["10.0.0.9"]}), "10.0.0.8", ""),
            (
                json!({"blacklist": ["2001:db8::/32"], "message": "no", "response_code": 404}),
                "2001:db8::7",
                "404 {\"message\":\"no\"}\n",
            ),
        ] {
            let trial = Trial::of("ip-restriction", config.clone()).from(client);
            assert_eq!(trial.run("GET /").answered(), expected, "{config} {client}");
        }
    }

    #[test]
    fn streams_are_let_in_and_kept_out_like_requests() {
        for (client, expected) in [("10.1.2.3", 0), ("11.1.2.3", 403)] {
            let trial = Trial::of("ip-restriction", json!({"whitelist": ["10.0.0.0/8"]})).from(client);
            assert_eq!(trial.run_stream().answer.map_or(0, |answer| answer.status), expected, "{client}");
        }
    }

    #[test]
    fn a_list_that_is_none_is_refused() {
        for (config, expected) in [
            (json!({}), vec![""]),
            (json!({"whitelist": ["::1"], "blacklist": ["::1"]}), vec![""]),
            (json!({"whitelist": []}), vec!["/whitelist"]),
            (json!({"whitelist": ["10.0.0.0/33", "::1", "x"]}), vec!["/whitelist/0", "/whitelist/2"]),
            (json!({"whitelist": ["::1"], "response_code": 500}), vec!["/response_code"]),
        ] {
            assert_eq!(refused("ip-restriction", &config), expected, "{config}");
        }
    }
}
