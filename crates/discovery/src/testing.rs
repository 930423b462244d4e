//! A peer that answers what a test wrote down, one answer for each question, and remembers what it was asked.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use gatewright_model::resource::service_registry::{ServiceRegistry, Wanted};
use gatewright_model::resource::upstream::Node;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::{Outside, Registry, Trouble, Watch, connect};

/// One answer.
#[derive(Clone)]
pub(crate) struct Exchange {
    status: u16,
    fields: Vec<(String, String)>,
    pieces: Vec<String>,
    is_stream: bool,
}

impl Exchange {
    pub(crate) fn text(status: u16, body: &str) -> Self {
        Self { status, fields: Vec::new(), pieces: vec![body.to_owned()], is_stream: false }
    }

    pub(crate) fn json(status: u16, body: &Value) -> Self {
        Self::text(status, &body.to_string())
    }

    /// Lines of JSON, all in one piece, and then the end.
    pub(crate) fn lines(lines: &[Value]) -> Self {
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        let pieces = if lines.is_empty() { Vec::new() } else { vec![text] };
        Self { status: 200, fields: Vec::new(), pieces, is_stream: true }
    }

    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.fields.push((name.to_owned(), value.to_owned()));
        self
    }

    fn bytes(&self) -> Vec<u8> {
        let mut text = format!("HTTP/1.1 {} x\r\n", self.status);
        for (name, value) in &self.fields {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        if !self.is_stream {
            text.push_str(&format!("Content-Length: {}\r\n\r\n{}", self.pieces[0].len(), self.pieces[0]));
            return text.into_bytes();
        }
        text.push_str("Transfer-Encoding: chunked\r\n\r\n");
        for piece in &self.pieces {
            text.push_str(&format!("{:x}\r\n{piece}\r\n", piece.len()));
        }
        text.push_str("0\r\n\r\n");
        text.into_bytes()
    }
}

/// One question: method and target, fields in lower case, body.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) line: String,
    fields: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Asked {
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

#[derive(Default)]
struct Script {
    answers: VecDeque<Exchange>,
    asked: Vec<Asked>,
}

pub(crate) struct Peer {
    address: SocketAddr,
    script: Arc<Mutex<Script>>,
}

impl Peer {
    /// Gives these answers and none after them.
    pub(crate) async fn start(answers: Vec<Exchange>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let script = Arc::new(Mutex::new(Script { answers: answers.into(), asked: Vec::new() }));
        let shared = Arc::clone(&script);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(converse(stream, Arc::clone(&shared)));
            }
        });
        Self { address, script }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.script.lock().unwrap().asked.clone()
    }

    /// Where nobody listens.
    pub(crate) async fn dead() -> String {
        let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        format!("http://{address}")
    }
}

async fn converse(mut stream: TcpStream, script: Arc<Mutex<Script>>) {
    let mut read = Vec::new();
    loop {
        let head = loop {
            if let Some(end) = read.windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
            if !matches!(stream.read_buf(&mut read).await, Ok(1..)) {
                return;
            }
        };
        let text = String::from_utf8(read[..head].to_vec()).unwrap();
        let mut lines = text.lines();
        let line = lines.next().unwrap().trim_end_matches(" HTTP/1.1").to_owned();
        let fields = lines.filter_map(|line| line.split_once(": "));
        let fields: Vec<(String, String)> =
            fields.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect();
        let length = fields.iter().find(|(name, _)| name == "content-length");
        let length: usize = length.map_or(0, |(_, value)| value.parse().unwrap());
        while read.len() < head + length {
            stream.read_buf(&mut read).await.unwrap();
        }
        let body = String::from_utf8(read[head..head + length].to_vec()).unwrap();
        read.drain(..head + length);
        let answer = {
            let mut script = script.lock().unwrap();
            script.asked.push(Asked { line, fields, body });
            script.answers.pop_front()
        };
        match answer {
            Some(answer) => stream.write_all(&answer.bytes()).await.unwrap(),
            None => std::future::pending().await,
        }
    }
}

/// Everything is allowed, and nobody's certificate is believed.
pub(crate) fn outside() -> Outside {
    let tls = |_: bool| crate::tls::nobody();
    Outside { allow: Arc::new(|_| Ok(())), tls: Arc::new(tls) }
}

pub(crate) fn registry(document: &Value) -> Result<Arc<dyn Registry>, Trouble> {
    let registry: ServiceRegistry = serde_json::from_value(document.clone()).unwrap();
    connect(&registry, &outside())
}

pub(crate) fn watch_with(document: &Value, service: &str, args: Value) -> Result<Box<dyn Watch>, Trouble> {
    let upstream =
        json!({"service_name": service, "discovery_type": document["type"], "discovery_args": args});
    let wanted = Wanted::of(&serde_json::from_value(upstream).unwrap()).unwrap();
    registry(document)?.watch(&wanted)
}

pub(crate) fn watch(document: &Value, service: &str) -> Result<Box<dyn Watch>, Trouble> {
    watch_with(document, service, json!({}))
}

/// Nodes as `host:port weight`, with `^priority` where that is not 0.
pub(crate) fn hosts(answer: Result<Vec<Node>, Trouble>) -> Vec<String> {
    let nodes = answer.unwrap();
    let text = |node: &Node| match node.priority {
        0 => format!("{}:{} {}", node.host, node.port, node.weight),
        priority => format!("{}:{} {}^{priority}", node.host, node.port, node.weight),
    };
    nodes.iter().map(text).collect()
}
