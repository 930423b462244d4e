//! The connection between a gateway and a control plane elsewhere: TCP.
//!
//! With several control planes, each connection starts at the next one, so that a gateway never insists on one that
//! accepts connections and then does not answer.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::str::FromStr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use gatewright_gateway::{Connector, Io};
use tokio::net::TcpStream;

/// How long one control plane gets to accept a connection before the next one is tried.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Where a control plane answers gateways: `http://host:port`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ControlPlaneAddress {
    /// `host:port`.
    authority: String,
}

/// Why a text is no such address.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidAddress {
    #[error(
        "https:// control planes are not supported yet, they come with mutual TLS; use http:// on a private network"
    )]
    Https,
    #[error("write it as http://host:port")]
    Form,
}

impl FromStr for ControlPlaneAddress {
    type Err = InvalidAddress;

    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        let uri: ureq::http::Uri = text.parse().map_err(|_| InvalidAddress::Form)?;
        if uri.scheme_str() == Some("https") {
            return Err(InvalidAddress::Https);
        }
        let authority = uri.authority().ok_or(InvalidAddress::Form)?;
        let complete = uri.scheme_str() == Some("http")
            && authority.port_u16().is_some_and(|port| port > 0)
            && !authority.as_str().contains('@')
            && !authority.host().is_empty()
            && matches!(uri.path_and_query().map_or("", |rest| rest.as_str()), "" | "/");
        if complete {
            Ok(Self { authority: authority.as_str().to_owned() })
        } else {
            Err(InvalidAddress::Form)
        }
    }
}

/// Connects to the control planes in turn.
pub(crate) struct Remote {
    addresses: Vec<ControlPlaneAddress>,
    next: AtomicUsize,
}

impl Remote {
    /// A connector to `addresses`, of which there is at least one.
    pub(crate) fn new(addresses: Vec<ControlPlaneAddress>) -> Self {
        Self { addresses, next: AtomicUsize::new(0) }
    }

    async fn connect_to_any(&self) -> io::Result<Box<dyn Io>> {
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        let mut failure = io::Error::other("no control plane is given (--control-plane)");
        for offset in 0..self.addresses.len() {
            let address = &self.addresses[first.wrapping_add(offset) % self.addresses.len()];
            match connect(&address.authority).await {
                Ok(stream) => return Ok(Box::new(stream)),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }
}

async fn connect(authority: &str) -> io::Result<TcpStream> {
    let named = |error: io::Error| io::Error::new(error.kind(), format!("http://{authority}: {error}"));
    let late = || io::Error::new(io::ErrorKind::TimedOut, format!("no answer in {CONNECT_TIMEOUT:?}"));
    let connected = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(authority)).await;
    let stream = connected.unwrap_or_else(|_| Err(late())).map_err(named)?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

impl Connector for Remote {
    fn describe(&self) -> String {
        let urls: Vec<_> =
            self.addresses.iter().map(|address| format!("http://{}", address.authority)).collect();
        urls.join(", ")
    }

    fn connect(&self) -> Pin<Box<dyn Future<Output = io::Result<Box<dyn Io>>> + Send + '_>> {
        Box::pin(self.connect_to_any())
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn a_control_plane_is_written_as_http_host_and_port() {
        for (text, expected) in [
            ("http://127.0.0.1:7943", Ok("127.0.0.1:7943")),
            ("http://cp.example.com:7943/", Ok("cp.example.com:7943")),
            ("http://[::1]:7943", Ok("[::1]:7943")),
            ("https://cp.example.com:7943", Err(InvalidAddress::Https)),
            ("http://cp.example.com", Err(InvalidAddress::Form)),
            ("cp.example.com:7943", Err(InvalidAddress::Form)),
            ("http://cp.example.com:0", Err(InvalidAddress::Form)),
            ("http://cp.example.com:7943/sync", Err(InvalidAddress::Form)),
            ("http://user@cp.example.com:7943", Err(InvalidAddress::Form)),
            ("", Err(InvalidAddress::Form)),
        ] {
            let parsed = text.parse::<ControlPlaneAddress>().map(|address| address.authority);
            assert_eq!(parsed, expected.map(str::to_owned), "{text}");
        }
    }

    #[tokio::test]
    async fn a_control_plane_that_is_down_is_passed_over_and_all_of_them_take_turns() {
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let listeners = [
            TcpListener::bind("127.0.0.1:0").await.unwrap(),
            TcpListener::bind("127.0.0.1:0").await.unwrap(),
        ];
        let mut addresses = vec![format!("http://{closed}")];
        addresses
            .extend(listeners.iter().map(|listener| format!("http://{}", listener.local_addr().unwrap())));
        let remote = Remote::new(addresses.iter().map(|text| text.parse().unwrap()).collect());

        for expected in [0, 0, 1] {
            let _stream = remote.connect().await.map_err(|error| error.to_string()).unwrap();
            let answered = tokio::select! {
                _ = listeners[0].accept() => 0,
                _ = listeners[1].accept() => 1,
            };
            assert_eq!(answered, expected);
        }
    }

    #[tokio::test]
    async fn the_failure_names_the_control_plane() {
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let remote = Remote::new(vec![format!("http://{closed}").parse().unwrap()]);
        let error = remote.connect().await.err().expect("nobody listens").to_string();
        assert!(error.contains(&closed.to_string()), "{error}");
    }
}
