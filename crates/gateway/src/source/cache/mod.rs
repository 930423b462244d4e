//! The last good configuration, kept on the gateway's own disk: what a gateway serves when it starts and no control
//! plane answers.
//!
//! * It is written after it is served, never before: what is kept has worked.
//! * A change costs a change: it is appended to a [`journal`], which is written anew when it has doubled.
//! * There are two generations. One that is damaged is used up to the damage, or else the one before it is; both
//!   are refused, with the reason, if others could have written them.
//! * It holds private keys and credentials, so it is encrypted with a key of the instance, kept beside it. That
//!   protects copies of the file; who can read the directory as this user reads the key as well.
//! * What else is worth keeping has a [`SealedFile`] beside it.
//! * A disk that fails costs the next restart, never the traffic: the gateway goes on from memory and says so.

mod journal;
mod sealed;
mod writer;

use std::fs::{DirBuilder, File, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gatewright_model::digest::Ledger;
use gatewright_model::id::GatewayGroupId;
use gatewright_model::protocol::{MESSAGE_BYTES_MAX, Received};
use gatewright_model::snapshot::Snapshot;
use rustix::fs::OFlags;

use journal::{ID_BYTES, KEY_BYTES, NONCE_BYTES, Sealer};
pub(crate) use sealed::SealedFile;
pub(crate) use writer::Writer;

/// The folder in the data directory that holds the configuration.
const FOLDER: &str = "configuration";

const CURRENT: &str = "current";
const PREVIOUS: &str = "previous";
const BESIDE: &str = "new";
const KEY: &str = "key";

/// Bytes of a file that are read: a whole configuration, and as much again in changes.
const FILE_BYTES_MAX: u64 = 2 * (MESSAGE_BYTES_MAX as u64);

/// Bytes that are appended before a journal is written anew, however small the configuration is.
const APPENDED_BYTES_MIN: u64 = 1 << 20;

/// Where configurations are kept.
pub(crate) struct Cache {
    folder: PathBuf,
    sealer: Arc<Sealer>,
    /// Locked by whoever may write; none: nobody else can.
    turn: Option<File>,
}

/// A kept configuration.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) snapshot: Snapshot,
    pub(crate) ledger: Ledger,
    /// What was wrong with what was found, one sentence each; empty if nothing was.
    pub(crate) complaints: Vec<String>,
}

impl Cache {
    /// Uses the folder in `data_dir`, creating it and a key as needed.
    pub(crate) fn open(data_dir: &Path, group: &GatewayGroupId) -> io::Result<Self> {
        let folder = data_dir.join(FOLDER);
        DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        let metadata = std::fs::symlink_metadata(&folder)?;
        must_be_ours(&metadata, metadata.is_dir(), &folder)?;
        let key = key(&folder)?;
        Ok(Self { folder, sealer: Arc::new(Sealer::new(key, group.as_str())), turn: None })
    }

    /// Writes nothing before it holds the lock `turn`.
    pub(crate) fn in_turn(self, turn: File) -> Self {
        Self { turn: Some(turn), ..self }
    }

    /// The newest configuration that can be trusted; none: there is none, and the complaints say why.
    pub(crate) fn load(&self) -> Result<Kept, Vec<String>> {
        let mut complaints = Vec::new();
        for name in [CURRENT, PREVIOUS] {
            let path = self.folder.join(name);
            let replayed = match read_ours(&path, FILE_BYTES_MAX) {
                Ok(bytes) => self.replay(&bytes, &path, &mut complaints),
                Err(error) if error.kind() == ErrorKind::NotFound => None,
                Err(error) => {
                    complaints.push(format!("{}: {error}", path.display()));
                    None
                }
            };
            if let Some((snapshot, ledger)) = replayed {
                return Ok(Kept { snapshot, ledger, complaints });
            }
        }
        Err(complaints)
    }

    /// What the records of a file lead to.
    fn replay(&self, bytes: &[u8], path: &Path, complaints: &mut Vec<String>) -> Option<(Snapshot, Ledger)> {
        let mut replayed: Option<(Snapshot, Ledger)> = None;
        let mut strange = None;
        let outcome = journal::read(bytes, &self.sealer, |line| {
            // Nothing after a change that is not understood means what it says.
            if strange.is_none() {
                strange = replay_line(&mut replayed, &line).err();
            }
        });
        let damage = outcome.err().map(|damage| damage.to_string()).or(strange);
        if let Some(damage) = damage {
            let used = replayed.as_ref().map_or_else(
                || "it is not used".to_owned(),
                |(snapshot, _)| format!("it is used up to revision {}", snapshot.revision),
            );
            complaints.push(format!("{}: {damage}; {used}", path.display()));
        }
        replayed
    }

    /// A file beside the configuration, for something else that is worth keeping.
    pub(crate) fn beside(&self, name: &'static str, bytes_max: u64) -> io::Result<SealedFile> {
        let turn = self.turn.as_ref().map(File::try_clone).transpose()?;
        Ok(SealedFile::new(self.folder.clone(), name, Arc::clone(&self.sealer), turn, bytes_max))
    }

