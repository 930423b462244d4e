//! The connection to a control plane: one, over HTTP/2, for what a gateway hears and what it says of itself.
//!
//! Who follows the control plane opens it and hangs it up; the heartbeats travel beside the watch. Both have windows
//! of their own, so that a whole configuration on its way does not hold a heartbeat up.

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::Io;

/// Bytes of a stream, and of all streams, that the other end may send before they are read.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 2 << 20;

/// What requests are addressed to: whom the connection leads to is settled when they are written.
pub(crate) const ORIGIN: &str = "http://control-plane";

type Sender = http2::SendRequest<Full<Bytes>>;

/// An open connection; it ends when this is dropped.
pub(super) struct Connection {
    sender: Sender,
    driver: JoinHandle<()>,
    shared: Option<Shared>,
}

impl Connection {
    /// Speaks HTTP/2 on `stream`.
    pub(super) async fn open(stream: Box<dyn Io>) -> hyper::Result<Self> {
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .handshake(TokioIo::new(stream))
            .await?;
        let driver = tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "the connection to a control plane broke");
            }
        });
        Ok(Self { sender, driver, shared: None })
    }

    pub(super) async fn send(&mut self, request: Request<Full<Bytes>>) -> hyper::Result<Response<Incoming>> {
        self.sender.send_request(request).await
    }

    /// Lets others send on it as long as it is open.
    pub(super) fn share(&mut self, shared: &Shared) {
        shared.0.send_replace(Some(self.sender.clone()));
        self.shared = Some(shared.clone());
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let Some(shared) = &self.shared {
            shared.0.send_replace(None);
        }
        self.driver.abort();
    }
}

/// The connection that is open at this moment, if one is.
#[derive(Clone)]
pub(crate) struct Shared(watch::Sender<Option<Sender>>);

impl Shared {
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(None))
    }

    /// Waits until a connection is open.
    pub(crate) async fn opened(&self) {
        // Somebody who asks also keeps the channel open.
        let _ = self.0.subscribe().wait_for(Option::is_some).await;
    }

    /// Sends on the connection, once one is open.
    pub(crate) async fn send(&self, request: Request<Full<Bytes>>) -> hyper::Result<Response<Incoming>> {
        loop {
            self.opened().await;
            let open = self.0.borrow().clone();
            if let Some(mut sender) = open {
                return sender.send_request(request).await;
            }
        }
    }
}
