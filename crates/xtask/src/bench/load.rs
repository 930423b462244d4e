//! The load generator: a closed loop, each connection sending its next request when the answer of the previous one
//! is complete.
//!
//! Every answer is checked: status 200 and a body of the expected length. A connection that closes early, a failed
//! request and an answer that does not come in time fail the run, so that errors cannot look like speed.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use super::backend::{content_length, find_head_end};
use super::scenario::{Connections, Scenario};
use super::tls::Wire;

const STATUS_OK: [u8; 13] = *b"HTTP/1.1 200 ";
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
    request: Vec<u8>,
    answer_bytes: usize,
    tls: bool,
}

/// Sends requests for `length`.
pub(crate) fn run(target: SocketAddr, scenario: &Scenario, length: Duration) -> anyhow::Result<Load> {
    let (count, renews) = match scenario.connections {
        Connections::New(count) => (count, true),
        Connections::KeptAlive(count) | Connections::Idle(count) => (count, false),
    };
    let (request, tls) = (scenario.request(), scenario.tls);
    let plan = Plan { target, request, answer_bytes: scenario.answer_bytes, tls };
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
        client.send(&plan)?;
    }
    while start.elapsed() < length {
        poll.poll(&mut events, Some(SILENCE_MAX)).context("cannot poll")?;
        ensure!(!events.is_empty(), "no answer for {} s", SILENCE_MAX.as_secs());
        for event in &events {
            let index = event.token().0;
            if !clients[index].advance(&plan, &mut buffer)? {
                continue;
            }
            latencies.record(clients[index].began.elapsed());
            if renews {
                let began = Instant::now();
                clients[index] = Client::connect(&plan, &poll, index)?;
                clients[index].send(&plan)?;
                clients[index].began = began;
            } else {
                clients[index].send(&plan)?;
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
    let request = scenario.request();
    let mut answer = vec![0; READ_BYTES_MAX];
    let mut one = || -> anyhow::Result<_> {
        let stream = std::net::TcpStream::connect(target).context("cannot connect")?;
        stream.set_read_timeout(Some(SILENCE_MAX))?;
        let mut stream = Wire::new(stream, scenario.tls)?;
        stream.write_all(&request)?;
        let mut reading = Reading::default();
        loop {
            let count = stream.read(&mut answer)?;
            ensure!(count > 0, "the proxy closed a connection");
            if reading.take(&answer[..count], scenario.answer_bytes)? {
                return Ok(stream);
            }
        }
    };
    (0..count).map(|_| one()).collect()
}

/// Sends one request on a connection of its own; `false`: it was not answered with 200, for whatever reason.
pub(crate) fn is_served(target: SocketAddr, tls: bool) -> bool {
    let one = || -> anyhow::Result<()> {
        let stream = std::net::TcpStream::connect_timeout(&target, SILENCE_MAX)?;
        stream.set_read_timeout(Some(SILENCE_MAX))?;
        let mut stream = Wire::new(stream, tls)?;
        stream.write_all(&super::scenario::ALL[0].request())?;
        let mut status = [0; STATUS_OK.len()];
        stream.read_exact(&mut status)?;
        ensure!(status == STATUS_OK, "not 200");
        Ok(())
    };
    one().is_ok()
}

struct Client {
    stream: Wire<TcpStream>,
    sent: usize,
    reading: Reading,
    began: Instant,
}

impl Client {
    fn connect(plan: &Plan, poll: &Poll, index: usize) -> anyhow::Result<Self> {
        let stream = std::net::TcpStream::connect(plan.target).context("cannot connect")?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let mut stream = TcpStream::from_std(stream);
        // A handshake needs both directions; otherwise a request that fits into the send buffer needs no event to go on.
        let large = plan.tls || plan.request.len() > 16 * 1024;
        let interest = if large { Interest::READABLE | Interest::WRITABLE } else { Interest::READABLE };
        poll.registry().register(&mut stream, Token(index), interest)?;
        let stream = Wire::new(stream, plan.tls)?;
        Ok(Self { stream, sent: 0, reading: Reading::default(), began: Instant::now() })
    }

    fn send(&mut self, plan: &Plan) -> anyhow::Result<()> {
        self.began = Instant::now();
        self.sent = 0;
        self.reading = Reading { head: std::mem::take(&mut self.reading.head), body: None };
        self.reading.head.clear();
        self.continue_sending(plan)
    }

    fn continue_sending(&mut self, plan: &Plan) -> anyhow::Result<()> {
        while self.sent < plan.request.len() {
            match self.stream.write(&plan.request[self.sent..]) {
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error).context("cannot send a request"),
            }
        }
        Ok(())
    }

    /// Sends and reads what is possible; `true`: the answer is complete.
    fn advance(&mut self, plan: &Plan, buffer: &mut [u8]) -> anyhow::Result<bool> {
        self.continue_sending(plan)?;
        loop {
            let count = match self.stream.read(buffer) {
                Ok(0) => bail!("the proxy closed a connection"),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error).context("cannot read an answer"),
            };
            if self.reading.take(&buffer[..count], plan.answer_bytes)? {
                return Ok(true);
            }
        }
    }
}

