//! One request forwarded to one upstream.
//!
//! The request is matched on the live configuration it takes, and finishes on it. Nothing is sent twice unless
//! nothing can have come of it: a request is repeated only if no connection stood, or if a reused connection turned
//! out to be closed, nothing was answered and the method may be repeated.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use gatewright_model::message::{Method, RequestHead, ResponseHead, Version};
use gatewright_model::resource::upstream::PassHost;
use gatewright_model::target;
use tokio::io::AsyncReadExt;
use tokio::net::tcp::{ReadHalf, WriteHalf};

use super::body::{Body as SeenBody, ReadBody};
use super::connection::{CLIENT_TIMEOUT, Client, Unread};
use super::headers;
use super::reject::RejectReason;
use super::relay::{Body, Broken, Peeked, Peeking, READ_BYTES_SMALL, Sink, Source, relay, write_all};
use super::tunnel;
use super::variables::RequestVariables;
use crate::http1::framing::Framing;
use crate::http1::scan::{self, Progress};
use crate::http1::{HEAD_BYTES_MAX, Malformed, response, write};
use crate::live::LiveConfig;
use crate::router;
use crate::upstream::node::Node;
use crate::upstream::pool::Connection;
use crate::upstream::{Timeouts, Upstream};
use crate::worker::Worker;
use crate::worker::buffers::Workspace;
use crate::worker::timer::{Clock, Timer};

/// Bytes of a body that is sent along with the head and can be sent again.
const REPLAY_BYTES_MAX: usize = 64 * 1024;

/// Interim answers (1xx) an upstream may give before the real one.
const INTERIM_ANSWERS_MAX: usize = 16;

/// Why a request was not answered by its upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// The client can still be told.
    Reject(RejectReason),
    /// The answer has begun, or the client is gone: all that is left is to close.
    Broken,
}

impl From<RejectReason> for Failure {
    fn from(reason: RejectReason) -> Self {
        Self::Reject(reason)
    }
}

/// What the client asked for beside the request itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wish {
    /// The connection shall live on.
    pub(super) persists: bool,
    /// `100 Continue` is waited for.
    pub(super) expects: bool,
    /// The connection shall become a WebSocket.
    pub(super) upgrades: bool,
}

/// Where a request goes.
struct Destination<'l> {
    upstream: &'l Upstream,
    timeouts: Timeouts,
    /// Bytes of the path that are not forwarded.
    stripped: usize,
    /// Whether the route lets a WebSocket be opened.
    websocket: bool,
}

/// Forwards the request in `workspace` and answers the client; says whether the connection lives on.
pub(super) async fn forward(
    worker: &Rc<Worker>,
    client: &mut Client<'_>,
    workspace: &mut Workspace,
    unread: &mut Unread,
    mut wish: Wish,
) -> Result<bool, Failure> {
    let live = worker.live.take();
    let body = SeenBody::unread();
    let destination = match find(&live, &workspace.request, client, &body) {
        // A condition on the way wanted to know the body, so the answer is not certain yet.
        _ if body.is_wanted() => {
            let body = SeenBody::Read(buffer_body(client, workspace, *unread, &mut wish).await?);
            find(&live, &workspace.request, client, &body)?
        }
        found => found?,
    };
    // Where the route does not allow it, the request goes on as an ordinary one.
    wish.upgrades &= destination.websocket;
    if wish.upgrades && !tunnel::is_asked_for_properly(&workspace.request) {
        return Err(RejectReason::WebSocketMalformed.into());
    }
    let upstream = destination.upstream;
    let sending = Sending::of(*unread, workspace.inbound.len());
    let replayable = matches!(sending, Sending::Whole(_)) && workspace.request.method.is_idempotent();
    let mut tried = Vec::new();
    let mut may_reuse = true;
    let mut next = upstream.balance.next(worker.index, &tried);
    while let Some(index) = next {
        let node = &upstream.nodes[index];
        let connection = match connect(worker, client, node, destination.timeouts, may_reuse).await {
            Ok(connection) => connection,
            Err(reason) => {
                // No connection, so nothing was sent: another node may be tried whatever the request is.
                tried.push(index);
                next = upstream.balance.next(worker.index, &tried);
                if tried.len() > upstream.retries || next.is_none() {
                    return Err(reason.into());
                }
                continue;
            }
        };
        let reused = connection.served > 0;
        write_request(workspace, &destination, node, client, sending, wish);
        let timeouts = destination.timeouts;
        let attempt = Attempt { clock: &worker.clock, client, workspace, timeouts, wish, unread };
        match attempt.run(connection, sending).await {
            Err(trouble) if trouble.unanswered && reused && replayable => may_reuse = false,
            Err(trouble) => return Err(trouble.failure),
            Ok(done) => {
                if let Some(connection) = done.reusable {
                    let now = worker.clock.now();
                    worker.pool.borrow_mut().put(&node.address, connection, upstream.keepalive, now);
                }
                return Ok(done.persists);
            }
        }
    }
    Err(RejectReason::NoNodes.into())
}

