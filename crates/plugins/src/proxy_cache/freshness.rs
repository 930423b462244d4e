//! What `Cache-Control` and its kin say (RFC 9111): whether an answer may be kept, and how long it is fresh.
//!
//! Whatever cannot be understood counts as stale.

use std::time::{Duration, UNIX_EPOCH};

use gatewright_model::message::Fields;

/// Seconds that stand for longer times, as RFC 9111 section 1.2.2 has it.
const SECONDS_MAX: u64 = 1 << 31;

/// The directives of `Cache-Control` that a shared cache goes by.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct CacheControl {
    pub(super) no_store: bool,
    pub(super) no_cache: bool,
    pub(super) private: bool,
    pub(super) public: bool,
    pub(super) must_revalidate: bool,
    pub(super) only_if_cached: bool,
    pub(super) max_age: Option<u64>,
    pub(super) s_maxage: Option<u64>,
    pub(super) min_fresh: Option<u64>,
}

impl CacheControl {
    /// What all `Cache-Control` fields of a message say together.
    pub(super) fn of(fields: &Fields) -> Self {
        let mut said = Self::default();
        for directive in fields.named(b"cache-control").flat_map(directives) {
            let (name, value) = match directive.iter().position(|byte| *byte == b'=') {
                Some(at) => (directive[..at].trim_ascii(), Some(&directive[at + 1..])),
                None => (directive, None),
            };
            match name.to_ascii_lowercase().as_slice() {
                b"no-store" => said.no_store = true,
                // Field names may follow these two; the whole answer is treated as those fields are.
                b"no-cache" => said.no_cache = true,
                b"private" => said.private = true,
                b"public" => said.public = true,
                b"must-revalidate" | b"proxy-revalidate" => said.must_revalidate = true,
                b"only-if-cached" => said.only_if_cached = true,
                b"max-age" => said.max_age = Some(least(said.max_age, value)),
                b"s-maxage" => said.s_maxage = Some(least(said.s_maxage, value)),
                b"min-fresh" => said.min_fresh = value.and_then(seconds),
                _ => {}
            }
        }
        said
    }

    /// Whether a response that says so may be kept for others than whoever asked.
    pub(super) fn may_be_kept(&self) -> bool {
        !(self.no_store || self.no_cache || self.private)
    }

    /// Whether a response that says so may be given to others although its request was authorised (RFC 9111 section
    /// 3.5).
    pub(super) fn is_for_all(&self) -> bool {
        self.public || self.must_revalidate || self.s_maxage.is_some()
    }
}

/// Of two lifetimes the shorter one counts; one that is no number is over.
fn least(known: Option<u64>, value: Option<&[u8]>) -> u64 {
    let said = value.and_then(seconds).unwrap_or(0);
    known.map_or(said, |known| known.min(said))
}

fn seconds(value: &[u8]) -> Option<u64> {
    let text = value.trim_ascii();
    let text = text.strip_prefix(b"\"").and_then(|text| text.strip_suffix(b"\"")).unwrap_or(text);
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(std::str::from_utf8(text).ok()?.parse().unwrap_or(SECONDS_MAX).min(SECONDS_MAX))
}

/// What stands between commas that are in no quoted string.
fn directives(value: &[u8]) -> Vec<&[u8]> {
    let (mut found, mut start, mut quoted, mut escaped) = (Vec::new(), 0, false, false);
    for (at, byte) in value.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b',' if !quoted => {
                found.push(value[start..at].trim_ascii());
                start = at + 1;
            }
            _ => {}
        }
    }
    found.push(value[start..].trim_ascii());
    found
}

/// How long a response is fresh from its origin on, if it says so itself (RFC 9111 section 4.2.1).
pub(super) fn lifetime(fields: &Fields, said: &CacheControl, now: Duration) -> Option<Duration> {
    if let Some(seconds) = said.s_maxage.or(said.max_age) {
        return Some(Duration::from_secs(seconds));
    }
    let expires = fields.named(b"expires").next()?;
    let since = fields.named(b"date").next().and_then(date).unwrap_or(now);
    // What is no date is over.
    Some(date(expires).unwrap_or_default().saturating_sub(since))
}

