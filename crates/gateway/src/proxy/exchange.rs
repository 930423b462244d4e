//! One request forwarded to one upstream.
//!
//! The request is matched on the live configuration it takes, and finishes on it. Plugins run once it is matched.
//! A request goes to another node if no connection stood or not a byte of it was taken, whatever it is; once it was
//! sent, only if not a byte was answered, or an answer that the upstream does not let count, it can be sent again as it
//! is, and its method may be repeated. A reused connection that turns out to be closed says nothing about its node: the
//! same node is asked again on a fresh one.

use std::num::NonZeroU64;
use std::rc::Rc;

use bytes::Bytes;
use gatewright_model::message::{Known, RequestHead, Version};
use gatewright_plugins::response::{BodyFilter, finish_all, push_all};
use http::HeaderValue;
use http::header::TE;
use http::uri::Scheme;

use super::attempt::{Attempt, Link, send_failure};
use super::body::{BODY_BYTES_MAX, Body, ReadBody};
use super::client::{Client, Incoming};
use super::connection::{Unread, is_too_large};
use super::destination::{Destination, find};
use super::headers;
use super::phases::{Kept, Phases};
use super::reject::RejectReason;
use super::relay::{Peeked, Peeking};
use super::tunnel;
use crate::http1::framing::Framing;
use crate::http1::{Malformed, write};
use crate::http2;
use crate::telemetry::record::Record;
use crate::upstream::balance::Asked;
use crate::upstream::multiplexed::{self, Seat};
use crate::upstream::node::Node;
use crate::upstream::pool::{Connection, Endpoint};
use crate::upstream::tries::{Failed, Tries};
use crate::worker::Worker;
use crate::worker::buffers::Workspace;

/// Bytes of a body that is sent along with the head and can be sent again.
pub(super) const REPLAY_BYTES_MAX: usize = 64 * 1024;

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

/// What is asked for beside the request itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wish {
    /// The connection shall live on.
    pub(super) persists: bool,
    /// `100 Continue` is waited for.
    pub(super) expects: bool,
    /// The connection shall become a WebSocket.
    pub(super) upgrades: bool,
    /// Trailers are read.
    pub(super) trailers: bool,
    /// Bytes the body may have, beside what the gateway lets any have.
    pub(super) body_bytes_max: Option<NonZeroU64>,
}

/// Forwards the request in `workspace` and answers the client; says whether the connection lives on.
pub(super) async fn forward<'l>(
    worker: &Rc<Worker>,
    client: &mut Client<'_, '_>,
    workspace: &mut Workspace,
    unread: &mut Unread,
    mut wish: Wish,
    record: &Record<'l>,
) -> Result<bool, Failure> {
    worker.recorder.heed(record, &workspace.request.fields);
    bear(worker, *unread)?;
    headers::remove_claims(&mut workspace.request.fields, client.address.is_trusted);
    let mut body = Body::unread();
    let mut found = find(record, &workspace.request, client, &body);
    // A condition on the way wanted to know the body, so the answer is not certain yet.
    if body.is_wanted() {
        let read = read_body(client, workspace, *unread, (&mut wish, BODY_BYTES_MAX)).await?;
        body = Body::Read(read.map(ReadBody::new));
        found = find(record, &workspace.request, client, &body);
    }
    worker.recorder.sample(record, &workspace.request);
    // Global rules see requests that no route matches, too.
    if let Err(reason) = found
        && reason != RejectReason::RouteNotFound
    {
        return Err(reason.into());
    }
    // Only requests with plugins make room for their phases, and there is one place for what follows: futures are
    // large, and a second one would be copied for every such request.
    let phases = Phases::of(record.live(), found.as_ref().ok(), worker.recorder.measures_plugins())?;
    let mut kept = phases.map(|phases| Kept::new(phases, record));
    let mut phases = kept.as_mut().map(Kept::phases);
    if let Some(phases) = &mut phases {
        phases.request(client, workspace, unread, &mut wish).await?;
    }
    let state = phases.as_deref().map(Phases::state);
    let destination = found?.destination(&workspace.request, client, &body, state)?;
    pass_on(worker, client, workspace, unread, wish, (&destination, phases), record).await
}

