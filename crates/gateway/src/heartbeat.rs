//! Reports to the control plane who this instance is and what it serves: now and then, and at once when that changes.
//!
//! They travel beside the watch, on the same connection. Nothing depends on them: an instance whose heartbeats are lost
//! serves on, and is shown as lost.

use std::time::Duration;

use gatewright_model::id::InstanceId;
use gatewright_model::protocol::{
    COMPARED_HEARTBEAT_INTERVAL, HEARTBEAT_INTERVAL, HEARTBEAT_PATH, HEARTBEAT_TEXT_LENGTH_MAX, Heartbeat,
    QUARANTINED_NAMED_MAX,
};
use gatewright_model::rollout::verdict::VersionCounts;
use gatewright_model::stream::ports::Ports;
use hyper::StatusCode;
use tokio::sync::watch;

use crate::config::Settings;
use crate::live::Compared;
use crate::live::current::Current;
use crate::source::connection::Shared;
use crate::source::post::{Post, post};
use crate::source::report::Reports;

/// The shortest time between two heartbeats, however fast changes come.
const SPACING: Duration = Duration::from_millis(50);

const TO: Post = Post { path: HEARTBEAT_PATH, expected: StatusCode::NO_CONTENT, answer_bytes_max: 0 };

/// What an instance says of itself that does not change while it runs.
pub(crate) struct Identity {
    pub(crate) instance_id: InstanceId,
    pub(crate) hostname: String,
    pub(crate) ports: Vec<u16>,
    pub(crate) stream_ports: Ports,
    pub(crate) cores: u32,
}

/// Reports until `stop`, whenever there is a connection.
pub(crate) async fn report(
    settings: Settings,
    identity: Identity,
    shared: Shared,
    current: Current,
    reports: Reports,
    mut stop: watch::Receiver<bool>,
) {
    let mut news = reports.subscribe();
    let round = async {
        loop {
            shared.opened().await;
            news.borrow_and_update();
            let heartbeat = heartbeat(&identity, &current, &reports);
            let sent = post(&shared, &settings, &TO, &heartbeat).await;
            // Jitter keeps a thousand gateways from reporting in the same instant.
            let is_compared = !heartbeat.versions.is_empty();
            let interval = if is_compared { COMPARED_HEARTBEAT_INTERVAL } else { HEARTBEAT_INTERVAL };
            let pause = interval.mul_f64(0.9 + 0.2 * fastrand::f64());
            tokio::time::sleep(SPACING).await;
            match sent {
                Ok(_) => drop(tokio::time::timeout(pause, news.changed()).await),
                Err(error) => {
                    tracing::debug!(%error, "a heartbeat was not taken");
                    tokio::time::sleep(pause / 10).await;
                }
            }
        }
    };
    tokio::select! {
        () = round => {}
        _ = stop.wait_for(|stop| *stop) => {}
    }
}

fn heartbeat(identity: &Identity, current: &Current, reports: &Reports) -> Heartbeat {
    let report = reports.now();
    // What was kept on disk is reported once it is served.
    let live = current.load();
    let is_live = live.revision.is_some();
    let counted = |one: &Compared| VersionCounts {
        service_id: one.service_id.clone(),
        version: one.version.clone(),
        counts: one.series.counts().since(&one.before),
    };
    Heartbeat {
        instance_id: identity.instance_id.clone(),
        hostname: identity.hostname.chars().take(HEARTBEAT_TEXT_LENGTH_MAX).collect(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ports: identity.ports.clone(),
        stream_ports: identity.stream_ports.clone(),
        cores: identity.cores,
        epoch: report.epoch.filter(|_| is_live),
        applied: report.applied.filter(|_| is_live),
        persisted: report.persisted,
        quarantined: report
            .quarantined
            .into_iter()
            .chain(report.unopened)
            .take(QUARANTINED_NAMED_MAX)
            .collect(),
        plugins: gatewright_plugins::ALL.iter().map(|kind| kind.name.to_owned()).collect(),
        prepared: report.prepared,
        versions: live.compared.iter().map(counted).collect(),
        registries: current.board().reports(),
    }
}
