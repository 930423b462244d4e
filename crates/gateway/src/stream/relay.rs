//! Bytes in both directions, as they come, until both sides are done.
//!
//! A side that sends no more is told to the other, which may go on. The gateway ends a relay when neither side has said
//! anything for too long, when its stream route has been gone for too long, and when it stops itself.
//! A buffer is held while bytes are on their way, and not by a connection that waits.

use std::cell::{Cell, RefCell};
use std::io::ErrorKind;
use std::pin::pin;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::AsyncWriteExt;

use crate::proxy::sink::write_all;
use crate::telemetry::metrics::streams::StreamEnd;
use crate::transport::{ReadHalf, WriteHalf};
use crate::worker::Worker;
use crate::worker::departure::told;
use crate::worker::timer::{Timer, ticks};

/// Bytes that are passed on at once.
const PIECE_BYTES: usize = 64 * 1024;

/// Buffers kept for reuse per worker; more are freed.
const SPARE_MAX: usize = 64;

/// What a relay lives by.
pub(super) struct Life<'a> {
    pub(super) worker: &'a Worker,
    /// Both sides may be silent for so long.
    pub(super) silence_max: Duration,
    /// Whether its stream route is still served.
    pub(super) is_served: &'a dyn Fn() -> bool,
}

/// The buffers that wait for bytes on one worker.
#[derive(Default)]
pub(crate) struct Pieces(RefCell<Vec<BytesMut>>);

impl Pieces {
    /// An empty one, in which there is room for a datagram of any size.
    pub(super) fn take(&self) -> BytesMut {
        self.0.borrow_mut().pop().unwrap_or_else(|| BytesMut::with_capacity(PIECE_BYTES))
    }

    pub(super) fn give_back(&self, piece: BytesMut) {
        let mut spare = self.0.borrow_mut();
        if spare.len() < SPARE_MAX {
            spare.push(piece);
        }
    }
}

/// Both halves of a connection.
pub(super) type End<'s> = (ReadHalf<'s>, WriteHalf<'s>);

/// Passes bytes between client and node.
pub(super) async fn run(client: End<'_>, node: End<'_>, life: Life<'_>) -> StreamEnd {
    let clock = &life.worker.clock;
    let heard = Cell::new(clock.now());
    let ((mut from_client, mut to_client), (mut from_node, mut to_node)) = (client, node);
    let (up_timer, down_timer, idle_timer) = (clock.timer(), clock.timer(), clock.timer());
    let way = |timer| Way { pieces: &life.worker.pieces, heard: &heard, limit: life.silence_max, timer };
    let up = pump(&mut from_client, &mut to_node, way(&up_timer));
    let down = pump(&mut from_node, &mut to_client, way(&down_timer));
    let up =
        async { up.await.map_err(|broken| broken.seen_from(StreamEnd::ClientBroken, StreamEnd::NodeBroken)) };
    let down = async {
        down.await.map_err(|broken| broken.seen_from(StreamEnd::NodeBroken, StreamEnd::ClientBroken))
    };
    tokio::select! {
        passed = async { tokio::try_join!(up, down) } => passed.err().unwrap_or(StreamEnd::Done),
        () = silent(&heard, life.silence_max, &idle_timer) => StreamEnd::Idle,
        end = doomed(&life) => end,
    }
}

/// What one direction goes by.
struct Way<'a> {
    pieces: &'a Pieces,
    heard: &'a Cell<u64>,
    limit: Duration,
    timer: &'a Timer,
}

/// Why a direction ended before its time.
enum Broken {
    Source,
    Sink,
    SinkStalled,
}

impl Broken {
    fn seen_from(&self, source: StreamEnd, sink: StreamEnd) -> StreamEnd {
        match self {
            Self::Source => source,
            Self::Sink => sink,
            Self::SinkStalled => StreamEnd::Idle,
        }
    }
}

/// One direction: ends with its sender, and tells the receiver that nothing more comes.
async fn pump(reader: &mut ReadHalf<'_>, writer: &mut WriteHalf<'_>, way: Way<'_>) -> Result<(), Broken> {
    loop {
        reader.readable().await.map_err(|_| Broken::Source)?;
        let mut piece = way.pieces.take();
        let passed = pass_on(reader, writer, &mut piece, &way).await;
        way.pieces.give_back(piece);
        if passed?.is_last {
            // Who has gone for good is found out when it is written to.
            let _ = writer.shutdown().await;
            return Ok(());
        }
    }
}

/// What was passed on.
struct Passed {
    /// Whether nothing more comes.
    is_last: bool,
}

/// Passes on what is there.
async fn pass_on(
    reader: &mut ReadHalf<'_>,
    writer: &mut WriteHalf<'_>,
    piece: &mut BytesMut,
    way: &Way<'_>,
) -> Result<Passed, Broken> {
    loop {
        piece.clear();
        match reader.try_read_buf(piece) {
            Ok(0) => return Ok(Passed { is_last: true }),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Passed { is_last: false }),
            // A TLS session that ends without saying so has ended as well.
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(Passed { is_last: true }),
            Err(_) => return Err(Broken::Source),
        }
        way.heard.set(way.timer.now());
        match write_all(writer, piece, way.limit, way.timer).await {
            Ok(()) => way.heard.set(way.timer.now()),
            Err(crate::proxy::relay::Broken::SinkTimeout) => return Err(Broken::SinkStalled),
            Err(_) => return Err(Broken::Sink),
        }
    }
}

/// Ends when both sides have been silent for too long.
async fn silent(heard: &Cell<u64>, max: Duration, timer: &Timer) {
    loop {
        let deadline = heard.get().saturating_add(ticks(max));
        if timer.now() >= deadline {
            return;
        }
        let _ = timer.until(deadline, std::future::pending::<()>()).await;
    }
}

/// Ends when the gateway has another reason to end the relay.
pub(super) async fn doomed(life: &Life<'_>) -> StreamEnd {
    tokio::select! {
        () = told(life.worker.departure.clone(), |told| told.streams_go) => StreamEnd::Stopping,
        () = outlived(life) => StreamEnd::RouteGone,
    }
}

/// Ends when the stream route has been gone for as long as its connections may stay.
async fn outlived(life: &Life<'_>) {
    loop {
        let mut changed = pin!(life.worker.streams_changed.notified());
        changed.as_mut().enable();
        if (life.is_served)() {
            changed.await;
            continue;
        }
        let timer = life.worker.clock.timer();
        let back = async {
            while !(life.is_served)() {
                life.worker.streams_changed.notified().await;
            }
        };
        if timer.limit(life.worker.limits.stream_drain, back).await.is_err() {
            return;
        }
    }
}
