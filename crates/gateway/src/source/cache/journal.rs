//! The file format of the kept configuration: a whole configuration, followed by the changes since; pure.
//!
//! A file is a header (format, and a random id) and records. Each record is a length and a sealed line of the watch:
//! encrypted, and authenticated together with the file's id, the record's place and the gateway group. So a bit that
//! flipped, a record from another file, place, group or instance, and a tail that is missing are all noticed, and
//! what stands before them is still a configuration that was once served: the first record is a whole one.

use chacha20poly1305::aead::{Aead as _, KeyInit as _, Payload};
use chacha20poly1305::{Key, XChaCha20Poly1305, XNonce};

/// What every format begins with; the byte after it is the number of the format.
const MAGIC: &[u8; 7] = b"gwconf\0";

/// The format that is written and read.
const FORMAT: u8 = 1;

/// Bytes of a file's id.
pub(super) const ID_BYTES: usize = 16;

/// Bytes of a nonce: long enough to be drawn at random for every record.
pub(super) const NONCE_BYTES: usize = 24;

/// Bytes of the key.
pub(super) const KEY_BYTES: usize = 32;

const HEADER_BYTES: usize = MAGIC.len() + 1 + ID_BYTES;
const LENGTH_BYTES: usize = 4;

/// Why the rest of a file is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Damage {
    #[error("it is no configuration that a gateway has kept")]
    Foreign,
    #[error("it was written by a newer release (format {0}, this one reads {FORMAT})")]
    Newer(u8),
    #[error("it ends in the middle of record {0}")]
    Truncated(u64),
    #[error("record {0} is damaged, or was written with another key or for another gateway group")]
    Record(u64),
    #[error("it holds no record")]
    Empty,
}

/// Seals and opens the records of one instance and group.
pub(super) struct Sealer {
    cipher: XChaCha20Poly1305,
    group: String,
}

/// A record is too long to be written.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a record cannot be sealed: it is longer than the format allows")]
pub(super) struct TooLong;

impl Sealer {
    pub(super) fn new(key: [u8; KEY_BYTES], group: &str) -> Self {
        Self { cipher: XChaCha20Poly1305::new(&Key::from(key)), group: group.to_owned() }
    }

    /// Record number `index` of the file `id`, as it stands in the file.
    pub(super) fn seal(
        &self,
        id: [u8; ID_BYTES],
        index: u64,
        nonce: [u8; NONCE_BYTES],
        line: &[u8],
    ) -> Result<Vec<u8>, TooLong> {
        let associated = self.associated(id, index);
        let payload = Payload { msg: line, aad: &associated };
        let sealed = self.cipher.encrypt(&XNonce::from(nonce), payload).map_err(|_| TooLong)?;
        let length = u32::try_from(NONCE_BYTES + sealed.len()).map_err(|_| TooLong)?;
        let mut record = Vec::with_capacity(LENGTH_BYTES + NONCE_BYTES + sealed.len());
        record.extend_from_slice(&length.to_le_bytes());
        record.extend_from_slice(&nonce);
        record.extend_from_slice(&sealed);
        Ok(record)
    }

    fn open(&self, id: [u8; ID_BYTES], index: u64, sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE_BYTES>()?;
        let associated = self.associated(id, index);
        self.cipher.decrypt(&XNonce::from(*nonce), Payload { msg: sealed, aad: &associated }).ok()
    }

    fn associated(&self, id: [u8; ID_BYTES], index: u64) -> Vec<u8> {
        let mut associated = header(id).to_vec();
        associated.extend_from_slice(&index.to_le_bytes());
        associated.extend_from_slice(self.group.as_bytes());
        associated
    }
}

/// What a file begins with.
pub(super) fn header(id: [u8; ID_BYTES]) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..MAGIC.len()].copy_from_slice(MAGIC);
    header[MAGIC.len()] = FORMAT;
    header[MAGIC.len() + 1..].copy_from_slice(&id);
    header
}

