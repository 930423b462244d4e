//! A topic of a Kafka cluster, as far as loggers need it.
//!
//! A plugin names the topic and how it is written to; the gateway keeps one producer for each way of doing so.

use std::fmt;
use std::time::Duration;

use crate::outbound::Address;

/// A topic, and how messages come there. Topics that agree in everything but their name share connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    /// The cluster.
    pub cluster: Cluster,
    /// The name of the topic.
    pub name: String,
    /// Messages with the same key come to the same partition; absent: they are spread.
    pub key: Option<String>,
}

/// A cluster, and how it is written to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Cluster {
    /// Some of its brokers; the others are learned from them.
    pub brokers: Vec<Address>,
    /// Who logs in, if anybody does.
    pub login: Option<Login>,
    /// Whether brokers are talked to over TLS, and whether their certificates have to verify.
    pub tls: Option<bool>,
    /// Whether all replicas have to have a message before it counts as written; otherwise its leader is enough.
    pub waits_for_all: bool,
    /// How long writing a message may take.
    pub timeout: Duration,
    /// How long messages wait for others to be sent with them.
    pub linger: Duration,
    /// Messages that are sent together at most.
    pub batch_messages_max: u32,
    /// Bytes that are sent together at most.
    pub batch_bytes_max: u32,
    /// Messages that may wait.
    pub pending_max: u32,
    /// How often it is asked which broker has what.
    pub refresh_interval: Duration,
}

/// Who logs in at a cluster.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Login {
    /// `PLAIN`, `SCRAM-SHA-256` or `SCRAM-SHA-512`.
    pub mechanism: &'static str,
    /// The user.
    pub user: String,
    /// The password.
    pub password: String,
}

// The password is a secret.
impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} by {}", self.user, self.mechanism)
    }
}
