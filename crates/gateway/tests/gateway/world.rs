//! A gateway, what it is told, whom it forwards to and who asks: everything a test needs in a few lines.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::num::NonZeroUsize;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gatewright_gateway::config::{DeniedNetworks, Ports, Tls};
use gatewright_gateway::source::Connecting;
use gatewright_gateway::{Connector, Gateway, Io, Limits, Settings, Trust, start};
use gatewright_model::protocol::WATCH_PATH;
use hyper::body::Bytes;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::tls_world::Authority;

/// After how long a test gives up waiting for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A gateway that follows a scripted control plane.
pub(crate) struct World {
    pub(crate) gateway: Gateway,
    said: watch::Sender<Vec<String>>,
    revision: u64,
}

/// Hands the gateway a pipe on which everything said so far, and from now on, can be read.
struct Script(watch::Receiver<Vec<String>>);

/// When the certificate runs out that the gateway shows its script, in unix seconds.
const CERTIFICATE_EXPIRES_AT: i64 = 4_000_000_000;

impl Connector for Script {
    fn describe(&self) -> String {
        "a script".to_owned()
    }

    fn certificate_expires_at(&self) -> Option<i64> {
        Some(CERTIFICATE_EXPIRES_AT)
    }

    fn connect(&self) -> Connecting<'_> {
        let said = self.0.clone();
        Box::pin(async move {
            let (ours, theirs) = tokio::io::duplex(1 << 16);
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(ours).await.unwrap();
                while let Some(Ok((request, mut respond))) = connection.accept().await {
                    if request.uri().path() != WATCH_PATH {
                        let _ = respond.send_response(answer(204), true);
                        continue;
                    }
                    let Ok(stream) = respond.send_response(answer(200), false) else { return };
                    tokio::spawn(say(said.clone(), stream));
                }
            });
            Ok(Box::new(theirs) as Box<dyn Io>)
        })
    }
}

fn answer(status: u16) -> http::Response<()> {
    http::Response::builder().status(status).body(()).unwrap()
}

/// Says everything that was said so far, and from now on.
async fn say(mut said: watch::Receiver<Vec<String>>, mut stream: h2::SendStream<Bytes>) {
    let mut sent = 0;
    loop {
        let lines: Vec<String> = said.borrow_and_update()[sent..].to_vec();
        sent += lines.len();
        for line in lines {
            if stream.send_data(line.into(), false).is_err() {
                return;
            }
        }
        if said.changed().await.is_err() {
            return;
        }
    }
}

impl World {
    /// A gateway without configuration.
    pub(crate) fn unconfigured() -> Self {
        Self::with(|_| ())
    }

    /// A gateway that takes TLS clients that name no server to mean `name`.
    pub(crate) fn with_fallback_server_name(name: &str) -> Self {
        Self::with(|settings| settings.tls.fallback_server_name = Some(name.to_owned()))
    }

    /// A gateway with a single worker that believes nodes certified by `authority`.
    pub(crate) fn trusting(authority: &Authority) -> Self {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(authority.pem.as_bytes()).unwrap();
        Self::with(|settings| {
            settings.workers = NonZeroUsize::MIN;
            settings.tls.upstream_authorities = Some(file.path().to_owned());
        })
    }

    /// A gateway within these limits that serves these services.
    pub(crate) fn limited(limits: Limits, services: &[Value]) -> Self {
        let mut world = Self::with(|settings| settings.limits = limits);
        world.publish(services);
        world
    }

