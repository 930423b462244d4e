//! `gatewright audit`: whether the audit log is as it was written, asked of a control plane.

use clap::{Args, Subcommand};
use serde_json::Value;

use super::Failure;
use crate::announce;
use crate::arguments::AdminAccess;

/// What `gatewright audit` does.
#[derive(Debug, Args)]
pub(crate) struct Audit {
    #[command(subcommand)]
    command: AuditCommand,
}

#[derive(Debug, Subcommand)]
enum AuditCommand {
    /// Check the chain of the audit log: that every row is as it was written, and none is missing.
    Verify(Verify),
}

/// Flags of `gatewright audit verify`.
#[derive(Debug, Args)]
struct Verify {
    /// A head that an earlier check printed: the row at this place must still be that one.
    #[arg(long, env = "GATEWRIGHT_KNOWN", value_name = "POSITION:HASH")]
    known: Option<String>,
    #[command(flatten)]
    access: AdminAccess,
}

/// Runs the command. A chain that is broken is a failure.
pub(crate) fn run(arguments: &Audit) -> Result<(), Failure> {
    let AuditCommand::Verify(Verify { known, access }) = &arguments.command;
    let verification = super::admin_client(access)?.audit_log_verify(known.as_deref())?;
    announce::line(summary(&verification));
    match broken(&verification) {
        None => Ok(()),
        Some(reason) => Err(Failure::ChainBroken { reason }),
    }
}

fn summary(verification: &Value) -> String {
    let uncovered = verification["uncovered"].as_i64().unwrap_or_default();
    let older =
        if uncovered > 0 { format!(", {uncovered} older ones are not covered") } else { String::new() };
    let (rows, head) = (&verification["rows"], &verification["head"]);
    let hash = head["hash"].as_str().unwrap_or_default();
    format!("{rows} rows are in order{older}; head {}:{hash}", head["position"])
}

/// Where the chain breaks, for people.
fn broken(verification: &Value) -> Option<String> {
    let broken = verification.get("broken")?;
    let reason = broken["reason"].as_str().unwrap_or_default();
    let Some(row) = broken.get("row") else { return Some(reason.to_owned()) };
    let text = |field: &str| row[field].as_str().unwrap_or_default();
    Some(format!(
        "{reason} (row {}, {}, {} {})",
        text("id"),
        row["event_time"],
        text("event_type"),
        text("resource_id")
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_break_is_said_with_the_row_it_is_at() {
        let head = json!({"position": 3, "hash": "ab"});
        let whole = json!({"holds": true, "rows": 3, "uncovered": 0, "head": head});
        assert_eq!((summary(&whole).as_str(), broken(&whole)), ("3 rows are in order; head 3:ab", None));
        let row = json!({"id": "r", "event_time": 7, "event_type": "user_delete", "resource_id": "u"});
        let torn = json!({"rows": 3, "uncovered": 2, "head": head, "broken": {"row": row, "reason": "so"}});
        assert_eq!(summary(&torn), "3 rows are in order, 2 older ones are not covered; head 3:ab");
        assert_eq!(broken(&torn).as_deref(), Some("so (row r, 7, user_delete u)"));
        let short = json!({"rows": 3, "uncovered": 0, "head": head, "broken": {"reason": "missing"}});
        assert_eq!(broken(&short).as_deref(), Some("missing"));
    }
}
