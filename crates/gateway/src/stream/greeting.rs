//! How a connection begins: whether it is a TLS handshake, and for which server name.
//!
//! What was read is kept, because it belongs to whoever serves the connection. Bytes and time are bounded; a client
//! that says nothing in time may be one that waits to be spoken to, and is taken for one that speaks no TLS.

use std::time::Duration;

use gatewright_model::stream::claim::Greeting;
use rustls::server::{Accepted, Acceptor};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use crate::worker::timer::{Timer, ticks};

/// How long the first message of a client may take.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);

/// Bytes a first message may have: more than any that is honest, with its key shares and tickets.
const HELLO_BYTES_MAX: usize = 32 * 1024;

/// Bytes that are read at once.
const READ_BYTES: usize = 4096;

/// How a connection began, and what was read of it.
pub(super) struct Begun {
    hello: Hello,
    /// What was read.
    pub(super) bytes: Vec<u8>,
}

enum Hello {
    Plain,
    Tls { name: Option<String>, accepted: Box<Accepted> },
}

impl Begun {
    /// That of a connection nobody has read from.
    pub(super) fn unread() -> Self {
        Self { hello: Hello::Plain, bytes: Vec::new() }
    }

    pub(super) fn greeting(&self) -> Greeting<'_> {
        match &self.hello {
            Hello::Plain => Greeting::Plain,
            Hello::Tls { name, .. } => Greeting::Tls(name.as_deref()),
        }
    }

    /// The handshake that has begun, if one has.
    pub(super) fn into_handshake(self) -> Option<(Accepted, Option<String>)> {
        match self.hello {
            Hello::Plain => None,
            Hello::Tls { name, accepted } => Some((*accepted, name)),
        }
    }
}

/// Reads how a connection begins; `None`: it ended before.
pub(super) async fn read(stream: &mut TcpStream, timer: &Timer) -> Option<Begun> {
    let deadline = timer.now().saturating_add(ticks(HELLO_TIMEOUT));
    let (mut acceptor, mut bytes) = (Acceptor::default(), Vec::new());
    let plain = |bytes| Some(Begun { hello: Hello::Plain, bytes });
    loop {
        let start = bytes.len();
        if start >= HELLO_BYTES_MAX {
            return plain(bytes);
        }
        bytes.reserve(READ_BYTES);
        match timer.until(deadline, stream.read_buf(&mut bytes)).await {
            Ok(Ok(0)) if start == 0 => return None,
            Ok(Err(_)) => return None,
            Ok(Ok(0)) | Err(_) => return plain(bytes),
            Ok(Ok(_)) => {}
        }
        let mut new = &bytes[start..];
        while !new.is_empty() {
            if acceptor.read_tls(&mut new).is_err() {
                return plain(bytes);
            }
        }
        match acceptor.accept() {
            Ok(None) => {}
            Ok(Some(accepted)) => {
                let name = accepted.client_hello().server_name().map(str::to_ascii_lowercase);
                return Some(Begun { hello: Hello::Tls { name, accepted: Box::new(accepted) }, bytes });
            }
            Err(_) => return plain(bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::rc::Rc;
    use std::sync::Arc;

    use tokio::net::TcpListener;

    use super::*;
    use crate::worker::timer::Clock;

    /// How a connection begins over which these pieces come; nothing more comes after them.
    fn begun(pieces: Vec<Vec<u8>>) -> Option<(String, Vec<u8>)> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let client = std::thread::spawn(move || {
                let mut stream = std::net::TcpStream::connect(address).unwrap();
                stream.set_nodelay(true).unwrap();
                pieces.iter().for_each(|piece| stream.write_all(piece).unwrap());
            });
            let (mut stream, _) = listener.accept().await.unwrap();
            let begun = read(&mut stream, &Rc::new(Clock::default()).timer()).await;
            client.join().unwrap();
            begun.map(|begun| (format!("{:?}", begun.greeting()), begun.bytes))
        })
    }

    fn hello(name: &'static str) -> Vec<u8> {
        let (_, config) = crate::tls::testing::shown_for("a.example");
        let mut client =
            rustls::ClientConnection::new(Arc::clone(&config), name.try_into().unwrap()).unwrap();
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn a_server_name_is_read_however_the_hello_arrives_and_nothing_is_lost() {
        let hello = hello("DB.example");
        let expected = Some(("Tls(Some(\"db.example\"))".to_owned(), hello.clone()));
        assert_eq!(begun(vec![hello.clone()]), expected);
        assert_eq!(begun(hello.iter().map(|byte| vec![*byte]).collect()), expected);
    }

    #[test]
    fn what_is_no_handshake_is_plain_and_kept() {
        for text in ["GET / HTTP/1.1\r\n\r\n", "\u{16}\u{3}\u{1}", "x"] {
            let expected = Some(("Plain".to_owned(), text.as_bytes().to_vec()));
            assert_eq!(begun(vec![text.as_bytes().to_vec()]), expected, "{text:?}");
        }
        assert_eq!(begun(Vec::new()), None);
    }
}
