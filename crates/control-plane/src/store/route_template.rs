//! Routes and stream routes of service templates. Both kinds share ids, and names within a service.

use gatewright_model::id::{RouteId, ServiceId};
use gatewright_model::lifecycle::{RouteVersion, Routes};
use gatewright_model::resource::service::ServiceKind;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::database::query;
use super::list::{self, ListFilter, Listed, Scope, Source};
use super::object_count::Counted;
use super::route::{self, RouteRow, RouteWrite, kind_text, read, route_noun};
use super::witness::Subject;
use super::{Reading, Stamp, StoreError, Writing, to_json};

const SOURCE: Source = Source {
    columns: route::COLUMNS,
    tables: "route_template r",
    object: "r",
    named: "r",
    id: "id",
    owner: None,
};

impl Reading {
    pub(crate) async fn route_template_get<T: DeserializeOwned>(
        &mut self,
        kind: ServiceKind,
        id: &RouteId,
    ) -> Result<Option<RouteRow<T>>, StoreError> {
        let one = query(
            "SELECT id, service_id, content, created_at, updated_at, change_number FROM route_template \
             WHERE id = $1 AND kind = $2",
        );
        let members = self.members();
        let row = self.tx.row(one.bind(id.as_str()).bind(kind_text(kind))).await?;
        row.map(|row| read(&row, &members)).transpose()
    }

    /// Whether a route of either kind has this id.
    pub(crate) async fn route_template_exists(&mut self, id: &RouteId) -> Result<bool, StoreError> {
        let one = query("SELECT id FROM route_template WHERE id = $1").bind(id.as_str());
        Ok(self.tx.row(one).await?.is_some())
    }

    /// Whether a service template has a route of either kind.
    pub(crate) async fn service_template_has_routes(&mut self, id: &ServiceId) -> Result<bool, StoreError> {
        let one = query("SELECT id FROM route_template WHERE service_id = $1 LIMIT 1").bind(id.as_str());
        Ok(self.tx.row(one).await?.is_some())
    }

    /// The route of this service that has this name.
    pub(crate) async fn route_template_named(
        &mut self,
        service_id: &ServiceId,
        name: &str,
    ) -> Result<Option<RouteId>, StoreError> {
        let one = query("SELECT id FROM route_template WHERE service_id = $1 AND name = $2");
        let row = self.tx.row(one.bind(service_id.as_str()).bind(name)).await?;
        row.map(|row| row.parsed("id")).transpose()
    }

    /// Routes of one service, or of all.
    pub(crate) async fn route_template_list<T: DeserializeOwned>(
        &mut self,
        kind: ServiceKind,
        service_id: Option<&ServiceId>,
        filter: &ListFilter,
    ) -> Result<Listed<RouteRow<T>>, StoreError> {
        let mut fixed = vec![("r.kind", kind_text(kind))];
        fixed.extend(service_id.map(|id| ("r.service_id", id.as_str())));
        let counted = service_id.is_none().then_some(Counted { group: "", noun: route_noun(kind) });
        let (members, scope) = (self.members(), Scope { fixed: &fixed, counted });
        list::select(&mut self.tx, &SOURCE, scope, filter, |row| read(row, &members)).await
    }

    /// All routes of one service as a version takes them over, ordered by id.
    pub(crate) async fn route_template_snapshot(
        &mut self,
        service_id: &ServiceId,
    ) -> Result<Routes, StoreError> {
        let all = query("SELECT id, kind, content FROM route_template WHERE service_id = $1 ORDER BY id");
        let (members, mut routes) = (self.members(), Routes::default());
        for row in self.tx.rows(all.bind(service_id.as_str())).await? {
            let content = row.text("content")?;
            if row.text("kind")? == kind_text(ServiceKind::Stream) {
                let route = members.open(service_id.as_str(), &content)?;
                routes.stream_routes.push(RouteVersion { route_id: row.parsed("id")?, route });
            } else {
                let route = members.open(service_id.as_str(), &content)?;
                routes.routes.push(RouteVersion { route_id: row.parsed("id")?, route });
            }
        }
        Ok(routes)
    }
}

impl Writing {
    pub(crate) async fn route_template_insert<T: Serialize>(
        &mut self,
        stamp: Stamp,
        (kind, id): (ServiceKind, &RouteId),
        write: &RouteWrite<'_, T>,
    ) -> Result<(), StoreError> {
        self.witness(Subject::RouteTemplate(id.clone())).await?;
        let insert = query(
            "INSERT INTO route_template \
             (id, kind, service_id, name, labels, content, created_at, updated_at, created_number, change_number) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $7, $8, $8)",
        );
        let insert = insert.bind(id.as_str()).bind(kind_text(kind)).bind(write.service_id.as_str());
        let insert = insert.bind(write.name).bind(to_json(write.labels)?);
        let insert = insert.bind(self.members().seal(write.service_id, write.route)?);
        self.tx.execute_one(insert.bind(stamp.at).bind(stamp.number)).await
    }

    pub(crate) async fn route_template_update<T: Serialize>(
        &mut self,
        stamp: Stamp,
        id: &RouteId,
        write: &RouteWrite<'_, T>,
    ) -> Result<(), StoreError> {
        self.witness(Subject::RouteTemplate(id.clone())).await?;
        let update = query(
            "UPDATE route_template SET service_id = $2, name = $3, labels = $4, content = $5, updated_at = $6, \
             change_number = $7 WHERE id = $1",
        );
        let update = update.bind(id.as_str()).bind(write.service_id.as_str()).bind(write.name);
        let update = update.bind(to_json(write.labels)?);
        let update = update.bind(self.members().seal(write.service_id, write.route)?);
        self.tx.execute_one(update.bind(stamp.at).bind(stamp.number)).await
    }

    pub(crate) async fn route_template_delete(&mut self, id: &RouteId) -> Result<(), StoreError> {
        self.witness(Subject::RouteTemplate(id.clone())).await?;
        self.tx.execute_one(query("DELETE FROM route_template WHERE id = $1").bind(id.as_str())).await
    }
}
