//! Where a store is, as written on the command line.
//!
//! Its text is shown in messages and logs, so the password never is.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use sqlx::postgres::PgConnectOptions;

/// `sqlite://FILE` or `postgres://USER:PASSWORD@HOST/DATABASE`.
#[derive(Clone)]
pub struct DatabaseUrl {
    place: Place,
    /// Without the password.
    shown: String,
}

/// What a URL comes to.
#[derive(Clone)]
pub(super) enum Place {
    Sqlite(PathBuf),
    Postgres(Box<PgConnectOptions>),
}

/// Why a text is no database URL.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DatabaseUrlError {
    /// It is for no database that we know.
    #[error("a database URL begins with `postgres://` or `sqlite://`")]
    Scheme,
    /// It is for SQLite but names no file.
    #[error(
        "write `sqlite://FILE`, such as `sqlite:///var/lib/gatewright/gatewright.db`, without parameters"
    )]
    Sqlite,
    /// It is for PostgreSQL but cannot be read.
    #[error("write `postgres://USER:PASSWORD@HOST:PORT/DATABASE?sslmode=verify-full`: {0}")]
    Postgres(String),
}

impl DatabaseUrl {
    /// The SQLite database in a file.
    #[must_use]
    pub fn sqlite(path: PathBuf) -> Self {
        let shown = format!("sqlite://{}", path.display());
        Self { place: Place::Sqlite(path), shown }
    }

    /// The file, if it is SQLite.
    #[must_use]
    pub fn sqlite_path(&self) -> Option<&Path> {
        match &self.place {
            Place::Sqlite(path) => Some(path),
            Place::Postgres(_) => None,
        }
    }

    pub(super) fn place(&self) -> &Place {
        &self.place
    }
}

impl FromStr for DatabaseUrl {
    type Err = DatabaseUrlError;

    fn from_str(text: &str) -> Result<Self, DatabaseUrlError> {
        if let Some(path) = text.strip_prefix("sqlite://") {
            let is_file = !path.is_empty() && !path.ends_with('/') && !path.contains(['?', '#']);
            return if is_file { Ok(Self::sqlite(path.into())) } else { Err(DatabaseUrlError::Sqlite) };
        }
        if !text.starts_with("postgres://") && !text.starts_with("postgresql://") {
            return Err(DatabaseUrlError::Scheme);
        }
        let unreadable = |error: sqlx::Error| DatabaseUrlError::Postgres(error.to_string());
        let options = PgConnectOptions::from_str(text).map_err(unreadable)?;
        if options.get_database().is_none_or(str::is_empty) {
            return Err(DatabaseUrlError::Postgres("it names no database".to_owned()));
        }
        let host = match options.get_socket() {
            Some(socket) => socket.display().to_string(),
            None => format!("{}:{}", options.get_host(), options.get_port()),
        };
        let shown = format!("postgres://{host}/{}", options.get_database().unwrap_or_default());
        Ok(Self { place: Place::Postgres(Box::new(options)), shown })
    }
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_shown_without_its_password() {
        for (written, shown) in [
            ("sqlite:///var/gw.db", "sqlite:///var/gw.db"),
            ("sqlite://gw.db", "sqlite://gw.db"),
            ("postgres://u:secret@db:5433/gw?sslmode=require", "postgres://db:5433/gw"),
            ("postgresql://u:secret@db:5432/gw", "postgres://db:5432/gw"),
            ("postgres://u:secret@localhost:5432/gw?host=/run/pg", "postgres:///run/pg/gw"),
        ] {
            let url: DatabaseUrl = written.parse().unwrap();
            assert_eq!((format!("{url}"), format!("{url:?}")), (shown.to_owned(), shown.to_owned()));
        }
    }

    #[test]
    fn what_is_no_url_is_refused_without_being_repeated() {
        for wrong in [
            "",
            "gw.db",
            "mysql://u:secret@h/d",
            "sqlite://",
            "sqlite://a/",
            "sqlite://a.db?mode=ro",
            "postgres://u:secret@h",
        ] {
            let error = wrong.parse::<DatabaseUrl>().unwrap_err().to_string();
            assert!(error.contains("://") && !error.contains("secret"), "{wrong}: {error}");
        }
        assert!("postgres://u:secret@h:port/d".parse::<DatabaseUrl>().is_err());
    }
}
