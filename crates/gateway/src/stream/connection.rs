//! One connection of a stream: the stream route that serves it, a node, and bytes in both directions.
//!
//! Whoever is refused is closed without a word, as there is no word that every protocol knows; the reason is counted.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use gatewright_model::expression::{Value, Variable, Variables};
use gatewright_model::resource::stream_route::{StreamRoute, StreamTls};
use gatewright_model::stream::claim::{Arrival, Carrier, Greeting};
use tokio::net::TcpStream;

use super::greeting::{self, Begun};
use super::relay::{self, Ending, Life};
use crate::live::LiveService;
use crate::proxy::reject::RejectReason;
use crate::telemetry::metrics::streams::{StreamCounts, StreamEnd};
use crate::tls::handshake;
use crate::transport::{Traffic, Transport};
use crate::upstream::balance::Asked;
use crate::upstream::tries::{Failed, Tries, Try};
use crate::upstream::{Reachable, Upstream};
use crate::worker::Worker;
use crate::worker::door::Guest;
use crate::worker::proxy_protocol;

/// Serves a connection to its end.
pub(super) async fn serve(worker: Rc<Worker>, guest: Guest, stream: TcpStream, peer: SocketAddr) {
    run(&worker, stream, peer).await;
    drop(guest);
    worker.ended();
}

/// Where a connection comes from and goes to.
#[derive(Clone, Copy)]
pub(super) struct Ends {
    pub(super) client: SocketAddr,
    pub(super) server: SocketAddr,
}

/// The stream route that serves a connection.
pub(super) struct Found {
    pub(super) service: Arc<LiveService>,
    route: usize,
}

impl Found {
    fn route(&self) -> &StreamRoute {
        &self.service.published.stream_routes[self.route].route
    }

    pub(super) fn counts<'s>(&'s self, worker: &Worker) -> &'s StreamCounts {
        self.service.streams[self.route].of(worker.index)
    }

    /// The upstream it goes to, whose nodes must be reached this way.
    pub(super) fn upstream(&self, carrier: Carrier) -> Reachable {
        let upstream = self.service.upstreams.own().now()?;
        match Carrier::of(upstream.scheme) == Some(carrier) {
            true => Ok(upstream),
            false => Err(RejectReason::SchemeUnsupported),
        }
    }

    /// Whether there is such a stream route now.
    pub(super) fn is_served(&self, worker: &Worker) -> bool {
        let published = &self.service.published;
        let route_id = &published.stream_routes[self.route].route_id;
        worker.live.take().streams.has(&published.service_id, route_id)
    }

    /// How a stream ends that reaches no node.
    pub(super) fn refused(&self, reason: RejectReason) -> StreamEnd {
        let service = &self.service.published.service_id;
        tracing::debug!(%service, reason = reason.name(), "a stream reaches no node");
        StreamEnd::Unreachable
    }
}

async fn run(worker: &Worker, mut stream: TcpStream, peer: SocketAddr) -> Option<()> {
    let socket = (peer, stream.local_addr().ok()?);
    let timer = worker.clock.timer();
    let speaks = worker.door.streams_speak_proxy_protocol();
    let (client, _) = worker.door.origin(&mut stream, socket, speaks, &timer, &worker.limits).await?;
    // What a balancer connected to says nothing about which of our ports was meant.
    let ends = Ends { client, server: socket.1 };
    let reads_tls = worker.live.take().streams.reads_tls(Carrier::Tcp, ends.server.port());
    let begun = match reads_tls {
        true => greeting::read(&mut stream, &timer).await?,
        false => Begun::unread(),
    };
    drop(timer);
    let Some(found) = find(worker, Carrier::Tcp, ends, begun.greeting()) else {
        worker.recorder.unmatched_stream().refused();
        tracing::debug!(%client, server = %ends.server, "no stream route takes a connection");
        return None;
    };
    let counts = found.counts(worker);
    counts.opened();
    let traffic = Traffic::default();
    let end = pass(worker, stream, (ends, begun), &found, &traffic).await;
    counts.closed(end, traffic.read.get(), traffic.written.get());
    tracing::debug!(%client, service = %found.service.published.service_id, end = end.name(), "a stream has ended");
    Some(())
}

/// Finds the stream route that serves what comes this way.
pub(super) fn find(worker: &Worker, carrier: Carrier, ends: Ends, greeting: Greeting<'_>) -> Option<Found> {
    let live = worker.live.take();
    let Ends { client, server } = ends;
    let entry = live.streams.find(&Arrival { carrier, server, remote: client.ip(), greeting })?;
    Some(Found { service: Arc::clone(&entry.service), route: entry.route })
}

