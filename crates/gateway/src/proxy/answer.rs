//! An answer on its way from a node to the client.
//!
//! Interim answers are taken in and not passed on. Plugins may change the head and the body. Once any of the answer
//! has gone to the client, it can only be cut, never replaced.

use std::num::NonZeroU64;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use gatewright_model::message::{Known, Method, RequestHead, ResponseHead, Version};
use gatewright_plugins::response::{ResponseBody, Whole, finish_all, push_all};
use h2::client::ResponseFuture;
use tokio::io::AsyncReadExt;

use super::attempt::{Stage, Trouble, answer_failure};
use super::client::Outgoing;
use super::exchange::{Failure, Wish};
use super::headers::{self, ClientAddress};
use super::phases::Phases;
use super::reject::RejectReason;
use super::relay::{self, Broken, READ_BYTES_SMALL, Source, relay};
use super::sink::{Http1Sink, Http2Sink, Kept, Sink, send_whole, write_all};
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
    /// What the client asked with.
    method: Method,
    /// What the node was asked with.
    forwarded: Method,
    version: Version,
    wish: Wish,
}

impl Asked {
    pub(super) fn new(request: &RequestHead, wish: Wish) -> Self {
        let (method, forwarded) = (request.client_method(), request.method);
        Self { method, forwarded, version: request.version, wish }
    }
}

/// The client, as whom an answer goes to.
pub(super) struct Recipient<'a, 'c, 's> {
    pub(super) client: &'a mut Outgoing<'c, 's>,
    pub(super) limit: Duration,
    /// Bytes to the client that wait to be written.
    pub(super) reply: &'a mut Vec<u8>,
    pub(super) asked: Asked,
}

/// The plugins that change an answer, and what they look at beside it.
pub(super) struct Changes<'a, 'l> {
    pub(super) phases: &'a mut Phases<'l>,
    pub(super) request: &'a mut RequestHead,
    pub(super) address: &'a ClientAddress,
}

