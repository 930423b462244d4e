//! The control plane: turns API calls into versions, and versions into snapshots.
//!
//! Composition root. [`start`] opens the store, creates what a first start needs, and serves the admin API and the
//! watch that gateways follow.

pub mod config;

use std::net::SocketAddr;
use std::time::Duration;

pub use config::{CreatedSecrets, Settings, StartError};
use tokio::io::{AsyncRead, AsyncWrite};

/// A running control plane.
pub struct ControlPlane {
    admin_address: SocketAddr,
    sync_address: Option<SocketAddr>,
    created_secrets: CreatedSecrets,
    operator_key: String,
    instance_token: String,
    watch_server: WatchServer,
}

/// Opens the store, creates what a first start needs, binds the listeners and starts serving.
///
/// # Errors
/// When the data directory, the store or a listener cannot be used; the error names it and the remedy.
pub async fn start(settings: Settings) -> Result<ControlPlane, StartError> {
    let _ = settings;
    unimplemented!()
}

impl ControlPlane {
    /// Where the admin API answers; the port is real even if port 0 was asked for.
    #[must_use]
    pub fn admin_address(&self) -> SocketAddr {
        self.admin_address
    }

    /// Where remote gateways are answered, if a sync listener was asked for.
    #[must_use]
    pub fn sync_address(&self) -> Option<SocketAddr> {
        self.sync_address
    }

    /// The secrets that this start made at random, to be shown once; empty on any later start.
    #[must_use]
    pub fn created_secrets(&self) -> &CreatedSecrets {
        &self.created_secrets
    }

    /// An admin key that lives as long as this process, for its own commands; it is stored nowhere.
    #[must_use]
    pub fn operator_key(&self) -> &str {
        &self.operator_key
    }

    /// An instance token of the group `default` that lives as long as this process, for a gateway inside it.
    #[must_use]
    pub fn instance_token(&self) -> &str {
        &self.instance_token
    }

    /// Serves the watch on connections made elsewhere, such as a pipe to a gateway in the same process.
    #[must_use]
    pub fn watch_server(&self) -> WatchServer {
        self.watch_server.clone()
    }

    /// Stops accepting, lets calls in flight finish until `deadline`, and closes the store.
    pub async fn stop(self, deadline: Duration) {
        let _ = deadline;
    }
}

/// Serves the watch protocol on any byte stream.
#[derive(Clone)]
pub struct WatchServer {}

impl WatchServer {
    /// Serves one connection until it closes.
    pub async fn serve<I: AsyncRead + AsyncWrite + Send + Unpin + 'static>(&self, stream: I) {
        let _ = stream;
    }
}
