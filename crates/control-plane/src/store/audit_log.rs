//! The audit log: appended to in the transaction of the change it speaks of, never changed, deleted when it is old.
//!
//! Rows are chained (see [`super::audit_chain`]), and deleted from the oldest on, so that what is left is a chain.

use std::collections::HashMap;

use super::audit_chain::Link;
use super::call::Call;
use super::database::{Parameter, Query, Row, query};
use super::object_count::{self, Counted};
use super::witness::{ObjectChange, written};
use super::{Direction, Page, Reading, StoreError, Writing};

/// Rows deleted in one transaction: other changes need not wait for a long one.
const EXPIRE_ROWS_MAX: i64 = 1000;

/// One thing that was done, or refused. Empty texts: not known, or not there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct AuditRow {
    pub(crate) number: i64,
    pub(crate) id: String,
    pub(crate) event_time: i64,
    pub(crate) event_type: String,
    pub(crate) operator_id: String,
    pub(crate) operator_name: String,
    pub(crate) source: String,
    pub(crate) token_name: String,
    pub(crate) ip_address: String,
    pub(crate) gateway_group_id: String,
    pub(crate) resource_id: String,
    pub(crate) resource_name: String,
    pub(crate) method: String,
    pub(crate) uri: String,
    pub(crate) user_agent: String,
    /// JSON with its secrets masked.
    pub(crate) body: String,
    pub(crate) status: i64,
    pub(crate) error_message: String,
    /// What changed, as JSON with its secrets masked (see [`super::witness`]).
    pub(crate) changes: String,
    /// The place in the chain; 0: a row from before there was one.
    pub(crate) position: i64,
    pub(crate) hash: String,
}

/// Which rows are wanted; empty texts: any.
#[derive(Clone, Debug, Default)]
pub(crate) struct AuditFilter {
    pub(crate) event_type: String,
    pub(crate) operator_id: String,
    pub(crate) resource_id: String,
    pub(crate) gateway_group_id: String,
    /// Unix seconds, both included.
    pub(crate) start_at: Option<i64>,
    pub(crate) end_at: Option<i64>,
    pub(crate) direction: Direction,
}

impl AuditFilter {
    fn condition(&self) -> (String, Vec<Parameter>) {
        let mut parameters: Vec<Parameter> = Vec::new();
        let mut conditions = vec!["1 = 1".to_owned()];
        for (column, value) in [
            ("event_type", &self.event_type),
            ("operator_id", &self.operator_id),
            ("resource_id", &self.resource_id),
            ("gateway_group_id", &self.gateway_group_id),
        ] {
            if !value.is_empty() {
                parameters.push(value.as_str().into());
                conditions.push(format!("{column} = ${}", parameters.len()));
            }
        }
        for (comparison, value) in [("event_time >=", self.start_at), ("event_time <=", self.end_at)] {
            if let Some(value) = value {
                parameters.push(value.into());
                conditions.push(format!("{comparison} ${}", parameters.len()));
            }
        }
        (conditions.join(" AND "), parameters)
    }
}

fn bound(sql: String, parameters: &[Parameter]) -> Query {
    parameters.iter().cloned().fold(query(sql), Query::bind)
}

fn read(row: &Row) -> Result<AuditRow, StoreError> {
    Ok(AuditRow {
        number: row.integer("number")?,
        id: row.text("id")?,
        event_time: row.integer("event_time")?,
        event_type: row.text("event_type")?,
        operator_id: row.text("operator_id")?,
        operator_name: row.text("operator_name")?,
        source: row.text("source")?,
        token_name: row.text("token_name")?,
        ip_address: row.text("ip_address")?,
        gateway_group_id: row.text("gateway_group_id")?,
        resource_id: row.text("resource_id")?,
        resource_name: row.text("resource_name")?,
        method: row.text("method")?,
        uri: row.text("uri")?,
        user_agent: row.text("user_agent")?,
        body: row.text("body")?,
        status: row.integer("status")?,
        error_message: row.text("error_message")?,
        changes: row.text("changes")?,
        position: row.integer("position")?,
        hash: row.text("hash")?,
    })
}

impl Reading {
    /// A page of the log.
    pub(crate) async fn audit_log_list(
        &mut self,
        filter: &AuditFilter,
        page: Page,
    ) -> Result<Vec<AuditRow>, StoreError> {
        let (condition, parameters) = filter.condition();
        let direction = match filter.direction {
            Direction::Ascending => "ASC",
            Direction::Descending => "DESC",
        };
        let sql = format!(
            "SELECT * FROM audit_log WHERE {condition} ORDER BY number {direction} LIMIT {} OFFSET {}",
            page.limit, page.offset
        );
        self.tx.rows(bound(sql, &parameters)).await?.iter().map(read).collect()
    }

