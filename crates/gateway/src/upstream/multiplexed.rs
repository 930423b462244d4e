//! HTTP/2 connections to nodes, with many requests on each, per worker.
//!
//! A request takes a [`Seat`] on an open connection, and only if all are taken another one is opened; while it is
//! being opened, nobody opens a third. A connection that the node is about to close, or that has served enough, takes
//! nobody in any more and ends with the last request on it. One that nobody uses is asked now and then whether it still
//! stands.

use std::cell::Cell;
use std::collections::HashMap;
use std::future::pending;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use h2::{Ping, PingPong};
use tokio::sync::Notify;

use super::Keepalive;
use super::node::Node;
use super::pool::Endpoint;
use crate::http2;
use crate::proxy::reject::RejectReason;
use crate::telemetry::record::Record;
use crate::transport::Transport;
use crate::worker::Worker;
use crate::worker::timer::{Clock, Timer, ticks};

/// Requests on one connection at a time, however many the node allows.
const SEATS_MAX: usize = 100;

/// How often a connection that nobody uses is asked whether it still stands, and how long its answer may take. Not
/// oftener: servers of gRPC close connections that are pinged for no reason.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// The connections of one worker.
#[derive(Default)]
pub(crate) struct Lines {
    open: HashMap<Endpoint, Vec<Rc<Line>>>,
    /// Where a connection is being opened, and who waits for it.
    opening: HashMap<Endpoint, Rc<Notify>>,
}

/// One connection.
struct Line {
    sender: SendRequest<Bytes>,
    taken: Cell<usize>,
    served: Cell<u32>,
    served_max: u32,
    /// Nobody is taken in any more.
    retired: Cell<bool>,
    /// The tick at which the last request left, and how long the connection is kept from then on.
    idle_since: Cell<u64>,
    idle_ticks_max: u64,
    clock: Rc<Clock>,
}

/// A place for one request on a connection.
pub(crate) struct Seat(Rc<Line>);

impl Seat {
    fn take(line: &Rc<Line>) -> Self {
        line.taken.set(line.taken.get() + 1);
        line.served.set(line.served.get() + 1);
        Self(Rc::clone(line))
    }

    /// What the request is sent with.
    pub(crate) fn sender(&self) -> SendRequest<Bytes> {
        self.0.sender.clone()
    }

    /// Whether others had a seat on the connection before.
    pub(crate) fn is_reused(&self) -> bool {
        self.0.served.get() > 1
    }

    /// Lets nobody else onto the connection.
    pub(crate) fn retire(&self) {
        self.0.retired.set(true);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.taken.set(self.0.taken.get() - 1);
        self.0.idle_since.set(self.0.clock.now());
    }
}

impl Line {
    fn takes_more(&self) -> bool {
        let fits = self.taken.get() < SEATS_MAX.min(self.sender.current_max_send_streams());
        fits && self.served.get() < self.served_max
    }

    /// Whether it will serve no further request: it has ended, or is about to.
    fn is_done(&self) -> bool {
        let ready = self.sender.clone().poll_ready(&mut Context::from_waker(Waker::noop()));
        self.retired.get() || self.served.get() >= self.served_max || matches!(ready, Poll::Ready(Err(_)))
    }
}

impl Lines {
    /// A seat on an open connection to `endpoint`.
    fn take(&mut self, endpoint: Endpoint) -> Option<Seat> {
        let lines = self.open.get_mut(&endpoint)?;
        // Requests on what is left out here go on to their end.
        lines.retain(|line| !line.is_done());
        lines.iter().find(|line| line.takes_more()).map(Seat::take)
    }

    /// Closes what nobody used for long enough at the tick `now`.
    pub(crate) fn sweep(&mut self, now: u64) {
        self.open.retain(|_, lines| {
            lines.retain(|line| {
                let expires_at = line.idle_since.get().saturating_add(line.idle_ticks_max);
                !line.is_done() && (line.taken.get() > 0 || expires_at > now)
            });
            !lines.is_empty()
        });
    }
}

/// A connection that is being opened; when it is dropped, those who waited look again.
struct Opening<'w>(&'w Rc<Worker>, Endpoint);

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        let waiting = self.0.lines.borrow_mut().opening.remove(&self.1);
        if let Some(waiting) = waiting {
            waiting.notify_waiters();
        }
    }
}

