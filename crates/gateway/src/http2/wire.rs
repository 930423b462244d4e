//! The bytes under an HTTP/2 connection: what was read to find out that it is one comes first, and everything a
//! client sends is counted, and what it is refused.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::PREFACE;
use super::flood::Counter;
use super::frames::Refusals;
use super::gather::Gather;
use crate::transport::Transport;
use crate::worker::timer::{Timer, ticks};

/// What a client does that costs it its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Abuse {
    /// It sends too much that carries nothing.
    Flood,
    /// The head of a request did not arrive in time.
    SlowHead,
}

/// A client's connection under the `h2` crate.
pub(crate) struct Wire {
    gather: Rc<Gather>,
    /// What was read before the crate took over.
    received: BytesMut,
    counter: Counter,
    timer: Timer,
    /// How long the head of a request may take.
    head_timeout: Duration,
    refusals: Refusals,
    seen: Rc<Seen>,
}

/// What was seen on the wire and is nothing the crate tells.
#[derive(Default)]
pub(crate) struct Seen {
    /// Set once the client has gone too far; from then on nothing is read.
    pub(crate) abuse: Cell<Option<Abuse>>,
    /// Streams that were refused because too many are open.
    pub(crate) refused: Cell<u32>,
}

impl Wire {
    pub(crate) fn new(
        transport: Transport,
        received: BytesMut,
        timer: Timer,
        head_timeout: Duration,
    ) -> Self {
        let counter = Counter::new(PREFACE.len());
        let gather = Rc::new(Gather::new(transport));
        let (refusals, seen) = (Refusals::default(), Rc::default());
        Self { gather, received, counter, timer, head_timeout, refusals, seen }
    }

    /// What is seen as the connection goes on.
    pub(crate) fn seen(&self) -> Rc<Seen> {
        Rc::clone(&self.seen)
    }

    /// What the crate writes gathers here; it is sent by whoever polls the connection.
    pub(crate) fn gather(&self) -> Rc<Gather> {
        Rc::clone(&self.gather)
    }

    /// The connection has to look at what its client does.
    fn accuse(&self, abuse: Abuse, context: &Context<'_>) {
        self.seen.abuse.set(Some(abuse));
        context.waker().wake_by_ref();
    }

    /// Reads what was received before, then from the connection.
    fn poll_bytes(&mut self, context: &mut Context<'_>, room: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.received.is_empty() {
            return self.gather.poll_read(context, room);
        }
        let count = self.received.len().min(room.remaining());
        room.put_slice(&self.received[..count]);
        self.received.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        room: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.seen.abuse.get().is_some() {
            return Poll::Pending;
        }
        let before = room.filled().len();
        let polled = this.poll_bytes(context, room);
        if !this.counter.see(&room.filled()[before..], this.timer.now()) {
            this.accuse(Abuse::Flood, context);
        }
        match this.counter.head_since() {
            None => this.timer.disarm(),
            Some(since) => {
                let deadline = since.saturating_add(ticks(this.head_timeout));
                if this.timer.poll_at(deadline, context).is_ready() {
                    this.accuse(Abuse::SlowHead, context);
                }
            }
        }
        polled
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = this.gather.poll_put(context, data);
        if let Poll::Ready(Ok(written)) = polled {
            let refused = this.refusals.see(&data[..written]);
            this.seen.refused.update(|before| before + refused);
        }
        polled
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.gather.poll_shutdown(context)
    }
}
