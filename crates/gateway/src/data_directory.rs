//! The directory in which a gateway keeps its configuration for a start without a control plane: one gateway at a time.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use crate::config::{Settings, StartError};
use crate::source::cache::{Cache, SealedFile};
use crate::upstream::discovered::kept;

/// Held as long as a gateway uses its data directory.
const LOCK_FILE: &str = "gateway.lock";

/// What is kept between two lives of a gateway.
#[derive(Default)]
pub(crate) struct DataDirectory {
    pub(crate) cache: Option<Cache>,
    /// The last good nodes of services.
    pub(crate) nodes: Option<SealedFile>,
    /// Unlocked when it is closed.
    pub(crate) lock: Option<File>,
}

impl DataDirectory {
    /// A directory that cannot be used costs the next restart, not this one; one that another gateway uses is refused,
    /// unless that is the one this takes over from: then it is read, and written once that one has ended.
    pub(crate) fn open(path: &Path, settings: &Settings, takes_over: bool) -> Result<Self, StartError> {
        let opened = DirBuilder::new().recursive(true).mode(0o700).create(path).and_then(|()| {
            let lock = path.join(LOCK_FILE);
            OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(lock)
        });
        let complain = |error: io::Error| {
            tracing::error!(path = %path.display(), %error, "no configuration is kept on disk (--data-dir); a restart without a control plane would have none");
            Self::default()
        };
        let lock = match opened {
            Ok(lock) => lock,
            Err(error) => return Ok(complain(error)),
        };
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) if takes_over => {}
            Err(TryLockError::WouldBlock) => {
                return Err(StartError::DataDirectoryTaken { path: path.to_owned() });
            }
            Err(TryLockError::Error(error)) => return Ok(complain(error)),
        }
        let opened = || -> io::Result<_> {
            let cache = Cache::open(path, &settings.gateway_group_id)?.in_turn(lock.try_clone()?);
            let nodes = cache.beside(kept::FILE, kept::FILE_BYTES_MAX)?;
            Ok((Some(cache), Some(nodes)))
        };
        match opened() {
            Ok((cache, nodes)) => Ok(Self { cache, nodes, lock: Some(lock) }),
            Err(error) => Ok(Self { lock: Some(lock), ..complain(error) }),
        }
    }
}
