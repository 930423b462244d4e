//! Redis, as far as plugins need it: short scripts that count there, and entries that are kept there for a while.
//!
//! A plugin names the server and hands over a [`Call`] or an [`Entry`], one round trip each; the gateway keeps
//! connections and bounds the wait. Several gateways that use the same keys count together and read the same entries.

use std::time::Duration;

use bytes::Bytes;
use gatewright_model::validation::Violations;
use serde::Deserialize;
use serde_json::Value;

use crate::kind;

/// A server, or several that are one.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Redis {
    /// Where it is: `host:port` each; more than one: a cluster, of which these are some.
    pub addresses: Vec<String>,
    /// Whether it is a cluster.
    pub cluster: bool,
    /// The number of the database.
    pub database: i64,
    /// Who logs in, if that is not the default user.
    pub username: Option<String>,
    /// The password.
    pub password: Option<String>,
    /// Whether it is talked to over TLS, and whether its certificate has to verify.
    pub tls: Option<bool>,
    /// The name it is asked for over TLS, where that is not its host. Nodes of a cluster go by their own.
    pub server_name: Option<String>,
    /// How long one call may take.
    pub timeout: Duration,
}

// The password is a secret.
impl std::fmt::Debug for Redis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Redis({})", self.addresses.join(", "))
    }
}

/// A script and what it is called with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The script, in Lua; it answers with a list of integers.
    pub script: &'static str,
    /// The keys it touches.
    pub keys: Vec<Vec<u8>>,
    /// What else it is told.
    pub arguments: Vec<String>,
}

/// Something that is kept under a key, and ends by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: Vec<u8>,
    /// What is done with it.
    pub act: Act,
}

/// What is done with an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// It is read: its bytes, if it is there.
    Read,
    /// It is written: no bytes, if it was.
    Write {
        /// What is kept.
        bytes: Bytes,
        /// For how long.
        lifetime: Duration,
        /// Whether only an entry that is there is replaced, or only one that is not there is made.
        replaces: bool,
    },
    /// It is removed: no bytes, if it was there.
    Remove,
}

/// `host:port`, as [`Redis::addresses`] has it.
pub(crate) fn address(host: &str, port: u16) -> String {
    // An IPv6 address stands in brackets beside a port.
    match host.contains(':') && !host.starts_with('[') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    }
}

/// The fields of the policies `redis` and `redis-cluster`.
#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    redis_host: Option<String>,
    #[serde(default = "port")]
    redis_port: u16,
    #[serde(default)]
    redis_username: Option<String>,
    #[serde(default)]
    redis_password: Option<String>,
    #[serde(default)]
    redis_database: i64,
    #[serde(default = "timeout")]
    redis_timeout: u64,
    #[serde(default)]
    redis_ssl: bool,
    #[serde(default)]
    redis_ssl_verify: bool,
    #[serde(default)]
    redis_cluster_nodes: Vec<String>,
    #[serde(default)]
    redis_cluster_ssl: bool,
    #[serde(default)]
    redis_cluster_ssl_verify: bool,
}

const fn port() -> u16 {
    6379
}

const fn timeout() -> u64 {
    1000
}

impl Redis {
    /// The server that the configuration of a limit names.
    pub(crate) fn of(document: &Value, cluster: bool) -> Result<Self, Violations> {
        let config: Config = kind::parse(document.clone())?;
        let (addresses, tls) = match cluster {
            true => {
                let tls = config.redis_cluster_ssl.then_some(config.redis_cluster_ssl_verify);
                (config.redis_cluster_nodes, tls)
            }
            false => {
                let address = address(&config.redis_host.unwrap_or_default(), config.redis_port);
                (vec![address], config.redis_ssl.then_some(config.redis_ssl_verify))
            }
        };
        Ok(Self {
            addresses,
            cluster,
            database: config.redis_database,
            username: config.redis_username.filter(|name| !name.is_empty()),
            password: config.redis_password.filter(|password| !password.is_empty()),
            tls,
            server_name: None,
            timeout: Duration::from_millis(config.redis_timeout),
        })
    }
}
