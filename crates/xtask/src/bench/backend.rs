//! The backend of the bench: answers every request with the same bytes.
//!
//! It looks for the end of a head and for its Content-Length and for nothing else, so that it is never the slowest
//! part. For WebSocket it accepts every connection and sends every message back.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;

use anyhow::Context;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

use super::scenario::{Protocol, Scenario};
use super::{cores, websocket};

const LISTENER: Token = Token(usize::MAX);
/// Larger than the head any proxy forwards here; a request that does not fit is a broken peer.
const REQUEST_BYTES_MAX: usize = 16 * 1024;
/// Room for one read; bodies are large.
const READ_BYTES: usize = 256 * 1024;

/// Starts the backend on a thread of the load's core; it lives as long as the process.
pub(crate) fn start(scenario: &Scenario) -> anyhow::Result<SocketAddr> {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut listener = TcpListener::bind(any).context("the backend cannot listen")?;
    let address = listener.local_addr().context("the backend cannot listen")?;
    let mut poll = Poll::new().context("the backend cannot poll")?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let script = Script::of(scenario);
    let serve = move || {
        let ended = cores::pin(cores::LOAD).and_then(|()| serve(&mut poll, &listener, &script));
        if let Err(error) = ended {
            eprintln!("the backend ended: {error:#}");
        }
    };
    std::thread::Builder::new()
        .name("backend".to_owned())
        .spawn(serve)
        .context("the backend cannot start")?;
    Ok(address)
}

/// What is said to each request.
struct Script {
    answer: Vec<u8>,
    /// What is said to each message after that; none: the connection goes on with requests.
    echo: Option<Vec<u8>>,
}

impl Script {
    fn of(scenario: &Scenario) -> Self {
        match scenario.protocol {
            Protocol::Http1 | Protocol::Http2 { .. } => {
                Self { answer: answer(scenario.answer_bytes), echo: None }
            }
            Protocol::WebSocket => {
                Self { answer: websocket::accepted(), echo: Some(websocket::from_server()) }
            }
        }
    }
}

fn answer(body_bytes: usize) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {body_bytes}\r\n\r\n");
    let mut answer = head.into_bytes();
    answer.resize(answer.len() + body_bytes, b'x');
    answer
}

fn serve(poll: &mut Poll, listener: &TcpListener, script: &Script) -> anyhow::Result<()> {
    let mut events = Events::with_capacity(1024);
    let mut connections: Vec<Option<Connection>> = Vec::new();
    let mut buffer = vec![0; READ_BYTES];
    loop {
        poll.poll(&mut events, None).context("cannot poll")?;
        for event in &events {
            if event.token() == LISTENER {
                accept(poll, listener, &mut connections)?;
            } else if let Some(slot) = connections.get_mut(event.token().0)
                && let Some(connection) = slot
                && !connection.advance(script, &mut buffer)
            {
                *slot = None;
            }
        }
    }
}

fn accept(
    poll: &Poll,
    listener: &TcpListener,
    connections: &mut Vec<Option<Connection>>,
) -> anyhow::Result<()> {
    loop {
        let mut stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error).context("cannot accept"),
        };
        stream.set_nodelay(true)?;
        let free = connections.iter().position(Option::is_none).unwrap_or(connections.len());
        poll.registry().register(&mut stream, Token(free), Interest::READABLE | Interest::WRITABLE)?;
        let connection = Connection {
            stream,
            request: Vec::with_capacity(1024),
            body: 0,
            message: None,
            pending: Vec::new(),
        };
        if free == connections.len() {
            connections.push(Some(connection));
        } else {
            connections[free] = Some(connection);
        }
    }
}

struct Connection {
    stream: TcpStream,
    request: Vec<u8>,
    /// Bytes of the request's body that are still to come.
    body: usize,
    /// Bytes of the message that arrives, once the connection is one for messages.
    message: Option<usize>,
    /// What did not fit into the socket yet.
    pending: Vec<u8>,
}

