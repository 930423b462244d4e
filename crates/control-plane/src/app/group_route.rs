//! Routes and stream routes of services without a version: live at once, said once for both kinds.

use gatewright_model::id::{GatewayGroupId, RouteId, ServiceId};
use gatewright_model::lifecycle::{RouteVersion, ServiceVersion};
use gatewright_model::limits;
use gatewright_model::resource::Labels;
use gatewright_model::resource::route::Route;
use gatewright_model::resource::service::ServiceKind;
use gatewright_model::resource::stream_route::StreamRoute;
use gatewright_model::snapshot::Revision;
use gatewright_model::validation::Violations;
use serde_json::Value;

use super::document::{TemplateRoute, Warnings};
use super::group_document::{Documented, GroupRoute, GroupRouteDocument, group_route_parse};
use super::instance::instances_must_run;
use super::published_service::group_must_exist;
use super::{Action, App, Caller, Patch, Refusal, must_be_as_expected};
use crate::store::{
    ActiveVersion, Call, ListFilter, Listed, Reading, RouteKey, RouteRow, RouteWrite, Writing,
};

/// A kind of route.
pub(crate) trait RouteContent: Documented + TemplateRoute + Clone {
    const KIND: ServiceKind;
    /// What callers call it.
    const NOUN: &'static str;
    /// What callers call one of a template.
    const TEMPLATE_NOUN: &'static str;

    fn name(&self) -> &str;
    fn labels(&self) -> &Labels;
    /// What a version holds of this kind.
    fn of_version(version: ServiceVersion) -> Vec<RouteVersion<Self>>;
}

impl RouteContent for Route {
    const KIND: ServiceKind = ServiceKind::Http;
    const NOUN: &'static str = "route";
    const TEMPLATE_NOUN: &'static str = "route template";

    fn name(&self) -> &str {
        &self.name
    }

    fn labels(&self) -> &Labels {
        &self.labels
    }

    fn of_version(version: ServiceVersion) -> Vec<RouteVersion> {
        version.routes
    }
}

impl RouteContent for StreamRoute {
    const KIND: ServiceKind = ServiceKind::Stream;
    const NOUN: &'static str = "stream route";
    const TEMPLATE_NOUN: &'static str = "stream route template";

    fn name(&self) -> &str {
        &self.name
    }

    fn labels(&self) -> &Labels {
        &self.labels
    }

    fn of_version(version: ServiceVersion) -> Vec<RouteVersion<Self>> {
        version.stream_routes
    }
}

impl App {
    /// The routes of one service of a group, with or without a version, or of all services without one.
    pub(crate) async fn group_route_list<T: RouteContent>(
        &self,
        caller: &Caller,
        group: &GatewayGroupId,
        service: Option<&ServiceId>,
        filter: &ListFilter,
    ) -> Result<Listed<RouteRow<T>>, Refusal> {
        caller.must(Action::GetPublishedService, group.as_str())?;
        let mut tx = self.store().read().await?;
        group_must_exist(&mut tx, group).await?;
        if let Some(service) = service
            && let Some(version) = tx.published_service_get(group, service).await?.and_then(|row| row.version)
        {
            return version_routes(&mut tx, &version, filter).await;
        }
        Ok(tx.group_route_list(group, T::KIND, service, filter).await?)
    }

    pub(crate) async fn group_route_get<T: RouteContent>(
        &self,
        caller: &Caller,
        group: &GatewayGroupId,
        id: &RouteId,
    ) -> Result<RouteRow<T>, Refusal> {
        caller.must(Action::GetPublishedService, group.as_str())?;
        let mut tx = self.store().read().await?;
        group_must_exist(&mut tx, group).await?;
        match group_route(&mut tx, group, id).await {
            Err(Refusal::NotFound { noun, id: _ }) => {
                drop(tx);
                let of_version = self.version_route(group, id).await?;
                let (_, row) = of_version.ok_or_else(|| Refusal::NotFound { noun, id: id.to_string() })?;
                Ok(row)
            }
            found => found,
        }
    }

    /// The route of this id in a version that is active in the group, and what refuses to change it.
    async fn version_route<T: RouteContent>(
        &self,
        group: &GatewayGroupId,
        id: &RouteId,
    ) -> Result<Option<(Refusal, RouteRow<T>)>, Refusal> {
        let (mut tx, _, services) = self.standing(group).await?;
        let Some((service, _)) = services.iter().find(|(_, standing)| standing.has_route(id)) else {
            return Ok(None);
        };
        let Some(row) = tx.published_service_get(group, service).await? else { return Ok(None) };
        let Some(version) = row.version else { return Ok(None) };
        let routes = version_routes::<T>(&mut tx, &version, &ListFilter::default()).await?.rows;
        let refusal = Refusal::VersionImmutable { service: row.content.name, version: version.number };
        Ok(routes.into_iter().find(|route| route.id == *id).map(|route| (refusal, route)))
    }