/// How old a response was when it arrived: what caches on the way said, or what its own clock says (RFC 9111 section
/// 4.2.3).
pub(super) fn age(fields: &Fields, now: Duration) -> Duration {
    let said = fields.named(b"age").next().and_then(seconds).map(Duration::from_secs).unwrap_or_default();
    let apparent = fields.named(b"date").next().and_then(date).map(|date| now.saturating_sub(date));
    said.max(apparent.unwrap_or_default())
}

/// A date of HTTP, since 1970.
pub(super) fn date(text: &[u8]) -> Option<Duration> {
    let date = httpdate::parse_http_date(std::str::from_utf8(text).ok()?).ok()?;
    Some(date.duration_since(UNIX_EPOCH).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(lines: &[(&str, &str)]) -> Fields {
        let mut fields = Fields::default();
        lines.iter().for_each(|(name, value)| fields.append(name, value.as_bytes()));
        fields
    }

    #[test]
    fn directives_are_told_apart_however_they_are_written() {
        let said = |value: &str| CacheControl::of(&fields(&[("Cache-Control", value)]));
        let nothing = CacheControl::default;
        for (value, expected) in [
            ("", nothing()),
            ("no-store", CacheControl { no_store: true, ..nothing() }),
            ("NO-STORE , Private", CacheControl { no_store: true, private: true, ..nothing() }),
            ("private=\"a, max-age=5\"", CacheControl { private: true, ..nothing() }),
            ("ext=\"a\\\"b, no-store\", public", CacheControl { public: true, ..nothing() }),
            ("max-age=60", CacheControl { max_age: Some(60), ..nothing() }),
            ("max-age=\"60\"", CacheControl { max_age: Some(60), ..nothing() }),
            ("max-age=60, max-age=5", CacheControl { max_age: Some(5), ..nothing() }),
            ("max-age=-1", CacheControl { max_age: Some(0), ..nothing() }),
            ("max-age", CacheControl { max_age: Some(0), ..nothing() }),
            ("max-age=99999999999999999999999", CacheControl { max_age: Some(SECONDS_MAX), ..nothing() }),
            (
                "s-maxage=1, proxy-revalidate",
                CacheControl { s_maxage: Some(1), must_revalidate: true, ..nothing() },
            ),
            (
                "only-if-cached, min-fresh=3",
                CacheControl { only_if_cached: true, min_fresh: Some(3), ..nothing() },
            ),
            ("x-no-store, no-storex", nothing()),
        ] {
            assert_eq!(said(value), expected, "{value}");
        }
        let two = fields(&[("cache-control", "public"), ("Cache-Control", "max-age=1")]);
        assert_eq!(
            CacheControl::of(&two),
            CacheControl { public: true, max_age: Some(1), ..CacheControl::default() }
        );
    }

    #[test]
    fn lifetimes_come_from_the_most_exact_statement() {
        let now = date(b"Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        let later = "Sun, 06 Nov 1994 08:50:37 GMT";
        let earlier = "Sun, 06 Nov 1994 08:49:27 GMT";
        for (lines, expected) in [
            (vec![], None),
            (vec![("Cache-Control", "public")], None),
            (vec![("Cache-Control", "max-age=5"), ("Expires", later)], Some(5)),
            (vec![("Cache-Control", "max-age=5, s-maxage=9")], Some(9)),
            (vec![("Expires", later)], Some(60)),
            (vec![("Expires", later), ("Date", earlier)], Some(70)),
            (vec![("Expires", earlier)], Some(0)),
            (vec![("Expires", "0")], Some(0)),
        ] {
            let fields = fields(&lines);
            let found = lifetime(&fields, &CacheControl::of(&fields), now);
            assert_eq!(found, expected.map(Duration::from_secs), "{lines:?}");
        }
        for (lines, expected) in
            [(vec![], 0), (vec![("Age", "7")], 7), (vec![("Age", "7"), ("Date", earlier)], 10)]
        {
            assert_eq!(age(&fields(&lines), now), Duration::from_secs(expected), "{lines:?}");
        }
    }
}