    /// The `limit` newest rows that are older than the row `before`.
    pub(crate) async fn audit_log_before(
        &mut self,
        filter: &AuditFilter,
        before: i64,
        limit: i64,
    ) -> Result<Vec<AuditRow>, StoreError> {
        let (condition, mut parameters) = filter.condition();
        parameters.push(before.into());
        let sql = format!(
            "SELECT * FROM audit_log WHERE {condition} AND number < ${} ORDER BY number DESC LIMIT {limit}",
            parameters.len()
        );
        self.tx.rows(bound(sql, &parameters)).await?.iter().map(read).collect()
    }

    /// The `limit` oldest rows that are newer than the row `after`.
    pub(crate) async fn audit_log_after(
        &mut self,
        after: i64,
        limit: i64,
    ) -> Result<Vec<AuditRow>, StoreError> {
        let sql = format!("SELECT * FROM audit_log WHERE number > $1 ORDER BY number LIMIT {limit}");
        self.tx.rows(query(sql).bind(after)).await?.iter().map(read).collect()
    }

    pub(crate) async fn audit_log_count(&mut self, filter: &AuditFilter) -> Result<i64, StoreError> {
        let (condition, parameters) = filter.condition();
        if parameters.is_empty() {
            return object_count::total(&mut self.tx, Counted { group: "", noun: "audit_log" }).await;
        }
        let sql = format!("SELECT COUNT(*) AS total FROM audit_log WHERE {condition}");
        self.tx.row(bound(sql, &parameters)).await?.ok_or(StoreError::NotFound)?.integer("total")
    }
}

impl Writing {
    /// Appends what the log has to say of `call`, and of what it changed, at the end of the chain.
    pub(crate) async fn audit_log_append(
        &mut self,
        call: &Call,
        changes: Vec<ObjectChange>,
    ) -> Result<(), StoreError> {
        let mut rows = call.rows();
        for (row, changes) in rows.iter_mut().zip(by_row(&call.rows(), changes)) {
            row.changes = written(changes);
        }
        let mut head = self.audit_chain_ends().await?.head;
        for mut row in rows {
            row.number = self.stamp(row.event_time).await?.number;
            head = head.next(&row);
            self.audit_log_insert(row, &head).await?;
        }
        self.audit_chain_head_put(&head).await
    }

    async fn audit_log_insert(&mut self, row: AuditRow, link: &Link) -> Result<(), StoreError> {
        let insert = query(
            "INSERT INTO audit_log (number, id, event_time, event_type, operator_id, operator_name, source, \
             token_name, ip_address, gateway_group_id, resource_id, resource_name, method, uri, user_agent, \
             body, status, error_message, changes, position, hash) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21)",
        );
        let insert = insert.bind(row.number).bind(row.id).bind(row.event_time).bind(row.event_type);
        let insert = insert.bind(row.operator_id).bind(row.operator_name).bind(row.source);
        let insert = insert.bind(row.token_name).bind(row.ip_address).bind(row.gateway_group_id);
        let insert = insert.bind(row.resource_id).bind(row.resource_name).bind(row.method);
        let insert = insert.bind(row.uri).bind(row.user_agent).bind(row.body).bind(row.status);
        let insert = insert.bind(row.error_message).bind(row.changes);
        self.tx.execute_one(insert.bind(link.position).bind(link.hash.as_str())).await
    }

    /// Deletes some of the rows older than `before`, from the oldest row on, and says how many. The chain is anchored
    /// in the last of them.
    pub(crate) async fn audit_log_expire(&mut self, before: i64) -> Result<u64, StoreError> {
        let oldest = format!(
            "SELECT number, event_time, position, hash FROM audit_log ORDER BY number LIMIT {EXPIRE_ROWS_MAX}"
        );
        let mut last = None;
        for row in self.tx.rows(query(oldest)).await? {
            // A row of a time that the clock came back to waits for those before it.
            if row.integer("event_time")? >= before {
                break;
            }
            let link = Link { position: row.integer("position")?, hash: row.text("hash")? };
            last = Some((row.integer("number")?, link));
        }
        let Some((number, link)) = last else { return Ok(0) };
        if link.position > 0 {
            self.audit_chain_anchor_put(&link).await?;
        }
        self.tx.execute(query("DELETE FROM audit_log WHERE number <= $1").bind(number)).await
    }
}

/// Which of `rows` tells each change: that of the object itself, of what it belongs to, or the first.
fn by_row(rows: &[AuditRow], changes: Vec<ObjectChange>) -> Vec<Vec<ObjectChange>> {
    let places: HashMap<&str, usize> =
        rows.iter().enumerate().rev().map(|(index, row)| (row.resource_id.as_str(), index)).collect();
    let mut told: Vec<Vec<ObjectChange>> = rows.iter().map(|_| Vec::new()).collect();
    for change in changes {
        let place = places.get(change.id.as_str()).or_else(|| places.get(change.owner.as_str()));
        if let Some(told) = told.get_mut(place.copied().unwrap_or_default()) {
            told.push(change);
        }
    }
    told
}
