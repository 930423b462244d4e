//! HTTP/1.1 as clients of the bench speak it: the answer's head is looked at, the bytes of its body are counted.

use anyhow::{bail, ensure};

use super::super::backend::{content_length, find_head_end};

const STATUS_OK: [u8; 13] = *b"HTTP/1.1 200 ";

/// An answer that arrives.
#[derive(Default)]
pub(super) struct Reading {
    head: Vec<u8>,
    /// Bytes of body that came, once the head is complete.
    body: Option<usize>,
}

impl Reading {
    /// Gets ready for the next answer.
    pub(super) fn clear(&mut self) {
        self.head.clear();
        self.body = None;
    }

    /// Takes more bytes; `true`: the answer is complete. An error if it can never become the expected one.
    pub(super) fn take(&mut self, bytes: &[u8], body_bytes: usize) -> anyhow::Result<bool> {
        let have = match self.body {
            Some(have) => have + bytes.len(),
            None => {
                self.head.extend_from_slice(bytes);
                let Some(end) = find_head_end(&self.head) else { return Ok(false) };
                let head = &self.head[..end];
                if !head.starts_with(&STATUS_OK) || content_length(head) != Some(body_bytes) {
                    bail!("expected 200 with {body_bytes} bytes, got: {}", String::from_utf8_lossy(head));
                }
                self.head.len() - end
            }
        };
        self.body = Some(have);
        ensure!(have <= body_bytes, "{have} bytes of body instead of {body_bytes}");
        Ok(have == body_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_complete_with_its_last_byte_and_wrong_ones_are_errors() {
        let answer = b"HTTP/1.1 200 OK\r\nServer: x\r\ncontent-LENGTH: 3\r\n\r\nabc";
        let mut reading = Reading::default();
        for (index, byte) in answer.iter().enumerate() {
            assert_eq!(reading.take(&[*byte], 3).unwrap(), index + 1 == answer.len(), "{index}");
        }
        let check = |bytes: &[u8], body| Reading::default().take(bytes, body);
        assert!(check(answer, 3).unwrap());
        assert!(check(answer, 4).is_err());
        assert!(check(b"HTTP/1.1 404 Not Found\r\nContent-Length: 3\r\n\r\nabc", 3).is_err());
        assert!(check(b"HTTP/1.1 200 OK\r\n\r\nabc", 3).is_err());
        assert!(check(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcd", 3).is_err());
    }
}
