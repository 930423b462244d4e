//! Follows a control plane: one client of the watch protocol, for remote control planes and for the one in the same
//! process.
//!
//! The connection is opened again whenever it breaks, for ever, with growing pauses; meanwhile the gateway serves
//! what it has. What arrives is believed only as a whole: a line that does not parse ends the connection, and
//! the next one asks for everything.
//! What was kept on disk is served if no control plane answers soon; if one does, only what changed since travels.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gatewright_model::protocol::{
    MESSAGE_BYTES_MAX, Message, SILENCE_MAX, TOKEN_HEADER, Update, WATCH_PATH, WatchQuery,
};
use gatewright_model::snapshot::Snapshot;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use tokio::sync::watch;

use super::Connector;
use super::cache::{Cache, Kept, Writer};
use super::report::Reports;
use crate::config::Settings;
use crate::live::LiveConfig;
use crate::live::compile::{self, Quarantined};
use crate::live::current::Current;
use crate::telemetry::metrics::Metrics;
use crate::upstream::Background;

/// The first pause before connecting again; each failure doubles it.
const PAUSE_MIN: Duration = Duration::from_millis(100);

/// The longest pause before connecting again.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// How long the control plane may take to begin its answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a control plane gets to say what is newer than what was kept on disk, before that is served.
const KEPT_PATIENCE: Duration = Duration::from_millis(500);

