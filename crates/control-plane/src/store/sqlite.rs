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
        let options = options(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true);
        let pool = |size| SqlitePoolOptions::new().max_connections(size).acquire_timeout(WAIT_MAX);
        let writer = pool(1).connect_with(options.clone()).await?;
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

/// Writes one moment of the database at `path` to the empty file `to`, while others may use it.
pub(super) async fn copy(path: &Path, to: &str) -> Result<(), StoreError> {
    let mut connection = SqliteConnection::connect_with(&options(path)).await?;
    sqlx::query("VACUUM INTO $1").bind(to.to_owned()).execute(&mut connection).await?;
    Ok(connection.close().await?)
}

fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new().filename(path).busy_timeout(WAIT_MAX).disable_statement_logging()
}
