//! One document kept beside the configuration and sealed with its key: it is written whole or not at all, and read only
//! if it is what this instance wrote for its gateway group.

use std::fs::{File, TryLockError};
use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::sync::Arc;

use super::journal::{self, ID_BYTES, Sealer};
use super::{random, read_ours, sealed, write_new};

/// The file.
pub(crate) struct SealedFile {
    folder: PathBuf,
    name: &'static str,
    sealer: Arc<Sealer>,
    /// Locked by whoever may write; none: nobody else can.
    turn: Option<File>,
    bytes_max: u64,
}

impl SealedFile {
    pub(super) fn new(
        folder: PathBuf,
        name: &'static str,
        sealer: Arc<Sealer>,
        turn: Option<File>,
        bytes_max: u64,
    ) -> Self {
        Self { folder, name, sealer, turn, bytes_max }
    }

    /// What was written last; none: nothing was.
    ///
    /// # Errors
    /// When it cannot be trusted.
    pub(crate) fn read(&self) -> io::Result<Option<Vec<u8>>> {
        let bytes = match read_ours(&self.folder.join(self.name), self.bytes_max) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut document = None;
        journal::read(&bytes, &self.sealer, |record| document = Some(record)).map_err(io::Error::other)?;
        Ok(document)
    }

    /// Puts `document` in the place of what was written before; `false`: it is the turn of another process.
    pub(crate) fn write(&self, document: &[u8]) -> io::Result<bool> {
        match self.turn.as_ref().map(File::try_lock) {
            None | Some(Ok(())) => {}
            Some(Err(TryLockError::WouldBlock)) => return Ok(false),
            Some(Err(TryLockError::Error(error))) => return Err(error),
        }
        let mut id = [0; ID_BYTES];
        random(&mut id)?;
        let record = sealed(&self.sealer, id, 0, document)?;
        let header = journal::header(id);
        if (header.len() + record.len()) as u64 > self.bytes_max {
            return Err(io::Error::other(format!("it is larger than {} bytes", self.bytes_max)));
        }
        let beside = self.folder.join(format!("{}.new", self.name));
        write_new(&beside, &[&header, &record])?;
        std::fs::rename(&beside, self.folder.join(self.name))?;
        File::open(&self.folder)?.sync_all()?;
        Ok(true)
    }
}
