//! Redis for plugins: a connection for each server, on the background runtime, shared by all workers.
//!
//! A server that does not answer is left alone for a moment, so that requests do not queue up behind it: those that
//! come meanwhile hear at once that it is away.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use gatewright_plugins::outbound::Failure;
use gatewright_plugins::redis::{Call, Redis};
use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use redis::{
    Cmd, ConnectionAddr, ConnectionInfo, IntoConnectionInfo as _, Pipeline, RedisFuture, Script, Value,
};

use crate::config::DeniedNetworks;

/// Servers that are known at a time. Beyond that all start anew, which costs their connections.
const SERVERS_MAX: usize = 64;

/// How long a server that failed is left alone.
const PAUSE: Duration = Duration::from_secs(1);

/// Servers by what configurations say of them.
pub(super) struct Servers {
    known: Mutex<HashMap<Arc<Redis>, Arc<Link>>>,
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
    pub(super) fn new(denied: DeniedNetworks) -> Self {
        Self { known: Mutex::default(), denied }
    }

    /// Has the script run, within the time that the server is given.
    pub(super) async fn call(&self, server: Arc<Redis>, call: Call) -> Result<Vec<i64>, Failure> {
        let link = self.link(&server);
        if link.rests(Instant::now()) {
            return Err(Failure::Unreachable("Redis was away a moment ago".to_owned()));
        }
        let called = tokio::time::timeout(server.timeout, link.call(&server, &self.denied, call)).await;
        let result = called.unwrap_or(Err(Failure::TimedOut));
        if result.is_err() {
            *lock(&link.failed) = Some(Instant::now());
            *link.connection.lock().await = None;
        }
        result
    }

    fn link(&self, server: &Arc<Redis>) -> Arc<Link> {
        let mut known = lock(&self.known);
        if known.len() >= SERVERS_MAX && !known.contains_key(server) {
            known.clear();
        }
        Arc::clone(known.entry(Arc::clone(server)).or_default())
    }
}

impl Link {
    fn rests(&self, now: Instant) -> bool {
        lock(&self.failed).is_some_and(|failed| now.saturating_duration_since(failed) < PAUSE)
    }

    async fn call(&self, server: &Redis, denied: &DeniedNetworks, call: Call) -> Result<Vec<i64>, Failure> {
        let mut connection = self.connected(server, denied).await?;
        let script = Script::new(call.script);
        let mut invocation = script.prepare_invoke();
        for key in &call.keys {
            invocation.key(key.as_slice());
        }
        for argument in &call.arguments {
            invocation.arg(argument.as_str());
        }
        invocation.invoke_async(&mut connection).await.map_err(unreachable)
    }

    async fn connected(&self, server: &Redis, denied: &DeniedNetworks) -> Result<Connection, Failure> {
        let mut connection = self.connection.lock().await;
        if let Some(connection) = &*connection {
            return Ok(connection.clone());
        }
        must_be_allowed(server, denied).await?;
        let fresh = connect(server).await.map_err(unreachable)?;
        *connection = Some(fresh.clone());
        Ok(fresh)
    }
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

async fn connect(server: &Redis) -> redis::RedisResult<Connection> {
    let nodes = server.addresses.iter().map(|address| info(server, address));
    let nodes = nodes.collect::<redis::RedisResult<Vec<_>>>()?;
    if server.cluster {
        let client = ClusterClient::builder(nodes).connection_timeout(server.timeout).build()?;
        return client.get_async_connection().await.map(Connection::Cluster);
    }
    let only = nodes.into_iter().next().ok_or((redis::ErrorKind::InvalidClientConfig, "no address"))?;
    let client = redis::Client::open(only)?;
    client.get_multiplexed_async_connection().await.map(Connection::One)
}

fn info(server: &Redis, address: &str) -> redis::RedisResult<ConnectionInfo> {
    let (host, port) = host_and_port(address);
    let host = host.to_owned();
    let port = port.parse().map_err(|_| (redis::ErrorKind::InvalidClientConfig, "the port is no number"))?;
    let address = match server.tls {
        None => ConnectionAddr::Tcp(host, port),
        Some(verify) => ConnectionAddr::TcpTls { host, port, insecure: !verify, tls_params: None },
    };
    let mut settings = redis::RedisConnectionInfo::default().set_db(server.database);
    if let Some(username) = &server.username {
        settings = settings.set_username(username);
    }
    if let Some(password) = &server.password {
        settings = settings.set_password(password);
    }
    Ok(address.into_connection_info()?.set_redis_settings(settings))
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
