//! From an accepted TCP connection to a TLS session, in bounded time.
//!
//! The server name is read before anything is decided, so that each name has its own certificates and demands.
//! Whoever sends something else than TLS, an unknown name, or nothing at all gets an alert where one is defined, is
//! closed, and counted by reason; other connections do not notice.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustls::pki_types::UnixTime;
use rustls::server::{Accepted, Acceptor};
use rustls::{ProtocolVersion, ServerConfig};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::{LazyConfigAcceptor, StartHandshake};

use super::Shared;
use super::client_certificate::{ClientIdentity, ClientPolicy};
use super::server_names::{ServerNames, Shown};
use crate::transport::{Tls, Transport};
use crate::worker::Worker;
use crate::worker::timer::{Timer, ticks};

/// How long the first message of a client may take: it needs nothing from us, so only the slow and the silent pass it.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a handshake may take in total.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// The fatal alert `unrecognized_name` (RFC 6066 section 3) as a record: at this point no TLS version is agreed.
const ALERT_NAME_UNKNOWN: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];

/// What is known of a TLS session.
#[derive(Debug)]
pub(crate) struct Session {
    /// The server name the client asked for, in lower case.
    pub(crate) server_name: Option<Box<str>>,
    pub(crate) version: &'static str,
    pub(crate) cipher: &'static str,
    /// What the client's certificate was judged by; absent: none was asked for.
    pub(super) policy: Option<Arc<ClientPolicy>>,
    pub(crate) client: ClientIdentity,
}

/// Why a handshake came to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The client was silent or slow.
    Timeout,
    /// The client left.
    Closed,
    /// No certificate is for the server name the client asked for, or it asked for none.
    NameUnknown,
    /// What the client sent is no TLS, or no TLS that is spoken here.
    Refused,
}

impl Failure {
    const ALL: [Self; 4] = [Self::Timeout, Self::Closed, Self::NameUnknown, Self::Refused];

    /// The name by which logs and metrics know it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Closed => "closed",
            Self::NameUnknown => "name_unknown",
            Self::Refused => "refused",
        }
    }
}

/// How many handshakes came to nothing, by reason. Shared by the workers: failures are not what must be fast.
#[derive(Default)]
pub(crate) struct Failures([AtomicU64; Failure::ALL.len()]);

impl Failures {
    fn note(&self, failure: Failure) {
        self.0[failure as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Each reason and its count.
    pub(crate) fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Failure::ALL
            .into_iter()
            .zip(&self.0)
            .map(|(failure, count)| (failure.name(), count.load(Ordering::Relaxed)))
    }
}

/// Shakes hands with a client; `None`: it was closed, and counted.
pub(crate) async fn accept(
    worker: &Worker,
    stream: TcpStream,
    peer: SocketAddr,
) -> Option<(Transport, Box<Session>)> {
    noted(worker, peer, "a TLS handshake failed", shake_hands(worker, stream).await)
}

/// Shakes hands with a client of a stream that has said hello, and asks for this server name; `None`: it was closed,
/// and counted.
pub(crate) async fn finish(
    worker: &Worker,
    (accepted, server_name): (Accepted, Option<String>),
    stream: TcpStream,
    peer: SocketAddr,
) -> Option<Transport> {
    let hello = StartHandshake::from_parts(accepted, stream);
    let shaken = shake_hands_of_stream(worker, (hello, server_name)).await;
    noted(worker, peer, "a TLS handshake of a stream failed", shaken)
}

type Failed = (Failure, Option<io::Error>);

/// What came of a handshake; a failure is counted.
fn noted<T>(worker: &Worker, peer: SocketAddr, what: &str, done: Result<T, Failed>) -> Option<T> {
    let note = |(failure, error): Failed| {
        worker.tls.failures.note(failure);
        let error = error.map(|error| error.to_string());
        tracing::debug!(client = %peer, reason = failure.name(), error, "{what}");
    };
    done.map_err(note).ok()
}

/// Nobody looks at who a client of a stream is later, so who must prove it and does not is refused here.
async fn shake_hands_of_stream(worker: &Worker, hello: Hello) -> Result<Transport, Failed> {
    let deadline = worker.clock.now().saturating_add(ticks(HANDSHAKE_TIMEOUT));
    let limit = (&worker.clock.timer(), deadline);
    let (transport, session) = answer(worker, hello, limit, Shown::stream_config).await?;
    match session.client {
        _ if session.policy.is_none() => Ok(transport),
        ClientIdentity::Verified(_) => Ok(transport),
        ClientIdentity::None | ClientIdentity::Refused(..) => Err((Failure::Refused, None)),
    }
}

async fn shake_hands(worker: &Worker, stream: TcpStream) -> Result<(Transport, Box<Session>), Failed> {
    let timer = worker.clock.timer();
    let deadline = worker.clock.now().saturating_add(ticks(HANDSHAKE_TIMEOUT));
    let hello = LazyConfigAcceptor::new(Acceptor::default(), stream);
    // Until the client has said hello the connection is idle, and a stopping worker may close it.
    let hello = timer.limit_idle(HELLO_TIMEOUT, hello).await.map_err(|_| (Failure::Timeout, None))?;
    let hello = hello.map_err(failed)?;
    let server_name = hello.client_hello().server_name().map(str::to_ascii_lowercase);
    let (transport, session) =
        answer(worker, (hello, server_name), (&timer, deadline), |shown| &shown.config).await?;
    Ok((transport, Box::new(session)))
}

/// A client that has said hello, and the server name it asks for.
type Hello = (StartHandshake<TcpStream>, Option<String>);

/// Ends the handshake with what is shown to those who ask for this name, until `deadline`.
async fn answer(
    worker: &Worker,
    (mut hello, server_name): Hello,
    (timer, deadline): (&Timer, u64),
    config_of: fn(&Shown) -> &Arc<ServerConfig>,
) -> Result<(Transport, Session), Failed> {
    let live = worker.live.take();
    let Some(shown) = find(&live.server_names, server_name.as_deref(), &worker.tls) else {
        let _ = timer.until(deadline, hello.io.write_all(&ALERT_NAME_UNKNOWN)).await;
        return Err((Failure::NameUnknown, None));
    };
    let (config, policy) = (Arc::clone(config_of(shown)), shown.policy.clone());
    drop(live);
    let shaken = timer.until(deadline, hello.into_stream(config)).await;
    let stream = shaken.map_err(|_| (Failure::Timeout, None))?.map_err(failed)?;
    let session = session(server_name, policy, stream.get_ref().1, &worker.tls);
    Ok((Transport::tls(Tls::from(stream)), session))
}

/// What is shown to a client that asks for `name`; one that names nothing is taken to mean the fallback.
fn find<'n>(names: &'n ServerNames, name: Option<&str>, shared: &Shared) -> Option<&'n Arc<Shown>> {
    names.find(name.or(shared.fallback_server_name.as_deref()))
}

