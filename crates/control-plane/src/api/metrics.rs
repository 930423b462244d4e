//! The metrics of a control plane, for Prometheus: its gateways, and what it sends them. It needs the credentials of
//! the admin API, because it names gateway groups; the `basic_auth` or `authorization` of a scrape job has them.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};

use super::error::ApiError;
use crate::app::{App, Caller, Instance, InstanceFilter, InstanceStatus};
use crate::distribution::Counted;

/// Answers `GET /metrics`.
pub(super) async fn metrics(caller: Caller, State(app): State<App>) -> Result<Response, ApiError> {
    let instances = app.instance_list(&caller, &InstanceFilter::default()).await?;
    let text = exposition(&instances, app.counts().now());
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response())
}

fn exposition(instances: &[Instance], counted: Counted) -> String {
    let mut text = String::new();
    let mut groups: BTreeMap<&str, ([u64; InstanceStatus::ALL.len()], u64)> = BTreeMap::new();
    for instance in instances {
        let (counts, lag) = groups.entry(instance.row.gateway_group_id.as_str()).or_default();
        let status = InstanceStatus::ALL.iter().position(|status| *status == instance.status);
        counts[status.unwrap_or_default()] += 1;
        if instance.status <= InstanceStatus::OutOfSync {
            let applied = instance.row.heartbeat.applied.unwrap_or_default();
            *lag = (*lag).max(instance.newest.0.saturating_sub(applied.0));
        }
    }
    family(&mut text, "gatewright_instances", "gauge", "Gateway instances, by group and status.");
    for (group, (counts, _)) in &groups {
        for (status, count) in InstanceStatus::ALL.iter().zip(counts) {
            let _ = writeln!(
                text,
                "gatewright_instances{{gateway_group_id=\"{group}\",status=\"{}\"}} {count}",
                status.name()
            );
        }
    }
    let help = "Revisions that the slowest living instance of a group is behind.";
    family(&mut text, "gatewright_instances_lag_revisions_max", "gauge", help);
    for (group, (_, lag)) in &groups {
        let _ =
            writeln!(text, "gatewright_instances_lag_revisions_max{{gateway_group_id=\"{group}\"}} {lag}");
    }
    family(&mut text, "gatewright_watches", "gauge", "Gateways that are connected to this control plane.");
    let _ = writeln!(text, "gatewright_watches {}", counted.watches);
    let help = "Updates sent to gateways: what changed, or everything (full).";
    family(&mut text, "gatewright_watch_updates_total", "counter", help);
    for (kind, count) in [("change", counted.changes), ("full", counted.full_updates)] {
        let _ = writeln!(text, "gatewright_watch_updates_total{{kind=\"{kind}\"}} {count}");
    }
    for (name, help, count) in [
        ("gatewright_watch_bytes_total", "Bytes of updates sent to gateways.", counted.bytes),
        ("gatewright_heartbeats_total", "Heartbeats taken from gateways.", counted.heartbeats),
    ] {
        family(&mut text, name, "counter", help);
        let _ = writeln!(text, "{name} {count}");
    }
    text
}

fn family(text: &mut String, name: &str, kind: &str, help: &str) {
    let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_is_counted_by_kind() {
        let counted = Counted { watches: 3, changes: 7, full_updates: 2, bytes: 900, heartbeats: 11 };
        let text = exposition(&[], counted);
        for line in [
            "gatewright_watches 3",
            "gatewright_watch_updates_total{kind=\"change\"} 7",
            "gatewright_watch_updates_total{kind=\"full\"} 2",
            "gatewright_watch_bytes_total 900",
            "gatewright_heartbeats_total 11",
            "# TYPE gatewright_heartbeats_total counter",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}: {text}");
        }
    }
}
