//! The request target: split, normalised, and written again for the next hop.
//!
//! What is matched is what is forwarded: the path is decoded once, its empty and dot segments are resolved, and
//! [`encode_path`] writes it so that reading it again gives the same path. A target that could be read in two ways
//! is an error, never a guess.
//! A path that is normal already is borrowed, so that the ordinary request copies nothing.

use std::borrow::Cow;
use std::ops::Range;

/// A request target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target<'a> {
    /// Where host and port stand, if the target is in absolute form; they take the place of the `Host` header.
    pub authority: Option<Range<usize>>,
    /// Where the path stands as it was sent. Empty: the target has none, and the path is `/`.
    pub raw_path: Range<usize>,
    /// The normalised path; borrowed if it was sent like this.
    pub path: Cow<'a, [u8]>,
    /// Where the query stands, without `?` and fragment, if there is one.
    pub query: Option<Range<usize>>,
}

/// Why a request target is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// `*`, which only `OPTIONS` may ask for.
    #[error("the target `*` is for OPTIONS only")]
    Asterisk,
    /// Neither a path nor an absolute URI.
    #[error("the target is neither a path nor an absolute URI")]
    Form,
    /// The authority of an absolute URI is not `host` or `host:port`.
    #[error("the authority of the target is not a host with an optional port")]
    Authority,
    /// A byte that no target contains: a control character or a space.
    #[error("the target contains a space or a control character")]
    Byte,
    /// A `%` without two hexadecimal digits.
    #[error("the target contains a `%` that is not followed by two hexadecimal digits")]
    Escape,
    /// An encoded NUL.
    #[error("the target contains an encoded NUL")]
    Nul,
    /// More `..` than segments.
    #[error("the path of the target leaves the root")]
    AboveRoot,
}

/// Splits and normalises the request target `raw`.
///
/// # Errors
/// When the target is not one or means two things; the request deserves a 400.
pub fn parse_target(raw: &[u8]) -> Result<Target<'_>, TargetError> {
    if raw.iter().any(|byte| *byte <= b' ' || *byte == 0x7f) {
        return Err(TargetError::Byte);
    }
    let (authority, path_start) = match raw {
        [b'/', ..] => (None, 0),
        b"*" => return Err(TargetError::Asterisk),
        _ => {
            let authority = authority(raw)?;
            let end = authority.end;
            (Some(authority), end)
        }
    };
    // A fragment is for the client; it is cut off wherever it starts.
    let end = position(raw, path_start, b"#").unwrap_or(raw.len());
    let path_end = position(&raw[..end], path_start, b"?").unwrap_or(end);
    let query = (path_end < end).then(|| path_end + 1..end);
    let raw_path = path_start..path_end;
    let path = match &raw[raw_path.clone()] {
        b"" => Cow::Borrowed(&b"/"[..]),
        path if is_normal(path) => Cow::Borrowed(path),
        path => Cow::Owned(normalise(path)?),
    };
    Ok(Target { authority, raw_path, path, query })
}

fn position(raw: &[u8], from: usize, any_of: &[u8]) -> Option<usize> {
    raw[from..].iter().position(|byte| any_of.contains(byte)).map(|at| from + at)
}

/// Where the authority of an absolute URI stands.
fn authority(raw: &[u8]) -> Result<Range<usize>, TargetError> {
    let scheme_end = raw.windows(3).position(|three| three == b"://").ok_or(TargetError::Form)?;
    let scheme = &raw[..scheme_end];
    if !scheme.eq_ignore_ascii_case(b"http") && !scheme.eq_ignore_ascii_case(b"https") {
        return Err(TargetError::Form);
    }
    let start = scheme_end + 3;
    let end = position(raw, start, b"/?#").unwrap_or(raw.len());
    if is_authority(&raw[start..end]) { Ok(start..end) } else { Err(TargetError::Authority) }
}

