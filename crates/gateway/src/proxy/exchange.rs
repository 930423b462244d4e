//! One request forwarded to one upstream.
//!
//! The request is matched on the live configuration it takes, and finishes on it. A request goes to another node
//! if no connection stood or not a byte of it was taken, whatever it is; once it was sent, only if not a byte was
//! answered, it can be sent again as it is, and its method may be repeated. A reused connection that turns out to be closed says nothing about its
//! node: the same node is asked again on a fresh one.

use std::rc::Rc;

use bytes::Bytes;
use gatewright_model::message::RequestHead;
use gatewright_model::resource::upstream::PassHost;
use gatewright_model::target;
use tokio::io::AsyncReadExt;

use super::attempt::{Attempt, send_failure, write_continue};
use super::body::{Body, ReadBody};
use super::connection::{Client, Unread};
use super::headers;
use super::reject::RejectReason;
use super::relay::{Peeked, Peeking, READ_BYTES_SMALL};
use super::tunnel;
use super::variables::RequestVariables;
use crate::http1::framing::Framing;
use crate::http1::write;
use crate::router;
use crate::telemetry::record::Record;
use crate::tls::client_certificate::admit;
use crate::upstream::balance::Asked;
use crate::upstream::node::Node;
use crate::upstream::pool::{Connection, Endpoint};
use crate::upstream::tries::{Failed, Tries};
use crate::upstream::{Timeouts, Upstream};
use crate::worker::Worker;
use crate::worker::buffers::Workspace;

/// Bytes of a body that is sent along with the head and can be sent again.
const REPLAY_BYTES_MAX: usize = 64 * 1024;

/// Why a request was not answered by its upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// The client can still be told.
    Reject(RejectReason),
    /// The answer has begun, or the client is gone: all that is left is to close. The reason is for the log.
    Cut(RejectReason),
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
    /// What consistent hashing goes by.
    hash_key: u64,
    /// Whether the service asks for the path as the client wrote it.
    raw_path: bool,
}

