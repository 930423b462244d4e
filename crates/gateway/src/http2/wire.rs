//! The bytes under an HTTP/2 connection: what was read to find out that it is one comes first, and everything a
//! client sends is counted.

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
    transport: Transport,
    /// What was read before the crate took over.
    received: BytesMut,
    counter: Counter,
    timer: Timer,
    /// How long the head of a request may take.
    head_timeout: Duration,
    /// Set once the client has gone too far; from then on nothing is read.
    abuse: Rc<Cell<Option<Abuse>>>,
}

impl Wire {
    pub(crate) fn new(
        transport: Transport,
        received: BytesMut,
        timer: Timer,
        head_timeout: Duration,
    ) -> Self {
        let counter = Counter::new(PREFACE.len());
        Self { transport, received, counter, timer, head_timeout, abuse: Rc::default() }
    }

    /// Tells when the client has gone too far.
    pub(crate) fn abuse(&self) -> Rc<Cell<Option<Abuse>>> {
        Rc::clone(&self.abuse)
    }

    /// The connection has to look at what its client does.
    fn accuse(&self, abuse: Abuse, context: &Context<'_>) {
        self.abuse.set(Some(abuse));
        context.waker().wake_by_ref();
    }

    /// Reads what was received before, then from the connection.
    fn poll_bytes(&mut self, context: &mut Context<'_>, room: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.received.is_empty() {
            return Pin::new(&mut self.transport).poll_read(context, room);
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
        if this.abuse.get().is_some() {
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
        Pin::new(&mut self.get_mut().transport).poll_write(context, data)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().transport).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().transport).poll_shutdown(context)
    }
}
