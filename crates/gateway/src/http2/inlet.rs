//! The incoming direction of one stream.

use std::task::{Context, Poll};

use bytes::Bytes;
use h2::{Error, RecvStream};
use http::HeaderMap;

/// The incoming direction of one stream, of either side. Data is counted as it comes.
pub(crate) struct Inlet {
    stream: RecvStream,
    received: u64,
}

impl Inlet {
    pub(crate) fn new(stream: RecvStream) -> Self {
        Self { stream, received: 0 }
    }

    /// Bytes of data so far.
    pub(crate) fn received(&self) -> u64 {
        self.received
    }

    pub(crate) fn poll_data(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Error>>> {
        let polled = self.stream.poll_data(context);
        if let Poll::Ready(Some(Ok(data))) = &polled {
            self.received += data.len() as u64;
        }
        polled
    }

    pub(crate) fn poll_trailers(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<Option<HeaderMap>, Error>> {
        self.stream.poll_trailers(context)
    }

    /// Lets the other side send so much more.
    pub(crate) fn make_room(&mut self, bytes: usize) {
        // Of a stream that is over nothing more can come.
        let _ = self.stream.flow_control().release_capacity(bytes);
    }

    /// Whether nothing more comes, trailers included.
    pub(crate) fn is_end_stream(&self) -> bool {
        self.stream.is_end_stream()
    }
}
