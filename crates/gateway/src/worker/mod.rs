//! A worker: one thread, one single-threaded runtime, its own listener, connection pool, timers and buffers.
//!
//! Workers share the live configuration, which is immutable, and nothing else. Everything a worker's connections
//! share is in [`Worker`], on one thread, without locks.

pub(crate) mod buffers;
pub(crate) mod listen;
pub(crate) mod timer;

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};

use crate::live::current::Reader;
use crate::proxy;
use crate::upstream::pool::Pool;
use buffers::Buffers;
use timer::{Clock, TICK};

/// Client connections one worker serves at a time; more are closed at once, so that those accepted keep working.
const CONNECTIONS_MAX: usize = 50_000;

/// How long accepting pauses when the system has no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How often idle upstream connections are looked through, in ticks.
const SWEEP_TICKS: u64 = 10;

/// What the connections of one worker share.
pub(crate) struct Worker {
    /// Which worker this is, counted from 0.
    pub(crate) index: usize,
    pub(crate) live: Reader,
    pub(crate) clock: Rc<Clock>,
    pub(crate) pool: RefCell<Pool>,
    pub(crate) buffers: Buffers,
    /// Set once the gateway stops: connections close after the request they are on.
    pub(crate) stopping: Cell<bool>,
    connections: Cell<usize>,
    connection_closed: Notify,
}

/// Serves `listener` until `stop` says so, then until the last connection is done. The caller enforces the deadline.
pub(crate) async fn run(index: usize, listener: TcpListener, live: Reader, mut stop: watch::Receiver<bool>) {
    let worker = Rc::new(Worker {
        index,
        live,
        clock: Rc::default(),
        pool: RefCell::default(),
        buffers: Buffers::default(),
        stopping: Cell::new(false),
        connections: Cell::new(0),
        connection_closed: Notify::new(),
    });
    let ticking = tokio::task::spawn_local(tick(Rc::clone(&worker)));
    tokio::select! {
        () = accept(&worker, &listener) => {}
        _ = stop.wait_for(|stop| *stop) => {}
    }
    drop(listener);
    worker.stopping.set(true);
    worker.clock.expire_idle();
    while worker.connections.get() > 0 {
        worker.connection_closed.notified().await;
    }
    ticking.abort();
}

async fn accept(worker: &Rc<Worker>, listener: &TcpListener) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) if worker.connections.get() < CONNECTIONS_MAX => {
                worker.connections.set(worker.connections.get() + 1);
                tokio::task::spawn_local(serve(Rc::clone(worker), stream, peer));
            }
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve(worker: Rc<Worker>, stream: tokio::net::TcpStream, peer: SocketAddr) {
    proxy::serve(&worker, stream, peer).await;
    worker.connections.set(worker.connections.get() - 1);
    worker.connection_closed.notify_one();
}

async fn tick(worker: Rc<Worker>) {
    let mut interval = tokio::time::interval(TICK);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Burst);
    loop {
        interval.tick().await;
        worker.clock.tick();
        if worker.clock.now().is_multiple_of(SWEEP_TICKS) {
            worker.pool.borrow_mut().sweep(worker.clock.now());
        }
    }
}
