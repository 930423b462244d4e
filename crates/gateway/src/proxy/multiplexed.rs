//! One client connection that speaks HTTP/2: every stream is an exchange.
//!
//! The exchanges of a connection run beside each other and take the same path as those of HTTP/1. A client that gives
//! one up ends it at once, wherever it is; a client that does little else loses its connection.

use std::cell::{Cell, RefCell};
use std::future::{Future, pending, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use gatewright_model::message::Known;
use h2::server::{Connection, SendResponse};
use h2::{Reason, RecvStream};
use http::request::Parts;
use http::{Request, Response};

use super::client::{Client, Incoming, Outgoing};
use super::connection::{Unread, is_too_large};
use super::exchange::{self, Failure, REPLAY_BYTES_MAX, Wish};
use super::headers::{self, ClientAddress};
use super::phases;
use super::reject::RejectReason;
use super::relay::take_arrived;
use super::sink::{Http2Sink, Sink, send_whole};
use crate::http1::Malformed;
use crate::http1::framing::Framing;
use crate::http2;
use crate::http2::gather::Gather;
use crate::http2::grpc;
use crate::http2::inlet::Inlet;
use crate::http2::outlet::{Closed, Outlet};
use crate::http2::request::{self, Refusal};
use crate::http2::wire::{Abuse, Seen, Wire};
use crate::telemetry::record::Record;
use crate::transport::Transport;
use crate::worker::Worker;
use crate::worker::buffers::Workspace;
use crate::worker::door::Eviction;

/// How long a connection that was told to end may take to do so once nothing is in flight.
const CLOSING_TIMEOUT: Duration = Duration::from_secs(5);

/// What the streams of a connection share.
struct Shared {
    worker: Rc<Worker>,
    address: ClientAddress,
    in_flight: Cell<usize>,
}

/// Serves a connection that speaks HTTP/2, of which `received` was read already.
pub(super) async fn serve(
    worker: &Rc<Worker>,
    transport: Transport,
    received: BytesMut,
    address: ClientAddress,
) {
    let timer = worker.clock.timer();
    let wire = Wire::new(transport, received, worker.clock.timer(), worker.limits.head_timeout);
    let (seen, gather) = (wire.seen(), wire.gather());
    let mut shaking = pin!(http2::server().handshake::<_, Bytes>(wire));
    let shaking = gather.along(|context| shaking.as_mut().poll(context));
    let Ok(Ok(Ok(mut connection))) = timer.limit(worker.limits.head_timeout, shaking).await else { return };
    let shared = Rc::new(Shared { worker: Rc::clone(worker), address, in_flight: Cell::new(0) });
    let mut patience = worker.limits.head_timeout;
    let (mut closing, mut idle) = (false, false);
    loop {
        if !closing && (idle || worker.stopping.get()) {
            // What is in flight may finish, and so may what the client sent before it heard of this.
            connection.graceful_shutdown();
            (closing, patience) = (true, CLOSING_TIMEOUT);
        }
        match timer.limit_until_stop(patience, next(&shared, &mut connection, &gather, &seen)).await {
            Ok(Ok((request, respond))) => {
                shared.in_flight.set(shared.in_flight.get() + 1);
                // A task is moved several times when it is spawned and when it ends; only its pointer should be. Its
                // place is there before it is: otherwise it is made elsewhere and copied, all six kilobytes of it.
                let task = Box::new_uninit();
                let task = Box::write(task, serve_stream(Rc::clone(&shared), request, respond));
                tokio::task::spawn_local(Box::into_pin(task));
                patience = if closing { CLOSING_TIMEOUT } else { worker.limits.idle_timeout };
            }
            Ok(Err(End::Gone)) => return,
            Ok(Err(End::Broken(eviction))) => return worker.door.evict(eviction, shared.address.peer),
            Ok(Err(End::Abuse(abuse))) => {
                let eviction = match abuse {
                    Abuse::Flood => Eviction::Http2Flood,
                    Abuse::SlowHead => Eviction::Http2SlowHead,
                };
                worker.door.evict(eviction, shared.address.peer);
                connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
                break;
            }
            Err(_) if shared.in_flight.get() > 0 || worker.stopping.get() && !closing => {}
            Err(_) if closing => return,
            Err(_) => {
                worker.door.evict(Eviction::Idle, shared.address.peer);
                idle = true;
            }
        }
    }
    let closing = gather.along(|context| connection.poll_closed(context));
    let _ = timer.limit(CLOSING_TIMEOUT, closing).await;
}

/// Why a connection brings no further streams.
enum End {
    /// It is gone.
    Gone,
    /// The client went too far.
    Abuse(Abuse),
    /// The same, as the crate saw and said by itself.
    Broken(Eviction),
}

impl End {
    fn of(error: &h2::Error) -> Self {
        match error.reason().filter(|_| error.is_library()) {
            None => Self::Gone,
            Some(Reason::ENHANCE_YOUR_CALM) => Self::Broken(Eviction::Http2Flood),
            Some(_) => Self::Broken(Eviction::Http2Malformed),
        }
    }
}

/// Keeps the connection going until it brings a stream.
async fn next(
    shared: &Shared,
    connection: &mut Connection<Wire, Bytes>,
    gather: &Gather,
    seen: &Seen,
) -> Result<(Request<RecvStream>, SendResponse<Bytes>), End> {
    let accepting = gather.along(|context| {
        let accepted = connection.poll_accept(context);
        let refused = seen.refused.take();
        if refused > 0 {
            shared.worker.recorder.counts().streams_refused(refused);
            tracing::debug!(client = %shared.address.peer, streams = refused, "too many streams at once");
        }
        if let Some(abuse) = seen.abuse.get() {
            return Poll::Ready(Err(End::Abuse(abuse)));
        }
        accepted.map(|accepted| match accepted {
            Some(Ok(stream)) => Ok(stream),
            Some(Err(error)) => Err(End::of(&error)),
            None => Err(End::Gone),
        })
    });
    accepting.await.unwrap_or(Err(End::Gone))
}

/// Answers one request and records what became of it.
async fn serve_stream(shared: Rc<Shared>, request: Request<RecvStream>, respond: SendResponse<Bytes>) {
    let begun = Instant::now();
    let (parts, incoming) = request.into_parts();
    let (mut inlet, outlet) = (Inlet::new(incoming), RefCell::new(Outlet::of_answer(respond)));
    let worker = &shared.worker;
    let live = worker.live.take();
    worker.recorder.counts().request_began();
    let record = Record::on(&live, begun);
    let mut workspace = worker.buffers.take();
    let ended = {
        let (timer, upload_timer) = (worker.clock.timer(), worker.clock.timer());
        let client = Client {
            incoming: Incoming::Http2(&mut inlet),
            outgoing: Outgoing::Http2(&outlet),
            address: &shared.address,
            limits: &worker.limits,
            timer: &timer,
            upload_timer: &upload_timer,
        };
        let mut answering = pin!(answer(worker, client, &mut workspace, &parts, &record));
        let mut expiring = pin!(expiry(worker, &parts));
        poll_fn(|context| {
            if answering.as_mut().poll(context).is_ready() {
                return Poll::Ready(Ok(()));
            }
            // Ending the exchange here also gives up whatever it asked of an upstream.
            if outlet.borrow_mut().poll_reset(context).is_ready() {
                return Poll::Ready(Err(RejectReason::ClientClosed));
            }
            expiring.as_mut().poll(context).map(|()| Err(RejectReason::DeadlineExceeded))
        })
        .await
    };
    match ended {
        Ok(()) => {}
        Err(RejectReason::DeadlineExceeded) => expire(&mut outlet.borrow_mut(), &record),
        Err(reason) => record.cut(reason),
    }
    let head_bytes = http2::bytes(&parts.headers) as u64;
    record.passed(head_bytes + inlet.received(), outlet.borrow().sent() + record.head_bytes());
    worker.recorder.finish(&record, &mut workspace.request, &shared.address);
    worker.buffers.give_back(workspace);
    shared.in_flight.set(shared.in_flight.get() - 1);
}

/// Answers one request.
async fn answer(
    worker: &Rc<Worker>,
    mut client: Client<'_, '_>,
    workspace: &mut Workspace,
    parts: &Parts,
    record: &Record<'_>,
) {
    let Client { incoming: Incoming::Http2(incoming), outgoing: Outgoing::Http2(outlet), .. } = &mut client
    else {
        return;
    };
    let outlet = *outlet;
    let read = read_request(parts, incoming, workspace);
    let failure = match read {
        Ok(framing) if is_too_large(framing, client.limits) => RejectReason::BodyTooLarge.into(),
        Ok(framing) => {
            let fields = &mut workspace.request.fields;
            let expects =
                fields.known(Known::Expect).any(|value| value.eq_ignore_ascii_case(b"100-continue"));
            let trailers = headers::reads_trailers(fields);
            headers::remove_hop_by_hop(fields);
            let mut unread = if framing == Framing::None { Unread::Nothing } else { Unread::Body(framing) };
            let wish = Wish { persists: true, expects, upgrades: false, trailers, body_bytes_max: None };
            let forwarded =
                exchange::forward(worker, &mut client, workspace, &mut unread, wish, record).await;
            match forwarded {
                Ok(_) => return,
                Err(failure) => failure,
            }
        }
        Err(Refusal::Malformed(malformed)) => RejectReason::Malformed(malformed).into(),
        Err(Refusal::Protocol) => {
            record.cut(RejectReason::Malformed(Malformed::Syntax));
            return outlet.borrow_mut().reset(Reason::PROTOCOL_ERROR);
        }
    };
    match failure {
        // Whatever was sent must not look like the whole.
        Failure::Cut(reason) => {
            record.cut(reason);
            tracing::debug!(reason = reason.name(), client = %client.address.peer, "cut off");
            outlet.borrow_mut().reset(Reason::INTERNAL_ERROR);
        }
        Failure::Reject(reason) => {
            record.rejected(reason);
            tracing::debug!(reason = reason.name(), status = reason.status(), client = %client.address.peer, "rejected");
            let _ = reject(outlet, reason, parts, workspace, (&client, record)).await;
        }
    }
}

/// Reads head and body as far as they have arrived; says how long the body is.
fn read_request(parts: &Parts, incoming: &mut Inlet, workspace: &mut Workspace) -> Result<Framing, Refusal> {
    let framing = request::read(parts, incoming.is_end_stream(), &mut workspace.request)?;
    if framing == Framing::None {
        return Ok(framing);
    }
    let ended = take_arrived(incoming, &mut workspace.inbound, REPLAY_BYTES_MAX);
    // A body that is here as a whole can be sent along with the head, and sent again.
    match ended.map_err(|_| Refusal::Protocol)? {
        true => Ok(Framing::Length(workspace.inbound.len() as u64)),
        false => Ok(framing),
    }
}

/// Ends when the time is over that the client gives its call.
async fn expiry(worker: &Worker, parts: &Parts) {
    let timeout = if grpc::is_call(&parts.headers) { grpc::timeout(&parts.headers) } else { None };
    match timeout {
        Some(timeout) => drop(worker.clock.timer().limit(timeout, pending::<()>()).await),
        None => pending().await,
    }
}

/// Tells the client of a call that its time is over, in whatever place the answer has left.
fn expire(outlet: &mut Outlet, record: &Record<'_>) {
    let reason = RejectReason::DeadlineExceeded;
    let told = if outlet.has_begun() {
        record.cut(reason);
        outlet.send_trailers(reason.grpc_status())
    } else {
        let mut head = reason.grpc_answer();
        tell(&mut head, record);
        record.rejected(reason);
        record.head_written(http2::bytes(head.headers()));
        outlet.send_head(head, true)
    };
    if told.is_err() {
        outlet.reset(Reason::CANCEL);
    }
}

/// Tells a caller who may know what served the request.
fn tell(head: &mut Response<()>, record: &Record<'_>) {
    if let Some(said) = record.served_by() {
        let fields = head.headers_mut();
        fields.remove(headers::SERVED_BY);
        http2::append_to(fields, headers::SERVED_BY.as_bytes(), said.as_bytes());
    }
}

async fn reject(
    outlet: &RefCell<Outlet>,
    reason: RejectReason,
    parts: &Parts,
    workspace: &mut Workspace,
    (client, record): (&Client<'_, '_>, &Record<'_>),
) -> Result<(), Closed> {
    // A gRPC client makes nothing of another body.
    if grpc::is_call(&parts.headers) && reason.status() >= 400 {
        let mut head = reason.grpc_answer();
        tell(&mut head, record);
        record.head_written(http2::bytes(head.headers()));
        return outlet.borrow_mut().send_head(head, true);
    }
    let head_only = parts.method == http::Method::HEAD;
    let (mut head, body) = match reason {
        RejectReason::PluginAnswered(_) => phases::composed(workspace).ok_or(Closed)?,
        _ => reason.answer(),
    };
    tell(&mut head, record);
    record.head_written(http2::bytes(head.headers()));
    let bodiless = head_only || body.is_empty();
    outlet.borrow_mut().send_head(head, bodiless)?;
    if bodiless {
        return Ok(());
    }
    let sink = Sink::from(Http2Sink::new(outlet, client.limits.body_timeout));
    send_whole(body, sink, client.timer).await.map_err(|_| Closed)
}
