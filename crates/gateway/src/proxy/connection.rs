//! One client connection, request after request.
//!
//! Between requests a connection holds no buffers. Whatever is wrong with one request never touches the next: if
//! it is not certain where a request ended, the connection is closed.

use std::io::ErrorKind;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::{Buf, BytesMut};
use gatewright_model::message::{Known, Method, Version};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::client::{Client, Incoming, Outgoing};
use super::exchange::{self, Failure, Wish};
use super::headers::{self, ClientAddress};
use super::reject::RejectReason;
use super::relay::READ_BYTES_SMALL;
use super::sink::write_all;
use super::tunnel;
use super::{multiplexed, phases};
use crate::config::Limits;
use crate::http1::framing::Framing;
use crate::http1::scan::{self, Progress};
use crate::http1::{Malformed, request};
use crate::http2::PREFACE;
use crate::telemetry::record::Record;
use crate::transport::{ReadHalf, Traffic, Transport, WriteHalf};
use crate::worker::Worker;
use crate::worker::buffers::Workspace;
use crate::worker::door::Eviction;
use crate::worker::timer::{Timer, ticks};

/// How long, and for how many bytes, the rest of a refused request is read before the connection is closed; closing
/// with unread bytes would reset the connection and could destroy the answer on its way.
const LINGER_TIMEOUT: Duration = Duration::from_secs(2);
const LINGER_BYTES_MAX: usize = 256 * 1024;

/// A client connection that speaks HTTP/1.
struct ClientConnection<'s> {
    reader: ReadHalf<'s>,
    writer: WriteHalf<'s>,
    address: &'s ClientAddress,
    limits: &'s Limits,
    timer: Timer,
    upload_timer: Timer,
    /// What has passed the connection.
    traffic: &'s Traffic,
}

/// What is left of a request's body on the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unread {
    /// Nothing: the next byte is the next request.
    Nothing,
    /// All of it.
    Body(Framing),
    /// Some of it, and nobody knows how much.
    Unknown,
}

/// What becomes of the connection after a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Request,
    Close,
    /// Close without a goodbye: what was sent is no whole answer and must not look like one.
    Cut,
    /// Close, but read on for a moment so that the answer arrives.
    Linger,
}

/// Serves one client connection until it closes.
pub(crate) async fn serve(worker: &Rc<Worker>, mut transport: Transport, address: ClientAddress) {
    if let Some(received) = serve_http1(worker, &mut transport, &address).await {
        multiplexed::serve(worker, transport, received, address).await;
    }
}

/// Serves a connection that speaks HTTP/1; hands back what was read of one that speaks HTTP/2 instead.
async fn serve_http1(
    worker: &Rc<Worker>,
    transport: &mut Transport,
    address: &ClientAddress,
) -> Option<BytesMut> {
    let traffic = Traffic::default();
    let (reader, writer) = transport.split(&traffic);
    let (timer, upload_timer) = (worker.clock.timer(), worker.clock.timer());
    let (limits, traffic) = (&worker.limits, &traffic);
    let mut client = ClientConnection { reader, writer, address, limits, timer, upload_timer, traffic };
    let mut first = first_bytes(worker, &mut client, (worker.limits.head_timeout, Eviction::Silent)).await?;
    if begins_http2(worker, &mut client, &mut first.inbound).await {
        return Some(std::mem::take(&mut first.inbound));
    }
    let mut kept = Some(first);
    loop {
        let mut workspace = match kept.take() {
            Some(workspace) => workspace,
            None => first_bytes(worker, &mut client, (worker.limits.idle_timeout, Eviction::Idle)).await?,
        };
        match serve_request(worker, &mut client, &mut workspace).await {
            Next::Request if workspace.inbound.is_empty() => worker.buffers.give_back(workspace),
            Next::Request => kept = Some(workspace),
            Next::Close => {
                say_goodbye(&mut client).await;
                return None;
            }
            Next::Cut => return None,
            Next::Linger => {
                linger(&mut client, &mut workspace.inbound).await;
                return None;
            }
        }
    }
}

/// Waits without buffers for the next request to begin; `None` if the connection is done.
async fn first_bytes(
    worker: &Worker,
    client: &mut ClientConnection<'_>,
    (patience, eviction): (Duration, Eviction),
) -> Option<Box<Workspace>> {
    loop {
        let stopping = worker.stopping.get();
        let patience = if stopping { patience.min(worker.limits.shutdown_grace) } else { patience };
        match client.timer.limit_idle(patience, client.reader.readable()).await {
            Ok(readable) => readable.ok()?,
            Err(_) => {
                if !worker.stopping.get() {
                    worker.door.evict(eviction, client.address.peer);
                }
                return None;
            }
        }
        let mut workspace = worker.buffers.take();
        workspace.inbound.reserve(READ_BYTES_SMALL);
        match client.reader.try_read_buf(&mut workspace.inbound) {
            Ok(1..) => return Some(workspace),
            // The system may call a connection readable that is not.
            Err(error) if error.kind() == ErrorKind::WouldBlock => worker.buffers.give_back(workspace),
            Ok(0) | Err(_) => return None,
        }
    }
}

