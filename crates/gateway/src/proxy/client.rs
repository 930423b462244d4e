//! The client's end of one exchange, whichever protocol the client speaks.
//!
//! An HTTP/1 connection lends its halves to one exchange after the other; every HTTP/2 stream is an exchange of its
//! own. The two directions are apart, because a body may still arrive while the answer is on its way.

use std::cell::RefCell;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::AsyncReadExt;

use super::exchange::Failure;
use super::headers::ClientAddress;
use super::reject::RejectReason;
use super::relay::{Broken, Origin, READ_BYTES_SMALL, take_more};
use super::sink::write_all;
use crate::config::Limits;
use crate::http1::framing::Framing;
use crate::http2::inlet::Inlet;
use crate::http2::outlet::Outlet;
use crate::transport::{ReadHalf, WriteHalf};
use crate::worker::timer::Timer;

/// The client's end of one exchange.
pub(super) struct Client<'c, 's> {
    pub(super) incoming: Incoming<'c, 's>,
    pub(super) outgoing: Outgoing<'c, 's>,
    pub(super) address: &'c ClientAddress,
    pub(super) limits: &'c Limits,
    /// Guards whatever the exchange waits for, but for uploads.
    pub(super) timer: &'c Timer,
    /// Guards an upload, which runs beside the answer.
    pub(super) upload_timer: &'c Timer,
}

/// What the client sends.
pub(super) enum Incoming<'c, 's> {
    Http1(&'c mut ReadHalf<'s>),
    Http2(&'c mut Inlet),
}

/// What the client is sent.
pub(super) enum Outgoing<'c, 's> {
    Http1(&'c mut WriteHalf<'s>),
    Http2(&'c RefCell<Outlet>),
}

impl<'s> Incoming<'_, 's> {
    /// The body as a source, `framing` being how its end is known.
    pub(super) fn origin(&mut self, framing: Framing) -> Origin<'_, 's> {
        match self {
            Self::Http1(reader) => Origin::Http1(reader, framing),
            Self::Http2(stream) => Origin::Http2(stream),
        }
    }

    /// Ends once the client is gone, as far as its connection shows it while nothing is read; the end of a stream is
    /// seen by whoever serves the connection.
    pub(super) async fn gone(&self) {
        match self {
            Self::Http1(reader) => reader.reset().await,
            Self::Http2(_) => std::future::pending().await,
        }
    }

    /// Waits for more of the body, as it comes on the connection; `false`: nothing more comes.
    pub(super) async fn read_more(&mut self, buffer: &mut BytesMut) -> Result<bool, Broken> {
        match self {
            Self::Http1(reader) => {
                buffer.reserve(READ_BYTES_SMALL);
                Ok(reader.read_buf(buffer).await.map_err(|_| Broken::SourceClosed)? > 0)
            }
            Self::Http2(stream) => take_more(stream, buffer).await,
        }
    }
}

impl Outgoing<'_, '_> {
    /// Tells the client to go on with its body.
    pub(super) async fn go_on(&mut self, limit: Duration, timer: &Timer) -> Result<(), Failure> {
        let gone = Failure::Cut(RejectReason::ClientClosed);
        match self {
            Self::Http1(writer) => {
                let interim = b"HTTP/1.1 100 Continue\r\n\r\n";
                write_all(writer, interim, limit, timer).await.map_err(|_| gone)
            }
            Self::Http2(outlet) => outlet.borrow_mut().go_on().map_err(|_| gone),
        }
    }
}
