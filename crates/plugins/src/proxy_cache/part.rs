//! A part of a kept answer, for who asks for one (RFC 9110 sections 13.1.5 and 14).
//!
//! One range of bytes is answered with that part. Several, other units, and what is no range at all are answered with
//! the whole, which is always allowed.

use std::ops::RangeInclusive;

use gatewright_model::message::Fields;

use super::kept::Kept;

/// What a client asks for of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Whole,
    /// The first and the last byte, counted from 0.
    Bytes(RangeInclusive<usize>),
    /// Nothing that there is.
    Outside,
}

/// The range that a client asks for, and the answer it wants a part of, as it wrote them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    range: Option<Vec<u8>>,
    of: Option<Vec<u8>>,
}

impl Wanted {
    pub(super) fn by(fields: &Fields) -> Self {
        let mut ranges = fields.named(b"range");
        let range = ranges.next().filter(|_| ranges.next().is_none()).map(<[u8]>::to_vec);
        Self { range, of: fields.named(b"if-range").next().map(<[u8]>::to_vec) }
    }

    /// What that is of `kept`, whose body has so many bytes.
    pub(super) fn of(&self, kept: &Kept, length: usize) -> Part {
        let is_same = self.of.as_deref().is_none_or(|of| is_the_one(kept, of));
        let range = self.range.as_deref().filter(|_| kept.status == 200 && is_same);
        range.and_then(|range| part(range, length)).unwrap_or(Part::Whole)
    }
}

/// Whether `kept` is what a client has a part of already: by its strong tag, or to the second.
fn is_the_one(kept: &Kept, validator: &[u8]) -> bool {
    match validator.starts_with(b"\"") {
        true => kept.field("ETag") == Some(validator),
        false => kept.field("Last-Modified") == Some(validator),
    }
}

/// `None`: it is not one range of bytes.
fn part(range: &[u8], length: usize) -> Option<Part> {
    let text = std::str::from_utf8(range).ok()?.trim();
    let (unit, range) = text.split_once('=')?;
    let (first, last) = range.split_once('-').filter(|_| unit.eq_ignore_ascii_case("bytes"))?;
    let number = |text: &str| {
        let is_number = !text.is_empty() && text.bytes().all(|digit| digit.is_ascii_digit());
        // What is more than can be counted is beyond every end.
        is_number.then(|| text.parse().unwrap_or(usize::MAX))
    };
    let (first, last) = (first.trim(), last.trim());
    let bytes = match (first.is_empty(), last.is_empty()) {
        (true, true) => return None,
        (true, false) => length.saturating_sub(number(last)?)..=length.saturating_sub(1),
        (false, true) => number(first)?..=length.saturating_sub(1),
        (false, false) => {
            let (first, last) = (number(first)?, number(last)?);
            if last < first {
                return None;
            }
            first..=last.min(length.saturating_sub(1))
        }
    };
    let is_there = *bytes.start() < length && bytes.start() <= bytes.end();
    Some(if is_there { Part::Bytes(bytes) } else { Part::Outside })
}

#[cfg(test)]
mod tests {
    use super::super::kept::tests::kept;
    use super::*;

    #[test]
    fn one_range_of_bytes_is_a_part_and_everything_else_the_whole() {
        for (range, expected) in [
            ("bytes=0-0", Part::Bytes(0..=0)),
            ("bytes=2-5", Part::Bytes(2..=5)),
            ("Bytes= 2 - 5 ", Part::Bytes(2..=5)),
            ("bytes=8-", Part::Bytes(8..=9)),
            ("bytes=8-99", Part::Bytes(8..=9)),
            ("bytes=-3", Part::Bytes(7..=9)),
            ("bytes=-99", Part::Bytes(0..=9)),
            ("bytes=10-", Part::Outside),
            ("bytes=10-12", Part::Outside),
            ("bytes=99999999999999999999-", Part::Outside),
            ("bytes=-0", Part::Outside),
            ("bytes=0-1,3-4", Part::Whole),
            ("bytes=5-2", Part::Whole),
            ("bytes=-", Part::Whole),
            ("bytes=a-b", Part::Whole),
            ("bytes=+1-2", Part::Whole),
            ("lines=0-1", Part::Whole),
            ("0-1", Part::Whole),
        ] {
            let mut fields = Fields::default();
            fields.append("Range", range.as_bytes());
            assert_eq!(Wanted::by(&fields).of(&kept(&[]), 10), expected, "{range}");
        }
        let mut fields = Fields::default();
        fields.append("Range", b"bytes=0-");
        assert_eq!(Wanted::by(&fields).of(&kept(&[]), 0), Part::Outside, "nothing has no part");
        fields.append("Range", b"bytes=1-");
        assert_eq!(Wanted::by(&fields).of(&kept(&[]), 10), Part::Whole);
    }

    #[test]
    fn a_part_is_only_given_of_the_answer_that_the_client_has() {
        let date = "Sun, 06 Nov 1994 08:49:37 GMT";
        for (etag, validator, is_part) in [
            ("\"a\"", "\"a\"", true),
            ("\"a\"", "\"b\"", false),
            ("W/\"a\"", "W/\"a\"", false),
            ("\"a\"", date, true),
            ("\"a\"", "Sun, 06 Nov 1994 08:49:38 GMT", false),
        ] {
            let mut fields = Fields::default();
            fields.append("Range", b"bytes=0-1");
            fields.append("If-Range", validator.as_bytes());
            let part = Wanted::by(&fields).of(&kept(&[("ETag", etag), ("Last-Modified", date)]), 10);
            assert_eq!(part != Part::Whole, is_part, "{etag} {validator}");
        }
    }
}
