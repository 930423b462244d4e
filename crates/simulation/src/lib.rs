//! The protocol between control planes and gateways on a simulated network: what distributes and what follows is the
//! real code, with simulated time. The same seed brings the same faults at the same times; how the gateways fare under
//! them may differ by a tick, because compiling happens on real threads.
//!
//! * [`World`]: control planes that share a database, gateways that follow them, and the network between.
//! * `network`: how a gateway connects.

#![allow(
    clippy::expect_used,
    reason = "all of this is test code; a failed expectation is how a history fails"
)]

mod network;
mod world;

pub use world::{CONTROL_PLANES, GATEWAYS, World};
