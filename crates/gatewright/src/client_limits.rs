//! What clients may use of a gateway, as flags.
//!
//! The defaults are those of the gateway itself, for an edge whose clients are not trusted; 0 means no limit where
//! a flag says so.

use std::net::IpAddr;
use std::num::{NonZeroU64, NonZeroUsize};
use std::time::Duration;

use clap::Args;
use gatewright_gateway::config::{Ports, Trust};
use gatewright_gateway::{Limits, MemoryLimit};
use ipnet::IpNet;

/// File descriptors kept back from client connections: configuration, logs, health checks.
const DESCRIPTORS_RESERVED: u64 = 64;

/// Client connections a gateway takes by default, if it may open enough files.
const CONNECTIONS_MAX_DEFAULT: u64 = 100_000;

/// Limits on clients.
#[derive(Debug, Args)]
#[command(next_help_heading = "Limits on clients")]
pub(crate) struct ClientLimits {
    /// Client connections at a time; more are closed at once. Without: half of the files the process may open, at
    /// most 100000.
    #[arg(long, env = "GATEWRIGHT_CONNECTIONS_MAX", value_name = "N")]
    connections_max: Option<NonZeroUsize>,
    /// Bytes of a request's head.
    #[arg(long, env = "GATEWRIGHT_HEAD_BYTES_MAX", value_name = "BYTES", default_value_t = 61_440)]
    #[arg(value_parser = clap::value_parser!(u32).range(1024..=1_048_576))]
    head_bytes_max: u32,
    /// Header fields of a request.
    #[arg(long, env = "GATEWRIGHT_HEAD_FIELDS_MAX", value_name = "N", default_value_t = 100)]
    #[arg(value_parser = clap::value_parser!(u32).range(10..=100))]
    head_fields_max: u32,
    /// Bytes of a request's body; 0: as many as come, since bodies are passed on and not kept.
    #[arg(long, env = "GATEWRIGHT_BODY_BYTES_MAX", value_name = "BYTES", default_value_t = 0)]
    body_bytes_max: u64,
    /// Bytes per second a request's body must arrive with while it is waited for; 0: any.
    #[arg(long, env = "GATEWRIGHT_BODY_RATE_MIN", value_name = "BYTES", default_value_t = 240)]
    body_rate_min: u64,
    /// Seconds a request's head may take in total, and a new connection to begin its first.
    #[arg(long, env = "GATEWRIGHT_HEAD_TIMEOUT", value_name = "SECONDS", default_value = "10")]
    #[arg(value_parser = seconds)]
    head_timeout: Duration,
    /// Seconds a client may send nothing of a body, or take nothing of an answer.
    #[arg(long, env = "GATEWRIGHT_BODY_TIMEOUT", value_name = "SECONDS", default_value = "60")]
    #[arg(value_parser = seconds)]
    body_timeout: Duration,
    /// Seconds a connection may wait for its next request.
    #[arg(long, env = "GATEWRIGHT_IDLE_TIMEOUT", value_name = "SECONDS", default_value = "75")]
    #[arg(value_parser = seconds)]
    idle_timeout: Duration,
    /// Seconds a WebSocket may stay open after its route was removed or the gateway was told to stop.
    #[arg(long, env = "GATEWRIGHT_WEBSOCKET_DRAIN", value_name = "SECONDS", default_value = "300")]
    #[arg(value_parser = seconds)]
    websocket_drain: Duration,
    /// Ports that a configuration may open for streams, such as `9000-9100,5432`, on the address of --proxy. Without:
    /// none.
    #[arg(
        long,
        env = "GATEWRIGHT_STREAM_PORTS",
        value_name = "PORTS",
        default_value = "",
        hide_default_value = true
    )]
    pub(crate) stream_ports: Ports,
    /// Seconds a stream may go on after its stream route was removed; 0: it ends with it.
    #[arg(long, env = "GATEWRIGHT_STREAM_DRAIN", value_name = "SECONDS", default_value = "300")]
    #[arg(value_parser = seconds_or_none)]
    stream_drain: Duration,
    /// Seconds an idle connection stays open after a stop for one last request, which is answered with
    /// `Connection: close`; 0: none.
    #[arg(long, env = "GATEWRIGHT_SHUTDOWN_GRACE", value_name = "SECONDS", default_value = "5")]
    #[arg(value_parser = seconds_or_none)]
    shutdown_grace: Duration,
    /// Bytes of memory the process may use: near it new requests, then new connections are refused; 0: no limit.
    /// Without: what the control group of the process says.
    #[arg(long, env = "GATEWRIGHT_MEMORY_LIMIT", value_name = "BYTES")]
    memory_limit: Option<u64>,
    /// Addresses and networks whose X-Forwarded-Proto, -Host and -Port, Forwarded and PROXY protocol are believed.
    #[arg(long, env = "GATEWRIGHT_TRUSTED_ADDRESSES", value_name = "NETWORK", value_delimiter = ',')]
    #[arg(value_parser = network)]
    trusted_addresses: Vec<IpNet>,
    /// Listeners (`proxy`, `proxy-tls`, `streams`) on which every connection begins with the PROXY protocol, version 1 or 2.
    #[arg(long, env = "GATEWRIGHT_PROXY_PROTOCOL", value_name = "LISTENER", value_delimiter = ',')]
    proxy_protocol: Vec<ProxyProtocolListener>,
}

