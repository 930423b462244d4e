//! Frames leave together: what the streams of a connection have to say at one moment goes out in one write.
//!
//! The `h2` crate writes and flushes frame by frame, and every write is a system call and, over TLS, a record. Here
//! its writes are gathered; whoever polls the connection sends them when it has been polled ([`Gather::along`]), so
//! nothing waits longer than that.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::transport::Transport;

/// Bytes that are gathered; a larger write goes out by itself. A TLS record holds as much.
const GATHERED_BYTES_MAX: usize = 16 * 1024;

/// A connection, and what is to be written to it.
pub(crate) struct Gather {
    transport: RefCell<Transport>,
    gathered: RefCell<BytesMut>,
}

impl Gather {
    pub(crate) fn new(transport: Transport) -> Self {
        Self { transport: RefCell::new(transport), gathered: RefCell::default() }
    }

    /// Waits for what `poll` waits for, and sends what was gathered whenever it has been polled.
    ///
    /// # Errors
    /// When nothing can be written any more.
    pub(crate) async fn along<T>(&self, mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>) -> io::Result<T> {
        poll_fn(|context| {
            let polled = poll(context);
            match self.poll_send(context) {
                Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
                _ => polled.map(Ok),
            }
        })
        .await
    }

    pub(crate) fn poll_read(
        &self,
        context: &mut Context<'_>,
        room: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.transport.borrow_mut()).poll_read(context, room)
    }

    /// Takes some of `data`, as far as there is room for it.
    pub(crate) fn poll_put(&self, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        if self.gathered.borrow().len() + data.len() > GATHERED_BYTES_MAX {
            ready!(self.poll_send(context))?;
        }
        if data.len() > GATHERED_BYTES_MAX {
            return Pin::new(&mut *self.transport.borrow_mut()).poll_write(context, data);
        }
        let mut gathered = self.gathered.borrow_mut();
        if gathered.capacity() == 0 {
            gathered.reserve(GATHERED_BYTES_MAX);
        }
        gathered.extend_from_slice(data);
        Poll::Ready(Ok(data.len()))
    }

    /// Sends what was gathered.
    fn poll_send(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut gathered = self.gathered.borrow_mut();
        let transport = &mut *self.transport.borrow_mut();
        while !gathered.is_empty() {
            let count = ready!(Pin::new(&mut *transport).poll_write(context, &gathered))?;
            if count == 0 {
                return Poll::Ready(Err(ErrorKind::WriteZero.into()));
            }
            gathered.advance(count);
        }
        // A connection that has nothing to say keeps no room for it.
        *gathered = BytesMut::new();
        Pin::new(transport).poll_flush(context)
    }

    /// Sends what was gathered and says that nothing more follows.
    pub(crate) fn poll_shutdown(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send(context))?;
        Pin::new(&mut *self.transport.borrow_mut()).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_util::poll;
    use tokio::io::AsyncReadExt as _;
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    async fn connected() -> (Gather, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (near, far) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        (Gather::new(Transport::Plain(near.unwrap())), far.unwrap().0)
    }

    #[tokio::test]
    async fn pieces_leave_together_once_the_connection_was_polled() {
        let (gather, mut far) = connected().await;
        let mut buffer = [0; 100];
        for piece in ["to", "get", "her"] {
            let put = poll_fn(|context| gather.poll_put(context, piece.as_bytes())).await;
            assert_eq!(put.unwrap(), piece.len());
        }
        assert_eq!(far.try_read(&mut buffer).unwrap_err().kind(), ErrorKind::WouldBlock);
        gather.along(|_| Poll::Ready(())).await.unwrap();
        let count = far.read(&mut buffer).await.unwrap();
        assert_eq!(&buffer[..count], b"together");
    }

    #[tokio::test]
    async fn pieces_stay_in_order_whatever_their_size() {
        let (gather, mut far) = connected().await;
        let sizes = [10, GATHERED_BYTES_MAX - 5, 3, GATHERED_BYTES_MAX + 1, 0, 7];
        let text: Vec<u8> = (0..sizes.iter().sum()).map(|index: usize| index.to_le_bytes()[0]).collect();
        let mut rest = &text[..];
        for size in sizes {
            let (mut piece, after) = rest.split_at(size);
            while !piece.is_empty() {
                let count = poll_fn(|context| gather.poll_put(context, piece)).await.unwrap();
                piece = &piece[count..];
            }
            rest = after;
        }
        poll_fn(|context| gather.poll_shutdown(context)).await.unwrap();
        let mut received = Vec::new();
        far.read_to_end(&mut received).await.unwrap();
        assert!(received == text);
    }

    #[tokio::test]
    async fn of_a_receiver_that_takes_nothing_little_is_kept() {
        let (gather, far) = connected().await;
        let mut filling = pin!(async {
            loop {
                poll_fn(|context| gather.poll_put(context, &[0; 1000])).await.unwrap();
            }
        });
        let filled: Poll<()> = poll!(filling.as_mut());
        assert!(filled.is_pending());
        assert!(gather.gathered.borrow().len() <= GATHERED_BYTES_MAX);
        drop(far);
        let ended = gather.along(|_| Poll::<()>::Pending);
        ended.await.unwrap_err();
    }

    #[tokio::test]
    async fn waiting_for_something_else_does_not_keep_a_piece_back() {
        let (gather, mut far) = connected().await;
        poll_fn(|context| gather.poll_put(context, b"now")).await.unwrap();
        let mut endless = pin!(gather.along(|_| Poll::<()>::Pending));
        assert!(poll!(endless.as_mut()).is_pending());
        let mut buffer = [0; 3];
        far.read_exact(&mut buffer).await.unwrap();
        assert_eq!(&buffer, b"now");
    }
}
