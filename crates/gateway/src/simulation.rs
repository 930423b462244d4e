//! A gateway without listeners and workers, for simulations of the network between it and control planes.
//!
//! What follows the control plane, compiles, keeps configurations on disk and reports is the real thing.

use std::future::Future;
use std::sync::Arc;

use gatewright_model::digest::ContentDigest;
use gatewright_model::id::ServiceId;
use gatewright_model::protocol::Epoch;
use gatewright_model::resource::upstream::{self, Node};
use gatewright_model::snapshot::Revision;
use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::config::{DeniedNetworks, Settings, StartError, Tls};
use crate::heartbeat::{self, Identity};
use crate::live::LiveConfig;
use crate::live::current::Current;
use crate::source::Connector;
use crate::source::connection::Shared;
use crate::source::control_plane::{Following, follow};
use crate::source::report::{Report, Reports};
use crate::telemetry::metrics::Metrics;
use crate::upstream::balance::Asked;
use crate::upstream::discovered::table::Board;
use crate::upstream::names::SystemDns;
use crate::upstream::tries::Tries;
use crate::upstream::{Background, Outside, Upstream};
use crate::{DataDirectory, tls};

/// What can be seen of a simulated gateway while it runs.
#[derive(Clone)]
pub struct Observed {
    current: Current,
    reports: Reports,
}

impl Observed {
    /// What it has: epoch, revision and digest.
    #[must_use]
    pub fn has(&self) -> Option<(Epoch, Revision, ContentDigest)> {
        let Report { epoch, applied, digest, .. } = self.reports.now();
        Some((epoch?, applied?, digest?))
    }

    /// The version of a service that requests are served with.
    #[must_use]
    pub fn serves(&self, service: &ServiceId) -> Option<String> {
        let live = self.current.load();
        live.services.get(service).and_then(|service| service.published.version.clone())
    }

    /// The revision that requests are served with.
    #[must_use]
    pub fn serves_revision(&self) -> Option<Revision> {
        self.current.load().revision
    }

    /// Whether what it has is on its disk.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        let report = self.reports.now();
        report.persisted == report.applied
    }

    /// How often everything was sent, and how often a change led to something else than the control plane has.
    #[must_use]
    pub fn resyncs(&self) -> (u64, u64) {
        let report = self.reports.now();
        (report.full_updates, report.digest_mismatches)
    }
}

/// A gateway as `settings` say, and what runs it for as long as it is polled, within a runtime.
///
/// # Errors
/// When another gateway uses its data directory.
pub fn gateway(
    settings: Settings,
    connector: Arc<dyn Connector>,
) -> Result<(Observed, impl Future<Output = ()>), StartError> {
    let tls = Arc::new(tls::Shared::new(&settings.tls)?);
    let outside =
        Outside { tls, shipments: Arc::default(), denied: settings.denied.clone(), plugin_dir: None };
    let open = |path| DataDirectory::open(path, &settings, false);
    let DataDirectory { cache, lock, .. } =
        settings.data_dir.as_deref().map(open).transpose()?.unwrap_or_default();
    let current = Current::new(LiveConfig::unconfigured(Arc::new(Metrics::new(1))));
    let (lookup, board) = (Arc::new(SystemDns::default()), current.board().clone());
    let background = Background::new(1, Handle::current(), lookup, outside, board).without_secrets();
    let (reports, shared) = (Reports::new(), Shared::new());
    let observed = Observed { current: current.clone(), reports: reports.clone() };
    let identity = Identity {
        instance_id: settings.instance_id.clone(),
        hostname: "simulated".to_owned(),
        ports: Vec::new(),
        stream_ports: settings.stream_ports.clone(),
        cores: 1,
    };
    let (stop, stopping) = watch::channel(false);
    let reporting = heartbeat::report(
        settings.clone(),
        identity,
        shared.clone(),
        current.clone(),
        reports.clone(),
        stopping.clone(),
    );
    let background = Arc::new(background);
    let following = Following { settings, current, background, cache, reports, shared };
    let running = async move {
        // Locked, and not told to stop, as long as it runs.
        let _held = (lock, stop);
        tokio::join!(follow(following, connector, stopping), reporting);
    };
    Ok((observed, running))
}

/// An upstream whose nodes are told by hand instead of by a registry.
pub struct DiscoveredUpstream {
    background: Arc<Background>,
    written: upstream::Upstream,
    compiled: Upstream,
}

impl DiscoveredUpstream {
    /// With these nodes; `None`: it cannot be made.
    #[must_use]
    pub fn new(runtime: Handle, nodes: &[Node]) -> Option<Self> {
        let tls = Arc::new(tls::Shared::new(&Tls::default()).ok()?);
        let denied = DeniedNetworks::default();
        let outside = Outside { tls, shipments: Arc::default(), denied, plugin_dir: None };
        let (lookup, board) = (Arc::new(SystemDns::default()), Board::default());
        let background = Arc::new(Background::new(1, runtime, lookup, outside, board));
        let written = upstream::Upstream::default();
        let compiled = Upstream::discovered(&written, nodes, &background, None).ok()?;
        Some(Self { background, written, compiled })
    }

    /// The same with other nodes, as after another answer; those that stay are the same objects.
    #[must_use]
    pub fn with(&self, nodes: &[Node]) -> Option<Self> {
        let Self { background, written, compiled } = self;
        let compiled = Upstream::discovered(written, nodes, background, Some(compiled)).ok()?;
        Some(Self { background: Arc::clone(background), written: written.clone(), compiled })
    }

    /// The port of the node that the next request goes to.
    #[must_use]
    pub fn chooses(&self) -> Option<u16> {
        let tries = Tries::new(&self.compiled, Asked { worker: 0, key: 0 }, 0);
        tries.first().map(|chosen| chosen.node.written.port)
    }
}
