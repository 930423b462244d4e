//! The audit log: every write and every refused one, with who, what, from where, and how it ended.
//!
//! What succeeded is recorded in the transaction of the change (see [`crate::store::Call`]), so there is no change
//! without its row. What was refused changed nothing and gets a transaction of its own.

use serde_json::Value;

use super::mask::{Masked, mask};
use super::{Action, App, Caller, Refusal};
use crate::store::{AuditFilter, AuditRow, Call, Listed, Page};

/// Bytes of a body that are kept; longer ones are cut, since they are configuration that is kept elsewhere.
const BODY_BYTES_MAX: usize = 64 << 10;

/// Bytes of a name or an id that are kept.
pub(crate) const NAME_BYTES_MAX: usize = 1024;

/// Rows of an export that are read at once.
const EXPORT_ROWS: i64 = 500;

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
            tx.audit_log_append(call).await?;
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
