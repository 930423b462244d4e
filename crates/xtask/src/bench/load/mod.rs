//! The load generator: a closed loop, each connection sending its next request when the answer of the previous one
//! is complete.
//!
//! Every answer is checked: status 200 and a body of the expected length. A connection that closes early, a failed
//! request and an answer that does not come in time fail the run, so that errors cannot look like speed.

mod http1;
mod http2;

use std::borrow::Cow;
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use super::backend::find_head_end;
use super::scenario::{Connections, Protocol, Scenario};
use super::tls::Wire;
use super::websocket;

/// After this long without any answer on any connection, the run has failed.
const SILENCE_MAX: Duration = Duration::from_secs(5);
const READ_BYTES_MAX: usize = 256 * 1024;

/// What a run of load brought.
#[derive(Debug)]
pub(crate) struct Load {
    pub(crate) requests: u64,
    pub(crate) elapsed: Duration,
    /// The times within which 50, 99 and 99.9 of 100 requests were answered.
    pub(crate) latencies: [Duration; 3],
}

/// What every client sends and expects.
struct Plan {
    target: SocketAddr,
    protocol: Protocol,
    request: Vec<u8>,
    answer_bytes: usize,
    /// Whether a connection is for one request only.
    renews: bool,
    tls: bool,
}

impl Plan {
    fn of(scenario: &Scenario, target: SocketAddr) -> Self {
        Self {
            target,
            protocol: scenario.protocol,
            request: match scenario.protocol {
                Protocol::Http1 | Protocol::Http2 { .. } => scenario.request(),
                Protocol::WebSocket => websocket::from_client(),
            },
            answer_bytes: scenario.answer_bytes,
            renews: matches!(scenario.connections, Connections::New(_)),
            tls: scenario.tls,
        }
    }
}

/// Sends requests for `length`.
pub(crate) fn run(target: SocketAddr, scenario: &Scenario, length: Duration) -> anyhow::Result<Load> {
    let (Connections::New(count) | Connections::KeptAlive(count) | Connections::Idle(count)) =
        scenario.connections;
    let plan = Plan::of(scenario, target);
    let mut poll = Poll::new().context("cannot poll")?;
    let mut clients = Vec::with_capacity(count);
    for index in 0..count {
        clients.push(Client::connect(&plan, &poll, index)?);
    }
    let mut latencies = Latencies::default();
    let mut buffer = vec![0; READ_BYTES_MAX];
    let mut events = Events::with_capacity(count.max(16));
    let start = Instant::now();
    for client in &mut clients {
        client.continue_sending()?;
    }
    while start.elapsed() < length {
        poll.poll(&mut events, Some(SILENCE_MAX)).context("cannot poll")?;
        ensure!(!events.is_empty(), "no answer for {} s", SILENCE_MAX.as_secs());
        for event in &events {
            let index = event.token().0;
            let before = latencies.count;
            clients[index].advance(&plan, &mut buffer, &mut |took| latencies.record(took))?;
            if plan.renews && latencies.count > before {
                clients[index] = Client::connect(&plan, &poll, index)?;
                clients[index].continue_sending()?;
            }
        }
    }
    let at = |share| latencies.percentile(share);
    Ok(Load { requests: latencies.count, elapsed: start.elapsed(), latencies: [at(500), at(990), at(999)] })
}

/// Opens `count` connections, each answered once and then left alone for as long as the value lives.
pub(crate) fn idle(
    target: SocketAddr,
    scenario: &Scenario,
    count: usize,
) -> anyhow::Result<Vec<Wire<std::net::TcpStream>>> {
    let plan = Plan::of(scenario, target);
    (0..count).map(|_| answered_once(&plan)).collect()
}

/// Whether a connection of its own is answered as the scenario expects it; if not, for whatever reason.
pub(crate) fn is_served(target: SocketAddr, scenario: &Scenario) -> bool {
    answered_once(&Plan::of(scenario, target)).is_ok()
}

/// A connection that waits, after its first answer.
fn answered_once(plan: &Plan) -> anyhow::Result<Wire<std::net::TcpStream>> {
    let stream = std::net::TcpStream::connect_timeout(&plan.target, SILENCE_MAX).context("cannot connect")?;
    stream.set_read_timeout(Some(SILENCE_MAX))?;
    // A request right behind the end of a handshake would wait for its acknowledgement, ten thousand times.
    stream.set_nodelay(true)?;
    let mut stream = Wire::new(stream, plan.tls)?;
    let (mut talk, mut out) = Talk::begin(plan);
    let mut buffer = vec![0; READ_BYTES_MAX];
    let mut answers = 0;
    while answers == 0 {
        stream.write_all(&std::mem::take(&mut out))?;
        let count = stream.read(&mut buffer)?;
        ensure!(count > 0, "the proxy closed a connection");
        talk.take(plan, &buffer[..count], &mut out, &mut |_| answers += 1)?;
    }
    Ok(stream)
}

