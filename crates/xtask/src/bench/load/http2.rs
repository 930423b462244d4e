//! HTTP/2 (RFC 9113) as clients of the bench speak it: frames are written from precomputed bytes, and of an answer
//! the status and the count of its bytes are looked at.
//!
//! Windows are opened as far as they go, so that no run ever waits for them, and no header enters a dynamic table.

use std::time::{Duration, Instant};

use anyhow::{bail, ensure};

use super::super::scenario::{HOST, PATH};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const FRAME_HEAD_BYTES: usize = 9;
const WINDOW_MAX: u32 = 0x7fff_ffff;
/// What a connection's window is before anything is said of it.
const WINDOW_FIRST: u32 = 65_535;
/// The window is opened anew when so much of it is used.
const WINDOW_USED_MAX: u32 = 1 << 30;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;

const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;

/// `:status: 200` as an index of the static table (RFC 7541, appendix A).
const STATUS_OK: u8 = 0x88;

/// One connection with so many requests under way.
pub(super) struct Session {
    inbox: Vec<u8>,
    header_block: Vec<u8>,
    next_stream: u32,
    window_used: u32,
    under_way: Vec<Exchange>,
}

struct Exchange {
    stream: u32,
    began: Instant,
    is_ok: bool,
    body_bytes: usize,
}

impl Session {
    /// Begins the connection and sends `streams` requests; what is to be sent is added to `out`.
    pub(super) fn open(streams: usize, out: &mut Vec<u8>) -> Self {
        out.extend_from_slice(PREFACE);
        // No pushed answers (2), and a window for each stream that is never used up (4).
        let settings = [[0, 2, 0, 0, 0, 0], [0, 4, 0x7f, 0xff, 0xff, 0xff]].concat();
        frame(SETTINGS, 0, 0, &settings, out);
        frame(WINDOW_UPDATE, 0, 0, &(WINDOW_MAX - WINDOW_FIRST).to_be_bytes(), out);
        let mut session = Self {
            inbox: Vec::new(),
            header_block: header_block(),
            next_stream: 1,
            window_used: 0,
            under_way: Vec::with_capacity(streams),
        };
        for _ in 0..streams {
            session.request(out);
        }
        session
    }

    fn request(&mut self, out: &mut Vec<u8>) {
        frame(HEADERS, END_STREAM | END_HEADERS, self.next_stream, &self.header_block, out);
        let (stream, began) = (self.next_stream, Instant::now());
        self.under_way.push(Exchange { stream, began, is_ok: false, body_bytes: 0 });
        self.next_stream += 2;
    }

    /// Takes what arrived and sends a request for each answer that is complete; `done` is told how long it took.
    pub(super) fn take(
        &mut self,
        bytes: &[u8],
        body_bytes: usize,
        out: &mut Vec<u8>,
        done: &mut dyn FnMut(Duration),
    ) -> anyhow::Result<()> {
        let mut inbox = std::mem::take(&mut self.inbox);
        inbox.extend_from_slice(bytes);
        let mut rest = &inbox[..];
        while let Some((head, after)) = rest.split_first_chunk::<FRAME_HEAD_BYTES>() {
            let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
            let Some((payload, after)) = after.split_at_checked(length) else { break };
            let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            self.frame(head[3], head[4], stream, payload, out)?;
            if matches!(head[3], DATA | HEADERS) && head[4] & END_STREAM != 0 {
                done(self.end(stream, body_bytes)?);
                self.request(out);
            }
            rest = after;
        }
        let taken = inbox.len() - rest.len();
        inbox.drain(..taken);
        self.inbox = inbox;
        Ok(())
    }

    fn frame(
        &mut self,
        kind: u8,
        flags: u8,
        stream: u32,
        payload: &[u8],
        out: &mut Vec<u8>,
    ) -> anyhow::Result<()> {
        match kind {
            DATA => {
                ensure!(flags & PADDED == 0, "padding is not expected here");
                self.exchange(stream)?.body_bytes += payload.len();
                self.window_used += u32::try_from(payload.len())?;
                if self.window_used > WINDOW_USED_MAX {
                    frame(WINDOW_UPDATE, 0, 0, &self.window_used.to_be_bytes(), out);
                    self.window_used = 0;
                }
            }
            HEADERS => self.exchange(stream)?.is_ok |= payload.first() == Some(&STATUS_OK),
            SETTINGS if flags & ACK == 0 => frame(SETTINGS, ACK, 0, &[], out),
            PING if flags & ACK == 0 => frame(PING, ACK, 0, payload, out),
            SETTINGS | PING | WINDOW_UPDATE => {}
            _ => bail!("a frame of type {kind} on stream {stream}: {payload:?}"),
        }
        Ok(())
    }

