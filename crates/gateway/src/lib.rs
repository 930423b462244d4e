//! The data plane: turns a snapshot into traffic.
//!
//! Composition root. [`start`] binds the listeners, starts one single-threaded worker per core and one small
//! background runtime, and hands the configuration that arrives from the [`source`] to the workers by swapping one
//! pointer.

pub mod config;
pub mod router;
pub mod source;

use std::net::SocketAddr;
use std::time::Duration;

pub use config::{Settings, StartError};
pub use source::{Connector, Io};

/// A running gateway.
pub struct Gateway {
    proxy_address: SocketAddr,
    status_address: SocketAddr,
}

/// Binds the listeners and starts serving; configuration arrives through `connector`.
///
/// # Errors
/// When a listener cannot be bound or a thread cannot be started; the error names the address and the remedy.
pub fn start(settings: Settings, connector: std::sync::Arc<dyn Connector>) -> Result<Gateway, StartError> {
    let _ = (settings, connector);
    unimplemented!()
}

impl Gateway {
    /// Where clients are answered; the port is real even if port 0 was asked for.
    #[must_use]
    pub fn proxy_address(&self) -> SocketAddr {
        self.proxy_address
    }

    /// Where `/status` and `/status/ready` answer.
    #[must_use]
    pub fn status_address(&self) -> SocketAddr {
        self.status_address
    }

    /// Stops accepting, lets requests in flight finish until `deadline`, and ends the threads.
    pub async fn stop(self, deadline: Duration) {
        let _ = deadline;
    }
}
