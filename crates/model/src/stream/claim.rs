//! What a stream route claims: the connections it takes, and which of two claims comes first.
//!
//! The most specific claim that accepts a connection wins, in one order: a claim that names a port before one that does
//! not; then the longer network of the gateway's address; then one that reads TLS before one that does not, an exact
//! server name before a pattern and a longer pattern before a shorter one; then the longer network of the client's
//! address.
//! Two claims that stand level in this order and accept the same connection are the same claim, which a gateway group
//! takes only once; so it never depends on chance who serves.

use std::cmp::Ordering;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use crate::expression::AddressSet;
use crate::matching::HostPattern;
use crate::resource::stream_route::{StreamRoute, StreamTls};
use crate::resource::upstream::Scheme;

/// What carries a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Carrier {
    /// Connections.
    Tcp,
    /// Datagrams.
    Udp,
}

impl Carrier {
    /// What carries the streams of a service whose upstream has this scheme: clients come the way nodes are reached.
    /// None: the scheme is not one of layer 4. `http`, the default, means `tcp`.
    #[must_use]
    pub const fn of(scheme: Scheme) -> Option<Self> {
        match scheme {
            Scheme::Http | Scheme::Tcp | Scheme::Tls => Some(Self::Tcp),
            Scheme::Udp => Some(Self::Udp),
            Scheme::Https | Scheme::Grpc | Scheme::Grpcs => None,
        }
    }

    /// As people write it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// The connections a stream route takes; what is absent is not looked at.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Claim {
    /// What they come by.
    pub carrier: Carrier,
    /// The port of the gateway.
    pub port: Option<u16>,
    /// The address of the gateway.
    pub server: Option<IpNet>,
    /// Whether they must begin with a TLS handshake.
    pub reads_tls: bool,
    /// The server name asked for in it.
    pub server_name: Option<HostPattern>,
    /// The address of the client.
    pub remote: Option<IpNet>,
}

/// What a connection begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Greeting<'g> {
    /// No TLS, or nobody looked.
    Plain,
    /// A TLS handshake that asks for this server name, in lower case, if for any.
    Tls(Option<&'g str>),
}

/// What a stream is known by before anything is passed on.
#[derive(Clone, Copy, Debug)]
pub struct Arrival<'a> {
    /// What it comes by.
    pub carrier: Carrier,
    /// The address and port of the gateway.
    pub server: SocketAddr,
    /// The address of the client.
    pub remote: IpAddr,
    /// How it begins.
    pub greeting: Greeting<'a>,
}

impl Claim {
    /// What `route` claims.
    ///
    /// # Errors
    /// A sentence, when one of its matchers cannot be understood.
    pub fn of(route: &StreamRoute, carrier: Carrier) -> Result<Self, String> {
        let network = |text: &Option<String>| text.as_deref().map(AddressSet::parse_entry).transpose();
        Ok(Self {
            carrier,
            port: route.server_port,
            server: network(&route.server_addr)?,
            reads_tls: route.tls != StreamTls::Off,
            server_name: route.sni.as_deref().map(server_name).transpose()?,
            remote: network(&route.remote_addr)?,
        })
    }

    /// Whether this is one of the connections.
    #[must_use]
    pub fn accepts(&self, arrival: &Arrival<'_>) -> bool {
        let within = |network: &Option<IpNet>, address: IpAddr| {
            network.as_ref().is_none_or(|network| network.contains(&address.to_canonical()))
        };
        self.carrier == arrival.carrier
            && self.port.is_none_or(|port| port == arrival.server.port())
            && within(&self.server, arrival.server.ip())
            && within(&self.remote, arrival.remote)
            && self.accepts_greeting(arrival.greeting)
    }

    fn accepts_greeting(&self, greeting: Greeting<'_>) -> bool {
        match (greeting, &self.server_name) {
            (Greeting::Plain, _) => !self.reads_tls,
            (Greeting::Tls(_), None) => true,
            (Greeting::Tls(name), Some(pattern)) => {
                name.is_some_and(|name| pattern.accepts_name(name.as_bytes()))
            }
        }
    }

    /// The more specific of two comes first: [`Ordering::Less`].
    #[must_use]
    pub fn precedence(&self, other: &Self) -> Ordering {
        other.rank().cmp(&self.rank())
    }

    fn rank(&self) -> (bool, u16, bool, usize, u16) {
        let length =
            |network: &Option<IpNet>| network.map_or(0, |network| 1 + u16::from(network.prefix_len()));
        let name = self.server_name.as_ref().map_or(0, |name| match name.is_suffix() {
            true => 1 + name.name().len(),
            false => usize::MAX,
        });
        (self.port.is_some(), length(&self.server), self.reads_tls, name, length(&self.remote))
    }
}

/// Says the claim in full; equal texts are equal claims.
impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => write!(f, "{} port {port}", self.carrier.name())?,
            None => write!(f, "every {} port", self.carrier.name())?,
        }
        if let Some(server) = &self.server {
            write!(f, " at {server}")?;
        }
        match (self.reads_tls, &self.server_name) {
            (_, Some(name)) => write!(f, " over TLS for {name}")?,
            (true, None) => write!(f, " over TLS")?,
            (false, None) => {}
        }
        match &self.remote {
            Some(remote) => write!(f, " from {remote}"),
            None => Ok(()),
        }
    }
}

