//! SQLite: one file, one process.
//!
//! One writer connection, taken by `BEGIN IMMEDIATE`, is the queue of changes; a few reader connections never wait
//! for it (WAL). `synchronous=FULL` makes a commit durable before it is answered.

use std::path::Path;
use std::time::Duration;

use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{ConnectOptions as _, Connection as _, SqliteConnection};

use super::StoreError;

/// Connections that read at the same time; more only compete for the same two or four cores.
const READERS_MAX: u32 = 4;

/// How long a call waits for a connection, or for another process that holds the file, before it answers 503.
const WAIT_MAX: Duration = Duration::from_secs(10);

/// A SQLite database.
#[derive(Clone)]
pub(super) struct Sqlite {
    writer: SqlitePool,
    readers: SqlitePool,
}

/// A transaction on it.
type Transaction = sqlx::Transaction<'static, sqlx::Sqlite>;

impl Sqlite {
    /// Opens the database at `path`, creating and migrating it as needed.
    pub(super) async fn open(path: &Path) -> Result<Self, StoreError> {
        Self::open_with(options(path).create_if_missing(true).journal_mode(SqliteJournalMode::Wal)).await
    }

    pub(super) async fn open_with(options: SqliteConnectOptions) -> Result<Self, StoreError> {
        let options = options.synchronous(SqliteSynchronous::Full).foreign_keys(true);
        let pool = |size| {
            let pool = SqlitePoolOptions::new().max_connections(size).acquire_timeout(WAIT_MAX);
            // A full disk makes SQLite undo a transaction by itself. sqlx does not notice and believes for ever that
            // it lasts: such a connection is replaced, or the one writer would be lost.
            pool.before_acquire(|connection, _| {
                let is_idle = !connection.is_in_transaction();
                Box::pin(async move { Ok(is_idle) })
            })
        };
        let writer = pool(1).connect_with(options.clone()).await.map_err(unusable)?;
        must_be_sound(&writer).await?;
        sqlx::migrate!("migrations/sqlite").run(&writer).await?;
        let readers = pool(READERS_MAX).connect_with(options.pragma("query_only", "ON")).await?;
        Ok(Self { writer, readers })
    }

    pub(super) async fn begin_reading(&self) -> Result<Transaction, StoreError> {
        Ok(self.readers.begin().await?)
    }

    pub(super) async fn begin_writing(&self) -> Result<Transaction, StoreError> {
        Ok(self.writer.begin_with("BEGIN IMMEDIATE").await?)
    }

    pub(super) async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}

/// Refuses a file that would fail only later, when what was published last cannot be read or written.
async fn must_be_sound(writer: &SqlitePool) -> Result<(), StoreError> {
    let found: String =
        sqlx::query_scalar("PRAGMA quick_check(1)").fetch_one(writer).await.map_err(unusable)?;
    if found != "ok" {
        return Err(damaged(&found));
    }
    // A lock for writing is given on a file that can only be read; what is written must be written.
    let mut tx = writer.begin_with("BEGIN IMMEDIATE").await.map_err(unusable)?;
    let version: i64 =
        sqlx::query_scalar("PRAGMA user_version").fetch_one(&mut *tx).await.map_err(unusable)?;
    let same = sqlx::AssertSqlSafe(format!("PRAGMA user_version = {version}"));
    sqlx::query(same).execute(&mut *tx).await.map_err(unusable)?;
    Ok(tx.rollback().await?)
}

/// Why a file cannot be used, with the remedy where there is one.
fn unusable(error: sqlx::Error) -> StoreError {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    // Extended codes hold the primary one in their lowest byte.
    match code.and_then(|code| code.parse::<u32>().ok()).map(|code| code & 0xff) {
        Some(8) => StoreError::Unavailable {
            reason: format!(
                "its file cannot be written ({error}); look at its owner, its mode and the mount"
            ),
        },
        Some(11 | 26) => damaged(&error.to_string()),
        _ => error.into(),
    }
}

fn damaged(what: &str) -> StoreError {
    let reason = format!(
        "its file is damaged ({what}); restore a backup. Gateways keep serving what they have in the meantime"
    );
    StoreError::Unavailable { reason }
}

/// Writes one moment of the database at `path` to the empty file `to`, while others may use it.
pub(super) async fn copy(path: &Path, to: &str) -> Result<(), StoreError> {
    let mut connection = SqliteConnection::connect_with(&options(path)).await?;
    sqlx::query("VACUUM INTO $1").bind(to.to_owned()).execute(&mut connection).await?;
    Ok(connection.close().await?)
}

pub(super) fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new().filename(path).busy_timeout(WAIT_MAX).disable_statement_logging()
}
