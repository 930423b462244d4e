//! Which database it is: connections, transactions, and what SQL dialects say differently. Only this file, `sqlite`,
//! `postgres` and `schema` know.
//!
//! On both, changes follow one another from their first statement on, so what a change has read still holds when it
//! writes, and none fails half way because another one came first. Readings never wait for changes.

use std::borrow::Cow;

use sqlx::Row as _;
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::sqlite::{SqliteArguments, SqliteRow};

use super::StoreError;
use super::postgres::{self, Postgres};
use super::sqlite::Sqlite;
#[cfg(test)]
use super::{faults, plans};

/// A database and how to reach it.
#[derive(Clone)]
pub(super) enum Database {
    Sqlite(Sqlite),
    Postgres(Postgres),
}

impl Database {
    pub(super) async fn begin_reading(&self) -> Result<Transaction, StoreError> {
        #[cfg(test)]
        faults::step().await?;
        match self {
            Self::Sqlite(sqlite) => Ok(Transaction::Sqlite(sqlite.begin_reading().await?)),
            Self::Postgres(postgres) => Ok(Transaction::Postgres(postgres.begin_reading().await?)),
        }
    }

    pub(super) async fn begin_writing(&self) -> Result<Transaction, StoreError> {
        #[cfg(test)]
        faults::step().await?;
        match self {
            Self::Sqlite(sqlite) => Ok(Transaction::Sqlite(sqlite.begin_writing().await?)),
            Self::Postgres(postgres) => Ok(Transaction::Postgres(postgres.begin_writing().await?)),
        }
    }

    pub(super) async fn close(&self) {
        match self {
            Self::Sqlite(sqlite) => sqlite.close().await,
            Self::Postgres(postgres) => postgres.close().await,
        }
    }
}

/// A transaction in progress; dropped without a commit, it never happened.
pub(super) enum Transaction {
    Sqlite(sqlx::Transaction<'static, sqlx::Sqlite>),
    Postgres(postgres::Transaction),
}

impl Transaction {
    /// All rows of the answer.
    pub(super) async fn rows(&mut self, query: Query) -> Result<Vec<Row>, StoreError> {
        query.must_be_storable()?;
        #[cfg(test)]
        faults::step().await?;
        #[cfg(test)]
        plans::observe(self, &query).await?;
        match self {
            Self::Sqlite(tx) => {
                let rows = query.for_sqlite().fetch_all(&mut **tx).await?;
                Ok(rows.into_iter().map(Row::Sqlite).collect())
            }
            Self::Postgres(tx) => {
                let rows = tx.answered(async |tx| query.for_postgres().fetch_all(tx).await).await?;
                Ok(rows.into_iter().map(Row::Postgres).collect())
            }
        }
    }

    /// The first row of the answer.
    pub(super) async fn row(&mut self, query: Query) -> Result<Option<Row>, StoreError> {
        query.must_be_storable()?;
        #[cfg(test)]
        faults::step().await?;
        #[cfg(test)]
        plans::observe(self, &query).await?;
        match self {
            Self::Sqlite(tx) => Ok(query.for_sqlite().fetch_optional(&mut **tx).await?.map(Row::Sqlite)),
            Self::Postgres(tx) => Ok(tx
                .answered(async |tx| query.for_postgres().fetch_optional(tx).await)
                .await?
                .map(Row::Postgres)),
        }
    }

    /// Changes rows, and says how many.
    pub(super) async fn execute(&mut self, query: Query) -> Result<u64, StoreError> {
        query.must_be_storable()?;
        #[cfg(test)]
        faults::step().await?;
        #[cfg(test)]
        plans::observe(self, &query).await?;
        match self {
            Self::Sqlite(tx) => Ok(query.for_sqlite().execute(&mut **tx).await?.rows_affected()),
            Self::Postgres(tx) => {
                Ok(tx.answered(async |tx| query.for_postgres().execute(tx).await).await?.rows_affected())
            }
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
        #[cfg(test)]
        faults::step().await?;
        match self {
            Self::Sqlite(tx) => tx.commit().await?,
            Self::Postgres(tx) => tx.commit().await?,
        }
        #[cfg(test)]
        faults::confirm().await?;
        Ok(())
    }

    /// Tells the other control planes of this database, at the commit, that something `group` serves has changed.
    /// SQLite has no other control planes.
    pub(super) async fn announce(&mut self, group: &str) -> Result<(), StoreError> {
        if let Self::Postgres(_) = self {
            self.execute(query("SELECT pg_notify($1, $2)").bind(postgres::CHANNEL).bind(group)).await?;
        }
        Ok(())
    }

    /// The SQL condition that the JSON object in `column` has the key `key` with the value `value` (two parameters).
    pub(super) fn label_equals(&self, column: &str, key: usize, value: usize) -> String {
        match self {
            Self::Sqlite(_) => format!(
                "EXISTS (SELECT 1 FROM json_each({column}) WHERE json_each.key = ${key} AND json_each.value = ${value})"
            ),
            Self::Postgres(_) => format!("{column}::json ->> ${key} = ${value}"),
        }
    }

    /// What the label of this key and value (two parameters) is found by in the table of labels.
    pub(super) fn label_digest(&self, key: usize, value: usize) -> String {
        match self {
            Self::Sqlite(_) => format!("json_array(${key}, ${value})"),
            Self::Postgres(_) => format!("md5(json_build_array(${key}::text, ${value}::text)::text)"),
        }
    }

    /// The SQL condition that the row with this id in the table of names has a name that holds the quoted text
    /// `part` (a parameter), where names are found so; none: a pattern alone is enough.
    pub(super) fn name_holds(&self, id: &str, part: usize) -> Option<String> {
        match self {
            Self::Sqlite(_) => {
                Some(format!("{id} IN (SELECT rowid FROM name_search WHERE name_search MATCH ${part})"))
            }
            Self::Postgres(_) => None,
        }
    }
}

/// A query text with its parameters `$1`, `$2` ….
#[derive(Clone)]
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

