//! Bytes that plugins send to those who do not answer: over TCP, TLS or UDP, or into a file.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use gatewright_plugins::outbound::{Address, Destination, Failure};
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::net::UdpSocket;

use super::connecting::{Demands, connect, looked_up, unreachable};
use crate::config::DeniedNetworks;
use crate::tls;

/// How long looking up a name may take where a destination has no limit of its own.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);

/// Passes `bytes` on to `destination`.
pub(super) async fn deliver(
    destination: &Destination,
    bytes: Bytes,
    (tls, denied): (&tls::Shared, &DeniedNetworks),
    #[cfg(feature = "kafka")] topics: &super::kafka::Producers,
) -> Result<(), Failure> {
    match destination {
        Destination::Stream { to, tls: over_tls, server_name, timeout } => {
            // What a log server shows was never verified by these plugins.
            let demands =
                over_tls.then(|| Demands { name: server_name.as_deref().unwrap_or(&to.host), verify: false });
            let writing = async { write_all(connect(to, demands, (tls, denied)).await?, &bytes).await };
            tokio::time::timeout(*timeout, writing).await.unwrap_or(Err(Failure::TimedOut))
        }
        Destination::Datagram(to) => {
            let sending = send(to, &bytes, denied);
            tokio::time::timeout(LOOKUP_TIMEOUT, sending).await.unwrap_or(Err(Failure::TimedOut))
        }
        Destination::File(path) => {
            let path = path.clone();
            let appending = tokio::task::spawn_blocking(move || append(&path, &bytes));
            appending.await.unwrap_or_else(|error| Err(unreachable(error)))
        }
        #[cfg(feature = "kafka")]
        Destination::Topic(topic) => topics.write(topic, &bytes).await,
        #[cfg(not(feature = "kafka"))]
        Destination::Topic(_) => {
            Err(Failure::Unsendable("this executable was built without the feature `kafka`".to_owned()))
        }
    }
}

async fn write_all(mut stream: impl AsyncWrite + Unpin, bytes: &[u8]) -> Result<(), Failure> {
    stream.write_all(bytes).await.map_err(unreachable)?;
    stream.shutdown().await.map_err(unreachable)
}

async fn send(to: &Address, bytes: &[u8], denied: &DeniedNetworks) -> Result<(), Failure> {
    let addresses = looked_up(to, denied).await?;
    let address = *addresses.first().ok_or_else(|| unreachable("the name has no address"))?;
    let any: SocketAddr = match address {
        SocketAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
        SocketAddr::V6(_) => ([0_u16; 8], 0).into(),
    };
    let socket = UdpSocket::bind(any).await.map_err(unreachable)?;
    socket.send_to(bytes, address).await.map(drop).map_err(unreachable)
}

/// The file is opened each time: one that was renamed is made anew.
fn append(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let place = |error: std::io::Error| Failure::Unreachable(format!("{}: {error}", path.display()));
    let mut file = OpenOptions::new().append(true).create(true).open(path).map_err(place)?;
    file.write_all(bytes).map_err(place)
}
