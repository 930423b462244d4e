//! Black-box journeys over the real executable.
//!
//! This is the harness: a [`World`] runs the executable on port 0 in a temporary directory and knows where it
//! answers; an [`upstream::Upstream`] records or scripts what a backend does; [`client`] speaks raw HTTP/1.1, so
//! that a journey sees the bytes. Nothing waits for time to pass, only for something to be observed ([`wait`]).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "all of this is test code; a failed expectation is how a journey fails"
)]

pub mod executable;
pub mod process;
pub mod wait;

pub mod admin;
pub mod browser;
pub mod client;
pub mod message;
pub mod registry;
pub mod server;
pub mod upstream;

pub mod fleet;
pub mod link;
pub mod world;

/// The folder of this package in the checkout that is tested. Checkouts that share a target directory share what is
/// built of this package, so where it was built says nothing.
#[must_use]
pub fn package() -> std::path::PathBuf {
    let own = std::env::var_os("CARGO_MANIFEST_DIR");
    own.unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into()).into()
}

pub use admin::Admin;
pub use fleet::{ControlPlane, Gateway};
pub use link::Link;
pub use process::Process;
pub use upstream::Upstream;
pub use world::World;
