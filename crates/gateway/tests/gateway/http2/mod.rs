//! HTTP/2 of clients: what comes through as over HTTP/1, and what is refused before it reaches an upstream.

mod forwarding;
pub(crate) mod node;
pub(crate) mod peer;
pub(crate) mod raw;
mod violations;
