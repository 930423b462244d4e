//! Where things are kept, and what operators do to a store.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use gatewright_control_plane::DatabaseUrl;

/// Where things are kept.
#[derive(Debug, Args)]
pub(crate) struct DataDirectory {
    /// Where the database and the first secrets are kept.
    #[arg(long, env = "GATEWRIGHT_DATA_DIR", value_name = "DIRECTORY", default_value = "./gatewright-data")]
    pub(crate) data_dir: PathBuf,
    /// The file with the key that secrets in the database are encrypted with: 64 hexadecimal digits. Without it, the
    /// first start makes one in the data directory.
    #[arg(long, env = "GATEWRIGHT_SECRET_KEY_FILE", value_name = "FILE")]
    pub(crate) secret_key_file: Option<PathBuf>,
    /// That key itself; prefer the environment, where other users do not see it.
    #[arg(
        long,
        env = "GATEWRIGHT_SECRET_KEY",
        value_name = "KEY",
        hide_env_values = true,
        conflicts_with = "secret_key_file"
    )]
    pub(crate) secret_key: Option<String>,
}

/// Which database.
#[derive(Debug, Args)]
pub(crate) struct Database {
    /// The database, `postgres://…` or `sqlite://FILE`. Without: SQLite in the data directory. Prefer the
    /// environment, because of the password.
    #[arg(long, env = "GATEWRIGHT_DATABASE_URL", value_name = "URL", hide_env_values = true)]
    pub(crate) database_url: Option<DatabaseUrl>,
}

/// What `gatewright store` does.
#[derive(Debug, Args)]
pub(crate) struct Store {
    #[command(subcommand)]
    pub(crate) command: StoreCommand,
}

/// The commands of `gatewright store`.
#[derive(Debug, Subcommand)]
pub(crate) enum StoreCommand {
    /// Write a SQLite store to a new file, while it may be in use.
    Backup {
        #[command(flatten)]
        data: DataDirectory,
        #[command(flatten)]
        database: Database,
        /// The file to write; it must not exist.
        #[arg(long, env = "GATEWRIGHT_TO", value_name = "FILE")]
        to: PathBuf,
    },
    /// Move everything in a store to an empty database. No control plane may be using either.
    Migrate {
        /// The store to read; it stays as it is.
        #[arg(long, env = "GATEWRIGHT_FROM", value_name = "URL", hide_env_values = true)]
        from: DatabaseUrl,
        /// The database to fill; it must hold nothing.
        #[arg(long, env = "GATEWRIGHT_TO", value_name = "URL", hide_env_values = true)]
        to: DatabaseUrl,
    },
    /// After restoring a backup: make gateways that are ahead of it go back to what it says. With SQLite, stop the
    /// control plane first.
    RaiseEpoch {
        #[command(flatten)]
        data: DataDirectory,
        #[command(flatten)]
        database: Database,
    },
}