/// An answer that arrives.
#[derive(Default)]
struct Reading {
    head: Vec<u8>,
    /// Bytes of body that came, once the head is complete.
    body: Option<usize>,
}

impl Reading {
    /// Takes more bytes; `true`: the answer is complete. An error if it can never become the expected one.
    fn take(&mut self, bytes: &[u8], body_bytes: usize) -> anyhow::Result<bool> {
        let have = match self.body {
            Some(have) => have + bytes.len(),
            None => {
                self.head.extend_from_slice(bytes);
                let Some(end) = find_head_end(&self.head) else { return Ok(false) };
                let head = &self.head[..end];
                if !head.starts_with(&STATUS_OK) || content_length(head) != Some(body_bytes) {
                    bail!("expected 200 with {body_bytes} bytes, got: {}", String::from_utf8_lossy(head));
                }
                self.head.len() - end
            }
        };
        self.body = Some(have);
        ensure!(have <= body_bytes, "{have} bytes of body instead of {body_bytes}");
        Ok(have == body_bytes)
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

    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};

    use super::super::scenario;
    use super::*;

    #[test]
    fn an_answer_is_complete_with_its_last_byte_and_wrong_ones_are_errors() {
        let answer = b"HTTP/1.1 200 OK\r\nServer: x\r\ncontent-LENGTH: 3\r\n\r\nabc";
        let mut reading = Reading::default();
        for (index, byte) in answer.iter().enumerate() {
            assert_eq!(reading.take(&[*byte], 3).unwrap(), index + 1 == answer.len(), "{index}");
        }
        let check = |bytes: &[u8], body| Reading::default().take(bytes, body);
        assert!(check(answer, 3).unwrap());
        assert!(check(answer, 4).is_err());
        assert!(check(b"HTTP/1.1 404 Not Found\r\nContent-Length: 3\r\n\r\nabc", 3).is_err());
        assert!(check(b"HTTP/1.1 200 OK\r\n\r\nabc", 3).is_err());
        assert!(check(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcd", 3).is_err());
    }

    #[test]
    fn the_percentile_is_the_first_time_that_covers_it() {
        let mut latencies = Latencies::default();
        (1..=200).for_each(|microseconds| latencies.record(Duration::from_micros(microseconds)));
        assert_eq!(latencies.percentile(990), Duration::from_micros(198));
        assert_eq!(latencies.percentile(500), Duration::from_micros(100));
        assert_eq!(Latencies::default().percentile(990), Duration::ZERO);
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
            let backend = super::super::backend::start(scenario.answer_bytes).unwrap();
            let backend = if scenario.tls { terminating_tls(backend) } else { backend };
            assert!(is_served(backend, scenario.tls));
            if let Connections::Idle(_) = scenario.connections {
                assert_eq!(idle(backend, scenario, 3).unwrap().len(), 3);
                continue;
            }
            // Handshakes of an executable that is not optimised take their time.
            let length = Duration::from_millis(if scenario.tls { 1500 } else { 50 });
            let load = run(backend, scenario, length).unwrap();
            assert!(load.requests > 0, "{}: {load:?}", scenario.name);
        }
    }
}
