//! The one way out of a plugin: HTTP requests of its own, and work that goes on beside requests.
//!
//! A plugin never sees a socket. It hands a [`Request`] to the [`Outbound`] of its [`crate::kind::Site`] and gets back
//! a future that fits into [`crate::exchange::Flow::Wait`]; the gateway sends it from its background runtime, keeps
//! connections and verifies certificates. Time and size of every answer are bounded by the request itself, and a
//! future that is dropped takes its request with it.
//!
//! Where configurations are only checked there is [`refusing`]: building an instance has no effect outside.

use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::kafka::Topic;
use crate::redis::{Call, Entry, Redis};

/// Bytes of the longest answer that is read unless a request says otherwise.
pub const ANSWER_BYTES_MAX: usize = 1024 * 1024;

/// What is waited for outside.
pub type Waiting<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// What the gateway does outside on behalf of plugins.
pub trait Outbound: Send + Sync {
    /// Sends `request` and reads the whole answer. Nothing is followed: a redirect is an answer like any other.
    fn send(&self, request: Request) -> Waiting<Result<Response, Failure>>;

    /// Does `work` beside requests, until it is done or the gateway ends.
    fn spawn(&self, work: Waiting<()>);

    /// Lets `time` pass.
    fn sleep(&self, time: Duration) -> Waiting<()>;

    /// Does `work` beside requests; a gateway that ends waits a moment for it, see [`Self::closing`].
    fn spawn_finishing(&self, work: Waiting<()>) {
        self.spawn(work);
    }

    /// Waits until the gateway ends.
    fn closing(&self) -> Waiting<()> {
        Box::pin(std::future::pending())
    }

    /// Passes `bytes` on to somebody who does not answer.
    fn deliver(&self, _to: &Destination, _bytes: Bytes) -> Waiting<Result<(), Failure>> {
        Box::pin(std::future::ready(Err(Failure::Unsendable("nothing is delivered here".to_owned()))))
    }

    /// Has a script run on a Redis server: one round trip.
    fn redis(&self, _server: &Arc<Redis>, _call: Call) -> Waiting<Result<Vec<i64>, Failure>> {
        Box::pin(std::future::ready(Err(Failure::Unreachable("there is no Redis here".to_owned()))))
    }

    /// Reads, writes or removes an entry of a Redis server: one round trip. What comes of it is the entry, or `None`
    /// where it was not there.
    fn redis_entry(&self, _server: &Arc<Redis>, _entry: Entry) -> Waiting<Result<Option<Bytes>, Failure>> {
        Box::pin(std::future::ready(Err(Failure::Unreachable("there is no Redis here".to_owned()))))
    }

    /// A place on disk under this name, which survives a restart; `None`: nothing is kept on disk here.
    fn shelf(&self, _name: &str) -> Option<Arc<dyn Shelf>> {
        None
    }

    /// Counts what a plugin had to tell and could not: so many entries.
    fn lost(&self, _plugin: &'static str, _entries: u64) {}

    /// Tells operators why.
    fn warn(&self, _plugin: &'static str, _reason: &str) {}
}

/// A place on disk where a plugin keeps things by name: letters, digits, `-` and `.`, at most 100.
///
/// What is read may be damaged, or gone: whoever keeps something there must be able to tell, and to do without.
pub trait Shelf: Send + Sync {
    /// What is there: names and bytes.
    fn names(&self) -> Waiting<Vec<(String, u64)>>;

    /// What is kept under `name`.
    fn read(&self, name: &str) -> Waiting<Option<Bytes>>;

    /// Keeps `bytes` under `name`, as a whole or not at all.
    fn write(&self, name: &str, bytes: Bytes) -> Waiting<Result<(), Failure>>;

    /// Forgets these.
    fn remove(&self, names: Vec<String>) -> Waiting<()>;
}

/// Somebody who takes bytes and does not answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// A TCP server, on a connection of its own.
    Stream {
        /// Where it is.
        to: Address,
        /// Whether it is talked to over TLS; its certificate is not verified, as these plugins never did.
        tls: bool,
        /// The name it is asked for over TLS, where that is not its host.
        server_name: Option<String>,
        /// How long connecting and writing may take.
        timeout: Duration,
    },
    /// A UDP server: one datagram.
    Datagram(Address),
    /// The end of a file, which is made if it is not there.
    File(PathBuf),
    /// A topic of Kafka: one message, which counts as delivered once brokers have it.
    Topic(Box<Topic>),
}

/// A name or an address, and a port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Address {
    /// The name or address.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// A request of a plugin's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The method.
    pub method: &'static str,
    /// Where to: `http://…` or `https://…`.
    pub url: String,
    /// The fields, without those that frame the body; `Host` is that of the address where it is absent.
    pub fields: Vec<(String, Vec<u8>)>,
    /// The body.
    pub body: Bytes,
    /// How long everything may take, from the first byte to the last.
    pub timeout: Duration,
    /// Bytes of the longest body of an answer; a longer one is a [`Failure`].
    pub answer_bytes_max: usize,
    /// How it is connected.
    pub connection: Connection,
}

