//! Routes of service templates.

use gatewright_model::id::{RouteId, ServiceId};
use gatewright_model::lifecycle::RouteVersion;
use gatewright_model::resource::route::Route;

use super::database::{Row, query};
use super::list::{self, ListFilter, Listed, Source};
use super::{Reading, Stamp, StoreError, Writing, to_json};

/// A route of a service template as it is stored.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct RouteTemplateRow {
    pub(crate) id: RouteId,
    pub(crate) service_id: ServiceId,
    pub(crate) route: Route,
    pub(crate) created_at: i64,
    pub(crate) updated_at: i64,
    /// Rises with every change of the route.
    pub(crate) change_number: i64,
}

const SOURCE: Source = Source {
    columns: "r.id, r.service_id, r.content, r.created_at, r.updated_at, r.change_number",
    tables: "route_template r",
    object: "r",
    named: "r",
    id: "id",
};

fn read(row: &Row) -> Result<RouteTemplateRow, StoreError> {
    Ok(RouteTemplateRow {
        id: row.parsed("id")?,
        service_id: row.parsed("service_id")?,
        route: row.json("content")?,
        created_at: row.integer("created_at")?,
        updated_at: row.integer("updated_at")?,
        change_number: row.integer("change_number")?,
    })
}

impl Reading {
    pub(crate) async fn route_template_get(
        &mut self,
        id: &RouteId,
    ) -> Result<Option<RouteTemplateRow>, StoreError> {
        let one = query(
            "SELECT id, service_id, content, created_at, updated_at, change_number FROM route_template WHERE id = $1",
        );
        self.tx.row(one.bind(id.as_str())).await?.as_ref().map(read).transpose()
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
    pub(crate) async fn route_template_list(
        &mut self,
        service_id: Option<&ServiceId>,
        filter: &ListFilter,
    ) -> Result<Listed<RouteTemplateRow>, StoreError> {
        let fixed = service_id.map(|id| ("r.service_id", id.as_str()));
        list::select(&mut self.tx, &SOURCE, fixed.as_slice(), filter, read).await
    }

    /// All routes of one service as a version takes them over, ordered by id.
    pub(crate) async fn route_template_snapshot(
        &mut self,
        service_id: &ServiceId,
    ) -> Result<Vec<RouteVersion>, StoreError> {
        let all = query("SELECT id, content FROM route_template WHERE service_id = $1 ORDER BY id");
        let rows = self.tx.rows(all.bind(service_id.as_str())).await?;
        let version =
            |row: &Row| Ok(RouteVersion { route_id: row.parsed("id")?, route: row.json("content")? });
        rows.iter().map(version).collect()
    }
}

impl Writing {
    pub(crate) async fn route_template_insert(
        &mut self,
        stamp: Stamp,
        id: &RouteId,
        service_id: &ServiceId,
        route: &Route,
    ) -> Result<(), StoreError> {
        let insert = query(
            "INSERT INTO route_template \
             (id, service_id, name, labels, content, created_at, updated_at, created_number, change_number) \
             VALUES ($1, $2, $3, $4, $5, $6, $6, $7, $7)",
        );
        let insert = insert.bind(id.as_str()).bind(service_id.as_str()).bind(route.name.as_str());
        let insert = insert.bind(to_json(&route.labels)?).bind(to_json(route)?);
        self.tx.execute_one(insert.bind(stamp.at).bind(stamp.number)).await
    }

    pub(crate) async fn route_template_update(
        &mut self,
        stamp: Stamp,
        id: &RouteId,
        service_id: &ServiceId,
        route: &Route,
    ) -> Result<(), StoreError> {
        let update = query(
            "UPDATE route_template SET service_id = $2, name = $3, labels = $4, content = $5, updated_at = $6, \
             change_number = $7 WHERE id = $1",
        );
        let update = update.bind(id.as_str()).bind(service_id.as_str()).bind(route.name.as_str());
        let update = update.bind(to_json(&route.labels)?).bind(to_json(route)?);
        self.tx.execute_one(update.bind(stamp.at).bind(stamp.number)).await
    }

    pub(crate) async fn route_template_delete(&mut self, id: &RouteId) -> Result<(), StoreError> {
        self.tx.execute_one(query("DELETE FROM route_template WHERE id = $1").bind(id.as_str())).await
    }
}
