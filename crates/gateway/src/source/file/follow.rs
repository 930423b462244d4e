//! Serves a configuration file, and what becomes of it while the gateway runs.
//!
//! The file is looked at every second, because that works on every file system and however the file is replaced. What
//! does not parse, or does not compile in any part, is refused whole: the gateway goes on with what it has, and says
//! so in log, status and metric. A gateway does not start with a file it refuses.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use gatewright_model::protocol::Update;
use gatewright_model::snapshot::{Revision, Snapshot};
use gatewright_model::validation::Violations;
use tokio::sync::watch;

use super::{FileError, Standalone, parse};
use crate::live::LiveConfig;
use crate::live::compile;
use crate::live::current::Current;
use crate::proxy::reject::RejectReason;
use crate::source::control_plane::Following;
use crate::source::report::Reports;
use crate::telemetry::metrics::Metrics;
use crate::tls;
use crate::upstream::discovered::table::Board;
use crate::upstream::names::SystemDns;
use crate::upstream::{Background, Outside};

/// How often the file is looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Why a configuration file is not served.
#[derive(Debug, thiserror::Error)]
#[error("the configuration file {path} is refused: {reason}", path = path.display())]
pub struct LoadError {
    /// The file.
    path: PathBuf,
    reason: Refusal,
}

#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("cannot read it: {0}")]
    Read(#[from] io::Error),
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{0}")]
    Compile(Violations),
    #[error("it cannot be checked: {0}")]
    Setup(String),
    #[error("compiling it failed: {0}")]
    Compiling(#[from] tokio::task::JoinError),
}

/// Checks the file at `path` as a gateway does that is started with it, without serving anything. Hands back what is
/// accepted but surely not meant.
///
/// # Errors
/// Why a gateway would refuse it.
pub fn validate(path: &Path) -> Result<Violations, LoadError> {
    let validated = || {
        let standalone = read(path)?;
        // Compiling asks for names and health checks in the background; here nobody ever works them off.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let tls = tls::Shared::new(&crate::config::Tls::default());
        let tls = Arc::new(tls.map_err(|error| Refusal::Setup(error.to_string()))?);
        let outside = Outside {
            tls,
            shipments: Arc::default(),
            denied: crate::config::DeniedNetworks::default(),
            plugin_dir: None,
        };
        let runtime = runtime.handle().clone();
        let background =
            Background::new(1, runtime, Arc::new(SystemDns::default()), outside, Board::default())
                .without_secrets();
        let warnings = standalone.warnings.clone();
        let live = LiveConfig::unconfigured(Arc::new(Metrics::new(1)));
        let snapshot = snapshot(&Snapshot::default(), standalone);
        compile_whole(&live, &snapshot, &background)?;
        Ok(warnings)
    };
    validated().map_err(|reason| LoadError { path: path.to_owned(), reason })
}

/// What is served of a file.
pub(crate) struct Follower {
    path: PathBuf,
    current: Current,
    background: Arc<Background>,
    reports: Reports,
    snapshot: Arc<Snapshot>,
    seen: Option<Stamp>,
}

/// What tells that a file may have changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    length: u64,
    modified: (i64, i64),
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            length: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        }
    }

    fn read(path: &Path) -> Option<Self> {
        fs::metadata(path).ok().map(|metadata| Self::of(&metadata))
    }
}

impl Follower {
    /// Serves the file at `path`.
    pub(crate) fn start(path: PathBuf, following: Following) -> Result<Self, LoadError> {
        let Following { current, background, reports, .. } = following;
        let snapshot = Arc::default();
        let mut follower = Self { path, current, background, reports, snapshot, seen: None };
        follower.seen = Stamp::read(&follower.path);
        let loaded = load(&follower.path, &follower.snapshot, &follower.current.load(), &follower.background);
        let (snapshot, live) = loaded.map_err(|reason| LoadError { path: follower.path.clone(), reason })?;
        follower.apply(snapshot, live);
        Ok(follower)
    }

    /// Serves what the file becomes, until `stop`.
    pub(crate) async fn follow(mut self, mut stop: watch::Receiver<bool>) {
        let mut secrets = self.background.secrets.changes();
        loop {
            let other_secrets = tokio::select! {
                () = tokio::time::sleep(LOOK_INTERVAL) => false,
                Ok(()) = secrets.changed() => true,
                _ = stop.wait_for(|stop| *stop) => return,
            };
            let looked = match other_secrets {
                true => self.compile_again().await,
                false => self.look().await,
            };
            if let Err(reason) = looked {
                let reason = reason.to_string();
                tracing::error!(path = %self.path.display(), %reason, "the configuration file is refused; what was served before goes on");
                self.reports.change(|report| report.refused = Some(reason));
            }
        }
    }

