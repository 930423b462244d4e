//! Follows a control plane: one client of the watch protocol, for remote control planes and for the one in the same
//! process.
//!
//! The connection is opened again whenever it breaks, for ever, with growing pauses; meanwhile the gateway serves
//! what it has. What arrives is believed only as a whole: a line that does not parse ends the connection, and
//! the next one asks for everything.
//! The digest of the whole configuration is compared after every change; if it is not what the control plane says, a
//! change was lost or doubled, nothing of it becomes live, and everything is asked for again.
//! Within an epoch a gateway never goes back to an older revision.
//! What was kept on disk is served if no control plane answers soon; if one does, only what changed since travels.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gatewright_model::digest::Ledger;
use gatewright_model::protocol::{
    ENCODING, Epoch, Received, SILENCE_MAX, TOKEN_HEADER, WATCH_PATH, WatchQuery,
};
use gatewright_model::snapshot::{Revision, Snapshot};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode, header};
use tokio::sync::watch;

use super::Connector;
use super::cache::{Cache, Kept, Writer};
use super::connection::{Connection, ORIGIN, Shared};
use super::lines::{Lines, NoLine};
use super::preparation::prepare;
use super::report::Reports;
use crate::config::Settings;
use crate::live::LiveConfig;
use crate::live::compile::{self, Quarantined};
use crate::live::current::Current;
use crate::telemetry::metrics::Metrics;
use crate::upstream::Background;

/// The first pause before connecting again; each failure doubles it.
const PAUSE_MIN: Duration = Duration::from_millis(100);

/// The longest pause before connecting again, jitter aside: with it, less than five seconds.
const PAUSE_MAX: Duration = Duration::from_secs(3);

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
    #[error("what arrives is no lines: {0}")]
    NoLine(#[from] NoLine),
    #[error("the query cannot be written: {0}")]
    Request(#[from] hyper::http::Error),
    #[error("compiling the configuration failed: {0}")]
    Compile(#[from] tokio::task::JoinError),
    #[error(
        "the configuration at revision {0} is not what the control plane says it is; everything is asked for again"
    )]
    Diverged(Revision),
}

/// What a follower works with, of whatever source.
pub(crate) struct Following {
    pub(crate) settings: Settings,
    pub(crate) current: Current,
    pub(crate) background: Arc<Background>,
    /// Where the configuration is kept; none: nowhere.
    pub(crate) cache: Option<Cache>,
    pub(crate) reports: Reports,
    /// Where others find the connection to the control plane.
    pub(crate) shared: Shared,
}