/// How a request is connected. Requests that agree in this share connections.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Connection {
    /// Whether the other side has to show a certificate that verifies.
    pub verify: bool,
    /// Idle connections kept for one address; 0: none is kept.
    pub idle_max: usize,
    /// How long an idle connection is kept.
    pub idle_timeout: Duration,
    /// The proxy that is asked to forward, if there is one.
    pub proxy: Option<Proxy>,
}

/// A proxy between the gateway and what it asks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Proxy {
    /// For `http://…`.
    pub http: Option<Via>,
    /// For `https://…`.
    pub https: Option<Via>,
    /// Hosts that are asked directly, separated by commas.
    pub except: Option<String>,
}

/// The address of a proxy, and what `Proxy-Authorization` tells it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Via {
    /// Its address.
    pub url: String,
    /// What it is told.
    pub authorization: Option<String>,
}

impl Default for Connection {
    fn default() -> Self {
        Self { verify: true, idle_max: 5, idle_timeout: Duration::from_secs(60), proxy: None }
    }
}

impl Request {
    /// A request without fields and body, with the usual limits.
    #[must_use]
    pub fn new(method: &'static str, url: impl Into<String>) -> Self {
        Self {
            method,
            url: url.into(),
            fields: Vec::new(),
            body: Bytes::new(),
            timeout: Duration::from_secs(3),
            answer_bytes_max: ANSWER_BYTES_MAX,
            connection: Connection::default(),
        }
    }

    /// `GET`.
    #[must_use]
    pub fn get(url: impl Into<String>) -> Self {
        Self::new("GET", url)
    }

    /// `POST`.
    #[must_use]
    pub fn post(url: impl Into<String>, body: impl Into<Bytes>) -> Self {
        Self { body: body.into(), ..Self::new("POST", url) }
    }

    /// The request with one more field.
    #[must_use]
    pub fn field(mut self, name: impl Into<String>, value: impl Into<Vec<u8>>) -> Self {
        self.fields.push((name.into(), value.into()));
        self
    }

    /// The request with this limit on its time.
    #[must_use]
    pub fn within(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// The request, connected like this.
    #[must_use]
    pub fn over(self, connection: Connection) -> Self {
        Self { connection, ..self }
    }
}

/// An answer, read as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Response {
    /// The status.
    pub status: u16,
    /// The fields, in order; names in lower case.
    pub fields: Vec<(String, Vec<u8>)>,
    /// The body.
    pub body: Bytes,
}

impl Response {
    /// The first value of a field.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&[u8]> {
        let named = self.fields.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        named.map(|(_, value)| value.as_slice())
    }

    /// Whether the status says that it went well.
    #[must_use]
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The request makes no sense: what is wrong with it.
    Unsendable(String),
    /// Nobody was reached, or the connection broke: why.
    Unreachable(String),
    /// It took longer than the request allows.
    TimedOut,
    /// The answer is longer than the request allows.
    TooLarge,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unsendable(reason) => write!(f, "the request cannot be sent: {reason}"),
            Self::Unreachable(reason) => write!(f, "no answer: {reason}"),
            Self::TimedOut => f.write_str("no answer in time"),
            Self::TooLarge => f.write_str("the answer is too long"),
        }
    }
}

impl std::error::Error for Failure {}

// What a proxy is told is a secret.
impl fmt::Debug for Via {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url)
    }
}

/// An outbound that does nothing: for where configurations are only checked.
#[must_use]
pub fn refusing() -> Arc<dyn Outbound> {
    Arc::new(Refusing)
}

struct Refusing;

impl Outbound for Refusing {
    fn send(&self, _: Request) -> Waiting<Result<Response, Failure>> {
        let reason = "configurations are only checked here".to_owned();
        Box::pin(std::future::ready(Err(Failure::Unsendable(reason))))
    }

    fn spawn(&self, _: Waiting<()>) {}

    fn sleep(&self, _: Duration) -> Waiting<()> {
        Box::pin(std::future::pending())
    }
}
