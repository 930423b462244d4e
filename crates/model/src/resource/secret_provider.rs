//! A secret provider: where `$secret://manager/id/key` leads.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

/// The systems that secrets can be looked up in, as they stand in paths and references.
pub const SECRET_MANAGERS: [&str; 4] = ["vault", "aws", "gcp", "kubernetes"];

/// Members of a provider's settings that are secrets themselves.
pub const SECRET_MEMBERS: [&str; 7] =
    ["token", "access_key_id", "secret_access_key", "session_token", "secret_id", "private_key", "password"];

/// The settings of a secret provider, as its system wants them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SecretProvider {
    /// What the system needs to be reached (`uri`, `prefix`, `token` for a vault).
    #[serde(flatten)]
    #[schema(value_type = Object)]
    pub settings: Map<String, Value>,
}
