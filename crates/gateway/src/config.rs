//! Startup settings of a gateway: read once by the executable, never changed while running.

use std::fmt;
use std::fs::DirBuilder;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::{NonZeroU64, NonZeroUsize};
use std::ops::RangeInclusive;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use gatewright_discovery::outside::{Allow, CLOUD_METADATA};
use gatewright_model::id::{GatewayGroupId, InstanceId};
use gatewright_model::message::{Fields, Known};
pub use gatewright_model::stream::ports::Ports;
use gatewright_plugins::is_same_secret;
use ipnet::IpNet;

use crate::http1::{FIELDS_MAX, HEAD_BYTES_MAX};
use crate::memory::MemoryLimit;
use crate::source::file::LoadError;

use crate::telemetry::access_log;

/// What a gateway is told at its start.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The group whose configuration is served.
    pub gateway_group_id: GatewayGroupId,
    /// Who this instance is; the same over restarts, see [`instance_id`].
    pub instance_id: InstanceId,
    /// What the gateway proves its group with; empty if its connections do that, with a certificate.
    pub instance_token: String,
    /// Where the configuration is kept for a start without a control plane; none: nowhere.
    pub data_dir: Option<PathBuf>,
    /// Where plugins keep things on disk, such as answers; none: they keep them in memory.
    pub plugin_dir: Option<PathBuf>,
    /// Where clients are answered.
    pub proxy: SocketAddr,
    /// Where clients are answered over TLS, and how.
    pub tls: Tls,
    /// Where `/status` and `/status/ready` answer.
    pub status: SocketAddr,
    /// How many workers serve requests, each on one thread.
    pub workers: NonZeroUsize,
    /// How the access log is written; absent: there is none.
    pub access_log: Option<access_log::Settings>,
    /// Whether it is counted how long each plugin takes.
    pub measures_plugins: bool,
    /// What callers show to be told what served them; absent: nobody is told.
    pub debug_token: Option<DebugToken>,
    /// What clients may use of it.
    pub limits: Limits,
    /// How much memory there is; absent: nobody said so.
    pub memory: Option<MemoryLimit>,
    /// Who may speak for clients.
    pub trust: Trust,
    /// Where no configuration makes it connect to.
    pub denied: DeniedNetworks,
    /// The ports that a configuration may open for streams, on the address of the proxy listener.
    pub stream_ports: Ports,
}

/// Networks that no configuration makes a gateway connect to, be it for nodes, health checks or plugins: whoever may
/// write a service must not reach through it what only the machine may, such as the metadata of its cloud.
#[derive(Clone, Debug)]
pub struct DeniedNetworks(Arc<[IpNet]>);

impl DeniedNetworks {
    /// These and no others.
    #[must_use]
    pub fn new(networks: impl IntoIterator<Item = IpNet>) -> Self {
        Self(networks.into_iter().collect())
    }

    /// Whether everything may be connected to.
    #[cfg(feature = "kafka")]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether `address` is in one of the networks. The address that stands for none is one of this machine.
    pub(crate) fn cover(&self, address: IpAddr) -> bool {
        let address = match address.to_canonical() {
            IpAddr::V4(address) if address.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(address) if address.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            address => address,
        };
        self.0.iter().any(|network| network.contains(&address))
    }

    /// Asks this of every address before it is connected to.
    pub(crate) fn allow(&self) -> Allow {
        let denied = self.clone();
        Arc::new(move |address| denied.allowed([address], |address| *address).map(drop))
    }

    /// Those of `addresses` that may be connected to.
    ///
    /// # Errors
    /// A sentence, when there are none but denied ones.
    pub(crate) fn allowed<A>(
        &self,
        addresses: impl IntoIterator<Item = A>,
        ip: impl Fn(&A) -> IpAddr,
    ) -> Result<Vec<A>, String> {
        let (mut allowed, mut denied) = (Vec::new(), None);
        for address in addresses {
            match self.cover(ip(&address)) {
                true => denied = Some(ip(&address)),
                false => allowed.push(address),
            }
        }
        match denied {
            Some(denied) if allowed.is_empty() => {
                Err(format!("{denied} is in a network that this gateway must not reach (--denied-networks)"))
            }
            _ => Ok(allowed),
        }
    }
}

