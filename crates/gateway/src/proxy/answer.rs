//! An answer on its way from a node to the client.
//!
//! Interim answers are taken in and not passed on. Once any of the answer has gone to the client, it can only be cut,
//! never replaced.

use std::time::Duration;

use bytes::{Buf, BytesMut};
use gatewright_model::message::{Known, Method, RequestHead, ResponseHead, Version};
use h2::client::ResponseFuture;
use tokio::io::AsyncReadExt;

use super::attempt::{Stage, Trouble, answer_failure};
use super::client::Outgoing;
use super::exchange::{Failure, Wish};
use super::headers;
use super::reject::RejectReason;
use super::relay::{self, READ_BYTES_SMALL, Source, relay};
use super::sink::{Http1Sink, Http2Sink, Sink, write_all};
use super::tunnel;
use crate::http1::framing::Framing;
use crate::http1::scan::{self, Progress};
use crate::http1::{HEAD_BYTES_MAX, response, write};
use crate::http2;
use crate::http2::inlet::Inlet;
use crate::telemetry::record::Record;
use crate::transport::ReadHalf;
use crate::upstream::tries::Try;
use crate::worker::timer::Timer;

/// Interim answers (1xx) an upstream may give before the real one.
const INTERIM_ANSWERS_MAX: usize = 16;

/// Where an answer comes from.
pub(super) enum Origin<'a, 'n> {
    Http1(&'a mut ReadHalf<'n>),
    /// And whether the request can be sent again as it is.
    Http2(ResponseFuture, bool),
}

/// What was asked, as far as the answer goes by it.
pub(super) struct Asked {
    method: Method,
    version: Version,
    wish: Wish,
}

impl Asked {
    pub(super) fn new(request: &RequestHead, wish: Wish) -> Self {
        Self { method: request.method, version: request.version, wish }
    }
}

/// An answer on its way from a node to the client.
pub(super) struct Answer<'a, 'c, 's, 'n, 'l> {
    pub(super) node: Origin<'a, 'n>,
    /// What the node said and was not passed on yet.
    pub(super) said: &'a mut BytesMut,
    pub(super) read_limit: Duration,
    pub(super) client: &'a mut Outgoing<'c, 's>,
    pub(super) client_limit: Duration,
    pub(super) reply: &'a mut Vec<u8>,
    pub(super) asked: Asked,
    pub(super) stage: &'a Stage<'a>,
    pub(super) timer: &'a Timer,
    pub(super) current: &'a Try<'a>,
    pub(super) record: &'a Record<'l>,
}

/// What an answer left behind.
pub(super) struct Received {
    pub(super) client_persists: bool,
    pub(super) node_persists: bool,
    /// The connection is a WebSocket now.
    pub(super) switched: bool,
}

