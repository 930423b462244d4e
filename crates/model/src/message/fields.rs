//! The buffer and the list of fields.
//!
//! Invariants: every span lies within the buffer, the buffer never exceeds `u32` offsets (heads are limited far
//! below that), and a removed field stays in the list, marked, until the next clear, so that indices are stable.

/// A slice of a head's buffer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    start: u32,
    end: u32,
}

impl Span {
    /// The slice `start..end`.
    #[must_use]
    pub fn new(start: usize, end: usize) -> Self {
        #[allow(
            clippy::cast_possible_truncation,
            reason = "heads are limited to far less than 4 GiB when read"
        )]
        let span = Self { start: start as u32, end: end as u32 };
        span
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.start == self.end
    }

    /// Its length in bytes.
    #[must_use]
    pub fn len(self) -> usize {
        (self.end - self.start) as usize
    }

    /// The part of this span at `range`, counted from its start.
    #[must_use]
    pub fn part(self, range: std::ops::Range<usize>) -> Self {
        let at = |offset: usize| (self.start as usize + offset).min(self.end as usize);
        Self::new(at(range.start), at(range.end))
    }

    /// The positions of its bytes in the buffer.
    #[must_use]
    pub fn range(self) -> std::ops::Range<usize> {
        self.start as usize..self.end as usize
    }
}

/// The field names that the gateway itself acts on.
///
/// Classified once when the head is read, so that later decisions compare a byte instead of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs, reason = "each is the field of that name")]
pub enum Known {
    Other,
    Host,
    ContentLength,
    TransferEncoding,
    Connection,
    KeepAlive,
    ProxyConnection,
    ProxyAuthenticate,
    ProxyAuthorization,
    Te,
    Trailer,
    Upgrade,
    Expect,
    Date,
    Server,
    XRealIp,
    XForwardedFor,
    XForwardedProto,
    XForwardedHost,
    XForwardedPort,
    Forwarded,
    XConsumerUsername,
    XConsumerCustomId,
    XCredentialIdentifier,
    GatewrightDebug,
}

impl Known {
    /// Which known field `name` is, whatever its case (RFC 9110 section 5.1).
    #[must_use]
    pub fn of(name: &[u8]) -> Self {
        let candidates: &[(&str, Known)] = match name.len() {
            2 => &[("te", Self::Te)],
            4 => &[("host", Self::Host), ("date", Self::Date)],
            6 => &[("expect", Self::Expect), ("server", Self::Server)],
            7 => &[("upgrade", Self::Upgrade), ("trailer", Self::Trailer)],
            9 => &[("x-real-ip", Self::XRealIp), ("forwarded", Self::Forwarded)],
            10 => &[("connection", Self::Connection), ("keep-alive", Self::KeepAlive)],
            14 => &[("content-length", Self::ContentLength)],
            15 => &[("x-forwarded-for", Self::XForwardedFor)],
            16 => &[
                ("gatewright-debug", Self::GatewrightDebug),
                ("x-forwarded-host", Self::XForwardedHost),
                ("x-forwarded-port", Self::XForwardedPort),
                ("proxy-connection", Self::ProxyConnection),
            ],
            17 => {
                &[("transfer-encoding", Self::TransferEncoding), ("x-forwarded-proto", Self::XForwardedProto)]
            }
            18 => &[("proxy-authenticate", Self::ProxyAuthenticate)],
            19 => &[
                ("proxy-authorization", Self::ProxyAuthorization),
                ("x-consumer-username", Self::XConsumerUsername),
            ],
            20 => &[("x-consumer-custom-id", Self::XConsumerCustomId)],
            23 => &[("x-credential-identifier", Self::XCredentialIdentifier)],
            _ => return Self::Other,
        };
        let found = candidates.iter().find(|(text, _)| text.as_bytes().eq_ignore_ascii_case(name));
        found.map_or(Self::Other, |(_, known)| *known)
    }
}

/// One field line.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Where the name is.
    pub name: Span,
    /// Where the value is, without surrounding blanks.
    pub value: Span,
    /// Which known field it is.
    pub known: Known,
    removed: bool,
}

/// An ordered list of fields over one buffer.
#[derive(Clone, Debug, Default)]
pub struct Fields {
    bytes: Vec<u8>,
    list: Vec<Field>,
}

