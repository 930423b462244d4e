//! Service versions, to look at.

use gatewright_model::id::{ServiceId, ServiceVersionId};
use gatewright_model::lifecycle::{RouteVersion, ServiceVersion};
use gatewright_model::resource::service::ServiceTemplate;

use super::group_route::RouteContent;
use super::service_template::service_template;
use super::{Action, App, Caller, Refusal};
use crate::store::{ListFilter, Listed, Reading, VersionSummary};

/// What callers call it.
const NOUN: &str = "service version";

pub(super) fn not_found(id: &ServiceVersionId) -> Refusal {
    Refusal::NotFound { noun: NOUN, id: id.to_string() }
}

/// The version `number` as a service's template would make it now, and that template. Nothing is written.
pub(super) async fn version_of_template(
    tx: &mut Reading,
    id: ServiceVersionId,
    service: &ServiceId,
    number: &str,
) -> Result<(ServiceVersion, ServiceTemplate), Refusal> {
    let template = service_template(tx, service).await?.template;
    let routes = tx.route_template_snapshot(service).await?;
    let version = ServiceVersion::of_template(id, service.clone(), number.to_owned(), &template, routes);
    Ok((version, template))
}

impl App {
    pub(crate) async fn service_version_get(
        &self,
        caller: &Caller,
        id: &ServiceVersionId,
    ) -> Result<VersionSummary, Refusal> {
        caller.must(Action::GetServiceTemplate, "*")?;
        let summary = self.store().read().await?.service_version_summary(id).await?;
        summary.ok_or_else(|| not_found(id))
    }

    /// The version of a service that has this number.
    pub(crate) async fn service_version_numbered(
        &self,
        caller: &Caller,
        service: &ServiceId,
        number: &str,
    ) -> Result<VersionSummary, Refusal> {
        caller.must(Action::GetServiceTemplate, service.as_str())?;
        let summary = self.store().read().await?.service_version_summary_numbered(service, number).await?;
        summary.ok_or_else(|| Refusal::NotFound { noun: NOUN, id: format!("{service} {number}") })
    }

    /// The routes of a kind that a version holds, by id.
    pub(crate) async fn service_version_routes<T: RouteContent>(
        &self,
        caller: &Caller,
        id: &ServiceVersionId,
        filter: &ListFilter,
    ) -> Result<Listed<RouteVersion<T>>, Refusal> {
        caller.must(Action::GetServiceTemplate, "*")?;
        let version = self.store().read().await?.service_version_get(id).await?;
        Ok(paged(T::of_version(version.ok_or_else(|| not_found(id))?), filter))
    }

    pub(crate) async fn service_version_route_get<T: RouteContent>(
        &self,
        caller: &Caller,
        id: &ServiceVersionId,
        route: &str,
    ) -> Result<RouteVersion<T>, Refusal> {
        let Listed { rows, .. } = self.service_version_routes(caller, id, &ListFilter::default()).await?;
        let found = rows.into_iter().find(|version| version.route_id.as_str() == route);
        found.ok_or_else(|| Refusal::NotFound { noun: T::NOUN, id: route.to_owned() })
    }
}

/// The page that is wanted of a list that is in memory anyway.
pub(crate) fn paged<T>(rows: Vec<T>, filter: &ListFilter) -> Listed<T> {
    let total = i64::try_from(rows.len()).unwrap_or(i64::MAX);
    let Some(page) = filter.page else { return Listed { rows, total } };
    let whole = |number: i64| usize::try_from(number).unwrap_or(usize::MAX);
    let rows = rows.into_iter().skip(whole(page.offset)).take(whole(page.limit)).collect();
    Listed { rows, total }
}
