//! The end of a canary by upstream: the further upstream becomes the service's own, or goes away.
//!
//! Either way it is one change: the upstream, and the rules of `traffic-split` that send requests to it. The plugins of
//! a version cannot be changed; what they still name is not there any more, and the service's own upstream serves.

use gatewright_model::id::{GatewayGroupId, ObjectId, ServiceId};
use gatewright_model::resource::Plugins;
use gatewright_model::resource::upstream::Upstream;
use serde_json::Value;

use super::group_object::GroupObject as _;
use super::published_service::{NOUN, forgotten, published_service};
use super::{Action, App, Caller, Refusal, must_be_as_expected, persistently};
use crate::store::{Call, ObjectKey, ObjectKind, PublishedServiceRow, ServiceWrite};

/// The plugin whose rules choose among upstreams.
const TRAFFIC_SPLIT: &str = "traffic-split";

/// How a canary ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CanaryEnd {
    /// Its upstream becomes the service's own.
    Promote,
    /// Its upstream goes away.
    Abandon,
}

impl App {
    /// Ends the canary that `upstream` of a service is.
    pub(crate) async fn canary_end(
        &self,
        caller: &Caller,
        (group, service): (&GatewayGroupId, &ServiceId),
        upstream: &ObjectId,
        end: CanaryEnd,
    ) -> Result<PublishedServiceRow, Refusal> {
        caller.must(Action::UpdateServiceRuntime, group.as_str())?;
        persistently(|| self.canary_ended(group, service, upstream, end)).await
    }

    async fn canary_ended(
        &self,
        group: &GatewayGroupId,
        service: &ServiceId,
        upstream: &ObjectId,
        end: CanaryEnd,
    ) -> Result<PublishedServiceRow, Refusal> {
        let mut tx = self.store().write().await?;
        let before = published_service(&mut tx, group, service).await?;
        must_be_as_expected(NOUN, service.as_str(), Some(before.change_number))?;
        let kind = ObjectKind::ServiceUpstream;
        let key = ObjectKey { group, kind, owner: service.as_str(), id: upstream.as_str() };
        let not_found = || Refusal::NotFound { noun: Upstream::NOUN, id: upstream.to_string() };
        let stored = tx.group_object_get(key).await?.ok_or_else(not_found)?;
        let (mut content, mut runtime) = (before.content, before.runtime);
        if end == CanaryEnd::Promote {
            let unreadable = |error| Refusal::Unavailable {
                reason: format!("upstream `{upstream}` is stored and cannot be read: {error}"),
            };
            runtime.upstream = serde_json::from_str(&stored.document).map_err(unreadable)?;
        }
        if before.version.is_none() {
            rules_remove(&mut content.plugins, upstream.as_str());
        }
        let stamp = tx.stamp(self.world().now()).await?;
        let revision = tx.gateway_group_raise(group).await?;
        tx.group_object_delete(key, revision, forgotten(revision)).await?;
        let (content, runtime) = (&content, &runtime);
        let write = ServiceWrite { gateway_group_id: group, service_id: service, content, runtime, revision };
        tx.group_service_update(stamp, &write).await?;
        self.streams_claim_changed(&mut tx, group, revision).await?;
        let row = published_service(&mut tx, group, service).await?;
        Call::concerns(service.as_str(), &row.content.name);
        tx.commit().await?;
        self.hints().changed(group);
        Ok(row)
    }
}

/// Removes what sends requests to `upstream`: a rule that names no other upstream, and the plugin without rules.
fn rules_remove(plugins: &mut Plugins, upstream: &str) {
    let Some(Value::Array(rules)) = plugins.get_mut(TRAFFIC_SPLIT).and_then(|split| split.get_mut("rules"))
    else {
        return;
    };
    let count = rules.len();
    rules.retain(|rule| !is_about(rule, upstream));
    if rules.is_empty() && count > 0 {
        plugins.remove(TRAFFIC_SPLIT);
    }
}

/// Whether a rule chooses between `upstream` and the service's own, and nothing else.
fn is_about(rule: &Value, upstream: &str) -> bool {
    let Some(entries) = rule["weighted_upstreams"].as_array() else { return false };
    let names = |entry: &Value| match &entry["upstream_id"] {
        Value::String(id) => Some(id.clone()),
        Value::Number(id) => Some(id.to_string()),
        _ => None,
    };
    let is_own = |entry: &Value| entry.get("upstream_id").is_none() && entry.get("upstream").is_none();
    let is_it = |entry: &Value| names(entry).as_deref() == Some(upstream);
    entries.iter().any(is_it) && entries.iter().all(|entry| is_it(entry) || is_own(entry))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn rules_about_the_upstream_go_and_others_stay() {
        let split = |rules: Value| json!({ "traffic-split": { "rules": rules }, "cors": {} });
        let to = |ids: Value| json!({ "weighted_upstreams": ids });
        let canary = || to(json!([{ "upstream_id": "u", "weight": 1 }, { "weight": 9 }]));
        let other = || to(json!([{ "upstream_id": "u" }, { "upstream_id": "v" }]));
        for (before, after) in [
            (split(json!([canary()])), json!({ "cors": {} })),
            (split(json!([canary(), other()])), split(json!([other()]))),
            (
                split(json!([to(json!([{ "upstream_id": "v" }]))])),
                split(json!([to(json!([{ "upstream_id": "v" }]))])),
            ),
            (json!({ "cors": {} }), json!({ "cors": {} })),
        ] {
            let Value::Object(mut plugins) = before else { unreachable!("written above") };
            rules_remove(&mut plugins, "u");
            assert_eq!(Value::Object(plugins), after);
        }
    }
}
