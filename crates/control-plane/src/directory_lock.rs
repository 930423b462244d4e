//! Keeps a second control plane out of the directory of a SQLite database.
//!
//! The lock is given back by saying so, not by closing the file: a process that is being started at that moment holds
//! a copy of the open file for an instant, and the lock would last as long as the copy.

use std::fs::{File, TryLockError};
use std::io;
use std::path::Path;

use crate::config::StartError;
use crate::first_start;

/// Held as long as a control plane uses the directory.
const LOCK_FILE: &str = "lock";

/// The directory is ours until this is dropped.
#[derive(Debug)]
pub(crate) struct DirectoryLock(File);

impl DirectoryLock {
    /// Creates the directory if needed and keeps every other control plane out of it.
    ///
    /// # Errors
    /// When another one is in it, or it cannot be used.
    pub(crate) fn take(directory: &Path) -> Result<Self, StartError> {
        let failed = |source| StartError::DataDirectory { path: directory.to_owned(), source };
        first_start::directory_create(directory).map_err(failed)?;
        let file = first_start::file_open_private(&directory.join(LOCK_FILE)).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(TryLockError::WouldBlock) => Err(failed(io::Error::new(
                io::ErrorKind::ResourceBusy,
                "another control plane is using it; stop that process or choose another directory",
            ))),
            Err(TryLockError::Error(source)) => Err(failed(source)),
        }
    }
}

impl Drop for DirectoryLock {
    fn drop(&mut self) {
        // If this fails, closing the file does it.
        let _ = self.0.unlock();
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    #[test]
    fn a_directory_is_free_again_although_a_copy_of_the_open_file_is_left() {
        let directory = TempDir::new().unwrap();
        let lock = DirectoryLock::take(directory.path()).unwrap();
        let refused = DirectoryLock::take(directory.path()).unwrap_err().to_string();
        assert!(refused.contains("another control plane is using it"), "{refused}");
        let copy = lock.0.try_clone().unwrap();
        drop(lock);
        DirectoryLock::take(directory.path()).unwrap();
        drop(copy);
    }
}