fn failed(error: io::Error) -> Failed {
    let failure = match error.kind() {
        io::ErrorKind::InvalidData => Failure::Refused,
        _ => Failure::Closed,
    };
    (failure, Some(error))
}

fn session(
    server_name: Option<String>,
    policy: Option<Arc<ClientPolicy>>,
    connection: &rustls::ServerConnection,
    shared: &Shared,
) -> Session {
    let version = match connection.protocol_version() {
        Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
        _ => "TLSv1.2",
    };
    let suite = connection.negotiated_cipher_suite().and_then(|suite| suite.suite().as_str());
    let shown = connection.peer_certificates().unwrap_or_default();
    let algorithms = &shared.provider.signature_verification_algorithms;
    let client = policy.as_ref().map(|policy| policy.identify(shown, algorithms, UnixTime::now()));
    Session {
        server_name: server_name.map(String::into_boxed_str),
        version,
        cipher: suite.unwrap_or_default(),
        policy,
        client: client.unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;
    use tokio::time::{Instant, interval};

    use super::*;
    use crate::worker::timer::TICK;

    /// Seconds until a client is closed that sends `said` and then one more byte every `pause`; time passes as fast
    /// as everybody waits.
    fn closed_after(
        names: &Arc<ServerNames>,
        said: &[u8],
        pause: Duration,
    ) -> (u64, Vec<(&'static str, u64)>) {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        let local = tokio::task::LocalSet::new();
        local.block_on(&runtime, async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let (stream, peer) = listener.accept().await.unwrap();
            let worker = Rc::new(Worker::showing(Arc::clone(names)));
            let ticking = Rc::clone(&worker);
            tokio::task::spawn_local(async move {
                let mut ticks = interval(TICK);
                loop {
                    ticks.tick().await;
                    ticking.clock.tick();
                }
            });
            client.write_all(said).await.unwrap();
            let started = Instant::now();
            let done = Rc::new(Cell::new(false));
            let finished = Rc::clone(&done);
            let accepting = Rc::clone(&worker);
            tokio::task::spawn_local(async move {
                assert!(accept(&accepting, stream, peer).await.is_none());
                finished.set(true);
            });
            while !done.get() {
                tokio::time::sleep(pause).await;
                let _ = client.write_all(&[0]).await;
            }
            let seconds = started.elapsed().as_secs();
            let _ = client.read_to_end(&mut Vec::new()).await;
            let counts = worker.tls.failures.counts().filter(|(_, count)| *count > 0).collect();
            (seconds, counts)
        })
    }

    #[test]
    fn d2_c7_who_says_nothing_or_half_a_hello_or_says_it_slowly_is_closed_in_five_seconds() {
        let never = Duration::from_millis(500);
        let half = b"\x16\x03\x01\x00\xff\x01\x00\x00\xfb\x03\x03";
        for (said, pause) in
            [(&b""[..], Duration::from_secs(6)), (half, Duration::from_secs(6)), (half, never)]
        {
            let (seconds, counts) = closed_after(&Arc::default(), said, pause);
            assert!((5..=6).contains(&seconds), "{said:?} after {seconds} s");
            assert_eq!(counts, [("timeout", 1)]);
        }
    }

    #[test]
    fn who_says_hello_and_nothing_more_is_closed_in_ten_seconds() {
        let (names, config) = crate::tls::testing::shown_for("a.example");
        let mut client = rustls::ClientConnection::new(config, "a.example".try_into().unwrap()).unwrap();
        let mut hello = Vec::new();
        client.write_tls(&mut hello).unwrap();
        let (seconds, counts) = closed_after(&names, &hello, Duration::from_secs(11));
        assert!((10..=11).contains(&seconds), "after {seconds} s");
        assert_eq!(counts, [("timeout", 1)]);
    }
}
