//! The proxies that are compared. A good addition is one file with `prepare` and `start`, one line in [`ALL`], and
//! a configuration that the peer's own documentation recommends for a reverse proxy.

mod caddy;
mod envoy;
mod gatewright;
mod haproxy;
mod nginx;
mod raw;
mod traefik;

pub(crate) mod python;

use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use super::scenario::{Protocol, Scenario};
use super::tls::Files;
use super::{cores, load};

/// How long a peer may take until it serves the scenario.
const START_MAX: Duration = Duration::from_secs(60);

/// Routes of each further service in the scenario with many routes.
pub(crate) const ROUTES_PER_SERVICE: usize = 100;

/// The peer that reads nothing of what it passes on.
pub(crate) const FLOOR: &str = "raw-relay";

pub(crate) const GATEWRIGHT: Peer = Peer {
    name: "gatewright",
    version: "this checkout",
    prepare: gatewright::prepare,
    start: gatewright::start,
};

const RAW: Peer = Peer { name: FLOOR, version: "this checkout", prepare: raw::prepare, start: raw::start };

const HAPROXY: Peer =
    Peer { name: "haproxy", version: haproxy::PACKAGE, prepare: haproxy::prepare, start: haproxy::start };

/// An earlier executable of Gatewright, which is given and not built.
pub(crate) const BEFORE: Peer = Peer {
    name: "before",
    version: "an earlier executable",
    prepare: gatewright::prepare,
    start: gatewright::start_before,
};

/// The peers in the order they are measured and printed.
pub(crate) const ALL: &[Peer] = &[
    GATEWRIGHT,
    RAW,
    HAPROXY,
    Peer { name: "nginx", version: nginx::PACKAGE, prepare: nginx::prepare, start: nginx::start },
    Peer { name: "envoy", version: envoy::PACKAGE, prepare: envoy::prepare, start: envoy::start },
    Peer { name: "traefik", version: traefik::PACKAGE, prepare: traefik::prepare, start: traefik::start },
    Peer { name: "caddy", version: caddy::PACKAGE, prepare: caddy::prepare, start: caddy::start },
];

/// The peers that pass bytes on as they come if they are told to, in the order of [`ALL`].
pub(crate) const AT_LAYER_4: &[Peer] = &[
    GATEWRIGHT,
    RAW,
    HAPROXY,
    Peer {
        name: "haproxy, splice",
        version: "the same with `option splice-auto`",
        prepare: haproxy::prepare,
        start: haproxy::start_splicing,
    },
];

/// Starts Gatewright itself.
pub(crate) fn gatewright_started(site: &Site, program: &Path) -> anyhow::Result<Running> {
    gatewright::start(site, program)
}

/// The executable to measure: the given one, or the release executable of this checkout, which is built.
pub(crate) fn gatewright_program(repository: &Path, given: Option<&Path>) -> anyhow::Result<PathBuf> {
    given.map_or_else(|| gatewright::prepare(repository), |given| Ok(given.to_owned()))
}

/// One proxy of the comparison.
pub(crate) struct Peer {
    pub(crate) name: &'static str,
    /// The package it comes from, for the report.
    pub(crate) version: &'static str,
    /// Builds or installs the peer; answers with its program.
    pub(crate) prepare: fn(repository: &Path) -> anyhow::Result<PathBuf>,
    /// Starts it on the proxy's core with one worker, configured for the scenario.
    pub(crate) start: fn(site: &Site, program: &Path) -> anyhow::Result<Running>,
}

/// Where a peer is started.
pub(crate) struct Site {
    /// Peers keep configuration, data and logs in a folder of their name here.
    pub(crate) work_dir: PathBuf,
    pub(crate) backend: SocketAddr,
    pub(crate) scenario: &'static Scenario,
    /// What peers show their clients; absent: clients come without TLS.
    pub(crate) tls: Option<Files>,
}

impl Site {
    fn folder(&self, peer: &str) -> anyhow::Result<PathBuf> {
        let folder = self.work_dir.join(peer);
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        Ok(folder)
    }

    /// Writes a file of a peer's configuration.
    fn write(&self, peer: &str, file: &str, text: &str) -> anyhow::Result<PathBuf> {
        let path = self.folder(peer)?.join(file);
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }

    /// Whether clients speak HTTP/2 from the first byte on.
    fn http2(&self) -> bool {
        matches!(self.scenario.protocol, Protocol::Http2 { .. })
    }

    /// The path prefixes of all further routes.
    fn more_prefixes(&self) -> impl Iterator<Item = String> {
        let routes =
            |service| (0..ROUTES_PER_SERVICE).map(move |route| format!("/team-{service}/items-{route}/"));
        (0..self.scenario.more_services).flat_map(routes)
    }

    #[cfg(test)]
    fn example_with_tls() -> Self {
        let [certificate, key, both] = ["/c.pem", "/k.pem", "/b.pem"].map(PathBuf::from);
        Self { tls: Some(Files { certificate, key, both }), ..Self::example() }
    }

    #[cfg(test)]
    fn example() -> Self {
        const EXAMPLE: Scenario = Scenario { more_services: 1, ..super::scenario::PLAIN };
        let backend = SocketAddr::from(([127, 0, 0, 1], 4321));
        Self { work_dir: PathBuf::new(), backend, scenario: &EXAMPLE, tls: None }
    }
}

/// A started peer; dropping it ends the process.
pub(crate) struct Running {
    child: Child,
    address: SocketAddr,
    /// Where it tells of itself, if it does.
    status: Option<SocketAddr>,
}

impl Running {
    /// Starts `command` on the proxy's core; children inherit the core of the thread that starts them.
    fn spawn(command: &mut Command) -> anyhow::Result<Child> {
        cores::pin(cores::PROXY)?;
        let child =
            command.spawn().with_context(|| format!("cannot run {}", command.get_program().display()));
        cores::pin(cores::LOAD)?;
        child
    }

    /// Starts a peer that listens on `address` and waits until it serves; what it prints goes to a log.
    fn start(command: &mut Command, site: &Site, peer: &str, address: SocketAddr) -> anyhow::Result<Self> {
        let log = site.folder(peer)?.join("output.log");
        let output = File::create(&log)?;
        command.stdout(output.try_clone()?).stderr(output);
        let child = Self::spawn(command)?;
        Self { child, address, status: None }.until_served(site, &log)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn status(&self) -> anyhow::Result<SocketAddr> {
        self.status.context("it does not say where its metrics are")
    }

    /// Waits until the scenario's request is answered with `200`.
    fn until_served(mut self, site: &Site, log: &Path) -> anyhow::Result<Self> {
        let begin = Instant::now();
        while !load::is_served(self.address, site.scenario) {
            let ended = self.child.try_wait().context("cannot watch the process")?;
            if ended.is_some() || begin.elapsed() > START_MAX {
                let said = std::fs::read_to_string(log).unwrap_or_default();
                bail!("it does not serve the scenario ({}); it said:\n{said}", log.display());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(self)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // SIGTERM, because nginx's master then ends its workers too; both calls fail only if it is gone already.
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let _ = self.child.wait();
    }
}

/// A port nobody listens on, for a peer that cannot be told to take any.
fn free_address() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).context("cannot find a free port")?;
    listener.local_addr().context("cannot find a free port")
}
