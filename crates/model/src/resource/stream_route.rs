//! A stream route: the matching rule of a service at layer 4.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{AsSent, Labels, Plugins};
use crate::expression::AddressSet;
use crate::stream::claim::server_name;
use crate::validation::Violations;

/// The writable content of a stream route. Without any matcher it takes every connection to every port that the gateways
/// of its group allow for streams.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct StreamRoute {
    /// Name of the stream route.
    #[schema(min_length = 1, max_length = 65536)]
    pub name: String,
    /// Free text for people.
    #[serde(default, skip_serializing_if = "AsSent::is_absent")]
    #[schema(value_type = String, max_length = 65536)]
    pub desc: AsSent<String>,
    /// Key/value pairs for filtering.
    #[serde(default, skip_serializing_if = "AsSent::is_absent")]
    #[schema(value_type = Labels)]
    pub labels: AsSent<Labels>,
    /// The address of the gateway that was connected to: an address or a network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 256, nullable = false)]
    pub server_addr: Option<String>,
    /// The port of the gateway that was connected to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 65535, nullable = false)]
    pub server_port: Option<u16>,
    /// Where the connection came from: an address or a network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 256, nullable = false)]
    pub remote_addr: Option<String>,
    /// The server name that the TLS handshake asks for: a name, or `*.example.com` for every name below; needs `tls`
    /// (our extension).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 255, nullable = false)]
    pub sni: Option<String>,
    /// What becomes of TLS that clients speak (our extension).
    #[serde(default, skip_serializing_if = "StreamTls::is_off")]
    pub tls: StreamTls,
    /// The version of the PROXY protocol in which nodes learn where the client is; none: they do not (our extension).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub proxy_protocol: Option<ProxyProtocol>,
    /// Plugins of this stream route.
    #[serde(default, skip_serializing_if = "AsSent::is_absent")]
    #[schema(value_type = std::collections::BTreeMap<String, Object>)]
    pub plugins: AsSent<Plugins>,
}

/// What becomes of TLS that clients speak.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum StreamTls {
    /// Nobody looks whether it is TLS; bytes are passed on as they come.
    #[default]
    Off,
    /// The gateway shakes hands, with the certificate that the group has for the server name.
    Terminate,
    /// The server name is read, and the handshake is left to the node.
    Passthrough,
}

impl StreamTls {
    fn is_off(&self) -> bool {
        *self == Self::Off
    }
}

/// A version of the PROXY protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ProxyProtocol {
    /// A line of text.
    V1,
    /// A binary header.
    V2,
}

impl StreamRoute {
    /// Rules that a schema cannot say: `at` is the JSON path of this stream route.
    pub fn check(&self, at: &str, violations: &mut Violations) {
        for (field, address) in [("server_addr", &self.server_addr), ("remote_addr", &self.remote_addr)] {
            if let Some(Err(message)) = address.as_deref().map(AddressSet::parse_entry) {
                violations.add(format!("{at}/{field}"), message);
            }
        }
        if let Some(Err(message)) = self.sni.as_deref().map(server_name) {
            violations.add(format!("{at}/sni"), message);
        }
        if self.sni.is_some() && self.tls == StreamTls::Off {
            violations.add(format!("{at}/sni"), "is only read with `tls`: `terminate` or `passthrough`");
        }
    }
}
