//! One request on one connection to one node: sent, answered, and the connection given back or closed.
//!
//! The answer decides. It may begin before the request has been sent as a whole; once any of it has gone to the
//! client, a failure can only be shown by closing.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use gatewright_model::message::{Method, ResponseHead, Version};
use tokio::io::AsyncReadExt;

use super::connection::{CLIENT_TIMEOUT, Client, Unread};
use super::exchange::{Failure, Sending, Wish};
use super::headers;
use super::reject::RejectReason;
use super::relay::{Body, Broken, READ_BYTES_SMALL, Sink, Source, relay, write_all};
use super::tunnel;
use crate::http1::framing::Framing;
use crate::http1::scan::{self, Progress};
use crate::http1::{HEAD_BYTES_MAX, Malformed, response, write};
use crate::transport::{ReadHalf, WriteHalf};
use crate::upstream::Timeouts;
use crate::upstream::pool::Connection;
use crate::upstream::tries::Try;
use crate::worker::buffers::Workspace;
use crate::worker::timer::{Clock, Timer};

/// Interim answers (1xx) an upstream may give before the real one.
const INTERIM_ANSWERS_MAX: usize = 16;

/// One request on one connection to a node.
pub(super) struct Attempt<'a, 's> {
    pub(super) clock: &'a Rc<Clock>,
    pub(super) client: &'a mut Client<'s>,
    pub(super) workspace: &'a mut Workspace,
    pub(super) timeouts: Timeouts,
    pub(super) wish: Wish,
    pub(super) unread: &'a mut Unread,
    pub(super) current: &'a Try<'a>,
}

/// An attempt that came to its end.
pub(super) struct Done {
    /// Whether the client's connection lives on.
    pub(super) persists: bool,
    /// The connection to the node, if it can serve again.
    pub(super) reusable: Option<Connection>,
}

/// An attempt that failed.
pub(super) struct Trouble {
    pub(super) failure: Failure,
    /// Whether not a single byte of an answer arrived.
    pub(super) unanswered: bool,
}

impl Trouble {
    /// Whether the node had closed a connection that was kept open, as it may at any time.
    pub(super) fn is_stale(&self, reused: bool) -> bool {
        reused && self.unanswered && self.failure == Failure::Reject(RejectReason::UpstreamClosed)
    }
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Self { failure, unanswered: false }
    }
}

impl From<RejectReason> for Trouble {
    fn from(reason: RejectReason) -> Self {
        Failure::Reject(reason).into()
    }
}

impl Attempt<'_, '_> {
    pub(super) async fn run(self, connection: Connection, sending: Sending) -> Result<Done, Trouble> {
        let Attempt { clock, client, workspace, timeouts, wish, unread, current } = self;
        let Workspace { inbound, answer, outbound, reply, request, response } = workspace;
        let Client { reader, writer, timer, upload_timer, .. } = client;
        let Connection { mut transport, served } = connection;
        let (mut node_reader, mut node_writer) = transport.split();
        answer.clear();
        reply.clear();
        let uploading = Cell::new(matches!(sending, Sending::Stream(_)));
        let receiving = Receiving {
            node: &mut node_reader,
            answer,
            read_limit: timeouts.read,
            client: writer,
            reply,
            method: request.method,
            version: request.version,
            persists: wish.persists,
            upgrades: wish.upgrades,
            uploading: &uploading,
            timer,
            current,
        };
        let received = match sending {
            Sending::Whole(length) => {
                let sent = write_all(&mut node_writer, outbound, timeouts.send, timer).await;
                sent.map_err(|broken| Trouble { failure: send_failure(broken), unanswered: true })?;
                let received = receiving.run(response).await?;
                inbound.advance(length);
                *unread = Unread::Nothing;
                received
            }
            Sending::Stream(framing) => {
                *unread = Unread::Unknown;
                if wish.expects && inbound.is_empty() {
                    write_continue(receiving.client, timer).await?;
                }
                let source = Source { reader, buffer: inbound, read_limit: CLIENT_TIMEOUT };
                let chunked = framing == Framing::Chunked;
                let sink =
                    Sink { writer: &mut node_writer, staged: outbound, write_limit: timeouts.send, chunked };
                let upload = relay(Body::from(framing), source, sink, upload_timer);
                let (received, uploaded) = beside(upload, receiving.run(response), &uploading).await?;
                if uploaded {
                    *unread = Unread::Nothing;
                }
                received
            }
        };
        if received.switched {
            let node = tunnel::End {
                reader: &mut node_reader,
                writer: &mut node_writer,
                said: answer,
                timer: upload_timer,
            };
            let client = tunnel::End { reader, writer, said: inbound, timer };
            tunnel::run(client, node, clock, timeouts.read).await;
            return Ok(Done { persists: false, reusable: None });
        }
        let whole = *unread == Unread::Nothing;
        let reusable = received.node_persists && whole && answer.is_empty();
        Ok(Done {
            persists: received.client_persists && whole,
            reusable: reusable.then(|| Connection { transport, served: served + 1 }),
        })
    }
}

