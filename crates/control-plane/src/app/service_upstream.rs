//! Upstreams of a service in a group: the default one, which every service has, and further ones beside it.
//!
//! The default one is the `upstream` of the service's runtime configuration; it is listed under the service's own
//! id, because published clients tell it by that.

use gatewright_model::id::{GatewayGroupId, ObjectId, ServiceId};
use gatewright_model::resource::service::ServiceKind;
use gatewright_model::resource::upstream::Upstream;
use gatewright_model::stream::check::{check_carrier, check_upstream};
use gatewright_model::stream::claim::Carrier;
use gatewright_model::validation::Violations;
use serde_json::{Value, json};

use super::document::{Document, Warnings};
use super::group_document::parse;
use super::{App, Caller, Object, Patch, Refusal, Shelf};
use crate::store::{ListFilter, Listed, PublishedServiceRow};

impl App {
    /// The further upstreams, and on the last page the default one.
    pub(crate) async fn service_upstream_list(
        &self,
        caller: &Caller,
        group: &GatewayGroupId,
        service: &ServiceId,
        filter: &ListFilter,
    ) -> Result<Listed<Object<Upstream>>, Refusal> {
        let default = default_upstream(self.published_service_get(caller, group, service).await?);
        let shelf = Shelf { group, owner: service.as_str() };
        let mut listed = self.object_list::<Upstream>(caller, shelf, filter).await?;
        let is_wanted = filter.name.as_ref().is_none_or(|name| *name == default.content.name)
            && filter.labels.iter().all(|(key, value)| default.content.labels.get(key) == Some(value));
        let is_last = filter.page.is_none_or(|page| {
            listed.total >= page.offset && listed.total < page.offset.saturating_add(page.limit)
        });
        if is_wanted {
            listed.total += 1;
            listed.rows.extend(is_last.then_some(default));
        }
        Ok(listed)
    }

    pub(crate) async fn service_upstream_get(
        &self,
        caller: &Caller,
        group: &GatewayGroupId,
        service: &ServiceId,
        id: &ObjectId,
    ) -> Result<Object<Upstream>, Refusal> {
        if id.as_str() == service.as_str() {
            return Ok(default_upstream(self.published_service_get(caller, group, service).await?));
        }
        self.object_get(caller, Shelf { group, owner: service.as_str() }, id).await
    }

    pub(crate) async fn service_upstream_put(
        &self,
        caller: &Caller,
        group: &GatewayGroupId,
        service: &ServiceId,
        id: &ObjectId,
        body: Value,
    ) -> Result<(Object<Upstream>, Warnings), Refusal> {
        let (content, warnings) = parse::<Upstream>(body)?;
        if id.as_str() == service.as_str() {
            let patch = json!([{"op": "add", "path": "/upstream", "value": content}]);
            let (row, _) = self.group_service_patch(caller, group, service, &Patch::parse(patch)?).await?;
            return Ok((default_upstream(row), warnings));
        }
        self.must_suit(group, service, &content).await?;
        let document = Document { id: None, content, warnings };
        self.object_put(caller, Shelf { group, owner: service.as_str() }, id, document).await
    }

    /// Refuses an upstream that the streams of a service could not go to.
    async fn must_suit(
        &self,
        group: &GatewayGroupId,
        service: &ServiceId,
        upstream: &Upstream,
    ) -> Result<(), Refusal> {
        let row = self.store().read().await?.published_service_get(group, service).await?;
        let Some(row) = row.filter(|row| row.content.kind == ServiceKind::Stream) else { return Ok(()) };
        let mut violations = Violations::default();
        check_upstream(upstream, "", &mut violations);
        check_carrier(upstream, Carrier::of(row.runtime.upstream.scheme), "", &mut violations);
        Ok(violations.into_result()?)
    }

    pub(crate) async fn service_upstream_delete(
        &self,
        caller: &Caller,
        group: &GatewayGroupId,
        service: &ServiceId,
        id: &ObjectId,
    ) -> Result<(), Refusal> {
        if id.as_str() == service.as_str() {
            let message = "the default upstream goes with its service; replace it, or delete the service";
            return Err(Violations::one("/upstream_id", message).into());
        }
        self.object_delete::<Upstream>(caller, Shelf { group, owner: service.as_str() }, id).await
    }
}

fn default_upstream(row: PublishedServiceRow) -> Object<Upstream> {
    Object {
        owner: row.service_id.to_string(),
        id: row.service_id.into(),
        content: row.runtime.upstream,
        created_at: row.created_at,
        updated_at: row.updated_at,
        change_number: row.change_number,
    }
}
