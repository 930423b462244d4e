//! What the fuzz targets call; it exists only in their builds (`--cfg fuzzing`, see `docs/guides/fuzzing.md`).

use crate::http1::properties;
use crate::router::reference;

/// Reads `received` as a request head.
pub fn request_head(received: &[u8]) {
    properties::request_head(received);
}

/// Reads `received` as a response head.
pub fn response_head(received: &[u8]) {
    properties::response_head(received);
}

/// Reads `received` as a chunked body.
pub fn chunked(received: &[u8]) {
    properties::chunked(received);
}

/// Reads `received` as a header of the PROXY protocol.
pub fn proxy_protocol(received: &[u8]) {
    crate::worker::proxy_protocol::check(received);
}

/// Reads `text` as a route table and requests, and matches them with the router and the obvious matcher.
pub fn route_table(text: &str) {
    reference::route_table(text);
}
