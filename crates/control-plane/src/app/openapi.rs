//! OpenAPI documents in and out: the conversion is the model's, here is what it is done to.

use gatewright_model::diff::{ServiceDiff, ServiceState, diff};
use gatewright_model::id::{RouteId, ServiceId};
use gatewright_model::lifecycle::{RouteVersion, Routes};
use gatewright_model::openapi::{self, Document, Exported, Import, Note, Overlaid, Suggestion};
use gatewright_model::resource::route::Route;
use gatewright_model::resource::service::{ServiceKind, ServiceTemplate};
use gatewright_model::validation::Violations;
use serde_json::{Value, json};

use super::group_service::group_service_version;
use super::openapi_document::{ConvertWish, Designed, ExportWish, ImportWish, designed};
use super::published_service::published_service;
use super::route_template::RouteTemplate;
use super::service_template::{NOUN, name_must_be_free, service_template};
use super::{Action, App, Caller, Refusal, Warnings, must_be_as_expected};
use crate::store::{Call, ListFilter, Reading, RouteRow, ServiceTemplateRow, Stamp, Writing};

/// What became of a template.
pub(crate) struct Imported {
    pub(crate) row: ServiceTemplateRow,
    /// What the import has changed; none: the template is new.
    pub(crate) diff: Option<ServiceDiff>,
    pub(crate) suggestions: Vec<Suggestion>,
    pub(crate) notes: Vec<Note>,
    pub(crate) warnings: Warnings,
}

impl App {
    /// The service that a document describes; nothing is changed.
    pub(crate) async fn openapi_convert(
        &self,
        caller: &Caller,
        wish: ConvertWish,
    ) -> Result<Import, Refusal> {
        caller.must(Action::GetServiceTemplate, "*")?;
        Ok(aside(move || checked(convert(&wish)?)).await?.0)
    }

    /// Imports a document into the template with this id, or makes it.
    pub(crate) async fn openapi_import(
        &self,
        caller: &Caller,
        id: &ServiceId,
        wish: ImportWish,
    ) -> Result<Imported, Refusal> {
        caller.must(Action::UpdateServiceTemplate, id.as_str())?;
        let remove_missing = wish.remove_missing;
        let (import, warnings) = aside(move || checked(convert(&wish.convert)?)).await?;
        let mut tx = self.store().write().await?;
        let before = tx.service_template_get(id).await?;
        must_be_as_expected(NOUN, id.as_str(), before.as_ref().map(|row| row.change_number))?;
        if before.as_ref().is_some_and(|row| row.template.kind == ServiceKind::Stream) {
            let message = "the service is of type stream, and an OpenAPI document describes HTTP";
            return Err(Violations::one("/raw_openapi", message).into());
        }
        let routes = tx.route_template_snapshot(id).await?;
        let state = before.as_ref().map(|row| ServiceState::of_template(&row.template, &routes));
        let overlaid = match &before {
            Some(row) => import.over(&row.template, routes.routes.clone(), remove_missing),
            None => import.alone(),
        };
        let Overlaid { service, routes: after, missing, suggestions, notes } = overlaid;
        name_must_be_free(&mut tx, id, &service).await?;
        let stamp = tx.stamp(self.world().now()).await?;
        match before {
            Some(_) => tx.service_template_update(stamp, id, &service).await?,
            None => tx.service_template_insert(stamp, id, &service).await?,
        }
        for (route_id, _) in missing.iter().filter(|_| remove_missing) {
            tx.route_template_delete(route_id).await?;
        }
        let known = routes.routes;
        for (route_id, route) in after {
            let unchanged =
                |known: &RouteVersion| Some(&known.route_id) == route_id.as_ref() && known.route == route;
            if !known.iter().any(unchanged) {
                self.route_write(&mut tx, stamp, id, (route_id, route)).await?;
            }
        }
        let diff = match state {
            Some(state) => Some(diff(&state, &template_state(&mut tx, id).await?)),
            None => None,
        };
        let row = service_template(&mut tx, id).await?;
        Call::note(|audit| audit.resource_name.clone_from(&row.template.name));
        tx.commit().await?;
        Ok(Imported { row, diff, suggestions, notes, warnings })
    }

    /// Makes a service template with its routes.
    pub(crate) async fn service_import(
        &self,
        caller: &Caller,
        wish: Designed,
    ) -> Result<(ServiceTemplateRow, Vec<RouteRow<Route>>, Warnings), Refusal> {
        caller.must(Action::CreateServiceTemplate, "*")?;
        let Designed { id, service, routes, warnings } = wish;
        let id = id.unwrap_or_else(|| self.world().id());
        if service.kind == ServiceKind::Stream {
            return Err(Violations::one("/type", "a service of type stream takes no routes").into());
        }
        let mut tx = self.store().write().await?;
        if tx.service_template_get(&id).await?.is_some() {
            return Err(Refusal::IdTaken { noun: NOUN, id: id.to_string() });
        }
        name_must_be_free(&mut tx, &id, &service).await?;
        let stamp = tx.stamp(self.world().now()).await?;
        tx.service_template_insert(stamp, &id, &service).await?;
        for route in routes {
            self.route_write(&mut tx, stamp, &id, (None, route)).await?;
        }
        let row = service_template(&mut tx, &id).await?;
        let filter = ListFilter::default();
        let rows = tx.route_template_list(ServiceKind::Http, Some(&id), &filter).await?.rows;
        Call::concerns(id.as_str(), &row.template.name);
        tx.commit().await?;
        Ok((row, rows, warnings))
    }