/// Sends the request to a node of its destination, and to another where that is right.
async fn pass_on<'l>(
    worker: &Rc<Worker>,
    client: &mut Client<'_, '_>,
    workspace: &mut Workspace,
    unread: &mut Unread,
    mut wish: Wish,
    (destination, mut phases): (&Destination<'_>, Option<&mut Phases<'l>>),
    record: &Record<'l>,
) -> Result<bool, Failure> {
    // Where the route does not allow it, the request goes on as an ordinary one.
    wish.upgrades &= *destination.route.route.enable_websocket;
    if wish.upgrades && !tunnel::is_asked_for_properly(&workspace.request) {
        return Err(RejectReason::WebSocketMalformed.into());
    }
    let upstream = destination.upstream;
    let sending = Sending::of(*unread, workspace.inbound.len());
    if let (Sending::Whole(length), Some(phases)) = (sending, &mut phases) {
        show(&mut phases.body_observers(), &workspace.inbound[..length]);
    }
    let replayable = matches!(sending, Sending::Whole(_)) && upstream.repeats(workspace.request.method);
    let asked = Asked { worker: worker.index, key: destination.hash_key };
    let mut tries = Tries::new(upstream, asked, worker.clock.now());
    let mut current = tries.first().ok_or(RejectReason::NoNodes)?;
    let (mut may_reuse, mut asked_again) = (true, false);
    loop {
        let connecting = connect(worker, client, destination, current.node, may_reuse, record).await;
        let connected = match connecting {
            Ok(connected) => connected,
            Err(reason) => {
                current.failed(reason);
                current = tries.another(&current, Failed::Unsent, worker.clock.now()).ok_or(reason)?;
                may_reuse = true;
                continue;
            }
        };
        let reused = connected.is_reused();
        let kept_under = connected.kept_under();
        let link = stage(connected, workspace, destination, current.node, client, (sending, wish))?;
        let attempt = Attempt {
            worker,
            client,
            workspace,
            timeouts: destination.timeouts,
            wish,
            unread,
            current: &current,
            record,
            is_served: &|| destination.is_served(&worker.live.take()),
            phases: phases.as_deref_mut(),
            is_rejected: &|status| replayable && tries.rejects(&current, status, worker.clock.now()),
        };
        match attempt.run(link, sending).await {
            Err(trouble) if upstream.multiplexed && trouble.unsent && !asked_again => asked_again = true,
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
                if let (Some(connection), Some(endpoint)) = (done.reusable, kept_under) {
                    let now = worker.clock.now();
                    worker.pool.borrow_mut().put(endpoint, connection, upstream.keepalive, now);
                }
                return Ok(done.persists);
            }
        }
    }
}

/// Shows a body that is here as a whole to those who look at it.
fn show(observers: &mut [Box<dyn BodyFilter>], body: &[u8]) {
    if !observers.is_empty() {
        let mut unchanged = Vec::new();
        push_all(observers, body, &mut unchanged);
        finish_all(observers, &mut None, &mut unchanged);
    }
}

