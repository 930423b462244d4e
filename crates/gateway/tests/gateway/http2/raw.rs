//! A client that writes HTTP/2 frames by hand, so that it can write wrong ones.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use crate::world::PATIENCE;

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const ACK: u8 = 1;
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

pub(crate) const PROTOCOL_ERROR: u32 = 1;
pub(crate) const REFUSED_STREAM: u32 = 7;
pub(crate) const ENHANCE_YOUR_CALM: u32 = 11;

/// A connection on which the preface was sent.
pub(crate) struct Raw {
    pub(crate) stream: TcpStream,
}

#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

/// What came of a stream.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It was answered with this status.
    Answered(u16),
    /// It was reset for this reason.
    Reset(u32),
    /// The connection was ended for this reason.
    Ended(u32),
    /// The connection closed without a word.
    Closed,
}

impl Raw {
    pub(crate) fn to(address: SocketAddr) -> Self {
        let mut stream = TcpStream::connect(address).expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
        let mut raw = Self { stream };
        raw.send(SETTINGS, 0, 0, &[]);
        raw
    }

    pub(crate) fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        // A gateway that has heard enough closes; what it said is still to be read.
        let _ = self.stream.write_all(&frame(kind, flags, stream, payload));
    }

    pub(crate) fn headers(&mut self, stream: u32, flags: u8, fields: &[(&str, &str)]) {
        self.send(HEADERS, flags | END_HEADERS, stream, &block(fields));
    }

    /// The next frame; `None`: the connection closed.
    pub(crate) fn frame(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        self.stream.read_exact(&mut head).ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let mut payload = vec![0; length as usize];
        self.stream.read_exact(&mut payload).ok()?;
        Some(Frame { kind: head[3], stream, payload })
    }

    /// Reads until the stream has come to something.
    pub(crate) fn outcome(&mut self, stream: u32) -> Outcome {
        loop {
            let Some(frame) = self.frame() else { return Outcome::Closed };
            match frame.kind {
                HEADERS if frame.stream == stream => return Outcome::Answered(status(&frame.payload)),
                RST_STREAM if frame.stream == stream => return Outcome::Reset(number(&frame.payload)),
                GOAWAY => return Outcome::Ended(number(&frame.payload[4..])),
                _ => {}
            }
        }
    }
}

pub(crate) fn number(payload: &[u8]) -> u32 {
    u32::from_be_bytes(payload[..4].try_into().expect("four bytes"))
}

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// A header block of literals that neither side remembers (RFC 7541 section 6.2.2).
pub(crate) fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in fields {
        bytes.push(0);
        for text in [name, value] {
            length(text.len(), &mut bytes);
            bytes.extend_from_slice(text.as_bytes());
        }
    }
    bytes
}

/// An integer with a prefix of seven bits (RFC 7541 section 5.1).
fn length(length: usize, bytes: &mut Vec<u8>) {
    let Some(mut rest) = length.checked_sub(127) else { return bytes.push(u8::try_from(length).unwrap()) };
    bytes.push(127);
    while rest >= 128 {
        bytes.push(u8::try_from(rest % 128).unwrap() | 128);
        rest /= 128;
    }
    bytes.push(u8::try_from(rest).unwrap());
}

/// The status a block begins with: an entry of the static table, or a literal value of three digits, in plain text or
/// in Huffman code.
fn status(block: &[u8]) -> u16 {
    const INDEXED: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];
    match *block {
        [index @ 0x88..=0x8e, ..] => INDEXED[usize::from(index - 0x88)],
        [_, 3, a, b, c, ..] => [a, b, c].iter().fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0')),
        // Digits: 0, 1 and 2 have five bits, the others six.
        [_, length, ref rest @ ..] if length & 0x80 != 0 => {
            let mut bits =
                rest.iter().flat_map(|byte| (0..8).rev().map(move |bit| u16::from(byte >> bit & 1)));
            let mut digit = || {
                let five = bits.by_ref().take(5).fold(0, |sum, bit| sum << 1 | bit);
                if five < 3 { five } else { (five << 1 | bits.next().unwrap_or(0)) - 0x19 + 3 }
            };
            (0..3).fold(0, |sum, _| sum * 10 + digit())
        }
        _ => panic!("no status: {block:?}"),
    }
}
