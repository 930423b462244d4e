//! The bytes under an HTTP/2 connection: what was read to find out that it is one comes first, and everything a
//! client sends is counted.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::PREFACE;
use super::flood::Counter;
use crate::transport::Transport;
use crate::worker::timer::Clock;

/// A client's connection under the `h2` crate.
pub(crate) struct Wire {
    transport: Transport,
    /// What was read before the crate took over.
    received: BytesMut,
    counter: Counter,
    clock: Rc<Clock>,
    /// Set once the client has sent too much that carries nothing; from then on nothing is read.
    flooded: Rc<Cell<bool>>,
}

impl Wire {
    pub(crate) fn new(transport: Transport, received: BytesMut, clock: Rc<Clock>) -> Self {
        let counter = Counter::new(PREFACE.len());
        Self { transport, received, counter, clock, flooded: Rc::default() }
    }

    /// Tells when the client has sent too much that carries nothing.
    pub(crate) fn flooded(&self) -> Rc<Cell<bool>> {
        Rc::clone(&self.flooded)
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        room: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.flooded.get() {
            return Poll::Pending;
        }
        let before = room.filled().len();
        if this.received.is_empty() {
            std::task::ready!(Pin::new(&mut this.transport).poll_read(context, room))?;
        } else {
            let count = this.received.len().min(room.remaining());
            room.put_slice(&this.received[..count]);
            this.received.advance(count);
        }
        if !this.counter.see(&room.filled()[before..], this.clock.now()) {
            this.flooded.set(true);
            // The connection has to look at the flag.
            context.waker().wake_by_ref();
        }
        Poll::Ready(Ok(()))
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