/// A connection, and what is on its way out.
struct Client<'plan> {
    stream: Wire<TcpStream>,
    out: Cow<'plan, [u8]>,
    sent: usize,
    talk: Talk,
}

impl<'plan> Client<'plan> {
    fn connect(plan: &'plan Plan, poll: &Poll, index: usize) -> anyhow::Result<Self> {
        let (talk, out) = Talk::begin(plan);
        let stream = std::net::TcpStream::connect(plan.target).context("cannot connect")?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let mut stream = TcpStream::from_std(stream);
        // A handshake needs both directions; otherwise what fits into the send buffer needs no event to go on.
        let large = plan.tls || plan.request.len() > 16 * 1024;
        let interest = if large { Interest::READABLE | Interest::WRITABLE } else { Interest::READABLE };
        poll.registry().register(&mut stream, Token(index), interest)?;
        Ok(Self { stream: Wire::new(stream, plan.tls)?, out, sent: 0, talk })
    }

    fn continue_sending(&mut self) -> anyhow::Result<()> {
        while self.sent < self.out.len() {
            match self.stream.write(&self.out[self.sent..]) {
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error).context("cannot send a request"),
            }
        }
        self.out = Cow::Borrowed(&[]);
        self.sent = 0;
        Ok(())
    }

    /// Sends and reads what is possible; `done` is told of each answer that is complete, and how long it took.
    fn advance(
        &mut self,
        plan: &'plan Plan,
        buffer: &mut [u8],
        done: &mut dyn FnMut(Duration),
    ) -> anyhow::Result<()> {
        self.continue_sending()?;
        loop {
            let count = match self.stream.read(buffer) {
                Ok(0) => bail!("the proxy closed a connection"),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error).context("cannot read an answer"),
            };
            let progress = self.talk.take(plan, &buffer[..count], &mut self.out, done)?;
            self.continue_sending()?;
            // Nothing follows a last byte that was read, and more bytes raise a new event: another read would only
            // be told to wait. With TLS a read that falls short says nothing.
            if progress == Progress::Drained || (count < buffer.len() && !plan.tls) {
                return Ok(());
            }
        }
    }
}

/// What a client has of the answers it waits for.
enum Talk {
    Http1 { reading: http1::Reading, began: Instant },
    Http2(http2::Session),
    WebSocket { opening: Option<Vec<u8>>, left: usize, began: Instant },
}

/// Whether more may be there to read.
#[derive(PartialEq, Eq)]
enum Progress {
    Open,
    Drained,
}

impl Talk {
    /// A connection's first bytes, and what awaits their answer.
    fn begin(plan: &Plan) -> (Self, Cow<'_, [u8]>) {
        let began = Instant::now();
        match plan.protocol {
            Protocol::Http1 => {
                (Self::Http1 { reading: http1::Reading::default(), began }, Cow::Borrowed(&plan.request))
            }
            Protocol::Http2 { streams } => {
                let mut out = Vec::new();
                (Self::Http2(http2::Session::open(streams, &mut out)), Cow::Owned(out))
            }
            Protocol::WebSocket => {
                let talk = Self::WebSocket { opening: Some(Vec::new()), left: 0, began };
                (talk, Cow::Owned(websocket::request()))
            }
        }
    }

    /// Takes what arrived; what is to be sent next goes into `out`.
    fn take<'plan>(
        &mut self,
        plan: &'plan Plan,
        bytes: &[u8],
        out: &mut Cow<'plan, [u8]>,
        done: &mut dyn FnMut(Duration),
    ) -> anyhow::Result<Progress> {
        match self {
            Self::Http1 { reading, began } => {
                if !reading.take(bytes, plan.answer_bytes)? {
                    return Ok(Progress::Open);
                }
                done(began.elapsed());
                if !plan.renews {
                    reading.clear();
                    (*began, *out) = (Instant::now(), Cow::Borrowed(plan.request.as_slice()));
                }
                Ok(Progress::Drained)
            }
            Self::Http2(session) => {
                session.take(bytes, plan.answer_bytes, out.to_mut(), done)?;
                Ok(Progress::Open)
            }
            Self::WebSocket { opening: opening @ Some(_), left, began } => {
                let head = opening.get_or_insert_default();
                head.extend_from_slice(bytes);
                let Some(end) = find_head_end(head) else { return Ok(Progress::Open) };
                let upgraded = head.starts_with(b"HTTP/1.1 101 ") && end == head.len();
                ensure!(upgraded, "expected 101, got: {}", String::from_utf8_lossy(head));
                (*began, *out) = (Instant::now(), Cow::Borrowed(plan.request.as_slice()));
                *left = websocket::FROM_SERVER_BYTES;
                *opening = None;
                Ok(Progress::Drained)
            }
            Self::WebSocket { opening: None, left, began } => {
                ensure!(bytes.len() <= *left, "{} bytes more than one message", bytes.len() - *left);
                *left -= bytes.len();
                if *left > 0 {
                    return Ok(Progress::Open);
                }
                done(began.elapsed());
                *left = websocket::FROM_SERVER_BYTES;
                (*began, *out) = (Instant::now(), Cow::Borrowed(plan.request.as_slice()));
                Ok(Progress::Drained)
            }
        }
    }
}

