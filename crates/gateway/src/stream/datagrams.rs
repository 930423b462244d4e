//! Datagrams: those of one client address to one port are a conversation with one node.
//!
//! A conversation begins with a datagram of an address that has none, and ends when neither side has said anything for
//! the upstream's read timeout. It counts as a connection of a client, so there are never more than the gateway lets in.
//! As with any network, what cannot be passed on at once is lost.
//!
//! A node whose machine says that nobody listens is passed over like one that takes no connection: what the client has
//! said so far goes to the next node. Silence is no refusal, since many protocols only answer now and then.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use gatewright_model::stream::claim::{Carrier, Greeting};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::sync::Notify;

use super::found::{Found, find};
use super::passage::Passage;
use super::record::{Arrived, Ends, Record};
use super::relay::{Life, doomed};
use crate::proxy::reject::RejectReason;
use crate::telemetry::metrics::streams::StreamEnd;
use crate::upstream::balance::Asked;
use crate::upstream::tries::{Failed, Tries, Try};
use crate::worker::Worker;
use crate::worker::door::Guest;
use crate::worker::timer::TICK;

/// Datagrams that are kept until the node of a new conversation is known to listen.
const KEPT_MAX: usize = 16;

/// The conversations of one socket, by the address of the client.
type Conversations = Rc<RefCell<HashMap<SocketAddr, Rc<Conversation>>>>;

/// What a client and a node say to each other.
#[derive(Default)]
struct Conversation {
    /// The node that is talked to, once one is chosen.
    node: RefCell<Option<Rc<Line>>>,
    /// What the client has said, for the next node should this one not listen; none: it does.
    kept: RefCell<Option<VecDeque<Bytes>>>,
    /// When anybody last said something, in ticks.
    heard: Cell<u64>,
    bytes_in: Cell<u64>,
    bytes_out: Cell<u64>,
}

/// The way to one node.
struct Line {
    socket: UdpSocket,
    /// Told when sending shows that nobody listens there.
    refused: Notify,
}

impl Line {
    fn send(&self, datagram: &[u8]) {
        let sent = self.socket.try_send(datagram);
        if sent.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused) {
            self.refused.notify_one();
        }
    }

    /// Waits until it turns out that nobody listens there.
    async fn refused(&self) {
        tokio::select! {
            () = self.refused.notified() => {}
            () = failed(&self.socket) => {}
        }
    }
}

/// Waits until the system has an error to tell of `socket`.
async fn failed(socket: &UdpSocket) {
    while socket.ready(Interest::ERROR).await.is_ok() {
        if !matches!(socket.take_error(), Ok(None)) {
            return;
        }
        // Whoever sent or received last was told, so the next error is waited for.
        let _ = socket.try_io(Interest::ERROR, || Err::<(), _>(ErrorKind::WouldBlock.into()));
    }
}

impl Conversation {
    fn begun(now: u64) -> Self {
        Self { heard: Cell::new(now), kept: RefCell::new(Some(VecDeque::new())), ..Self::default() }
    }

    fn hear(&self, worker: &Worker, datagram: &[u8]) {
        self.heard.set(worker.clock.now());
        self.bytes_in.set(self.bytes_in.get() + datagram.len() as u64);
        if let Some(kept) = &mut *self.kept.borrow_mut()
            && kept.len() < KEPT_MAX
        {
            kept.push_back(Bytes::copy_from_slice(datagram));
        }
        if let Some(node) = &*self.node.borrow() {
            node.send(datagram);
        }
    }

    /// Talks to a node from now on, which hears what was kept.
    fn turn_to(&self, line: &Rc<Line>) {
        self.kept.borrow().iter().flatten().for_each(|datagram| line.send(datagram));
        *self.node.borrow_mut() = Some(Rc::clone(line));
    }

    /// The node listens, as far as anybody can know.
    fn settle(&self) {
        *self.kept.borrow_mut() = None;
    }

    fn is_settled(&self) -> bool {
        self.kept.borrow().is_none()
    }
}

/// Receives the datagrams of `socket` until it is dropped; conversations go on.
pub(super) async fn receive(worker: &Rc<Worker>, socket: UdpSocket) {
    let (socket, conversations) = (Rc::new(socket), Conversations::default());
    let Ok(server) = socket.local_addr() else { return };
    while socket.readable().await.is_ok() {
        let mut piece = worker.pieces.take();
        loop {
            piece.clear();
            let Ok((_, client)) = socket.try_recv_buf_from(&mut piece) else { break };
            let known = conversations.borrow().get(&client).cloned();
            let conversation =
                known.or_else(|| begin(worker, &socket, &conversations, Ends { client, server }));
            if let Some(conversation) = conversation {
                conversation.hear(worker, &piece);
            }
        }
        worker.pieces.give_back(piece);
    }
}

/// Begins a conversation; `None`: the client is not let in, or nobody serves it.
fn begin(
    worker: &Rc<Worker>,
    socket: &Rc<UdpSocket>,
    conversations: &Conversations,
    ends: Ends,
) -> Option<Rc<Conversation>> {
    let Some(found) = find(worker, Carrier::Udp, ends, Greeting::Plain) else {
        worker.recorder.unmatched_stream().refused();
        return None;
    };
    let guest = worker.door.enter(ends.client)?;
    let conversation = Rc::new(Conversation::begun(worker.clock.now()));
    conversations.borrow_mut().insert(ends.client, Rc::clone(&conversation));
    worker.stream_begun();
    let talk = Talk { socket: Rc::clone(socket), ends, conversation: Rc::clone(&conversation) };
    let (worker, conversations) = (Rc::clone(worker), Rc::clone(conversations));
    tokio::task::spawn_local(Box::pin(serve(worker, guest, talk, found, conversations)));
    Some(conversation)
}

