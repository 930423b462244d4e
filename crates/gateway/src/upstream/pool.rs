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
    idle: HashMap<SocketAddr, Vec<Idle>>,
}

impl Pool {
    /// The connection to `address` that was used last, if one is still good at the tick `now`.
    pub(crate) fn take(&mut self, address: SocketAddr, now: u64) -> Option<Connection> {
        let idle = self.idle.get_mut(&address)?;
        while let Some(mut candidate) = idle.pop() {
            if candidate.expires_at > now && candidate.connection.transport.is_silent() {
                return Some(candidate.connection);
            }
        }
        None
    }

    /// Keeps a connection for later, within the limits of its upstream.
    pub(crate) fn put(&mut self, address: SocketAddr, connection: Connection, limits: Keepalive, now: u64) {
        if connection.served >= limits.requests_max {
            return;
        }
        let expires_at = match limits.idle_timeout {
            Duration::ZERO => u64::MAX,
            timeout => now.saturating_add(ticks(timeout)),
        };
        let entry = Idle { connection, expires_at };
        if let Some(idle) = self.idle.get_mut(&address) {
            if idle.len() < limits.idle_max {
                idle.push(entry);
            }
        } else if limits.idle_max > 0 {
            self.idle.insert(address, vec![entry]);
        }
    }

    /// Closes what is past its time at the tick `now` or was closed by the other side.
    pub(crate) fn sweep(&mut self, now: u64) {
        self.idle.retain(|_, idle| {
            idle.retain_mut(|entry| entry.expires_at > now && entry.connection.transport.is_silent());
            !idle.is_empty()
        });
    }
}
