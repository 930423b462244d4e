//! Where a body goes, of either protocol.
//!
//! Small pieces are gathered with what is already waiting to be written, so that a head and a small body leave in
//! one write; large ones go out straight from the buffer they were read into. Towards HTTP/2 a piece is held back only
//! until it is known whether it is the last one.

use std::cell::RefCell;
use std::future::poll_fn;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use gatewright_model::message::Fields;
use gatewright_plugins::response::{BodyFilter, finish_all, push_all};
use tokio::io::AsyncWriteExt;

use super::relay::Broken;
use crate::http1::chunked;
use crate::http1::framing::Framing;
use crate::http2;
use crate::http2::outlet::Outlet;
use crate::transport::WriteHalf;
use crate::worker::timer::Timer;

/// Bytes that are copied to leave together with others; more go out directly.
const GATHER_BYTES_MAX: usize = 16 * 1024;

/// Bytes that are copied out of a read buffer; of more, the buffer is given away.
const COPY_BYTES_MAX: usize = 4 * 1024;

/// Where a body goes.
pub(crate) struct Sink<'a, 's> {
    end: End<'a, 's>,
    /// What changes the body on its way; none: it passes as it is.
    filters: Vec<Box<dyn BodyFilter>>,
}

enum End<'a, 's> {
    Http1(Http1Sink<'a, 's>),
    Http2(Http2Sink<'a>),
    Kept(&'a mut Kept),
}

/// A body that is kept, for somebody who wants to see all of it first.
#[derive(Default)]
pub(crate) struct Kept {
    pub(crate) body: BytesMut,
    pub(crate) trailers: Fields,
}

impl<'a, 's> From<Http1Sink<'a, 's>> for Sink<'a, 's> {
    fn from(sink: Http1Sink<'a, 's>) -> Self {
        Self { end: End::Http1(sink), filters: Vec::new() }
    }
}

impl<'a> From<&'a mut Kept> for Sink<'a, '_> {
    fn from(kept: &'a mut Kept) -> Self {
        Self { end: End::Kept(kept), filters: Vec::new() }
    }
}

impl<'a> From<Http2Sink<'a>> for Sink<'a, '_> {
    fn from(sink: Http2Sink<'a>) -> Self {
        Self { end: End::Http2(sink), filters: Vec::new() }
    }
}

/// A body goes to an HTTP/1 connection.
pub(crate) struct Http1Sink<'a, 's> {
    pub(crate) writer: &'a mut WriteHalf<'s>,
    /// What waits to be written, such as the head.
    pub(crate) staged: &'a mut Vec<u8>,
    pub(crate) write_limit: Duration,
    /// Whether the body is written in chunks.
    pub(crate) chunked: bool,
    /// Whether trailers are written; only chunks have a place for them.
    pub(crate) trailers: bool,
}

impl<'a, 's> Sink<'a, 's> {
    /// For a request, of which `staged` holds the head, with a body of this framing.
    pub(crate) fn of_request(
        writer: &'a mut WriteHalf<'s>,
        staged: &'a mut Vec<u8>,
        write_limit: Duration,
        framing: Framing,
    ) -> Self {
        let chunked = framing == Framing::Chunked;
        Http1Sink { writer, staged, write_limit, chunked, trailers: chunked }.into()
    }
}

/// A body goes to an HTTP/2 stream.
pub(crate) struct Http2Sink<'a> {
    outlet: &'a RefCell<Outlet>,
    /// What may turn out to be the last piece.
    staged: Bytes,
    write_limit: Duration,
}

impl<'a> Http2Sink<'a> {
    pub(crate) fn new(outlet: &'a RefCell<Outlet>, write_limit: Duration) -> Self {
        Self { outlet, staged: Bytes::new(), write_limit }
    }
}

/// Passes on a body that is here as a whole.
pub(crate) async fn send_whole(data: Bytes, mut sink: Sink<'_, '_>, timer: &Timer) -> Result<(), Broken> {
    sink.put(data, timer).await?;
    sink.finish(None, timer).await
}

impl Sink<'_, '_> {
    /// The same, for a body that passes through `filters` first.
    pub(super) fn through(self, filters: Vec<Box<dyn BodyFilter>>) -> Self {
        Self { filters, ..self }
    }

    /// Passes on the first `length` bytes of `buffer` and takes them out of it.
    pub(super) async fn take(
        &mut self,
        buffer: &mut BytesMut,
        length: usize,
        timer: &Timer,
    ) -> Result<(), Broken> {
        if !self.filters.is_empty() {
            let filtered = self.filter(&buffer[..length]);
            buffer.advance(length);
            return self.end.put(filtered, timer).await;
        }
        match &mut self.end {
            End::Http1(sink) => {
                sink.put(&buffer[..length], timer).await?;
                buffer.advance(length);
                Ok(())
            }
            End::Http2(sink) if length <= COPY_BYTES_MAX => {
                let data = Bytes::copy_from_slice(&buffer[..length]);
                buffer.advance(length);
                sink.put(data, timer).await
            }
            End::Http2(sink) => sink.put(buffer.split_to(length).freeze(), timer).await,
            End::Kept(kept) => {
                kept.body.extend_from_slice(&buffer[..length]);
                buffer.advance(length);
                Ok(())
            }
        }
    }

    pub(super) async fn put(&mut self, data: Bytes, timer: &Timer) -> Result<(), Broken> {
        let data = if self.filters.is_empty() { data } else { self.filter(&data) };
        self.end.put(data, timer).await
    }