    /// PostgreSQL stores no text with a NUL, SQLite's functions stop at it; nobody means to send one.
    fn must_be_storable(&self) -> Result<(), StoreError> {
        let holds_nul =
            |parameter: &Parameter| matches!(parameter, Parameter::Text(Some(text)) if text.contains('\0'));
        if self.parameters.iter().any(holds_nul) { Err(StoreError::NulInText) } else { Ok(()) }
    }

    #[cfg(test)]
    pub(super) fn sql(&self) -> &str {
        &self.sql
    }

    /// The same after `prefix`, such as what asks for its plan.
    #[cfg(test)]
    pub(super) fn prefixed(self, prefix: &str) -> Self {
        Self { sql: format!("{prefix}{}", self.sql).into(), parameters: self.parameters }
    }

    pub(super) fn for_sqlite(self) -> sqlx::query::Query<'static, sqlx::Sqlite, SqliteArguments> {
        let query = match self.sql {
            Cow::Borrowed(sql) => sqlx::query(sql),
            Cow::Owned(sql) => sqlx::query(sqlx::AssertSqlSafe(sql)),
        };
        self.parameters.into_iter().fold(query, |query, parameter| match parameter {
            Parameter::Text(text) => query.bind(text),
            Parameter::Integer(number) => query.bind(number),
        })
    }

    pub(super) fn for_postgres(self) -> sqlx::query::Query<'static, sqlx::Postgres, PgArguments> {
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

/// A value in a query; none is NULL, which PostgreSQL wants typed as well.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Parameter {
    Text(Option<String>),
    Integer(Option<i64>),
}

impl From<&str> for Parameter {
    fn from(text: &str) -> Self {
        Self::Text(Some(text.to_owned()))
    }
}

impl From<String> for Parameter {
    fn from(text: String) -> Self {
        Self::Text(Some(text))
    }
}

impl From<Option<String>> for Parameter {
    fn from(text: Option<String>) -> Self {
        Self::Text(text)
    }
}

impl From<Option<i64>> for Parameter {
    fn from(number: Option<i64>) -> Self {
        Self::Integer(number)
    }
}

impl From<i64> for Parameter {
    fn from(number: i64) -> Self {
        Self::Integer(Some(number))
    }
}

/// A row of an answer.
pub(super) enum Row {
    Sqlite(SqliteRow),
    Postgres(PgRow),
}

impl Row {
    pub(super) fn text(&self, column: &str) -> Result<String, StoreError> {
        match self {
            Self::Sqlite(row) => Ok(row.try_get(column)?),
            Self::Postgres(row) => Ok(row.try_get(column)?),
        }
    }

    pub(super) fn integer(&self, column: &str) -> Result<i64, StoreError> {
        match self {
            Self::Sqlite(row) => Ok(row.try_get(column)?),
            Self::Postgres(row) => Ok(row.try_get(column)?),
        }
    }

    pub(super) fn optional_text(&self, column: &str) -> Result<Option<String>, StoreError> {
        match self {
            Self::Sqlite(row) => Ok(row.try_get(column)?),
            Self::Postgres(row) => Ok(row.try_get(column)?),
        }
    }

    pub(super) fn optional_integer(&self, column: &str) -> Result<Option<i64>, StoreError> {
        match self {
            Self::Sqlite(row) => Ok(row.try_get(column)?),
            Self::Postgres(row) => Ok(row.try_get(column)?),
        }
    }

    /// A column that holds an id, or anything else that is parsed from text.
    pub(super) fn parsed<T: TryFrom<String>>(&self, column: &str) -> Result<T, StoreError> {
        let unreadable =
            |_| StoreError::Unavailable { reason: format!("column `{column}` holds no valid value") };
        T::try_from(self.text(column)?).map_err(unreadable)
    }

    /// A column that holds a JSON document.
    pub(super) fn json<T: serde::de::DeserializeOwned>(&self, column: &str) -> Result<T, StoreError> {
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
        if constraint {
            return Self::Conflict { reason };
        }
        match error.as_database_error().and_then(sqlx::error::DatabaseError::code).as_deref() {
            // SQLITE_FULL; disk_full of PostgreSQL.
            Some("13" | "53100") => Self::Full { reason },
            // Serialisation failures and deadlocks.
            Some(code) if code.len() == 5 && code.starts_with("40") => Self::Interrupted { reason },
            _ => Self::Unavailable { reason },
        }
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
