//! Where a gateway gets its configuration.
//!
//! There is one client of the watch protocol; how its bytes travel is the [`Connector`]'s business: TCP to a
//! remote control plane, or a pipe to the one in the same process. So the gateway of `gatewright up` runs the same
//! code as a remote one. What was served is kept on disk by `cache`, and `report` says what has come of it all.

pub(crate) mod cache;
pub(crate) mod control_plane;
pub mod file;
pub(crate) mod report;

use std::future::Future;
use std::io;
use std::pin::Pin;

use tokio::io::{AsyncRead, AsyncWrite};

/// A byte stream to a control plane.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A byte stream being opened.
pub type Connecting<'a> = Pin<Box<dyn Future<Output = io::Result<Box<dyn Io>>> + Send + 'a>>;

/// Opens byte streams to a control plane.
pub trait Connector: Send + Sync + 'static {
    /// What is connected to, for logs.
    fn describe(&self) -> String;

    /// Opens one stream.
    fn connect(&self) -> Connecting<'_>;
}