/// How the body goes to the upstream.
#[derive(Clone, Copy, Debug)]
enum Sending {
    /// So many bytes that are already here, together with the head; they can be sent again.
    Whole(usize),
    /// As it arrives.
    Stream(Framing),
}

impl Sending {
    fn of(unread: Unread, buffered: usize) -> Self {
        match unread {
            Unread::Nothing | Unread::Unknown => Self::Whole(0),
            Unread::Body(Framing::Length(length)) => match usize::try_from(length) {
                Ok(length) if length <= buffered.min(REPLAY_BYTES_MAX) => Self::Whole(length),
                _ => Self::Stream(Framing::Length(length)),
            },
            Unread::Body(framing) => Self::Stream(framing),
        }
    }
}

fn find<'l>(
    live: &'l LiveConfig,
    request: &RequestHead,
    client: &Client<'_>,
    body: &SeenBody,
) -> Result<Destination<'l>, RejectReason> {
    if live.revision.is_none() {
        return Err(RejectReason::NotConfigured);
    }
    let variables = RequestVariables { request, client: &client.address, body };
    let wanted = router::Request {
        host: request.bytes(request.host),
        path: request.bytes(request.path),
        method: request.method,
        remote_addr: Some(client.address.peer.ip()),
        variables: &variables,
    };
    let matched = live.router.find(&wanted).ok_or(RejectReason::RouteNotFound)?;
    let published = matched.rules.service();
    let service = live.services.get(&published.service_id).ok_or(RejectReason::RouteNotFound)?;
    let route = service.routes.get(matched.route).ok_or(RejectReason::RouteNotFound)?;
    if let Some(refusal) = route.refusal {
        return Err(refusal);
    }
    let upstream = service.upstream.as_deref().map_err(|reason| *reason)?;
    Ok(Destination {
        upstream,
        timeouts: route.timeouts.unwrap_or(upstream.timeouts),
        websocket: published.routes[matched.route].route.enable_websocket,
        stripped: if published.runtime.strip_path_prefix { matched.prefix_length } else { 0 },
    })
}

/// Reads the body while leaving it where it is, to be forwarded later; `None` if it is too large to be looked at.
async fn buffer_body(
    client: &mut Client<'_>,
    workspace: &mut Workspace,
    unread: Unread,
    wish: &mut Wish,
) -> Result<Option<ReadBody>, Failure> {
    let Unread::Body(framing) = unread else { return Ok(Some(ReadBody::new(Bytes::new()))) };
    let inbound = &mut workspace.inbound;
    let mut peeking = Peeking::new(framing);
    loop {
        match peeking.look(inbound).map_err(send_failure)? {
            Peeked::Whole(body) => return Ok(Some(ReadBody::new(body))),
            Peeked::TooLarge => return Ok(None),
            Peeked::More => {}
        }
        if std::mem::take(&mut wish.expects) {
            write_continue(&mut client.writer, &client.timer).await?;
        }
        inbound.reserve(READ_BYTES_SMALL);
        match client.timer.limit(CLIENT_TIMEOUT, client.reader.read_buf(inbound)).await {
            Ok(Ok(0) | Err(_)) => return Err(Failure::Broken),
            Ok(Ok(_)) => {}
            Err(_) => return Err(RejectReason::BodyTimeout.into()),
        }
    }
}

