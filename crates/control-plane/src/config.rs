//! Startup settings of a control plane: read once by the executable, never changed while running.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use gatewright_model::rehearsal::Rehearse;

use crate::store::DatabaseUrl;

/// What a control plane is told at its start.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where the SQLite database and first secrets are kept; created if it does not exist.
    pub data_dir: PathBuf,
    /// The database; none: SQLite in the data directory.
    pub database: Option<DatabaseUrl>,
    /// Where the admin API answers.
    pub admin: SocketAddr,
    /// Where remote gateways are answered, over TLS; none: only gateways in this process.
    pub sync: Option<SocketAddr>,
    /// The administrator's password of a first start; none: a random one.
    pub admin_password: Option<String>,
    /// The key that secrets in the store are encrypted with; none: it is in a file.
    pub secret_key: Option<String>,
    /// The file with that key; none: `secret-key` in the data directory, made by the first start.
    pub secret_key_file: Option<PathBuf>,
    /// The administrator's API key of a first start; none: a random one.
    pub admin_key: Option<String>,
    /// Who explains how gateways match; none: explaining is refused.
    pub rehearsal: Option<Arc<dyn Rehearse>>,
    /// The admin API over TLS; none: only without.
    pub admin_tls: Option<AdminTls>,
    /// Which version of the documented interface `/api/version` answers; clients choose their behaviour by it.
    pub api_version: String,
    /// How long rows of the audit log are kept.
    pub audit_retention: Duration,
}

/// How long rows of the audit log are kept unless something else is asked for.
pub const AUDIT_RETENTION_DEFAULT: Duration = Duration::from_secs(60 * 24 * 60 * 60);

/// Which version of the documented interface is spoken unless something else is asked for.
pub const API_VERSION_DEFAULT: &str = "3.9.14";

/// The admin API over TLS.
#[derive(Clone, Debug)]
pub struct AdminTls {
    /// Where it answers.
    pub address: SocketAddr,
    /// PEM files with the certificate chain and its private key; none: a self-signed one, kept in the data directory.
    pub certificate: Option<(PathBuf, PathBuf)>,
}

/// Secrets that a first start made at random, each kept in the data directory with mode 0600.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CreatedSecrets {
    /// The password of the user `admin`; file `admin-password`.
    pub admin_password: Option<String>,
    /// The API key of the user `admin`; file `admin-key`.
    pub admin_key: Option<String>,
    /// The token with which gateways join the group `default`; file `instance-token`.
    pub instance_token: Option<String>,
}

/// Why a control plane did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A listener could not be bound.
    #[error(
        "cannot listen on {address} ({flag}): {source}; stop the process that holds the port or choose another address"
    )]
    Bind {
        /// The address asked for.
        address: SocketAddr,
        /// The flag that sets it.
        flag: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// The data directory cannot be used.
    #[error("cannot use the data directory {path} (--data-dir, --database-url): {source}", path = path.display())]
    DataDirectory {
        /// The directory asked for.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The key that secrets are encrypted with cannot be used.
    #[error("cannot use the secret key {origin}: {reason}")]
    SecretKey {
        /// Where it is from.
        origin: String,
        /// What went wrong and what to do.
        reason: String,
    },
    /// The certificate of the admin API cannot be used.
    #[error("cannot serve the admin API over TLS (--admin-tls) with {path}: {reason}", path = path.display())]
    AdminTls {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// TLS for gateways cannot be set up.
    #[error("cannot answer gateways over TLS (--sync): {reason}")]
    SyncTls {
        /// What went wrong.
        reason: String,
    },
    /// The store cannot be opened.
    #[error("cannot open the store {database}: {reason}")]
    Store {
        /// Which database, without its password.
        database: String,
        /// What went wrong and what to do.
        reason: String,
    },
}
