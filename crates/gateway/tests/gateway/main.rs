//! The gateway from outside: real sockets, a scripted control plane on the other end of a pipe, raw bytes in and
//! out.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that fails says where")]

mod tls_world;
mod world;

mod answering;
mod caching;
mod canaries;
mod forwarding;
mod framing;
mod grpc;
mod grpc_plugins;
mod http2;
mod living;
mod observing;
mod plugins;
mod redis;
mod rows_a;
mod rows_c;
mod rows_d;
mod served_by;
mod shipping;
mod stream_plugins;
mod streams;
mod tls;
mod tls_nodes;
mod trusting;
mod upstreams;
mod websockets;