/// A conversation, and the socket on which its client is talked to.
struct Talk {
    socket: Rc<UdpSocket>,
    ends: Ends,
    conversation: Rc<Conversation>,
}

async fn serve(worker: Rc<Worker>, guest: Guest, talk: Talk, found: Found, conversations: Conversations) {
    let arrived = Arrived { carrier: Carrier::Udp, ends: talk.ends, server_name: None };
    let mut passage = Passage::begin(&worker, &found, arrived);
    let end = match passage.admit().await {
        Ok(()) => pass(&worker, &talk, &passage).await,
        Err(end) => end,
    };
    conversations.borrow_mut().remove(&talk.ends.client);
    let Conversation { bytes_in, bytes_out, .. } = &*talk.conversation;
    passage.end(end, bytes_in.get(), bytes_out.get());
    drop(guest);
    worker.stream_ended();
}

async fn pass(worker: &Worker, talk: &Talk, passage: &Passage<'_>) -> StreamEnd {
    let upstream = match passage.upstream() {
        Ok(upstream) => upstream,
        Err(reason) => return passage.unreachable(reason),
    };
    let record = &passage.record;
    let asked = Asked { worker: worker.index, key: upstream.hash_key(&record.arrived) };
    let mut tries = Tries::new(&upstream, asked, worker.clock.now());
    let Some(mut current) = tries.first() else { return passage.unreachable(RejectReason::NoNodes) };
    let is_served = || passage.found.is_served(worker);
    let life = Life { worker, silence_max: upstream.timeouts.read, is_served: &is_served };
    loop {
        record.tried();
        let reason = match talk_to(&current, (talk, record), upstream.timeouts.connect, &life).await {
            Ok(end) => return end,
            Err(reason) => reason,
        };
        current.failed(reason);
        if talk.conversation.is_settled() {
            return StreamEnd::NodeBroken;
        }
        current = match tries.another(&current, Failed::Unsent, worker.clock.now()) {
            Some(next) => next,
            None => return passage.unreachable(reason),
        };
    }
}

/// Talks to one node for as long as there is anything to say; an error if it turns out not to listen.
async fn talk_to(
    current: &Try<'_>,
    (talk, record): (&Talk, &Record<'_>),
    refusal_max: Duration,
    life: &Life<'_>,
) -> Result<StreamEnd, RejectReason> {
    let (worker, conversation) = (life.worker, &talk.conversation);
    let timer = worker.clock.timer();
    let address = timer.limit(refusal_max, current.node.address(worker.index)).await;
    let address = address.ok().flatten().ok_or(RejectReason::NameUnresolved)?;
    record.node(address);
    let socket = connected(address).await.map_err(|error| {
        tracing::debug!(%address, %error, "no datagrams can be sent to a node");
        RejectReason::UpstreamConnectFailed
    })?;
    let line = Rc::new(Line { socket, refused: Notify::new() });
    conversation.turn_to(&line);
    let settling = async {
        let _ = timer.limit(refusal_max, std::future::pending::<()>()).await;
        conversation.settle();
        std::future::pending::<()>().await
    };
    tokio::select! {
        () = answer(worker, talk, &line.socket, current) => {}
        () = line.refused() => {}
        () = settling => {}
        () = silent(worker, conversation, life.silence_max) => return Ok(StreamEnd::Done),
        end = doomed(life) => return Ok(end),
    }
    Err(RejectReason::UpstreamConnectFailed)
}

/// Passes on what the node says, until it refuses to talk.
async fn answer(worker: &Worker, talk: &Talk, node: &UdpSocket, current: &Try<'_>) {
    let Talk { socket, ends, conversation } = talk;
    let mut is_first = true;
    while node.readable().await.is_ok() {
        let mut piece = worker.pieces.take();
        let ended = loop {
            piece.clear();
            match node.try_recv_buf(&mut piece) {
                Ok(count) => {
                    if std::mem::take(&mut is_first) {
                        current.connected();
                        conversation.settle();
                    }
                    conversation.heard.set(worker.clock.now());
                    conversation.bytes_out.set(conversation.bytes_out.get() + count as u64);
                    // A client that does not take it in loses it.
                    let _ = socket.try_send_to(&piece, ends.client);
                }
                Err(error) => break error.kind() != ErrorKind::WouldBlock,
            }
        };
        worker.pieces.give_back(piece);
        if ended {
            return;
        }
    }
}

async fn connected(address: SocketAddr) -> io::Result<UdpSocket> {
    let any: SocketAddr = match address {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(address).await?;
    // Until the runtime has heard that it is, nothing can be sent without waiting.
    socket.writable().await?;
    Ok(socket)
}

/// Ends when neither side has said anything for too long; a gateway that stops waits only for what may still be
/// answered.
async fn silent(worker: &Worker, conversation: &Conversation, max: Duration) {
    let timer = worker.clock.timer();
    loop {
        let silence = worker.clock.now().saturating_sub(conversation.heard.get());
        let silence = TICK.saturating_mul(u32::try_from(silence).unwrap_or(u32::MAX));
        let mut left = max.saturating_sub(silence);
        if left.is_zero() {
            return;
        }
        if worker.stopping.get() {
            left = left.min(worker.limits.shutdown_grace);
        }
        let _ = timer.limit_idle(left, std::future::pending::<()>()).await;
        if worker.stopping.get() {
            return;
        }
    }
}
