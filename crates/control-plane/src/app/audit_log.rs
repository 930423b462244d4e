//! The audit log: every write and every refused one, with who, what, from where, and how it ended.
//!
//! What succeeded is recorded in the transaction of the change (see [`crate::store::Call`]), so there is no change
//! without its row. What was refused changed nothing and gets a transaction of its own.

use gatewright_model::validation::Violations;
use serde_json::Value;

use super::{Action, App, Caller, Refusal};
use crate::mask::{Masked, mask};
use crate::store::{AuditFilter, AuditRow, Call, Link, Listed, Page};

/// Bytes of a body that are kept; longer ones are cut, since they are configuration that is kept elsewhere.
const BODY_BYTES_MAX: usize = 64 << 10;

/// Bytes of a name or an id that are kept.
pub(crate) const NAME_BYTES_MAX: usize = 1024;

/// Rows of an export or of a verification that are read at once.
const EXPORT_ROWS: i64 = 500;

/// What became of a verification of the log's chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Verified {
    /// How many rows are in order, up to the first one that is not.
    pub(crate) rows: i64,
    /// How many rows are older than the chain and covered by nothing.
    pub(crate) uncovered: i64,
    /// The last row that is in order; of an empty log the place before the first.
    pub(crate) head: Link,
    /// Where the chain breaks; none: it holds.
    pub(crate) broken: Option<Broken>,
}

/// Where the chain breaks, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Broken {
    /// The first row that is not in order; none: it is missing.
    pub(crate) row: Option<AuditRow>,
    pub(crate) reason: String,
}

impl App {
    pub(crate) async fn audit_log_list(
        &self,
        caller: &Caller,
        filter: &AuditFilter,
        page: Page,
    ) -> Result<Listed<AuditRow>, Refusal> {
        let object = if filter.gateway_group_id.is_empty() { "*" } else { &filter.gateway_group_id };
        caller.must(Action::GetAudit, object)?;
        let mut tx = self.store().read().await?;
        let total = tx.audit_log_count(filter).await?;
        Ok(Listed { rows: tx.audit_log_list(filter, page).await?, total })
    }

    pub(crate) fn audit_log_event_type_list(&self, caller: &Caller) -> Result<(), Refusal> {
        caller.must(Action::GetAudit, "*")
    }

    /// The next rows of an export, the newest first, older than the row `before`; none are left when it is empty.
    pub(crate) async fn audit_log_export(
        &self,
        caller: &Caller,
        filter: &AuditFilter,
        before: i64,
    ) -> Result<Vec<AuditRow>, Refusal> {
        caller.must(Action::ExportAudits, "*")?;
        Ok(self.store().read().await?.audit_log_before(filter, before, EXPORT_ROWS).await?)
    }

    /// Whether every row is as it was written, in its place, and none is missing, and whether the row at the place
    /// `known` is the one that somebody noted.
    pub(crate) async fn audit_log_verify(
        &self,
        caller: &Caller,
        known: Option<&Link>,
    ) -> Result<Verified, Refusal> {
        caller.must(Action::GetAudit, "*")?;
        let mut tx = self.store().read().await?;
        let ends = tx.audit_chain_ends().await?;
        if let Some(known) = known.filter(|known| known.position < ends.anchor.position) {
            let (noted, oldest) = (known.position, ends.anchor.position);
            let message =
                format!("position {noted} is not kept any more; the oldest that is known is {oldest}");
            return Err(Violations::one("/known", message).into());
        }
        let mut verified = Verified { rows: 0, uncovered: 0, head: ends.anchor, broken: None };
        verified.compare(known);
        let mut last = 0;
        loop {
            let rows = tx.audit_log_after(last, EXPORT_ROWS).await?;
            let Some(newest) = rows.last() else { break };
            last = newest.number;
            for row in rows {
                if verified.broken.is_none() {
                    verified.look(row);
                    verified.compare(known);
                }
            }
        }
        if verified.broken.is_none() && verified.head != ends.head {
            let (end, newest) = (verified.head.position, ends.head.position);
            let reason =
                format!("the log ends at position {end}, and the chain at {newest}: rows are missing");
            verified.broken = Some(Broken { row: None, reason });
        }
        if let Some(known) = known.filter(|known| known.position > ends.head.position) {
            let (noted, end) = (known.position, ends.head.position);
            let reason = format!("position {noted} was noted, and the chain ends at {end}: rows are missing");
            verified.broken.get_or_insert(Broken { row: None, reason });
        }
        Ok(verified)
    }

