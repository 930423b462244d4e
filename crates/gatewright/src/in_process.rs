//! The connection between a gateway and the control plane in the same process: a pipe instead of a socket.
//!
//! Everything else is the same as with a remote gateway, token and protocol included.

use std::future::Future;
use std::io;
use std::pin::Pin;

use gatewright_control_plane::WatchServer;
use gatewright_gateway::{Connector, Io};
use tokio::runtime::Handle;

/// Bytes under way in one direction before the writer waits: a few messages, not a whole configuration.
const PIPE_BYTES: usize = 64 * 1024;

/// Connects to the control plane in this process.
pub(crate) struct InProcess {
    watch_server: WatchServer,
    /// Where the control plane runs; its end of the pipe is served there and not by the gateway's own threads.
    runtime: Handle,
}

impl InProcess {
    /// A connector to `watch_server`, whose ends are served on `runtime`.
    pub(crate) fn new(watch_server: WatchServer, runtime: Handle) -> Self {
        Self { watch_server, runtime }
    }
}

impl Connector for InProcess {
    fn describe(&self) -> String {
        "the control plane in this process".to_owned()
    }

    fn is_near(&self) -> bool {
        true
    }

    fn connect(&self) -> Pin<Box<dyn Future<Output = io::Result<Box<dyn Io>>> + Send + '_>> {
        let (gateway_end, control_plane_end) = tokio::io::duplex(PIPE_BYTES);
        let watch_server = self.watch_server.clone();
        self.runtime.spawn(async move { watch_server.serve(control_plane_end).await });
        Box::pin(std::future::ready(Ok(Box::new(gateway_end) as Box<dyn Io>)))
    }
}