    /// Serves the file if it has changed.
    async fn look(&mut self) -> Result<(), Refusal> {
        let (path, seen) = (self.path.clone(), self.seen);
        let (before, live) = (Arc::clone(&self.snapshot), self.current.load());
        let background = Arc::clone(&self.background);
        // A panic while compiling ends this task, not the gateway.
        let looking = tokio::task::spawn_blocking(move || {
            let stamp = Stamp::read(&path);
            (stamp != seen).then(|| (stamp, load(&path, &before, &live, &background)))
        });
        let Some((stamp, loaded)) = looking.await? else { return Ok(()) };
        self.seen = stamp;
        let (snapshot, live) = loaded?;
        self.apply(snapshot, live);
        Ok(())
    }

    /// Serves the same with other secrets.
    async fn compile_again(&mut self) -> Result<(), Refusal> {
        let (snapshot, live) = (Arc::clone(&self.snapshot), self.current.load());
        let background = Arc::clone(&self.background);
        let compiling = tokio::task::spawn_blocking(move || compile_whole(&live, &snapshot, &background));
        let live = compiling.await??;
        self.current.swap(Arc::new(live));
        tracing::info!(path = %self.path.display(), "compiled again with other secrets");
        Ok(())
    }

    fn apply(&mut self, snapshot: Snapshot, live: LiveConfig) {
        let services = snapshot.services.len();
        self.snapshot = Arc::new(snapshot);
        self.current.swap(Arc::new(live));
        self.reports.change(|report| {
            report.holds(&self.snapshot, None);
            report.refused = None;
        });
        tracing::info!(path = %self.path.display(), services, "serving the configuration file");
    }
}

fn load(
    path: &Path,
    before: &Snapshot,
    live: &LiveConfig,
    background: &Background,
) -> Result<(Snapshot, LiveConfig), Refusal> {
    let standalone = read(path)?;
    for warning in standalone.warnings.iter() {
        tracing::warn!(file = %path.display(), at = warning.path, "{}", warning.message);
    }
    let snapshot = snapshot(before, standalone);
    let live = compile_whole(live, &snapshot, background)?;
    Ok((snapshot, live))
}

fn read(path: &Path) -> Result<Standalone, Refusal> {
    Ok(parse(&fs::read_to_string(path)?)?)
}

/// What the file says, as the next revision; what it says again is shared with `before`.
fn snapshot(before: &Snapshot, standalone: Standalone) -> Snapshot {
    before.apply(Update {
        epoch: None,
        revision: Revision(before.revision.0 + 1),
        full: true,
        digest: None,
        settings: standalone.settings,
        services: standalone.services.into_iter().map(Arc::unwrap_or_clone).collect(),
        removed: Vec::new(),
        objects: standalone.objects.into_iter().map(Arc::unwrap_or_clone).collect(),
        removed_objects: Vec::new(),
    })
}

/// Compiles everything or nothing.
fn compile_whole(
    before: &LiveConfig,
    snapshot: &Snapshot,
    background: &Background,
) -> Result<LiveConfig, Refusal> {
    let (live, quarantined) = compile::compile(before, snapshot, background);
    let mut violations = Violations::default();
    for one in quarantined {
        if one.lacks_secret {
            // The rest of the file is no worse for it, and the secret may come yet.
            tracing::error!(what = %one.what, reason = %one.reason, "a secret is missing; what needs it is refused");
            continue;
        }
        violations.add(one.what.to_string(), one.reason.to_string());
    }
    for (id, service) in live.services.iter() {
        for upstream in service.upstreams.all() {
            // Which nodes there are, if any, may change without the file.
            let unsupported = upstream.now().err();
            let unsupported = unsupported
                .filter(|reason| !matches!(reason, RejectReason::NoNodes | RejectReason::NodesUnknown));
            if let Some(reason) = unsupported {
                let message = format!("one of its upstreams cannot be served: {}", reason.name());
                violations.add(format!("service `{id}`"), message);
            }
        }
    }
    violations.into_result().map_err(Refusal::Compile)?;
    Ok(live)
}
