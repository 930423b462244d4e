//! Streams one body from one connection to another, framing it anew, without ever holding more than a buffer.
//!
//! Small pieces are gathered with what is already waiting to be written, so that a head and a small body leave in
//! one write; large ones go out straight from the buffer they were read into. Whatever arrived is passed on before
//! more is waited for.

use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::body::BODY_BYTES_MAX;
use crate::http1::chunked::{self, Decoder, Step};
use crate::http1::framing::Framing;
use crate::transport::{ReadHalf, WriteHalf};
use crate::worker::timer::Timer;

/// Bytes that are copied to leave together with others; more go out directly.
const GATHER_BYTES_MAX: usize = 16 * 1024;

/// Room for one read while a body streams.
const READ_BYTES: usize = 64 * 1024;

/// Room for one read of a head, or of a body that may be small.
pub(crate) const READ_BYTES_SMALL: usize = 8 * 1024;

/// Why a body did not come through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    /// The sender closed before the body ended.
    SourceClosed,
    /// The sender's body is malformed.
    SourceMalformed,
    /// The sender sent nothing for too long.
    SourceTimeout,
    /// The receiver closed.
    SinkClosed,
    /// The receiver took nothing for too long.
    SinkTimeout,
}

/// What has come of a body and how it ends.
pub(crate) enum Body {
    Empty,
    Length(u64),
    Chunked(Decoder),
    UntilClose,
}

impl From<Framing> for Body {
    fn from(framing: Framing) -> Self {
        match framing {
            Framing::None | Framing::Length(0) => Self::Empty,
            Framing::Length(length) => Self::Length(length),
            Framing::Chunked => Self::Chunked(Decoder::new()),
            Framing::UntilClose => Self::UntilClose,
        }
    }
}

impl Body {
    /// What the first bytes of `input` are.
    fn step(&mut self, input: &[u8]) -> Result<Step, Broken> {
        match self {
            Self::Empty => Ok(Step::End { consumed: 0 }),
            Self::Length(0) => Ok(Step::End { consumed: 0 }),
            _ if input.is_empty() => Ok(Step::More),
            Self::UntilClose => Ok(Step::Data { start: 0, end: input.len() }),
            Self::Chunked(decoder) => decoder.step(input).map_err(|_| Broken::SourceMalformed),
            Self::Length(remaining) => {
                let end = usize::try_from(*remaining).map_or(input.len(), |left| left.min(input.len()));
                *remaining -= end as u64;
                Ok(Step::Data { start: 0, end })
            }
        }
    }
}

/// Looks at a body that stays where it is.
pub(crate) struct Peeking {
    body: Body,
    looked_at: usize,
    data: Vec<u8>,
}

/// What a look at the bytes so far has shown.
pub(crate) enum Peeked {
    Whole(Bytes),
    More,
    TooLarge,
}

impl Peeking {
    pub(crate) fn new(framing: Framing) -> Self {
        Self { body: framing.into(), looked_at: 0, data: Vec::new() }
    }

    /// Looks at what has arrived; `input` must begin where it did before.
    pub(crate) fn look(&mut self, input: &[u8]) -> Result<Peeked, Broken> {
        if matches!(self.body, Body::Length(length) if length > BODY_BYTES_MAX as u64) {
            return Ok(Peeked::TooLarge);
        }
        loop {
            let rest = &input[self.looked_at..];
            match self.body.step(rest)? {
                Step::Data { start, end } => {
                    self.data.extend_from_slice(&rest[start..end]);
                    self.looked_at += end;
                }
                Step::End { .. } => return Ok(Peeked::Whole(std::mem::take(&mut self.data).into())),
                Step::More => {
                    self.looked_at = input.len();
                    // Chunks may carry more framing than data; both are bounded.
                    let too_large = self.data.len().max(self.looked_at / 2) > BODY_BYTES_MAX;
                    return Ok(if too_large { Peeked::TooLarge } else { Peeked::More });
                }
            }
        }
    }
}

/// Where a body comes from.
pub(crate) struct Source<'a, 's> {
    pub(crate) reader: &'a mut ReadHalf<'s>,
    /// What was read and not passed on yet; afterwards, what follows the body.
    pub(crate) buffer: &'a mut BytesMut,
    pub(crate) read_limit: Duration,
}

/// Where a body goes.
pub(crate) struct Sink<'a, 's> {
    pub(crate) writer: &'a mut WriteHalf<'s>,
    /// What waits to be written, such as the head.
    pub(crate) staged: &'a mut Vec<u8>,
    pub(crate) write_limit: Duration,
    /// Whether the body is written in chunks.
    pub(crate) chunked: bool,
}

/// Passes `body` on, with everything staged before it.
pub(crate) async fn relay(
    mut body: Body,
    source: Source<'_, '_>,
    mut sink: Sink<'_, '_>,
    timer: &Timer,
) -> Result<(), Broken> {
    let mut read_bytes = READ_BYTES_SMALL;
    loop {
        loop {
            match body.step(source.buffer)? {
                Step::Data { start, end } => {
                    sink.put(&source.buffer[start..end], timer).await?;
                    source.buffer.advance(end);
                }
                Step::End { consumed } => {
                    source.buffer.advance(consumed);
                    return sink.finish(timer).await;
                }
                Step::More => break,
            }
        }
        source.buffer.clear();
        sink.flush(timer).await?;
        source.buffer.reserve(read_bytes);
        let reading = source.reader.read_buf(source.buffer);
        match timer.limit(source.read_limit, reading).await {
            Ok(Ok(0)) if matches!(body, Body::UntilClose) => return sink.finish(timer).await,
            Ok(Ok(0) | Err(_)) => return Err(Broken::SourceClosed),
            // A read that filled its room has more behind it.
            Ok(Ok(count)) if count >= read_bytes => read_bytes = READ_BYTES,
            Ok(Ok(_)) => {}
            Err(_) => return Err(Broken::SourceTimeout),
        }
    }
}

impl Sink<'_, '_> {
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

    async fn finish(&mut self, timer: &Timer) -> Result<(), Broken> {
        if self.chunked {
            self.staged.extend_from_slice(chunked::LAST_CHUNK);
        }
        self.flush(timer).await
    }

    /// Writes what is staged.
    pub(crate) async fn flush(&mut self, timer: &Timer) -> Result<(), Broken> {
        if self.staged.is_empty() {
            return Ok(());
        }
        write_all(self.writer, self.staged, self.write_limit, timer).await?;
        self.staged.clear();
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
    while !data.is_empty() {
        match timer.limit(limit, writer.write(data)).await {
            Ok(Ok(0) | Err(_)) => return Err(Broken::SinkClosed),
            Ok(Ok(count)) => data = &data[count..],
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
