//! A request on its way: read, matched, forwarded, answered.
//!
//! * [`connection`]: one client connection, request after request.
//! * [`exchange`]: one request matched and forwarded to one upstream.
//! * [`attempt`]: one try of it on one connection.
//! * [`headers`]: what changes in a head on its way through.
//! * [`relay`]: a body from one connection to another.
//! * [`tunnel`]: a WebSocket.
//! * [`variables`], [`body`]: what conditions can read of a request.
//! * [`reject`]: answers the gateway gives itself.

mod attempt;
pub(crate) mod body;
mod connection;
mod exchange;
mod headers;
pub(crate) mod reject;
mod relay;
mod tunnel;
pub(crate) mod variables;

pub(crate) use connection::serve;
pub(crate) use headers::ClientAddress;
