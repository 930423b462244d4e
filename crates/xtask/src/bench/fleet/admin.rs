//! What people ask of a control plane with a large group, and how long they wait for it.
//!
//! Each question is asked once to warm what it may keep, which is measured by itself, and then some times more. Times
//! are those of a client: the connection, the answer's JSON and its parsing are in them.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::super::scenario::HOST;
use super::process::ControlPlane;
use super::store::{self, GROUP};

/// How often each question is asked.
const TIMES: usize = 20;

/// What was asked, and how long the answers took: the first, and those after it in ascending order.
struct Asked {
    what: &'static str,
    first: Duration,
    sorted: Vec<Duration>,
}

/// Asks everything; the rows of the table.
pub(super) fn measure(control_plane: &ControlPlane, services: usize) -> anyhow::Result<String> {
    let last = services / 20;
    let get = |path: String| move || control_plane.get(&path).map(drop);
    let list = |query: &str| get(format!("/api/gateway_groups/{GROUP}/services?page_size=20&{query}"));
    let templates = |query: &str| get(format!("/api/services/template?page_size=20&{query}"));
    let somewhere = format!("/team-{}/items-3/7", services / 2);
    let explain = || {
        let request = json!({"uri": somewhere, "host": HOST});
        control_plane.post(&format!("/api/gateway_groups/{GROUP}/explain"), &request).map(drop)
    };
    let check = || control_plane.post("/api/services/conflict_check", &wish("team-2", "3.0.0")).map(drop);
    let mut number = 0;
    let publish = || {
        number += 1;
        store::publish(control_plane, &["team-2".to_owned()], &format!("2.0.{number}")).map(drop)
    };
    let all = [
        ask("published services, first page", list("page=1"))?,
        ask("published services, last page", list(&format!("page={last}")))?,
        ask("published services, searched by name", list("page=1&search=team-77"))?,
        ask("service templates, first page", templates("page=1"))?,
        ask("service templates, last page", templates(&format!("page={last}")))?,
        ask("labels of services", get("/api/labels/service".to_owned()))?,
        ask("explain a request", explain)?,
        ask("conflict check of one service", check)?,
        ask("publish of one service, and reading the revision after it", publish)?,
    ];
    let mut rows = String::new();
    for (index, asked) in all.iter().enumerate() {
        let end = if index + 1 == all.len() { "" } else { "\n" };
        write!(rows, "{}{end}", asked.row())?;
    }
    Ok(rows)
}

fn wish(id: &str, version: &str) -> Value {
    let services = [json!({"service_id": id, "version": version})];
    json!({"create_new_version": true, "gateway_group_id": GROUP, "services": services})
}

fn ask(what: &'static str, mut question: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<Asked> {
    let mut timed = || {
        let begun = Instant::now();
        question().map(|()| begun.elapsed())
    };
    let first = timed()?;
    let mut sorted = (0..TIMES).map(|_| timed()).collect::<anyhow::Result<Vec<_>>>()?;
    sorted.sort_unstable();
    Ok(Asked { what, first, sorted })
}

impl Asked {
    fn row(&self) -> String {
        let Self { what, first, sorted } = self;
        let millis = |time: &Duration| time.as_secs_f64() * 1e3;
        let (middle, worst) = (&sorted[sorted.len() / 2], &sorted[sorted.len() - 1]);
        format!(
            "| admin API: {what} | p50 {:.1} ms, at most {:.1} ms; the first time {:.1} ms |",
            millis(middle),
            millis(worst),
            millis(first)
        )
    }
}