/// Whether a connection begins as only HTTP/2 does. Reads on only while that is open, which the second byte of
/// almost every HTTP/1 request settles.
async fn begins_http2(worker: &Worker, client: &mut ClientConnection<'_>, inbound: &mut BytesMut) -> bool {
    let deadline = worker.clock.now().saturating_add(ticks(worker.limits.head_timeout));
    while inbound.len() < PREFACE.len() && PREFACE.starts_with(inbound) {
        match client.timer.until(deadline, client.reader.read_buf(inbound)).await {
            Ok(Ok(1..)) => {}
            Ok(Ok(0) | Err(_)) | Err(_) => return false,
        }
    }
    inbound.starts_with(PREFACE)
}

/// Answers one request and records what became of it.
async fn serve_request(
    worker: &Rc<Worker>,
    client: &mut ClientConnection<'_>,
    workspace: &mut Workspace,
) -> Next {
    let (begun, before) = (Instant::now(), client.passed(workspace));
    let framing = match read_head(worker, client, workspace).await {
        Ok(Some(framing)) => Ok(framing),
        Ok(None) => return Next::Close,
        Err(reason) => Err(reason),
    };
    worker.recorder.counts().request_began();
    let live = worker.live.take();
    let record = Record::on(&live, begun);
    let forwarded = match framing {
        Ok(framing) => forward(worker, client, workspace, framing, &record).await,
        Err(reason) => {
            workspace.request.clear();
            Err(Rejection { reason, unread: Unread::Unknown, persists: false })
        }
    };
    let next = match forwarded {
        Ok(next) => next,
        Err(rejection) => reject(client, workspace, rejection, &record).await,
    };
    let after = client.passed(workspace);
    record.passed(after.read - before.read, after.written - before.written);
    worker.recorder.finish(&record, &mut workspace.request, client.address);
    next
}

/// A request that the gateway answers itself, and how it stands with the connection.
struct Rejection {
    reason: RejectReason,
    unread: Unread,
    persists: bool,
}

async fn forward(
    worker: &Rc<Worker>,
    client: &mut ClientConnection<'_>,
    workspace: &mut Workspace,
    framing: Framing,
    record: &Record<'_>,
) -> Result<Next, Rejection> {
    let version = workspace.request.version;
    let at_once = |reason| Rejection { reason, unread: Unread::Unknown, persists: false };
    let expects = expectation(workspace).map_err(at_once)?;
    let upgrades = tunnel::is_asked_for(&workspace.request);
    let trailers = headers::reads_trailers(&workspace.request.fields);
    let options = headers::remove_hop_by_hop(&mut workspace.request.fields);
    let persists = options.persists(version) && !worker.stopping.get();
    let mut unread = if framing == Framing::None { Unread::Nothing } else { Unread::Body(framing) };
    let wish = Wish { persists, expects, upgrades, trailers, body_bytes_max: None };
    let ClientConnection { reader, writer, address, limits, timer, upload_timer, .. } = &mut *client;
    let mut end = Client {
        incoming: Incoming::Http1(reader),
        outgoing: Outgoing::Http1(writer),
        address,
        limits,
        timer,
        upload_timer,
    };
    match exchange::forward(worker, &mut end, workspace, &mut unread, wish, record).await {
        Ok(true) => Ok(Next::Request),
        Ok(false) if unread == Unread::Nothing => Ok(Next::Close),
        Ok(false) => Ok(Next::Linger),
        Err(Failure::Reject(reason)) => Err(Rejection { reason, unread, persists }),
        Err(Failure::Cut(reason)) => {
            record.cut(reason);
            tracing::debug!(reason = reason.name(), client = %client.address.peer, "cut off");
            Ok(Next::Cut)
        }
    }
}

impl ClientConnection<'_> {
    /// Bytes that requests so far consisted of and that were answered: what was read ahead does not count.
    fn passed(&self, workspace: &Workspace) -> Passed {
        let read = self.traffic.read.get() - workspace.inbound.len() as u64;
        Passed { read, written: self.traffic.written.get() }
    }
}

struct Passed {
    read: u64,
    written: u64,
}

