//! A stream route: the matching rule of a service at layer 4.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{AsSent, Labels, Plugins};
use crate::expression::AddressSet;
use crate::validation::Violations;

/// The writable content of a stream route. Without any of the three matchers it takes every connection.
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
    /// Plugins of this stream route.
    #[serde(default, skip_serializing_if = "AsSent::is_absent")]
    #[schema(value_type = std::collections::BTreeMap<String, Object>)]
    pub plugins: AsSent<Plugins>,
}

impl StreamRoute {
    /// Rules that a schema cannot say: `at` is the JSON path of this stream route.
    pub fn check(&self, at: &str, violations: &mut Violations) {
        for (field, address) in [("server_addr", &self.server_addr), ("remote_addr", &self.remote_addr)] {
            if let Some(Err(message)) = address.as_deref().map(AddressSet::parse_entry) {
                violations.add(format!("{at}/{field}"), message);
            }
        }
    }
}
