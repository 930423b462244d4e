//! Runtime configuration: what a group changes about a published service without a new version.

use gatewright_model::id::{GatewayGroupId, ServiceId};
use gatewright_model::lifecycle::RuntimeConfiguration;
use gatewright_model::resource::service::ServiceTemplate;
use gatewright_model::resource::upstream::Upstream;
use serde_json::Value;

use super::document;
use super::published_service::{NOUN, published_service};
use super::{Action, App, Caller, Patch, Refusal, Warnings, must_be_as_expected, persistently};
use crate::store::{PublishedServiceRow, ServiceWrite};

impl App {
    pub(crate) async fn runtime_configuration_get(
        &self,
        caller: &Caller,
        group: &GatewayGroupId,
        service: &ServiceId,
    ) -> Result<PublishedServiceRow, Refusal> {
        caller.must(Action::GetPublishedService, group.as_str())?;
        published_service(&mut self.store().read().await?, group, service).await
    }

    pub(crate) async fn runtime_configuration_patch(
        &self,
        caller: &Caller,
        group: &GatewayGroupId,
        service: &ServiceId,
        patch: Patch,
    ) -> Result<(PublishedServiceRow, Warnings), Refusal> {
        caller.must(Action::UpdateServiceRuntime, group.as_str())?;
        let patch = with_our_name(patch);
        persistently(|| self.runtime_configuration_change(group, service, &patch)).await
    }

    async fn runtime_configuration_change(
        &self,
        group: &GatewayGroupId,
        service: &ServiceId,
        patch: &Patch,
    ) -> Result<(PublishedServiceRow, Warnings), Refusal> {
        let mut tx = self.store().write().await?;
        let before = published_service(&mut tx, group, service).await?;
        must_be_as_expected(NOUN, service.as_str(), Some(before.change_number))?;
        let document = serde_json::to_value(&before.runtime).unwrap_or(Value::Null);
        let after = document::runtime_parse(patch.apply(document)?)?;
        let runtime = after.content.over(empty());
        let stamp = tx.stamp(self.world().now()).await?;
        let revision = tx.gateway_group_raise(group).await?;
        let write = ServiceWrite {
            gateway_group_id: group,
            service_id: service,
            content: &before.content,
            runtime: &runtime,
            revision,
        };
        tx.group_service_update(stamp, &write).await?;
        let row = published_service(&mut tx, group, service).await?;
        let duplicates = self.commit_services(tx, group, revision).await?;
        Ok((row, after.warnings.and(duplicates)))
    }
}

/// What absent fields of a patched runtime configuration mean: nothing is kept that the patch removed.
fn empty() -> RuntimeConfiguration {
    RuntimeConfiguration {
        hosts: Vec::new(),
        path_prefix: None,
        strip_path_prefix: true,
        forward_raw_path: false,
        upstream: Upstream::default(),
        status: gatewright_model::lifecycle::Status::Enabled,
    }
}

/// The documented merge body calls the one upstream `upstreams`.
fn with_our_name(patch: Patch) -> Patch {
    let Patch::Merge(Value::Object(mut members)) = patch else { return patch };
    if let Some(upstream) = members.remove("upstreams") {
        members.entry("upstream").or_insert(upstream);
    }
    Patch::Merge(Value::Object(members))
}

/// What a first publish starts from when there is no template any more.
pub(super) fn runtime_default(template: Option<&ServiceTemplate>) -> RuntimeConfiguration {
    template.map_or_else(empty, RuntimeConfiguration::of_template)
}
