//! What callers send about release sets, parsed.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use gatewright_model::id::{GatewayGroupId, ServiceId};
use gatewright_model::limits;
use gatewright_model::validation::{Schema, Violations};
use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::document::{Document, parse};

/// Services to publish to groups, all or nothing.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub(crate) struct ReleaseWish {
    /// What to publish where.
    #[schema(min_items = 1, max_items = 100)]
    pub(crate) groups: Vec<ReleaseGroupWish>,
}

/// Services to publish to one group.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub(crate) struct ReleaseGroupWish {
    /// The group.
    pub(crate) gateway_group_id: GatewayGroupId,
    /// The services.
    #[schema(min_items = 1, max_items = 1000)]
    pub(crate) services: Vec<ReleaseServiceWish>,
}

/// A version to publish.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub(crate) struct ReleaseServiceWish {
    /// The service.
    pub(crate) service_id: ServiceId,
    /// The number of its version; if there is none of that number, one is made of the template.
    #[schema(min_length = 1, max_length = 256)]
    pub(crate) version: String,
}

pub(crate) fn release_parse(value: Value) -> Result<Document<ReleaseWish>, Violations> {
    static SCHEMA: LazyLock<Schema> = LazyLock::new(Schema::of::<ReleaseWish>);
    SCHEMA.violations(&value).into_result()?;
    let (content, warnings) = parse::<ReleaseWish>(value)?;
    let (mut violations, mut groups, mut count) = (Violations::default(), BTreeSet::new(), 0);
    for (place, group) in content.groups.iter().enumerate() {
        if !groups.insert(&group.gateway_group_id) {
            violations.add(format!("/groups/{place}/gateway_group_id"), "the group is in this set already");
        }
        let mut services = BTreeSet::new();
        for (index, service) in group.services.iter().enumerate() {
            if !services.insert(&service.service_id) {
                let at = format!("/groups/{place}/services/{index}/service_id");
                violations.add(at, "the service is in this group of the set already");
            }
        }
        count += group.services.len();
    }
    if count > limits::SERVICES_PER_PUBLISH_MAX {
        let message =
            format!("maximum number of services in all groups is {}", limits::SERVICES_PER_PUBLISH_MAX);
        violations.add("/groups", message);
    }
    violations.into_result()?;
    Ok(Document { id: None, content, warnings })
}
