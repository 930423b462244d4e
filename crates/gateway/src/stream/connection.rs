//! One connection of a stream: the stream route that serves it, a node, and bytes in both directions.
//!
//! Whoever is refused is closed without a word, as there is no word that every protocol knows; the reason is counted.

use std::net::SocketAddr;
use std::rc::Rc;

use gatewright_model::resource::stream_route::StreamTls;
use gatewright_model::stream::claim::{Carrier, Greeting};
use tokio::net::TcpStream;

use super::found::find;
use super::greeting::{self, Begun};
use super::passage::{Passage, refuse};
use super::record::{Arrived, Ends, Record};
use super::relay::{self, Life};
use crate::proxy::reject::RejectReason;
use crate::telemetry::metrics::streams::StreamEnd;
use crate::tls::handshake;
use crate::transport::{Traffic, Transport};
use crate::upstream::Upstream;
use crate::upstream::balance::Asked;
use crate::upstream::tries::{Failed, Tries, Try};
use crate::worker::Worker;
use crate::worker::door::Guest;
use crate::worker::proxy_protocol;

/// Serves a connection to its end.
pub(super) async fn serve(worker: Rc<Worker>, guest: Guest, stream: TcpStream, peer: SocketAddr) {
    run(&worker, stream, peer).await;
    drop(guest);
    worker.stream_ended();
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
    let name = match begun.greeting() {
        Greeting::Tls(name) => name.map(str::to_owned),
        Greeting::Plain => None,
    };
    let arrived = Arrived { carrier: Carrier::Tcp, ends, server_name: name.as_deref() };
    let Some(found) = find(worker, Carrier::Tcp, ends, begun.greeting()) else {
        refuse(worker, arrived);
        return None;
    };
    let (traffic, mut passage) = (Traffic::default(), Passage::begin(worker, &found, arrived));
    let end = match passage.admit().await {
        Ok(()) => pass(worker, stream, begun, &passage, &traffic).await,
        Err(end) => end,
    };
    passage.end(end, traffic.read.get(), traffic.written.get());
    Some(())
}

/// From a connection that is let in to its end; what it reads and writes is counted in `traffic`.
async fn pass(
    worker: &Worker,
    stream: TcpStream,
    begun: Begun,
    passage: &Passage<'_>,
    traffic: &Traffic,
) -> StreamEnd {
    let (found, ends) = (passage.found, passage.record.arrived.ends);
    let (mut client, said) = match found.route().tls {
        StreamTls::Terminate => match terminate(worker, stream, begun, ends).await {
            Some(client) => (client, Vec::new()),
            None => return StreamEnd::Refused,
        },
        StreamTls::Off | StreamTls::Passthrough => (Transport::Plain(stream), begun.bytes),
    };
    let upstream = match passage.upstream() {
        Ok(upstream) => upstream,
        Err(reason) => return passage.unreachable(reason),
    };
    let header =
        found.route().proxy_protocol.map(|version| proxy_protocol::header(version, ends.client, ends.server));
    let connected = connect(worker, &upstream, &passage.record, header.as_deref().unwrap_or_default()).await;
    let (current, mut node) = match connected {
        Ok(connected) => connected,
        Err(reason) => return passage.unreachable(reason),
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
    let end = relay::run(client.split(traffic), (from_node, to_node), life).await;
    drop(current);
    end
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
    record: &Record<'_>,
    header: &[u8],
) -> Result<(Try<'u>, Transport), RejectReason> {
    let asked = Asked { worker: worker.index, key: upstream.hash_key(&record.arrived) };
    let (timer, clock) = (worker.clock.timer(), &worker.clock);
    let mut tries = Tries::new(upstream, asked, clock.now());
    let mut current = tries.first().ok_or(RejectReason::NoNodes)?;
    loop {
        record.tried();
        let connecting = async {
            let address = current.node.address(worker.index).await.ok_or(RejectReason::NameUnresolved)?;
            record.node(address);
            current.node.connect_announced(address, header).await
        };
        let connected = timer.limit(upstream.timeouts.connect, connecting).await;
        let reason = match connected.unwrap_or(Err(RejectReason::UpstreamConnectTimeout)) {
            Ok(node) => {
                current.connected();
                record.connected();
                return Ok((current, node));
            }
            Err(reason) => reason,
        };
        current.failed(reason);
        current = tries.another(&current, Failed::Unsent, clock.now()).ok_or(reason)?;
    }
}
