//! WebSocket: who may open one, and what happens once it is open (RFC 6455).
//!
//! A tunnel is opened only if the route allows it, the client asked for it properly and the node agreed with `101`.
//! From then on bytes pass both ways untouched until both sides are done, or until neither has said anything for as
//! long as the route lets a node be silent.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use crate::transport::{ReadHalf, WriteHalf};
use bytes::BytesMut;
use gatewright_model::message::{Fields, Known, Method, RequestHead, Version};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::relay::READ_BYTES_SMALL;
use super::sink::write_all;
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

/// What a tunnel lives by.
pub(super) struct Life<'a> {
    pub(super) clock: &'a Rc<Clock>,
    /// Neither end may be silent for longer while the other is.
    pub(super) silence_max: Duration,
    /// Whether its route is still served.
    pub(super) is_served: &'a dyn Fn() -> bool,
    /// How long it may go on without.
    pub(super) drain: Duration,
}

/// Passes bytes between the ends until both are done, neither said anything for too long, or its route has been gone
/// for too long.
pub(super) async fn run(client: End<'_, '_>, node: End<'_, '_>, life: Life<'_>) {
    let Life { clock, silence_max, .. } = life;
    let last_heard = Cell::new(clock.now());
    let silence = Silence { clock, last_heard: &last_heard, max: silence_max };
    let up = pump(client.reader, client.said, node.writer, client.timer, &silence);
    let down = pump(node.reader, node.said, client.writer, node.timer, &silence);
    tokio::select! {
        _ = async { tokio::join!(up, down) } => {}
        () = forsaken(&life) => tracing::debug!("a WebSocket outlived its route and was closed"),
    }
}

/// Ends when the route has been gone for as long as its WebSockets may stay.
async fn forsaken(life: &Life<'_>) {
    let timer = life.clock.timer();
    let mut gone_since = None;
    loop {
        let _ = timer.limit(LOOK_INTERVAL.min(life.drain), std::future::pending::<()>()).await;
        if (life.is_served)() {
            gone_since = None;
            continue;
        }
        let since = *gone_since.get_or_insert(life.clock.now());
        if life.clock.now() >= since.saturating_add(ticks(life.drain)) {
            return;
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

/// One direction: ends with its sender, and then tells the receiver that nothing more comes.
async fn pump(
    reader: &mut ReadHalf<'_>,
    buffer: &mut BytesMut,
    writer: &mut WriteHalf<'_>,
    timer: &Timer,
    silence: &Silence<'_>,
) {
    loop {
        if !buffer.is_empty() {
            silence.broken();
            if write_all(writer, buffer, silence.max, timer).await.is_err() {
                break;
            }
            buffer.clear();
        }
        buffer.reserve(READ_BYTES_SMALL);
        match timer.limit(silence.max, reader.read_buf(buffer)).await {
            Ok(Ok(1..)) => {}
            // The other direction may be alive.
            Err(_) if !silence.is_too_long() => {}
            Ok(Ok(0) | Err(_)) | Err(_) => break,
        }
    }
    let _ = writer.shutdown().await;
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