    async fn route_write(
        &self,
        tx: &mut Writing,
        stamp: Stamp,
        service_id: &ServiceId,
        (id, route): (Option<RouteId>, Route),
    ) -> Result<(), Refusal> {
        let template = RouteTemplate { service_id: service_id.clone(), route };
        match id {
            Some(id) => tx.route_template_update(stamp, &id, &template.write()).await?,
            None => {
                let place = (ServiceKind::Http, &self.world().id());
                tx.route_template_insert(stamp, place, &template.write()).await?;
            }
        }
        Ok(())
    }

    /// Writes services as one document; without ids, every template there is.
    pub(crate) async fn service_export(
        &self,
        caller: &Caller,
        wish: ExportWish,
        is_everything: bool,
    ) -> Result<Exported, Refusal> {
        let mut tx = self.store().read().await?;
        let ids = if is_everything {
            caller.must(Action::GetServiceTemplate, "*")?;
            let filter = ListFilter::default();
            tx.service_template_list(&filter).await?.rows.into_iter().map(|row| row.id).collect()
        } else {
            wish.service_ids.clone()
        };
        let mut services = Vec::with_capacity(ids.len());
        for id in &ids {
            match &wish.gateway_group_id {
                Some(group) => caller.must(Action::GetPublishedService, group.as_str())?,
                None => caller.must(Action::GetServiceTemplate, id.as_str())?,
            }
            services.push(exported(&mut tx, id, &wish).await?);
        }
        drop(tx);
        aside(move || Ok(openapi::export(&wish.info, &wish.servers, &services))).await
    }
}

/// Off the threads that serve calls: a large document takes a moment.
async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    let working = tokio::task::spawn_blocking(work);
    working.await.map_err(|error| Refusal::Unavailable { reason: error.to_string() })?
}

fn convert(wish: &ConvertWish) -> Result<Import, Refusal> {
    let document = Document::parse(&wish.raw_openapi);
    let import = document.and_then(|document| openapi::import(&document, wish.name.as_deref()));
    let mut import = import.map_err(|error| Violations::one("/raw_openapi", error.to_string()))?;
    if wish.follow_suggestions {
        import.follow_suggestions();
    }
    Ok(import)
}

/// The import, held to the rules for what people write.
fn checked(import: Import) -> Result<(Import, Warnings), Refusal> {
    let routes: Vec<Value> = import.routes.iter().map(|route| json!(route)).collect();
    let Designed { service, routes, warnings, .. } = designed(json!(import.service), routes)?;
    Ok((Import { service, routes, ..import }, warnings))
}

async fn template_state(tx: &mut Reading, id: &ServiceId) -> Result<ServiceState, Refusal> {
    let template = service_template(tx, id).await?.template;
    Ok(ServiceState::of_template(&template, &tx.route_template_snapshot(id).await?))
}

/// The template of a service, one of its versions, or what a group has, with its routes.
async fn exported(
    tx: &mut Reading,
    id: &ServiceId,
    wish: &ExportWish,
) -> Result<(ServiceTemplate, Vec<RouteVersion>), Refusal> {
    let not_found =
        |number: &str| Refusal::NotFound { noun: "service version", id: format!("{id}@{number}") };
    let (version, runtime) = match (&wish.gateway_group_id, &wish.version) {
        (None, None) => {
            let template = service_template(tx, id).await?.template;
            let Routes { routes, .. } = tx.route_template_snapshot(id).await?;
            return Ok((template, routes));
        }
        (None, Some(number)) => {
            let version = tx.service_version_numbered(id, number).await?.ok_or_else(|| not_found(number))?;
            // A version has no hosts and no path prefix; those of the template are the ones it was designed with.
            let template = tx.service_template_get(id).await?.map(|row| row.template);
            (version, super::runtime_configuration::runtime_default(template.as_ref()))
        }
        (Some(group), number) => {
            let active = published_service(tx, group, id).await?;
            let running = active.version.as_ref();
            if let Some(number) =
                number.as_ref().filter(|number| running.map(|one| &one.number) != Some(*number))
            {
                let message = format!("gateway group `{group}` does not run version `{number}`");
                return Err(Violations::one("/version", message).into());
            }
            let version = match running {
                Some(version) => tx.service_version_get(&version.id).await?.ok_or(Refusal::Conflict)?,
                // The version is never written, so any id does.
                None => {
                    let version_id = id.as_str().parse().map_err(|_| Refusal::Conflict)?;
                    group_service_version(tx, &active, version_id, String::new()).await?
                }
            };
            (version, active.runtime)
        }
    };
    let template = ServiceTemplate {
        name: version.name,
        desc: version.desc,
        labels: version.labels,
        kind: version.kind,
        hosts: runtime.hosts,
        path_prefix: runtime.path_prefix,
        strip_path_prefix: runtime.strip_path_prefix,
        forward_raw_path: runtime.forward_raw_path,
        plugins: version.plugins,
        upstream: Some(runtime.upstream),
    };
    Ok((template, version.routes))
}
