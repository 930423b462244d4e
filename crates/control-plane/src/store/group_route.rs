//! Routes and stream routes of services without a version, written straight to a gateway group.

use gatewright_model::id::{GatewayGroupId, RouteId, ServiceId};
use gatewright_model::resource::service::ServiceKind;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::database::query;
use super::list::{self, ListFilter, Listed, Scope, Source};
use super::object_count::Counted;
use super::route::{self, RouteRow, RouteWrite, kind_text, read, route_noun};
use super::witness::Subject;
use super::{Reading, Stamp, StoreError, Writing, to_json};

/// Which route of which group.
#[derive(Clone, Copy)]
pub(crate) struct RouteKey<'a> {
    pub(crate) group: &'a GatewayGroupId,
    pub(crate) kind: ServiceKind,
    pub(crate) id: &'a RouteId,
}

const SOURCE: Source = Source {
    columns: route::COLUMNS,
    tables: "group_route r",
    object: "r",
    named: "r",
    id: "id",
    owner: None,
};

impl Reading {
    pub(crate) async fn group_route_get<T: DeserializeOwned>(
        &mut self,
        key: RouteKey<'_>,
    ) -> Result<Option<RouteRow<T>>, StoreError> {
        let one = query(
            "SELECT id, service_id, content, created_at, updated_at, change_number FROM group_route \
             WHERE gateway_group_id = $1 AND kind = $2 AND id = $3",
        );
        let one = one.bind(key.group.as_str()).bind(kind_text(key.kind)).bind(key.id.as_str());
        let members = self.members();
        self.tx.row(one).await?.map(|row| read(&row, &members)).transpose()
    }

    /// The routes of one service of a group, or of all.
    pub(crate) async fn group_route_list<T: DeserializeOwned>(
        &mut self,
        group: &GatewayGroupId,
        kind: ServiceKind,
        service: Option<&ServiceId>,
        filter: &ListFilter,
    ) -> Result<Listed<RouteRow<T>>, StoreError> {
        let mut fixed = vec![("r.gateway_group_id", group.as_str()), ("r.kind", kind_text(kind))];
        fixed.extend(service.map(|id| ("r.service_id", id.as_str())));
        let noun = route_noun(kind);
        let counted = service.is_none().then_some(Counted { group: group.as_str(), noun });
        let (members, scope) = (self.members(), Scope { fixed: &fixed, counted });
        list::select(&mut self.tx, &SOURCE, scope, filter, |row| read(row, &members)).await
    }

    /// How many routes a service of a group has.
    pub(crate) async fn group_route_count(
        &mut self,
        group: &GatewayGroupId,
        service: &ServiceId,
    ) -> Result<i64, StoreError> {
        let count = query(
            "SELECT COUNT(*) AS total FROM group_route WHERE gateway_group_id = $1 AND service_id = $2",
        );
        let row = self.tx.row(count.bind(group.as_str()).bind(service.as_str())).await?;
        row.ok_or(StoreError::NotFound)?.integer("total")
    }
}

impl Writing {
    /// Creates the route or replaces it whole.
    pub(crate) async fn group_route_put<T: Serialize>(
        &mut self,
        stamp: Stamp,
        key: RouteKey<'_>,
        write: &RouteWrite<'_, T>,
    ) -> Result<(), StoreError> {
        self.witness(Subject::group_route(key)).await?;
        self.past_route_keep(key).await?;
        let put = query(
            "INSERT INTO group_route (gateway_group_id, kind, id, service_id, name, labels, content, created_at, \
             updated_at, created_number, change_number) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $8, $9, $9) \
             ON CONFLICT (gateway_group_id, kind, id) DO UPDATE SET service_id = excluded.service_id, \
             name = excluded.name, labels = excluded.labels, content = excluded.content, \
             updated_at = excluded.updated_at, change_number = excluded.change_number",
        );
        let put = put.bind(key.group.as_str()).bind(kind_text(key.kind)).bind(key.id.as_str());
        let put = put.bind(write.service_id.as_str()).bind(write.name).bind(to_json(write.labels)?);
        let put = put.bind(self.members().seal(write.service_id, write.route)?);
        self.tx.execute_one(put.bind(stamp.at).bind(stamp.number)).await
    }

    /// Deletes all routes of a service, of both kinds.
    pub(crate) async fn group_route_delete_of(
        &mut self,
        group: &GatewayGroupId,
        service: &ServiceId,
    ) -> Result<(), StoreError> {
        for kind in [ServiceKind::Http, ServiceKind::Stream].map(kind_text) {
            let routes = query(
                "SELECT id FROM group_route WHERE gateway_group_id = $1 AND kind = $2 AND service_id = $3",
            );
            let routes = routes.bind(group.as_str()).bind(kind).bind(service.as_str());
            self.witness_all(routes, |id| Some(Subject::GroupRoute(group.clone(), kind, id))).await?;
        }
        self.past_routes_keep(group, service).await?;
        let delete = query("DELETE FROM group_route WHERE gateway_group_id = $1 AND service_id = $2");
        self.tx.execute(delete.bind(group.as_str()).bind(service.as_str())).await?;
        Ok(())
    }

    pub(crate) async fn group_route_delete(&mut self, key: RouteKey<'_>) -> Result<(), StoreError> {
        self.witness(Subject::group_route(key)).await?;
        self.past_route_keep(key).await?;
        let delete = query("DELETE FROM group_route WHERE gateway_group_id = $1 AND kind = $2 AND id = $3");
        let delete = delete.bind(key.group.as_str()).bind(kind_text(key.kind)).bind(key.id.as_str());
        self.tx.execute_one(delete).await
    }
}