/// A listener of a gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum ProxyProtocolListener {
    Proxy,
    ProxyTls,
    Streams,
}

impl ClientLimits {
    /// What the flags mean to a gateway.
    pub(crate) fn limits(&self) -> Limits {
        Limits {
            connections_max: self.connections_max.unwrap_or_else(connections_max_default),
            head_bytes_max: self.head_bytes_max as usize,
            head_fields_max: self.head_fields_max as usize,
            head_timeout: self.head_timeout,
            idle_timeout: self.idle_timeout,
            body_timeout: self.body_timeout,
            body_rate_min: NonZeroU64::new(self.body_rate_min),
            body_bytes_max: NonZeroU64::new(self.body_bytes_max),
            websocket_drain: self.websocket_drain,
            stream_drain: self.stream_drain,
            shutdown_grace: self.shutdown_grace,
        }
    }

    /// How much memory there is, if anybody said so.
    pub(crate) fn memory(&self) -> Option<MemoryLimit> {
        match self.memory_limit {
            Some(0) => None,
            Some(bytes) => Some(MemoryLimit::of_process(bytes)),
            None => MemoryLimit::of_group(),
        }
    }

    /// Who is believed to speak for others, and where.
    pub(crate) fn trust(&self) -> Trust {
        let speaks = |listener| self.proxy_protocol.contains(&listener);
        Trust {
            addresses: self.trusted_addresses.clone(),
            proxy_protocol: speaks(ProxyProtocolListener::Proxy),
            proxy_protocol_tls: speaks(ProxyProtocolListener::ProxyTls),
            proxy_protocol_streams: speaks(ProxyProtocolListener::Streams),
        }
    }
}

/// A network, or none.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DeniedNetwork(pub(crate) Option<IpNet>);

impl std::str::FromStr for DeniedNetwork {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "none" { Ok(Self(None)) } else { network(text).map(|one| Self(Some(one))) }
    }
}

/// As many as there can be file descriptors for: each may need a second one, to a node.
fn connections_max_default() -> NonZeroUsize {
    let descriptors = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let spare = descriptors.unwrap_or(u64::MAX).saturating_sub(DESCRIPTORS_RESERVED);
    let connections = (spare / 2).clamp(1, CONNECTIONS_MAX_DEFAULT);
    usize::try_from(connections).ok().and_then(NonZeroUsize::new).unwrap_or(NonZeroUsize::MIN)
}

/// Lets the process open as many files as the system allows it to: a soft limit of 1024 is meant for programs that
/// use `select`.
pub(crate) fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let wanted = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if limit.current != limit.maximum
        && let Err(error) = setrlimit(Resource::Nofile, wanted)
    {
        tracing::warn!(%error, "the limit on open files cannot be raised");
    }
}

/// Seconds, fractions included, more than none and at most a day.
fn seconds(text: &str) -> Result<Duration, String> {
    seconds_or_none(text)?.checked_sub(Duration::from_millis(1)).ok_or("0 seconds are too few")?;
    seconds_or_none(text)
}

fn seconds_or_none(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "write seconds, such as `10` or `0.5`")?;
    if !(0.0..=86_400.0).contains(&seconds) {
        return Err("write seconds from 0 to 86400".to_owned());
    }
    Ok(Duration::from_secs_f64(seconds))
}

/// A network, such as `10.0.0.0/8`, or a single address.
fn network(text: &str) -> Result<IpNet, String> {
    let address = || text.parse::<IpAddr>().ok().map(IpNet::from);
    text.parse()
        .ok()
        .or_else(address)
        .ok_or_else(|| "write an address or a network, such as `10.0.0.0/8`".to_owned())
}