/// Tells the client to go on with its body.
pub(super) async fn write_continue(client: &mut WriteHalf<'_>, timer: &Timer) -> Result<(), Failure> {
    let interim = b"HTTP/1.1 100 Continue\r\n\r\n";
    write_all(client, interim, CLIENT_TIMEOUT, timer).await.map_err(|_| Failure::Broken)
}

/// What a failure to send the request means.
pub(super) fn send_failure(broken: Broken) -> Failure {
    match broken {
        Broken::SinkTimeout => Failure::Reject(RejectReason::UpstreamSendTimeout),
        Broken::SinkClosed => Failure::Reject(RejectReason::UpstreamClosed),
        Broken::SourceMalformed => Failure::Reject(RejectReason::Malformed(Malformed::Chunk)),
        Broken::SourceTimeout => Failure::Reject(RejectReason::BodyTimeout),
        Broken::SourceClosed => Failure::Broken,
    }
}

/// Runs an upload beside the answer. The answer decides: a node may answer before it has read everything. A node
/// that takes no more may have answered already, so its answer is waited for; a client that breaks off ends both.
/// Says also whether the upload came to its end.
async fn beside(
    upload: impl Future<Output = Result<(), Broken>>,
    answer: impl Future<Output = Result<Received, Trouble>>,
    uploading: &Cell<bool>,
) -> Result<(Received, bool), Trouble> {
    let mut upload = pin!(upload);
    let mut answer = pin!(answer);
    let mut ended: Option<Result<(), Broken>> = None;
    poll_fn(|context| {
        if ended.is_none()
            && let Poll::Ready(result) = upload.as_mut().poll(context)
        {
            uploading.set(false);
            ended = Some(result);
        }
        match ended {
            Some(Err(broken)) if broken != Broken::SinkClosed => {
                return Poll::Ready(Err(Trouble::from(send_failure(broken))));
            }
            _ => {}
        }
        answer.as_mut().poll(context).map_ok(|received| (received, ended == Some(Ok(()))))
    })
    .await
}

/// An answer on its way from a node to the client.
struct Receiving<'a, 's, 'n> {
    node: &'a mut ReadHalf<'n>,
    answer: &'a mut BytesMut,
    read_limit: Duration,
    client: &'a mut WriteHalf<'s>,
    reply: &'a mut Vec<u8>,
    method: Method,
    version: Version,
    persists: bool,
    upgrades: bool,
    uploading: &'a Cell<bool>,
    timer: &'a Timer,
    current: &'a Try<'a>,
}

/// What an answer left behind.
struct Received {
    client_persists: bool,
    node_persists: bool,
    /// The connection is a WebSocket now.
    switched: bool,
}

