//! Finds where a head ends without parsing it, looking at every byte once however the head arrives.

use super::Malformed;

/// How far the search has come; start with the default for every head.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Progress {
    searched: usize,
    line_start: usize,
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
    fn a_line_feed_alone_is_refused() {
        for head in [&b"GET / HTTP/1.1\nHost: a\r\n\r\n"[..], b"GET / HTTP/1.1\r\nHost: a\n\n", b"\n"] {
            assert_eq!(head_end(head, &mut Progress::default()), Err(Malformed::BareLineFeed));
        }
    }
}
