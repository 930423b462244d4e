//! Streams one body from one connection to another, framing it anew, without ever holding more than a buffer.
//!
//! Whatever arrived is passed on before more is waited for. A [`Source`] and a [`Sink`] may each be HTTP/1 or HTTP/2:
//! how a body is read knows nothing of how it is written.

use std::future::poll_fn;
use std::num::NonZeroU64;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use gatewright_model::message::Fields;
use tokio::io::AsyncReadExt;

use super::headers;
use super::pace::{Pace, Side, Waiting};
use super::sink::Sink;
use crate::config::Limits;
use crate::http1::chunked::{Decoder, Step};
use crate::http1::framing::Framing;
use crate::http2;
use crate::http2::inlet::Inlet;
use crate::http2::outlet::Closed;
use crate::transport::ReadHalf;
use crate::worker::buffers::{PAGE_STEP, make_room};
use crate::worker::timer::Timer;

/// Room for one read while a body streams; with what [`make_room`] adds a round size.
const READ_BYTES: usize = 64 * 1024 - PAGE_STEP;

/// Room for one read of a head, or of a body that may be small.
pub(crate) const READ_BYTES_SMALL: usize = 8 * 1024;

/// Why a body did not come through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    /// The sender closed before the body ended.
    SourceClosed,
    /// The sender's body is malformed.
    SourceMalformed,
    /// The sender sent nothing for too long, or too slowly.
    SourceTimeout,
    /// The sender's body is larger than it may be.
    SourceTooLarge,
    /// The receiver closed.
    SinkClosed,
    /// The receiver took nothing for too long.
    SinkTimeout,
}

impl From<Closed> for Broken {
    fn from(_: Closed) -> Self {
        Self::SinkClosed
    }
}

/// What has come of a body on an HTTP/1 connection and how it ends.
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

    /// The trailers that may be passed on, once the body has ended.
    fn trailers(&self) -> Option<Fields> {
        let Self::Chunked(decoder) = self else { return None };
        headers::passable_trailers(decoder.trailers()?)
    }
}

/// Looks at a body that stays where it is.
pub(crate) struct Peeking {
    body: Body,
    looked_at: usize,
    data: Vec<u8>,
    bytes_max: usize,
}

/// What a look at the bytes so far has shown.
pub(crate) enum Peeked {
    Whole(Bytes),
    More,
    TooLarge,
}

impl Peeking {
    pub(crate) fn new(framing: Framing, bytes_max: usize) -> Self {
        Self { body: framing.into(), looked_at: 0, data: Vec::new(), bytes_max }
    }

    /// How many bytes were looked at: once the body is whole, those it takes.
    pub(crate) fn looked_at(&self) -> usize {
        self.looked_at
    }

    /// Looks at what has arrived; `input` must begin where it did before.
    pub(crate) fn look(&mut self, input: &[u8]) -> Result<Peeked, Broken> {
        if matches!(self.body, Body::Length(length) if length > self.bytes_max as u64) {
            return Ok(Peeked::TooLarge);
        }
        loop {
            let rest = &input[self.looked_at..];
            match self.body.step(rest)? {
                Step::Data { start, end } => {
                    self.data.extend_from_slice(&rest[start..end]);
                    self.looked_at += end;
                }
                Step::End { consumed } => {
                    self.looked_at += consumed;
                    if self.data.len() > self.bytes_max {
                        return Ok(Peeked::TooLarge);
                    }
                    return Ok(Peeked::Whole(std::mem::take(&mut self.data).into()));
                }
                Step::More => {
                    self.looked_at = input.len();
                    // Chunks may carry more framing than data; both are bounded.
                    let framing_too_large = self.looked_at / 2 > self.bytes_max.saturating_add(READ_BYTES);
                    let too_large = self.data.len() > self.bytes_max || framing_too_large;
                    return Ok(if too_large { Peeked::TooLarge } else { Peeked::More });
                }
            }
        }
    }
}

/// Where a body comes from.
pub(crate) struct Source<'a, 's> {
    pub(crate) origin: Origin<'a, 's>,
    /// What was read and not passed on yet; afterwards, what follows the body.
    pub(crate) buffer: &'a mut BytesMut,
    pub(crate) read_limit: Duration,
    /// How slowly the sender may send; none: as slowly as the limit on each read lets it.
    pub(crate) pace: Option<Pace>,
    /// Bytes the body may have.
    pub(crate) bytes_max: Option<NonZeroU64>,
    /// Absent: nothing goes the other way.
    pub(crate) side: Option<Side<'a>>,
}

impl<'a, 's> Source<'a, 's> {
    /// A request's body, within the limits of a client.
    pub(crate) fn client(origin: Origin<'a, 's>, buffer: &'a mut BytesMut, limits: &Limits) -> Self {
        let silence_max = limits.body_timeout;
        let pace = limits.body_rate_min.map(|rate| Pace::new(rate, silence_max));
        Self { origin, buffer, read_limit: silence_max, pace, bytes_max: limits.body_bytes_max, side: None }
    }

    /// The same, of no more than so many bytes.
    pub(crate) fn at_most(self, bytes_max: Option<NonZeroU64>) -> Self {
        Self { bytes_max: self.bytes_max.into_iter().chain(bytes_max).min(), ..self }
    }

