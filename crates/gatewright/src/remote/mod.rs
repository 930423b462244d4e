//! The connection between a gateway and a control plane elsewhere: TLS, or TCP alone where both are on one machine.
//!
//! With several control planes, each connection starts at the next one, so that a gateway never insists on one that
//! accepts connections and then does not answer.

mod tls;

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::str::FromStr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use gatewright_gateway::{Connector, Io};
use gatewright_model::protocol::CONTROL_PLANE_NAME;
use rustls::pki_types::ServerName;
pub(crate) use tls::{CertificateFiles, Proof, TlsError};
use tokio::net::TcpStream;

/// How long one control plane gets to accept a connection, handshake included, before the next one is tried.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// From how long before its end on the log warns that a certificate runs out.
const EXPIRY_WARNING: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Where a control plane answers gateways: `https://host:port`, or on this machine `http://host:port`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ControlPlaneAddress {
    is_tls: bool,
    /// `host:port`.
    authority: String,
}

/// Why a text is no such address.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("write it as https://host:port")]
pub(crate) struct InvalidAddress;

impl FromStr for ControlPlaneAddress {
    type Err = InvalidAddress;

    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        let uri: ureq::http::Uri = text.parse().map_err(|_| InvalidAddress)?;
        let is_tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(InvalidAddress),
        };
        let authority = uri.authority().ok_or(InvalidAddress)?;
        let complete = authority.port_u16().is_some_and(|port| port > 0)
            && !authority.as_str().contains('@')
            && !authority.host().is_empty()
            && matches!(uri.path_and_query().map_or("", |rest| rest.as_str()), "" | "/");
        let authority = authority.as_str().to_owned();
        if complete { Ok(Self { is_tls, authority }) } else { Err(InvalidAddress) }
    }
}

impl std::fmt::Display for ControlPlaneAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}://{}", if self.is_tls { "https" } else { "http" }, self.authority)
    }
}

/// Connects to the control planes in turn.
pub(crate) struct Remote {
    addresses: Vec<ControlPlaneAddress>,
    next: AtomicUsize,
    proof: Proof,
}

impl Remote {
    /// A connector to `addresses`, of which there is at least one. Refused if `proof` does not do for them.
    pub(crate) fn new(addresses: Vec<ControlPlaneAddress>, proof: Proof) -> Result<Self, TlsError> {
        if matches!(proof, Proof::Certificate(_)) && addresses.iter().any(|address| !address.is_tls) {
            return Err(TlsError::PlainWithCertificate);
        }
        if addresses.iter().any(|address| address.is_tls) {
            proof.connector()?;
        }
        // Gateways that are started together begin with different ones.
        let next = AtomicUsize::new(fastrand::usize(..addresses.len().max(1)));
        Ok(Self { addresses, next, proof })
    }

    async fn connect_to_any(&self) -> io::Result<Box<dyn Io>> {
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        let mut failure = io::Error::other("no control plane is given (--control-plane)");
        for offset in 0..self.addresses.len() {
            let address = &self.addresses[first.wrapping_add(offset) % self.addresses.len()];
            let late =
                || io::Error::new(io::ErrorKind::TimedOut, format!("no answer in {CONNECT_TIMEOUT:?}"));
            let connected = tokio::time::timeout(CONNECT_TIMEOUT, self.connect_to(address)).await;
            match connected.unwrap_or_else(|_| Err(late())) {
                Ok(stream) => return Ok(stream),
                Err(error) => failure = io::Error::new(error.kind(), format!("{address}: {error}")),
            }
        }
        Err(failure)
    }

    async fn connect_to(&self, address: &ControlPlaneAddress) -> io::Result<Box<dyn Io>> {
        let stream = TcpStream::connect(&address.authority).await?;
        stream.set_nodelay(true)?;
        if !address.is_tls {
            return Ok(Box::new(stream));
        }
        // Not kept: the files of a certificate may have been replaced since.
        let tls = self.proof.connector().map_err(io::Error::other)?;
        let name = ServerName::try_from(CONTROL_PLANE_NAME).map_err(io::Error::other)?;
        let stream = tls.connect(name, stream).await?;
        self.warn_of_expiry();
        Ok(Box::new(stream))
    }

    fn warn_of_expiry(&self) {
        let Some(expires_at) = self.proof.expires_at() else { return };
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        let left = Duration::from_secs(expires_at.saturating_sub(now).max(0).unsigned_abs());
        if left < EXPIRY_WARNING {
            let days = left.as_secs() / (24 * 60 * 60);
            tracing::warn!(
                days,
                "the certificate of this gateway (--certificate) runs out; replace its files, no restart is needed"
            );
        }
    }
}

impl Connector for Remote {
    fn describe(&self) -> String {
        let urls: Vec<_> = self.addresses.iter().map(ToString::to_string).collect();
        urls.join(", ")
    }

    fn connect(&self) -> Pin<Box<dyn Future<Output = io::Result<Box<dyn Io>>> + Send + '_>> {
        Box::pin(self.connect_to_any())
    }

    fn is_near(&self) -> bool {
        // In the clear, a control plane talks to its own machine only.
        self.addresses.iter().all(|address| !address.is_tls)
    }

    fn certificate_expires_at(&self) -> Option<i64> {
        self.proof.expires_at()
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn a_control_plane_is_written_as_scheme_host_and_port() {
        for (text, expected) in [
            ("http://127.0.0.1:7943", Some("http://127.0.0.1:7943")),
            ("https://cp.example.com:7943/", Some("https://cp.example.com:7943")),
            ("https://[::1]:7943", Some("https://[::1]:7943")),
            ("ftp://cp.example.com:7943", None),
            ("https://cp.example.com", None),
            ("cp.example.com:7943", None),
            ("https://cp.example.com:0", None),
            ("https://cp.example.com:7943/sync", None),
            ("https://user@cp.example.com:7943", None),
            ("", None),
        ] {
            let parsed = text.parse::<ControlPlaneAddress>().ok().map(|address| address.to_string());
            assert_eq!(parsed.as_deref(), expected, "{text}");
        }
    }

    fn remote(addresses: &[String]) -> Remote {
        let addresses = addresses.iter().map(|text| text.parse().unwrap()).collect();
        Remote::new(addresses, Proof::Token("gwi-1".to_owned())).unwrap()
    }

    #[test]
    fn what_is_shown_must_do_for_every_address() {
        let addresses = |url: &str| vec![url.parse().unwrap()];
        let token = Remote::new(addresses("https://h:1"), Proof::Token("gwi-1".to_owned()));
        assert_eq!(token.err(), Some(TlsError::NoPin));
        let [certificate, key, authority] = ["c", "k", "a"].map(std::path::PathBuf::from);
        let proof = Proof::Certificate(CertificateFiles { certificate, key, authority });
        let plain = Remote::new(addresses("http://h:1"), proof);
        assert_eq!(plain.err(), Some(TlsError::PlainWithCertificate));
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
        let remote = remote(&addresses);
        remote.next.store(0, Ordering::Relaxed);

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
        let remote = remote(&[format!("http://{closed}")]);
        let error = remote.connect().await.err().expect("nobody listens").to_string();
        assert!(error.contains(&closed.to_string()), "{error}");
    }
}