/// Forwards the request in `workspace` and answers the client; says whether the connection lives on.
pub(super) async fn forward(
    worker: &Rc<Worker>,
    client: &mut Client<'_>,
    workspace: &mut Workspace,
    unread: &mut Unread,
    mut wish: Wish,
    record: &Record<'_>,
) -> Result<bool, Failure> {
    let body = Body::unread();
    let destination = match find(record, &workspace.request, client, &body) {
        // A condition on the way wanted to know the body, so the answer is not certain yet.
        _ if body.is_wanted() => {
            let body = Body::Read(buffer_body(worker, client, workspace, *unread, &mut wish).await?);
            find(record, &workspace.request, client, &body)?
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
    let asked = Asked { worker: worker.index, key: destination.hash_key };
    let mut tries = Tries::new(upstream, asked, worker.clock.now());
    let mut current = tries.first().ok_or(RejectReason::NoNodes)?;
    let mut may_reuse = true;
    loop {
        let connecting = connect(worker, client, current.node, destination.timeouts, may_reuse, record).await;
        let (endpoint, connection) = match connecting {
            Ok(connected) => connected,
            Err(reason) => {
                current.failed(reason);
                current = tries.another(&current, Failed::Unsent, worker.clock.now()).ok_or(reason)?;
                may_reuse = true;
                continue;
            }
        };
        let reused = connection.served > 0;
        write_request(workspace, &destination, current.node, client, sending, wish);
        let attempt = Attempt {
            clock: &worker.clock,
            limits: &worker.limits,
            client,
            workspace,
            timeouts: destination.timeouts,
            wish,
            unread,
            current: &current,
            record,
        };
        match attempt.run(connection, sending).await {
            Err(trouble) if trouble.is_stale(reused) && (replayable || trouble.unsent) => may_reuse = false,
            Err(trouble) => {
                if let Failure::Reject(reason) = trouble.failure
                    && !trouble.is_stale(reused)
                {
                    current.failed(reason);
                }
                let failed = trouble.as_failed().filter(|failed| replayable || *failed == Failed::Unsent);
                let next = failed.and_then(|failed| tries.another(&current, failed, worker.clock.now()));
                current = next.ok_or(trouble.failure)?;
                may_reuse = true;
            }
            Ok(done) => {
                if let Some(connection) = done.reusable {
                    let now = worker.clock.now();
                    worker.pool.borrow_mut().put(endpoint, connection, upstream.keepalive, now);
                }
                return Ok(done.persists);
            }
        }
    }
}

/// How the body goes to the upstream.
#[derive(Clone, Copy, Debug)]
pub(super) enum Sending {
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
    record: &Record<'l>,
    request: &RequestHead,
    client: &Client<'_>,
    body: &Body,
) -> Result<Destination<'l>, RejectReason> {
    let live = record.live();
    if live.revision.is_none() {
        return Err(RejectReason::NotConfigured);
    }
    admit(&live.server_names, client.address.session.as_deref(), request.bytes(request.host))?;
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
    record.matched(service, matched.route);
    if let Some(refusal) = route.refusal {
        return Err(refusal);
    }
    let upstream = service.upstream.as_deref().map_err(|reason| *reason)?;
    Ok(Destination {
        upstream,
        timeouts: route.timeouts.unwrap_or(upstream.timeouts),
        websocket: published.routes[matched.route].route.enable_websocket,
        hash_key: upstream.hash_key(&variables),
        stripped: if published.runtime.strip_path_prefix { matched.prefix_length } else { 0 },
        raw_path: published.runtime.forward_raw_path,
    })
}

/// Reads the body while leaving it where it is, to be forwarded later; `None` if it is too large to be looked at.
async fn buffer_body(
    worker: &Worker,
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
            write_continue(&mut client.writer, worker.limits.body_timeout, &client.timer).await?;
        }
        inbound.reserve(READ_BYTES_SMALL);
        match client.timer.limit(worker.limits.body_timeout, client.reader.read_buf(inbound)).await {
            Ok(Ok(0) | Err(_)) => return Err(Failure::Cut(RejectReason::ClientClosed)),
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
    record: &Record<'_>,
) -> Result<(Endpoint, Connection), RejectReason> {
    record.tried();
    let resolving = client.timer.limit(timeouts.connect, node.address(worker.index)).await;
    let address = resolving.ok().flatten().ok_or(RejectReason::NameUnresolved)?;
    record.node(address);
    let endpoint = node.endpoint(address);
    if reusable {
        let kept = worker.pool.borrow_mut().take(endpoint, worker.clock.now());
        if let Some(connection) = kept {
            return Ok((endpoint, connection));
        }
    }
    let connecting = client.timer.limit(timeouts.connect, node.connect(address)).await;
    let transport = connecting.map_err(|_| RejectReason::UpstreamConnectTimeout)??;
    record.connected();
    Ok((endpoint, Connection { transport, served: 0 }))
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
    write::request_start(request, |out| write_target(request, destination, out), outbound);
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

/// Writes the path as it was matched, or as it was written if the service asks for that, without what the service
/// strips, and the query.
fn write_target(request: &RequestHead, destination: &Destination<'_>, out: &mut Vec<u8>) {
    let path = &request.bytes(request.path)[destination.stripped..];
    let raw_path = if destination.raw_path { raw_rest(request, destination.stripped) } else { None };
    if path.first() != Some(&b'/') {
        out.push(b'/');
    }
    if let Some(raw_path) = raw_path {
        out.extend_from_slice(raw_path);
    } else if request.path_is_plain {
        out.extend_from_slice(path);
    } else {
        target::encode_path(path, out);
    }
    if let Some(query) = request.query {
        out.push(b'?');
        out.extend_from_slice(request.bytes(query));
    }
}

/// The path as it was written, without what is stripped; `None` unless it still reads as the path that was matched:
/// `/api/../api/x` without `/api` would be another path.
fn raw_rest(request: &RequestHead, stripped: usize) -> Option<&[u8]> {
    let path = request.bytes(request.path);
    let rest = request.bytes(request.raw_path).strip_prefix(&path[..stripped])?;
    let read = target::parse_target(rest).ok()?;
    (*read.path == path[stripped..]).then_some(rest)
}
