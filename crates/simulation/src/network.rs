//! How a simulated gateway connects: to the control planes in turn, as a real one does.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use gatewright_gateway::source::Connecting;
use gatewright_gateway::{Connector, Io};
use turmoil::net::TcpStream;

/// Where control planes answer gateways.
pub(crate) const SYNC_PORT: u16 = 7943;

/// How long one control plane gets to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Connects to simulated hosts.
pub(crate) struct Network {
    control_planes: Vec<String>,
    next: AtomicUsize,
}

impl Network {
    /// A connector that begins with the control plane at place `first`.
    pub(crate) fn new(control_planes: Vec<String>, first: usize) -> Self {
        Self { control_planes, next: AtomicUsize::new(first) }
    }
}

impl Connector for Network {
    fn describe(&self) -> String {
        self.control_planes.join(", ")
    }

    fn connect(&self) -> Connecting<'_> {
        let next = self.next.fetch_add(1, Ordering::Relaxed);
        let name = self.control_planes[next % self.control_planes.len()].clone();
        Box::pin(async move {
            let connecting = TcpStream::connect((name, SYNC_PORT));
            let stream = tokio::time::timeout(CONNECT_TIMEOUT, connecting).await;
            let stream = stream.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
            Ok(Box::new(stream) as Box<dyn Io>)
        })
    }
}
