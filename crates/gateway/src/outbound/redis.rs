//! Redis for plugins: a connection for each server, on the background runtime, shared by all workers.
//!
//! A server that does not answer is left alone for a moment, so that requests do not queue up behind it: those that
//! come meanwhile hear at once that it is away.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use gatewright_plugins::outbound::{Address, Failure};
use gatewright_plugins::redis::{Act, Call, Entry, Redis};
use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use redis::{
    AsyncConnectionConfig, Cmd, ConnectionAddr, ConnectionInfo, IntoConnectionInfo as _, Pipeline,
    RedisConnectionInfo, RedisFuture, Script, Value,
};

use super::connecting::{self, Demands};
use crate::config::DeniedNetworks;
use crate::tls;

/// Servers that are known at a time. Beyond that all start anew, which costs their connections.
const SERVERS_MAX: usize = 64;

/// How long a server that failed is left alone.
const PAUSE: Duration = Duration::from_secs(1);

/// Servers by what configurations say of them.
pub(super) struct Servers {
    known: Mutex<HashMap<Arc<Redis>, Arc<Link>>>,
    tls: Arc<tls::Shared>,
    denied: DeniedNetworks,
}

/// The way to one server.
#[derive(Default)]
struct Link {
    connection: tokio::sync::Mutex<Option<Connection>>,
    failed: Mutex<Option<Instant>>,
}

