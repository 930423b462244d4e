//! Routes and stream routes of service templates, said once for both kinds.

use gatewright_model::id::{RouteId, ServiceId};
use gatewright_model::validation::Violations;
use serde_json::Value;

use super::document::{RouteTemplateDocument, route_template_parse};
use super::group_route::RouteContent;
use super::service_template::service_template;
use super::{Action, App, Caller, Patch, Refusal, Warnings, must_be_as_expected};
use crate::store::{Call, ListFilter, Listed, Reading, RouteRow, RouteWrite};

/// A route or stream route, and the service template it belongs to.
#[derive(Clone, Debug)]
pub(crate) struct RouteTemplate<T> {
    pub(crate) service_id: ServiceId,
    pub(crate) route: T,
}

impl<T: RouteContent> RouteTemplate<T> {
    pub(super) fn write(&self) -> RouteWrite<'_, T> {
        let Self { service_id, route } = self;
        RouteWrite { service_id, name: route.name(), labels: route.labels(), route }
    }
}

impl App {
    /// The routes of one service template, or of all.
    pub(crate) async fn route_template_list<T: RouteContent>(
        &self,
        caller: &Caller,
        service_id: Option<&ServiceId>,
        filter: &ListFilter,
    ) -> Result<Listed<RouteRow<T>>, Refusal> {
        caller.must(Action::GetServiceTemplate, service_id.map_or("*", ServiceId::as_str))?;
        Ok(self.store().read().await?.route_template_list(T::KIND, service_id, filter).await?)
    }

    pub(crate) async fn route_template_get<T: RouteContent>(
        &self,
        caller: &Caller,
        id: &RouteId,
    ) -> Result<RouteRow<T>, Refusal> {
        let row = route_template(&mut self.store().read().await?, id).await?;
        caller.must(Action::GetServiceTemplate, row.service_id.as_str())?;
        Ok(row)
    }

    pub(crate) async fn route_template_create<T: RouteContent>(
        &self,
        caller: &Caller,
        document: RouteTemplateDocument<T>,
    ) -> Result<(RouteRow<T>, Warnings), Refusal> {
        caller.must(Action::UpdateServiceTemplate, document.content.service_id.as_str())?;
        let id = document.id.unwrap_or_else(|| self.world().id());
        let mut tx = self.store().write().await?;
        if tx.route_template_exists(&id).await? {
            return Err(Refusal::IdTaken { noun: T::TEMPLATE_NOUN, id: id.to_string() });
        }
        must_fit(&mut tx, &id, &document.content).await?;
        let stamp = tx.stamp(self.world().now()).await?;
        tx.route_template_insert(stamp, (T::KIND, &id), &document.content.write()).await?;
        let row = route_template::<T>(&mut tx, &id).await?;
        Call::concerns(id.as_str(), row.route.name());
        tx.commit().await?;
        Ok((row, document.warnings))
    }

    /// Creates the route under this id, or replaces it whole; another `service_id` moves it.
    pub(crate) async fn route_template_put<T: RouteContent>(
        &self,
        caller: &Caller,
        id: &RouteId,
        document: RouteTemplateDocument<T>,
    ) -> Result<(RouteRow<T>, Warnings), Refusal> {
        caller.must(Action::UpdateServiceTemplate, document.content.service_id.as_str())?;
        let mut tx = self.store().write().await?;
        let before = tx.route_template_get::<T>(T::KIND, id).await?;
        must_be_as_expected(T::TEMPLATE_NOUN, id.as_str(), before.as_ref().map(|row| row.change_number))?;
        if before.is_none() && tx.route_template_exists(id).await? {
            return Err(Refusal::IdTaken { noun: "route of the other kind", id: id.to_string() });
        }
        must_fit(&mut tx, id, &document.content).await?;
        let stamp = tx.stamp(self.world().now()).await?;
        if let Some(before) = before {
            caller.must(Action::UpdateServiceTemplate, before.service_id.as_str())?;
            tx.route_template_update(stamp, id, &document.content.write()).await?;
        } else {
            tx.route_template_insert(stamp, (T::KIND, id), &document.content.write()).await?;
        }
        let row = route_template(&mut tx, id).await?;
        tx.commit().await?;
        Ok((row, document.warnings))
    }

    pub(crate) async fn route_template_patch<T: RouteContent>(
        &self,
        caller: &Caller,
        id: &RouteId,
        patch: &Patch,
    ) -> Result<(RouteRow<T>, Warnings), Refusal> {
        let mut tx = self.store().write().await?;
        let before = route_template::<T>(&mut tx, id).await?;
        caller.must(Action::UpdateServiceTemplate, before.service_id.as_str())?;
        must_be_as_expected(T::TEMPLATE_NOUN, id.as_str(), Some(before.change_number))?;
        let mut content = serde_json::to_value(&before.route).unwrap_or(Value::Null);
        content["service_id"] = Value::from(before.service_id.as_str());
        let document = route_template_parse::<T>(patch.apply(content)?)?;
        caller.must(Action::UpdateServiceTemplate, document.content.service_id.as_str())?;
        must_fit(&mut tx, id, &document.content).await?;
        let stamp = tx.stamp(self.world().now()).await?;
        tx.route_template_update(stamp, id, &document.content.write()).await?;
        let row = route_template(&mut tx, id).await?;
        tx.commit().await?;
        Ok((row, document.warnings))
    }

    pub(crate) async fn route_template_delete<T: RouteContent>(
        &self,
        caller: &Caller,
        id: &RouteId,
    ) -> Result<(), Refusal> {
        let mut tx = self.store().write().await?;
        let row = route_template::<T>(&mut tx, id).await?;
        caller.must(Action::UpdateServiceTemplate, row.service_id.as_str())?;
        must_be_as_expected(T::TEMPLATE_NOUN, id.as_str(), Some(row.change_number))?;
        tx.route_template_delete(id).await?;
        Ok(tx.commit().await?)
    }
}

async fn route_template<T: RouteContent>(tx: &mut Reading, id: &RouteId) -> Result<RouteRow<T>, Refusal> {
    let row = tx.route_template_get(T::KIND, id).await?;
    row.ok_or_else(|| Refusal::NotFound { noun: T::TEMPLATE_NOUN, id: id.to_string() })
}

/// The service must exist, take routes of this kind, and have no other route of this name.
async fn must_fit<T: RouteContent>(
    tx: &mut Reading,
    id: &RouteId,
    template: &RouteTemplate<T>,
) -> Result<(), Refusal> {
    let RouteTemplate { service_id, route } = template;
    let service = service_template(tx, service_id).await?;
    if service.template.kind != T::KIND {
        let message =
            format!("service template `{service_id}` is of the other type and takes no {}", T::NOUN);
        return Err(Violations::one("/service_id", message).into());
    }
    match tx.route_template_named(service_id, route.name()).await? {
        Some(other) if other != *id => Err(Refusal::NameTaken {
            noun: T::TEMPLATE_NOUN,
            name: route.name().to_owned(),
            by: other.to_string(),
        }),
        _ => Ok(()),
    }
}
