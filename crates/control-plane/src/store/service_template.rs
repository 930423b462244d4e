//! Service templates: the editable drafts of services.

use gatewright_model::id::ServiceId;
use gatewright_model::resource::service::ServiceTemplate;

use super::database::{Row, query};
use super::list::{self, ListFilter, Listed, Scope, Source};
use super::object_count::Counted;
use super::sealed_members::Members;
use super::witness::Subject;
use super::{Reading, Stamp, StoreError, Writing, to_json};

/// A service template as it is stored, and what became of it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ServiceTemplateRow {
    pub(crate) id: ServiceId,
    pub(crate) template: ServiceTemplate,
    pub(crate) created_at: i64,
    pub(crate) updated_at: i64,
    pub(crate) last_published: Option<i64>,
    pub(crate) published_gateway_groups_count: i64,
    /// Rises with every change of the template.
    pub(crate) change_number: i64,
}

const COLUMNS: &str = "t.id, t.content, t.created_at, t.updated_at, t.change_number, t.last_published, \
    (SELECT COUNT(*) FROM published_service p WHERE p.service_id = t.id) AS published_gateway_groups_count";

const SOURCE: Source =
    Source { columns: COLUMNS, tables: "service_template t", object: "t", named: "t", id: "id", owner: None };

fn read(row: &Row, members: &Members) -> Result<ServiceTemplateRow, StoreError> {
    Ok(ServiceTemplateRow {
        id: row.parsed("id")?,
        template: members.open(&row.text("id")?, &row.text("content")?)?,
        created_at: row.integer("created_at")?,
        updated_at: row.integer("updated_at")?,
        last_published: row.optional_integer("last_published")?,
        published_gateway_groups_count: row.integer("published_gateway_groups_count")?,
        change_number: row.integer("change_number")?,
    })
}

impl Reading {
    pub(crate) async fn service_template_get(
        &mut self,
        id: &ServiceId,
    ) -> Result<Option<ServiceTemplateRow>, StoreError> {
        let one = query(format!("SELECT {COLUMNS} FROM service_template t WHERE t.id = $1"));
        let members = self.members();
        self.tx.row(one.bind(id.as_str())).await?.map(|row| read(&row, &members)).transpose()
    }

    /// The template that has this name.
    pub(crate) async fn service_template_named(
        &mut self,
        name: &str,
    ) -> Result<Option<ServiceId>, StoreError> {
        let one = query("SELECT id FROM service_template WHERE name = $1").bind(name);
        self.tx.row(one).await?.map(|row| row.parsed("id")).transpose()
    }

    pub(crate) async fn service_template_list(
        &mut self,
        filter: &ListFilter,
    ) -> Result<Listed<ServiceTemplateRow>, StoreError> {
        let counted = Some(Counted { group: "", noun: "service_template" });
        let (members, scope) = (self.members(), Scope { fixed: &[], counted });
        list::select(&mut self.tx, &SOURCE, scope, filter, |row| read(row, &members)).await
    }
}

impl Writing {
    pub(crate) async fn service_template_insert(
        &mut self,
        stamp: Stamp,
        id: &ServiceId,
        template: &ServiceTemplate,
    ) -> Result<(), StoreError> {
        self.witness(Subject::ServiceTemplate(id.clone())).await?;
        let insert = query(
            "INSERT INTO service_template \
             (id, name, labels, content, created_at, updated_at, created_number, change_number, last_published) \
             VALUES ($1, $2, $3, $4, $5, $5, $6, $6, \
             (SELECT MAX(publish_time) FROM publication WHERE publication.service_id = $1))",
        );
        let insert = insert.bind(id.as_str()).bind(template.name.as_str()).bind(to_json(&template.labels)?);
        let insert = insert.bind(self.members().seal(id, template)?);
        self.tx.execute_one(insert.bind(stamp.at).bind(stamp.number)).await
    }

    pub(crate) async fn service_template_update(
        &mut self,
        stamp: Stamp,
        id: &ServiceId,
        template: &ServiceTemplate,
    ) -> Result<(), StoreError> {
        self.witness(Subject::ServiceTemplate(id.clone())).await?;
        let update = query(
            "UPDATE service_template SET name = $2, labels = $3, content = $4, updated_at = $5, change_number = $6 \
             WHERE id = $1",
        );
        let update = update.bind(id.as_str()).bind(template.name.as_str()).bind(to_json(&template.labels)?);
        let update = update.bind(self.members().seal(id, template)?);
        self.tx.execute_one(update.bind(stamp.at).bind(stamp.number)).await
    }

    /// Deletes the template and, with it, its routes.
    pub(crate) async fn service_template_delete(&mut self, id: &ServiceId) -> Result<(), StoreError> {
        self.witness(Subject::ServiceTemplate(id.clone())).await?;
        let routes = query("SELECT id FROM route_template WHERE service_id = $1").bind(id.as_str());
        self.witness_all(routes, |id| Some(Subject::RouteTemplate(id.parse().ok()?))).await?;
        self.tx.execute_one(query("DELETE FROM service_template WHERE id = $1").bind(id.as_str())).await
    }
}
