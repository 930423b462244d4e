//! The load generator: a closed loop on keep-alive connections, each sending its next request when the answer of
//! the previous one is complete.
//!
//! Every answer is checked: status 200 and a body of the expected length. A connection that closes, a failed
//! request and an answer that does not come in time fail the run, so that errors cannot look like speed.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use super::backend::find_head_end;

/// The request every peer gets: routed by host and path prefix.
const REQUEST: &[u8] =
    b"GET /store/pets/1 HTTP/1.1\r\nHost: petstore.example.com\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n";
const STATUS_OK: [u8; 13] = *b"HTTP/1.1 200 ";
/// After this long without any answer on any connection, the run has failed.
const SILENCE_MAX: Duration = Duration::from_secs(5);
const READ_BYTES_MAX: usize = 64 * 1024;

/// What a run of load brought.
#[derive(Debug)]
pub(crate) struct Load {
    pub(crate) requests: u64,
    pub(crate) elapsed: Duration,
    /// The time within which 99 of 100 requests were answered.
    pub(crate) slow: Duration,
}

/// Sends requests over `connections` connections for `length`.
pub(crate) fn run(
    target: SocketAddr,
    connections: usize,
    body_bytes: usize,
    length: Duration,
) -> anyhow::Result<Load> {
    let mut poll = Poll::new().context("cannot poll")?;
    let mut clients = Vec::with_capacity(connections);
    for index in 0..connections {
        let mut client = Client::connect(target)?;
        poll.registry().register(&mut client.stream, Token(index), Interest::READABLE)?;
        clients.push(client);
    }
    let mut latencies = Latencies::default();
    let mut buffer = vec![0; READ_BYTES_MAX];
    let mut events = Events::with_capacity(connections.max(16));
    let start = Instant::now();
    for client in &mut clients {
        client.send()?;
    }
    while start.elapsed() < length {
        poll.poll(&mut events, Some(SILENCE_MAX)).context("cannot poll")?;
        ensure!(!events.is_empty(), "no answer for {} s", SILENCE_MAX.as_secs());
        for event in &events {
            let client = &mut clients[event.token().0];
            if client.read(&mut buffer, body_bytes)? {
                latencies.record(client.sent.elapsed());
                client.send()?;
            }
        }
    }
    Ok(Load { requests: latencies.count, elapsed: start.elapsed(), slow: latencies.percentile(99) })
}

/// Sends one request on a connection of its own; `false`: it was not answered with 200, for whatever reason.
pub(crate) fn is_served(target: SocketAddr) -> bool {
    let one = || -> anyhow::Result<()> {
        let mut stream = std::net::TcpStream::connect_timeout(&target, SILENCE_MAX)?;
        stream.set_read_timeout(Some(SILENCE_MAX))?;
        stream.write_all(REQUEST)?;
        let mut status = [0; STATUS_OK.len()];
        stream.read_exact(&mut status)?;
        ensure!(status == STATUS_OK, "not 200");
        Ok(())
    };
    one().is_ok()
}

struct Client {
    stream: TcpStream,
    answer: Vec<u8>,
    sent: Instant,
}

impl Client {
    fn connect(target: SocketAddr) -> anyhow::Result<Self> {
        let stream = std::net::TcpStream::connect(target).context("cannot connect")?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let stream = TcpStream::from_std(stream);
        Ok(Self { stream, answer: Vec::with_capacity(READ_BYTES_MAX), sent: Instant::now() })
    }

    fn send(&mut self) -> anyhow::Result<()> {
        self.sent = Instant::now();
        // The send buffer is empty, since the previous request was answered: it is taken whole or something broke.
        let count = self.stream.write(REQUEST).context("cannot send a request")?;
        ensure!(count == REQUEST.len(), "a request was only sent in part");
        Ok(())
    }

    /// Reads what is there; `true`: the answer is complete.
    fn read(&mut self, buffer: &mut [u8], body_bytes: usize) -> anyhow::Result<bool> {
        loop {
            let count = match self.stream.read(buffer) {
                Ok(0) => bail!("the proxy closed a connection"),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error).context("cannot read an answer"),
            };
            self.answer.extend_from_slice(&buffer[..count]);
            if is_complete(&self.answer, body_bytes)? {
                self.answer.clear();
                return Ok(true);
            }
        }
    }
}

/// Whether `bytes` are one whole answer; an error if they can never become the expected one.
fn is_complete(bytes: &[u8], body_bytes: usize) -> anyhow::Result<bool> {
    let Some(head_end) = find_head_end(bytes) else { return Ok(false) };
    let head = &bytes[..head_end];
    if !head.starts_with(&STATUS_OK) || content_length(head) != Some(body_bytes) {
        bail!("expected 200 with {body_bytes} bytes, got: {}", String::from_utf8_lossy(bytes));
    }
    let have = bytes.len() - head_end;
    ensure!(have <= body_bytes, "{have} bytes of body instead of {body_bytes}");
    Ok(have == body_bytes)
}

fn content_length(head: &[u8]) -> Option<usize> {
    const NAME: &[u8] = b"content-length:";
    let mut lines = head.split(|byte| *byte == b'\n');
    let line = lines.find(|line| line.len() > NAME.len() && line[..NAME.len()].eq_ignore_ascii_case(NAME))?;
    std::str::from_utf8(&line[NAME.len()..]).ok()?.trim().parse().ok()
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

    fn percentile(&self, percent: u64) -> Duration {
        let wanted = (self.count * percent).div_ceil(100);
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
    use super::*;

    #[test]
    fn an_answer_is_complete_with_its_last_byte_and_wrong_ones_are_errors() {
        let answer = b"HTTP/1.1 200 OK\r\nServer: x\r\ncontent-LENGTH: 3\r\n\r\nabc";
        for cut in 0..answer.len() {
            assert!(!is_complete(&answer[..cut], 3).unwrap(), "{cut}");
        }
        assert!(is_complete(answer, 3).unwrap());
        assert!(is_complete(answer, 4).is_err());
        assert!(is_complete(b"HTTP/1.1 404 Not Found\r\nContent-Length: 3\r\n\r\nabc", 3).is_err());
        assert!(is_complete(b"HTTP/1.1 200 OK\r\n\r\nabc", 3).is_err());
        assert!(is_complete(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcd", 3).is_err());
    }

    #[test]
    fn the_percentile_is_the_first_time_that_covers_it() {
        let mut latencies = Latencies::default();
        (1..=200).for_each(|microseconds| latencies.record(Duration::from_micros(microseconds)));
        assert_eq!(latencies.percentile(99), Duration::from_micros(198));
        assert_eq!(latencies.percentile(50), Duration::from_micros(100));
        assert_eq!(Latencies::default().percentile(99), Duration::ZERO);
    }

    #[test]
    fn load_on_the_backend_is_answered() {
        let backend = super::super::backend::start(1024).unwrap();
        assert!(is_served(backend));
        let load = run(backend, 4, 1024, Duration::from_millis(50)).unwrap();
        assert!(load.requests > 4, "{load:?}");
    }
}
