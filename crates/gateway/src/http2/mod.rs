//! HTTP/2 (RFC 9113): what the `h2` crate leaves to decide.
//!
//! The crate keeps frames, header compression, flow control and stream states. Here heads become
//! [`gatewright_model::message`] heads and back, limits are set, and what a peer sends is counted. Nothing here
//! knows routes or upstreams.
//!
//! * [`request`], [`response`]: heads in and out.
//! * [`inlet`], [`outlet`]: the two directions of a stream.
//! * [`grpc`]: what gRPC adds.
//! * [`flood`]: frames that cost much and carry nothing.
//! * [`frames`]: where frames begin in the bytes of a connection.
//! * [`wire`]: the bytes under a connection, watched. [`gather`]: frames leave together.

pub(crate) mod flood;
pub(crate) mod frames;
pub(crate) mod gather;
pub(crate) mod grpc;
pub(crate) mod inlet;
pub(crate) mod outlet;
pub(crate) mod request;
pub(crate) mod response;
pub(crate) mod wire;

use bytes::Bytes;
use gatewright_model::message::Fields;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::http1::HEAD_BYTES_MAX;

/// What a client that speaks HTTP/2 without being asked sends first (RFC 9113 section 3.4).
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Streams a client may have open on one connection; more are refused.
const STREAMS_MAX: u32 = 100;

/// Bytes a peer may send on one stream, and on all streams of a connection together, before some are passed on.
const STREAM_WINDOW_BYTES: u32 = 64 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;

/// Bytes of a body that wait to be written, for each stream.
const SEND_BUFFER_BYTES_MAX: usize = 64 * 1024;

/// Streams that a client resets before they were looked at, and streams reset because of what a client did wrong,
/// until its connection is closed.
const PENDING_RESETS_MAX: usize = 20;
const LOCAL_RESETS_MAX: usize = 100;

/// How connections of clients are set up.
pub(crate) fn server() -> h2::server::Builder {
    let mut server = h2::server::Builder::new();
    server
        .max_concurrent_streams(STREAMS_MAX)
        .initial_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_header_list_size(u32::try_from(HEAD_BYTES_MAX).unwrap_or(u32::MAX))
        .max_send_buffer_size(SEND_BUFFER_BYTES_MAX)
        .max_pending_accept_reset_streams(PENDING_RESETS_MAX)
        .max_local_error_reset_streams(Some(LOCAL_RESETS_MAX));
    server
}

/// How connections to nodes are set up.
pub(crate) fn client() -> h2::client::Builder {
    let mut client = h2::client::Builder::new();
    client
        .enable_push(false)
        .initial_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_header_list_size(u32::try_from(HEAD_BYTES_MAX).unwrap_or(u32::MAX))
        .max_send_buffer_size(SEND_BUFFER_BYTES_MAX);
    client
}

/// The fields of `map`.
pub(crate) fn fields_of(map: &HeaderMap) -> Fields {
    let mut fields = Fields::default();
    append(map, &mut fields);
    fields
}

/// Appends the fields of `map`; those of one name stay in order.
fn append(map: &HeaderMap, fields: &mut Fields) {
    for (name, value) in map {
        fields.append(name.as_str(), value.as_bytes());
    }
}

/// The fields as a map, names in lower case; without what HTTP/2 cannot carry. All values share one copy of the
/// fields' bytes.
pub(crate) fn map_of(fields: &Fields) -> HeaderMap {
    let mut map = HeaderMap::with_capacity(fields.iter().count());
    let shared = Bytes::copy_from_slice(fields.all_bytes());
    for field in fields.iter() {
        let value = HeaderValue::from_maybe_shared(shared.slice(field.value.range()));
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(fields.bytes(field.name)), value) {
            map.append(name, value);
        }
    }
    map
}

/// What the fields amount to: names, values, and what is counted for keeping each (RFC 9113 section 6.5.2).
pub(crate) fn bytes(map: &HeaderMap) -> usize {
    map.iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum()
}

/// Appends a field to `map`, its name in lower case, unless HTTP/2 cannot carry it.
pub(crate) fn append_to(map: &mut HeaderMap, name: &[u8], value: &[u8]) {
    if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
        map.append(name, value);
    }
}