    /// The same, while something goes the other way.
    pub(crate) fn beside(self, side: Side<'a>) -> Self {
        Self { side: Some(side), ..self }
    }

    /// The body of a node's answer.
    pub(crate) fn node(origin: Origin<'a, 's>, buffer: &'a mut BytesMut, read_limit: Duration) -> Self {
        Self { origin, buffer, read_limit, pace: None, bytes_max: None, side: None }
    }
}

/// What a body is read from.
pub(crate) enum Origin<'a, 's> {
    Http1(&'a mut ReadHalf<'s>, Framing),
    Http2(&'a mut Inlet),
}

/// Passes a body on, with everything staged before it.
pub(crate) async fn relay(
    source: Source<'_, '_>,
    mut sink: Sink<'_, '_>,
    timer: &Timer,
) -> Result<(), Broken> {
    let Source { origin, buffer, read_limit, pace, bytes_max, side } = source;
    let mut waiting = Waiting::new(timer, read_limit, pace, side);
    waiting.bytes_max = bytes_max;
    match origin {
        Origin::Http1(reader, framing) => {
            relay_http1(reader, framing.into(), buffer, &mut sink, &mut waiting).await
        }
        Origin::Http2(stream) => relay_http2(stream, buffer, &mut sink, &mut waiting).await,
    }
}

async fn relay_http1(
    reader: &mut ReadHalf<'_>,
    mut body: Body,
    buffer: &mut BytesMut,
    sink: &mut Sink<'_, '_>,
    waiting: &mut Waiting<'_>,
) -> Result<(), Broken> {
    let timer = waiting.timer;
    let mut read_bytes = READ_BYTES_SMALL;
    loop {
        loop {
            match body.step(buffer)? {
                Step::Data { start, end } => {
                    waiting.count(end - start)?;
                    buffer.advance(start);
                    sink.take(buffer, end - start, timer).await?;
                }
                Step::End { consumed } => {
                    buffer.advance(consumed);
                    return sink.finish(body.trailers(), timer).await;
                }
                Step::More => break,
            }
        }
        sink.flush(timer).await?;
        make_room(buffer, read_bytes);
        let size = |read: &std::io::Result<usize>| *read.as_ref().unwrap_or(&0);
        match waiting.until(async || reader.read_buf(buffer).await, size).await? {
            Ok(0) if matches!(body, Body::UntilClose) => return sink.finish(None, timer).await,
            Ok(0) | Err(_) => return Err(Broken::SourceClosed),
            // A read that filled its room has more behind it.
            Ok(count) if count >= read_bytes => read_bytes = READ_BYTES,
            Ok(_) => {}
        }
    }
}

async fn relay_http2(
    stream: &mut Inlet,
    buffer: &mut BytesMut,
    sink: &mut Sink<'_, '_>,
    waiting: &mut Waiting<'_>,
) -> Result<(), Broken> {
    let timer = waiting.timer;
    let arrived = buffer.len();
    waiting.count(arrived)?;
    sink.take(buffer, arrived, timer).await?;
    loop {
        let next = match stream.poll_data(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(next) => {
                waiting.spoke();
                next
            }
            Poll::Pending => {
                sink.flush(timer).await?;
                let size = |next: &Option<Result<Bytes, h2::Error>>| match next {
                    Some(Ok(data)) => data.len(),
                    _ => 0,
                };
                waiting.until(async || poll_fn(|context| stream.poll_data(context)).await, size).await?
            }
        };
        let Some(data) = next else { break };
        let data = data.map_err(|error| source_failure(&error))?;
        let length = data.len();
        waiting.count(length)?;
        sink.put(data, timer).await?;
        // Only now: what cannot be passed on must not be made room for.
        stream.make_room(length);
    }
    let ending = async || poll_fn(|context| stream.poll_trailers(context)).await;
    let trailers = waiting.until(ending, |_| 0).await?;
    let trailers = trailers.map_err(|error| source_failure(&error))?;
    let trailers = trailers.and_then(|map| headers::passable_trailers(http2::fields_of(&map)));
    sink.finish(trailers, timer).await
}

/// What the end of a stream before its time means.
fn source_failure(error: &h2::Error) -> Broken {
    if error.is_library() { Broken::SourceMalformed } else { Broken::SourceClosed }
}

/// Takes out of `stream` what has arrived already, up to a little more than `bytes_max`, without waiting; says
/// whether that was all there is, trailers included.
pub(crate) fn take_arrived(
    stream: &mut Inlet,
    buffer: &mut BytesMut,
    bytes_max: usize,
) -> Result<bool, Broken> {
    let mut context = Context::from_waker(Waker::noop());
    while buffer.len() <= bytes_max {
        let Poll::Ready(Some(data)) = stream.poll_data(&mut context) else { break };
        let data = data.map_err(|error| source_failure(&error))?;
        stream.make_room(data.len());
        buffer.extend_from_slice(&data);
    }
    Ok(stream.is_end_stream())
}

/// Waits until there is more to take out of `stream`; `false`: there is no more data.
pub(crate) async fn take_more(stream: &mut Inlet, buffer: &mut BytesMut) -> Result<bool, Broken> {
    let Some(data) = poll_fn(|context| stream.poll_data(context)).await else { return Ok(false) };
    let data = data.map_err(|error| source_failure(&error))?;
    stream.make_room(data.len());
    buffer.extend_from_slice(&data);
    Ok(true)
}
