//! Connections kept open for the next request, per worker.
//!
//! A connection is only ever used by one request at a time and is given back only after a response that ended
//! cleanly. One that says anything while it is idle, even goodbye, is never used again: what it said could not
//! belong to the next request.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use super::Keepalive;
use crate::transport::Transport;
use crate::worker::timer::ticks;

/// What a connection leads to: only one that leads to the same place under the same demands may take its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Endpoint {
    pub(crate) address: SocketAddr,
    /// The number of the TLS session; absent: there is none.
    pub(crate) tls: Option<u64>,
}

/// An open connection to a node.
pub(crate) struct Connection {
    pub(crate) transport: Transport,
    /// Requests it has served; 0: it is fresh.
    pub(crate) served: u32,
}

struct Idle {
    connection: Connection,
    expires_at: u64,
}

/// The idle connections of one worker.
#[derive(Default)]
pub(crate) struct Pool {
    idle: HashMap<Endpoint, Vec<Idle>>,
}

impl Pool {
    /// The connection to `endpoint` that was used last, if one is still good at the tick `now`.
    pub(crate) fn take(&mut self, endpoint: Endpoint, now: u64) -> Option<Connection> {
        let idle = self.idle.get_mut(&endpoint)?;
        while let Some(mut candidate) = idle.pop() {
            if candidate.expires_at > now && candidate.connection.transport.is_silent() {
                return Some(candidate.connection);
            }
        }
        None
    }

    /// Keeps a connection for later, within the limits of its upstream.
    pub(crate) fn put(&mut self, endpoint: Endpoint, connection: Connection, limits: Keepalive, now: u64) {
        if connection.served >= limits.requests_max {
            return;
        }
        let expires_at = match limits.idle_timeout {
            Duration::ZERO => u64::MAX,
            timeout => now.saturating_add(ticks(timeout)),
        };
        let entry = Idle { connection, expires_at };
        if let Some(idle) = self.idle.get_mut(&endpoint) {
            if idle.len() < limits.idle_max {
                idle.push(entry);
            }
        } else if limits.idle_max > 0 {
            self.idle.insert(endpoint, vec![entry]);
        }
    }

    /// Closes what is past its time at the tick `now` or was closed by the other side; says how many are left.
    pub(crate) fn sweep(&mut self, now: u64) -> usize {
        self.idle.retain(|_, idle| {
            idle.retain_mut(|entry| entry.expires_at > now && entry.connection.transport.is_silent());
            !idle.is_empty()
        });
        self.idle.values().map(Vec::len).sum()
    }
}