    fn exchange(&mut self, stream: u32) -> anyhow::Result<&mut Exchange> {
        match self.under_way.iter_mut().find(|exchange| exchange.stream == stream) {
            Some(exchange) => Ok(exchange),
            None => bail!("an answer to stream {stream}, which asks for none"),
        }
    }

    fn end(&mut self, stream: u32, body_bytes: usize) -> anyhow::Result<Duration> {
        let took = self.exchange(stream)?;
        let (is_ok, have, took) = (took.is_ok, took.body_bytes, took.began.elapsed());
        ensure!(
            is_ok && have == body_bytes,
            "expected 200 with {body_bytes} bytes, got {have}; 200: {is_ok}"
        );
        self.under_way.retain(|exchange| exchange.stream != stream);
        Ok(took)
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8], out: &mut Vec<u8>) {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes();
    out.extend_from_slice(&[length[1], length[2], length[3], kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

/// The request's headers: indexes of the static table, and literals that no table remembers (RFC 7541, section 6.2.2).
fn header_block() -> Vec<u8> {
    const METHOD_GET: u8 = 0x82;
    const SCHEME_HTTP: u8 = 0x86;
    const AUTHORITY: &[u8] = &[0x01];
    const PATH_NAME: &[u8] = &[0x04];
    const ACCEPT: &[u8] = &[0x0f, 19 - 15];
    const USER_AGENT: &[u8] = &[0x0f, 58 - 15];
    let mut block = vec![METHOD_GET, SCHEME_HTTP];
    for (name, value) in [(PATH_NAME, PATH), (AUTHORITY, HOST), (ACCEPT, "*/*"), (USER_AGENT, "bench")] {
        block.extend_from_slice(name);
        // Below 127 a length is one byte.
        block.push(u8::try_from(value.len()).unwrap_or(126));
        block.extend_from_slice(value.as_bytes());
    }
    block
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(stream: u32, status: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        frame(HEADERS, END_HEADERS, stream, &[status], &mut bytes);
        frame(DATA, END_STREAM, stream, body, &mut bytes);
        bytes
    }

    #[test]
    fn each_complete_answer_is_counted_once_and_followed_by_a_request() {
        let mut sent = Vec::new();
        let mut session = Session::open(2, &mut sent);
        let bytes = [answer(3, STATUS_OK, b"abc"), answer(1, STATUS_OK, b"abc")].concat();
        let (mut done, mut sent) = (0, Vec::new());
        for byte in bytes {
            session.take(&[byte], 3, &mut sent, &mut |_| done += 1).unwrap();
        }
        assert_eq!(done, 2);
        let request = FRAME_HEAD_BYTES + header_block().len();
        assert_eq!(sent.len(), 2 * request);
        let streams = [&sent[5..9], &sent[request + 5..request + 9]];
        assert_eq!(streams, [5_u32.to_be_bytes(), 7_u32.to_be_bytes()]);
    }

    #[test]
    fn other_answers_than_the_expected_one_fail() {
        for bytes in [
            answer(1, 0x8d, b"abc"),
            answer(1, STATUS_OK, b"ab"),
            answer(9, STATUS_OK, b"abc"),
            vec![0, 0, 4, 3, 0, 0, 0, 0, 1, 0, 0, 0, 0],
        ] {
            let mut session = Session::open(1, &mut Vec::new());
            session.take(&bytes, 3, &mut Vec::new(), &mut |_| {}).unwrap_err();
        }
    }

    #[test]
    fn settings_and_pings_are_acknowledged() {
        let mut session = Session::open(1, &mut Vec::new());
        let (mut bytes, mut sent, mut expected) = (Vec::new(), Vec::new(), Vec::new());
        frame(SETTINGS, 0, 0, &[], &mut bytes);
        frame(SETTINGS, ACK, 0, &[], &mut bytes);
        frame(PING, 0, 0, b"12345678", &mut bytes);
        session.take(&bytes, 3, &mut sent, &mut |_| {}).unwrap();
        frame(SETTINGS, ACK, 0, &[], &mut expected);
        frame(PING, ACK, 0, b"12345678", &mut expected);
        assert_eq!(sent, expected);
    }
}
