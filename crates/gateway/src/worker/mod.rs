//! A worker: one thread, one single-threaded runtime, its own listener, connection pool, timers and buffers.
//!
//! Workers share the live configuration, which is immutable, and nothing else. Everything a worker's connections
//! share is in [`Worker`], on one thread, without locks.

pub(crate) mod buffers;
pub(crate) mod departure;
pub(crate) mod door;
pub(crate) mod listen;
pub(crate) mod proxy_protocol;
pub(crate) mod timer;

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};

use crate::config::Limits;
use crate::live::current::Reader;
use crate::proxy::{self, ClientAddress};
use crate::stream;
use crate::stream::listeners::Open;
use crate::stream::relay::Pieces;
use crate::telemetry::Recorder;
use crate::tls::{self, handshake};
use crate::transport::Transport;
use crate::upstream::multiplexed::Lines;
use crate::upstream::pool::Pool;
use buffers::Buffers;
use departure::{Departure, told};
use door::{Door, Guest};
use timer::{Clock, TICK};

/// How long accepting pauses when the system has no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How often idle upstream connections are looked through, in ticks.
const SWEEP_TICKS: u64 = 10;

/// What the connections of one worker share.
pub(crate) struct Worker {
    /// Which worker this is, counted from 0.
    pub(crate) index: usize,
    pub(crate) live: Reader,
    pub(crate) tls: Arc<tls::Shared>,
    pub(crate) limits: Limits,
    pub(crate) door: Arc<Door>,
    pub(crate) clock: Rc<Clock>,
    pub(crate) pool: RefCell<Pool>,
    pub(crate) lines: RefCell<Lines>,
    pub(crate) buffers: Buffers,
    pub(crate) recorder: Recorder,
    /// Set once the gateway stops: connections close after the request they are on.
    pub(crate) stopping: Cell<bool>,
    /// Told to those who stay, once it stops.
    pub(crate) departure: watch::Receiver<Departure>,
    /// Buffers of streams.
    pub(crate) pieces: Pieces,
    /// Told whenever other stream routes are served.
    pub(crate) streams_changed: Notify,
    connections: Cell<usize>,
    /// Those of them that are streams.
    streams: Cell<usize>,
    connection_closed: Notify,
}

impl Worker {
    pub(crate) fn new(setup: Setup) -> Self {
        let Setup { index, live, tls, limits, recorder, door, departure } = setup;
        Self {
            index,
            live,
            tls,
            limits,
            door,
            clock: Rc::default(),
            pool: RefCell::default(),
            lines: RefCell::default(),
            buffers: Buffers::default(),
            recorder,
            stopping: Cell::new(false),
            departure,
            pieces: Pieces::default(),
            streams_changed: Notify::new(),
            connections: Cell::new(0),
            streams: Cell::new(0),
            connection_closed: Notify::new(),
        }
    }

    /// A connection begins, and the worker does not stop without it.
    pub(crate) fn begun(&self) {
        self.connections.set(self.connections.get() + 1);
        self.recorder.counts().connection_opened();
    }

    /// It has ended.
    pub(crate) fn ended(&self) {
        self.connections.set(self.connections.get() - 1);
        self.recorder.counts().connection_closed();
        self.connection_closed.notify_one();
    }

    /// Like [`Worker::begun`], for a stream.
    pub(crate) fn stream_begun(&self) {
        self.streams.set(self.streams.get() + 1);
        self.begun();
    }

    /// Like [`Worker::ended`], for a stream.
    pub(crate) fn stream_ended(&self) {
        self.streams.set(self.streams.get() - 1);
        self.ended();
    }

    /// Waits until nobody is left, or nobody who is still waited for.
    async fn empty(&self) {
        let everybody = async {
            while self.connections.get() > 0 {
                self.connection_closed.notified().await;
            }
        };
        tokio::select! {
            () = everybody => return,
            () = told(self.departure.clone(), |told| told.streams_only) => {}
        }
        while self.streams.get() > 0 {
            self.connection_closed.notified().await;
        }
    }

    /// A worker that shows certificates to the clients of these names and serves them nothing, for tests.
    #[cfg(test)]
    pub(crate) fn showing(server_names: Arc<tls::server_names::ServerNames>) -> Self {
        let tls = tls::Shared::new(&crate::config::Tls::default()).unwrap();
        let live = crate::live::LiveConfig { server_names, ..crate::live::LiveConfig::empty() };
        let live = crate::live::current::Current::new(live).reader();
        let limits = Limits::default();
        let door = Arc::new(Door::new(&limits, crate::config::Trust::default()));
        let (tls, recorder) = (Arc::new(tls), Recorder::silent());
        let departure = watch::channel(Departure::default()).1;
        Self::new(Setup { index: 0, live, tls, limits, recorder, door, departure })
    }
}