    /// A gateway without configuration that is told something else at its start.
    pub(crate) fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let (said, hears) = watch::channel(Vec::new());
        let mut settings = Settings {
            gateway_group_id: "default".parse().unwrap(),
            instance_id: "instance".parse().unwrap(),
            instance_token: "token".to_owned(),
            data_dir: None,
            plugin_dir: None,
            proxy: "127.0.0.1:0".parse().unwrap(),
            tls: Tls { listener: Some("127.0.0.1:0".parse().unwrap()), ..Tls::default() },
            status: "127.0.0.1:0".parse().unwrap(),
            workers: NonZeroUsize::new(2).unwrap(),
            limits: Limits::default(),
            access_log: None,
            debug_token: None,
            measures_plugins: false,
            memory: None,
            trust: Trust::default(),
            denied: DeniedNetworks::default(),
            stream_ports: Ports::default(),
        };
        change(&mut settings);
        let gateway = start(settings, Arc::new(Script(hears))).expect("a gateway");
        Self { gateway, said, revision: 0 }
    }

    /// A gateway that serves these services.
    pub(crate) fn serving(services: &[Value]) -> Self {
        let mut world = Self::unconfigured();
        world.publish(services);
        world
    }

    /// The same over TLS as well, with these SSL objects.
    pub(crate) fn serving_with(services: &[Value], objects: &[Value]) -> Self {
        let mut world = Self::unconfigured();
        world.publish_with(services, objects);
        world
    }

    pub(crate) fn tls_address(&self) -> SocketAddr {
        self.gateway.proxy_tls_address().expect("a listener")
    }

    /// The same with a single worker, which then counts everything.
    pub(crate) fn serving_on_one_worker(services: &[Value]) -> Self {
        let mut world = Self::with(|settings| settings.workers = NonZeroUsize::MIN);
        world.publish(services);
        world
    }

    /// Says that these services are all there is, and waits until they are served.
    pub(crate) fn publish(&mut self, services: &[Value]) {
        self.publish_with(services, &[]);
    }

    /// The same with what the group has beside services.
    pub(crate) fn publish_with(&mut self, services: &[Value], objects: &[Value]) {
        self.revision += 1;
        let update = json!({
            "update": {"revision": self.revision, "full": true, "services": services, "objects": objects}
        });
        self.said.send_modify(|said| said.push(format!("{update}\n")));
        let started = std::time::Instant::now();
        while self.status("/status").1["revision"] != json!(self.revision) {
            assert!(started.elapsed() < PATIENCE, "revision {} was never served", self.revision);
            std::thread::yield_now();
        }
    }

    /// What the status listener says in text.
    pub(crate) fn status_text(&self, path: &str) -> String {
        let mut client = Client::to(self.gateway.status_address());
        client.send(format!("GET {path} HTTP/1.1\r\nHost: s\r\nConnection: close\r\n\r\n"));
        String::from_utf8(client.answer().body).expect("text")
    }

    pub(crate) fn status(&self, path: &str) -> (u16, Value) {
        let mut client = Client::to(self.gateway.status_address());
        client.send(format!("GET {path} HTTP/1.1\r\nHost: s\r\nConnection: close\r\n\r\n"));
        let answer = client.answer();
        (answer.status, serde_json::from_slice(&answer.body).expect("JSON"))
    }

    /// The status of every node of service `s`, in the order of its nodes.
    pub(crate) fn node_statuses(&self) -> Vec<String> {
        let (_, body) = self.status("/status/upstreams?service_id=s");
        let nodes = body["upstreams"][0]["nodes"].as_array().expect("nodes");
        nodes.iter().map(|node| node["status"].as_str().expect("a status").to_owned()).collect()
    }

    /// Waits until the nodes of service `s` have these statuses.
    pub(crate) fn until_nodes_are(&self, expected: &[&str]) {
        until(|| self.node_statuses() == expected, || format!("{:?}", self.status("/status/upstreams")));
    }

    pub(crate) fn client(&self) -> Client {
        Client::to(self.gateway.proxy_address())
    }

    /// Sends one request on a connection of its own and reads the answer.
    pub(crate) fn ask(&self, request: impl AsRef<[u8]>) -> Answer {
        let mut client = self.client();
        client.send(request);
        client.answer()
    }
}

/// Waits for `condition`; `describe` says what there is instead when patience ends.
pub(crate) fn until(condition: impl Fn() -> bool, describe: impl Fn() -> String) {
    let started = std::time::Instant::now();
    while !condition() {
        assert!(started.elapsed() < PATIENCE, "{}", describe());
        std::thread::yield_now();
    }
}

/// A published service with one route for everything and the given differences.
pub(crate) fn service(nodes: &[SocketAddr], more: Value) -> Value {
    let nodes: Vec<Value> =
        nodes.iter().map(|node| json!({"host": node.ip(), "port": node.port(), "weight": 1})).collect();
    let mut service = json!({
        "service_id": "s", "service_version_id": "s-1", "version": "1", "name": "s", "type": "http",
        "routes": [{"route_id": "r", "name": "r", "paths": ["/*"]}], "strip_path_prefix": true,
        "upstream": {"nodes": nodes}, "status": 1
    });
    for (key, value) in more.as_object().expect("an object") {
        match (key.as_str(), value) {
            ("upstream", Value::Object(fields)) => {
                for (field, value) in fields {
                    service["upstream"][field] = value.clone();
                }
            }
            _ => service[key] = value.clone(),
        }
    }
    service
}

/// A client that sends bytes and reads answers.
pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    read: Vec<u8>,
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().skip(1);
        lines
            .filter_map(|line| line.split_once(": "))
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text")
    }
}

