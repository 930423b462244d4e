//! Reports to the control plane who this instance is and what it serves: now and then, and at once when that changes.
//!
//! It has a connection of its own, so that a change on its way does not hold it up. Nothing depends on it: an instance
//! whose heartbeats are lost serves on, and is shown as lost.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gatewright_model::id::InstanceId;
use gatewright_model::protocol::{
    HEARTBEAT_INTERVAL, HEARTBEAT_PATH, HEARTBEAT_TEXT_LENGTH_MAX, Heartbeat, TOKEN_HEADER,
};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::SendRequest;
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use tokio::sync::watch;

use crate::config::Settings;
use crate::live::current::Current;
use crate::source::Connector;
use crate::source::report::Reports;

/// The shortest time between two heartbeats, however fast changes come.
const SPACING: Duration = Duration::from_millis(50);

/// How long one heartbeat may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes of an answer that are shown in the log.
const SHOWN_BYTES_MAX: usize = 512;

/// What an instance says of itself that does not change while it runs.
pub(crate) struct Identity {
    pub(crate) instance_id: InstanceId,
    pub(crate) hostname: String,
    pub(crate) ports: Vec<u16>,
    pub(crate) cores: u32,
}

/// Reports until `stop`.
pub(crate) async fn report(
    settings: Settings,
    identity: Identity,
    connector: Arc<dyn Connector>,
    current: Current,
    reports: Reports,
    mut stop: watch::Receiver<bool>,
) {
    let mut news = reports.subscribe();
    let mut connection: Option<Connection> = None;
    loop {
        news.borrow_and_update();
        let heartbeat = heartbeat(&identity, &current, &reports);
        let sending =
            tokio::time::timeout(TIMEOUT, send(&mut connection, &settings, &*connector, &heartbeat));
        let sent = tokio::select! {
            sent = sending => sent.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())),
            _ = stop.wait_for(|stop| *stop) => return,
        };
        if let Err(error) = &sent {
            connection = None;
            tracing::debug!(%error, "a heartbeat was not taken");
        }
        // Jitter keeps a thousand gateways from reporting in the same instant.
        let pause = HEARTBEAT_INTERVAL.mul_f64(0.9 + 0.2 * fastrand::f64());
        let next = async {
            tokio::time::sleep(SPACING).await;
            // Without a connection, news wait for the next time.
            match sent {
                Ok(()) => drop(tokio::time::timeout(pause, news.changed()).await),
                Err(_) => tokio::time::sleep(pause / 10).await,
            }
        };
        tokio::select! {
            () = next => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
    }
}

fn heartbeat(identity: &Identity, current: &Current, reports: &Reports) -> Heartbeat {
    let report = reports.now();
    // What was kept on disk is reported once it is served.
    let is_live = current.load().revision.is_some();
    Heartbeat {
        instance_id: identity.instance_id.clone(),
        hostname: identity.hostname.chars().take(HEARTBEAT_TEXT_LENGTH_MAX).collect(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ports: identity.ports.clone(),
        cores: identity.cores,
        epoch: report.epoch.filter(|_| is_live),
        applied: report.applied.filter(|_| is_live),
        persisted: report.persisted,
        quarantined: report.quarantined,
        plugins: gatewright_plugins::ALL.iter().map(|kind| kind.name.to_owned()).collect(),
    }
}

/// An open connection, driven beside.
struct Connection {
    sender: SendRequest<Full<Bytes>>,
    driver: tokio::task::JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

async fn send(
    connection: &mut Option<Connection>,
    settings: &Settings,
    connector: &dyn Connector,
    heartbeat: &Heartbeat,
) -> io::Result<()> {
    if connection.as_ref().is_none_or(|open| open.sender.is_closed()) {
        *connection = Some(open(connector).await?);
    }
    let Some(open) = connection.as_mut() else { return Err(io::ErrorKind::NotConnected.into()) };
    let request = Request::post(HEARTBEAT_PATH)
        .header(header::HOST, "control-plane")
        .header(header::CONTENT_TYPE, "application/json")
        .header(TOKEN_HEADER, &settings.instance_token)
        .body(Full::from(serde_json::to_vec(heartbeat)?))
        .map_err(io::Error::other)?;
    open.sender.ready().await.map_err(io::Error::other)?;
    let response = open.sender.send_request(request).await.map_err(io::Error::other)?;
    let status = response.status();
    let body = http_body_util::Limited::new(response.into_body(), SHOWN_BYTES_MAX).collect().await;
    if status == StatusCode::NO_CONTENT {
        return Ok(());
    }
    let body = body.map(|body| String::from_utf8_lossy(&body.to_bytes()).into_owned()).unwrap_or_default();
    Err(io::Error::other(format!("refused with {status}: {body}")))
}

async fn open(connector: &dyn Connector) -> io::Result<Connection> {
    let stream = connector.connect().await?;
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (sender, driving) = handshake.map_err(io::Error::other)?;
    let driver = tokio::spawn(async move {
        if let Err(error) = driving.await {
            tracing::debug!(%error, "the connection for heartbeats broke");
        }
    });
    Ok(Connection { sender, driver })
}