/// The addresses under which clouds tell their machines secrets.
impl Default for DeniedNetworks {
    fn default() -> Self {
        Self::new(CLOUD_METADATA.map(IpNet::from))
    }
}

/// What callers show to be told what served them. Compared in constant time, and never written.
#[derive(Clone)]
pub struct DebugToken(Arc<str>);

impl DebugToken {
    /// Whether a request with these fields shows it, once.
    pub(crate) fn is_shown(&self, fields: &Fields) -> bool {
        let mut shown = fields.known(Known::GatewrightDebug);
        let only = shown.next().filter(|_| shown.next().is_none());
        only.is_some_and(|shown| is_same_secret(shown, self.0.as_bytes()))
    }
}

/// So short, it could be guessed; so long, it would fill a head.
const DEBUG_TOKEN_BYTES: RangeInclusive<usize> = 16..=256;

impl FromStr for DebugToken {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_sendable = text.bytes().all(|byte| byte.is_ascii_graphic());
        match is_sendable && DEBUG_TOKEN_BYTES.contains(&text.len()) {
            true => Ok(Self(text.into())),
            false => {
                let (least, most) = DEBUG_TOKEN_BYTES.into_inner();
                Err(format!(
                    "a debug token has {least} to {most} letters, digits and signs of ASCII, without blanks"
                ))
            }
        }
    }
}

impl fmt::Debug for DebugToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DebugToken(…)")
    }
}

/// Who is believed to say where requests come from.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    /// Networks whose `X-Forwarded-Proto`, `-Host`, `-Port` and `Forwarded` go on as they are, and, if there are any,
    /// the only ones from which the PROXY protocol is accepted.
    pub addresses: Vec<IpNet>,
    /// Whether every connection to the proxy listener begins with the PROXY protocol.
    pub proxy_protocol: bool,
    /// The same for the TLS listener.
    pub proxy_protocol_tls: bool,
    /// The same for every port of streams.
    pub proxy_protocol_streams: bool,
}

impl Trust {
    /// Whether `address` is in one of the networks.
    pub(crate) fn covers(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.addresses.iter().any(|network| network.contains(&address))
    }
}

/// What clients may use of a gateway; the defaults are for one at the edge, whose clients are not trusted.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Client connections at a time; more are closed at once, so that those accepted keep working.
    pub connections_max: NonZeroUsize,
    /// Bytes of a request head.
    pub head_bytes_max: usize,
    /// Fields in a request head.
    pub head_fields_max: usize,
    /// How long a request head may take in total, from its first byte on: not per byte, or a slow sender would hold
    /// a connection for ever. A fresh connection must start its first request in the same time.
    pub head_timeout: Duration,
    /// How long a connection may wait for its next request.
    pub idle_timeout: Duration,
    /// How long a client may send nothing of a body, or take nothing of an answer.
    pub body_timeout: Duration,
    /// Bytes per second a body must arrive with, measured while it is waited for; none: the timeout alone counts.
    pub body_rate_min: Option<NonZeroU64>,
    /// Bytes of a request body; none: as many as come, which costs nothing, because bodies are not kept.
    pub body_bytes_max: Option<NonZeroU64>,
    /// How long a WebSocket may stay open after its route was removed.
    pub websocket_drain: Duration,
    /// How long a stream may go on after its stream route was removed.
    pub stream_drain: Duration,
    /// How long an idle connection stays open for one last request after a stop: a client that is just sending one
    /// learns from the answer, and not from a reset, that it was the last.
    pub shutdown_grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: NonZeroUsize::MIN.saturating_add(99_999),
            head_bytes_max: HEAD_BYTES_MAX,
            head_fields_max: FIELDS_MAX,
            head_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            body_timeout: Duration::from_secs(60),
            body_rate_min: NonZeroU64::new(240),
            body_bytes_max: None,
            websocket_drain: Duration::from_secs(300),
            stream_drain: Duration::from_secs(300),
            shutdown_grace: Duration::from_secs(5),
        }
    }
}

