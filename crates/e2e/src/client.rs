//! A client that speaks raw HTTP/1.1, so that a journey decides every byte and sees every byte.

use std::io::{self, BufReader, Write};
use std::net::{SocketAddr, TcpStream};

use crate::message::{self, Head, Response};
use crate::wait;

/// One connection.
pub struct Connection {
    stream: BufReader<TcpStream>,
}

impl Connection {
    /// Connects; nothing on the connection may take longer than the deadline.
    ///
    /// # Errors
    /// When nobody accepts it.
    pub fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(wait::DEADLINE))?;
        stream.set_write_timeout(Some(wait::DEADLINE))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// When the connection breaks.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes.as_ref())
    }

    /// Reads the head of a response.
    ///
    /// # Errors
    /// When the connection ends first.
    pub fn head(&mut self) -> io::Result<Head> {
        Ok(Head::read(&mut self.stream)?.ok_or(io::ErrorKind::UnexpectedEof)?)
    }

    /// Reads one chunk of a chunked body; none: that was the last one.
    ///
    /// # Errors
    /// When the connection breaks.
    pub fn chunk(&mut self) -> io::Result<Option<Vec<u8>>> {
        message::read_chunk(&mut self.stream)
    }

    /// Reads a whole response.
    ///
    /// # Errors
    /// When the connection ends before it is complete.
    pub fn response(&mut self) -> io::Result<Response> {
        let head = self.head()?;
        // These have no body, and say no length.
        let may_have_body = !matches!(head.status(), 204 | 304);
        let body = message::read_body(&mut self.stream, &head, may_have_body)?;
        Ok(Response { head, body })
    }

    /// Whether the other side has closed the connection, waiting for it to say something.
    pub fn is_closed(&mut self) -> bool {
        match io::BufRead::fill_buf(&mut self.stream) {
            Ok(bytes) => bytes.is_empty(),
            Err(error) => error.kind() == io::ErrorKind::ConnectionReset,
        }
    }
}

/// Sends one GET on a new connection.
///
/// # Panics
/// If there is no complete response.
#[must_use]
pub fn get(address: SocketAddr, host: &str, target: &str) -> Response {
    request(address, "GET", host, target, &[], b"")
}

/// Sends one request on a new connection.
///
/// # Panics
/// If there is no complete response.
#[must_use]
pub fn request(
    address: SocketAddr,
    method: &str,
    host: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Response {
    try_request(address, method, host, target, headers, body)
        .unwrap_or_else(|error| panic!("{method} {target} (host {host}) at {address}: {error}"))
}

/// Like [`request`], for an address where nobody may be.
///
/// # Errors
/// If there is no complete response.
pub fn try_request(
    address: SocketAddr,
    method: &str,
    host: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> io::Result<Response> {
    let mut connection = Connection::open(address)?;
    let mut head = format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if !body.is_empty() {
        head.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    connection.send([head.as_bytes(), b"\r\n", body].concat())?;
    connection.response()
}
