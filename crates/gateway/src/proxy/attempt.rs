//! One request on one connection to one node: sent, answered, and the connection given back or closed.
//!
//! The answer decides. It may begin before the request has been sent as a whole; once any of it has gone to the
//! client, a failure can only be shown by closing.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use bytes::{Buf, Bytes};
use gatewright_plugins::response::BodyFilter;
use h2::Reason;
use http::Request;

use super::answer::{Answer, Asked, Changes, Origin, Received, Recipient};
use super::client::{Client, Incoming, Outgoing};
use super::connection::Unread;
use super::exchange::{Failure, Sending, Wish};
use super::pace::Talk;
use super::phases::Phases;
use super::reject::RejectReason;
use super::relay::{Broken, Source, relay};
use super::sink::{Http2Sink, Sink, send_whole, write_rest};
use super::tunnel::{self, Life};
use crate::http1::Malformed;
use crate::http2::outlet::Outlet;
use crate::telemetry::record::Record;
use crate::transport::{Traffic, WriteHalf};
use crate::upstream::Timeouts;
use crate::upstream::multiplexed::Seat;
use crate::upstream::pool::Connection;
use crate::upstream::tries::{Failed, Try};
use crate::worker::Worker;
use crate::worker::buffers::Workspace;
use crate::worker::timer::{Clock, Timer};

/// One request on one connection to a node.
pub(super) struct Attempt<'a, 'c, 's, 'l> {
    pub(super) worker: &'a Rc<Worker>,
    pub(super) client: &'a mut Client<'c, 's>,
    pub(super) workspace: &'a mut Workspace,
    pub(super) timeouts: Timeouts,
    pub(super) wish: Wish,
    pub(super) unread: &'a mut Unread,
    pub(super) current: &'a Try<'a>,
    pub(super) record: &'a Record<'l>,
    /// Whether the route is still there, for what outlives its configuration.
    pub(super) is_served: &'a dyn Fn() -> bool,
    /// Whether an answer with this status does not count, because another node is asked instead.
    pub(super) is_rejected: &'a dyn Fn(u16) -> bool,
    /// The plugins of the request, if any run for it.
    pub(super) phases: Option<&'a mut Phases<'l>>,
}

/// An attempt that came to its end.
pub(super) struct Done {
    /// Whether the client's connection lives on.
    pub(super) persists: bool,
    /// The connection to the node, if it can serve again.
    pub(super) reusable: Option<Connection>,
}

/// An attempt that failed.
pub(super) struct Trouble {
    pub(super) failure: Failure,
    /// Whether not a single byte of an answer arrived.
    pub(super) unanswered: bool,
    /// Whether not a single byte of the request was taken, or the node said that it looked at none.
    pub(super) unsent: bool,
}

impl Trouble {
    /// Whether the node had closed a connection that was kept open, as it may at any time.
    pub(super) fn is_stale(&self, reused: bool) -> bool {
        reused && self.unanswered && self.failure == Failure::Reject(RejectReason::UpstreamClosed)
    }

    /// What it means for another try, if one is conceivable.
    pub(super) fn as_failed(&self) -> Option<Failed> {
        match self {
            Self { unsent: true, .. } => Some(Failed::Unsent),
            Self { unanswered: true, .. } => Some(Failed::Unanswered),
            _ => None,
        }
    }

    /// What the end of a stream before its answer means; `whole`: the request can be sent again as it is.
    pub(super) fn of_stream(error: &h2::Error, whole: bool) -> Self {
        let refused = error.is_reset() && error.reason() == Some(Reason::REFUSED_STREAM);
        let ignored = error.is_remote() && (refused || error.is_go_away());
        let reason =
            if error.is_library() { RejectReason::UpstreamMalformed } else { RejectReason::UpstreamClosed };
        Self { failure: Failure::Reject(reason), unanswered: true, unsent: whole && ignored }
    }
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Self { failure, unanswered: false, unsent: false }
    }
}

impl From<RejectReason> for Trouble {
    fn from(reason: RejectReason) -> Self {
        Failure::Reject(reason).into()
    }
}

/// What an attempt is made on.
pub(super) enum Link {
    /// A connection of its own; the head is staged.
    Http1(Connection),
    /// A stream beside others, and the head to begin it with.
    Http2(Seat, Request<()>),
}

// A task has room for the largest of what it may wait for, and every connection is a task: what few requests need is
// boxed.
impl Attempt<'_, '_, '_, '_> {
    pub(super) async fn run(self, link: Link, sending: Sending) -> Result<Done, Trouble> {
        self.workspace.answer.clear();
        self.workspace.reply.clear();
        match link {
            Link::Http1(connection) => self.run_alone(connection, sending).await,
            Link::Http2(seat, head) => {
                let done = self.run_beside_others(&seat, head, sending).await;
                // A node that does not look at a request wants none on this connection.
                if matches!(&done, Err(trouble) if trouble.unsent) {
                    seat.retire();
                }
                done
            }
        }
    }

