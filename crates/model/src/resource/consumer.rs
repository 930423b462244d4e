//! A consumer and its credentials: who calls, and how it proves so.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{AsSent, Labels, Plugins};
use crate::validation::Violations;

/// The plugins a credential can be for.
pub const CREDENTIAL_PLUGINS: [&str; 4] = ["key-auth", "basic-auth", "jwt-auth", "hmac-auth"];

/// The writable content of a consumer. Its name is its id within a gateway group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Consumer {
    /// Name of the consumer, unique within its gateway group.
    #[schema(min_length = 1, max_length = 100, pattern = "^[a-zA-Z0-9-_.]+$")]
    pub username: String,
    /// Free text for people.
    #[serde(default, skip_serializing_if = "AsSent::is_absent")]
    #[schema(value_type = String, max_length = 65536)]
    pub desc: AsSent<String>,
    /// Key/value pairs for filtering.
    #[serde(default, skip_serializing_if = "AsSent::is_absent")]
    #[schema(value_type = Labels)]
    pub labels: AsSent<Labels>,
    /// Plugins of this consumer's requests.
    #[serde(default, skip_serializing_if = "AsSent::is_absent")]
    #[schema(value_type = std::collections::BTreeMap<String, Object>)]
    pub plugins: AsSent<Plugins>,
}

/// The writable content of a credential.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Credential {
    /// Name of the credential.
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
    /// Exactly one of `key-auth`, `basic-auth`, `jwt-auth` and `hmac-auth`, with its settings.
    #[schema(value_type = std::collections::BTreeMap<String, Object>)]
    pub plugins: Plugins,
}

impl Credential {
    /// Rules that a schema cannot say: `at` is the JSON path of this credential.
    pub fn check(&self, at: &str, violations: &mut Violations) {
        let known = |name: &String| CREDENTIAL_PLUGINS.contains(&name.as_str());
        if self.plugins.len() != 1 || !self.plugins.keys().all(known) {
            let allowed = CREDENTIAL_PLUGINS.join(", ");
            violations.add(format!("{at}/plugins"), format!("must hold exactly one of {allowed}"));
        }
    }
}