/// TLS, as far as no configuration says it.
#[derive(Clone, Debug, Default)]
pub struct Tls {
    /// Where clients are answered over TLS; absent: nowhere.
    pub listener: Option<SocketAddr>,
    /// The server name taken for that of clients that name none.
    pub fallback_server_name: Option<String>,
    /// A PEM file with authorities that certificates of nodes may come from, beside those of the system.
    pub upstream_authorities: Option<PathBuf>,
}

/// The id of the instance that lives in `data_dir`, made at random at its first start; where nothing can be kept, it is
/// another one at every start.
#[must_use]
pub fn instance_id(data_dir: &Path) -> InstanceId {
    let path = data_dir.join("instance-id");
    let kept = std::fs::read_to_string(&path).ok().and_then(|text| text.trim().parse().ok());
    if let Some(id) = kept {
        return id;
    }
    let random = || fastrand::u64(..);
    let text = format!("{:016x}{:016x}", random(), random());
    let written = DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(data_dir)
        .and_then(|()| std::fs::write(&path, format!("{text}\n")));
    if let Err(error) = written {
        tracing::warn!(path = %path.display(), %error, "the id of this instance cannot be kept; it is a new instance at every start");
    }
    text.parse().unwrap_or_else(|error| unreachable!("hexadecimal digits are an id: {error}"))
}

/// Why a gateway did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A listener could not be bound.
    #[error(
        "cannot listen on {address} ({flag}): {source}; stop the process that holds the port or choose another address"
    )]
    Bind {
        /// The address asked for.
        address: SocketAddr,
        /// The flag that sets it.
        flag: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// Another gateway keeps its configuration there.
    #[error(
        "another gateway uses the data directory {path} (--data-dir); stop that process or choose another directory",
        path = path.display()
    )]
    DataDirectoryTaken {
        /// The directory asked for.
        path: PathBuf,
    },
    /// The configuration file cannot be served.
    #[error(transparent)]
    File(#[from] LoadError),
    /// The added authorities cannot be read.
    #[error("cannot use the authorities in {path} (--upstream-ca): {reason}", path = path.display())]
    Authorities {
        /// The file asked for.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// TLS cannot be set up.
    #[error("cannot set up TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// The access log could not be opened.
    #[error(
        "cannot write the access log to {path} (--access-log): {source}; choose a file that can be written"
    )]
    AccessLog {
        /// The file.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// A thread or runtime could not be started.
    #[error("cannot start the {what}: {source}")]
    Thread {
        /// Which one.
        what: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p25_denied_networks_cover_every_way_to_write_an_address() {
        let loopback = ["127.0.0.0/8", "::1/128"].map(|network| network.parse().unwrap());
        for (networks, address, expected) in [
            (DeniedNetworks::default(), "169.254.169.254", true),
            (DeniedNetworks::default(), "::ffff:169.254.169.254", true),
            (DeniedNetworks::default(), "fd00:ec2::254", true),
            (DeniedNetworks::default(), "169.254.169.253", false),
            (DeniedNetworks::default(), "127.0.0.1", false),
            (DeniedNetworks::new(loopback), "127.8.9.1", true),
            (DeniedNetworks::new(loopback), "0.0.0.0", true),
            (DeniedNetworks::new(loopback), "::", true),
            (DeniedNetworks::new(loopback), "::ffff:127.0.0.1", true),
            (DeniedNetworks::new(loopback), "169.254.169.254", false),
            (DeniedNetworks::new([]), "169.254.169.254", false),
        ] {
            assert_eq!(networks.cover(address.parse().unwrap()), expected, "{address} in {networks:?}");
        }
    }

    #[test]
    fn of_several_addresses_those_that_are_not_denied_are_left() {
        let denied = DeniedNetworks::new(["10.0.0.0/8".parse().unwrap()]);
        let allowed = |addresses: &[&str]| {
            let addresses = addresses.iter().map(|address| address.parse::<IpAddr>().unwrap());
            denied.allowed(addresses, |address| *address).map(|allowed| allowed.len())
        };
        assert_eq!(allowed(&["10.0.0.1", "192.0.2.1"]), Ok(1));
        assert_eq!(allowed(&[]), Ok(0));
        let refused = allowed(&["10.0.0.1"]).unwrap_err();
        assert!(refused.contains("10.0.0.1") && refused.contains("--denied-networks"), "{refused}");
    }
}