/// Hands every record of a file to `take`, in order, up to the first that cannot be used; says why it stopped early.
pub(super) fn read(bytes: &[u8], sealer: &Sealer, mut take: impl FnMut(Vec<u8>)) -> Result<(), Damage> {
    let (head, mut rest) = bytes.split_first_chunk::<HEADER_BYTES>().ok_or(Damage::Foreign)?;
    let (magic, after) = head.split_at(MAGIC.len());
    let (format, id) = after.split_first().ok_or(Damage::Foreign)?;
    if magic != MAGIC {
        return Err(Damage::Foreign);
    }
    if *format != FORMAT {
        return Err(Damage::Newer(*format));
    }
    let id: [u8; ID_BYTES] = id.try_into().map_err(|_| Damage::Foreign)?;
    let mut index = 0;
    while !rest.is_empty() {
        let (length, after) = rest.split_first_chunk::<LENGTH_BYTES>().ok_or(Damage::Truncated(index))?;
        let length = usize::try_from(u32::from_le_bytes(*length)).map_err(|_| Damage::Record(index))?;
        let sealed = after.get(..length).ok_or(Damage::Truncated(index))?;
        take(sealer.open(id, index, sealed).ok_or(Damage::Record(index))?);
        rest = &after[length..];
        index += 1;
    }
    if index == 0 { Err(Damage::Empty) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: [u8; ID_BYTES] = [7; ID_BYTES];

    fn sealer() -> Sealer {
        Sealer::new([1; KEY_BYTES], "default")
    }

    fn file(lines: &[&str]) -> Vec<u8> {
        let mut bytes = header(ID).to_vec();
        for (index, line) in (0..).zip(lines) {
            let nonce = [u8::try_from(index).unwrap(); NONCE_BYTES];
            bytes.extend(sealer().seal(ID, index, nonce, line.as_bytes()).unwrap());
        }
        bytes
    }

    fn check(bytes: &[u8], sealer: &Sealer) -> (Vec<String>, Result<(), Damage>) {
        let mut lines = Vec::new();
        let outcome = read(bytes, sealer, |line| lines.push(String::from_utf8(line).unwrap()));
        (lines, outcome)
    }

    #[test]
    fn what_is_written_is_read() {
        assert_eq!(
            check(&file(&["whole", "more"]), &sealer()),
            (vec!["whole".into(), "more".into()], Ok(()))
        );
        let secret = file(&["a private key"]);
        assert!(!secret.windows(7).any(|window| window == b"private"), "it is encrypted");
    }

    #[test]
    fn a_file_cut_at_any_length_gives_what_is_whole_before_the_cut() {
        let whole = file(&["one", "two", "three"]);
        let ends: Vec<usize> = [1, 2, 3].iter().map(|n| file(&["one", "two", "three"][..*n]).len()).collect();
        for length in 0..whole.len() {
            let (lines, outcome) = check(&whole[..length], &sealer());
            assert_eq!(lines.len(), ends.iter().filter(|end| **end <= length).count(), "cut at {length}");
            assert_eq!(outcome.is_ok(), ends.contains(&length), "cut at {length}: {outcome:?}");
        }
    }

    #[test]
    fn one_flipped_bit_anywhere_is_noticed_and_nothing_wrong_is_read() {
        let whole = file(&["one", "two"]);
        for index in 0..whole.len() {
            for bit in 0..8 {
                let mut damaged = whole.clone();
                damaged[index] ^= 1 << bit;
                let (lines, outcome) = check(&damaged, &sealer());
                assert!(outcome.is_err(), "byte {index}, bit {bit}");
                assert!(["one", "two"].starts_with(&lines.iter().map(String::as_str).collect::<Vec<_>>()));
            }
        }
    }

    #[test]
    fn records_of_other_keys_groups_places_and_releases_are_refused() {
        let whole = file(&["one"]);
        let refused = |sealer: &Sealer, bytes: &[u8]| check(bytes, sealer).1.unwrap_err();
        assert_eq!(refused(&Sealer::new([2; KEY_BYTES], "default"), &whole), Damage::Record(0));
        assert_eq!(refused(&Sealer::new([1; KEY_BYTES], "other"), &whole), Damage::Record(0));
        let second = sealer().seal(ID, 1, [0; NONCE_BYTES], b"two").unwrap();
        let swapped = [&header(ID)[..], &second].concat();
        assert_eq!(refused(&sealer(), &swapped), Damage::Record(0));
        let mut newer = whole.clone();
        newer[MAGIC.len()] = 9;
        assert_eq!(refused(&sealer(), &newer), Damage::Newer(9));
        assert_eq!(refused(&sealer(), &header(ID)), Damage::Empty);
        assert_eq!(refused(&sealer(), b""), Damage::Foreign);
    }
}
