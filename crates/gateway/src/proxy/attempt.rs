//! One request on one connection to one node: sent, answered, and the connection given back or closed.
//!
//! The answer decides. It may begin before the request has been sent as a whole; once any of it has gone to the
//! client, a failure can only be shown by closing.

use std::cell::Cell;
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use gatewright_model::message::{Method, ResponseHead, Version};
use tokio::io::AsyncReadExt;

use super::connection::{Client, Unread};
use super::exchange::{Failure, Sending, Wish};
use super::headers;
use super::reject::RejectReason;
use super::relay::{Body, Broken, READ_BYTES_SMALL, Sink, Source, relay, write_all, write_rest};
use super::tunnel;
use crate::config::Limits;
use crate::http1::framing::Framing;
use crate::http1::scan::{self, Progress};
use crate::http1::{HEAD_BYTES_MAX, Malformed, response, write};
use crate::telemetry::record::Record;
use crate::transport::{ReadHalf, Traffic, WriteHalf};
use crate::upstream::Timeouts;
use crate::upstream::pool::Connection;
use crate::upstream::tries::{Failed, Try};
use crate::worker::buffers::Workspace;
use crate::worker::timer::{Clock, Timer};

/// Interim answers (1xx) an upstream may give before the real one.
const INTERIM_ANSWERS_MAX: usize = 16;

/// One request on one connection to a node.
pub(super) struct Attempt<'a, 's, 'l> {
    pub(super) clock: &'a Rc<Clock>,
    pub(super) limits: &'a Limits,
    pub(super) client: &'a mut Client<'s>,
    pub(super) workspace: &'a mut Workspace,
    pub(super) timeouts: Timeouts,
    pub(super) wish: Wish,
    pub(super) unread: &'a mut Unread,
    pub(super) current: &'a Try<'a>,
    pub(super) record: &'a Record<'l>,
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
    /// Whether not a single byte of the request was taken.
    pub(super) unsent: bool,
}

impl Trouble {
    /// Whether the node had closed a connection that was kept open, as it may at any time.
    pub(super) fn is_stale(&self, reused: bool) -> bool {
        reused && self.unanswered && self.failure == Failure::Reject(RejectReason::UpstreamClosed)
    }

    /// What it means for another try, if one is conceivable.
    pub(super) fn as_failed(&self) -> Option<Failed> {
        match self {
            Self { unsent: true, .. } => Some(Failed::Unsent),
            Self { unanswered: true, .. } => Some(Failed::Unanswered),
            _ => None,
        }
    }
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Self { failure, unanswered: false, unsent: false }
    }
}

impl From<RejectReason> for Trouble {
    fn from(reason: RejectReason) -> Self {
        Failure::Reject(reason).into()
    }
}