/// Whether `text` is a host with an optional port: a name, an IPv4 address or an IPv6 address in brackets.
///
/// User names and passwords are refused: they hide where a request goes.
#[must_use]
pub fn is_authority(text: &[u8]) -> bool {
    let (host_is_right, port) = match text {
        [b'[', rest @ ..] => {
            let end = rest.iter().position(|byte| *byte == b']').unwrap_or(0);
            let address = std::str::from_utf8(&rest[..end]).unwrap_or_default();
            (address.parse::<std::net::Ipv6Addr>().is_ok(), &rest[(end + 1).min(rest.len())..])
        }
        _ => {
            let end = text.iter().position(|byte| *byte == b':').unwrap_or(text.len());
            let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
            (end > 0 && text[..end].iter().all(allowed), &text[end..])
        }
    };
    let port_is_right = match port {
        [] => true,
        [b':', digits @ ..] => digits.len() <= 5 && digits.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    host_is_right && port_is_right
}

/// Whether normalising `path` would change nothing. May say no to odd paths that are normal; never yes to others.
fn is_normal(path: &[u8]) -> bool {
    if path.first() != Some(&b'/') || path.contains(&b'%') {
        return false;
    }
    // Segments that start with a dot are left to the thorough way.
    !path.windows(2).any(|pair| pair[0] == b'/' && matches!(pair[1], b'/' | b'.'))
}

/// Decodes `path` and resolves its empty and dot segments. Decoded slashes separate segments like written ones.
fn normalise(path: &[u8]) -> Result<Vec<u8>, TargetError> {
    let mut normal = Vec::with_capacity(path.len() + 1);
    let mut bytes = path.iter();
    while let Some(byte) = bytes.next() {
        let decoded = match byte {
            b'%' => decode(bytes.next(), bytes.next())?,
            byte => *byte,
        };
        if decoded == b'/' {
            end_segment(&mut normal)?;
            if normal.last() != Some(&b'/') {
                normal.push(b'/');
            }
        } else {
            normal.push(decoded);
        }
    }
    end_segment(&mut normal)?;
    Ok(normal)
}

fn decode(high: Option<&u8>, low: Option<&u8>) -> Result<u8, TargetError> {
    let digit =
        |byte: Option<&u8>| byte.and_then(|byte| (*byte as char).to_digit(16)).ok_or(TargetError::Escape);
    match u8::try_from(digit(high)? * 16 + digit(low)?) {
        Ok(0) => Err(TargetError::Nul),
        Ok(byte) => Ok(byte),
        Err(_) => Err(TargetError::Escape),
    }
}

/// Resolves the last segment if it is a dot segment; what remains then ends in a slash.
fn end_segment(normal: &mut Vec<u8>) -> Result<(), TargetError> {
    if normal.ends_with(b"/..") {
        normal.truncate(normal.len() - 3);
        let parent = normal.iter().rposition(|byte| *byte == b'/').ok_or(TargetError::AboveRoot)?;
        normal.truncate(parent + 1);
    } else if normal.ends_with(b"/.") {
        normal.pop();
    }
    Ok(())
}

/// Appends the normalised `path` so that [`parse_target`] reads the same path from it.
pub fn encode_path(path: &[u8], to: &mut Vec<u8>) {
    const HEXADECIMAL: &[u8; 16] = b"0123456789ABCDEF";
    to.reserve(path.len());
    for byte in path {
        if may_stand_in_path(*byte) {
            to.push(*byte);
        } else {
            let digits = [HEXADECIMAL[usize::from(byte >> 4)], HEXADECIMAL[usize::from(byte & 15)]];
            to.push(b'%');
            to.extend_from_slice(&digits);
        }
    }
}

/// RFC 3986: a path consists of these bytes and of escapes.
fn may_stand_in_path(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"/-._~!$&'()*+,;=:@".contains(&byte)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// `authority path?query` of a target, or its error.
    fn check(raw: &str) -> String {
        let bytes = raw.as_bytes();
        match parse_target(bytes) {
            Err(error) => format!("{error:?}"),
            Ok(target) => {
                let text = |range: &Range<usize>| String::from_utf8_lossy(&bytes[range.clone()]).into_owned();
                let authority = target.authority.as_ref().map_or(String::new(), |range| text(range) + " ");
                let query = target.query.as_ref().map_or(String::new(), |range| format!("?{}", text(range)));
                format!("{authority}{}{query}", String::from_utf8_lossy(&target.path))
            }
        }
    }

    #[test]
    fn paths_are_decoded_once_and_resolved() {
        for (raw, expected) in [
            ("/", "/"),
            ("/a/b", "/a/b"),
            ("/A/b", "/A/b"),
            ("//a//b//", "/a/b/"),
            ("/a/./b/.", "/a/b/"),
            ("/a/b/..", "/a/"),
            ("/a/b/../c", "/a/c"),
            ("/a//../b", "/b"),
            ("/a/..", "/"),
            ("/.a/..b/...", "/.a/..b/..."),
            ("/a%2fb%2F%2Fc", "/a/b/c"),
            ("/a/%2e%2e/b", "/b"),
            ("/a/.%2E/b", "/b"),
            ("/a%2e%2e/b", "/a../b"),
            ("/%252e%252e/a", "/%2e%2e/a"),
            ("/a%20%3F%23+", "/a ?#+"),
            ("/a\\b\"", "/a\\b\""),
            ("/ö", "/ö"),
            ("/%C3%B6", "/ö"),
        ] {
            assert_eq!(check(raw), expected, "{raw}");
        }
    }

    #[test]
    fn query_and_fragment_are_cut_off() {
        for (raw, expected) in [
            ("/a?b?c", "/a?b?c"),
            ("/a?", "/a?"),
            ("/a?x#f?y", "/a?x"),
            ("/a#f", "/a"),
            ("/a?x=%zz", "/a?x=%zz"),
            ("/a%3Fb?c", "/a?b?c"),
        ] {
            assert_eq!(check(raw), expected, "{raw}");
        }
    }

    #[test]
    fn an_absolute_target_names_its_authority() {
        for (raw, expected) in [
            ("http://other.example/x/../y?z=1", "other.example /y?z=1"),
            ("HTTPS://other.example:81", "other.example:81 /"),
            ("http://o.example?q", "o.example /?q"),
            ("http://o.example#f", "o.example /"),
            ("http://[::1]:80/", "[::1]:80 /"),
            ("http:///x", "Authority"),
            ("http://u:p@o.example/", "Authority"),
            ("http://o.example:port/", "Authority"),
            ("http://[::1/", "Authority"),
            ("http://[]/", "Authority"),
            ("ftp://o.example/", "Form"),
            ("o.example:443", "Form"),
            ("a/b", "Form"),
            ("", "Form"),
        ] {
            assert_eq!(check(raw), expected, "{raw}");
        }
    }

    #[test]
    fn what_means_two_things_is_refused() {
        for (raw, expected) in [
            ("*", "Asterisk"),
            ("/..", "AboveRoot"),
            ("/a/../../b", "AboveRoot"),
            ("/%2e%2e", "AboveRoot"),
            ("/a/..%2f..%2f", "AboveRoot"),
            ("/a%00b", "Nul"),
            ("/a%", "Escape"),
            ("/a%4", "Escape"),
            ("/a%zz", "Escape"),
            ("/a%+1", "Escape"),
            ("/a b", "Byte"),
            ("/a\0b", "Byte"),
            ("/a\tb", "Byte"),
            ("/a\x7f", "Byte"),
        ] {
            assert_eq!(check(raw), expected, "{raw}");
        }
    }

    #[test]
    fn a_normal_path_is_borrowed() {
        for (raw, borrowed) in [("/a/b.c/d?x", true), ("http://h", true), ("/a//b", false), ("/a/%41", false)]
        {
            let target = parse_target(raw.as_bytes()).expect("a target");
            assert_eq!(matches!(target.path, Cow::Borrowed(_)), borrowed, "{raw}");
        }
    }

    #[test]
    fn a_path_is_written_with_everything_escaped_that_would_be_read_differently() {
        let mut written = Vec::new();
        encode_path("/a b%2F?#\"ö;=:@!\x01".as_bytes(), &mut written);
        assert_eq!(String::from_utf8(written).unwrap(), "/a%20b%252F%3F%23%22%C3%B6;=:@!%01");
    }

    proptest! {
        #[test]
        fn normalising_again_after_writing_changes_nothing(
            raw in "/((\\.{1,3}|%2e|%2F|%25|%C3|[a-c%/?#. ]|/){0,12})",
        ) {
            if let Ok(target) = parse_target(raw.as_bytes()) {
                let mut written = Vec::new();
                encode_path(&target.path, &mut written);
                let again = parse_target(&written).expect("what was written is a target");
                prop_assert_eq!(&again.path, &target.path);
                prop_assert_eq!(again.query, None);
            }
        }

        #[test]
        fn a_borrowed_path_is_what_the_thorough_way_gives(raw in "/[a-c./%2]{0,12}") {
            if let Ok(target) = parse_target(raw.as_bytes())
                && matches!(target.path, Cow::Borrowed(_))
            {
                prop_assert_eq!(normalise(raw.as_bytes()), Ok(raw.into_bytes()));
            }
        }

        #[test]
        fn no_bytes_make_it_panic(raw in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = parse_target(&raw);
            let _ = is_authority(&raw);
        }
    }
}
