//! WebSocket (RFC 6455) of the bench, both ends: one message of fixed size goes back and forth.

use super::scenario::{HOST, PATH};

/// Bytes of a message.
pub(crate) const MESSAGE_BYTES: usize = 1024;

/// Bytes of a message with its frame, as the backend sends it.
pub(crate) const FROM_SERVER_BYTES: usize = 4 + MESSAGE_BYTES;
/// The same, as a client sends it.
pub(crate) const FROM_CLIENT_BYTES: usize = 8 + MESSAGE_BYTES;

/// A final frame with binary data.
const BINARY: u8 = 0x82;
const MASKED: u8 = 0x80;
/// Says that the length follows in two bytes.
const LENGTH_FOLLOWS: u8 = 126;

/// The example of RFC 6455, section 1.3: what a server has to answer to it stands there, too.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// What a client asks for.
pub(crate) fn request() -> Vec<u8> {
    format!(
        "GET {PATH} HTTP/1.1\r\nHost: {HOST}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n"
    )
    .into_bytes()
}

/// What the backend says to it.
pub(crate) fn accepted() -> Vec<u8> {
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {ACCEPT}\r\n\r\n"
    )
    .into_bytes()
}

/// The message as a client sends it; with a mask of zeros it reads like the server's.
pub(crate) fn from_client() -> Vec<u8> {
    message(MASKED, &[0; 4])
}

/// The message as the backend sends it back.
pub(crate) fn from_server() -> Vec<u8> {
    message(0, &[])
}

fn message(masked: u8, mask: &[u8]) -> Vec<u8> {
    const { assert!(MESSAGE_BYTES >= 126 && MESSAGE_BYTES <= 0xffff) };
    let [.., high, low] = MESSAGE_BYTES.to_be_bytes();
    let mut frame = vec![BINARY, masked | LENGTH_FOLLOWS, high, low];
    frame.extend_from_slice(mask);
    frame.resize(frame.len() + MESSAGE_BYTES, b'x');
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_say_who_sends_them_and_how_long_they_are() {
        assert_eq!(from_client()[..9], [0x82, 0xfe, 4, 0, 0, 0, 0, 0, b'x']);
        assert_eq!(from_server()[..5], [0x82, 0x7e, 4, 0, b'x']);
        assert_eq!(from_client().len(), FROM_CLIENT_BYTES);
        assert_eq!(from_server().len(), FROM_SERVER_BYTES);
    }
}
