//! Where a node is, and how it is.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use gatewright_model::resource::upstream as resource;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::health::Checker;
use super::names::{Name, Names};
use super::per_worker::PerWorker;
use super::pool::Endpoint;
use crate::proxy::reject::RejectReason;
use crate::tls::node::NodeSession;
use crate::transport::Transport;

/// One address of an upstream.
pub(crate) struct Node {
    /// What it was compiled from.
    pub(crate) written: resource::Node,
    place: Arc<Place>,
    /// Whose turn it is among the addresses of a name.
    turns: PerWorker<AtomicU32>,
    /// The `Host` the node sees with `pass_host: node`: the port is left out where it is the scheme's own.
    pub(crate) host: Box<[u8]>,
    /// What it must show over TLS; absent: it is asked without.
    tls: Option<Arc<NodeSession>>,
    /// Absent: the node is not checked.
    pub(crate) checker: Option<Arc<Checker>>,
}

/// What to connect to.
pub(crate) enum Place {
    Ip(SocketAddr),
    Name(Arc<Name>, u16),
}

impl Node {
    pub(crate) fn compile(
        node: &resource::Node,
        tls: Option<Arc<NodeSession>>,
        names: &Names,
        workers: usize,
    ) -> Self {
        let bare = node.host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(&node.host);
        let place = match bare.parse::<IpAddr>() {
            Ok(ip) if !names.deny(ip) => Place::Ip(SocketAddr::new(ip, node.port)),
            // One that is denied is treated as a name that nobody knows, and its lookup says why.
            Ok(_) => Place::Name(names.name(bare), node.port),
            Err(_) => Place::Name(names.name(&node.host), node.port),
        };
        let text = if bare.contains(':') { format!("[{bare}]") } else { node.host.clone() };
        let standard_port = if tls.is_some() { 443 } else { 80 };
        let host = if node.port == standard_port { text } else { format!("{text}:{}", node.port) };
        Self {
            written: node.clone(),
            place: Arc::new(place),
            turns: PerWorker::new(workers, |worker| AtomicU32::new(u32::try_from(worker).unwrap_or(0))),
            host: host.into_bytes().into(),
            tls,
            checker: None,
        }
    }

    /// The name it is known by, unless that is an address.
    pub(crate) fn name(&self) -> Option<&Name> {
        match &*self.place {
            Place::Ip(_) => None,
            Place::Name(name, _) => Some(name),
        }
    }

    pub(super) fn place(&self) -> &Arc<Place> {
        &self.place
    }

    /// The address to use now: that of the node, or the next one of its name. Waits only for the first lookup of a
    /// name; `None`: the name does not resolve.
    pub(crate) async fn address(&self, worker: usize) -> Option<SocketAddr> {
        if let Place::Ip(address) = *self.place {
            return Some(address);
        }
        let turn = self.turns.of(worker);
        let now = turn.load(Ordering::Relaxed);
        turn.store(now.wrapping_add(1), Ordering::Relaxed);
        self.place.settled(now as usize).await
    }

    /// Whether it is asked over TLS.
    pub(crate) fn is_over_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// What connections to `address` are kept under.
    pub(crate) fn endpoint(&self, address: SocketAddr) -> Endpoint {
        Endpoint { address, tls: self.tls.as_ref().map(|tls| tls.number) }
    }

    /// Opens a connection.
    ///
    /// # Errors
    /// The reason a request that needs it is rejected with; the cause is logged.
    pub(crate) async fn connect(&self, address: SocketAddr) -> Result<Transport, RejectReason> {
        self.connect_announced(address, &[]).await
    }

    /// Opens a connection that begins with `header`, before any TLS.
    ///
    /// # Errors
    /// Like [`Node::connect`].
    pub(crate) async fn connect_announced(
        &self,
        address: SocketAddr,
        header: &[u8],
    ) -> Result<Transport, RejectReason> {
        let connecting = async {
            let mut stream = connect(address).await?;
            if !header.is_empty() {
                stream.write_all(header).await?;
            }
            std::io::Result::Ok(stream)
        };
        let stream = connecting.await.map_err(|error| {
            tracing::debug!(%address, %error, "cannot connect to a node");
            RejectReason::UpstreamConnectFailed
        })?;
        let Some(tls) = &self.tls else { return Ok(Transport::Plain(stream)) };
        let session = tls.connect(stream, address).await;
        session.map(Transport::tls).map_err(|_| RejectReason::UpstreamTlsFailed)
    }

    /// Whether requests may go here; what is not checked is healthy.
    pub(crate) fn is_healthy(&self) -> bool {
        self.checker.as_ref().is_none_or(|checker| checker.health().is_healthy())
    }
}

impl Place {
    /// The address whose turn it is, after the first lookup of a name has ended.
    pub(super) async fn settled(&self, turn: usize) -> Option<SocketAddr> {
        let (name, port) = match self {
            Self::Ip(address) => return Some(*address),
            Self::Name(name, port) => (name, *port),
        };
        if let Some(ip) = name.address(turn) {
            return Some(SocketAddr::new(ip, port));
        }
        name.settled().await;
        name.address(turn).map(|ip| SocketAddr::new(ip, port))
    }

    /// Every address known.
    pub(super) fn addresses(&self) -> Vec<IpAddr> {
        match self {
            Self::Ip(address) => vec![address.ip()],
            Self::Name(name, _) => name.addresses(),
        }
    }
}

/// Opens a TCP connection.
pub(super) async fn connect(address: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    // Heads and small bodies leave in one write each; waiting to merge them only adds latency.
    stream.set_nodelay(true)?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::Background;

    fn host_of(host: &str, port: u16) -> String {
        let node = resource::Node { host: host.to_owned(), port, weight: 1, priority: 0 };
        let names = &Background::idle(1).materials.names;
        String::from_utf8(Node::compile(&node, None, names, 1).host.to_vec()).unwrap()
    }

    #[test]
    fn the_host_of_a_node_leaves_out_the_standard_port() {
        assert_eq!(host_of("backend.internal", 80), "backend.internal");
        assert_eq!(host_of("10.0.0.1", 8080), "10.0.0.1:8080");
        assert_eq!(host_of("[::1]", 8080), "[::1]:8080");
        assert_eq!(host_of("::1", 80), "[::1]");
    }
}
