//! A Consul that journeys tell what to say: the documented protocol of `/v1/health/service`, blocking queries with their
//! index included, so that gateways wait for changes as they would there.

use std::collections::BTreeMap;
use std::io::{BufReader, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use crate::Upstream;
use crate::message::Head;

/// How long a query is held back at most, whatever it asks for.
const HELD_MAX: Duration = Duration::from_secs(20);

/// A Consul on a port of its own.
pub struct Consul {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    index: u64,
    services: BTreeMap<String, Vec<SocketAddr>>,
    /// Whether nobody is answered.
    is_down: bool,
    open: Vec<TcpStream>,
    tokens: Vec<String>,
}

impl Consul {
    /// Starts one that knows no service.
    ///
    /// # Panics
    /// If there is no port.
    #[must_use]
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("its address");
        let shared = Arc::new(Shared::default());
        shared.state.lock().expect("nobody failed").index = 10;
        let accepting = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let shared = Arc::clone(&accepting);
                std::thread::spawn(move || converse(stream, &shared));
            }
        });
        Self { address, shared }
    }

    /// What connects a gateway group to it.
    #[must_use]
    pub fn registry(&self) -> Value {
        let config = json!({
            "servers": [format!("http://{}", self.address)], "token": "consul-s3cret",
            "timeout": {"connect": 1, "read": 1, "wait": 5}
        });
        json!({"name": "consul", "type": "consul", "consul_config": config,
            "health_check": {"probe_interval": 1, "probe_timeout": 1}})
    }

    /// Says from now on that `service` has these nodes.
    ///
    /// # Panics
    /// If a conversation failed.
    pub fn set(&self, service: &str, nodes: &[&Upstream]) {
        let addresses = nodes.iter().map(|node| node.address()).collect();
        self.change(|state| {
            state.services.insert(service.to_owned(), addresses);
        });
    }

    /// Breaks every connection and answers nobody until it is up again.
    ///
    /// # Panics
    /// If a conversation failed.
    pub fn down(&self) {
        self.change(|state| {
            state.is_down = true;
            for stream in state.open.drain(..) {
                let _ = stream.shutdown(Shutdown::Both);
            }
        });
    }

    /// Answers again.
    ///
    /// # Panics
    /// If a conversation failed.
    pub fn up(&self) {
        self.change(|state| state.is_down = false);
    }

    /// The tokens it was shown.
    ///
    /// # Panics
    /// If a conversation failed.
    #[must_use]
    pub fn tokens(&self) -> Vec<String> {
        self.shared.state.lock().expect("nobody failed").tokens.clone()
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.shared.state.lock().expect("nobody failed");
        state.index += 1;
        change(&mut state);
        self.shared.changed.notify_all();
    }
}

fn converse(stream: TcpStream, shared: &Shared) {
    {
        let mut state = shared.state.lock().expect("nobody failed");
        if state.is_down {
            return;
        }
        state.open.extend(stream.try_clone());
    }
    let mut stream = BufReader::new(stream);
    while let Ok(Some(head)) = Head::read(&mut stream) {
        let Some((index, body)) = answer(&head, shared) else { return };
        let length = body.len();
        let text = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nX-Consul-Index: {index}\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        );
        if stream.get_mut().write_all(text.as_bytes()).is_err() {
            return;
        }
    }
}

/// The index and the answer, once the index is another than the one that was asked about.
fn answer(head: &Head, shared: &Shared) -> Option<(u64, String)> {
    let (path, query) = head.word(1).split_once('?').unwrap_or((head.word(1), ""));
    let mut state = shared.state.lock().expect("nobody failed");
    state.tokens.extend(head.header("x-consul-token").map(str::to_owned));
    if path == "/v1/status/leader" {
        return (!state.is_down).then(|| (state.index, "\"127.0.0.1:8300\"".to_owned()));
    }
    let service = path.strip_prefix("/v1/health/service/")?.to_owned();
    let known = query.split('&').find_map(|pair| pair.strip_prefix("index="));
    if let Some(known) = known.and_then(|known| known.parse::<u64>().ok()) {
        let is_same = |state: &mut State| state.index == known && !state.is_down;
        state = shared.changed.wait_timeout_while(state, HELD_MAX, is_same).expect("nobody failed").0;
    }
    if state.is_down {
        return None;
    }
    let entry = |address: &SocketAddr| {
        json!({"Node": {"Address": "192.0.2.1"}, "Checks": [],
            "Service": {"Address": address.ip(), "Port": address.port(), "Meta": {}, "Weights": {"Passing": 1}}})
    };
    let entries: Vec<Value> = state.services.get(&service).into_iter().flatten().map(entry).collect();
    Some((state.index, json!(entries).to_string()))
}
