//! What is measured: requests, answers and connections of each scenario.
//!
//! A good addition is one entry in [`ALL`] that every peer can serve with the configuration its file writes. Another
//! protocol needs listeners in the peers' configurations and a client in `load`.

use super::plugins::Chain;
use super::websocket;

/// Bytes of a large body.
pub(crate) const LARGE: usize = 1024 * 1024;

/// One situation in which all peers are compared.
#[derive(Debug)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    /// For the report.
    pub(crate) title: &'static str,
    /// Bytes in the body of a request.
    pub(crate) request_bytes: usize,
    /// Bytes in the body of an answer.
    pub(crate) answer_bytes: usize,
    /// Services beside the one that is asked for.
    pub(crate) more_services: usize,
    pub(crate) connections: Connections,
    pub(crate) protocol: Protocol,
    /// Whether clients come over TLS.
    pub(crate) tls: bool,
    /// Whether bytes are passed on as they come, without reading what they say.
    pub(crate) layer4: bool,
    /// The plugins of the route; only Gatewright has them.
    pub(crate) chain: Chain,
}

/// What happens on client connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Connections {
    /// So many, each with one request after the other.
    KeptAlive(usize),
    /// So many at a time, each for one request.
    New(usize),
    /// So many that were answered once and then wait.
    Idle(usize),
}

/// What clients speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http1,
    /// By prior knowledge, with so many requests at a time on each connection.
    Http2 {
        streams: usize,
    },
    /// Messages instead of requests, each sent back by the backend.
    WebSocket,
}

/// What most scenarios have in common.
pub(crate) const PLAIN: Scenario = Scenario {
    name: "",
    title: "",
    request_bytes: 0,
    answer_bytes: 1024,
    more_services: 0,
    connections: Connections::KeptAlive(64),
    protocol: Protocol::Http1,
    tls: false,
    layer4: false,
    chain: Chain::Bare,
};

/// Every scenario, in the order of the report.
pub(crate) const ALL: &[Scenario] = &[
    Scenario { name: "keep-alive", title: "HTTP/1.1 keep-alive, 1 KB answers, 64 connections", ..PLAIN },
    Scenario { name: "routes", title: "The same with 10,000 further routes", more_services: 100, ..PLAIN },
    Scenario {
        name: "download",
        title: "1 MB answers, 16 connections",
        answer_bytes: LARGE,
        connections: Connections::KeptAlive(16),
        ..PLAIN
    },
    Scenario {
        name: "upload",
        title: "1 MB requests, 16 connections",
        request_bytes: LARGE,
        connections: Connections::KeptAlive(16),
        ..PLAIN
    },
    Scenario {
        name: "connections",
        title: "A new TCP connection for each request, 1 KB answers, 32 at a time",
        connections: Connections::New(32),
        ..PLAIN
    },
    Scenario {
        name: "idle",
        title: "10,000 idle connections",
        connections: Connections::Idle(10_000),
        ..PLAIN
    },
    Scenario {
        name: "http2",
        title: "HTTP/2, 1 KB answers, 8 connections with 8 streams each",
        connections: Connections::KeptAlive(8),
        protocol: Protocol::Http2 { streams: 8 },
        ..PLAIN
    },
    Scenario {
        name: "websocket",
        title: "WebSocket, 1 KB messages there and back, 64 connections",
        answer_bytes: websocket::MESSAGE_BYTES,
        protocol: Protocol::WebSocket,
        ..PLAIN
    },
    Scenario { name: "tls", title: "TLS 1.3 keep-alive, 1 KB answers, 64 connections", tls: true, ..PLAIN },
    Scenario {
        name: "tls-connections",
        title: "A new TLS connection with a full handshake for each request, 1 KB answers, 32 at a time",
        connections: Connections::New(32),
        tls: true,
        ..PLAIN
    },
    Scenario {
        name: "tls-download",
        title: "1 MB answers over TLS, 16 connections",
        answer_bytes: LARGE,
        connections: Connections::KeptAlive(16),
        tls: true,
        ..PLAIN
    },
    Scenario {
        name: "tls-idle",
        title: "10,000 idle TLS connections",
        connections: Connections::Idle(10_000),
        tls: true,
        ..PLAIN
    },
];

/// The host that is asked for.
pub(crate) const HOST: &str = "petstore.example.com";

/// The path that is asked for; what is behind the service's prefix reaches the backend.
pub(crate) const PATH: &str = "/store/pets/1";

impl Scenario {
    /// The request of HTTP/1.1 that is sent: routed by host and path prefix.
    pub(crate) fn request(&self) -> Vec<u8> {
        let method = if self.request_bytes > 0 { "POST" } else { "GET" };
        let mut head =
            format!("{method} {PATH} HTTP/1.1\r\nHost: {HOST}\r\nUser-Agent: bench\r\nAccept: */*\r\n");
        if self.chain == Chain::Working {
            head += &format!("apikey: {}\r\n", super::plugins::KEY);
        }
        if self.request_bytes > 0 {
            head += &format!("Content-Length: {}\r\n", self.request_bytes);
        }
        if matches!(self.connections, Connections::New(_)) {
            head += "Connection: close\r\n";
        }
        let mut request = (head + "\r\n").into_bytes();
        request.resize(request.len() + self.request_bytes, b'x');
        request
    }
}