/// Reads one head; `None` if the client closed instead.
async fn read_head(
    worker: &Worker,
    client: &mut ClientConnection<'_>,
    workspace: &mut Workspace,
) -> Result<Option<Framing>, RejectReason> {
    let deadline = worker.clock.now().saturating_add(ticks(worker.limits.head_timeout));
    let inbound = &mut workspace.inbound;
    let mut progress = Progress::default();
    loop {
        scan::skip_line_break(inbound, &mut progress);
        if let Some(end) = scan::head_end(inbound, &mut progress).map_err(RejectReason::Malformed)? {
            if end > worker.limits.head_bytes_max {
                return Err(RejectReason::Malformed(too_long(&inbound[..end])));
            }
            let framing = request::parse(&inbound[..end], &mut workspace.request);
            inbound.advance(end);
            let framing = framing.map_err(RejectReason::Malformed)?;
            let is_long = workspace.request.fields.iter().nth(worker.limits.head_fields_max).is_some();
            return if is_long {
                Err(RejectReason::Malformed(Malformed::TooManyFields))
            } else {
                Ok(Some(framing))
            };
        }
        if inbound.len() > worker.limits.head_bytes_max {
            return Err(RejectReason::Malformed(too_long(inbound)));
        }
        inbound.reserve(READ_BYTES_SMALL);
        match client.timer.until(deadline, client.reader.read_buf(inbound)).await {
            Ok(Ok(0) | Err(_)) => return Ok(None),
            Ok(Ok(_)) => {}
            Err(_) if inbound.is_empty() => return Ok(None),
            Err(_) => return Err(RejectReason::HeadTimeout),
        }
    }
}

/// Whether a body says of itself that it is too large; a chunked one is measured on its way.
pub(super) fn is_too_large(framing: Framing, limits: &Limits) -> bool {
    matches!((framing, limits.body_bytes_max), (Framing::Length(length), Some(max)) if length > max.get())
}

/// Whether the request line or the fields made a head too large.
fn too_long(head: &[u8]) -> Malformed {
    let first_line = memchr::memchr(b'\n', head).unwrap_or(head.len());
    if first_line > crate::http1::TARGET_BYTES_MAX {
        Malformed::TargetTooLong
    } else {
        Malformed::HeadTooLong
    }
}

/// Whether the client waits for `100 Continue` before it sends its body (RFC 9110 section 10.1.1).
fn expectation(workspace: &Workspace) -> Result<bool, RejectReason> {
    let request = &workspace.request;
    let mut expects = false;
    for value in request.fields.known(Known::Expect) {
        if !value.eq_ignore_ascii_case(b"100-continue") {
            return Err(RejectReason::ExpectationUnsupported);
        }
        expects = request.version == Version::Http11;
    }
    Ok(expects)
}

async fn reject(
    client: &mut ClientConnection<'_>,
    workspace: &mut Workspace,
    rejection: Rejection,
    record: &Record<'_>,
) -> Next {
    record.rejected(rejection.reason);
    let Rejection { reason, unread, persists } = rejection;
    let ended = match unread {
        Unread::Nothing => true,
        Unread::Body(Framing::Length(length)) => skip_buffered(&mut workspace.inbound, length),
        Unread::Body(_) | Unread::Unknown => false,
    };
    let persists = persists && ended && !reason.is_about_the_connection();
    let head_only = workspace.request.client_method() == Method::Head;
    workspace.reply.clear();
    let served_by = record.served_by();
    match reason {
        RejectReason::PluginAnswered(_) => phases::write_composed(workspace, !persists, served_by),
        _ => reason.write((!persists, head_only), served_by, &mut workspace.reply),
    }
    record.head_written(memchr::memmem::find(&workspace.reply, b"\r\n\r\n").map_or(0, |end| end + 4));
    tracing::debug!(reason = reason.name(), status = reason.status(), client = %client.address.peer, "rejected");
    let written =
        write_all(&mut client.writer, &workspace.reply, client.limits.body_timeout, &client.timer).await;
    workspace.reply.clear();
    match written {
        Ok(()) if persists => Next::Request,
        Ok(()) => Next::Linger,
        Err(_) => Next::Close,
    }
}

/// Skips a body that has already arrived as a whole.
fn skip_buffered(inbound: &mut BytesMut, length: u64) -> bool {
    match usize::try_from(length) {
        Ok(length) if length <= inbound.len() => {
            inbound.advance(length);
            true
        }
        _ => false,
    }
}

/// Says over TLS that nothing more comes, which a mere end of the connection does not prove.
async fn say_goodbye(client: &mut ClientConnection<'_>) {
    if client.writer.holds_back() {
        let _ = client.timer.limit(LINGER_TIMEOUT, client.writer.shutdown()).await;
    }
}

async fn linger(client: &mut ClientConnection<'_>, scratch: &mut BytesMut) {
    let ClientConnection { reader, writer, timer, .. } = client;
    let reading = async {
        let _ = writer.shutdown().await;
        let mut total = 0;
        while total < LINGER_BYTES_MAX {
            scratch.clear();
            scratch.reserve(READ_BYTES_SMALL);
            match reader.read_buf(scratch).await {
                Ok(0) | Err(_) => break,
                Ok(count) => total += count,
            }
        }
    };
    let _ = timer.limit(LINGER_TIMEOUT, reading).await;
}
