//! Publications: the history of what became active where, when and by whom.

use gatewright_model::id::{GatewayGroupId, PublicationId, ServiceId, ServiceVersionId};
use gatewright_model::snapshot::Revision;

use super::database::{Row, query};
use super::list::Direction;
use super::service_version::{SUMMARY_COLUMNS, VersionSummary, read_summary};
use super::{Reading, Stamp, StoreError, Writing};

/// One entry of a service's history in a group.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct PublicationRow {
    pub(crate) version: VersionSummary,
    pub(crate) published_by: String,
    pub(crate) publish_time: i64,
    /// Why, where that was said.
    pub(crate) note: String,
}

impl Reading {
    /// Whether a version was ever published in a group.
    pub(crate) async fn publication_exists(
        &mut self,
        group: &GatewayGroupId,
        version: &ServiceVersionId,
        service: &ServiceId,
    ) -> Result<bool, StoreError> {
        let any = query(
            "SELECT id FROM publication WHERE gateway_group_id = $1 AND service_id = $2 AND service_version_id = $3 \
             LIMIT 1",
        );
        let any = any.bind(group.as_str()).bind(service.as_str()).bind(version.as_str());
        Ok(self.tx.row(any).await?.is_some())
    }

    /// What was published of a service in a group, by publish time.
    pub(crate) async fn publication_list(
        &mut self,
        group: &GatewayGroupId,
        service: &ServiceId,
        direction: Direction,
    ) -> Result<Vec<PublicationRow>, StoreError> {
        let direction = match direction {
            Direction::Ascending => "ASC",
            Direction::Descending => "DESC",
        };
        let all = query(format!(
            "SELECT {SUMMARY_COLUMNS}, h.published_by, h.publish_time, h.note \
             FROM publication h JOIN service_version v ON v.id = h.service_version_id \
             WHERE h.gateway_group_id = $1 AND h.service_id = $2 ORDER BY h.change_number {direction}"
        ));
        let rows = self.tx.rows(all.bind(group.as_str()).bind(service.as_str())).await?;
        let members = self.members();
        let read = |row: &Row| {
            Ok(PublicationRow {
                version: read_summary(row, &members)?,
                published_by: row.text("published_by")?,
                publish_time: row.integer("publish_time")?,
                note: row.text("note")?,
            })
        };
        rows.iter().map(read).collect()
    }
}

impl Writing {
    pub(crate) async fn publication_insert(
        &mut self,
        stamp: Stamp,
        id: &PublicationId,
        placement: &super::Placement<'_>,
        (published_by, note): (&str, &str),
    ) -> Result<(), StoreError> {
        let insert = query(
            "INSERT INTO publication (id, gateway_group_id, service_id, service_version_id, revision, published_by, \
             publish_time, change_number, note) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        );
        let insert = insert.bind(id.as_str()).bind(placement.gateway_group_id.as_str());
        let insert = insert.bind(placement.service_id.as_str()).bind(placement.service_version_id.as_str());
        let Revision(revision) = placement.revision;
        let insert = insert.bind(i64::try_from(revision).unwrap_or(i64::MAX)).bind(published_by);
        self.tx.execute_one(insert.bind(stamp.at).bind(stamp.number).bind(note)).await?;
        let note = query(
            "UPDATE service_template SET last_published = $2 \
             WHERE id = $1 AND (last_published IS NULL OR last_published < $2)",
        );
        self.tx.execute(note.bind(placement.service_id.as_str()).bind(stamp.at)).await?;
        Ok(())
    }
}
