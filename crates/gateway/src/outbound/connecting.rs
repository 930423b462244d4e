//! Connections to whoever is not asked by HTTP: over TCP, and over TLS where that is wanted.
//!
//! Addresses that this gateway must not reach are left out after the name was looked up and before anything is
//! connected to.

use std::net::SocketAddr;
use std::sync::Arc;

use gatewright_plugins::outbound::{Address, Failure};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio_rustls::TlsConnector;

use crate::config::DeniedNetworks;
use crate::tls;

/// A connection, whatever is below it.
pub(super) trait Connected: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connected for T {}

/// How somebody is asked for over TLS.
#[derive(Clone, Copy)]
pub(super) struct Demands<'n> {
    /// The name that is asked for.
    pub(super) name: &'n str,
    /// Whether the certificate has to verify.
    pub(super) verify: bool,
}

/// A connection to `to`, over TLS if there are demands.
pub(super) async fn connect(
    to: &Address,
    demands: Option<Demands<'_>>,
    (tls, denied): (&tls::Shared, &DeniedNetworks),
) -> Result<Box<dyn Connected>, Failure> {
    let addresses = looked_up(to, denied).await?;
    let stream = TcpStream::connect(&*addresses).await.map_err(unreachable)?;
    let Some(Demands { name, verify }) = demands else { return Ok(Box::new(stream)) };
    let mut config = tls.nodes.client(verify).map_err(unreachable)?;
    config.alpn_protocols.clear();
    let name = tls::node::name(name).map_err(|error| Failure::Unsendable(error.to_string()))?;
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(unreachable)?;
    Ok(Box::new(stream))
}

/// The addresses of `to` that may be reached.
pub(super) async fn looked_up(to: &Address, denied: &DeniedNetworks) -> Result<Vec<SocketAddr>, Failure> {
    let found = lookup_host((to.host.as_str(), to.port)).await.map_err(unreachable)?;
    denied.allowed(found, SocketAddr::ip).map_err(Failure::Unreachable)
}

pub(super) fn unreachable(error: impl std::fmt::Display) -> Failure {
    Failure::Unreachable(error.to_string())
}