/// Whether the gateway can take on such a request at all.
fn bear(worker: &Worker, unread: Unread) -> Result<(), RejectReason> {
    if worker.door.pressure.sheds_requests() {
        return Err(RejectReason::Overloaded);
    }
    match unread {
        Unread::Body(framing) if is_too_large(framing, &worker.limits) => Err(RejectReason::BodyTooLarge),
        _ => Ok(()),
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

/// Reads the body while leaving it where it is, to be forwarded later; `None` if it is too large to be looked at.
pub(super) async fn read_body(
    client: &mut Client<'_, '_>,
    workspace: &mut Workspace,
    unread: Unread,
    (wish, bytes_max): (&mut Wish, usize),
) -> Result<Option<Bytes>, Failure> {
    let Workspace { inbound, body_bytes, .. } = workspace;
    *body_bytes = 0;
    let Unread::Body(framing) = unread else { return Ok(Some(Bytes::new())) };
    let Client { incoming, outgoing, limits, timer, .. } = client;
    let mut peeking = Peeking::new(framing, bytes_max);
    loop {
        if let Incoming::Http1(_) = incoming {
            match peeking.look(inbound).map_err(send_failure)? {
                Peeked::Whole(body) => {
                    *body_bytes = peeking.looked_at();
                    return Ok(Some(body));
                }
                Peeked::TooLarge => return Ok(None),
                Peeked::More => {}
            }
        } else if inbound.len() > bytes_max {
            return Ok(None);
        }
        if std::mem::take(&mut wish.expects) {
            outgoing.go_on(limits.body_timeout, timer).await?;
        }
        let more = timer.limit(limits.body_timeout, incoming.read_more(inbound)).await;
        let more = more.map_err(|_| RejectReason::BodyTimeout)?.map_err(send_failure)?;
        if more {
            continue;
        }
        // The end of a stream is the end of its body.
        let Incoming::Http2(_) = incoming else { return Err(Failure::Cut(RejectReason::ClientClosed)) };
        *body_bytes = inbound.len();
        return Ok(Some(inbound.to_vec().into()));
    }
}

/// A way to a node.
enum Connected {
    /// A connection for this request alone, and where it leads.
    Alone(Endpoint, Connection),
    /// A place beside other requests.
    Beside(Seat),
}

impl Connected {
    /// What the connection is kept under afterwards, if it can serve again.
    fn kept_under(&self) -> Option<Endpoint> {
        match self {
            Self::Alone(endpoint, _) => Some(*endpoint),
            Self::Beside(_) => None,
        }
    }

    fn is_reused(&self) -> bool {
        match self {
            Self::Alone(_, connection) => connection.served > 0,
            Self::Beside(seat) => seat.is_reused(),
        }
    }
}

async fn connect(
    worker: &Rc<Worker>,
    client: &Client<'_, '_>,
    destination: &Destination<'_>,
    node: &Node,
    reusable: bool,
    record: &Record<'_>,
) -> Result<Connected, RejectReason> {
    record.tried();
    let limit = destination.timeouts.connect;
    let resolving = client.timer.limit(limit, node.address(worker.index)).await;
    let address = resolving.ok().flatten().ok_or(RejectReason::NameUnresolved)?;
    record.node(address);
    let endpoint = node.endpoint(address);
    let upstream = destination.upstream;
    if upstream.multiplexed {
        let seating = multiplexed::seat(worker, node, endpoint, upstream.keepalive, record);
        let seated = client.timer.limit(limit, seating).await;
        return seated.map_err(|_| RejectReason::UpstreamConnectTimeout)?.map(Connected::Beside);
    }
    if reusable {
        let kept = worker.pool.borrow_mut().take(endpoint, worker.clock.now());
        if let Some(connection) = kept {
            return Ok(Connected::Alone(endpoint, connection));
        }
    }
    let connecting = client.timer.limit(limit, node.connect(address)).await;
    let transport = connecting.map_err(|_| RejectReason::UpstreamConnectTimeout)??;
    record.connected();
    Ok(Connected::Alone(endpoint, Connection { transport, served: 0 }))
}

/// Puts the request into the form the node takes it in.
fn stage(
    connected: Connected,
    workspace: &mut Workspace,
    destination: &Destination<'_>,
    node: &Node,
    client: &Client<'_, '_>,
    (sending, wish): (Sending, Wish),
) -> Result<Link, RejectReason> {
    match connected {
        Connected::Alone(_, connection) => {
            write_request(workspace, destination, node, client, sending, wish);
            Ok(Link::Http1(connection))
        }
        Connected::Beside(seat) => {
            let head = http2_request(&workspace.request, destination, node, client, wish);
            Ok(Link::Http2(seat, head.ok_or(RejectReason::Malformed(Malformed::Target))?))
        }
    }
}

/// Writes the request into `outbound`, with its body if it is already here as a whole.
fn write_request(
    workspace: &mut Workspace,
    destination: &Destination<'_>,
    node: &Node,
    client: &Client<'_, '_>,
    sending: Sending,
    wish: Wish,
) {
    let Workspace { inbound, outbound, request, .. } = workspace;
    outbound.clear();
    write::request_start(request, |out| destination.write_target(request, out), outbound);
    let host = destination.host(request, node);
    headers::write_upstream_fields(request, host, client.address, outbound);
    if wish.upgrades {
        headers::write_upgrade(outbound);
    } else if wish.trailers {
        headers::write_reads_trailers(outbound);
    }
    match sending {
        Sending::Whole(length) => {
            // Only over HTTP/2 the length of a body need not be said.
            if request.version == Version::Http2
                && (length > 0 || request.method.has_body())
                && request.fields.known(Known::ContentLength).next().is_none()
            {
                write::field(b"Content-Length", length.to_string().as_bytes(), outbound);
            }
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

/// The head of the request for a node that speaks HTTP/2; `None`: HTTP/2 cannot carry it.
fn http2_request(
    request: &RequestHead,
    destination: &Destination<'_>,
    node: &Node,
    client: &Client<'_, '_>,
    wish: Wish,
) -> Option<http::Request<()>> {
    let mut target = Vec::new();
    destination.write_target(request, &mut target);
    let mut fields = headers::upstream_map(request, client.address);
    if wish.trailers {
        fields.insert(TE, HeaderValue::from_static("trailers"));
    }
    let asked = http2::request::Asked {
        method: request.bytes(request.method_text),
        scheme: if node.is_over_tls() { Scheme::HTTPS } else { Scheme::HTTP },
        authority: destination.host(request, node),
        target: &target,
    };
    http2::request::write(&asked, fields)
}