    /// Writes a whole configuration beside, and puts it in the place of the newest one when it is on disk.
    fn write_whole(&self, line: &[u8]) -> io::Result<Journal> {
        let mut id = [0; ID_BYTES];
        random(&mut id)?;
        let record = sealed(&self.sealer, id, 0, line)?;
        let beside = self.folder.join(BESIDE);
        let file = write_new(&beside, &[&journal::header(id), &record])?;
        let current = self.folder.join(CURRENT);
        match std::fs::rename(&current, self.folder.join(PREVIOUS)) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        // A crash before this leaves only the previous one, which is what is then used.
        std::fs::rename(&beside, &current)?;
        File::open(&self.folder)?.sync_all()?;
        let whole_bytes = record.len() as u64;
        Ok(Journal { file, id, next: 1, whole_bytes, appended_bytes: 0 })
    }

    fn append(&self, journal: &mut Journal, lines: &[bytes::Bytes]) -> io::Result<()> {
        let mut records = Vec::new();
        for line in lines {
            records.extend(sealed(&self.sealer, journal.id, journal.next, line)?);
            journal.next += 1;
        }
        journal.file.write_all(&records)?;
        journal.file.sync_data()?;
        journal.appended_bytes += records.len() as u64;
        Ok(())
    }
}

fn sealed(sealer: &Sealer, id: [u8; ID_BYTES], index: u64, line: &[u8]) -> io::Result<Vec<u8>> {
    let mut nonce = [0; NONCE_BYTES];
    random(&mut nonce)?;
    sealer.seal(id, index, nonce, line).map_err(io::Error::other)
}

/// Writes a file that was not there, for nobody else to read, and waits until it is on disk.
fn write_new(path: &Path, parts: &[&[u8]]) -> io::Result<File> {
    // Left over from an interrupted write; whatever it is, it is not followed.
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    parts.iter().try_for_each(|part| file.write_all(part))?;
    file.sync_all()?;
    Ok(file)
}

/// Applies one record; if it is not understood, what was there before is still there.
fn replay_line(replayed: &mut Option<(Snapshot, Ledger)>, line: &[u8]) -> Result<(), String> {
    let strange = |error: serde_json::Error| format!("a record is not understood: {error}");
    let Received::Update(received) = serde_json::from_slice(line).map_err(strange)? else {
        return Err("a record is no configuration".to_owned());
    };
    if replayed.is_none() && !received.is_full() {
        return Err("the first record is a change to something that is missing".to_owned());
    }
    let mut nothing = Ledger::default();
    let ledger = replayed.as_mut().map_or(&mut nothing, |(_, ledger)| ledger);
    let update = match received.read(ledger) {
        Ok(update) => update,
        Err(error) => {
            // A ledger that differs costs a full update; one that lies would cost more.
            ledger.clear();
            return Err(strange(error));
        }
    };
    match replayed {
        Some((snapshot, _)) => snapshot.absorb(update),
        None => {
            let mut snapshot = Snapshot::default();
            snapshot.absorb(update);
            *replayed = Some((snapshot, nothing));
        }
    }
    Ok(())
}

/// The newest file, open for appending.
struct Journal {
    file: File,
    id: [u8; ID_BYTES],
    next: u64,
    whole_bytes: u64,
    appended_bytes: u64,
}

impl Journal {
    /// Whether writing it anew would make the next start faster.
    fn is_long(&self) -> bool {
        self.appended_bytes > self.whole_bytes.max(APPENDED_BYTES_MIN)
    }
}

fn random(bytes: &mut [u8]) -> io::Result<()> {
    getrandom::fill(bytes).map_err(|error| io::Error::other(format!("no randomness: {error}")))
}

/// The key of the instance, made once.
fn key(folder: &Path) -> io::Result<[u8; KEY_BYTES]> {
    let path = folder.join(KEY);
    let wrong = |reason: String| io::Error::other(format!("{}: {reason}", path.display()));
    match read_ours(&path, KEY_BYTES as u64) {
        Ok(bytes) => {
            bytes.try_into().map_err(|_| wrong("it is no key; remove it together with `current`".to_owned()))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let mut key = [0; KEY_BYTES];
            random(&mut key)?;
            let beside = folder.join("key.new");
            write_new(&beside, &[&key])?;
            std::fs::rename(&beside, &path)?;
            File::open(folder)?.sync_all()?;
            Ok(key)
        }
        Err(error) => Err(wrong(error.to_string())),
    }
}

/// Reads a file that nobody else can have written or read.
fn read_ours(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let no_links = i32::try_from((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits()).unwrap_or_default();
    let file = OpenOptions::new().read(true).custom_flags(no_links).open(path).map_err(|error| {
        match error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) {
            true => io::Error::other("it is a symbolic link, which is not followed"),
            false => error,
        }
    })?;
    let metadata = file.metadata()?;
    must_be_ours(&metadata, metadata.is_file(), path)?;
    if metadata.len() > bytes_max {
        return Err(io::Error::other(format!("it is larger than {bytes_max} bytes")));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or_default());
    file.take(bytes_max).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn must_be_ours(metadata: &Metadata, is_expected_kind: bool, path: &Path) -> io::Result<()> {
    let (owner, us) = (metadata.uid(), rustix::process::geteuid().as_raw());
    if !is_expected_kind {
        return Err(io::Error::other(format!("{} is not what a gateway makes there", path.display())));
    }
    if owner != us {
        return Err(io::Error::other(format!("it belongs to user {owner}, and the gateway runs as {us}")));
    }
    let mode = metadata.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(io::Error::other(format!(
            "others may use it (mode {mode:o}); run `chmod go= {}` if nobody has changed it",
            path.display()
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
