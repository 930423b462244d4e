//! What operators do to a store from the command line: back it up, and move it to another database.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use crate::config::StartError;
use crate::store::{self, DatabaseUrl, Store, StoreError};
use crate::store_open;

/// Why a store was not backed up or moved.
#[derive(Debug, thiserror::Error)]
pub enum UpkeepError {
    /// A store cannot be opened.
    #[error(transparent)]
    Open(#[from] StartError),
    /// There is nothing at the source.
    #[error("there is no database file {path}; name the one that `gatewright` uses", path = path.display())]
    NoSource {
        /// The file asked for.
        path: PathBuf,
    },
    /// PostgreSQL has its own tools for this.
    #[error(
        "{database} is backed up by PostgreSQL's own tools: pg_dump --format=custom --file=FILE DATABASE"
    )]
    UsePgDump {
        /// Which database.
        database: String,
    },
    /// The backup cannot be written.
    #[error("cannot write the backup {path} (--to): {reason}", path = path.display())]
    Backup {
        /// The file asked for.
        path: PathBuf,
        /// What went wrong.
        reason: String,
    },
    /// No other epoch has begun.
    #[error("the epoch of {database} was not raised: {reason}")]
    Epoch {
        /// Which database.
        database: String,
        /// What went wrong.
        reason: String,
    },
    /// The store was not moved; both are as they were.
    #[error("the store was not moved from {from} to {to}: {reason}")]
    Move {
        /// The source.
        from: String,
        /// The target.
        to: String,
        /// What went wrong and what to do.
        reason: String,
    },
}

/// Writes one moment of a store to the new file `to`, while a control plane may use the store.
///
/// # Errors
/// When the store is not SQLite, or either file cannot be used.
pub async fn store_backup(database: &DatabaseUrl, to: &Path) -> Result<(), UpkeepError> {
    let Some(path) = database.sqlite_path() else {
        return Err(UpkeepError::UsePgDump { database: database.to_string() });
    };
    must_exist(path)?;
    let failed = |reason: String| UpkeepError::Backup { path: to.to_owned(), reason };
    let name = to.to_str().ok_or_else(|| failed("its name is not UTF-8".to_owned()))?;
    // It holds what the database holds, so only its owner may read it; and it overwrites no earlier backup.
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to);
    let file = file.map_err(|error| failed(error.to_string()))?;
    let written = store::backup(path, name).await.map_err(|error| error.to_string());
    let written = written.and_then(|()| sync(&file, to).map_err(|error| error.to_string()));
    written.map_err(|reason| {
        // Half a backup must not be taken for one.
        let _ = std::fs::remove_file(to);
        failed(reason)
    })
}

/// Moves everything in the store `from` to the database `to`, which must hold nothing, and says how many rows that
/// were. Neither may be in use; `from` stays as it is.
///
/// # Errors
/// When either cannot be opened, or `to` is not empty.
pub async fn store_migrate(from: &DatabaseUrl, to: &DatabaseUrl) -> Result<u64, UpkeepError> {
    if let Some(path) = from.sqlite_path() {
        must_exist(path)?;
    }
    let (source, _source_lock) = store_open(from).await?;
    let (target, _target_lock) = store_open(to).await?;
    let moved = move_all(&source, &target).await;
    source.close().await;
    target.close().await;
    moved.map_err(|reason| UpkeepError::Move { from: from.to_string(), to: to.to_string(), reason })
}

/// Begins another epoch of a store: gateways that are ahead of it, as after a backup was restored, go back to what it
/// says.
///
/// # Errors
/// When the store cannot be opened, or, with SQLite, is in use.
pub async fn store_epoch_raise(database: &DatabaseUrl) -> Result<(), UpkeepError> {
    if let Some(path) = database.sqlite_path() {
        must_exist(path)?;
    }
    let (store, _lock) = store_open(database).await?;
    let raised = async {
        let mut tx = store.write().await?;
        tx.store_epoch_raise().await?;
        tx.commit().await
    };
    let raised = raised.await;
    store.close().await;
    raised.map_err(|error: StoreError| UpkeepError::Epoch {
        database: database.to_string(),
        reason: error.to_string(),
    })
}

async fn move_all(source: &Store, target: &Store) -> Result<u64, String> {
    store::transfer(source, target).await.map_err(|error| error.to_string())
}

fn must_exist(path: &Path) -> Result<(), UpkeepError> {
    if path.is_file() { Ok(()) } else { Err(UpkeepError::NoSource { path: path.to_owned() }) }
}

/// Makes the content and the name durable.
fn sync(file: &File, path: &Path) -> io::Result<()> {
    file.sync_all()?;
    let directory = path.parent().filter(|parent| *parent != Path::new("")).unwrap_or(Path::new("."));
    File::open(directory)?.sync_all()
}