impl Receiving<'_, '_, '_> {
    async fn run(mut self, head: &mut ResponseHead) -> Result<Received, Trouble> {
        let framing = self.read_final_head(head).await?;
        self.current.answered(head.status);
        if head.status == 101 {
            return self.switch(head).await;
        }
        let node_persists = headers::remove_hop_by_hop(&mut head.fields).persists(head.version);
        let (chunked, client_persists) = self.write_head(head, framing);
        let source = Source { reader: self.node, buffer: self.answer, read_limit: self.read_limit };
        let sink = Sink { writer: self.client, staged: self.reply, write_limit: CLIENT_TIMEOUT, chunked };
        // The client has an answer or part of one: a broken body can only be cut, never replaced.
        let relayed = relay(Body::from(framing), source, sink, self.timer).await;
        relayed.map_err(|_| Failure::Broken)?;
        let node_persists = node_persists && framing != Framing::UntilClose;
        Ok(Received { client_persists, node_persists, switched: false })
    }

    /// Tells the client that the node agreed to a WebSocket.
    async fn switch(self, head: &mut ResponseHead) -> Result<Received, Trouble> {
        headers::remove_hop_by_hop(&mut head.fields);
        write::response_start(head, self.reply);
        headers::write_upgrade(self.reply);
        write::end(self.reply);
        let written = write_all(self.client, self.reply, CLIENT_TIMEOUT, self.timer).await;
        written.map_err(|_| Failure::Broken)?;
        Ok(Received { client_persists: false, node_persists: false, switched: true })
    }

    async fn read_final_head(&mut self, head: &mut ResponseHead) -> Result<Framing, Trouble> {
        for _ in 0..INTERIM_ANSWERS_MAX {
            let end = self.read_head_bytes().await?;
            let framing = response::parse(&self.answer[..end], self.method, head);
            self.answer.advance(end);
            let framing = framing.map_err(|_| RejectReason::UpstreamMalformed)?;
            match head.status {
                101 if self.upgrades && tunnel::is_agreed(&head.fields) => return Ok(framing),
                // Nobody asked for another protocol.
                101 => break,
                100..=199 => {}
                _ => return Ok(framing),
            }
        }
        Err(RejectReason::UpstreamMalformed.into())
    }

    async fn read_head_bytes(&mut self) -> Result<usize, Trouble> {
        let mut progress = Progress::default();
        loop {
            let end =
                scan::head_end(self.answer, &mut progress).map_err(|_| RejectReason::UpstreamMalformed)?;
            if let Some(end) = end.filter(|end| *end <= HEAD_BYTES_MAX) {
                return Ok(end);
            }
            if end.is_some() || self.answer.len() > HEAD_BYTES_MAX {
                return Err(RejectReason::UpstreamMalformed.into());
            }
            self.answer.reserve(READ_BYTES_SMALL);
            match self.timer.limit(self.read_limit, self.node.read_buf(self.answer)).await {
                Ok(Ok(0) | Err(_)) => {
                    let failure = Failure::Reject(RejectReason::UpstreamClosed);
                    return Err(Trouble { failure, unanswered: self.answer.is_empty() });
                }
                Ok(Ok(_)) => {}
                // The node owes an answer only once it has the whole request.
                Err(_) if self.uploading.get() => {}
                Err(_) => {
                    let failure = Failure::Reject(RejectReason::UpstreamReadTimeout);
                    return Err(Trouble { failure, unanswered: self.answer.is_empty() });
                }
            }
        }
    }

    /// Stages the head of the answer; says whether the body is sent in chunks and whether the client's connection
    /// lives on.
    fn write_head(&mut self, head: &ResponseHead, framing: Framing) -> (bool, bool) {
        let needs_framing = matches!(framing, Framing::Chunked | Framing::UntilClose);
        let chunked = needs_framing && self.version == Version::Http11;
        // An HTTP/1.0 client learns the end of such a body from the end of the connection.
        let persists = self.persists && (chunked || !needs_framing);
        write::response_start(head, self.reply);
        if chunked {
            write::field(b"Transfer-Encoding", b"chunked", self.reply);
        }
        match (persists, self.version) {
            (false, _) => write::field(b"Connection", b"close", self.reply),
            (true, Version::Http10) => write::field(b"Connection", b"keep-alive", self.reply),
            (true, Version::Http11) => {}
        }
        write::end(self.reply);
        (chunked, persists)
    }
}
