//! Who is let in: decided when a connection is accepted, for all workers together, before it has cost anything. And
//! who is shown out again.
//!
//! Everything here is touched once per connection and not on the path of a request, but for the pressure on memory,
//! which is one number.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tokio::net::TcpStream;

use super::proxy_protocol::{self, Origin};
use super::timer::Timer;
use super::{Limits, Security};
use crate::config::Trust;
use crate::memory::Pressure;

/// Why a connection was closed before its first request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// There are as many as there may be.
    ConnectionsMax,
    /// There is no memory for more.
    MemoryShort,
    /// It did not begin with the PROXY protocol.
    ProxyProtocolMissing,
    /// The header of the PROXY protocol did not come in time.
    ProxyProtocolTimeout,
    /// Its sender may not speak for others.
    ProxyProtocolUntrusted,
}

impl Refusal {
    const ALL: [Self; 5] = [
        Self::ConnectionsMax,
        Self::MemoryShort,
        Self::ProxyProtocolMissing,
        Self::ProxyProtocolTimeout,
        Self::ProxyProtocolUntrusted,
    ];

    /// The name by which logs and metrics know it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::ConnectionsMax => "connections_max",
            Self::MemoryShort => "memory_short",
            Self::ProxyProtocolMissing => "proxy_protocol_missing",
            Self::ProxyProtocolTimeout => "proxy_protocol_timeout",
            Self::ProxyProtocolUntrusted => "proxy_protocol_untrusted",
        }
    }
}

/// Why a connection that was let in was closed: a limit that is about no single request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Eviction {
    /// Its first request did not begin in time.
    Silent,
    /// It waited too long for its next request.
    Idle,
    /// Over HTTP/2, it sent too much that carries nothing.
    Http2Flood,
    /// Over HTTP/2, the head of a request did not arrive in time.
    Http2SlowHead,
    /// Over HTTP/2, it broke a rule that holds for the whole connection.
    Http2Malformed,
}

impl Eviction {
    const ALL: [Self; 5] =
        [Self::Silent, Self::Idle, Self::Http2Flood, Self::Http2SlowHead, Self::Http2Malformed];

    /// The name by which logs and metrics know it.
    fn name(self) -> &'static str {
        match self {
            Self::Silent => "silent",
            Self::Idle => "idle",
            Self::Http2Flood => "http2_flood",
            Self::Http2SlowHead => "http2_slow_head",
            Self::Http2Malformed => "http2_malformed",
        }
    }
}

/// What all workers know of who is in and who may come in.
pub(crate) struct Door {
    connections_max: NonZeroUsize,
    trust: Trust,
    pub(crate) pressure: Pressure,
    open: AtomicUsize,
    refusals: [AtomicU64; Refusal::ALL.len()],
    evictions: [AtomicU64; Eviction::ALL.len()],
}

/// Somebody who was let in; dropped, there is room for another.
pub(crate) struct Guest(Arc<Door>);

impl Drop for Guest {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Door {
    pub(crate) fn new(limits: &Limits, trust: Trust) -> Self {
        Self {
            connections_max: limits.connections_max,
            trust,
            pressure: Pressure::default(),
            open: AtomicUsize::new(0),
            refusals: Default::default(),
            evictions: Default::default(),
        }
    }

    /// Lets a connection in; `None`: it is refused, and counted.
    pub(crate) fn enter(self: &Arc<Self>, peer: SocketAddr) -> Option<Guest> {
        if self.pressure.refuses_connections() {
            self.refuse(Refusal::MemoryShort, peer);
            return None;
        }
        let before = self.open.fetch_add(1, Ordering::Relaxed);
        let guest = Guest(Arc::clone(self));
        if before >= self.connections_max.get() {
            self.refuse(Refusal::ConnectionsMax, peer);
            return None;
        }
        Some(guest)
    }

    /// Whether every connection to the listener of this security begins with the PROXY protocol.
    pub(super) fn speaks_proxy_protocol(&self, security: Security) -> bool {
        match security {
            Security::None => self.trust.proxy_protocol,
            Security::Tls => self.trust.proxy_protocol_tls,
        }
    }

    /// The same for the ports of streams.
    pub(crate) fn streams_speak_proxy_protocol(&self) -> bool {
        self.trust.proxy_protocol_streams
    }

    /// Where a connection really comes from and goes to; `None`: it does not say so and must, and is refused. `speaks`:
    /// whether it begins with the PROXY protocol.
    pub(crate) async fn origin(
        &self,
        stream: &mut TcpStream,
        socket: (SocketAddr, SocketAddr),
        speaks: bool,
        timer: &Timer,
        limits: &Limits,
    ) -> Option<(SocketAddr, SocketAddr)> {
        if !speaks {
            return Some(socket);
        }
        let refusal = if !self.trust.addresses.is_empty() && !self.trust.covers(socket.0.ip()) {
            Refusal::ProxyProtocolUntrusted
        } else {
            match timer.limit(limits.head_timeout, proxy_protocol::read(stream)).await {
                Ok(Ok(Origin::Client { peer, local })) => return Some((peer, local)),
                Ok(Ok(Origin::Socket)) => return Some(socket),
                Ok(Err(_)) => Refusal::ProxyProtocolMissing,
                Err(_) => Refusal::ProxyProtocolTimeout,
            }
        };
        self.refuse(refusal, socket.0);
        None
    }

    /// Whether what a client says of where its requests come from is believed.
    pub(super) fn trusts(&self, peer: IpAddr) -> bool {
        self.trust.covers(peer)
    }

    fn refuse(&self, refusal: Refusal, peer: SocketAddr) {
        self.refusals[refusal as usize].fetch_add(1, Ordering::Relaxed);
        tracing::debug!(client = %peer, reason = refusal.name(), "a connection was refused");
    }

    /// A connection that was let in is closed for this.
    pub(crate) fn evict(&self, eviction: Eviction, client: SocketAddr) {
        self.evictions[eviction as usize].fetch_add(1, Ordering::Relaxed);
        tracing::debug!(%client, reason = eviction.name(), "a connection is closed");
    }

    /// Connections that are open now.
    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// How many connections were refused, by reason.
    pub(crate) fn refusals(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let counts = Refusal::ALL.into_iter().zip(&self.refusals);
        counts.map(|(refusal, count)| (refusal.name(), count.load(Ordering::Relaxed)))
    }

    /// How many connections were closed for a limit, by reason.
    pub(crate) fn evictions(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let counts = Eviction::ALL.into_iter().zip(&self.evictions);
        counts.map(|(eviction, count)| (eviction.name(), count.load(Ordering::Relaxed)))
    }
}