/// What a worker is started with.
pub(crate) struct Setup {
    pub(crate) index: usize,
    pub(crate) live: Reader,
    pub(crate) tls: Arc<tls::Shared>,
    pub(crate) limits: Limits,
    pub(crate) recorder: Recorder,
    pub(crate) door: Arc<Door>,
    pub(crate) departure: watch::Receiver<Departure>,
}

/// Where a worker accepts.
pub(crate) struct Listeners {
    plain: TcpListener,
    tls: Option<TcpListener>,
    /// The ports that are open for streams.
    streams: watch::Receiver<Open>,
}

impl Listeners {
    /// Within a runtime.
    ///
    /// # Errors
    /// When the runtime cannot watch them.
    pub(crate) fn of(
        plain: std::net::TcpListener,
        tls: Option<std::net::TcpListener>,
        streams: watch::Receiver<Open>,
    ) -> io::Result<Self> {
        let tls = tls.map(TcpListener::from_std).transpose()?;
        Ok(Self { plain: TcpListener::from_std(plain)?, tls, streams })
    }
}

/// When a worker begins to accept, and when it stops.
pub(crate) struct Hours {
    /// Set once there is something to serve, or at once if nobody serves before.
    pub(crate) open: watch::Receiver<bool>,
    pub(crate) stop: watch::Receiver<bool>,
}

/// Serves `listeners` until it is told to stop, then until the last connection is done. The caller enforces the
/// deadlines.
pub(crate) async fn run(worker: Worker, listeners: Listeners, hours: Hours) {
    let Hours { mut open, mut stop } = hours;
    let worker = Rc::new(worker);
    let ticking = tokio::task::spawn_local(tick(Rc::clone(&worker)));
    let accepting = async {
        let _ = open.wait_for(|open| *open).await;
        tokio::join!(
            accept(&worker, &listeners.plain, Security::None),
            accept_tls(&worker, listeners.tls.as_ref()),
            stream::accept::follow(&worker, listeners.streams.clone()),
        )
    };
    tokio::select! {
        _ = accepting => {}
        _ = stop.wait_for(|stop| *stop) => {}
    }
    worker.stopping.set(true);
    if *open.borrow() {
        accept_waiting(&worker, listeners);
    }
    // The tasks that accept streams have been told, and take in what waits for them.
    tokio::task::yield_now().await;
    worker.clock.hasten(worker.limits.shutdown_grace);
    worker.empty().await;
    ticking.abort();
    worker.recorder.hand_over();
}

/// What a listener puts between TCP and HTTP.
#[derive(Clone, Copy)]
pub(crate) enum Security {
    None,
    Tls,
}

/// Accepts what waits in the sockets, which closing them would reset, and closes them.
fn accept_waiting(worker: &Rc<Worker>, listeners: Listeners) {
    let plain = (Some(listeners.plain), Security::None);
    for (listener, security) in [plain, (listeners.tls, Security::Tls)] {
        let Some(listener) = listener else { continue };
        drain(listener, |stream, peer| admit(worker, stream, peer, security));
    }
}

/// Accepts what waits in a socket, and closes it.
pub(crate) fn drain(listener: TcpListener, mut admit: impl FnMut(TcpStream, SocketAddr)) {
    // Asked directly: the runtime may not have heard of the last ones yet.
    let Ok(listener) = listener.into_std() else { return };
    while let Ok((stream, peer)) = listener.accept() {
        if stream.set_nonblocking(true).is_ok()
            && let Ok(stream) = TcpStream::from_std(stream)
        {
            admit(stream, peer);
        }
    }
}

async fn accept_tls(worker: &Rc<Worker>, listener: Option<&TcpListener>) {
    match listener {
        Some(listener) => accept(worker, listener, Security::Tls).await,
        None => std::future::pending().await,
    }
}

async fn accept(worker: &Rc<Worker>, listener: &TcpListener, security: Security) {
    accept_each(listener, |stream, peer| admit(worker, stream, peer, security)).await;
}

/// Accepts for ever.
pub(crate) async fn accept_each(listener: &TcpListener, mut admit: impl FnMut(TcpStream, SocketAddr)) {
    let mut failing = false;
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                failing = false;
                admit(stream, peer);
            }
            // A client that left while it waited.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                // Said once, or a machine without file descriptors would fill its disk as well.
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(%error, "cannot accept connections");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn admit(worker: &Rc<Worker>, stream: TcpStream, peer: SocketAddr, security: Security) {
    if let Some(guest) = worker.door.enter(peer) {
        worker.begun();
        // A task is moved several times when it is spawned and when it ends; only its pointer should be.
        tokio::task::spawn_local(Box::pin(serve(Rc::clone(worker), guest, stream, peer, security)));
    }
}

