//! WebSocket: who may open one, and what happens once it is open (RFC 6455).
//!
//! A tunnel is opened only if the route allows it, the client asked for it properly and the node agreed with `101`.
//! From then on bytes pass both ways untouched until both sides are done. The gateway ends a tunnel when neither side
//! has said anything for as long as the route lets a node be silent, when its route has been gone for too long, and
//! when it stops itself; both sides are told then.

use std::cell::Cell;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use gatewright_model::message::{Fields, Known, Method, RequestHead, Version};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{Notify, watch};

use super::frames::{self, Frames};
use super::reject::RejectReason;
use super::relay::READ_BYTES_SMALL;
use super::sink::write_all;
use crate::transport::{ReadHalf, WriteHalf};
use crate::worker::departure::{Departure, told};
use crate::worker::timer::{Clock, Timer, ticks};

/// Whether the request asks to become a WebSocket. To be asked before hop-by-hop fields are removed.
pub(super) fn is_asked_for(request: &RequestHead) -> bool {
    request.method == Method::Get
        && request.version == Version::Http11
        && has_token(&request.fields, Known::Connection, b"upgrade")
        && has_token(&request.fields, Known::Upgrade, b"websocket")
}

/// Whether it asks in the one way there is: version 13, with one key (RFC 6455 section 4.2.1).
pub(super) fn is_asked_for_properly(request: &RequestHead) -> bool {
    let only = |name| {
        let mut values = request.fields.named(name);
        values.next().filter(|_| values.next().is_none())
    };
    only(b"sec-websocket-version") == Some(b"13")
        && only(b"sec-websocket-key").is_some_and(|key| key.len() == 24)
}

/// Whether a node agrees. To be asked before hop-by-hop fields are removed.
pub(super) fn is_agreed(fields: &Fields) -> bool {
    has_token(fields, Known::Upgrade, b"websocket")
}

fn has_token(fields: &Fields, known: Known, token: &[u8]) -> bool {
    let mut tokens = fields.known(known).flat_map(|value| value.split(|byte| *byte == b','));
    tokens.any(|one| one.trim_ascii().eq_ignore_ascii_case(token))
}

/// One end of a tunnel.
pub(super) struct End<'a, 's> {
    pub(super) reader: &'a mut ReadHalf<'s>,
    pub(super) writer: &'a mut WriteHalf<'s>,
    /// What this end has already said.
    pub(super) said: &'a mut BytesMut,
    pub(super) timer: &'a Timer,
}

/// How often a tunnel looks whether it may go on.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// How long the ends of a tunnel may take to finish a frame and to say goodbye once the gateway ends it.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(2);

/// What a tunnel lives by.
pub(super) struct Life<'a> {
    pub(super) clock: &'a Rc<Clock>,
    /// Neither end may be silent for longer while the other is.
    pub(super) silence_max: Duration,
    /// Whether its route is still served.
    pub(super) is_served: &'a dyn Fn() -> bool,
    /// How long it may go on without.
    pub(super) drain: Duration,
    /// Told to those who stay, once the gateway stops.
    pub(super) departure: watch::Receiver<Departure>,
}

/// Passes bytes between the ends until both are done, or until the gateway ends it: then both are told so between two
/// of their frames. Hands back why the gateway ended it, if it did.
pub(super) async fn run(client: End<'_, '_>, node: End<'_, '_>, life: Life<'_>) -> Option<RejectReason> {
    let clock = life.clock;
    let (last_heard, parting) = (Cell::new(clock.now()), Parting::default());
    let silence = Silence { clock, last_heard: &last_heard, max: life.silence_max };
    let up =
        Way { silence: &silence, parting: &parting, timer: client.timer, goodbye: frames::goodbye_to_node };
    let down = Way { timer: node.timer, goodbye: frames::goodbye_to_client, ..up };
    let up = pump(client.reader, client.said, node.writer, up);
    let down = pump(node.reader, node.said, client.writer, down);
    let mut passing = pin!(async { tokio::join!(up, down) });
    let reason = tokio::select! {
        _ = &mut passing => return None,
        reason = doomed(&life, &silence) => reason,
    };
    tracing::debug!(reason = reason.name(), "a WebSocket is ended");
    parting.begin();
    // Whoever does not say goodbye in time is cut off.
    let _ = clock.timer().limit(GOODBYE_TIMEOUT, passing).await;
    Some(reason)
}

/// Ends when the gateway has a reason to end the tunnel.
async fn doomed(life: &Life<'_>, silence: &Silence<'_>) -> RejectReason {
    tokio::select! {
        () = told(life.departure.clone(), |told| told.websockets_go) => RejectReason::Stopping,
        reason = outlived(life, silence) => reason,
    }
}

