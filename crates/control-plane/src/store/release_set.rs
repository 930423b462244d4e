//! Release sets, and the services that are prepared for them.

use gatewright_model::id::{GatewayGroupId, ServiceId};
use gatewright_model::snapshot::PublishedService;
use serde::{Deserialize, Serialize};

use super::database::{Row, query};
use super::{Reading, Stamp, StoreError, Writing, from_json, to_json};

/// After how many seconds a preparation is one that nobody waits for any more: its control plane died.
const PREPARATION_SECONDS: i64 = 600;

/// Release sets on a page; older ones are found by id.
const LISTED_MAX: i64 = 100;

/// Several services published to several groups as one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct ReleaseSet {
    /// Who published it.
    pub(crate) published_by: String,
    /// What was published, group by group.
    pub(crate) groups: Vec<ReleasedGroup>,
    /// When it was rolled back, and by whom.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) rolled_back: Option<RolledBack>,
}

/// What a release set published to one group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct ReleasedGroup {
    pub(crate) gateway_group_id: GatewayGroupId,
    /// The group's revision that contains it.
    pub(crate) revision: u64,
    pub(crate) services: Vec<ReleasedService>,
}

/// A service before and after.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct ReleasedService {
    pub(crate) service_id: ServiceId,
    pub(crate) service: String,
    /// None: it was not published.
    pub(crate) before: Option<NumberedVersion>,
    pub(crate) after: NumberedVersion,
}

/// A version, by id and number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NumberedVersion {
    pub(crate) id: gatewright_model::id::ServiceVersionId,
    pub(crate) number: String,
}

/// The end of a release set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RolledBack {
    pub(crate) at: i64,
    pub(crate) by: String,
}

/// A release set as it is stored.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ReleaseSetRow {
    pub(crate) id: String,
    pub(crate) set: ReleaseSet,
    pub(crate) created_at: i64,
}

fn read(row: &Row) -> Result<ReleaseSetRow, StoreError> {
    Ok(ReleaseSetRow {
        id: row.text("id")?,
        set: from_json(&row.text("content")?)?,
        created_at: row.integer("created_at")?,
    })
}

impl Reading {
    pub(crate) async fn release_set_get(&mut self, id: &str) -> Result<Option<ReleaseSetRow>, StoreError> {
        let one = query("SELECT id, content, created_at FROM release_set WHERE id = $1").bind(id);
        self.tx.row(one).await?.as_ref().map(read).transpose()
    }

    /// The newest release sets, newest first.
    pub(crate) async fn release_set_list(&mut self) -> Result<Vec<ReleaseSetRow>, StoreError> {
        let newest =
            query("SELECT id, content, created_at FROM release_set ORDER BY created_number DESC LIMIT $1");
        self.tx.rows(newest.bind(LISTED_MAX)).await?.iter().map(read).collect()
    }

    /// What is being prepared in a group, if anything is.
    pub(crate) async fn preparation_id(
        &mut self,
        group: &GatewayGroupId,
    ) -> Result<Option<String>, StoreError> {
        let one =
            query("SELECT id FROM preparation WHERE gateway_group_id = $1 LIMIT 1").bind(group.as_str());
        self.tx.row(one).await?.map(|row| row.text("id")).transpose()
    }

    /// The services that are being prepared in a group.
    pub(crate) async fn preparation_services(
        &mut self,
        group: &GatewayGroupId,
    ) -> Result<Vec<PublishedService>, StoreError> {
        let all = query(
            "SELECT service_id, content FROM preparation WHERE gateway_group_id = $1 ORDER BY service_id",
        );
        let members = self.members();
        let rows = self.tx.rows(all.bind(group.as_str())).await?;
        rows.iter().map(|row| members.open(&row.text("service_id")?, &row.text("content")?)).collect()
    }
}

impl Writing {
    /// Asks the instances of a group to compile services; whether nobody else is asking at this moment. The other
    /// control planes hear of it at the commit.
    pub(crate) async fn preparation_insert(
        &mut self,
        (id, now): (&str, i64),
        group: &GatewayGroupId,
        services: &[PublishedService],
    ) -> Result<bool, StoreError> {
        let abandoned = query("DELETE FROM preparation WHERE gateway_group_id = $1 AND created_at < $2");
        self.tx.execute(abandoned.bind(group.as_str()).bind(now - PREPARATION_SECONDS)).await?;
        if self.preparation_id(group).await?.is_some() {
            return Ok(false);
        }
        for service in services {
            let insert = query(
                "INSERT INTO preparation (gateway_group_id, service_id, id, content, created_at) \
                 VALUES ($1, $2, $3, $4, $5)",
            );
            let content = self.members().seal(&service.service_id, service)?;
            let insert = insert.bind(group.as_str()).bind(service.service_id.as_str()).bind(id);
            self.tx.execute_one(insert.bind(content).bind(now)).await?;
        }
        self.tx.announce(group.as_str()).await?;
        Ok(true)
    }

    /// Nobody waits for this preparation of a group any more.
    pub(crate) async fn preparation_delete(
        &mut self,
        id: &str,
        group: &GatewayGroupId,
    ) -> Result<(), StoreError> {
        let delete = query("DELETE FROM preparation WHERE gateway_group_id = $1 AND id = $2");
        self.tx.execute(delete.bind(group.as_str()).bind(id)).await?;
        Ok(())
    }

    pub(crate) async fn release_set_insert(
        &mut self,
        stamp: Stamp,
        id: &str,
        set: &ReleaseSet,
    ) -> Result<(), StoreError> {
        let insert = query(
            "INSERT INTO release_set (id, content, created_at, created_number) VALUES ($1, $2, $3, $4)",
        );
        let insert = insert.bind(id).bind(to_json(set)?);
        self.tx.execute_one(insert.bind(stamp.at).bind(stamp.number)).await
    }

    pub(crate) async fn release_set_update(&mut self, id: &str, set: &ReleaseSet) -> Result<(), StoreError> {
        let update = query("UPDATE release_set SET content = $2 WHERE id = $1").bind(id);
        self.tx.execute_one(update.bind(to_json(set)?)).await
    }
}
