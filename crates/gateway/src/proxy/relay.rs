//! Streams one body from one connection to another, framing it anew, without ever holding more than a buffer.
//!
//! Small pieces are gathered with what is already waiting to be written, so that a head and a small body leave in
//! one write; large ones go out straight from the buffer they were read into. Whatever arrived is passed on before
//! more is waited for.

use std::num::NonZeroU64;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::body::BODY_BYTES_MAX;
use crate::config::Limits;
use crate::http1::chunked::{self, Decoder, Step};
use crate::http1::framing::Framing;
use crate::transport::{ReadHalf, WriteHalf};
use crate::worker::timer::{TICK, Timer};

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
    /// The sender sent nothing for too long, or too slowly.
    SourceTimeout,
    /// The sender's body is larger than it may be.
    SourceTooLarge,
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
    /// How slowly the sender may send; none: as slowly as the limit on each read lets it.
    pub(crate) pace: Option<Pace>,
    /// Bytes the body may have.
    pub(crate) bytes_max: Option<NonZeroU64>,
}

impl<'a, 's> Source<'a, 's> {
    /// A request's body, within the limits of a client.
    pub(crate) fn client(reader: &'a mut ReadHalf<'s>, buffer: &'a mut BytesMut, limits: &Limits) -> Self {
        let silence_max = limits.body_timeout;
        let pace = limits.body_rate_min.map(|rate| Pace::new(rate, silence_max));
        Self { reader, buffer, read_limit: silence_max, pace, bytes_max: limits.body_bytes_max }
    }

    /// The body of a node's answer.
    pub(crate) fn node(reader: &'a mut ReadHalf<'s>, buffer: &'a mut BytesMut, read_limit: Duration) -> Self {
        Self { reader, buffer, read_limit, pace: None, bytes_max: None }
    }
}

/// How much longer a sender may be waited for in total. It starts with little, gains with every byte, and loses only
/// while it is waited for: a sender that was fast may pause, one that drips a byte now and then may not.
#[derive(Debug)]
pub(crate) struct Pace {
    bytes_per_tick: f64,
    /// Ticks left.
    left: f64,
    left_max: f64,
}

impl Pace {
    /// What a sender is granted before it has sent anything.
    const GRACE: Duration = Duration::from_secs(10);

    /// At least `bytes_per_second`, and never a longer silence than `silence_max`.
    pub(crate) fn new(bytes_per_second: NonZeroU64, silence_max: Duration) -> Self {
        let ticks = |duration: Duration| duration.as_secs_f64() / TICK.as_secs_f64();
        #[allow(clippy::cast_precision_loss, reason = "no rate is so precise")]
        let bytes_per_tick = bytes_per_second.get() as f64 * TICK.as_secs_f64();
        Self { bytes_per_tick, left: ticks(Self::GRACE.min(silence_max)), left_max: ticks(silence_max) }
    }

    /// How long the next bytes may be waited for.
    fn allowed(&self) -> Duration {
        TICK.mul_f64(self.left.max(0.0))
    }

    /// So many bytes came after so many ticks.
    fn received(&mut self, bytes: usize, waited: u64) {
        #[allow(clippy::cast_precision_loss, reason = "one read, and the time it took")]
        let (bytes, waited) = (bytes as f64, waited as f64);
        self.left = (self.left - waited + bytes / self.bytes_per_tick).min(self.left_max);
    }
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
    mut source: Source<'_, '_>,
    mut sink: Sink<'_, '_>,
    timer: &Timer,
) -> Result<(), Broken> {
    let mut read_bytes = READ_BYTES_SMALL;
    let mut passed_on = 0;
    loop {
        loop {
            match body.step(source.buffer)? {
                Step::Data { start, end } => {
                    passed_on += (end - start) as u64;
                    if source.bytes_max.is_some_and(|max| passed_on > max.get()) {
                        return Err(Broken::SourceTooLarge);
                    }
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
        let allowed = source.pace.as_ref().map_or(source.read_limit, Pace::allowed).min(source.read_limit);
        let begun = timer.now();
        let read = timer.limit(allowed, source.reader.read_buf(source.buffer)).await;
        if let (Some(pace), Ok(Ok(count))) = (&mut source.pace, &read) {
            pace.received(*count, timer.now() - begun);
        }
        match read {
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

#[cfg(test)]
mod tests {
    use super::*;

    /// How many seconds a sender lasts that sends `bytes` every `seconds`, up to ten minutes.
    fn lasts(bytes: usize, seconds: u64) -> u64 {
        let mut pace = Pace::new(NonZeroU64::new(240).unwrap(), Duration::from_secs(60));
        let mut now = 0;
        while now < 600 {
            let allowed = pace.allowed();
            if allowed < Duration::from_secs(seconds) {
                return now + allowed.as_secs();
            }
            pace.received(bytes, seconds * 10);
            now += seconds;
        }
        now
    }

    #[test]
    fn a_sender_lasts_as_long_as_it_keeps_pace() {
        for (bytes, seconds, expected) in [
            (1, 8, 10),
            (0, 1, 10),
            (100, 1, 17),
            (240, 1, 600),
            (2400, 10, 600),
            // Fast enough on the whole, but no silence is longer than the limit.
            (1_000_000, 20, 10),
            (1_000_000, 10, 600),
        ] {
            let lasted = lasts(bytes, seconds);
            assert!(lasted.abs_diff(expected) <= 1, "{bytes} B / {seconds} s: {lasted} s, not {expected}");
        }
    }

    #[test]
    fn a_sender_that_was_fast_may_pause_for_as_long_as_any_silence_may_last() {
        let mut pace = Pace::new(NonZeroU64::new(240).unwrap(), Duration::from_secs(60));
        pace.received(1_000_000, 0);
        assert_eq!(pace.allowed(), Duration::from_secs(60));
        pace.received(1, 590);
        assert!(pace.allowed() < Duration::from_millis(1100), "{:?}", pace.allowed());
    }
}
