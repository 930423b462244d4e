//! Datagrams: those of one client address to one port are a conversation with one node.
//!
//! A conversation begins with a datagram of an address that has none, and ends when neither side has said anything for
//! the upstream's read timeout. It counts as a connection of a client, so there are never more than the gateway lets in.
//! As with any network, what cannot be passed on at once is lost.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;

use bytes::Bytes;
use gatewright_model::stream::claim::{Carrier, Greeting};
use tokio::net::UdpSocket;
use tokio::sync::Notify;

use super::found::{Found, find};
use super::passage::Passage;
use super::record::{Arrived, Ends, Record};
use super::relay::{Life, doomed};
use crate::proxy::reject::RejectReason;
use crate::telemetry::metrics::streams::StreamEnd;
use crate::upstream::Upstream;
use crate::upstream::balance::Asked;
use crate::upstream::tries::{Tries, Try};
use crate::worker::Worker;
use crate::worker::door::Guest;

/// Datagrams that wait for the node of a new conversation.
const WAITING_MAX: usize = 16;

/// The conversations of one socket, by the address of the client.
type Conversations = Rc<RefCell<HashMap<SocketAddr, Rc<Conversation>>>>;

/// What a client and a node say to each other.
#[derive(Default)]
struct Conversation {
    /// The socket on which the node is talked to, once it is chosen.
    node: OnceCell<UdpSocket>,
    /// What the client said before.
    waiting: RefCell<VecDeque<Bytes>>,
    /// When anybody last said something, in ticks.
    heard: Cell<u64>,
    bytes_in: Cell<u64>,
    bytes_out: Cell<u64>,
    /// Told when the node turns out not to listen.
    refused: Notify,
}

impl Conversation {
    fn hear(&self, worker: &Worker, datagram: &[u8]) {
        self.heard.set(worker.clock.now());
        self.bytes_in.set(self.bytes_in.get() + datagram.len() as u64);
        let Some(node) = self.node.get() else {
            let mut waiting = self.waiting.borrow_mut();
            if waiting.len() < WAITING_MAX {
                waiting.push_back(Bytes::copy_from_slice(datagram));
            }
            return;
        };
        self.note(node.try_send(datagram));
    }

    fn note(&self, sent: io::Result<usize>) {
        if sent.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused) {
            self.refused.notify_one();
        }
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
    let conversation =
        Rc::new(Conversation { heard: Cell::new(worker.clock.now()), ..Conversation::default() });
    conversations.borrow_mut().insert(ends.client, Rc::clone(&conversation));
    worker.begun();
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
    worker.ended();
}

async fn pass(worker: &Worker, talk: &Talk, passage: &Passage<'_>) -> StreamEnd {
    let upstream = match passage.upstream() {
        Ok(upstream) => upstream,
        Err(reason) => return passage.unreachable(reason),
    };
    let (current, node) = match choose(worker, &upstream, &passage.record).await {
        Ok(chosen) => chosen,
        Err(reason) => return passage.unreachable(reason),
    };
    let conversation = &talk.conversation;
    let node = conversation.node.get_or_init(|| node);
    let waiting = std::mem::take(&mut *conversation.waiting.borrow_mut());
    waiting.iter().for_each(|datagram| conversation.note(node.try_send(datagram)));
    let is_served = || passage.found.is_served(worker);
    let life = Life { worker, silence_max: upstream.timeouts.read, is_served: &is_served };
    tokio::select! {
        () = answer(worker, talk, node, &current) => {}
        () = conversation.refused.notified() => {}
        () = silent(worker, conversation, life.silence_max) => return StreamEnd::Done,
        end = doomed(&life) => return end,
    }
    current.failed(RejectReason::UpstreamConnectFailed);
    StreamEnd::NodeBroken
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

/// A node that has an address, and a socket to talk to it.
async fn choose<'u>(
    worker: &Worker,
    upstream: &'u Upstream,
    record: &Record<'_>,
) -> Result<(Try<'u>, UdpSocket), RejectReason> {
    let asked = Asked { worker: worker.index, key: upstream.hash_key(&record.arrived) };
    let tries = Tries::new(upstream, asked, worker.clock.now());
    let current = tries.first().ok_or(RejectReason::NoNodes)?;
    record.tried();
    let timer = worker.clock.timer();
    let address = timer.limit(upstream.timeouts.connect, current.node.address(worker.index)).await;
    let address = address.ok().flatten().ok_or(RejectReason::NameUnresolved)?;
    record.node(address);
    match connected(address).await {
        Ok(node) => Ok((current, node)),
        Err(error) => {
            tracing::debug!(%address, %error, "no datagrams can be sent to a node");
            current.failed(RejectReason::UpstreamConnectFailed);
            Err(RejectReason::UpstreamConnectFailed)
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
    Ok(socket)
}

/// Ends when neither side has said anything for too long; a gateway that stops waits only for what may still be
/// answered.
async fn silent(worker: &Worker, conversation: &Conversation, max: std::time::Duration) {
    let timer = worker.clock.timer();
    loop {
        let silence = worker.clock.now().saturating_sub(conversation.heard.get());
        let left = max.saturating_sub(
            crate::worker::timer::TICK.saturating_mul(u32::try_from(silence).unwrap_or(u32::MAX)),
        );
        if left.is_zero() || worker.stopping.get() {
            return;
        }
        let _ = timer.limit_idle(left, std::future::pending::<()>()).await;
    }
}
