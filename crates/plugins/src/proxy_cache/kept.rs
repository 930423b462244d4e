//! An answer as it is kept: its head, what it answers, how long it is fresh, and how it lies on disk.

use std::time::Duration;

use bytes::Bytes;
use flate2::Crc;
use gatewright_model::message::Fields;
use serde::{Deserialize, Serialize};

use super::freshness::date;
use super::part::{Part, Wanted};
use super::zone::Key;
use crate::exchange::Answer;

/// What a record on disk begins with.
const MAGIC: &[u8] = b"GWCACHE1";

/// Bytes of a checksum, and of a length.
const WORD: usize = 4;

/// What a request asks for beside its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Which {
    Get,
    Head,
    /// With a body of this digest.
    Post([u8; 32]),
}

/// A request, as far as it decides which kept answer it gets.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) which: Which,
    pub(super) fields: &'a Fields,
    /// Whether what is answered may be for whoever asks alone.
    pub(super) is_authorised: bool,
}

/// The head of a kept answer, and what is known of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Kept {
    pub(super) status: u16,
    pub(super) which: Which,
    /// The fields, without those that belong to one message alone.
    pub(super) fields: Vec<(String, Value)>,
    /// The fields of the request that it was chosen by, with their values.
    pub(super) vary: Vec<(String, Value)>,
    /// Whether it may be given to whoever is authorised, too: it says so itself.
    pub(super) is_for_all: bool,
    /// When it was kept, since 1970.
    pub(super) kept_at: Duration,
    /// How old it was then.
    pub(super) age: Duration,
    /// How long it is fresh from then on.
    pub(super) fresh_for: Duration,
}

/// The value of a field, which need not be text; each byte is kept as the character of that number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub(super) struct Value(pub(super) Vec<u8>);

impl From<Value> for String {
    fn from(value: Value) -> Self {
        value.0.into_iter().map(char::from).collect()
    }
}

impl TryFrom<String> for Value {
    type Error = std::char::TryFromCharError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.chars().map(u8::try_from).collect::<Result<_, _>>().map(Self)
    }
}

impl Kept {
    /// Whether this answers what is asked, fresh or not.
    pub(super) fn answers(&self, asked: Asked<'_>) -> bool {
        let which = self.which == asked.which || (self.which, asked.which) == (Which::Get, Which::Head);
        which
            && (self.is_for_all || !asked.is_authorised)
            && self.vary.iter().all(|(name, value)| joined(asked.fields, name) == value.0)
    }

    /// Whether this takes the place of `other`: nobody would get that one any more.
    pub(super) fn supersedes(&self, other: &Self) -> bool {
        self.which == other.which && self.vary == other.vary
    }

    /// How long ago it was kept.
    pub(super) fn elapsed(&self, now: Duration) -> Duration {
        now.saturating_sub(self.kept_at)
    }

    /// How old it is.
    pub(super) fn age(&self, now: Duration) -> Duration {
        self.age + self.elapsed(now)
    }

    /// How long it is still fresh; zero: it is not.
    pub(super) fn remaining(&self, now: Duration) -> Duration {
        self.fresh_for.saturating_sub(self.elapsed(now))
    }

    /// The first value of a field.
    pub(super) fn field(&self, name: &str) -> Option<&[u8]> {
        let named = self.fields.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        named.map(|(_, value)| value.0.as_slice())
    }

    /// Whether the upstream can be asked if this is still right.
    pub(super) fn has_validator(&self) -> bool {
        self.field("ETag").is_some() || self.field("Last-Modified").is_some()
    }

    /// Whether a client with these conditions has it already (RFC 9110 section 13.2.2).
    pub(super) fn is_known_to(&self, conditions: &Conditions) -> bool {
        if self.status != 200 {
            return false;
        }
        if !conditions.none_match.is_empty() {
            let strip = |tag: &[u8]| tag.strip_prefix(b"W/").unwrap_or(tag).to_vec();
            let own = self.field("ETag").map(strip);
            let listed = conditions.none_match.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
            return listed.into_iter().any(|tag| tag == b"*" || Some(strip(tag)) == own);
        }
        let since = conditions.modified_since.as_deref().and_then(date);
        let modified = self.field("Last-Modified").and_then(date);
        matches!((since, modified), (Some(since), Some(modified)) if modified <= since)
    }