/// A seat on a connection to a node, opened now if there is none.
pub(crate) async fn seat(
    worker: &Rc<Worker>,
    node: &Node,
    endpoint: Endpoint,
    limits: Keepalive,
    record: &Record<'_>,
) -> Result<Seat, RejectReason> {
    loop {
        let opening = {
            let mut lines = worker.lines.borrow_mut();
            if let Some(seat) = lines.take(endpoint) {
                return Ok(seat);
            }
            let opening = lines.opening.get(&endpoint).cloned();
            if opening.is_none() {
                lines.opening.insert(endpoint, Rc::default());
            }
            opening
        };
        if let Some(opening) = opening {
            opening.notified().await;
            continue;
        }
        let opening = Opening(worker, endpoint);
        let transport = node.connect(endpoint.address).await?;
        let opened = open(worker, transport, limits).await;
        let line = opened.map_err(|_| RejectReason::UpstreamConnectFailed)?;
        record.connected();
        let seat = Seat::take(&line);
        worker.lines.borrow_mut().open.entry(endpoint).or_default().push(line);
        drop(opening);
        return Ok(seat);
    }
}

async fn open(worker: &Rc<Worker>, transport: Transport, limits: Keepalive) -> Result<Rc<Line>, h2::Error> {
    let (sender, mut connection) = http2::client().handshake::<_, Bytes>(transport).await?;
    let idle_ticks_max = match limits.idle_timeout {
        Duration::ZERO => u64::MAX,
        timeout => ticks(timeout),
    };
    let line = Rc::new(Line {
        sender,
        taken: Cell::new(0),
        served: Cell::new(0),
        served_max: limits.requests_max,
        retired: Cell::new(false),
        idle_since: Cell::new(worker.clock.now()),
        idle_ticks_max,
        clock: Rc::clone(&worker.clock),
    });
    let (pings, watched) = (connection.ping_pong(), Rc::downgrade(&line));
    let timer = worker.clock.timer();
    tokio::task::spawn_local(async move {
        // Whoever is on it learns of its end by the end of their streams.
        tokio::select! {
            ended = connection => if let Err(error) = ended {
                tracing::debug!(%error, "a connection to a node ended");
            },
            () = deaf(pings, &watched, &timer) => tracing::debug!("a connection to a node is dead"),
        }
    });
    Ok(line)
}

/// Ends when a connection that nobody uses no longer answers: what lies between may have forgotten it, and nothing
/// would tell the next request but silence.
async fn deaf(pings: Option<PingPong>, line: &Weak<Line>, timer: &Timer) {
    let Some(mut pings) = pings else { return pending().await };
    loop {
        let _ = timer.limit(PING_INTERVAL, pending::<()>()).await;
        let is_idle = line.upgrade().is_some_and(|line| line.taken.get() == 0);
        if is_idle && timer.limit(PING_TIMEOUT, pings.ping(Ping::opaque())).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::io::AsyncReadExt;
    use tokio::net::{TcpListener, TcpStream};
    use tokio::task::{LocalSet, spawn_local, yield_now};

    use super::*;

    const LIMITS: Keepalive = Keepalive { idle_max: 1, idle_timeout: Duration::ZERO, requests_max: 1000 };

    /// Lets time pass, and others work so many times in each tick.
    async fn pass(worker: &Worker, time: Duration, turns: usize) {
        for _ in 0..ticks(time) {
            worker.clock.tick();
            for _ in 0..turns {
                yield_now().await;
            }
        }
    }

    /// Whether an idle connection to a node is given up after two rounds of asking.
    async fn is_given_up(node_answers: bool) -> bool {
        let worker = Rc::new(Worker::showing(Arc::default()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        spawn_local(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            if node_answers {
                let mut connection = h2::server::handshake(stream).await.unwrap();
                while connection.accept().await.is_some() {}
            } else {
                let _ = stream.read_to_end(&mut Vec::new()).await;
            }
        });
        let transport = Transport::Plain(TcpStream::connect(address).await.unwrap());
        let line = open(&worker, transport, LIMITS).await.unwrap();
        for _ in 0..2 {
            pass(&worker, PING_INTERVAL, 1).await;
            // Time enough for a ping and its answer.
            pass(&worker, PING_TIMEOUT, 400).await;
        }
        line.is_done()
    }

    #[tokio::test]
    async fn a_connection_that_nobody_uses_is_given_up_once_nothing_answers_on_it() {
        let local = LocalSet::new();
        assert!(!local.run_until(is_given_up(true)).await);
        assert!(local.run_until(is_given_up(false)).await);
    }
}
