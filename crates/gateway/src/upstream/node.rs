//! Where a node is.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use gatewright_model::resource::upstream as resource;
use tokio::net::TcpStream;

/// One address of an upstream.
pub(crate) struct Node {
    pub(crate) address: Address,
    /// The `Host` the node sees with `pass_host: node`: the port is left out where it is the scheme's own.
    pub(crate) host: Box<[u8]>,
}

impl Node {
    pub(crate) fn compile(node: &resource::Node) -> Self {
        let bare = node.host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(&node.host);
        let address = match bare.parse::<IpAddr>() {
            Ok(ip) => Address::Ip(SocketAddr::new(ip, node.port)),
            Err(_) => Address::Name(node.host.as_str().into(), node.port),
        };
        let text = if bare.contains(':') { format!("[{bare}]") } else { node.host.clone() };
        let host = if node.port == 80 { text } else { format!("{text}:{}", node.port) };
        Self { address, host: host.into_bytes().into() }
    }
}

/// What to connect to; equal addresses share a connection pool.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Address {
    Ip(SocketAddr),
    Name(Arc<str>, u16),
}

impl Address {
    /// Opens a connection, resolving a name first.
    pub(crate) async fn connect(&self) -> std::io::Result<TcpStream> {
        let stream = match self {
            Self::Ip(address) => TcpStream::connect(address).await?,
            Self::Name(host, port) => TcpStream::connect((host.as_ref(), *port)).await?,
        };
        // Heads and small bodies leave in one write each; waiting to merge them only adds latency.
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host_of(host: &str, port: u16) -> String {
        let node = resource::Node { host: host.to_owned(), port, weight: 1, priority: 0 };
        String::from_utf8(Node::compile(&node).host.to_vec()).unwrap()
    }

    #[test]
    fn the_host_of_a_node_leaves_out_the_standard_port() {
        assert_eq!(host_of("backend.internal", 80), "backend.internal");
        assert_eq!(host_of("10.0.0.1", 8080), "10.0.0.1:8080");
        assert_eq!(host_of("[::1]", 8080), "[::1]:8080");
        assert_eq!(host_of("::1", 80), "[::1]");
    }
}
