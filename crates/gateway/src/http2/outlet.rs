//! The outgoing direction of one stream.
//!
//! Data is handed over only as far as the receiver's windows and a small buffer allow, so that a receiver which takes
//! nothing costs a bounded amount of memory.

use std::task::{Context, Poll};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, SendStream};
use http::{HeaderMap, Response, StatusCode};

/// The stream takes nothing more: the other side reset it, or its connection is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Closed;

/// The outgoing direction of one stream, of either side. Data is counted as it goes.
pub(crate) struct Outlet {
    half: Half,
    sent: u64,
}

enum Half {
    /// An answer that has not begun.
    Answer(SendResponse<Bytes>),
    /// A body, of an answer or of a request.
    Body(SendStream<Bytes>),
}

impl Outlet {
    pub(crate) fn of_answer(answer: SendResponse<Bytes>) -> Self {
        Self { half: Half::Answer(answer), sent: 0 }
    }

    pub(crate) fn of_request(body: SendStream<Bytes>) -> Self {
        Self { half: Half::Body(body), sent: 0 }
    }

    /// Bytes of data so far.
    pub(crate) fn sent(&self) -> u64 {
        self.sent
    }

    /// Whether the answer has begun.
    pub(crate) fn has_begun(&self) -> bool {
        matches!(self.half, Half::Body(_))
    }

    /// Sends an interim answer that asks for the body.
    pub(crate) fn go_on(&mut self) -> Result<(), Closed> {
        let Half::Answer(answer) = &mut self.half else { return Err(Closed) };
        let mut interim = Response::new(());
        *interim.status_mut() = StatusCode::CONTINUE;
        answer.send_informational(interim).map_err(|_| Closed)
    }

    /// Begins the answer; `last`: it has no body and no trailers.
    pub(crate) fn send_head(&mut self, head: Response<()>, last: bool) -> Result<(), Closed> {
        let Half::Answer(answer) = &mut self.half else { return Err(Closed) };
        self.half = Half::Body(answer.send_response(head, last).map_err(|_| Closed)?);
        Ok(())
    }

    /// How many of `wanted` bytes may be sent now, at least one.
    pub(crate) fn poll_room(
        &mut self,
        wanted: usize,
        context: &mut Context<'_>,
    ) -> Poll<Result<usize, Closed>> {
        let Half::Body(body) = &mut self.half else { return Poll::Ready(Err(Closed)) };
        body.reserve_capacity(wanted);
        loop {
            match body.capacity() {
                0 => match body.poll_capacity(context) {
                    Poll::Ready(Some(Ok(_))) => {}
                    Poll::Ready(Some(Err(_)) | None) => return Poll::Ready(Err(Closed)),
                    Poll::Pending => return Poll::Pending,
                },
                room => return Poll::Ready(Ok(room.min(wanted))),
            }
        }
    }

    /// Sends data for which there is room.
    pub(crate) fn send(&mut self, data: Bytes, last: bool) -> Result<(), Closed> {
        let Half::Body(body) = &mut self.half else { return Err(Closed) };
        self.sent += data.len() as u64;
        body.send_data(data, last).map_err(|_| Closed)
    }

    /// Ends the stream with trailers.
    pub(crate) fn send_trailers(&mut self, trailers: HeaderMap) -> Result<(), Closed> {
        let Half::Body(body) = &mut self.half else { return Err(Closed) };
        body.send_trailers(trailers).map_err(|_| Closed)
    }

    /// Gives the stream up, so that what was sent cannot be taken for the whole.
    pub(crate) fn reset(&mut self, reason: Reason) {
        match &mut self.half {
            Half::Answer(answer) => answer.send_reset(reason),
            Half::Body(body) => body.send_reset(reason),
        }
    }

    /// Whether the other side gave the stream up; otherwise the task is woken when it does.
    pub(crate) fn poll_reset(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let reset = match &mut self.half {
            Half::Answer(answer) => answer.poll_reset(context),
            Half::Body(body) => body.poll_reset(context),
        };
        reset.map(|_| ())
    }
}