impl Attempt<'_, '_, '_> {
    pub(super) async fn run(self, connection: Connection, sending: Sending) -> Result<Done, Trouble> {
        let Attempt { clock, limits, client, workspace, timeouts, wish, unread, current, record } = self;
        let Workspace { inbound, answer, outbound, reply, request, response } = workspace;
        let Client { reader, writer, timer, upload_timer, .. } = client;
        let Connection { mut transport, served } = connection;
        let traffic = Traffic::default();
        let (mut node_reader, mut node_writer) = transport.split(&traffic);
        answer.clear();
        reply.clear();
        let stage = Stage { uploading: Cell::new(matches!(sending, Sending::Stream(_))), ..Stage::default() };
        let receiving = Receiving {
            node: &mut node_reader,
            answer,
            read_limit: timeouts.read,
            client: writer,
            client_limit: limits.body_timeout,
            reply,
            method: request.method,
            version: request.version,
            persists: wish.persists,
            upgrades: wish.upgrades,
            stage: &stage,
            timer,
            current,
            record,
        };
        let received = match sending {
            Sending::Whole(length) => {
                send_whole(&mut node_writer, outbound, timeouts.send, timer).await?;
                let received = beside(gone(reader), receiving.run(response), &stage).await?;
                inbound.advance(length);
                *unread = Unread::Nothing;
                received
            }
            Sending::Stream(framing) => {
                *unread = Unread::Unknown;
                if wish.expects && inbound.is_empty() {
                    write_continue(receiving.client, limits.body_timeout, timer).await?;
                }
                let chunked = framing == Framing::Chunked;
                let sink =
                    Sink { writer: &mut node_writer, staged: outbound, write_limit: timeouts.send, chunked };
                let upload = async {
                    let source = Source::client(reader, inbound, limits);
                    relay(Body::from(framing), source, sink, upload_timer).await?;
                    stage.uploading.set(false);
                    *unread = Unread::Nothing;
                    gone(reader).await
                };
                beside(upload, receiving.run(response), &stage).await?
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

/// Sends a request that is here as a whole.
async fn send_whole(
    node: &mut WriteHalf<'_>,
    request: &[u8],
    limit: Duration,
    timer: &Timer,
) -> Result<(), Trouble> {
    let mut rest = request;
    let sent = write_rest(node, &mut rest, limit, timer).await;
    let unsent = rest.len() == request.len();
    sent.map_err(|broken| Trouble { failure: send_failure(broken), unanswered: true, unsent })
}

/// Tells the client to go on with its body.
pub(super) async fn write_continue(
    client: &mut WriteHalf<'_>,
    limit: Duration,
    timer: &Timer,
) -> Result<(), Failure> {
    let interim = b"HTTP/1.1 100 Continue\r\n\r\n";
    write_all(client, interim, limit, timer).await.map_err(|_| Failure::Cut(RejectReason::ClientClosed))
}

/// What a failure to send the request means.
pub(super) fn send_failure(broken: Broken) -> Failure {
    match broken {
        Broken::SinkTimeout => Failure::Reject(RejectReason::UpstreamSendTimeout),
        Broken::SinkClosed => Failure::Reject(RejectReason::UpstreamClosed),
        Broken::SourceMalformed => Failure::Reject(RejectReason::Malformed(Malformed::Chunk)),
        Broken::SourceTimeout => Failure::Reject(RejectReason::BodyTimeout),
        Broken::SourceTooLarge => Failure::Reject(RejectReason::BodyTooLarge),
        Broken::SourceClosed => Failure::Cut(RejectReason::ClientClosed),
    }
}

/// What a failure to pass the answer on means: the client has part of it, so that it can only be cut, never replaced.
fn answer_failure(broken: Broken) -> Failure {
    Failure::Cut(match broken {
        Broken::SourceClosed => RejectReason::UpstreamClosed,
        Broken::SourceTimeout => RejectReason::UpstreamReadTimeout,
        Broken::SourceMalformed | Broken::SourceTooLarge => RejectReason::UpstreamMalformed,
        Broken::SinkClosed | Broken::SinkTimeout => RejectReason::ClientClosed,
    })
}

/// Ends once the client is gone, and never otherwise.
async fn gone(client: &ReadHalf<'_>) -> Result<Infallible, Broken> {
    client.reset().await;
    Err(Broken::SourceClosed)
}

/// How far the two directions have come.
#[derive(Default)]
struct Stage {
    /// The request is still on its way to the node.
    uploading: Cell<bool>,
    /// The client may have some of the answer.
    answering: Cell<bool>,
}

/// Runs an answer beside what the client does meanwhile: `client` ends only when something is wrong with it. The
/// answer decides: a node may answer before it has read everything. A node that takes no more may have answered
/// already, so its answer is waited for; a client that breaks off ends both.
async fn beside(
    client: impl Future<Output = Result<Infallible, Broken>>,
    answer: impl Future<Output = Result<Received, Trouble>>,
    stage: &Stage,
) -> Result<Received, Trouble> {
    let mut client = pin!(client);
    let mut answer = pin!(answer);
    let mut ended = false;
    poll_fn(|context| {
        if !ended && let Poll::Ready(Err(broken)) = client.as_mut().poll(context) {
            ended = true;
            stage.uploading.set(false);
            if broken != Broken::SinkClosed {
                let failure = match send_failure(broken) {
                    // What was begun cannot be replaced by another answer.
                    Failure::Reject(reason) if stage.answering.get() => Failure::Cut(reason),
                    failure => failure,
                };
                return Poll::Ready(Err(failure.into()));
            }
        }
        answer.as_mut().poll(context)
    })
    .await
}

/// An answer on its way from a node to the client.
struct Receiving<'a, 's, 'n, 'l> {
    node: &'a mut ReadHalf<'n>,
    answer: &'a mut BytesMut,
    read_limit: Duration,
    client: &'a mut WriteHalf<'s>,
    client_limit: Duration,
    reply: &'a mut Vec<u8>,
    method: Method,
    version: Version,
    persists: bool,
    upgrades: bool,
    stage: &'a Stage,
    timer: &'a Timer,
    current: &'a Try<'a>,
    record: &'a Record<'l>,
}

/// What an answer left behind.
struct Received {
    client_persists: bool,
    node_persists: bool,
    /// The connection is a WebSocket now.
    switched: bool,
}

impl Receiving<'_, '_, '_, '_> {
    async fn run(mut self, head: &mut ResponseHead) -> Result<Received, Trouble> {
        let framing = self.read_final_head(head).await?;
        self.current.answered(head.status);
        self.record.answered(head.status);
        if head.status == 101 {
            return self.switch(head).await;
        }
        let node_persists = headers::remove_hop_by_hop(&mut head.fields).persists(head.version);
        let (chunked, client_persists) = self.write_head(head, framing);
        let source = Source::node(self.node, self.answer, self.read_limit);
        let sink = Sink { writer: self.client, staged: self.reply, write_limit: self.client_limit, chunked };
        self.stage.answering.set(true);
        relay(Body::from(framing), source, sink, self.timer).await.map_err(answer_failure)?;
        let node_persists = node_persists && framing != Framing::UntilClose;
        Ok(Received { client_persists, node_persists, switched: false })
    }

    /// Tells the client that the node agreed to a WebSocket.
    async fn switch(self, head: &mut ResponseHead) -> Result<Received, Trouble> {
        headers::remove_hop_by_hop(&mut head.fields);
        write::response_start(head, self.reply);
        headers::write_upgrade(self.reply);
        write::end(self.reply);
        self.record.head_written(self.reply.len());
        self.stage.answering.set(true);
        let written = write_all(self.client, self.reply, self.client_limit, self.timer).await;
        written.map_err(answer_failure)?;
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
                    return Err(Trouble { failure, unanswered: self.answer.is_empty(), unsent: false });
                }
                Ok(Ok(_)) => {}
                // The node owes an answer only once it has the whole request.
                Err(_) if self.stage.uploading.get() => {}
                Err(_) => {
                    let failure = Failure::Reject(RejectReason::UpstreamReadTimeout);
                    return Err(Trouble { failure, unanswered: self.answer.is_empty(), unsent: false });
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
        self.record.head_written(self.reply.len());
        (chunked, persists)
    }
}