/// Follows a control plane and keeps what is live true to it, until `stop`.
pub(crate) async fn follow(
    following: Following,
    connector: Arc<dyn Connector>,
    mut stop: watch::Receiver<bool>,
) {
    let mut follower = tokio::select! {
        follower = Follower::start(following, connector) => follower,
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
        if matches!(ended, Ended::Diverged(_)) {
            follower.reports.change(|report| report.digest_mismatches += 1);
            tracing::error!(reason = %ended, "a change was lost or doubled");
        }
        if matches!(ended, Ended::Message(_) | Ended::NoLine(_) | Ended::Compile(_) | Ended::Diverged(_)) {
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
            () = follower.rest(jittered) => {}
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
    shared: Shared,
    writer: Option<Writer>,
    snapshot: Arc<Snapshot>,
    /// `snapshot`, compiled; it may not be live yet.
    live: Arc<LiveConfig>,
    /// The digests of what `snapshot` was sent as.
    ledger: Ledger,
    /// Whether `snapshot` is certain to be what the control plane sent.
    trusted: bool,
    /// Wakes when secrets changed.
    secrets: watch::Receiver<u64>,
}

/// What became of a line.
enum Outcome {
    Applied {
        applied: Box<Applied>,
        full: bool,
        changed: usize,
        removed: usize,
    },
    /// It leads back to an older revision.
    Stale {
        revision: Revision,
    },
}

/// A newer configuration, compiled.
struct Applied {
    snapshot: Snapshot,
    ledger: Ledger,
    live: LiveConfig,
    quarantined: Vec<Quarantined>,
}

impl Follower {
    /// Begins with what was kept on disk, if there is anything.
    async fn start(following: Following, connector: Arc<dyn Connector>) -> Self {
        let Following { settings, current, background, cache, reports, shared } = following;
        let secrets = background.secrets.changes();
        let mut follower = Self {
            secrets,
            settings,
            connector,
            live: current.load(),
            current,
            background,
            reports,
            shared,
            writer: None,
            snapshot: Arc::default(),
            ledger: Ledger::default(),
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
        self.ledger = kept.ledger;
        self.live = Arc::new(live);
        self.reports.change(|report| {
            report.holds(&self.snapshot, Some(self.ledger.digest()));
            report.persisted = kept.complaints.is_empty().then_some(self.snapshot.revision);
            report.quarantine(quarantined);
        });
        self.current.board().serve(&self.live.registries);
        let (current, live) = (self.current.clone(), Arc::clone(&self.live));
        let background = Arc::clone(&self.background);
        tokio::spawn(async move {
            tokio::join!(tokio::time::sleep(KEPT_PATIENCE), background.discovery.first_answers());
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
        // Ends with the reading, and takes the heartbeats with it.
        let mut connection = Connection::open(stream).await?;
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, connection.send(self.request()?));
        let response = answer.await.map_err(|_| Ended::Silent)??;
        if response.status() != StatusCode::OK {
            return Err(refusal(response).await);
        }
        let source = self.connector.describe();
        tracing::info!(%source, group = %self.settings.gateway_group_id, "following the control plane");
        self.reports.change(|report| report.connected = true);
        connection.share(&self.shared);
        let encoding = response.headers().get(header::CONTENT_ENCODING).map(|value| value.to_str());
        let lines = Lines::encoded(encoding.transpose().unwrap_or(Some("?")))?;
        self.read(response.into_body(), lines).await
    }

    fn request(&self) -> Result<Request<Full<Bytes>>, Ended> {
        let query = WatchQuery {
            gateway_group_id: self.settings.gateway_group_id.clone(),
            have: self.trusted.then_some(self.snapshot.revision),
            epoch: self.snapshot.epoch.clone().filter(|_| self.trusted),
            digest: self.trusted.then(|| self.ledger.digest()),
            version: Some(env!("CARGO_PKG_VERSION").to_owned()),
        };
        let mut request = Request::get(format!("{ORIGIN}{WATCH_PATH}?{}", query.to_query_string()))
            .header(TOKEN_HEADER, &self.settings.instance_token);
        if !self.connector.is_near() {
            request = request.header(header::ACCEPT_ENCODING, ENCODING);
        }
        Ok(request.body(Full::default())?)
    }

    async fn read(
        &mut self,
        mut body: Incoming,
        mut lines: Lines,
    ) -> Result<std::convert::Infallible, Ended> {
        loop {
            let frame = tokio::select! {
                frame = tokio::time::timeout(SILENCE_MAX, body.frame()) => frame.map_err(|_| Ended::Silent)?,
                Ok(()) = self.secrets.changed() => {
                    self.compile_again().await?;
                    continue;
                }
            };
            let frame = frame.ok_or(Ended::Closed)??;
            let Ok(data) = frame.into_data() else { continue };
            self.reports.received(data.len());
            lines.take(data);
            while let Some(line) = lines.next()? {
                self.take(line).await?;
            }
        }
    }

    async fn take(&mut self, line: Bytes) -> Result<(), Ended> {
        // Updates are read where they are compiled; the rest is short.
        if line.starts_with(b"{\"update\"") {
            return self.apply(line).await;
        }
        match serde_json::from_slice(&line)? {
            Received::Update(_) => self.apply(line.clone()).await?,
            // Nothing is newer than what was kept.
            Received::Ping if self.trusted => serve_kept(&self.current, &self.live),
            Received::Ping => {}
            Received::Prepare { id, services } => {
                let served = (Arc::clone(&self.snapshot), Arc::clone(&self.live));
                let prepared = prepare(id, services, served, Arc::clone(&self.background)).await;
                tracing::info!(id = prepared.id, complaints = prepared.complaints.len(), "prepared");
                self.reports.change(|report| report.prepared = Some(prepared));
            }
            Received::Behind { revision } => {
                serve_kept(&self.current, &self.live);
                let ours = self.snapshot.revision;
                let is_news = self.reports.change(|report| report.ahead_of = Some(revision));
                if is_news {
                    tracing::error!(%ours, theirs = %revision, "the control plane knows only an older revision, as after a restored backup; this gateway keeps the newer one until the store's epoch is raised");
                }
            }
        }
        Ok(())
    }

    /// Lets `time` pass; secrets change meanwhile as well.
    async fn rest(&mut self, time: Duration) {
        let until = tokio::time::Instant::now() + time;
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(until) => return,
                Ok(()) = self.secrets.changed() => {
                    if let Err(error) = self.compile_again().await {
                        tracing::error!(%error, "other secrets cannot be used; what was live stays live");
                    }
                }
            }
        }
    }

    /// Compiles the same again with other secrets.
    async fn compile_again(&mut self) -> Result<(), Ended> {
        if self.live.revision.is_none() {
            return Ok(());
        }
        let (snapshot, live) = (Arc::clone(&self.snapshot), Arc::clone(&self.live));
        let background = Arc::clone(&self.background);
        let compiling = tokio::task::spawn_blocking(move || compile::compile(&live, &snapshot, &background));
        let (live, quarantined) = compiling.await?;
        self.live = Arc::new(live);
        self.current.board().serve(&self.live.registries);
        self.background.discovery.first_answers().await;
        // What was kept on disk may not be served yet.
        if self.current.load().revision.is_some() {
            self.current.swap(Arc::clone(&self.live));
        } else {
            serve_kept(&self.current, &self.live);
        }
        self.reports.change(|report| report.quarantine(&quarantined));
        tracing::info!(revision = %self.snapshot.revision, "compiled again with other secrets");
        Ok(())
    }

    /// Applies an update off the request path, and off this runtime's async threads.
    async fn apply(&mut self, line: Bytes) -> Result<(), Ended> {
        let (before, live) = (Arc::clone(&self.snapshot), Arc::clone(&self.live));
        let (background, trusted, text) = (Arc::clone(&self.background), self.trusted, line.clone());
        // Whatever goes wrong from here on, this is not what was sent any more.
        let ledger = std::mem::take(&mut self.ledger);
        self.trusted = false;
        // A panic while compiling ends this task, not the gateway: what was live stays live.
        let compiling =
            tokio::task::spawn_blocking(move || update(&text, &before, ledger, trusted, &live, &background));
        let (applied, full, changed, removed) = match compiling.await?? {
            (Outcome::Applied { applied, full, changed, removed }, _) => (applied, full, changed, removed),
            (Outcome::Stale { revision }, ledger) => {
                tracing::warn!(%revision, ours = %self.snapshot.revision, "an older configuration arrived and is not applied");
                (self.ledger, self.trusted) = (ledger, trusted);
                return Ok(());
            }
        };
        let Applied { snapshot, ledger, live, quarantined } = *applied;
        for one in &quarantined {
            tracing::error!(what = %one.what, reason = %one.reason, "quarantined: it is not served as it was published; its last good form keeps serving, if there is one");
        }
        self.live = Arc::new(live);
        self.current.board().serve(&self.live.registries);
        self.background.discovery.first_answers().await;
        self.current.swap(Arc::clone(&self.live));
        (self.snapshot, self.ledger, self.trusted) = (Arc::new(snapshot), ledger, true);
        if let Some(writer) = &self.writer {
            writer.keep(Arc::clone(&self.snapshot), self.ledger.digest(), (!full).then_some(line));
        }
        let revision = self.snapshot.revision;
        self.reports.change(|report| {
            report.full_updates += u64::from(full);
            report.holds(&self.snapshot, Some(self.ledger.digest()));
            report.quarantine(&quarantined);
        });
        tracing::info!(%revision, full, changed, removed, "applied configuration");
        Ok(())
    }
}

/// Reads an update and compiles what it leads to.
fn update(
    line: &[u8],
    before: &Snapshot,
    mut ledger: Ledger,
    trusted: bool,
    live: &LiveConfig,
    background: &Background,
) -> Result<(Outcome, Ledger), Ended> {
    let Received::Update(received) = serde_json::from_slice(line)? else {
        unreachable!("only updates are brought here")
    };
    let revision = received.revision();
    if is_stale(before, received.epoch(), revision, trusted) {
        return Ok((Outcome::Stale { revision }, ledger));
    }
    let update = received.read(&mut ledger)?;
    let expected = update.digest;
    let (full, changed, removed) = (update.full, update.services.len(), update.removed.len());
    let is_as_sent = expected.is_none_or(|expected| expected == ledger.digest());
    if !is_as_sent && !full {
        return Err(Ended::Diverged(revision));
    }
    if !is_as_sent {
        // There is nothing better to ask for, and not serving it would be worse.
        tracing::error!(%revision, "a whole configuration does not have the digest the control plane gives it; it is served all the same");
    }
    let snapshot = before.apply(update);
    let (live, quarantined) = compile::compile(live, &snapshot, background);
    let applied = Box::new(Applied { snapshot, ledger, live, quarantined });
    Ok((Outcome::Applied { applied, full, changed, removed }, Ledger::default()))
}

/// Whether an update would lead back: an older revision of the same epoch, or an older epoch of the same store.
fn is_stale(before: &Snapshot, epoch: Option<&Epoch>, revision: Revision, trusted: bool) -> bool {
    match (&before.epoch, epoch) {
        (Some(ours), Some(theirs)) if ours.store == theirs.store && ours.number != theirs.number => {
            theirs.number < ours.number
        }
        (ours, theirs) if ours.as_ref() == theirs => {
            revision < before.revision || (revision == before.revision && trusted)
        }
        _ => false,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn e12_what_is_older_doubled_or_replayed_is_stale_and_another_store_is_not() {
        let before = |epoch: &str, revision| Snapshot {
            epoch: epoch.parse().ok(),
            revision: Revision(revision),
            ..Snapshot::default()
        };
        for (ours, theirs, revision, trusted, expected) in [
            ("a.1", "a.1", 6, true, false),
            ("a.1", "a.1", 5, true, true),
            ("a.1", "a.1", 4, true, true),
            // Everything again, because what is here cannot be trusted.
            ("a.1", "a.1", 5, false, false),
            ("a.1", "a.1", 4, false, true),
            ("a.2", "a.1", 9, true, true),
            ("a.1", "a.2", 1, true, false),
            ("a.1", "b.1", 1, true, false),
            ("", "a.1", 1, true, false),
        ] {
            let theirs: Option<Epoch> = theirs.parse().ok();
            let stale = is_stale(&before(ours, 5), theirs.as_ref(), Revision(revision), trusted);
            assert_eq!(stale, expected, "{ours} at 5, {theirs:?} at {revision}, trusted: {trusted}");
        }
    }
}