    async fn run_alone(self, connection: Connection, sending: Sending) -> Result<Done, Trouble> {
        let Attempt { worker, client, workspace, timeouts, wish, unread, .. } = self;
        let Attempt { current, record, is_served, is_rejected, mut phases, .. } = self;
        let Workspace { inbound, answer: said, outbound, reply, request, response, .. } = workspace;
        let Client { incoming, outgoing, limits, timer, upload_timer, address } = client;
        let Connection { mut transport, served } = connection;
        let (traffic, clock, observers) = (Traffic::default(), &worker.clock, body_observers(&mut phases));
        let (mut node_reader, mut node_writer) = transport.split(&traffic);
        let stage = Stage::new(matches!(sending, Sending::Stream(_)), clock);
        let answer = Answer {
            node: Origin::Http1(&mut node_reader),
            said,
            read_limit: timeouts.read,
            to: Recipient {
                client: outgoing,
                limit: limits.body_timeout,
                reply,
                asked: Asked::new(request, wish),
            },
            changes: phases.map(|phases| Changes { phases, request, address }),
            stage: &stage,
            timer,
            current,
            is_rejected,
            record,
        };
        let received = match sending {
            Sending::Whole(length) => {
                send_alone(&mut node_writer, outbound, timeouts.send, timer).await?;
                let received = beside(pin!(gone(incoming)), pin!(answer.pass_on(response)), &stage).await?;
                inbound.advance(length);
                *unread = Unread::Nothing;
                received
            }
            Sending::Stream(framing) => {
                *unread = Unread::Unknown;
                if wish.expects && inbound.is_empty() {
                    answer.to.client.go_on(limits.body_timeout, timer).await?;
                }
                let sink = Sink::of_request(&mut node_writer, outbound, timeouts.send, framing);
                let upload = async {
                    let source = Source::client(incoming.origin(framing), inbound, limits);
                    let source = source.at_most(wish.body_bytes_max).beside(stage.talk.client());
                    relay(source, sink.through(observers), upload_timer).await?;
                    stage.uploading.set(false);
                    *unread = Unread::Nothing;
                    gone(incoming).await
                };
                beside(Box::pin(upload).as_mut(), pin!(answer.pass_on(response)), &stage).await?
            }
        };
        if received.switched
            && let (Incoming::Http1(reader), Outgoing::Http1(writer)) = (incoming, outgoing)
        {
            let node =
                tunnel::End { reader: &mut node_reader, writer: &mut node_writer, said, timer: upload_timer };
            let client = tunnel::End { reader, writer, said: inbound, timer };
            let (drain, departure) = (limits.websocket_drain, worker.departure.clone());
            let life = Life { clock, silence_max: timeouts.read, is_served, drain, departure };
            let tunnel = Box::pin(tunnel::run(client, node, life));
            tunnel.await.into_iter().for_each(|reason| record.cut(reason));
            return Ok(Done { persists: false, reusable: None });
        }
        let whole = *unread == Unread::Nothing;
        let reusable = received.node_persists && whole && said.is_empty();
        Ok(Done {
            persists: received.client_persists && whole,
            reusable: reusable.then(|| Connection { transport, served: served + 1 }),
        })
    }

    async fn run_beside_others(
        self,
        seat: &Seat,
        head: Request<()>,
        sending: Sending,
    ) -> Result<Done, Trouble> {
        let Attempt { worker, client, workspace, timeouts, wish, unread, .. } = self;
        let Attempt { current, record, is_rejected, mut phases, .. } = self;
        let (clock, observers) = (&worker.clock, body_observers(&mut phases));
        let Workspace { inbound, answer: said, reply, request, response, .. } = workspace;
        let Client { incoming, outgoing, limits, timer, upload_timer, address } = client;
        let (bodiless, whole) = (matches!(sending, Sending::Whole(0)), matches!(sending, Sending::Whole(_)));
        let begun = seat.sender().send_request(head, bodiless);
        // Nothing of it has left.
        let unsent = |error| Trouble { unsent: true, ..Trouble::of_stream(&error, whole) };
        let (answering, stream) = begun.map_err(unsent)?;
        let outlet = RefCell::new(Outlet::of_request(stream));
        let sink = Sink::from(Http2Sink::new(&outlet, timeouts.send));
        let stage = Stage::new(!bodiless, clock);
        let answer = Answer {
            node: Origin::Http2(answering, whole),
            said,
            read_limit: timeouts.read,
            to: Recipient {
                client: outgoing,
                limit: limits.body_timeout,
                reply,
                asked: Asked::new(request, wish),
            },
            changes: phases.map(|phases| Changes { phases, request, address }),
            stage: &stage,
            timer,
            current,
            is_rejected,
            record,
        };
        let received = match sending {
            Sending::Whole(length) => {
                let data = Bytes::copy_from_slice(&inbound[..length]);
                let upload = async {
                    if !bodiless {
                        Box::pin(send_whole(data, sink, upload_timer)).await?;
                    }
                    stage.uploading.set(false);
                    gone(incoming).await
                };
                let received = beside(pin!(upload), pin!(answer.pass_on(response)), &stage).await?;
                inbound.advance(length);
                *unread = Unread::Nothing;
                received
            }
            Sending::Stream(framing) => {
                *unread = Unread::Unknown;
                if wish.expects && inbound.is_empty() {
                    answer.to.client.go_on(limits.body_timeout, timer).await?;
                }
                let upload = async {
                    let source = Source::client(incoming.origin(framing), inbound, limits)
                        .at_most(wish.body_bytes_max);
                    // Messages may come as seldom as they like, as long as somebody says something.
                    let source = Source { pace: None, ..source.beside(stage.talk.client()) };
                    relay(source, sink.through(observers), upload_timer).await?;
                    stage.uploading.set(false);
                    *unread = Unread::Nothing;
                    gone(incoming).await
                };
                beside(Box::pin(upload).as_mut(), pin!(answer.pass_on(response)), &stage).await?
            }
        };
        let whole = *unread == Unread::Nothing;
        Ok(Done { persists: received.client_persists && whole, reusable: None })
    }
}