/// How many requests took how many microseconds.
#[derive(Default)]
struct Latencies {
    count: u64,
    by_microseconds: Vec<u64>,
}

impl Latencies {
    fn record(&mut self, latency: Duration) {
        // Runs last minutes at most, and silence ends one after seconds.
        let index = usize::try_from(latency.as_micros()).unwrap_or(usize::MAX).min(10_000_000);
        if index >= self.by_microseconds.len() {
            self.by_microseconds.resize(index + 1, 0);
        }
        self.by_microseconds[index] += 1;
        self.count += 1;
    }

    fn percentile(&self, per_mille: u64) -> Duration {
        let wanted = (self.count * per_mille).div_ceil(1000);
        let mut seen = 0;
        let reached = self.by_microseconds.iter().position(|count| {
            seen += count;
            seen >= wanted
        });
        Duration::from_micros(reached.unwrap_or_default() as u64)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};

    use super::super::backend::content_length;
    use super::super::scenario;
    use super::*;

    #[test]
    fn the_percentile_is_the_first_time_that_covers_it() {
        let mut latencies = Latencies::default();
        (1..=200).for_each(|microseconds| latencies.record(Duration::from_micros(microseconds)));
        assert_eq!(latencies.percentile(990), Duration::from_micros(198));
        assert_eq!(latencies.percentile(500), Duration::from_micros(100));
        assert_eq!(Latencies::default().percentile(990), Duration::ZERO);
    }

    /// An address where HTTP/2 is answered.
    fn speaking_http2(answer_bytes: usize) -> SocketAddr {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        listener.set_nonblocking(true).unwrap();
        let answer = async move |mut connection: h2::server::Connection<tokio::net::TcpStream, Bytes>| {
            while let Some(Ok((_, mut respond))) = connection.accept().await {
                let mut body = respond.send_response(http::Response::new(()), false).unwrap();
                body.send_data(vec![b'x'; answer_bytes].into(), true).unwrap();
            }
        };
        let serve = async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(async move {
                    if let Ok(connection) = h2::server::handshake(stream).await {
                        answer(connection).await;
                    }
                });
            }
        };
        std::thread::spawn(|| {
            tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(serve);
        });
        address
    }

    /// An address where TLS ends on the way to `backend`.
    fn terminating_tls(backend: SocketAddr) -> SocketAddr {
        let folder = tempfile::tempdir().unwrap();
        let files = super::super::tls::Files::make(folder.path()).unwrap();
        let certificate = CertificateDer::from_pem_file(files.certificate).unwrap();
        let key = PrivateKeyDer::from_pem_file(files.key).unwrap();
        let config =
            rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
        let config = config.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
        let config = Arc::new(config.with_single_cert(vec![certificate], key).unwrap());
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let session = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
                let mut client = rustls::StreamOwned::new(session, stream.unwrap());
                std::thread::spawn(move || {
                    let mut node = std::net::TcpStream::connect(backend).unwrap();
                    let mut buffer = vec![0; READ_BYTES_MAX];
                    // One request fits into one read, and its answer is read until it is complete.
                    while let Ok(count @ 1..) = client.read(&mut buffer) {
                        node.write_all(&buffer[..count]).unwrap();
                        let mut head = Vec::new();
                        let mut left = None;
                        while left != Some(0) {
                            let count = node.read(&mut buffer).unwrap();
                            client.write_all(&buffer[..count]).unwrap();
                            head.extend_from_slice(&buffer[..count]);
                            let end = find_head_end(&head);
                            left = end.map(|end| end + content_length(&head[..end]).unwrap() - head.len());
                        }
                    }
                });
            }
        });
        address
    }

    #[test]
    fn load_of_every_scenario_is_answered_by_the_backend() {
        for scenario in scenario::ALL {
            let backend = super::super::backend::start(scenario).unwrap();
            let target = match scenario.protocol {
                Protocol::Http2 { .. } => speaking_http2(scenario.answer_bytes),
                Protocol::Http1 | Protocol::WebSocket if scenario.tls => terminating_tls(backend),
                Protocol::Http1 | Protocol::WebSocket => backend,
            };
            assert!(is_served(target, scenario), "{}", scenario.name);
            if let Connections::Idle(_) = scenario.connections {
                assert_eq!(idle(target, scenario, 3).unwrap().len(), 3);
                continue;
            }
            // Handshakes of an executable that is not optimised take their time.
            let length = Duration::from_millis(if scenario.tls { 1500 } else { 50 });
            let load = run(target, scenario, length).unwrap();
            assert!(load.requests > 0, "{}: {load:?}", scenario.name);
        }
    }
}
