//! The only file that knows which database it is: connections, transactions, and what SQL dialects say differently.
//!
//! SQLite has one writer connection, taken by `BEGIN IMMEDIATE`, so that a change never fails half way because
//! another one came first, and a few reader connections that never wait for it (WAL).
//! `synchronous=FULL` makes a commit durable before it is answered.

use std::borrow::Cow;
use std::path::Path;
use std::time::Duration;

use sqlx::ConnectOptions as _;
use sqlx::Row as _;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteRow, SqliteSynchronous,
};

use super::StoreError;

/// Connections that read at the same time; more only compete for the same two or four cores.
const READERS_MAX: u32 = 4;

/// How long a call waits for a connection, or for another process that holds the file, before it answers 503.
const WAIT_MAX: Duration = Duration::from_secs(10);

/// The SQL condition that the JSON object in `column` has the key `key` with the value `value` (two parameters).
pub(super) fn label_equals(column: &str, key: usize, value: usize) -> String {
    format!(
        "EXISTS (SELECT 1 FROM json_each({column}) WHERE json_each.key = ${key} AND json_each.value = ${value})"
    )
}

/// A database and how to reach it.
#[derive(Clone)]
pub(super) enum Database {
    Sqlite { writer: SqlitePool, readers: SqlitePool },
}

impl Database {
    pub(super) async fn open_sqlite(path: &Path) -> Result<Self, StoreError> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(WAIT_MAX)
            .disable_statement_logging();
        let pool = |size| SqlitePoolOptions::new().max_connections(size).acquire_timeout(WAIT_MAX);
        let writer = pool(1).connect_with(options.clone()).await?;
        sqlx::migrate!("migrations/sqlite").run(&writer).await?;
        let readers = pool(READERS_MAX).connect_with(options.pragma("query_only", "ON")).await?;
        Ok(Self::Sqlite { writer, readers })
    }

    pub(super) async fn begin_reading(&self) -> Result<Transaction, StoreError> {
        match self {
            Self::Sqlite { readers, .. } => Ok(Transaction::Sqlite(readers.begin().await?)),
        }
    }

    pub(super) async fn begin_writing(&self) -> Result<Transaction, StoreError> {
        match self {
            Self::Sqlite { writer, .. } => {
                Ok(Transaction::Sqlite(writer.begin_with("BEGIN IMMEDIATE").await?))
            }
        }
    }

    pub(super) async fn close(&self) {
        match self {
            Self::Sqlite { writer, readers } => {
                readers.close().await;
                writer.close().await;
            }
        }
    }
}

/// A transaction in progress; dropped without a commit, it never happened.
pub(super) enum Transaction {
    Sqlite(sqlx::Transaction<'static, sqlx::Sqlite>),
}

impl Transaction {
    /// All rows of the answer.
    pub(super) async fn rows(&mut self, query: Query) -> Result<Vec<Row>, StoreError> {
        match self {
            Self::Sqlite(tx) => {
                let rows = query.for_sqlite().fetch_all(&mut **tx).await?;
                Ok(rows.into_iter().map(Row::Sqlite).collect())
            }
        }
    }

    /// The first row of the answer.
    pub(super) async fn row(&mut self, query: Query) -> Result<Option<Row>, StoreError> {
        match self {
            Self::Sqlite(tx) => Ok(query.for_sqlite().fetch_optional(&mut **tx).await?.map(Row::Sqlite)),
        }
    }

    /// Changes rows, and says how many.
    pub(super) async fn execute(&mut self, query: Query) -> Result<u64, StoreError> {
        match self {
            Self::Sqlite(tx) => Ok(query.for_sqlite().execute(&mut **tx).await?.rows_affected()),
        }
    }

    /// Changes exactly one row.
    pub(super) async fn execute_one(&mut self, query: Query) -> Result<(), StoreError> {
        match self.execute(query).await? {
            0 => Err(StoreError::NotFound),
            _ => Ok(()),
        }
    }

    pub(super) async fn commit(self) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(tx) => Ok(tx.commit().await?),
        }
    }
}

/// A query text with its parameters `$1`, `$2` ….
pub(super) struct Query {
    sql: Cow<'static, str>,
    parameters: Vec<Parameter>,
}

/// A query whose parameters follow by [`Query::bind`]. A text put together at run time holds names out of our own
/// code only; what callers send is always a parameter.
pub(super) fn query(sql: impl Into<Cow<'static, str>>) -> Query {
    Query { sql: sql.into(), parameters: Vec::new() }
}

impl Query {
    pub(super) fn bind(mut self, parameter: impl Into<Parameter>) -> Self {
        self.parameters.push(parameter.into());
        self
    }

    fn for_sqlite(self) -> sqlx::query::Query<'static, sqlx::Sqlite, sqlx::sqlite::SqliteArguments> {
        let query = match self.sql {
            Cow::Borrowed(sql) => sqlx::query(sql),
            Cow::Owned(sql) => sqlx::query(sqlx::AssertSqlSafe(sql)),
        };
        self.parameters.into_iter().fold(query, |query, parameter| match parameter {
            Parameter::Text(text) => query.bind(text),
            Parameter::Integer(number) => query.bind(number),
        })
    }
}

/// A value in a query.
#[derive(Clone, Debug)]
pub(super) enum Parameter {
    Text(String),
    Integer(i64),
}

impl From<&str> for Parameter {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Parameter {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<i64> for Parameter {
    fn from(number: i64) -> Self {
        Self::Integer(number)
    }
}

/// A row of an answer.
pub(super) enum Row {
    Sqlite(SqliteRow),
}

impl Row {
    pub(super) fn text(&self, column: &'static str) -> Result<String, StoreError> {
        match self {
            Self::Sqlite(row) => Ok(row.try_get(column)?),
        }
    }

    pub(super) fn integer(&self, column: &'static str) -> Result<i64, StoreError> {
        match self {
            Self::Sqlite(row) => Ok(row.try_get(column)?),
        }
    }

    pub(super) fn optional_integer(&self, column: &'static str) -> Result<Option<i64>, StoreError> {
        match self {
            Self::Sqlite(row) => Ok(row.try_get(column)?),
        }
    }

    /// A column that holds an id, or anything else that is parsed from text.
    pub(super) fn parsed<T: TryFrom<String>>(&self, column: &'static str) -> Result<T, StoreError> {
        let unreadable =
            |_| StoreError::Unavailable { reason: format!("column `{column}` holds no valid value") };
        T::try_from(self.text(column)?).map_err(unreadable)
    }

    /// A column that holds a JSON document.
    pub(super) fn json<T: serde::de::DeserializeOwned>(&self, column: &'static str) -> Result<T, StoreError> {
        super::from_json(&self.text(column)?)
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        let reason = error.to_string();
        let constraint = error.as_database_error().is_some_and(|database| {
            database.is_unique_violation()
                || database.is_foreign_key_violation()
                || database.is_check_violation()
                || database.message().contains("is immutable")
        });
        if constraint { Self::Conflict { reason } } else { Self::Unavailable { reason } }
    }
}

impl From<sqlx::migrate::MigrateError> for StoreError {
    fn from(error: sqlx::migrate::MigrateError) -> Self {
        let reason = match error {
            sqlx::migrate::MigrateError::VersionMissing(version) => format!(
                "migration {version} was applied by a newer release; start that release, or restore a backup"
            ),
            other => format!("the store cannot be migrated: {other}"),
        };
        Self::Unavailable { reason }
    }
}