/// A server name, `*.example.com` for every one below it.
pub(crate) fn server_name(text: &str) -> Result<HostPattern, String> {
    let pattern = HostPattern::parse(text)?;
    let is_below = !pattern.is_suffix() || pattern.name().first() == Some(&b'.');
    let is_spelt = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._*".contains(&byte));
    if !is_spelt || pattern.authority().is_some() || !is_below || text.parse::<IpAddr>().is_ok() {
        return Err(format!("`{text}` is no server name; write one such as db.example.com or *.example.com"));
    }
    Ok(pattern)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn claim(matchers: Value) -> Claim {
        let mut route = json!({"name": "r"});
        route.as_object_mut().unwrap().extend(matchers.as_object().unwrap().clone());
        Claim::of(&serde_json::from_value(route).unwrap(), Carrier::Tcp).unwrap()
    }

    fn arrival<'a>(server: &str, remote: &str, greeting: Greeting<'a>) -> Arrival<'a> {
        let (server, remote) = (server.parse().unwrap(), remote.parse().unwrap());
        Arrival { carrier: Carrier::Tcp, server, remote, greeting }
    }

    #[test]
    fn a_claim_accepts_what_all_its_matchers_accept() {
        let tls = |name| Greeting::Tls(Some(name));
        for (matchers, server, remote, greeting, expected) in [
            (json!({}), "10.0.0.1:5432", "192.0.2.1", Greeting::Plain, true),
            (json!({}), "10.0.0.1:5432", "192.0.2.1", tls("a.example"), true),
            (json!({"server_port": 5432}), "10.0.0.1:5432", "192.0.2.1", Greeting::Plain, true),
            (json!({"server_port": 5433}), "10.0.0.1:5432", "192.0.2.1", Greeting::Plain, false),
            (json!({"server_addr": "10.0.0.0/8"}), "10.0.0.1:1", "192.0.2.1", Greeting::Plain, true),
            (json!({"server_addr": "10.0.0.2"}), "10.0.0.1:1", "192.0.2.1", Greeting::Plain, false),
            (json!({"remote_addr": "192.0.2.0/24"}), "[::]:1", "::ffff:192.0.2.1", Greeting::Plain, true),
            (json!({"remote_addr": "192.0.2.0/24"}), "10.0.0.1:1", "192.0.3.1", Greeting::Plain, false),
            (json!({"tls": "passthrough"}), "10.0.0.1:1", "192.0.2.1", Greeting::Plain, false),
            (json!({"tls": "terminate"}), "10.0.0.1:1", "192.0.2.1", Greeting::Tls(None), true),
            (
                json!({"tls": "terminate", "sni": "*.example"}),
                "10.0.0.1:1",
                "192.0.2.1",
                tls("a.b.example"),
                true,
            ),
            (
                json!({"tls": "terminate", "sni": "*.example"}),
                "10.0.0.1:1",
                "192.0.2.1",
                tls("example"),
                false,
            ),
            (
                json!({"tls": "terminate", "sni": "A.example"}),
                "10.0.0.1:1",
                "192.0.2.1",
                tls("a.example"),
                true,
            ),
            (
                json!({"tls": "terminate", "sni": "a.example"}),
                "10.0.0.1:1",
                "192.0.2.1",
                Greeting::Tls(None),
                false,
            ),
        ] {
            let accepted = claim(matchers.clone()).accepts(&arrival(server, remote, greeting));
            assert_eq!(accepted, expected, "{matchers} {server} {remote} {greeting:?}");
        }
    }

    #[test]
    fn the_most_specific_claim_comes_first_in_the_documented_order() {
        let mut claims: Vec<Claim> = [
            json!({}),
            json!({"remote_addr": "10.0.0.0/8"}),
            json!({"remote_addr": "10.1.0.0/16"}),
            json!({"tls": "terminate"}),
            json!({"tls": "terminate", "sni": "*.example"}),
            json!({"tls": "passthrough", "sni": "*.a.example"}),
            json!({"tls": "passthrough", "sni": "b.example"}),
            json!({"server_addr": "127.0.0.1"}),
            json!({"server_port": 1}),
            json!({"server_port": 1, "server_addr": "127.0.0.0/8"}),
        ]
        .map(claim)
        .into();
        let expected: Vec<String> = claims.iter().rev().map(ToString::to_string).collect();
        claims.sort_by(Claim::precedence);
        assert_eq!(claims.iter().map(ToString::to_string).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_claim_is_said_in_full() {
        let full = json!({"server_port": 5432, "server_addr": "10.0.0.1", "remote_addr": "10.9.8.7/8",
            "tls": "terminate", "sni": "DB.example"});
        let said = "tcp port 5432 at 10.0.0.1/32 over TLS for db.example from 10.0.0.0/8";
        assert_eq!(claim(full).to_string(), said);
        assert_eq!(claim(json!({})).to_string(), "every tcp port");
    }

    #[test]
    fn what_is_no_server_name_is_refused() {
        for text in ["", "*", "*example", "a.example:1", "127.0.0.1", "a*b", "a b"] {
            assert!(server_name(text).is_err(), "{text}");
        }
    }
}
