//! Finds where a head ends without parsing it, looking at every byte once however the head arrives.

use bytes::{Buf, BytesMut};

use super::Malformed;

/// How far the search has come; start with the default for every head.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Progress {
    searched: usize,
    line_start: usize,
    skipped: bool,
}

/// Takes one line break off the start of `buffer`: a client may end its last body with one too many (RFC 9112
/// section 2.2). Call it before every [`head_end`] of a request.
pub(crate) fn skip_line_break(buffer: &mut BytesMut, progress: &mut Progress) {
    if !progress.skipped && buffer.starts_with(b"\r\n") {
        buffer.advance(2);
        // Its first byte may have been searched already: the line break may arrive in two pieces.
        *progress = Progress { skipped: true, ..Progress::default() };
    }
}

/// Where the head ends (just after its empty line), or `None` if more bytes are needed.
///
/// # Errors
/// [`Malformed::BareLineFeed`]: a line feed without a carriage return ends a line for some readers and not for
/// others.
pub(crate) fn head_end(buffer: &[u8], progress: &mut Progress) -> Result<Option<usize>, Malformed> {
    while let Some(offset) = memchr::memchr(b'\n', &buffer[progress.searched..]) {
        let feed = progress.searched + offset;
        if feed == progress.line_start || buffer[feed - 1] != b'\r' {
            return Err(Malformed::BareLineFeed);
        }
        let line_is_empty = feed - 1 == progress.line_start;
        progress.searched = feed + 1;
        progress.line_start = feed + 1;
        if line_is_empty {
            return Ok(Some(feed + 1));
        }
    }
    progress.searched = buffer.len();
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_ends_after_its_empty_line_however_it_is_cut() {
        let head = b"GET / HTTP/1.1\r\nHost: a\r\n\r\nbody";
        for cut in 0..head.len() {
            let mut progress = Progress::default();
            let first = head_end(&head[..cut], &mut progress).unwrap();
            let expected = (cut >= 27).then_some(27);
            assert_eq!(first, expected, "after {cut} bytes");
            if first.is_none() {
                assert_eq!(head_end(head, &mut progress).unwrap(), Some(27), "cut at {cut}");
            }
        }
    }

    #[test]
    fn one_line_break_before_a_head_is_skipped_however_it_is_cut() {
        let received = b"\r\nGET / HTTP/1.1\r\n\r\n";
        for cut in 0..received.len() {
            let mut progress = Progress::default();
            let mut buffer = BytesMut::from(&received[..cut]);
            skip_line_break(&mut buffer, &mut progress);
            assert_eq!(head_end(&buffer, &mut progress), Ok(None), "after {cut} bytes");
            for byte in &received[cut..] {
                buffer.extend_from_slice(&[*byte]);
                skip_line_break(&mut buffer, &mut progress);
                let end = head_end(&buffer, &mut progress).unwrap();
                assert_eq!(end, (buffer.len() == 18).then_some(18), "cut at {cut}");
            }
        }
        let mut twice = BytesMut::from(&b"\r\n\r\n"[..]);
        let mut progress = Progress::default();
        (0..2).for_each(|_| skip_line_break(&mut twice, &mut progress));
        assert_eq!(head_end(&twice, &mut progress), Ok(Some(2)));
    }

    #[test]
    fn a_line_feed_alone_is_refused() {
        for head in [&b"GET / HTTP/1.1\nHost: a\r\n\r\n"[..], b"GET / HTTP/1.1\r\nHost: a\n\n", b"\n"] {
            assert_eq!(head_end(head, &mut Progress::default()), Err(Malformed::BareLineFeed));
        }
    }
}