/// Why a watch ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("cannot connect: {0}")]
    Connect(#[source] io::Error),
    #[error("the connection broke: {0}")]
    Broken(#[from] hyper::Error),
    #[error("the control plane closed the connection")]
    Closed,
    #[error("no message for {} seconds", SILENCE_MAX.as_secs())]
    Silent,
    #[error("refused with {status}: {body}")]
    Refused { status: StatusCode, body: String },
    #[error("a message is not understood: {0}")]
    Message(#[from] serde_json::Error),
    #[error("a message is larger than {MESSAGE_BYTES_MAX} bytes")]
    TooLarge,
    #[error("the query cannot be written: {0}")]
    Request(#[from] hyper::http::Error),
    #[error("compiling the configuration failed: {0}")]
    Compile(#[from] tokio::task::JoinError),
}

/// What a follower works with.
pub(crate) struct Following {
    pub(crate) settings: Settings,
    pub(crate) connector: Arc<dyn Connector>,
    pub(crate) current: Current,
    pub(crate) background: Arc<Background>,
    /// Where the configuration is kept; none: nowhere.
    pub(crate) cache: Option<Cache>,
    pub(crate) reports: Reports,
}

/// Follows a control plane and keeps what is live true to it, until `stop`.
pub(crate) async fn follow(following: Following, mut stop: watch::Receiver<bool>) {
    let mut follower = tokio::select! {
        follower = Follower::start(following) => follower,
        _ = stop.wait_for(|stop| *stop) => return,
    };
    let mut pause = PAUSE_MIN;
    loop {
        let before = follower.snapshot.revision;
        let ended = tokio::select! {
            ended = follower.watch() => ended,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        let Err(ended) = ended;
        follower.reports.change(|report| report.connected = false);
        if matches!(ended, Ended::Message(_) | Ended::TooLarge | Ended::Compile(_)) {
            follower.trusted = false;
        }
        if follower.snapshot.revision != before {
            pause = PAUSE_MIN;
        }
        let source = follower.connector.describe();
        tracing::warn!(%source, reason = %ended, pause_ms = pause.as_millis(), "not following the control plane");
        // Jitter keeps a thousand gateways from returning in the same instant.
        let jittered = pause.mul_f64(0.5 + fastrand::f64());
        tokio::select! {
            () = tokio::time::sleep(jittered) => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

struct Follower {
    settings: Settings,
    connector: Arc<dyn Connector>,
    current: Current,
    background: Arc<Background>,
    reports: Reports,
    writer: Option<Writer>,
    snapshot: Arc<Snapshot>,
    /// `snapshot`, compiled; it may not be live yet.
    live: Arc<LiveConfig>,
    /// Whether `snapshot` is certain to be what the control plane sent.
    trusted: bool,
}

impl Follower {
    /// Begins with what was kept on disk, if there is anything.
    async fn start(following: Following) -> Self {
        let Following { settings, connector, current, background, cache, reports } = following;
        let mut follower = Self {
            settings,
            connector,
            live: current.load(),
            current,
            background,
            reports,
            writer: None,
            snapshot: Arc::default(),
            trusted: false,
        };
        let Some(cache) = cache else { return follower };
        let background = Arc::clone(&follower.background);
        let metrics = Arc::clone(&follower.live.metrics);
        let loading = tokio::task::spawn_blocking(move || {
            let loaded = cache.load().map(|kept| compile_kept(kept, metrics, &background));
            (cache, loaded)
        });
        match loading.await {
            Ok((cache, loaded)) => {
                match loaded {
                    Ok((kept, live, quarantined)) => follower.hold(kept, live, &quarantined),
                    Err(complaints) => complain(&complaints, "no configuration was kept that can be used"),
                }
                follower.write_to(cache);
            }
            Err(error) => tracing::error!(%error, "the kept configuration cannot be used"),
        }
        follower
    }

    /// Makes the kept configuration live if the control plane says nothing soon.
    fn hold(&mut self, kept: Kept, live: LiveConfig, quarantined: &[Quarantined]) {
        complain(&kept.complaints, "the kept configuration is damaged");
        tracing::info!(revision = %kept.snapshot.revision, "a configuration was kept on disk");
        // What stands before a damage is what the control plane once sent, so changes since then are enough.
        self.trusted = true;
        self.snapshot = Arc::new(kept.snapshot);
        self.live = Arc::new(live);
        self.reports.change(|report| {
            report.persisted = kept.complaints.is_empty().then_some(self.snapshot.revision);
            report.quarantine(quarantined);
        });
        let (current, live) = (self.current.clone(), Arc::clone(&self.live));
        tokio::spawn(async move {
            tokio::time::sleep(KEPT_PATIENCE).await;
            serve_kept(&current, &live);
        });
    }

    fn write_to(&mut self, cache: Cache) {
        let reports = self.reports.clone();
        let report = move |outcome: Result<_, String>| {
            if let Err(reason) = &outcome {
                tracing::error!(%reason, "the configuration is served but cannot be kept on disk; a restart without a control plane would not have it");
            }
            reports.change(|report| report.kept(outcome));
        };
        match Writer::start(cache, report) {
            Ok(writer) => self.writer = Some(writer),
            Err(error) => {
                tracing::error!(%error, "no configuration is kept on disk: no thread can be started")
            }
        }
    }

    async fn watch(&mut self) -> Result<std::convert::Infallible, Ended> {
        let stream = self.connector.connect().await.map_err(Ended::Connect)?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        // The connection is driven beside the reading and ends with it.
        let _driver = AbortOnDrop(tokio::spawn(connection));
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, sender.send_request(self.request()?));
        let response = answer.await.map_err(|_| Ended::Silent)??;
        if response.status() != StatusCode::OK {
            return Err(refusal(response).await);
        }
        let source = self.connector.describe();
        tracing::info!(%source, group = %self.settings.gateway_group_id, "following the control plane");
        self.reports.change(|report| report.connected = true);
        self.read(response.into_body()).await
    }

    fn request(&self) -> Result<Request<Empty<Bytes>>, Ended> {
        let have = self.trusted.then_some(self.snapshot.revision);
        let query = WatchQuery { gateway_group_id: self.settings.gateway_group_id.clone(), have };
        Ok(Request::get(format!("{WATCH_PATH}?{}", query.to_query_string()))
            .header(header::HOST, "control-plane")
            .header(TOKEN_HEADER, &self.settings.instance_token)
            .body(Empty::new())?)
    }

    async fn read(&mut self, mut body: Incoming) -> Result<std::convert::Infallible, Ended> {
        let mut line: Vec<u8> = Vec::new();
        loop {
            let frame = tokio::time::timeout(SILENCE_MAX, body.frame()).await.map_err(|_| Ended::Silent)?;
            let frame = frame.ok_or(Ended::Closed)??;
            let Ok(mut data) = frame.into_data() else { continue };
            while let Some(end) = memchr::memchr(b'\n', &data) {
                line.extend_from_slice(&data.split_to(end + 1));
                let line = Bytes::from(std::mem::take(&mut line));
                match serde_json::from_slice(&line)? {
                    Message::Update(update) => self.apply(update, line).await?,
                    // Nothing is newer than what was kept.
                    Message::Ping if self.trusted => serve_kept(&self.current, &self.live),
                    Message::Ping => {}
                }
            }
            line.extend_from_slice(&data);
            if line.len() > MESSAGE_BYTES_MAX {
                return Err(Ended::TooLarge);
            }
        }
    }

    /// Applies an update off the request path, and off this runtime's async threads.
    async fn apply(&mut self, update: Update, line: Bytes) -> Result<(), Ended> {
        let (full, changed, removed) = (update.full, update.services.len(), update.removed.len());
        let (before, live) = (Arc::clone(&self.snapshot), Arc::clone(&self.live));
        let background = Arc::clone(&self.background);
        // A panic while compiling ends this task, not the gateway: what was live stays live.
        let compiled = tokio::task::spawn_blocking(move || {
            let snapshot = before.apply(update);
            let (live, quarantined) = compile::compile(&live, &snapshot, &background);
            (snapshot, live, quarantined)
        });
        let (snapshot, live, quarantined) = compiled.await?;
        for one in &quarantined {
            tracing::error!(what = %one.what, reason = %one.reason, "quarantined: it does not compile, its last good form keeps serving");
        }
        self.live = Arc::new(live);
        self.current.swap(Arc::clone(&self.live));
        self.snapshot = Arc::new(snapshot);
        self.trusted = true;
        if let Some(writer) = &self.writer {
            writer.keep(Arc::clone(&self.snapshot), (!full).then_some(line));
        }
        let revision = self.snapshot.revision;
        self.reports.change(|report| report.applied(full, &quarantined));
        tracing::info!(%revision, full, changed, removed, "applied configuration");
        Ok(())
    }
}

fn compile_kept(
    kept: Kept,
    metrics: Arc<Metrics>,
    background: &Background,
) -> (Kept, LiveConfig, Vec<Quarantined>) {
    let nothing = LiveConfig::unconfigured(metrics);
    let (live, quarantined) = compile::compile(&nothing, &kept.snapshot, background);
    (kept, live, quarantined)
}

fn serve_kept(current: &Current, live: &Arc<LiveConfig>) {
    if current.begin(live) {
        tracing::info!(
            revision = live.revision.map(tracing::field::display),
            "serving the configuration that was kept on disk"
        );
    }
}

fn complain(complaints: &[String], consequence: &str) {
    for complaint in complaints {
        tracing::error!(%complaint, "{consequence}");
    }
}

async fn refusal(response: Response<Incoming>) -> Ended {
    const SHOWN_BYTES_MAX: usize = 512;
    let status = response.status();
    let body = http_body_util::Limited::new(response.into_body(), SHOWN_BYTES_MAX).collect().await;
    let body = body.map(|body| String::from_utf8_lossy(&body.to_bytes()).into_owned()).unwrap_or_default();
    Ended::Refused { status, body }
}

struct AbortOnDrop<T>(tokio::task::JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
