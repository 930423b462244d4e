//! Routes of service templates.

use gatewright_model::id::{RouteId, ServiceId};
use gatewright_model::resource::route::Route;
use serde_json::Value;

use super::document::{self, RouteTemplateDocument};
use super::service_template::service_template;
use super::{Action, App, Caller, Patch, Refusal, Warnings};
use crate::store::{Call, ListFilter, Listed, Reading, RouteTemplateRow};

/// What callers call it.
const NOUN: &str = "route template";

/// A route and the service template it belongs to.
#[derive(Clone, Debug)]
pub(crate) struct RouteTemplate {
    pub(crate) service_id: ServiceId,
    pub(crate) route: Route,
}

impl App {
    /// The routes of one service template, or of all.
    pub(crate) async fn route_template_list(
        &self,
        caller: &Caller,
        service_id: Option<&ServiceId>,
        filter: &ListFilter,
    ) -> Result<Listed<RouteTemplateRow>, Refusal> {
        caller.must(Action::GetServiceTemplate, service_id.map_or("*", ServiceId::as_str))?;
        Ok(self.store().read().await?.route_template_list(service_id, filter).await?)
    }

    pub(crate) async fn route_template_get(
        &self,
        caller: &Caller,
        id: &RouteId,
    ) -> Result<RouteTemplateRow, Refusal> {
        let row = route_template(&mut self.store().read().await?, id).await?;
        caller.must(Action::GetServiceTemplate, row.service_id.as_str())?;
        Ok(row)
    }

    pub(crate) async fn route_template_create(
        &self,
        caller: &Caller,
        document: RouteTemplateDocument,
    ) -> Result<(RouteTemplateRow, Warnings), Refusal> {
        caller.must(Action::UpdateServiceTemplate, document.content.service_id.as_str())?;
        let id = document.id.unwrap_or_else(|| self.world().id());
        let RouteTemplate { service_id, route } = &document.content;
        let mut tx = self.store().write().await?;
        if tx.route_template_get(&id).await?.is_some() {
            return Err(Refusal::IdTaken { noun: NOUN, id: id.to_string() });
        }
        must_fit(&mut tx, &id, &document.content).await?;
        let stamp = tx.stamp(self.world().now()).await?;
        tx.route_template_insert(stamp, &id, service_id, route).await?;
        let row = route_template(&mut tx, &id).await?;
        Call::concerns(id.as_str(), &route.name);
        tx.commit().await?;
        Ok((row, document.warnings))
    }

    /// Creates the route under this id, or replaces it whole; another `service_id` moves it.
    pub(crate) async fn route_template_put(
        &self,
        caller: &Caller,
        id: &RouteId,
        document: RouteTemplateDocument,
    ) -> Result<(RouteTemplateRow, Warnings), Refusal> {
        let RouteTemplate { service_id, route } = &document.content;
        caller.must(Action::UpdateServiceTemplate, service_id.as_str())?;
        let mut tx = self.store().write().await?;
        let before = tx.route_template_get(id).await?;
        must_be_as_expected(id, before.as_ref())?;
        must_fit(&mut tx, id, &document.content).await?;
        let stamp = tx.stamp(self.world().now()).await?;
        if let Some(before) = before {
            caller.must(Action::UpdateServiceTemplate, before.service_id.as_str())?;
            tx.route_template_update(stamp, id, service_id, route).await?;
        } else {
            tx.route_template_insert(stamp, id, service_id, route).await?;
        }
        let row = route_template(&mut tx, id).await?;
        tx.commit().await?;
        Ok((row, document.warnings))
    }

    pub(crate) async fn route_template_patch(
        &self,
        caller: &Caller,
        id: &RouteId,
        patch: &Patch,
    ) -> Result<(RouteTemplateRow, Warnings), Refusal> {
        let mut tx = self.store().write().await?;
        let before = route_template(&mut tx, id).await?;
        caller.must(Action::UpdateServiceTemplate, before.service_id.as_str())?;
        must_be_as_expected(id, Some(&before))?;
        let mut content = serde_json::to_value(&before.route).unwrap_or(Value::Null);
        content["service_id"] = Value::from(before.service_id.as_str());
        let document = document::route_template_parse(patch.apply(content)?)?;
        let RouteTemplate { service_id, route } = &document.content;
        caller.must(Action::UpdateServiceTemplate, service_id.as_str())?;
        must_fit(&mut tx, id, &document.content).await?;
        let stamp = tx.stamp(self.world().now()).await?;
        tx.route_template_update(stamp, id, service_id, route).await?;
        let row = route_template(&mut tx, id).await?;
        tx.commit().await?;
        Ok((row, document.warnings))
    }

    pub(crate) async fn route_template_delete(&self, caller: &Caller, id: &RouteId) -> Result<(), Refusal> {
        let mut tx = self.store().write().await?;
        let row = route_template(&mut tx, id).await?;
        caller.must(Action::UpdateServiceTemplate, row.service_id.as_str())?;
        must_be_as_expected(id, Some(&row))?;
        tx.route_template_delete(id).await?;
        Ok(tx.commit().await?)
    }
}

async fn route_template(tx: &mut Reading, id: &RouteId) -> Result<RouteTemplateRow, Refusal> {
    let row = tx.route_template_get(id).await?;
    row.ok_or_else(|| Refusal::NotFound { noun: NOUN, id: id.to_string() })
}

/// Refuses a change of what the caller has not seen.
fn must_be_as_expected(id: &RouteId, before: Option<&RouteTemplateRow>) -> Result<(), Refusal> {
    if Call::accepts(before.map(|row| row.change_number)) {
        return Ok(());
    }
    Err(Refusal::ChangedMeanwhile { noun: NOUN, id: id.to_string() })
}

/// The service must exist, and have no other route of this name.
async fn must_fit(tx: &mut Reading, id: &RouteId, template: &RouteTemplate) -> Result<(), Refusal> {
    let RouteTemplate { service_id, route } = template;
    service_template(tx, service_id).await?;
    match tx.route_template_named(service_id, &route.name).await? {
        Some(other) if other != *id => {
            Err(Refusal::NameTaken { noun: NOUN, name: route.name.clone(), by: other.to_string() })
        }
        _ => Ok(()),
    }
}