    /// The row of a call that begins now.
    pub(crate) fn audit_log_row(&self) -> AuditRow {
        let (id, event_time) = (self.world().id(), self.world().now());
        AuditRow { id, event_time, source: "api".to_owned(), status: 200, ..AuditRow::default() }
    }

    /// Keeps what the log has to say of a call that changed nothing. Whoever is not known can make the log grow only
    /// so fast.
    pub(crate) async fn audit_log_record(&self, call: &Call, address: &str, is_known: bool) {
        let now = self.world().now();
        if !is_known {
            let throttle = &self.parts.throttles.unknown_rows;
            if !throttle.allows(address, now) {
                tracing::warn!(
                    address,
                    "a refused call of somebody unknown is not in the audit log: too many"
                );
                return;
            }
            throttle.failed(address, now);
        }
        let recorded = async {
            let mut tx = self.store().write().await?;
            tx.audit_log_append(call, Vec::new()).await?;
            tx.commit_aside().await
        };
        if let Err(error) = recorded.await {
            tracing::error!(%error, "a refused call could not be recorded in the audit log");
        }
    }

    /// Deletes what is older than `seconds`.
    pub(crate) async fn audit_log_expire(&self, seconds: i64) -> Result<u64, Refusal> {
        let before = self.world().now().saturating_sub(seconds);
        let mut deleted = 0;
        loop {
            let mut tx = self.store().write().await?;
            let rows = tx.audit_log_expire(before).await?;
            tx.commit_aside().await?;
            deleted += rows;
            if rows == 0 {
                return Ok(deleted);
            }
        }
    }
}

impl Verified {
    /// Looks at the next row.
    fn look(&mut self, row: AuditRow) {
        if row.position == 0 && self.rows == 0 && row.hash.is_empty() {
            self.uncovered += 1;
            return;
        }
        let expected = self.head.next(&row);
        let (place, expected_place) = (row.position, expected.position);
        if Link::of(&row) == expected {
            self.rows += 1;
            self.head = expected;
            return;
        }
        let reason = if place == expected_place {
            format!(
                "the row at position {place} is not the one that was written there, or the one before it is not"
            )
        } else if place > expected_place {
            format!("the rows from position {expected_place} to {} are missing", place - 1)
        } else {
            format!("a row says that it is at position {place} and stands at {expected_place}: it was put in")
        };
        self.broken = Some(Broken { row: Some(row), reason });
    }

    /// Compares the last row with what somebody noted of its place.
    fn compare(&mut self, known: Option<&Link>) {
        let Some(known) = known.filter(|known| known.position == self.head.position) else { return };
        if self.broken.is_none() && *known != self.head {
            let place = known.position;
            let reason = format!(
                "the row at position {place} has another hash than was noted: the chain was written anew"
            );
            self.broken = Some(Broken { row: None, reason });
        }
    }
}

/// Tells the audit log what the current call sent.
pub(crate) fn audit_log_note_body(body: &Value) {
    let Some(call) = Call::current() else { return };
    let Masked { document, secrets } = mask(body);
    let member = |names: &[&str]| {
        let found = names.iter().find_map(|name| document.get(name).and_then(Value::as_str));
        cut(found.unwrap_or_default(), NAME_BYTES_MAX)
    };
    call.complete(|row| {
        row.body = cut(&document.to_string(), BODY_BYTES_MAX);
        if row.resource_id.is_empty() {
            row.resource_id = member(&["id"]);
        }
        if row.gateway_group_id.is_empty() {
            row.gateway_group_id = member(&["gateway_group_id"]);
        }
        row.resource_name = member(&["name", "username"]);
    });
    call.keep_secret(secrets);
}

/// At most `bytes_max` bytes of `text`, and a mark if that is not all.
pub(crate) fn cut(text: &str, bytes_max: usize) -> String {
    if text.len() <= bytes_max {
        return text.to_owned();
    }
    format!("{}…", &text[..text.floor_char_boundary(bytes_max)])
}