    /// The route, to be changed; one of a version is refused.
    async fn writable_route<T: RouteContent>(
        &self,
        mut tx: Writing,
        group: &GatewayGroupId,
        id: &RouteId,
    ) -> Result<(Writing, RouteRow<T>), Refusal> {
        match group_route::<T>(&mut tx, group, id).await {
            Ok(row) => Ok((tx, row)),
            Err(not_found @ Refusal::NotFound { .. }) => {
                drop(tx);
                let of_version = self.version_route::<T>(group, id).await?;
                Err(of_version.map_or(not_found, |(refusal, _)| refusal))
            }
            Err(refusal) => Err(refusal),
        }
    }

    pub(crate) async fn group_route_create<T: RouteContent>(
        &self,
        caller: &Caller,
        group: &GatewayGroupId,
        document: GroupRouteDocument<T>,
    ) -> Result<(RouteRow<T>, Warnings), Refusal> {
        caller.must(Action::UpdatePublishedService, group.as_str())?;
        let id = document.id.unwrap_or_else(|| self.world().id());
        let mut tx = self.store().write().await?;
        group_must_exist(&mut tx, group).await?;
        let key = RouteKey { group, kind: T::KIND, id: &id };
        if tx.group_route_get::<T>(key).await?.is_some() {
            return Err(Refusal::IdTaken { noun: T::NOUN, id: id.to_string() });
        }
        let (row, revision) = self.group_route_write(&mut tx, key, None, document.content).await?;
        Call::concerns(id.as_str(), row.route.name());
        let duplicates = self.commit_services(tx, group, revision).await?;
        Ok((row, document.warnings.and(duplicates)))
    }

    /// Creates the route under this id, or replaces it whole; another `service_id` moves it.
    pub(crate) async fn group_route_put<T: RouteContent>(
        &self,
        caller: &Caller,
        group: &GatewayGroupId,
        id: &RouteId,
        document: GroupRouteDocument<T>,
    ) -> Result<(RouteRow<T>, Warnings), Refusal> {
        caller.must(Action::UpdatePublishedService, group.as_str())?;
        let mut tx = self.store().write().await?;
        group_must_exist(&mut tx, group).await?;
        let key = RouteKey { group, kind: T::KIND, id };
        let before = tx.group_route_get::<T>(key).await?;
        must_be_as_expected(T::NOUN, id.as_str(), before.as_ref().map(|row| row.change_number))?;
        let before = before.as_ref().map(|row| &row.service_id);
        let (row, revision) = self.group_route_write(&mut tx, key, before, document.content).await?;
        let duplicates = self.commit_services(tx, group, revision).await?;
        Ok((row, document.warnings.and(duplicates)))
    }

    pub(crate) async fn group_route_patch<T: RouteContent>(
        &self,
        caller: &Caller,
        group: &GatewayGroupId,
        id: &RouteId,
        patch: &Patch,
    ) -> Result<(RouteRow<T>, Warnings), Refusal> {
        caller.must(Action::UpdatePublishedService, group.as_str())?;
        let mut tx = self.store().write().await?;
        group_must_exist(&mut tx, group).await?;
        let (mut tx, before) = self.writable_route::<T>(tx, group, id).await?;
        must_be_as_expected(T::NOUN, id.as_str(), Some(before.change_number))?;
        let mut content = serde_json::to_value(&before.route).unwrap_or(Value::Null);
        content["service_id"] = Value::from(before.service_id.as_str());
        let document = group_route_parse::<T>(patch.apply(content)?)?;
        let key = RouteKey { group, kind: T::KIND, id };
        let (row, revision) =
            self.group_route_write(&mut tx, key, Some(&before.service_id), document.content).await?;
        let duplicates = self.commit_services(tx, group, revision).await?;
        Ok((row, document.warnings.and(duplicates)))
    }