    /// The answer to a client with these conditions, where `body` is all there is.
    pub(super) fn answer(&self, body: &Bytes, conditions: &Conditions, age: u64) -> Answer {
        let is_known = self.is_known_to(conditions);
        let part = if is_known { Part::Whole } else { conditions.wanted.of(self, body.len()) };
        let mut answer = Answer::new(match part {
            _ if is_known => 304,
            Part::Whole => self.status,
            Part::Bytes(_) => 206,
            Part::Outside => 416,
        });
        let has_none = is_known || part == Part::Outside;
        for (name, value) in &self.fields {
            if !has_none || !name.to_ascii_lowercase().starts_with("content-") {
                answer = answer.field(name.clone(), value.0.clone());
            }
        }
        let (answer, length) = (answer.field("Age", age.to_string()), body.len());
        match part {
            _ if is_known => answer,
            Part::Whole => answer.body(body.clone()),
            Part::Bytes(bytes) => {
                let (first, last) = (*bytes.start(), *bytes.end());
                let answer = answer.field("Content-Range", format!("bytes {first}-{last}/{length}"));
                answer.body(body.slice(bytes))
            }
            Part::Outside => answer.field("Content-Range", format!("bytes */{length}")),
        }
    }

    /// Bytes that it takes in memory, roughly, without a body.
    pub(super) fn bytes(&self) -> usize {
        let texts = self.fields.iter().chain(&self.vary);
        let texts: usize = texts.map(|(name, value)| name.len() + value.0.len() + 48).sum();
        texts + 256
    }
}

/// Under which conditions a client wants an answer, and what of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Conditions {
    none_match: Vec<u8>,
    modified_since: Option<Vec<u8>>,
    wanted: Wanted,
}

impl Conditions {
    pub(super) fn of(fields: &Fields) -> Self {
        Self {
            none_match: joined(fields, "If-None-Match"),
            modified_since: fields.named(b"if-modified-since").next().map(<[u8]>::to_vec),
            wanted: Wanted::by(fields),
        }
    }
}

/// All values of a field as one.
pub(super) fn joined(fields: &Fields, name: &str) -> Vec<u8> {
    fields.named(name.as_bytes()).map(<[u8]>::trim_ascii).collect::<Vec<_>>().join(&b", "[..])
}

/// Head and body as they lie on disk, and under which key they are found.
#[derive(Debug, PartialEq)]
pub(super) struct Record {
    pub(super) key: Key,
    pub(super) kept: Kept,
    pub(super) body: Bytes,
}

impl Record {
    /// The bytes on disk: a mark, key and head with their length, the body, and a checksum of all that.
    pub(super) fn encode(&self) -> Bytes {
        // A head of text and numbers always is JSON.
        let head = serde_json::to_vec(&(&self.key, &self.kept)).unwrap_or_default();
        let length = u32::try_from(head.len()).unwrap_or(u32::MAX);
        let mut bytes = Vec::with_capacity(MAGIC.len() + 2 * WORD + head.len() + self.body.len());
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(&head);
        bytes.extend_from_slice(&self.body);
        let sum = checksum(&bytes);
        bytes.extend_from_slice(&sum);
        bytes.into()
    }

    /// What was encoded; `None`: it is damaged, or something else.
    pub(super) fn decode(bytes: &Bytes) -> Option<Self> {
        let end = bytes.len().checked_sub(WORD)?;
        if bytes[end..] != checksum(&bytes[..end]) {
            return None;
        }
        let rest = bytes[..end].strip_prefix(MAGIC)?;
        let length = u32::from_le_bytes(*rest.first_chunk()?);
        let start = MAGIC.len() + WORD;
        let middle = start.checked_add(usize::try_from(length).ok()?).filter(|middle| *middle <= end)?;
        let (key, kept) = serde_json::from_slice(&bytes[start..middle]).ok()?;
        Some(Self { key, kept, body: bytes.slice(middle..end) })
    }
}