/// What looks at the body of a request on its way.
fn body_observers(phases: &mut Option<&mut Phases<'_>>) -> Vec<Box<dyn BodyFilter>> {
    phases.as_deref_mut().map(Phases::body_observers).unwrap_or_default()
}

/// Sends a request that is here as a whole.
async fn send_alone(
    node: &mut WriteHalf<'_>,
    request: &[u8],
    limit: Duration,
    timer: &Timer,
) -> Result<(), Trouble> {
    let mut rest = request;
    let sent = write_rest(node, &mut rest, limit, timer).await;
    let unsent = rest.len() == request.len();
    sent.map_err(|broken| Trouble { failure: send_failure(broken), unanswered: true, unsent })
}

/// What a failure to send the request means.
pub(super) fn send_failure(broken: Broken) -> Failure {
    match broken {
        Broken::SinkTimeout => Failure::Reject(RejectReason::UpstreamSendTimeout),
        Broken::SinkClosed => Failure::Reject(RejectReason::UpstreamClosed),
        Broken::SourceMalformed => Failure::Reject(RejectReason::Malformed(Malformed::Chunk)),
        Broken::SourceTimeout => Failure::Reject(RejectReason::BodyTimeout),
        Broken::SourceTooLarge => Failure::Reject(RejectReason::BodyTooLarge),
        Broken::SourceClosed => Failure::Cut(RejectReason::ClientClosed),
    }
}

/// What a failure to pass the answer on means: the client has part of it, so that it can only be cut, never replaced.
pub(super) fn answer_failure(broken: Broken) -> Failure {
    Failure::Cut(match broken {
        Broken::SourceClosed => RejectReason::UpstreamClosed,
        Broken::SourceTimeout => RejectReason::UpstreamReadTimeout,
        Broken::SourceMalformed | Broken::SourceTooLarge => RejectReason::UpstreamMalformed,
        Broken::SinkClosed => RejectReason::ClientClosed,
        Broken::SinkTimeout => RejectReason::ClientStalled,
    })
}

/// Ends once the client is gone, and never otherwise.
async fn gone(client: &Incoming<'_, '_>) -> Result<Infallible, Broken> {
    client.gone().await;
    Err(Broken::SourceClosed)
}

/// How far the two directions have come.
pub(super) struct Stage<'c> {
    /// The request is still on its way to the node.
    pub(super) uploading: Cell<bool>,
    /// The client may have some of the answer.
    pub(super) answering: Cell<bool>,
    pub(super) talk: Talk<'c>,
}

impl<'c> Stage<'c> {
    fn new(uploading: bool, clock: &'c Clock) -> Self {
        Self { uploading: Cell::new(uploading), answering: Cell::new(false), talk: Talk::new(clock) }
    }
}

/// Runs an answer beside what the client does meanwhile: `client` ends only when something is wrong with it. The
/// answer decides: a node may answer before it has read everything. A node that takes no more may have answered
/// already, so its answer is waited for; a client that breaks off ends both.
async fn beside(
    mut client: Pin<&mut impl Future<Output = Result<Infallible, Broken>>>,
    mut answer: Pin<&mut impl Future<Output = Result<Received, Trouble>>>,
    stage: &Stage<'_>,
) -> Result<Received, Trouble> {
    let mut ended = false;
    poll_fn(|context| {
        if !ended && let Poll::Ready(Err(broken)) = client.as_mut().poll(context) {
            ended = true;
            stage.uploading.set(false);
            if broken != Broken::SinkClosed {
                let failure = match send_failure(broken) {
                    // What was begun cannot be replaced by another answer.
                    Failure::Reject(reason) if stage.answering.get() => Failure::Cut(reason),
                    failure => failure,
                };
                return Poll::Ready(Err(failure.into()));
            }
        }
        answer.as_mut().poll(context)
    })
    .await
}