    pub(crate) async fn group_route_delete<T: RouteContent>(
        &self,
        caller: &Caller,
        group: &GatewayGroupId,
        id: &RouteId,
    ) -> Result<(), Refusal> {
        caller.must(Action::UpdatePublishedService, group.as_str())?;
        let mut tx = self.store().write().await?;
        group_must_exist(&mut tx, group).await?;
        let (mut tx, before) = self.writable_route::<T>(tx, group, id).await?;
        must_be_as_expected(T::NOUN, id.as_str(), Some(before.change_number))?;
        let revision = tx.gateway_group_raise(group).await?;
        tx.group_service_touch(group, &before.service_id, revision).await?;
        tx.group_route_delete(RouteKey { group, kind: T::KIND, id }).await?;
        self.streams_claim_changed(&mut tx, group, revision).await?;
        tx.commit().await?;
        self.hints().changed(group);
        Ok(())
    }

    /// Writes a route that belonged to the service `before`, if it was there.
    async fn group_route_write<T: RouteContent>(
        &self,
        tx: &mut Writing,
        key: RouteKey<'_>,
        before: Option<&ServiceId>,
        content: GroupRoute<T>,
    ) -> Result<(RouteRow<T>, Revision), Refusal> {
        let GroupRoute { service_id, route } = content;
        let is_new_there = before != Some(&service_id);
        must_take_routes::<T>(tx, key.group, &service_id, is_new_there).await?;
        let plugins = route.plugins().keys().cloned().collect();
        instances_must_run(tx, key.group, plugins, self.world().now()).await?;
        let stamp = tx.stamp(self.world().now()).await?;
        let revision = tx.gateway_group_raise(key.group).await?;
        let write =
            RouteWrite { service_id: &service_id, name: route.name(), labels: route.labels(), route: &route };
        tx.group_route_put(stamp, key, &write).await?;
        tx.group_service_touch(key.group, &service_id, revision).await?;
        if let Some(before) = before.filter(|before| **before != service_id) {
            tx.group_service_touch(key.group, before, revision).await?;
        }
        Ok((group_route(tx, key.group, key.id).await?, revision))
    }
}

/// The routes of the version that is active, as routes of the group. They are few enough to be filtered here.
async fn version_routes<T: RouteContent>(
    tx: &mut Reading,
    version: &ActiveVersion,
    filter: &ListFilter,
) -> Result<Listed<RouteRow<T>>, Refusal> {
    let whole = tx.service_version_get(&version.id).await?;
    let whole = whole.ok_or_else(|| super::service_version::not_found(&version.id))?;
    let search = filter.search.as_ref().map(|search| search.to_lowercase());
    let is_wanted = |route: &T| {
        filter.name.as_ref().is_none_or(|name| name == route.name())
            && search.as_ref().is_none_or(|search| route.name().to_lowercase().contains(search))
            && filter.labels.iter().all(|(key, value)| route.labels().get(key) == Some(value))
    };
    let service_id = whole.service_id.clone();
    let routes = T::of_version(whole).into_iter().filter(|version| is_wanted(&version.route));
    let rows = routes.map(|RouteVersion { route_id, route }| RouteRow {
        id: route_id,
        service_id: service_id.clone(),
        route,
        created_at: version.created_at,
        updated_at: version.created_at,
        change_number: 0,
    });
    Ok(super::service_version::paged(rows.collect(), filter))
}

async fn group_route<T: RouteContent>(
    tx: &mut Reading,
    group: &GatewayGroupId,
    id: &RouteId,
) -> Result<RouteRow<T>, Refusal> {
    let row = tx.group_route_get(RouteKey { group, kind: T::KIND, id }).await?;
    row.ok_or_else(|| Refusal::NotFound { noun: T::NOUN, id: id.to_string() })
}

/// The service must be in the group, without a version, of the right kind, and have room for one more route.
async fn must_take_routes<T: RouteContent>(
    tx: &mut Reading,
    group: &GatewayGroupId,
    id: &ServiceId,
    one_more: bool,
) -> Result<(), Refusal> {
    let wrong = |message: String| Err(Violations::one("/service_id", message).into());
    let Some(service) = tx.published_service_get(group, id).await? else {
        return wrong(format!("service `{id}` not found in gateway group `{group}`"));
    };
    if let Some(version) = service.version {
        return Err(Refusal::VersionImmutable { service: service.content.name, version: version.number });
    }
    if service.content.kind != T::KIND {
        return wrong(format!("service `{id}` is of the other type and takes no {}", T::NOUN));
    }
    let count = tx.group_route_count(group, id).await?;
    let max = limits::ROUTES_PER_SERVICE_MAX;
    if one_more && usize::try_from(count).unwrap_or(usize::MAX) >= max {
        return wrong(format!("service `{id}` has {max} routes already; split it"));
    }
    Ok(())
}
