//! The control plane from outside: over HTTP, as clients and gateways use it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "in a test, what is not as expected is a failure"
)]

mod api;
mod postgres;
mod start;
mod watch;
mod world;