/// Ends when the route has been gone for as long as its WebSockets may stay, or both ends have been silent for too
/// long.
async fn outlived(life: &Life<'_>, silence: &Silence<'_>) -> RejectReason {
    let timer = life.clock.timer();
    let mut gone_since = None;
    loop {
        let pause = LOOK_INTERVAL.min(life.drain).min(life.silence_max);
        let _ = timer.limit(pause, std::future::pending::<()>()).await;
        if silence.is_too_long() {
            return RejectReason::WebSocketIdle;
        }
        if (life.is_served)() {
            gone_since = None;
            continue;
        }
        let since = *gone_since.get_or_insert(life.clock.now());
        if life.clock.now() >= since.saturating_add(ticks(life.drain)) {
            return RejectReason::RouteGone;
        }
    }
}

/// Whether the gateway ends a tunnel.
#[derive(Default)]
struct Parting {
    begun: Cell<bool>,
    beginning: Notify,
}

impl Parting {
    fn begin(&self) {
        self.begun.set(true);
        self.beginning.notify_waiters();
    }

    async fn begins(&self) {
        if !self.begun.get() {
            self.beginning.notified().await;
        }
    }
}

/// How long both ends have been silent, and how long they may be.
struct Silence<'a> {
    clock: &'a Rc<Clock>,
    last_heard: &'a Cell<u64>,
    max: Duration,
}

impl Silence<'_> {
    fn broken(&self) {
        self.last_heard.set(self.clock.now());
    }

    fn is_too_long(&self) -> bool {
        self.clock.now() >= self.last_heard.get().saturating_add(ticks(self.max))
    }
}

/// What one direction goes by.
#[derive(Clone, Copy)]
struct Way<'a> {
    silence: &'a Silence<'a>,
    parting: &'a Parting,
    timer: &'a Timer,
    /// What the receiver is told if the gateway ends the tunnel.
    goodbye: fn() -> Vec<u8>,
}

/// One direction: ends with its sender, and then tells the receiver that nothing more comes.
async fn pump(reader: &mut ReadHalf<'_>, buffer: &mut BytesMut, writer: &mut WriteHalf<'_>, way: Way<'_>) {
    let Way { silence, parting, timer, goodbye } = way;
    let mut frames = Frames::default();
    loop {
        let parts = parting.begun.get();
        let passing = if parts {
            frames.finish(buffer)
        } else {
            frames.follow(buffer);
            buffer.len()
        };
        if passing > 0 {
            silence.broken();
            if write_all(writer, &buffer[..passing], silence.max, timer).await.is_err() {
                break;
            }
            buffer.advance(passing);
        }
        if parts && frames.is_between() {
            if !frames.is_closed() {
                let _ = write_all(writer, &goodbye(), silence.max, timer).await;
            }
            let _ = writer.shutdown().await;
            return hear_out(reader, buffer).await;
        }
        buffer.reserve(READ_BYTES_SMALL);
        tokio::select! {
            read = reader.read_buf(buffer) => if !matches!(read, Ok(1..)) { break },
            () = parting.begins(), if !parts => {}
        }
    }
    let _ = writer.shutdown().await;
}

/// Reads what is still said: closing without would reset the connection, and could destroy the goodbye on its way.
async fn hear_out(reader: &mut ReadHalf<'_>, buffer: &mut BytesMut) {
    loop {
        buffer.clear();
        buffer.reserve(READ_BYTES_SMALL);
        if !matches!(reader.read_buf(buffer).await, Ok(1..)) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(fields: &str) -> (bool, bool) {
        let mut head = RequestHead::default();
        let text = format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        crate::http1::request::parse(text.as_bytes(), &mut head).expect("a request");
        (is_asked_for(&head), is_asked_for_properly(&head))
    }

    #[test]
    fn a_websocket_is_asked_for_with_upgrade_version_and_key() {
        let upgrade = "Connection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n";
        let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
        let version = "Sec-WebSocket-Version: 13\r\n";
        assert_eq!(asked(&format!("{upgrade}{key}{version}")), (true, true));
        assert_eq!(asked(&format!("{upgrade}{key}")), (true, false));
        assert_eq!(asked(&format!("{upgrade}{version}")), (true, false));
        assert_eq!(asked(&format!("{upgrade}{key}{key}{version}")), (true, false));
        assert_eq!(asked(&format!("{upgrade}{key}Sec-WebSocket-Version: 99\r\n")), (true, false));
        assert!(!asked(&format!("Upgrade: websocket\r\n{key}{version}")).0);
        assert!(!asked(&format!("Connection: upgrade\r\nUpgrade: h2c\r\n{key}{version}")).0);
    }
}
