//! Where a gateway gets its configuration.
//!
//! There is one client of the watch protocol; how its bytes travel is the [`Connector`]'s business: TCP to a
//! remote control plane, or a pipe to the one in the same process. So the gateway of `gatewright up` runs the same
//! code as a remote one. A gateway may also serve a file, alone. What was served is
//! kept on disk by `cache`; `report` says what has come of it all, and `post` tells the control plane.

pub(crate) mod cache;
pub(crate) mod connection;
pub(crate) mod control_plane;
pub mod file;
mod lines;
pub(crate) mod post;
mod preparation;
pub(crate) mod report;

use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};

/// Where a gateway's configuration is.
pub enum Source {
    /// At a control plane.
    ControlPlane(Arc<dyn Connector>),
    /// In a file, which is followed.
    File(PathBuf),
}

impl Source {
    /// What connects to the control plane, if there is one.
    pub(crate) fn connector(&self) -> Option<Arc<dyn Connector>> {
        match self {
            Self::ControlPlane(connector) => Some(Arc::clone(connector)),
            Self::File(_) => None,
        }
    }
}

impl<C: Connector> From<Arc<C>> for Source {
    fn from(connector: Arc<C>) -> Self {
        Self::ControlPlane(connector)
    }
}

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

    /// Whether it leads to this machine only, where packing what travels costs more than it saves.
    fn is_near(&self) -> bool {
        false
    }

    /// When the certificate that the gateway shows runs out, in unix seconds; none: it shows none. May read a file.
    fn certificate_expires_at(&self) -> Option<i64> {
        None
    }
}