    fn filter(&mut self, data: &[u8]) -> Bytes {
        let mut filtered = Vec::with_capacity(data.len());
        push_all(&mut self.filters, data, &mut filtered);
        filtered.into()
    }

    /// Writes what is staged.
    pub(super) async fn flush(&mut self, timer: &Timer) -> Result<(), Broken> {
        match &mut self.end {
            End::Http1(sink) => sink.flush(timer).await,
            End::Http2(sink) => sink.flush(false, timer).await,
            End::Kept(_) => Ok(()),
        }
    }

    pub(super) async fn finish(&mut self, mut trailers: Option<Fields>, timer: &Timer) -> Result<(), Broken> {
        if !self.filters.is_empty() {
            let mut last = Vec::new();
            finish_all(&mut self.filters, &mut trailers, &mut last);
            self.end.put(last.into(), timer).await?;
        }
        match &mut self.end {
            End::Http1(sink) => sink.finish(trailers, timer).await,
            End::Http2(sink) => sink.finish(trailers, timer).await,
            End::Kept(kept) => {
                kept.trailers = trailers.unwrap_or_default();
                Ok(())
            }
        }
    }
}

impl End<'_, '_> {
    async fn put(&mut self, data: Bytes, timer: &Timer) -> Result<(), Broken> {
        match self {
            Self::Http1(sink) => sink.put(&data, timer).await,
            Self::Http2(sink) => sink.put(data, timer).await,
            Self::Kept(kept) => {
                kept.body.extend_from_slice(&data);
                Ok(())
            }
        }
    }
}

impl Http1Sink<'_, '_> {
    async fn put(&mut self, data: &[u8], timer: &Timer) -> Result<(), Broken> {
        if data.is_empty() {
            return Ok(());
        }
        if self.chunked {
            chunked::write_chunk(data, self.staged);
        } else if self.staged.len() + data.len() <= GATHER_BYTES_MAX {
            self.staged.extend_from_slice(data);
        } else {
            self.flush(timer).await?;
            return write_all(self.writer, data, self.write_limit, timer).await;
        }
        if self.staged.len() > GATHER_BYTES_MAX { self.flush(timer).await } else { Ok(()) }
    }

    async fn finish(&mut self, trailers: Option<Fields>, timer: &Timer) -> Result<(), Broken> {
        match trailers.filter(|_| self.trailers) {
            Some(trailers) if self.chunked => chunked::write_trailers(&trailers, self.staged),
            _ if self.chunked => self.staged.extend_from_slice(chunked::LAST_CHUNK),
            _ => {}
        }
        self.flush(timer).await
    }

    async fn flush(&mut self, timer: &Timer) -> Result<(), Broken> {
        if self.staged.is_empty() {
            return Ok(());
        }
        write_all(self.writer, self.staged, self.write_limit, timer).await?;
        self.staged.clear();
        Ok(())
    }
}

impl Http2Sink<'_> {
    async fn put(&mut self, data: Bytes, timer: &Timer) -> Result<(), Broken> {
        if data.is_empty() {
            return Ok(());
        }
        self.flush(false, timer).await?;
        self.staged = data;
        Ok(())
    }

    async fn finish(&mut self, trailers: Option<Fields>, timer: &Timer) -> Result<(), Broken> {
        let trailers = trailers.map(|fields| http2::map_of(&fields)).filter(|map| !map.is_empty());
        self.flush(trailers.is_none(), timer).await?;
        match trailers {
            Some(trailers) => Ok(self.outlet.borrow_mut().send_trailers(trailers)?),
            None => Ok(()),
        }
    }

    /// Sends what is staged; `last`: and the end of the stream, even if nothing is staged.
    async fn flush(&mut self, last: bool, timer: &Timer) -> Result<(), Broken> {
        while !self.staged.is_empty() {
            let wanted = self.staged.len();
            let waiting = poll_fn(|context| self.outlet.borrow_mut().poll_room(wanted, context));
            let room = timer.limit(self.write_limit, waiting).await.map_err(|_| Broken::SinkTimeout)??;
            let piece = self.staged.split_to(room);
            self.outlet.borrow_mut().send(piece, last && self.staged.is_empty())?;
            if self.staged.is_empty() {
                return Ok(());
            }
        }
        if last {
            self.outlet.borrow_mut().send(Bytes::new(), true)?;
        }
        Ok(())
    }
}

/// Writes everything; the limit applies between two writes that make progress.
pub(crate) async fn write_all(
    writer: &mut WriteHalf<'_>,
    mut data: &[u8],
    limit: Duration,
    timer: &Timer,
) -> Result<(), Broken> {
    write_rest(writer, &mut data, limit, timer).await
}

/// Like [`write_all`]; whatever comes of it, `data` is what was not taken.
pub(crate) async fn write_rest(
    writer: &mut WriteHalf<'_>,
    data: &mut &[u8],
    limit: Duration,
    timer: &Timer,
) -> Result<(), Broken> {
    while !data.is_empty() {
        match timer.limit(limit, writer.write(data)).await {
            Ok(Ok(0) | Err(_)) => return Err(Broken::SinkClosed),
            Ok(Ok(count)) => *data = &data[count..],
            Err(_) => return Err(Broken::SinkTimeout),
        }
    }
    if writer.holds_back() {
        return match timer.limit(limit, writer.flush()).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Broken::SinkClosed),
            Err(_) => Err(Broken::SinkTimeout),
        };
    }
    Ok(())
}