/// An answer on its way from a node to the client.
pub(super) struct Answer<'a, 'c, 's, 'n, 'l> {
    pub(super) node: Origin<'a, 'n>,
    /// What the node said and was not passed on yet.
    pub(super) said: &'a mut BytesMut,
    pub(super) read_limit: Duration,
    pub(super) to: Recipient<'a, 'c, 's>,
    /// Absent: it passes as it is.
    pub(super) changes: Option<Changes<'a, 'l>>,
    pub(super) stage: &'a Stage<'a>,
    pub(super) timer: &'a Timer,
    pub(super) current: &'a Try<'a>,
    /// Whether an answer with this status does not count.
    pub(super) is_rejected: &'a dyn Fn(u16) -> bool,
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
        if (self.is_rejected)(head.status) {
            let failure = RejectReason::UpstreamStatus.into();
            return Err(Trouble { failure, unanswered: true, unsent: false });
        }
        self.record.answered(head.status);
        if head.status == 101 {
            return self.switch(head).await;
        }
        let node_persists = headers::remove_hop_by_hop(&mut head.fields).persists(head.version);
        if let Some(changes) = &self.changes
            && let Some(bytes_max) = changes.phases.state().answer_bytes_max
        {
            let passing = Box::pin(self.pass_on_whole(head, (framing, body), bytes_max));
            let client_persists = passing.await?;
            let node_persists = node_persists && framing != Framing::UntilClose;
            return Ok(Received { client_persists, node_persists, switched: false });
        }
        let is_delimited = framing != Framing::UntilClose;
        let decide = |changes: Changes<'_, '_>| changes.decide(head, &self.to.asked, is_delimited, None);
        let decided = self.changes.take().map(decide);
        let has_body = has_body(self.to.asked.method, head.status);
        let (filters, passed) = match decided {
            None | Some(ResponseBody::Pass) => (Vec::new(), framing),
            Some(ResponseBody::Filtered(filters)) if has_body => {
                let changed = filters.iter().any(|filter| !filter.only_looks());
                (filters, if changed { Framing::Chunked } else { framing })
            }
            Some(ResponseBody::Filtered(_)) => (Vec::new(), framing),
            Some(ResponseBody::Replaced(body)) => {
                let node_persists = node_persists && matches!(framing, Framing::None | Framing::Length(0));
                let client_persists = Box::pin(self.replace(head, body)).await?;
                return Ok(Received { client_persists, node_persists, switched: false });
            }
        };
        let origin = body_of(&mut self.node, framing, &mut body)?;
        let source = Source::node(origin, self.said, self.read_limit).beside(self.stage.talk.node());
        self.stage.talk.node().spoke();
        let (sink, client_persists) = self.to.begin(head, passed, self.record)?;
        let Some(sink) = sink else {
            return Ok(Received { client_persists, node_persists, switched: false });
        };
        self.stage.answering.set(true);
        relay(source, sink.through(filters), self.timer).await.map_err(answer_failure)?;
        let node_persists = node_persists && framing != Framing::UntilClose;
        Ok(Received { client_persists, node_persists, switched: false })
    }

    /// Reads what comes after the head before plugins decide; says whether the client's connection lives on.
    async fn pass_on_whole(
        mut self,
        head: &mut ResponseHead,
        (framing, mut body): (Framing, Option<Inlet>),
        bytes_max: NonZeroU64,
    ) -> Result<bool, Trouble> {
        let mut kept = Kept::default();
        let origin = body_of(&mut self.node, framing, &mut body)?;
        let source = Source::node(origin, self.said, self.read_limit).at_most(Some(bytes_max));
        let source = source.beside(self.stage.talk.node());
        self.stage.talk.node().spoke();
        relay(source, Sink::from(&mut kept), self.timer).await.map_err(unread)?;
        let body = kept.body.freeze();
        let whole = Whole { body: body.clone(), trailers: kept.trailers };
        let is_delimited = framing != Framing::UntilClose;
        let decide =
            |changes: Changes<'_, '_>| changes.decide(head, &self.to.asked, is_delimited, Some(whole));
        let decided = self.changes.take().map(decide);
        let body = match decided {
            None | Some(ResponseBody::Pass) => body,
            Some(ResponseBody::Replaced(body)) => body,
            Some(ResponseBody::Filtered(mut filters)) => {
                let mut out = Vec::with_capacity(body.len());
                push_all(&mut filters, &body, &mut out);
                finish_all(&mut filters, &mut None, &mut out);
                out.into()
            }
        };
        self.replace(head, body).await
    }

    /// Answers with `body` in place of what the node sends; says whether the client's connection lives on.
    async fn replace(self, head: &mut ResponseHead, body: Bytes) -> Result<bool, Trouble> {
        let sends = has_body(self.to.asked.method, head.status);
        // To HEAD the node may say how long a body would be; anybody else waits for as much as is announced.
        if sends || !body.is_empty() || self.to.asked.method != Method::Head {
            head.fields.remove_known(Known::ContentLength);
            if !matches!(head.status, 204 | 304) {
                head.fields.append("Content-Length", body.len().to_string().as_bytes());
            }
        }
        let framing = if sends { Framing::Length(body.len() as u64) } else { Framing::None };
        // There is nothing behind it, whatever the node had in mind.
        head.version = Version::Http11;
        let (sink, client_persists) = self.to.begin(head, framing, self.record)?;
        let Some(sink) = sink else { return Ok(client_persists) };
        self.stage.answering.set(true);
        let body = if sends { body } else { Bytes::new() };
        send_whole(body, sink, self.timer).await.map_err(answer_failure)?;
        Ok(client_persists)
    }

    /// Tells the client that the node agreed to a WebSocket.
    async fn switch(self, head: &mut ResponseHead) -> Result<Received, Trouble> {
        // Nobody can ask for a WebSocket over HTTP/2.
        let Recipient { client: Outgoing::Http1(writer), limit, reply, .. } = self.to else {
            return Err(RejectReason::UpstreamMalformed.into());
        };
        headers::remove_hop_by_hop(&mut head.fields);
        tell(head, self.record);
        write::response_start(head, reply);
        headers::write_upgrade(reply);
        write::end(reply);
        self.record.head_written(reply.len());
        self.stage.answering.set(true);
        let written = write_all(writer, reply, limit, self.timer).await;
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
            let framing = response::parse(&self.said[..end], self.to.asked.forwarded, head);
            self.said.advance(end);
            let framing = framing.map_err(|_| RejectReason::UpstreamMalformed)?;
            match head.status {
                101 if self.to.asked.wish.upgrades && tunnel::is_agreed(&head.fields) => {
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
                        http2::response::read(&parts, body.is_end_stream(), self.to.asked.forwarded, head);
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

impl Changes<'_, '_> {
    /// Lets plugins change the head, and says what becomes of the body.
    fn decide(
        self,
        head: &mut ResponseHead,
        asked: &Asked,
        is_delimited: bool,
        whole: Option<Whole>,
    ) -> ResponseBody {
        let sent = has_body(asked.forwarded, head.status);
        let seen = sent && asked.method != Method::Head;
        let body = (seen, is_delimited, whole);
        let decided = self.phases.response(self.request, self.address, head, body);
        match decided {
            // With another status or method there is no place for the body, or one that the node does not fill.
            _ if sent != has_body(asked.method, head.status) => match decided {
                ResponseBody::Replaced(body) => ResponseBody::Replaced(body),
                ResponseBody::Pass | ResponseBody::Filtered(_) => ResponseBody::Replaced(Bytes::new()),
            },
            decided => decided,
        }
    }
}

impl<'a, 's> Recipient<'a, '_, 's> {
    /// Begins the answer; hands back where a body goes that ends as `framing` says, if any can follow, and whether
    /// the client's connection lives on.
    fn begin(
        self,
        head: &mut ResponseHead,
        framing: Framing,
        record: &Record<'_>,
    ) -> Result<(Option<Sink<'a, 's>>, bool), Trouble> {
        let Self { client, limit, reply, asked } = self;
        let persists = asked.wish.persists;
        tell(head, record);
        match client {
            Outgoing::Http1(writer) => {
                let needs_framing = matches!(framing, Framing::Chunked | Framing::UntilClose);
                let chunked = needs_framing && asked.version == Version::Http11;
                // An HTTP/1.0 client learns the end of such a body from the end of the connection.
                let persists = persists && (chunked || !needs_framing);
                if framing == Framing::None && asked.method != Method::Head {
                    say_there_is_no_body(head);
                }
                stage_head(head, asked.version, chunked, persists, reply);
                record.head_written(reply.len());
                let trailers = asked.wish.trailers;
                let sink = Http1Sink { writer, staged: reply, write_limit: limit, chunked, trailers };
                Ok((Some(sink.into()), persists))
            }
            Outgoing::Http2(outlet) => {
                // After an empty body of HTTP/2 there may still be trailers.
                let last = framing == Framing::None
                    || framing == Framing::Length(0) && head.version != Version::Http2;
                let gone = Failure::Cut(RejectReason::ClientClosed);
                let head = http2::response::write(head).ok_or(RejectReason::UpstreamMalformed)?;
                record.head_written(http2::bytes(head.headers()));
                outlet.borrow_mut().send_head(head, last).map_err(|_| gone)?;
                let sink = (!last).then(|| Http2Sink::new(outlet, limit).into());
                Ok((sink, persists))
            }
        }
    }
}

/// Tells a caller who may know what served the request.
fn tell(head: &mut ResponseHead, record: &Record<'_>) {
    if let Some(said) = record.served_by() {
        head.fields.set(headers::SERVED_BY, said.as_bytes());
    }
}

/// Where the body of an answer is read from.
fn body_of<'b, 'n>(
    node: &'b mut Origin<'_, 'n>,
    framing: Framing,
    body: &'b mut Option<Inlet>,
) -> Result<relay::Origin<'b, 'n>, RejectReason> {
    match (node, body) {
        (Origin::Http1(reader), _) => Ok(relay::Origin::Http1(reader, framing)),
        (Origin::Http2(..), Some(body)) => Ok(relay::Origin::Http2(body)),
        (Origin::Http2(..), None) => Err(RejectReason::UpstreamMalformed),
    }
}

/// What it means that an answer could not be read as a whole: the client has nothing of it yet.
fn unread(broken: Broken) -> Failure {
    Failure::Reject(match broken {
        Broken::SourceTooLarge => RejectReason::UpstreamTooLarge,
        Broken::SourceTimeout => RejectReason::UpstreamReadTimeout,
        Broken::SourceMalformed => RejectReason::UpstreamMalformed,
        Broken::SourceClosed | Broken::SinkClosed | Broken::SinkTimeout => RejectReason::UpstreamClosed,
    })
}

/// Whether an answer has a body at all.
fn has_body(method: Method, status: u16) -> bool {
    method != Method::Head && !matches!(status, 204 | 304)
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