impl Fields {
    /// Forgets everything and keeps the allocations.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.list.clear();
    }

    /// Starts over with the bytes of a received head; fields are then recorded with [`Fields::record`].
    pub fn load(&mut self, received: &[u8]) {
        self.clear();
        self.bytes.extend_from_slice(received);
    }

    /// Records a field that lies in the buffer.
    pub fn record(&mut self, name: Span, value: Span) {
        let known = Known::of(&self.bytes[name.range()]);
        self.list.push(Field { name, value, known, removed: false });
    }

    /// The bytes of a span.
    #[must_use]
    pub fn bytes(&self, span: Span) -> &[u8] {
        &self.bytes[span.range()]
    }

    /// The buffer that all spans are spans of, with whatever lies between them.
    #[must_use]
    pub fn all_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Appends text that belongs to no field yet and says where it is.
    pub fn intern(&mut self, text: &[u8]) -> Span {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(text);
        Span::new(start, self.bytes.len())
    }

    /// Appends a copy of `span`, changed in place by `change`, and says where it is.
    pub fn intern_changed(&mut self, span: Span, change: impl FnOnce(&mut [u8])) -> Span {
        let start = self.bytes.len();
        self.bytes.extend_from_within(span.range());
        change(&mut self.bytes[start..]);
        Span::new(start, self.bytes.len())
    }

    /// Adds a field at the end.
    pub fn append(&mut self, name: &str, value: &[u8]) {
        let name = self.intern(name.as_bytes());
        let value = self.intern(value);
        self.record(name, value);
    }

    /// Removes every field of that known name.
    pub fn remove_known(&mut self, known: Known) {
        for field in self.list.iter_mut().filter(|field| field.known == known) {
            field.removed = true;
        }
    }

    /// Removes every field of that name.
    pub fn remove(&mut self, name: &[u8]) {
        let Self { bytes, list } = self;
        for field in list.iter_mut().filter(|field| bytes[field.name.range()].eq_ignore_ascii_case(name)) {
            field.removed = true;
        }
    }

    /// Removes every field for which `condemned` says so.
    pub fn remove_if(&mut self, mut condemned: impl FnMut(&Field, &[u8]) -> bool) {
        let Self { bytes, list } = self;
        for field in list.iter_mut().filter(|field| !field.removed) {
            field.removed = condemned(field, &bytes[field.name.range()]);
        }
    }

    /// Makes `name` have exactly this one value.
    pub fn set(&mut self, name: &str, value: &[u8]) {
        self.remove(name.as_bytes());
        self.append(name, value);
    }

    /// The fields that are still there, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Field> {
        self.list.iter().filter(|field| !field.removed)
    }

    /// The values of a known field, in order.
    pub fn known(&self, known: Known) -> impl Iterator<Item = &[u8]> {
        self.iter().filter(move |field| field.known == known).map(|field| self.bytes(field.value))
    }

    /// The values of a field, in order.
    pub fn named<'a>(&'a self, name: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
        let same = move |field: &&Field| self.bytes(field.name).eq_ignore_ascii_case(name);
        self.iter().filter(same).map(|field| self.bytes(field.value))
    }

    /// Writes every field as `Name: value` lines, without the empty line that ends a head.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        for field in self.iter() {
            out.extend_from_slice(self.bytes(field.name));
            out.extend_from_slice(b": ");
            out.extend_from_slice(self.bytes(field.value));
            out.extend_from_slice(b"\r\n");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(fields: &Fields) -> String {
        let mut out = Vec::new();
        fields.write_to(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn order_spelling_and_repetition_survive_edits() {
        let mut fields = Fields::default();
        fields.load(b"");
        for (name, value) in [("Accept", "a"), ("X-One", "1"), ("accept", "b"), ("Host", "h")] {
            fields.append(name, value.as_bytes());
        }
        fields.set("x-one", b"2");
        fields.remove_known(Known::Host);
        assert_eq!(written(&fields), "Accept: a\r\naccept: b\r\nx-one: 2\r\n");
        assert_eq!(fields.named(b"ACCEPT").collect::<Vec<_>>(), [b"a", b"b"]);
    }

    #[test]
    fn known_names_are_recognised_in_any_case() {
        assert_eq!(Known::of(b"Content-Length"), Known::ContentLength);
        assert_eq!(Known::of(b"TRANSFER-ENCODING"), Known::TransferEncoding);
        assert_eq!(Known::of(b"x-forwarded-Host"), Known::XForwardedHost);
        assert_eq!(Known::of(b"Gatewright-Debug"), Known::GatewrightDebug);
        assert_eq!(Known::of(b"content-lengthy"), Known::Other);
    }
}
