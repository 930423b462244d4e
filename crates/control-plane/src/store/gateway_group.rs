//! Gateway groups and their revisions.

use std::collections::BTreeMap;

use gatewright_model::id::GatewayGroupId;
use gatewright_model::resource::gateway_group::GatewayGroup;
use gatewright_model::snapshot::Revision;

use super::database::{Row, query};
use super::list::{self, ListFilter, Listed, Scope, Source};
use super::witness::Subject;
use super::{ObjectKind, Reading, Stamp, StoreError, Writing, to_json};

/// A gateway group as it is stored.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct GatewayGroupRow {
    pub(crate) id: GatewayGroupId,
    pub(crate) group: GatewayGroup,
    pub(crate) revision: Revision,
    pub(crate) created_at: i64,
    pub(crate) updated_at: i64,
    /// Rises with every change of the group itself.
    pub(crate) change_number: i64,
}

/// What can be counted group by group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CountedKind {
    Ssl,
    Consumer,
    GatewayInstance,
}

const SOURCE: Source = Source {
    columns: "g.id, g.content, g.revision, g.created_at, g.updated_at, g.change_number",
    tables: "gateway_group g",
    object: "g",
    named: "g",
    id: "id",
    owner: None,
};

fn read(row: &Row) -> Result<GatewayGroupRow, StoreError> {
    Ok(GatewayGroupRow {
        id: row.parsed("id")?,
        group: row.json("content")?,
        revision: revision(row)?,
        created_at: row.integer("created_at")?,
        updated_at: row.integer("updated_at")?,
        change_number: row.integer("change_number")?,
    })
}

impl Reading {
    pub(crate) async fn gateway_group_get(
        &mut self,
        id: &GatewayGroupId,
    ) -> Result<Option<GatewayGroupRow>, StoreError> {
        let one = query(
            "SELECT id, content, revision, created_at, updated_at, change_number FROM gateway_group WHERE id = $1",
        );
        self.tx.row(one.bind(id.as_str())).await?.as_ref().map(read).transpose()
    }

    /// The group that has this name.
    pub(crate) async fn gateway_group_named(
        &mut self,
        name: &str,
    ) -> Result<Option<GatewayGroupId>, StoreError> {
        let one = query("SELECT id FROM gateway_group WHERE name = $1").bind(name);
        self.tx.row(one).await?.map(|row| row.parsed("id")).transpose()
    }

    /// How many objects of a kind each group has; groups without any are left out.
    pub(crate) async fn gateway_group_counts(
        &mut self,
        kind: CountedKind,
    ) -> Result<BTreeMap<GatewayGroupId, i64>, StoreError> {
        let of_objects = |kind: ObjectKind| {
            query(
                "SELECT gateway_group_id, total FROM object_count WHERE noun = $1 AND gateway_group_id <> ''",
            )
            .bind(kind.name())
        };
        let counts = match kind {
            CountedKind::Ssl => of_objects(ObjectKind::Ssl),
            CountedKind::Consumer => of_objects(ObjectKind::Consumer),
            CountedKind::GatewayInstance => query(
                "SELECT gateway_group_id, COUNT(*) AS total FROM gateway_instance GROUP BY gateway_group_id",
            ),
        };
        let rows = self.tx.rows(counts).await?;
        rows.iter().map(|row| Ok((row.parsed("gateway_group_id")?, row.integer("total")?))).collect()
    }

    pub(crate) async fn gateway_group_list(
        &mut self,
        filter: &ListFilter,
    ) -> Result<Listed<GatewayGroupRow>, StoreError> {
        let scope = Scope { fixed: &[], counted: None };
        list::select(&mut self.tx, &SOURCE, scope, filter, read).await
    }

    /// The group's revision; none: there is no such group.
    pub(crate) async fn gateway_group_revision(
        &mut self,
        id: &GatewayGroupId,
    ) -> Result<Option<Revision>, StoreError> {
        let one = query("SELECT revision FROM gateway_group WHERE id = $1").bind(id.as_str());
        self.tx.row(one).await?.as_ref().map(revision).transpose()
    }
}

impl Writing {
    pub(crate) async fn gateway_group_insert(
        &mut self,
        stamp: Stamp,
        id: &GatewayGroupId,
        group: &GatewayGroup,
    ) -> Result<(), StoreError> {
        self.witness(Subject::GatewayGroup(id.clone())).await?;
        let insert = query(
            "INSERT INTO gateway_group \
             (id, name, labels, content, created_at, updated_at, created_number, change_number) \
             VALUES ($1, $2, $3, $4, $5, $5, $6, $6)",
        );
        let insert = insert.bind(id.as_str()).bind(group.name.as_str()).bind(to_json(&group.labels)?);
        self.tx.execute_one(insert.bind(to_json(group)?).bind(stamp.at).bind(stamp.number)).await
    }

    pub(crate) async fn gateway_group_update(
        &mut self,
        stamp: Stamp,
        id: &GatewayGroupId,
        group: &GatewayGroup,
    ) -> Result<(), StoreError> {
        self.witness(Subject::GatewayGroup(id.clone())).await?;
        self.past_group_keep(id).await?;
        let update = query(
            "UPDATE gateway_group SET name = $2, labels = $3, content = $4, updated_at = $5, change_number = $6 \
             WHERE id = $1",
        );
        let update = update.bind(id.as_str()).bind(group.name.as_str()).bind(to_json(&group.labels)?);
        self.tx.execute_one(update.bind(to_json(group)?).bind(stamp.at).bind(stamp.number)).await
    }

    /// Deletes the group with its instance tokens; refused by constraint while it holds services or objects.
    pub(crate) async fn gateway_group_delete(&mut self, id: &GatewayGroupId) -> Result<(), StoreError> {
        self.witness(Subject::GatewayGroup(id.clone())).await?;
        self.tx.execute_one(query("DELETE FROM gateway_group WHERE id = $1").bind(id.as_str())).await
    }

    /// Raises the group's revision, because what its gateways serve changes in this transaction, and tells the other
    /// control planes so at its commit.
    pub(crate) async fn gateway_group_raise(&mut self, id: &GatewayGroupId) -> Result<Revision, StoreError> {
        let raise =
            query("UPDATE gateway_group SET revision = revision + 1 WHERE id = $1 RETURNING revision");
        let row = self.tx.row(raise.bind(id.as_str())).await?;
        self.tx.announce(id.as_str()).await?;
        let revision = revision(row.as_ref().ok_or(StoreError::NotFound)?)?;
        self.making_revision(id, revision);
        self.past_prune(id, revision).await?;
        Ok(revision)
    }
}

fn revision(row: &Row) -> Result<Revision, StoreError> {
    Ok(Revision(row.integer("revision")?.unsigned_abs()))
}
