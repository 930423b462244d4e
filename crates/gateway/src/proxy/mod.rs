//! A request on its way: read, matched, forwarded, answered.
//!
//! * [`connection`]: one client connection, request after request.
//! * [`multiplexed`]: one that speaks HTTP/2: many requests at a time.
//! * [`client`]: the client's end of one exchange, whichever protocol it speaks.
//! * [`caller`]: who that is, where it decides about the version of a service.
//! * [`exchange`]: one request matched and forwarded to one upstream; [`destination`]: by which route, and where to.
//! * [`phases`]: the plugins of one request.
//! * [`attempt`]: one try of it on one connection.
//! * [`answer`]: what came of it, on its way to the client.
//! * [`headers`]: what changes in a head on its way through.
//! * [`relay`]: a body from one connection to another; [`pace`]: how long its sender is waited for; [`sink`]: where
//!   it goes.
//! * [`tunnel`]: a WebSocket; [`frames`]: where its frames end.
//! * [`variables`], [`body`]: what conditions can read of a request.
//! * [`reject`]: answers the gateway gives itself.

mod answer;
mod attempt;
pub(crate) mod body;
mod caller;
mod client;
mod connection;
mod destination;
mod exchange;
mod frames;
mod headers;
mod multiplexed;
mod pace;
pub(crate) mod phases;
pub(crate) mod reject;
pub(crate) mod relay;
pub(crate) mod sink;
mod tunnel;
pub(crate) mod variables;

pub(crate) use connection::serve;
pub(crate) use headers::ClientAddress;
