//! Backends: one that records and echoes, and ones that follow a script.

use std::io::{BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::message::{self, Head};

/// A request as a backend received it.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// The head.
    pub head: Head,
    /// The body.
    pub body: Vec<u8>,
}

impl Recorded {
    /// The request target.
    #[must_use]
    pub fn target(&self) -> &str {
        self.head.word(1)
    }
}

/// The connection a scripted backend works on, positioned after the head of a request.
pub type Stream = BufReader<TcpStream>;

/// A backend on a port of its own.
pub struct Upstream {
    address: SocketAddr,
    recorded: Arc<Mutex<Vec<Recorded>>>,
}

impl Upstream {
    /// Records every request and answers with what it received, as JSON; with 200, unless the target says `status=`.
    #[must_use]
    pub fn echo() -> Self {
        let recorded = Arc::new(Mutex::new(Vec::new()));
        let record = recorded.clone();
        let address = serve(move |head, stream| {
            if head.header("expect").is_some()
                && stream.get_mut().write_all(b"HTTP/1.1 100 Continue\r\n\r\n").is_err()
            {
                return false;
            }
            let Ok(body) = message::read_body(stream, head, false) else { return false };
            let text = String::from_utf8_lossy(&body);
            let answer = json!({ "method": head.word(0), "target": head.word(1), "body": text }).to_string();
            record
                .lock()
                .expect("no recorder failed")
                .push(Recorded { head: head.clone(), body: body.clone() });
            let length = answer.len();
            let status = status_in(head.word(1)).unwrap_or("200");
            let answer = format!(
                "HTTP/1.1 {status} OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{answer}"
            );
            stream.get_mut().write_all(answer.as_bytes()).is_ok()
        });
        Self { address, recorded }
    }

    /// Answers every request by `script`, and closes the connection after it.
    #[must_use]
    pub fn scripted(script: impl Fn(&Head, &mut Stream) + Send + Sync + 'static) -> Self {
        let address = serve(move |head, stream| {
            script(head, stream);
            false
        });
        Self { address, recorded: Arc::default() }
    }

    /// The address of a backend that is down.
    ///
    /// # Panics
    /// If no port is free.
    #[must_use]
    pub fn down() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        Self { address: listener.local_addr().expect("its address"), recorded: Arc::default() }
    }

    /// Where the backend is.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The backend as a URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The backend as the only node of an upstream.
    #[must_use]
    pub fn nodes(&self) -> Value {
        json!([{ "host": self.address.ip(), "port": self.address.port(), "weight": 1 }])
    }

    /// Everything received so far.
    ///
    /// # Panics
    /// If recording failed.
    #[must_use]
    pub fn recorded(&self) -> Vec<Recorded> {
        self.recorded.lock().expect("no recorder failed").clone()
    }

    /// What was received last.
    ///
    /// # Panics
    /// If nothing was.
    #[must_use]
    pub fn last(&self) -> Recorded {
        self.recorded().pop().expect("the upstream received a request")
    }
}

/// The status that a target asks for.
fn status_in(target: &str) -> Option<&str> {
    target.split_once("status=")?.1.get(..3)
}

/// Answers connections in threads of their own; `answer` says whether the connection is kept.
fn serve(answer: impl Fn(&Head, &mut Stream) -> bool + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("its address");
    let answer = Arc::new(answer);
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let answer = answer.clone();
            std::thread::spawn(move || {
                let _ = stream.set_nodelay(true);
                let mut stream = BufReader::new(stream);
                while let Ok(Some(head)) = Head::read(&mut stream) {
                    if !answer(&head, &mut stream) {
                        return;
                    }
                }
            });
        }
    });
    address
}
