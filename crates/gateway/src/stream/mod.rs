//! Services at layer 4: from a port to a node, bytes as they come.
//!
//! * [`router`]: which stream route serves a connection; pure.
//! * [`listeners`]: which ports are open, as the configuration changes.
//! * [`accept`]: what a worker accepts from them.
//! * [`greeting`]: how a connection begins, where that decides about it.
//! * [`connection`]: one connection on its way to a node.
//! * [`datagrams`]: the same for what has no connections.
//! * [`relay`]: bytes in both directions.

pub(crate) mod accept;
mod connection;
mod datagrams;
mod greeting;
pub(crate) mod listeners;
pub(crate) mod relay;
pub(crate) mod router;
