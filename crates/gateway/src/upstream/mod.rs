//! Upstreams as requests use them: compiled once, shared by all workers, immutable but for counters that each
//! worker keeps for itself.
//!
//! * [`node`]: where a node is.
//! * [`balance`]: which node serves next.
//! * [`pool`]: connections kept open, per worker.

pub(crate) mod balance;
pub(crate) mod node;
pub(crate) mod pool;

use std::time::Duration;

use gatewright_model::resource::upstream::{self as resource, PassHost, Scheme, Timeout};

use crate::proxy::reject::RejectReason;
use balance::RoundRobin;
use node::Node;

/// How a backend is reached.
pub(crate) struct Upstream {
    pub(crate) nodes: Vec<Node>,
    pub(crate) balance: RoundRobin,
    pub(crate) timeouts: Timeouts,
    /// Attempts at other nodes after the first.
    pub(crate) retries: usize,
    pub(crate) keepalive: Keepalive,
    pub(crate) pass_host: PassHost,
    /// The `Host` with [`PassHost::Rewrite`].
    pub(crate) upstream_host: Box<[u8]>,
}

/// Time limits towards nodes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timeouts {
    pub(crate) connect: Duration,
    pub(crate) send: Duration,
    pub(crate) read: Duration,
}

impl From<Timeout> for Timeouts {
    fn from(timeout: Timeout) -> Self {
        Self {
            connect: timeout.connect.duration(),
            send: timeout.send.duration(),
            read: timeout.read.duration(),
        }
    }
}

/// How long and how often a connection is reused.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Keepalive {
    pub(crate) idle_max: usize,
    /// Zero: for ever.
    pub(crate) idle_timeout: Duration,
    pub(crate) requests_max: u32,
}

impl Upstream {
    /// Compiles an upstream for so many workers.
    ///
    /// # Errors
    /// The reason every request to it is rejected with, when this release cannot serve it: failing closed beats
    /// reaching a backend in another way than was asked for.
    pub(crate) fn compile(upstream: &resource::Upstream, workers: usize) -> Result<Self, RejectReason> {
        if upstream.scheme != Scheme::Http {
            return Err(RejectReason::SchemeUnsupported);
        }
        let weighted = upstream.nodes.iter().filter(|node| node.weight > 0);
        let nodes: Vec<Node> = weighted.clone().map(Node::compile).collect();
        let weights: Vec<u16> = weighted.map(|node| node.weight).collect();
        if nodes.is_empty() {
            return Err(RejectReason::NoNodes);
        }
        Ok(Self {
            balance: RoundRobin::new(&weights, workers),
            retries: upstream.retries.map_or(nodes.len() - 1, usize::from),
            nodes,
            timeouts: upstream.timeout.into(),
            keepalive: Keepalive {
                idle_max: upstream.keepalive_pool.size as usize,
                idle_timeout: upstream.keepalive_pool.idle_timeout.duration(),
                requests_max: upstream.keepalive_pool.requests,
            },
            pass_host: upstream.pass_host,
            upstream_host: upstream.upstream_host.as_deref().unwrap_or_default().as_bytes().into(),
        })
    }
}