async fn connect(
    worker: &Worker,
    client: &Client<'_>,
    node: &Node,
    timeouts: Timeouts,
    reusable: bool,
) -> Result<Connection, RejectReason> {
    if reusable {
        let kept = worker.pool.borrow_mut().take(&node.address, worker.clock.now());
        if let Some(connection) = kept {
            return Ok(connection);
        }
    }
    match client.timer.limit(timeouts.connect, node.address.connect()).await {
        Ok(Ok(stream)) => Ok(Connection { stream, served: 0 }),
        Ok(Err(error)) => {
            tracing::debug!(node = ?node.address, %error, "cannot connect to a node");
            Err(RejectReason::UpstreamConnectFailed)
        }
        Err(_) => Err(RejectReason::UpstreamConnectTimeout),
    }
}

/// Writes the request into `outbound`, with its body if it is already here as a whole.
fn write_request(
    workspace: &mut Workspace,
    destination: &Destination<'_>,
    node: &Node,
    client: &Client<'_>,
    sending: Sending,
    wish: Wish,
) {
    let Workspace { inbound, outbound, request, .. } = workspace;
    outbound.clear();
    write::request_start(request, |out| write_target(request, destination.stripped, out), outbound);
    let host = match destination.upstream.pass_host {
        PassHost::Pass => request.bytes(request.authority),
        PassHost::Node => &node.host,
        PassHost::Rewrite => &destination.upstream.upstream_host,
    };
    headers::write_upstream_fields(request, host, &client.address, outbound);
    if wish.upgrades {
        headers::write_upgrade(outbound);
    }
    match sending {
        Sending::Whole(length) => {
            write::end(outbound);
            outbound.extend_from_slice(&inbound[..length]);
        }
        Sending::Stream(framing) => {
            if framing == Framing::Chunked {
                write::field(b"Transfer-Encoding", b"chunked", outbound);
            }
            write::end(outbound);
        }
    }
}

/// Writes the path as it was matched, without what the service strips, and the query.
fn write_target(request: &RequestHead, stripped: usize, out: &mut Vec<u8>) {
    let path = &request.bytes(request.path)[stripped..];
    if path.first() != Some(&b'/') {
        out.push(b'/');
    }
    if request.path_is_plain {
        out.extend_from_slice(path);
    } else {
        target::encode_path(path, out);
    }
    if let Some(query) = request.query {
        out.push(b'?');
        out.extend_from_slice(request.bytes(query));
    }
}

/// One request on one connection to a node.
struct Attempt<'a, 's> {
    clock: &'a Rc<Clock>,
    client: &'a mut Client<'s>,
    workspace: &'a mut Workspace,
    timeouts: Timeouts,
    wish: Wish,
    unread: &'a mut Unread,
}

/// An attempt that came to its end.
struct Done {
    /// Whether the client's connection lives on.
    persists: bool,
    /// The connection to the node, if it can serve again.
    reusable: Option<Connection>,
}

/// An attempt that failed.
struct Trouble {
    failure: Failure,
    /// Whether not a single byte of an answer arrived because the node had closed the connection.
    unanswered: bool,
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
    async fn run(self, connection: Connection, sending: Sending) -> Result<Done, Trouble> {
        let Attempt { clock, client, workspace, timeouts, wish, unread } = self;
        let Workspace { inbound, answer, outbound, reply, request, response } = workspace;
        let Client { reader, writer, timer, upload_timer, .. } = client;
        let Connection { mut stream, served } = connection;
        let (mut node_reader, mut node_writer) = stream.split();
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
        };
        let received = match sending {
            Sending::Whole(length) => {
                let sent = write_all(&mut node_writer, outbound, timeouts.send, timer).await;
                sent.map_err(|broken| Trouble {
                    failure: send_failure(broken),
                    unanswered: broken == Broken::SinkClosed,
                })?;
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
            reusable: reusable.then(|| Connection { stream, served: served + 1 }),
        })
    }
}

async fn write_continue(client: &mut WriteHalf<'_>, timer: &Timer) -> Result<(), Failure> {
    let interim = b"HTTP/1.1 100 Continue\r\n\r\n";
    write_all(client, interim, CLIENT_TIMEOUT, timer).await.map_err(|_| Failure::Broken)
}

/// What a failure to send the request means.
fn send_failure(broken: Broken) -> Failure {
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
                Err(_) => return Err(RejectReason::UpstreamReadTimeout.into()),
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