impl Client {
    pub(crate) fn to(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { stream, read: Vec::new() }
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).expect("the gateway reads");
    }

    /// Reads until `enough` is content; `false` if the connection closed first.
    fn read_until(&mut self, enough: impl Fn(&[u8]) -> bool) -> bool {
        let mut buffer = [0; 65536];
        while !enough(&self.read) {
            match self.stream.read(&mut buffer) {
                Ok(0) => return false,
                Ok(count) => self.read.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return false,
                Err(error) => panic!("{error} after {:?}", String::from_utf8_lossy(&self.read)),
            }
        }
        true
    }

    /// Everything until the connection closes.
    pub(crate) fn rest(mut self) -> Vec<u8> {
        self.read_until(|_| false);
        self.read
    }

    /// Says that nothing more is sent, and reads everything until the connection closes.
    pub(crate) fn rest_after_half_close(self) -> Vec<u8> {
        self.stream.shutdown(std::net::Shutdown::Write).expect("an open connection");
        self.rest()
    }

    /// Reads until `text` has arrived.
    pub(crate) fn wait_for(&mut self, text: &str) {
        let found = self.read_until(|read| find(read, text.as_bytes()).is_some());
        assert!(found, "closed after {:?}", String::from_utf8_lossy(&self.read));
    }

    pub(crate) fn answer(&mut self) -> Answer {
        self.answer_to("GET")
    }

    /// The next answer, to a request with `method`.
    pub(crate) fn answer_to(&mut self, method: &str) -> Answer {
        assert!(self.read_until(|read| find(read, b"\r\n\r\n").is_some()), "no answer: {:?}", self.read);
        let end = find(&self.read, b"\r\n\r\n").unwrap() + 4;
        let head = String::from_utf8(self.read.drain(..end).collect()).expect("a head");
        let status = head[9..12].parse().expect("a status");
        let mut answer = Answer { status, head, body: Vec::new() };
        if method == "HEAD" || status == 204 || status == 304 {
            return answer;
        }
        answer.body = if answer.header("transfer-encoding").is_some() {
            self.chunks()
        } else if let Some(length) = answer.header("content-length").and_then(|text| text.parse().ok()) {
            let complete = self.read_until(|read| read.len() >= length);
            assert!(complete, "the body was cut");
            self.read.drain(..length).collect()
        } else {
            self.read_until(|_| false);
            std::mem::take(&mut self.read)
        };
        answer
    }

    fn chunks(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        loop {
            assert!(self.read_until(|read| find(read, b"\r\n").is_some()), "the body was cut");
            let line = find(&self.read, b"\r\n").unwrap();
            let size =
                usize::from_str_radix(std::str::from_utf8(&self.read[..line]).unwrap(), 16).expect("a size");
            assert!(self.read_until(|read| read.len() >= line + 2 + size + 2), "the body was cut");
            let chunk: Vec<u8> = self.read.drain(..line + 2 + size + 2).collect();
            if size == 0 {
                return body;
            }
            body.extend_from_slice(&chunk[line + 2..line + 2 + size]);
        }
    }
}

pub(crate) fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

/// A node that records what arrives and answers as it is told to.
pub(crate) struct Node {
    pub(crate) address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Node {
    /// Answers every request with these bytes.
    pub(crate) fn answering(answer: &'static str) -> Self {
        Self::with(move |stream, _| stream.write_all(answer.as_bytes()).is_ok())
    }

    /// Says `hello` with its own address.
    pub(crate) fn greeting() -> Self {
        Self::with(|stream, _| {
            let body = stream.local_addr().unwrap().to_string();
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).is_ok()
        })
    }

    /// After each head, `respond` may read what follows and write what it likes; `false` closes the connection.
    pub(crate) fn with(respond: impl Fn(&mut TcpStream, &str) -> bool + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let heads = Arc::new(Mutex::new(Vec::new()));
        let respond = Arc::new(respond);
        let recorded = Arc::clone(&heads);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (respond, recorded) = (Arc::clone(&respond), Arc::clone(&recorded));
                std::thread::spawn(move || {
                    let mut stream = stream.unwrap();
                    while let Some(head) = read_head(&mut stream) {
                        recorded.lock().unwrap().push(head.clone());
                        if !respond(&mut stream, &head) {
                            return;
                        }
                    }
                });
            }
        });
        Self { address, heads }
    }

    /// The heads that arrived so far.
    pub(crate) fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

/// Reads byte by byte, so that nothing of a body is taken.
fn read_head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).ok()? == 0 {
            return None;
        }
        head.push(byte[0]);
    }
    String::from_utf8(head).ok()
}

pub(crate) fn read_exactly(stream: &mut TcpStream, length: usize) -> Vec<u8> {
    let mut body = vec![0; length];
    stream.read_exact(&mut body).expect("the whole body");
    body
}

/// A gate that a test opens when it is time.
pub(crate) fn gate() -> (Sender<()>, Mutex<Receiver<()>>) {
    let (open, wait) = channel();
    (open, Mutex::new(wait))
}