impl Answer<'_, '_, '_, '_, '_> {
    pub(super) async fn pass_on(mut self, head: &mut ResponseHead) -> Result<Received, Trouble> {
        let (framing, mut body) = self.read_final_head(head).await?;
        self.current.answered(head.status);
        self.record.answered(head.status);
        if head.status == 101 {
            return self.switch(head).await;
        }
        let node_persists = headers::remove_hop_by_hop(&mut head.fields).persists(head.version);
        let origin = match (&mut self.node, &mut body) {
            (Origin::Http1(reader), _) => relay::Origin::Http1(reader, framing),
            (Origin::Http2(..), Some(body)) => relay::Origin::Http2(body),
            (Origin::Http2(..), None) => return Err(RejectReason::UpstreamMalformed.into()),
        };
        let source = Source::node(origin, self.said, self.read_limit).beside(self.stage.talk.node());
        self.stage.talk.node().spoke();
        let mut client_persists = self.asked.wish.persists;
        let sink = match self.client {
            Outgoing::Http1(writer) => {
                let needs_framing = matches!(framing, Framing::Chunked | Framing::UntilClose);
                let chunked = needs_framing && self.asked.version == Version::Http11;
                // An HTTP/1.0 client learns the end of such a body from the end of the connection.
                client_persists &= chunked || !needs_framing;
                if framing == Framing::None && self.asked.method != Method::Head {
                    say_there_is_no_body(head);
                }
                stage_head(head, self.asked.version, chunked, client_persists, self.reply);
                self.record.head_written(self.reply.len());
                let (staged, trailers) = (self.reply, self.asked.wish.trailers);
                Sink::Http1(Http1Sink { writer, staged, write_limit: self.client_limit, chunked, trailers })
            }
            Outgoing::Http2(outlet) => {
                // After an empty body of HTTP/2 there may still be trailers.
                let last = framing == Framing::None
                    || framing == Framing::Length(0) && head.version != Version::Http2;
                let gone = Failure::Cut(RejectReason::ClientClosed);
                let head = http2::response::write(head).ok_or(RejectReason::UpstreamMalformed)?;
                self.record.head_written(http2::bytes(head.headers()));
                outlet.borrow_mut().send_head(head, last).map_err(|_| gone)?;
                if last {
                    return Ok(Received { client_persists, node_persists, switched: false });
                }
                Sink::Http2(Http2Sink::new(outlet, self.client_limit))
            }
        };
        self.stage.answering.set(true);
        relay(source, sink, self.timer).await.map_err(answer_failure)?;
        let node_persists = node_persists && framing != Framing::UntilClose;
        Ok(Received { client_persists, node_persists, switched: false })
    }

    /// Tells the client that the node agreed to a WebSocket.
    async fn switch(self, head: &mut ResponseHead) -> Result<Received, Trouble> {
        // Nobody can ask for a WebSocket over HTTP/2.
        let Outgoing::Http1(writer) = self.client else {
            return Err(RejectReason::UpstreamMalformed.into());
        };
        headers::remove_hop_by_hop(&mut head.fields);
        write::response_start(head, self.reply);
        headers::write_upgrade(self.reply);
        write::end(self.reply);
        self.record.head_written(self.reply.len());
        self.stage.answering.set(true);
        let written = write_all(writer, self.reply, self.client_limit, self.timer).await;
        written.map_err(answer_failure)?;
        Ok(Received { client_persists: false, node_persists: false, switched: true })
    }

    /// Reads the head of the real answer; hands back how long the body is, and the stream it comes on.
    async fn read_final_head(
        &mut self,
        head: &mut ResponseHead,
    ) -> Result<(Framing, Option<Inlet>), Trouble> {
        if let Origin::Http2(..) = self.node {
            return self.read_http2_head(head).await;
        }
        for _ in 0..INTERIM_ANSWERS_MAX {
            let end = self.read_head_bytes().await?;
            let framing = response::parse(&self.said[..end], self.asked.method, head);
            self.said.advance(end);
            let framing = framing.map_err(|_| RejectReason::UpstreamMalformed)?;
            match head.status {
                101 if self.asked.wish.upgrades && tunnel::is_agreed(&head.fields) => {
                    return Ok((framing, None));
                }
                // Nobody asked for another protocol.
                101 => break,
                100..=199 => {}
                _ => return Ok((framing, None)),
            }
        }
        Err(RejectReason::UpstreamMalformed.into())
    }

    async fn read_http2_head(
        &mut self,
        head: &mut ResponseHead,
    ) -> Result<(Framing, Option<Inlet>), Trouble> {
        loop {
            let Origin::Http2(answering, whole) = &mut self.node else {
                return Err(RejectReason::UpstreamMalformed.into());
            };
            match self.timer.limit(self.read_limit, answering).await {
                Ok(Ok(answer)) => {
                    let (parts, body) = answer.into_parts();
                    let framing =
                        http2::response::read(&parts, body.is_end_stream(), self.asked.method, head);
                    return Ok((
                        framing.map_err(|_| RejectReason::UpstreamMalformed)?,
                        Some(Inlet::new(body)),
                    ));
                }
                Ok(Err(error)) => return Err(Trouble::of_stream(&error, *whole)),
                // The node owes an answer only once it has the whole request.
                Err(_) if self.stage.uploading.get() => {}
                Err(_) => {
                    let failure = Failure::Reject(RejectReason::UpstreamReadTimeout);
                    return Err(Trouble { failure, unanswered: true, unsent: false });
                }
            }
        }
    }

    async fn read_head_bytes(&mut self) -> Result<usize, Trouble> {
        let mut progress = Progress::default();
        loop {
            let end =
                scan::head_end(self.said, &mut progress).map_err(|_| RejectReason::UpstreamMalformed)?;
            if let Some(end) = end.filter(|end| *end <= HEAD_BYTES_MAX) {
                return Ok(end);
            }
            if end.is_some() || self.said.len() > HEAD_BYTES_MAX {
                return Err(RejectReason::UpstreamMalformed.into());
            }
            self.said.reserve(READ_BYTES_SMALL);
            let Origin::Http1(reader) = &mut self.node else {
                return Err(RejectReason::UpstreamMalformed.into());
            };
            match self.timer.limit(self.read_limit, reader.read_buf(self.said)).await {
                Ok(Ok(0) | Err(_)) => {
                    let failure = Failure::Reject(RejectReason::UpstreamClosed);
                    return Err(Trouble { failure, unanswered: self.said.is_empty(), unsent: false });
                }
                Ok(Ok(_)) => {}
                // The node owes an answer only once it has the whole request.
                Err(_) if self.stage.uploading.get() => {}
                Err(_) => {
                    let failure = Failure::Reject(RejectReason::UpstreamReadTimeout);
                    return Err(Trouble { failure, unanswered: self.said.is_empty(), unsent: false });
                }
            }
        }
    }
}

/// Says that there is no body where an HTTP/1 client would otherwise wait for one.
fn say_there_is_no_body(head: &mut ResponseHead) {
    let says_so = head.version != Version::Http2 || matches!(head.status, 204 | 304);
    if !says_so && head.fields.known(Known::ContentLength).next().is_none() {
        head.fields.append("Content-Length", b"0");
    }
}

/// Stages the head of the answer to a client that speaks HTTP/1.
fn stage_head(head: &ResponseHead, version: Version, chunked: bool, persists: bool, reply: &mut Vec<u8>) {
    write::response_start(head, reply);
    if chunked {
        write::field(b"Transfer-Encoding", b"chunked", reply);
    }
    match (persists, version) {
        (false, _) => write::field(b"Connection", b"close", reply),
        (true, Version::Http10) => write::field(b"Connection", b"keep-alive", reply),
        (true, _) => {}
    }
    write::end(reply);
}
