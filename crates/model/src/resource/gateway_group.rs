//! A gateway group: gateways that share one configuration, standing for an environment, a region or a team.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{AsSent, Labels};
use crate::matching::MatchSettings;
use crate::sample::SamplingSettings;

/// The id of the group that exists from the first start on.
pub const DEFAULT_ID: &str = "default";

/// The writable content of a gateway group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct GatewayGroup {
    /// Unique name of the group.
    #[schema(min_length = 1, max_length = 1024)]
    pub name: String,
    /// Free text for people.
    #[serde(default, skip_serializing_if = "AsSent::is_absent")]
    #[schema(value_type = String, max_length = 65536)]
    pub desc: AsSent<String>,
    /// Key/value pairs for filtering.
    #[serde(default, skip_serializing_if = "AsSent::is_absent")]
    #[schema(value_type = Labels)]
    pub labels: AsSent<Labels>,
    /// What kind of gateways the group holds.
    #[serde(default, rename = "type")]
    pub kind: GatewayGroupKind,
    /// How requests are matched (our extension). Absent in a change: as before; absent at first: the defaults.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub settings: Option<MatchSettings>,
    /// How requests are sampled for previews (our extension). Absent in a change: as before; absent at first: the
    /// defaults.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub sampling: Option<SamplingSettings>,
}

impl GatewayGroup {
    /// How the group's gateways match requests.
    #[must_use]
    pub fn match_settings(&self) -> MatchSettings {
        self.settings.unwrap_or_default()
    }

    /// How the group's gateways sample requests.
    #[must_use]
    pub fn sampling_settings(&self) -> SamplingSettings {
        self.sampling.clone().unwrap_or_default()
    }
}

/// What kind of gateways a group holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum GatewayGroupKind {
    /// Gateways configured through the admin API.
    #[default]
    Api7Gateway,
    /// Gateways configured by an ingress controller.
    Api7IngressController,
}
