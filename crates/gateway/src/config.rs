//! Startup settings of a gateway: read once by the executable, never changed while running.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use gatewright_model::id::GatewayGroupId;

/// What a gateway is told at its start.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The group whose configuration is served.
    pub gateway_group_id: GatewayGroupId,
    /// What the gateway proves its group with.
    pub instance_token: String,
    /// Where the configuration is kept for a start without a control plane; none: nowhere.
    pub data_dir: Option<PathBuf>,
    /// Where clients are answered.
    pub proxy: SocketAddr,
    /// Where clients are answered over TLS, and how.
    pub tls: Tls,
    /// Where `/status` and `/status/ready` answer.
    pub status: SocketAddr,
    /// How many workers serve requests, each on one thread.
    pub workers: NonZeroUsize,
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
    /// A thread or runtime could not be started.
    #[error("cannot start the {what}: {source}")]
    Thread {
        /// Which one.
        what: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
}
