//! The journeys, one module each, over the real executable.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "all of this is test code; a failed expectation is how a journey fails"
)]

mod first_start;

mod demo;
mod quick;

mod authentication;
mod caching;
mod canary;
mod direct;
mod grpc;
mod openapi;
mod plugins;
mod preview;
mod publish;
mod rollout;
mod templates;
mod transforming;

mod discovery;
mod explain;
mod headers;
mod refusals;
mod routing;
mod streaming;
mod streams;

mod fleet;
mod observe;
mod processes;
mod tls;

mod bad_start;
mod shutdown;
mod upgrade;

mod crash;
mod load;
