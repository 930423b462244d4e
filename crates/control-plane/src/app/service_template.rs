//! Service templates: drafts that anybody who may can change at any time, because nothing is served from them.

use gatewright_model::id::ServiceId;
use gatewright_model::lifecycle::RuntimeConfiguration;
use gatewright_model::resource::service::{ServiceKind, ServiceTemplate};
use gatewright_model::validation::Violations;
use serde_json::Value;

use super::document::{self, ServiceTemplateDocument};
use super::plugin::stream_plugins_check;
use super::{Action, App, Caller, Patch, Refusal, Warnings, must_be_as_expected};
use crate::store::{Call, ListFilter, Listed, Reading, ServiceTemplateRow};

/// What callers call it.
pub(super) const NOUN: &str = "service template";

pub(super) fn not_found(id: &ServiceId) -> Refusal {
    Refusal::NotFound { noun: NOUN, id: id.to_string() }
}

impl App {
    pub(crate) async fn service_template_list(
        &self,
        caller: &Caller,
        filter: &ListFilter,
    ) -> Result<Listed<ServiceTemplateRow>, Refusal> {
        caller.must(Action::GetServiceTemplate, "*")?;
        Ok(self.store().read().await?.service_template_list(filter).await?)
    }

    pub(crate) async fn service_template_get(
        &self,
        caller: &Caller,
        id: &ServiceId,
    ) -> Result<ServiceTemplateRow, Refusal> {
        caller.must(Action::GetServiceTemplate, id.as_str())?;
        service_template(&mut self.store().read().await?, id).await
    }

    pub(crate) async fn service_template_create(
        &self,
        caller: &Caller,
        document: ServiceTemplateDocument,
    ) -> Result<(ServiceTemplateRow, Warnings), Refusal> {
        caller.must(Action::CreateServiceTemplate, "*")?;
        let id = document.id.unwrap_or_else(|| self.world().id());
        let mut tx = self.store().write().await?;
        if tx.service_template_get(&id).await?.is_some() {
            return Err(Refusal::IdTaken { noun: NOUN, id: id.to_string() });
        }
        name_must_be_free(&mut tx, &id, &document.content).await?;
        fields_must_fit(&document.content)?;
        let stamp = tx.stamp(self.world().now()).await?;
        tx.service_template_insert(stamp, &id, &document.content).await?;
        let row = service_template(&mut tx, &id).await?;
        Call::concerns(id.as_str(), &row.template.name);
        tx.commit().await?;
        Ok((row, document.warnings))
    }

    /// Creates the template under this id, or replaces it whole.
    pub(crate) async fn service_template_put(
        &self,
        caller: &Caller,
        id: &ServiceId,
        document: ServiceTemplateDocument,
    ) -> Result<(ServiceTemplateRow, Warnings), Refusal> {
        caller.must(Action::UpdateServiceTemplate, id.as_str())?;
        let mut tx = self.store().write().await?;
        name_must_be_free(&mut tx, id, &document.content).await?;
        let stamp = tx.stamp(self.world().now()).await?;
        let before = tx.service_template_get(id).await?;
        must_be_as_expected(NOUN, id.as_str(), before.as_ref().map(|row| row.change_number))?;
        if let Some(before) = before {
            type_must_fit(&mut tx, &before, &document.content).await?;
            fields_must_fit(&document.content)?;
            tx.service_template_update(stamp, id, &document.content).await?;
        } else {
            fields_must_fit(&document.content)?;
            tx.service_template_insert(stamp, id, &document.content).await?;
        }
        let row = service_template(&mut tx, id).await?;
        tx.commit().await?;
        Ok((row, document.warnings))
    }

    pub(crate) async fn service_template_patch(
        &self,
        caller: &Caller,
        id: &ServiceId,
        patch: &Patch,
    ) -> Result<(ServiceTemplateRow, Warnings), Refusal> {
        caller.must(Action::UpdateServiceTemplate, id.as_str())?;
        let mut tx = self.store().write().await?;
        let before = service_template(&mut tx, id).await?;
        must_be_as_expected(NOUN, id.as_str(), Some(before.change_number))?;
        let after = patch.apply(serde_json::to_value(&before.template).unwrap_or(Value::Null))?;
        let document = document::service_template_parse(after)?;
        name_must_be_free(&mut tx, id, &document.content).await?;
        type_must_fit(&mut tx, &before, &document.content).await?;
        fields_must_fit(&document.content)?;
        let stamp = tx.stamp(self.world().now()).await?;
        tx.service_template_update(stamp, id, &document.content).await?;
        let row = service_template(&mut tx, id).await?;
        tx.commit().await?;
        Ok((row, document.warnings))
    }

    /// Deletes a template and its routes, unless gateways serve the service: then nobody could change it any more.
    pub(crate) async fn service_template_delete(
        &self,
        caller: &Caller,
        id: &ServiceId,
    ) -> Result<(), Refusal> {
        caller.must(Action::DeleteServiceTemplate, id.as_str())?;
        let mut tx = self.store().write().await?;
        let before = service_template(&mut tx, id).await?;
        must_be_as_expected(NOUN, id.as_str(), Some(before.change_number))?;
        let groups = tx.published_service_groups(id).await?;
        if !groups.is_empty() {
            let groups: Vec<_> = groups.iter().map(|group| format!("`{group}`")).collect();
            return Err(Refusal::StillPublished { id: id.to_string(), groups: groups.join(", ") });
        }
        tx.service_template_delete(id).await?;
        Ok(tx.commit().await?)
    }
}

/// The template with this id, which must exist.
pub(super) async fn service_template(
    tx: &mut Reading,
    id: &ServiceId,
) -> Result<ServiceTemplateRow, Refusal> {
    tx.service_template_get(id).await?.ok_or_else(|| not_found(id))
}

/// What means nothing to a service of its type must not be said.
fn fields_must_fit(template: &ServiceTemplate) -> Result<(), Refusal> {
    let mut violations = Violations::default();
    let runtime = RuntimeConfiguration::of_template(template);
    gatewright_model::stream::check::check(template.kind, &runtime, "", &mut violations);
    if template.kind == ServiceKind::Stream {
        stream_plugins_check(&template.plugins, "/plugins", &mut violations);
    }
    Ok(violations.into_result()?)
}

/// A service holds routes or stream routes, never both.
async fn type_must_fit(
    tx: &mut Reading,
    before: &ServiceTemplateRow,
    after: &ServiceTemplate,
) -> Result<(), Refusal> {
    if before.template.kind != after.kind && tx.service_template_has_routes(&before.id).await? {
        let message = "a service template that has routes cannot change its type; delete the routes first";
        return Err(Violations::one("/type", message).into());
    }
    Ok(())
}

pub(super) async fn name_must_be_free(
    tx: &mut Reading,
    id: &ServiceId,
    template: &ServiceTemplate,
) -> Result<(), Refusal> {
    match tx.service_template_named(&template.name).await? {
        Some(other) if other != *id => {
            Err(Refusal::NameTaken { noun: NOUN, name: template.name.clone(), by: other.to_string() })
        }
        _ => Ok(()),
    }
}