/// From a connection whose stream route is known to its end; what it reads and writes is counted in `traffic`.
async fn pass(
    worker: &Worker,
    stream: TcpStream,
    (ends, begun): (Ends, Begun),
    found: &Found,
    traffic: &Traffic,
) -> StreamEnd {
    let name = match begun.greeting() {
        Greeting::Tls(name) => name.map(str::to_owned),
        Greeting::Plain => None,
    };
    let (mut client, said) = match found.route().tls {
        StreamTls::Terminate => match terminate(worker, stream, begun, ends).await {
            Some(client) => (client, Vec::new()),
            None => return StreamEnd::Refused,
        },
        StreamTls::Off | StreamTls::Passthrough => (Transport::Plain(stream), begun.bytes),
    };
    let variables = StreamVariables { ends, server_name: name.as_deref() };
    let upstream = match found.upstream(Carrier::Tcp) {
        Ok(upstream) => upstream,
        Err(reason) => return found.refused(reason),
    };
    let header =
        found.route().proxy_protocol.map(|version| proxy_protocol::header(version, ends.client, ends.server));
    let connected = connect(worker, &upstream, &variables, header.as_deref().unwrap_or_default()).await;
    let (current, mut node) = match connected {
        Ok(connected) => connected,
        Err(reason) => return found.refused(reason),
    };
    let is_served = || found.is_served(worker);
    let life = Life { worker, silence_max: upstream.timeouts.read, is_served: &is_served };
    let node_traffic = Traffic::default();
    let (from_node, mut to_node) = node.split(&node_traffic);
    let timer = worker.clock.timer();
    if crate::proxy::sink::write_all(&mut to_node, &said, upstream.timeouts.send, &timer).await.is_err() {
        return StreamEnd::NodeBroken;
    }
    traffic.read.set(said.len() as u64);
    drop((timer, said));
    let ending = relay::run(client.split(traffic), (from_node, to_node), life).await;
    drop(current);
    match ending {
        Ending::Done => StreamEnd::Done,
        Ending::ClientBroken => StreamEnd::ClientBroken,
        Ending::NodeBroken => StreamEnd::NodeBroken,
        Ending::Idle => StreamEnd::Idle,
        Ending::RouteGone => StreamEnd::RouteGone,
        Ending::Stopping => StreamEnd::Stopping,
    }
}

/// Shakes hands with a client that has said hello.
async fn terminate(worker: &Worker, stream: TcpStream, begun: Begun, ends: Ends) -> Option<Transport> {
    let (accepted, name) = begun.into_handshake()?;
    handshake::finish(worker, (accepted, name), stream, ends.client).await
}

/// Connects to the first node that can be reached, and tells it who comes.
async fn connect<'u>(
    worker: &Worker,
    upstream: &'u Upstream,
    variables: &StreamVariables<'_>,
    header: &[u8],
) -> Result<(Try<'u>, Transport), RejectReason> {
    let asked = Asked { worker: worker.index, key: upstream.hash_key(variables) };
    let (timer, clock) = (worker.clock.timer(), &worker.clock);
    let mut tries = Tries::new(upstream, asked, clock.now());
    let mut current = tries.first().ok_or(RejectReason::NoNodes)?;
    loop {
        let connecting = async {
            let address = current.node.address(worker.index).await.ok_or(RejectReason::NameUnresolved)?;
            current.node.connect_announced(address, header).await
        };
        let connected = timer.limit(upstream.timeouts.connect, connecting).await;
        let reason = match connected.unwrap_or(Err(RejectReason::UpstreamConnectTimeout)) {
            Ok(node) => {
                current.connected();
                return Ok((current, node));
            }
            Err(reason) => reason,
        };
        current.failed(reason);
        current = tries.another(&current, Failed::Unsent, clock.now()).ok_or(reason)?;
    }
}

/// What consistent hashing can read of a stream.
pub(super) struct StreamVariables<'a> {
    pub(super) ends: Ends,
    pub(super) server_name: Option<&'a str>,
}

impl Variables for StreamVariables<'_> {
    fn get<'a>(&'a self, variable: &Variable) -> Option<Value<'a>> {
        let Ends { client, server } = self.ends;
        let text = match variable {
            Variable::RemoteAddr => client.ip().to_canonical().to_string(),
            Variable::RemotePort => client.port().to_string(),
            Variable::ServerAddr => server.ip().to_canonical().to_string(),
            Variable::ServerPort => server.port().to_string(),
            Variable::SslServerName => self.server_name?.to_owned(),
            Variable::Other(name) if &**name == "server_name" => self.server_name?.to_owned(),
            _ => return None,
        };
        Some(Value::Text(Cow::Owned(text.into_bytes())))
    }
}