impl Connection {
    /// Reads and answers until the socket has nothing more; `false`: the connection is over.
    fn advance(&mut self, script: &Script, buffer: &mut [u8]) -> bool {
        if !self.flush() {
            return false;
        }
        loop {
            match self.stream.read(buffer) {
                Ok(0) => return false,
                Ok(count) => {
                    self.take(script, &buffer[..count]);
                    if !self.flush() || self.request.len() > REQUEST_BYTES_MAX {
                        return false;
                    }
                    if count < buffer.len() {
                        // Polling is edge-triggered: more bytes raise a new event, and a read that fell short
                        // would only be told to wait.
                        return true;
                    }
                }
                Err(error) => return error.kind() == ErrorKind::WouldBlock,
            }
        }
    }

    fn take(&mut self, script: &Script, bytes: &[u8]) {
        if let (Some(have), Some(echo)) = (&mut self.message, &script.echo) {
            *have += bytes.len();
            while *have >= websocket::FROM_CLIENT_BYTES {
                *have -= websocket::FROM_CLIENT_BYTES;
                self.pending.extend_from_slice(echo);
            }
            return;
        }
        // Bodies are counted, not kept.
        let skipped = if self.request.is_empty() { bytes.len().min(self.body) } else { 0 };
        self.body -= skipped;
        if skipped > 0 && self.body == 0 {
            self.pending.extend_from_slice(&script.answer);
        }
        self.request.extend_from_slice(&bytes[skipped..]);
        self.answer_all(script);
    }

    fn answer_all(&mut self, script: &Script) {
        while self.body == 0
            && let Some(end) = find_head_end(&self.request)
        {
            self.body = content_length(&self.request[..end]).unwrap_or(0);
            self.request.drain(..end);
            let arrived = self.body.min(self.request.len());
            self.request.drain(..arrived);
            self.body -= arrived;
            if self.body == 0 {
                self.pending.extend_from_slice(&script.answer);
                self.message = script.echo.as_ref().map(|_| 0);
            }
        }
    }

    fn flush(&mut self) -> bool {
        let mut written = 0;
        let alive = loop {
            if written == self.pending.len() {
                break true;
            }
            match self.stream.write(&self.pending[written..]) {
                Ok(count) => written += count,
                Err(error) => break error.kind() == ErrorKind::WouldBlock,
            }
        };
        self.pending.drain(..written);
        alive
    }
}

/// The index after the empty line that ends a head.
pub(crate) fn find_head_end(bytes: &[u8]) -> Option<usize> {
    let end = |window: &[u8]| window == b"\r\n\r\n";
    bytes.windows(4).position(end).map(|start| start + 4)
}

/// What the head says about the length of its body.
pub(crate) fn content_length(head: &[u8]) -> Option<usize> {
    const NAME: &[u8] = b"content-length:";
    let mut lines = head.split(|byte| *byte == b'\n');
    let line = lines.find(|line| line.len() > NAME.len() && line[..NAME.len()].eq_ignore_ascii_case(NAME))?;
    std::str::from_utf8(&line[NAME.len()..]).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::super::scenario::PLAIN;
    use super::*;

    #[test]
    fn a_head_ends_after_its_empty_line() {
        assert_eq!(find_head_end(b"GET / HTTP/1.1\r\n\r\nrest"), Some(18));
        assert_eq!(find_head_end(b"GET / HTTP/1.1\r\n\r"), None);
    }

    #[test]
    fn requests_are_answered_one_by_one_in_pieces_and_in_bulk() {
        let mut client = TcpStream::connect(start(&Scenario { answer_bytes: 10, ..PLAIN }).unwrap()).unwrap();
        client.write_all(b"GET / HT").unwrap();
        client.write_all(b"TP/1.1\r\n\r\n").unwrap();
        assert_eq!(read_exact(&mut client, answer(10).len()), answer(10));
        client.write_all(&b"GET / HTTP/1.1\r\n\r\n".repeat(3)).unwrap();
        assert_eq!(read_exact(&mut client, 3 * answer(10).len()), answer(10).repeat(3));
    }

    fn read_exact(client: &mut TcpStream, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        client.read_exact(&mut bytes).unwrap();
        bytes
    }
}
