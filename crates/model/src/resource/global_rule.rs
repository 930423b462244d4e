//! A global rule: one plugin for every request of a gateway group.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{AsSent, Labels, Plugins};
use crate::validation::Violations;

/// The writable content of a global rule. Its id is the name of its plugin.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct GlobalRule {
    /// Key/value pairs for filtering.
    #[serde(default, skip_serializing_if = "AsSent::is_absent")]
    #[schema(value_type = Labels)]
    pub labels: AsSent<Labels>,
    /// Exactly one plugin.
    #[schema(value_type = std::collections::BTreeMap<String, Object>)]
    pub plugins: Plugins,
}

impl GlobalRule {
    /// Rules that a schema cannot say: `at` is the JSON path of this rule.
    pub fn check(&self, at: &str, violations: &mut Violations) {
        if self.plugins.len() != 1 {
            violations.add(format!("{at}/plugins"), "must hold exactly one plugin");
        }
    }

    /// The plugin the rule is about, which is also its id.
    #[must_use]
    pub fn plugin(&self) -> Option<&str> {
        self.plugins.keys().next().map(String::as_str)
    }
}
