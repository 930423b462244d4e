//! Services at layer 4: from a port to a node, bytes as they come.
//!
//! * [`router`]: which stream route serves a connection; pure.
//! * [`listeners`]: which ports are open, as the configuration changes.
//! * [`accept`]: what a worker accepts from them.
//! * [`greeting`]: how a connection begins, where that decides about it.
//! * [`found`]: the stream route that serves a stream; [`record`]: what is known of it.
//! * [`phases`]: the plugins of a stream; [`passage`]: from who is let in to what is told.
//! * [`connection`]: one connection on its way to a node.
//! * [`datagrams`]: the same for what has no connections.
//! * [`relay`]: bytes in both directions.

pub(crate) mod accept;
mod connection;
mod datagrams;
pub(crate) mod found;
mod greeting;
pub(crate) mod listeners;
mod passage;
pub(crate) mod phases;
pub(crate) mod record;
pub(crate) mod relay;
pub(crate) mod router;