#[derive(Clone)]
enum Connection {
    One(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl Servers {
    pub(super) fn new(tls: Arc<tls::Shared>, denied: DeniedNetworks) -> Self {
        Self { known: Mutex::default(), tls, denied }
    }

    /// Has the script run, within the time that the server is given.
    pub(super) async fn call(&self, server: Arc<Redis>, call: Call) -> Result<Vec<i64>, Failure> {
        let link = self.link(&server);
        let calling = async {
            let mut connection = self.connected(&link, &server).await?;
            let script = Script::new(call.script);
            let mut invocation = script.prepare_invoke();
            for key in &call.keys {
                invocation.key(key.as_slice());
            }
            for argument in &call.arguments {
                invocation.arg(argument.as_str());
            }
            invocation.invoke_async(&mut connection).await.map_err(unreachable)
        };
        link.within(server.timeout, calling).await
    }

    /// Does what is to be done with the entry, within the time that the server is given.
    ///
    /// It is the same done twice as once, and so tried once more where a connection that was kept turns out to be
    /// broken, as servers break those that nobody used for long.
    pub(super) async fn entry(&self, server: Arc<Redis>, entry: Entry) -> Result<Option<Bytes>, Failure> {
        let (link, command) = (self.link(&server), command(entry));
        let doing = async {
            let was_kept = link.connection.lock().await.is_some();
            let mut connection = self.connected(&link, &server).await?;
            let answer = match connection.req_packed_command(&command).await {
                Err(error) if was_kept && error.is_connection_dropped() => {
                    *link.connection.lock().await = None;
                    let mut connection = self.connected(&link, &server).await?;
                    connection.req_packed_command(&command).await
                }
                answer => answer,
            };
            came_of(answer.and_then(Value::extract_error).map_err(unreachable)?)
        };
        link.within(server.timeout, doing).await
    }

    fn link(&self, server: &Arc<Redis>) -> Arc<Link> {
        let mut known = lock(&self.known);
        if known.len() >= SERVERS_MAX && !known.contains_key(server) {
            known.clear();
        }
        Arc::clone(known.entry(Arc::clone(server)).or_default())
    }

    async fn connected(&self, link: &Link, server: &Redis) -> Result<Connection, Failure> {
        let mut connection = link.connection.lock().await;
        if let Some(connection) = &*connection {
            return Ok(connection.clone());
        }
        let fresh = match server.cluster {
            true => cluster(server, &self.denied).await?,
            false => one(server, (&self.tls, &self.denied)).await?,
        };
        *connection = Some(fresh.clone());
        Ok(fresh)
    }
}

impl Link {
    /// What comes of `work` in time, unless the server is left alone.
    async fn within<T>(
        &self,
        time: Duration,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        if self.rests(Instant::now()) {
            return Err(Failure::Unreachable("Redis was away a moment ago".to_owned()));
        }
        let result = tokio::time::timeout(time, work).await.unwrap_or(Err(Failure::TimedOut));
        if result.is_err() {
            *lock(&self.failed) = Some(Instant::now());
            *self.connection.lock().await = None;
        }
        result
    }

    fn rests(&self, now: Instant) -> bool {
        lock(&self.failed).is_some_and(|failed| now.saturating_duration_since(failed) < PAUSE)
    }
}

/// What a server is told.
fn command(entry: Entry) -> Cmd {
    let Entry { key, act } = entry;
    let mut command = Cmd::new();
    match act {
        Act::Read => command.arg("GET").arg(key),
        Act::Write { bytes, lifetime, replaces } => {
            let condition = if replaces { "XX" } else { "NX" };
            let milliseconds = u64::try_from(lifetime.as_millis()).unwrap_or(u64::MAX);
            command.arg("SET").arg(key).arg(&bytes[..]).arg(condition).arg("PX").arg(milliseconds)
        }
        Act::Remove => command.arg("DEL").arg(key),
    };
    command
}

/// What it makes of that: an entry, with bytes or without, or none.
fn came_of(answer: Value) -> Result<Option<Bytes>, Failure> {
    match answer {
        Value::Nil | Value::Int(0) => Ok(None),
        Value::BulkString(bytes) => Ok(Some(bytes.into())),
        Value::Okay | Value::Int(_) => Ok(Some(Bytes::new())),
        _ => Err(Failure::Unreachable("Redis: the answer is no entry".to_owned())),
    }
}

/// A connection to a server of its own.
async fn one(server: &Redis, (tls, denied): (&tls::Shared, &DeniedNetworks)) -> Result<Connection, Failure> {
    let address = server.addresses.first().map(|address| host_and_port(address));
    let (host, port) = address.ok_or_else(|| Failure::Unsendable("Redis: there is no address".to_owned()))?;
    let port = port.parse();
    let port =
        port.map_err(|_| Failure::Unsendable(format!("Redis: the port of {server:?} is no number")))?;
    let to = Address { host: host.to_owned(), port };
    let name = server.server_name.as_deref().unwrap_or(host);
    let demands = server.tls.map(|verify| Demands { name, verify });
    let stream = connecting::connect(&to, demands, (tls, denied)).await?;
    // Time is limited around it all.
    let config = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
    let made = MultiplexedConnection::new_with_config(&settings(server), stream, config).await;
    let (connection, driving) = made.map_err(unreachable)?;
    // It ends with the last copy of the connection.
    tokio::spawn(driving);
    Ok(Connection::One(connection))
}

/// A connection to each server of a cluster.
async fn cluster(server: &Redis, denied: &DeniedNetworks) -> Result<Connection, Failure> {
    must_be_allowed(server, denied).await?;
    let nodes = server.addresses.iter().map(|address| info(server, address));
    let nodes = nodes.collect::<redis::RedisResult<Vec<_>>>().map_err(unreachable)?;
    let client = ClusterClient::builder(nodes).connection_timeout(server.timeout);
    let client = client.response_timeout(server.timeout).build().map_err(unreachable)?;
    client.get_async_connection().await.map(Connection::Cluster).map_err(unreachable)
}

/// Its addresses are looked up once more when they are connected to: this tells what is denied, and does not hold off
/// somebody who rules over the name.
async fn must_be_allowed(server: &Redis, denied: &DeniedNetworks) -> Result<(), Failure> {
    for address in &server.addresses {
        let (host, _) = host_and_port(address);
        let failed = |error: std::io::Error| Failure::Unreachable(format!("Redis: {error}"));
        let found = tokio::net::lookup_host((host, 0)).await.map_err(failed)?;
        denied.allowed(found, SocketAddr::ip).map_err(Failure::Unreachable)?;
    }
    Ok(())
}

/// Host and port of an address as configurations write it; the port of Redis where they write none.
fn host_and_port(address: &str) -> (&str, &str) {
    let (host, port) = address.rsplit_once(':').unwrap_or((address, "6379"));
    (host.trim_start_matches('[').trim_end_matches(']'), port)
}

fn info(server: &Redis, address: &str) -> redis::RedisResult<ConnectionInfo> {
    let (host, port) = host_and_port(address);
    let host = host.to_owned();
    let port = port.parse().map_err(|_| (redis::ErrorKind::InvalidClientConfig, "the port is no number"))?;
    let address = match server.tls {
        None => ConnectionAddr::Tcp(host, port),
        Some(verify) => ConnectionAddr::TcpTls { host, port, insecure: !verify, tls_params: None },
    };
    Ok(address.into_connection_info()?.set_redis_settings(settings(server)))
}

fn settings(server: &Redis) -> RedisConnectionInfo {
    let mut settings = RedisConnectionInfo::default().set_db(server.database);
    if let Some(username) = &server.username {
        settings = settings.set_username(username);
    }
    if let Some(password) = &server.password {
        settings = settings.set_password(password);
    }
    settings
}

fn unreachable(error: redis::RedisError) -> Failure {
    Failure::Unreachable(format!("Redis: {error}"))
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ConnectionLike for Connection {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        match self {
            Self::One(connection) => connection.req_packed_command(command),
            Self::Cluster(connection) => connection.req_packed_command(command),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        commands: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        match self {
            Self::One(connection) => connection.req_packed_commands(commands, offset, count),
            Self::Cluster(connection) => connection.req_packed_commands(commands, offset, count),
        }
    }

    fn get_db(&self) -> i64 {
        match self {
            Self::One(connection) => connection.get_db(),
            Self::Cluster(connection) => connection.get_db(),
        }
    }
}