fn checksum(bytes: &[u8]) -> [u8; WORD] {
    let mut crc = Crc::new();
    crc.update(bytes);
    crc.sum().to_le_bytes()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn kept(fields: &[(&str, &str)]) -> Kept {
        let value = |value: &str| Value(value.as_bytes().to_vec());
        Kept {
            status: 200,
            which: Which::Get,
            fields: fields.iter().map(|(name, text)| ((*name).to_owned(), value(text))).collect(),
            vary: vec![("Accept".to_owned(), value("text/html"))],
            is_for_all: false,
            kept_at: Duration::from_secs(1000),
            age: Duration::from_secs(3),
            fresh_for: Duration::from_secs(60),
        }
    }

    #[test]
    fn what_lies_on_disk_is_read_back_or_refused() {
        let mut odd = kept(&[("ETag", "\"a\"")]);
        odd.fields.push(("X-Odd".to_owned(), Value(vec![0xff, b' ', 0x80])));
        let record = Record { key: Key([7; 32]), kept: odd, body: Bytes::from_static(b"hello") };
        let bytes = record.encode();
        assert_eq!(Record::decode(&bytes).as_ref(), Some(&record));
        for at in 0..bytes.len() {
            let mut damaged = bytes.to_vec();
            damaged[at] ^= 1;
            assert_eq!(Record::decode(&damaged.into()), None, "byte {at}");
            assert_eq!(Record::decode(&bytes.slice(..at)), None, "cut at {at}");
        }
        let mut other = b"GWCACHE2".to_vec();
        other.extend_from_slice(&checksum(b"GWCACHE2"));
        assert_eq!(Record::decode(&other.into()), None);
    }

    #[test]
    fn what_a_client_has_is_not_sent_again() {
        let answer = kept(&[("ETag", "W/\"a\""), ("Last-Modified", "Sun, 06 Nov 1994 08:49:37 GMT")]);
        for (name, value, expected) in [
            ("If-None-Match", "\"a\"", true),
            ("If-None-Match", "W/\"a\"", true),
            ("If-None-Match", "\"x\", W/\"a\"", true),
            ("If-None-Match", "*", true),
            ("If-None-Match", "\"x\"", false),
            ("If-Modified-Since", "Sun, 06 Nov 1994 08:49:37 GMT", true),
            ("If-Modified-Since", "Sun, 06 Nov 1994 08:49:36 GMT", false),
            ("If-Modified-Since", "yesterday", false),
            ("Accept", "*/*", false),
        ] {
            let mut fields = Fields::default();
            fields.append(name, value.as_bytes());
            assert_eq!(answer.is_known_to(&Conditions::of(&fields)), expected, "{name}: {value}");
        }
        let missing = Kept { status: 404, ..answer };
        let mut fields = Fields::default();
        fields.append("If-None-Match", b"*");
        assert!(!missing.is_known_to(&Conditions::of(&fields)));
    }

    #[test]
    fn an_answer_is_for_those_who_ask_the_same() {
        let answer = kept(&[]);
        let mut fields = Fields::default();
        fields.append("accept", b"text/html");
        let asked = |which, is_authorised| Asked { which, fields: &fields, is_authorised };
        assert!(answer.answers(asked(Which::Get, false)));
        assert!(answer.answers(asked(Which::Head, false)), "what GET gets answers HEAD");
        assert!(!answer.answers(asked(Which::Post([0; 32]), false)));
        assert!(!answer.answers(asked(Which::Get, true)));
        assert!(Kept { is_for_all: true, ..answer.clone() }.answers(asked(Which::Get, true)));
        let head = Kept { which: Which::Head, ..answer.clone() };
        assert!(!head.answers(asked(Which::Get, false)), "what HEAD gets has no body");
        let other = Fields::default();
        assert!(!answer.answers(Asked { which: Which::Get, fields: &other, is_authorised: false }));
    }
}