async fn serve(worker: Rc<Worker>, guest: Guest, stream: TcpStream, peer: SocketAddr, security: Security) {
    if let Some((transport, address)) = establish(&worker, stream, peer, security).await {
        proxy::serve(&worker, transport, address).await;
    }
    drop(guest);
    worker.ended();
}

/// From an accepted connection to one that carries requests, and what is known of its client.
async fn establish(
    worker: &Worker,
    mut stream: TcpStream,
    peer: SocketAddr,
    security: Security,
) -> Option<(Transport, ClientAddress)> {
    let socket = (peer, stream.local_addr().ok()?);
    let timer = worker.clock.timer();
    let speaks = worker.door.speaks_proxy_protocol(security);
    let origin = worker.door.origin(&mut stream, socket, speaks, &timer, &worker.limits);
    let (peer, local) = origin.await?;
    drop(timer);
    let (transport, session) = match security {
        Security::None => (Transport::Plain(stream), None),
        Security::Tls => {
            let (transport, session) = handshake::accept(worker, stream, peer).await?;
            (transport, Some(session))
        }
    };
    let is_trusted = worker.door.trusts(peer.ip());
    Some((transport, ClientAddress::new(peer, local, session).believed(is_trusted)))
}

async fn tick(worker: Rc<Worker>) {
    let mut interval = tokio::time::interval(TICK);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Burst);
    loop {
        interval.tick().await;
        worker.clock.tick();
        worker.recorder.hand_over();
        if worker.clock.now().is_multiple_of(SWEEP_TICKS) {
            let idle = worker.pool.borrow_mut().sweep(worker.clock.now());
            worker.lines.borrow_mut().sweep(worker.clock.now());
            worker.recorder.counts().upstream_connections_idle(idle);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use rustls::{ClientConnection, StreamOwned};
    use tokio::sync::oneshot;
    use tokio::task::LocalSet;

    use super::*;

    type TlsClient = StreamOwned<ClientConnection, std::net::TcpStream>;

    /// A client that was answered once.
    fn answered(address: SocketAddr, config: Arc<rustls::ClientConfig>) -> TlsClient {
        let session = ClientConnection::new(config, "a.example".try_into().unwrap()).unwrap();
        let mut client = StreamOwned::new(session, std::net::TcpStream::connect(address).unwrap());
        client.write_all(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n").unwrap();
        let (mut answer, mut buffer) = (String::new(), [0; 4096]);
        while !answer.ends_with("\"not_configured\"}\n") {
            let count = client.read(&mut buffer).unwrap();
            assert!(count > 0, "{answer}");
            answer += std::str::from_utf8(&buffer[..count]).unwrap();
        }
        client
    }

    /// Bytes a worker holds while so many clients are connected over TLS and say nothing. Those of the clients are
    /// not among them: memory is counted by thread.
    fn held_for(count: usize) -> i64 {
        let (names, config) = tls::testing::shown_for("a.example");
        let mut kept = None;
        let measured = allocation_counter::measure(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let (local, worker) = (LocalSet::new(), Rc::new(Worker::showing(names)));
            let clients = local.block_on(&runtime, async {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                let address = listener.local_addr().unwrap();
                let (done, mut waiting) = oneshot::channel();
                std::thread::spawn(move || {
                    let clients: Vec<_> =
                        (0..count).map(|_| answered(address, Arc::clone(&config))).collect();
                    let _ = done.send(clients);
                });
                loop {
                    tokio::select! {
                        clients = &mut waiting => break clients.unwrap(),
                        () = async {
                            let (stream, peer) = listener.accept().await.unwrap();
                            let guest = worker.door.enter(peer).unwrap();
                            tokio::task::spawn_local(serve(Rc::clone(&worker), guest, stream, peer, Security::Tls));
                        } => {}
                    }
                }
            });
            kept = Some((runtime, local, worker, clients));
        });
        assert_eq!(kept.map(|(_, _, _, clients)| clients.len()), Some(count));
        measured.bytes_current
    }

    #[test]
    fn an_idle_connection_over_tls_holds_less_than_twenty_kilobytes() {
        let (few, many) = (held_for(8), held_for(72));
        let each = (many - few) / 64;
        assert!((1..20 * 1024).contains(&each), "{each} bytes");
    }
}
