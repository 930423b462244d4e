//! The way outside that plugins get: HTTP on the background runtime, with connections kept and shared.
//!
//! Workers only wait for the outcome, so a slow or broken answer costs the request that asked and nobody else.
//! Certificates are verified by the authorities that nodes are verified by, with the same TLS.

mod connecting;
mod delivery;
#[cfg(feature = "kafka")]
mod kafka;
mod redis;
mod shelf;
pub(crate) mod shipments;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use gatewright_discovery::outside::{self, Names};
use gatewright_plugins::outbound::{
    Connection, Destination, Failure, Outbound, Proxy as Wanted, Request, Response, Shelf, Via, Waiting,
};
use gatewright_plugins::redis::{Call, Entry, Redis};
use reqwest::header::{HeaderName, HeaderValue};
use reqwest::redirect::Policy;
use reqwest::{Client, Method, NoProxy, Proxy};
use tokio::runtime::Handle;
use tokio_util::task::AbortOnDropHandle;

use self::redis::Servers;
use crate::config::DeniedNetworks;
use crate::tls;
use crate::upstream::Outside;
use shipments::Shipments;

/// Clients kept, one for each way of connecting that configurations ask for. Beyond that all start anew, which costs
/// their idle connections.
const CLIENTS_MAX: usize = 64;

/// What plugins send requests with.
pub(crate) struct Http {
    runtime: Handle,
    clients: Arc<Clients>,
    shipments: Arc<Shipments>,
    servers: Arc<Servers>,
    #[cfg(feature = "kafka")]
    topics: Arc<kafka::Producers>,
    /// Where plugins may keep something on disk.
    shelves: Option<PathBuf>,
}

struct Clients {
    tls: Arc<tls::Shared>,
    denied: DeniedNetworks,
    known: Mutex<HashMap<Connection, Client>>,
}

impl Http {
    /// Sends requests from `runtime`, as `outside` says.
    pub(crate) fn new(runtime: Handle, outside: Outside) -> Self {
        let Outside { tls, shipments, denied, plugin_dir } = outside;
        let servers = Arc::new(Servers::new(Arc::clone(&tls), denied.clone()));
        #[cfg(feature = "kafka")]
        let topics = Arc::new(kafka::Producers::new(&denied));
        let clients = Arc::new(Clients { tls, denied, known: Mutex::default() });
        Self {
            runtime,
            clients,
            shipments,
            servers,
            #[cfg(feature = "kafka")]
            topics,
            shelves: plugin_dir,
        }
    }

    /// Does `work` on the background runtime, for as long as somebody waits for what comes of it.
    fn beside<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, Failure>> + Send + 'static,
    ) -> Waiting<Result<T, Failure>> {
        let working = AbortOnDropHandle::new(self.runtime.spawn(work));
        Box::pin(async move {
            let broken = |error: tokio::task::JoinError| Err(Failure::Unreachable(error.to_string()));
            working.await.unwrap_or_else(broken)
        })
    }
}

impl Outbound for Http {
    fn send(&self, request: Request) -> Waiting<Result<Response, Failure>> {
        let clients = Arc::clone(&self.clients);
        self.beside(async move { clients.send(request).await })
    }

    fn spawn(&self, work: Waiting<()>) {
        self.runtime.spawn(work);
    }

    fn sleep(&self, time: Duration) -> Waiting<()> {
        // The timer belongs to the background runtime, whoever waits for it; it is made there for that reason.
        let sleeping = self.runtime.spawn(async move { tokio::time::sleep(time).await });
        let sleeping = AbortOnDropHandle::new(sleeping);
        Box::pin(async move {
            // It only fails when the gateway ends.
            let _ = sleeping.await;
        })
    }

    fn spawn_finishing(&self, work: Waiting<()>) {
        self.shipments.follow(work, &self.runtime);
    }

    fn closing(&self) -> Waiting<()> {
        Box::pin(self.shipments.closing())
    }

    fn deliver(&self, to: &Destination, bytes: Bytes) -> Waiting<Result<(), Failure>> {
        let (to, clients) = (to.clone(), Arc::clone(&self.clients));
        #[cfg(feature = "kafka")]
        let topics = Arc::clone(&self.topics);
        self.beside(async move {
            delivery::deliver(
                &to,
                bytes,
                (&clients.tls, &clients.denied),
                #[cfg(feature = "kafka")]
                &topics,
            )
            .await
        })
    }

    fn redis(&self, server: &Arc<Redis>, call: Call) -> Waiting<Result<Vec<i64>, Failure>> {
        let (servers, server) = (Arc::clone(&self.servers), Arc::clone(server));
        self.beside(async move { servers.call(server, call).await })
    }

    fn redis_entry(&self, server: &Arc<Redis>, entry: Entry) -> Waiting<Result<Option<Bytes>, Failure>> {
        let (servers, server) = (Arc::clone(&self.servers), Arc::clone(server));
        self.beside(async move { servers.entry(server, entry).await })
    }

    fn shelf(&self, name: &str) -> Option<Arc<dyn Shelf>> {
        let folder = shelf::folder(self.shelves.as_deref()?, name);
        Some(Arc::new(shelf::Folder::new(folder, self.runtime.clone())))
    }

    fn lost(&self, plugin: &'static str, entries: u64) {
        self.shipments.count(plugin, entries);
    }

    fn warn(&self, plugin: &'static str, reason: &str) {
        if self.shipments.may_complain(plugin, Instant::now()) {
            tracing::warn!(plugin, reason, "a plugin cannot do outside what it has to do there");
        }
    }
}

impl Clients {
    async fn send(&self, request: Request) -> Result<Response, Failure> {
        let timeout = request.timeout;
        tokio::time::timeout(timeout, self.exchange(request)).await.unwrap_or(Err(Failure::TimedOut))
    }

    async fn exchange(&self, request: Request) -> Result<Response, Failure> {
        let client = self.client(&request.connection)?;
        let bytes_max = request.answer_bytes_max;
        let request = built(request)?;
        outside::must_be_allowed(request.url(), &self.denied.allow()).map_err(Failure::Unreachable)?;
        let mut answer = client.execute(request).await.map_err(unreachable)?;
        let status = answer.status().as_u16();
        let fields = answer.headers().iter();
        let fields = fields.map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec()));
        let fields = fields.collect();
        let body = body(&mut answer, bytes_max).await?;
        Ok(Response { status, fields, body })
    }

    fn client(&self, connection: &Connection) -> Result<Client, Failure> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = known.get(connection) {
            return Ok(client.clone());
        }
        let client = self.connect(connection)?;
        if known.len() >= CLIENTS_MAX {
            known.clear();
        }
        known.insert(connection.clone(), client.clone());
        Ok(client)
    }

    fn connect(&self, connection: &Connection) -> Result<Client, Failure> {
        let tls = self.tls.nodes.client(connection.verify);
        let tls = tls.map_err(|error| Failure::Unsendable(error.to_string()))?;
        let mut builder = Client::builder()
            .tls_backend_preconfigured(tls)
            // What is asked is what was configured: no redirects, and no proxy that only the environment knows of.
            .redirect(Policy::none())
            .dns_resolver(Arc::new(Names(self.denied.allow())))
            .no_proxy()
            .http1_only()
            .pool_max_idle_per_host(connection.idle_max)
            .pool_idle_timeout(connection.idle_timeout);
        for proxy in connection.proxy.iter().flat_map(proxies) {
            builder = builder.proxy(proxy?);
        }
        builder.build().map_err(unsendable)
    }
}

fn proxies(wanted: &Wanted) -> impl Iterator<Item = Result<Proxy, Failure>> {
    let except = wanted.except.as_deref().and_then(NoProxy::from_string);
    let http = wanted.http.as_ref().map(|via| proxy(Proxy::http(&via.url), via));
    let https = wanted.https.as_ref().map(|via| proxy(Proxy::https(&via.url), via));
    http.into_iter().chain(https).map(move |proxy| Ok(proxy?.no_proxy(except.clone())))
}

fn proxy(proxy: Result<Proxy, reqwest::Error>, via: &Via) -> Result<Proxy, Failure> {
    let proxy = proxy.map_err(unsendable)?;
    let Some(authorization) = &via.authorization else { return Ok(proxy) };
    let value = HeaderValue::from_str(authorization);
    let value = value.map_err(|error| Failure::Unsendable(format!("proxy authorization: {error}")))?;
    Ok(proxy.custom_http_auth(value))
}

fn built(request: Request) -> Result<reqwest::Request, Failure> {
    let wrong = |what: &str, error: &dyn std::fmt::Display| Failure::Unsendable(format!("{what}: {error}"));
    let method = Method::from_bytes(request.method.as_bytes()).map_err(|error| wrong("method", &error))?;
    let url = reqwest::Url::parse(&request.url).map_err(|error| wrong(&request.url, &error))?;
    let mut built = reqwest::Request::new(method, url);
    for (name, value) in request.fields {
        let field = HeaderName::from_bytes(name.as_bytes()).map_err(|error| wrong(&name, &error))?;
        let value = HeaderValue::from_bytes(&value).map_err(|error| wrong(&name, &error))?;
        built.headers_mut().append(field, value);
    }
    if !request.body.is_empty() {
        *built.body_mut() = Some(request.body.into());
    }
    Ok(built)
}

async fn body(answer: &mut reqwest::Response, bytes_max: usize) -> Result<Bytes, Failure> {
    let announced = answer.content_length().and_then(|length| usize::try_from(length).ok());
    if announced.is_some_and(|length| length > bytes_max) {
        return Err(Failure::TooLarge);
    }
    let mut body = BytesMut::new();
    while let Some(piece) = answer.chunk().await.map_err(unreachable)? {
        if body.len() + piece.len() > bytes_max {
            return Err(Failure::TooLarge);
        }
        body.extend_from_slice(&piece);
    }
    Ok(body.freeze())
}

fn unreachable(error: reqwest::Error) -> Failure {
    if error.is_timeout() {
        return Failure::TimedOut;
    }
    Failure::Unreachable(outside::reason(error))
}

fn unsendable(error: reqwest::Error) -> Failure {
    Failure::Unsendable(outside::reason(error))
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;
    use std::sync::mpsc;

    use super::*;

    /// Answers every request on every connection with `answer`; tells of connections and requests.
    fn peer(answer: &'static str) -> (String, mpsc::Receiver<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (tell, told) = mpsc::channel();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (mut stream, tell) = (stream.unwrap(), tell.clone());
                std::thread::spawn(move || {
                    let _ = tell.send("connected".to_owned());
                    let mut buffer = [0; 4096];
                    while let Ok(read @ 1..) = stream.read(&mut buffer) {
                        let _ = tell.send(String::from_utf8_lossy(&buffer[..read]).into_owned());
                        let _ = stream.write_all(answer.as_bytes());
                    }
                });
            }
        });
        (url, told)
    }

    fn http() -> (tokio::runtime::Runtime, Http) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.unwrap();
        let tls = Arc::new(tls::Shared::new(&crate::config::Tls::default()).unwrap());
        let denied = DeniedNetworks::new(["127.0.0.2/32".parse().unwrap()]);
        let outside = Outside { tls, shipments: Arc::default(), denied, plugin_dir: None };
        let http = Http::new(runtime.handle().clone(), outside);
        (runtime, http)
    }

    #[test]
    fn p25_what_is_denied_is_not_asked_told_or_counted_at() {
        let (_runtime, http) = http();
        let refused = |outcome: Result<(), Failure>| {
            let reason = outcome.unwrap_err().to_string();
            assert!(
                reason.contains("127.0.0.2 is in a network that this gateway must not reach"),
                "{reason}"
            );
        };
        for url in ["http://127.0.0.2:1/", "http://[::ffff:127.0.0.2]:1/", "http://2130706434:1/"] {
            refused(wait(http.send(Request::post(url.to_owned(), ""))).map(drop));
        }
        let to = gatewright_plugins::outbound::Address { host: "127.0.0.2".to_owned(), port: 1 };
        let timeout = Duration::from_secs(10);
        let stream = Destination::Stream { to: to.clone(), tls: false, server_name: None, timeout };
        for destination in [stream, Destination::Datagram(to)] {
            refused(wait(http.deliver(&destination, Bytes::from_static(b"x"))));
        }
    }

    /// As a worker waits: on a runtime of its own.
    fn wait<T>(waiting: Waiting<T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(waiting)
    }

    #[test]
    fn a_request_is_sent_as_it_is_and_connections_are_reused() {
        let (url, told) = peer("HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 2\r\n\r\nhi");
        let (_runtime, http) = http();
        for expected in ["connected", ""] {
            let request = Request::post(format!("{url}/a?b"), "body").field("X-A", "1");
            let answer = wait(http.send(request)).unwrap();
            assert_eq!((answer.status, answer.field("location")), (302, Some(&b"/x"[..])), "not followed");
            assert_eq!(&answer.body[..], b"hi");
            if !expected.is_empty() {
                assert_eq!(told.recv().unwrap(), expected);
            }
            let seen = told.recv().unwrap();
            assert!(seen.starts_with("POST /a?b HTTP/1.1\r\n") && seen.contains("x-a: 1\r\n"), "{seen}");
            assert!(seen.ends_with("\r\n\r\nbody") && seen.contains("content-length: 4\r\n"), "{seen}");
        }
        let closed = Connection { idle_max: 0, ..Connection::default() };
        for _ in 0..2 {
            wait(http.send(Request::get(&*url).over(closed.clone()))).unwrap();
            assert_eq!(told.recv().unwrap(), "connected", "none is kept where none may be");
            assert!(told.recv().unwrap().starts_with("GET / "));
        }
    }

    #[test]
    fn time_and_size_are_bounded_and_failures_say_why() {
        let (url, _told) = peer("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n");
        let (silent, _told_too) = peer("");
        let (_runtime, http) = http();
        let limited = |bytes| wait(http.send(Request { answer_bytes_max: bytes, ..Request::get(&*url) }));
        assert_eq!(limited(3).map(|answer| answer.body), Ok(Bytes::from_static(b"abc")));
        assert_eq!(limited(2), Err(Failure::TooLarge));
        let impatient = Request::get(&*silent).within(Duration::from_millis(50));
        assert_eq!(wait(http.send(impatient)), Err(Failure::TimedOut));
        let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let refused = wait(http.send(Request::get(format!("http://user:secret@{nobody}/"))));
        let Err(Failure::Unreachable(reason)) = refused else { panic!("{refused:?}") };
        assert!(reason.contains("refused") && !reason.contains("secret"), "{reason}");
        let wrong = wait(http.send(Request::get("nowhere")));
        assert!(matches!(wrong, Err(Failure::Unsendable(_))), "{wrong:?}");
    }

    #[test]
    fn work_beside_requests_goes_on_by_itself() {
        let (_runtime, http) = http();
        let (tell, told) = mpsc::channel();
        let sleeping = http.sleep(Duration::from_millis(1));
        http.spawn(Box::pin(async move {
            sleeping.await;
            tell.send("done").unwrap();
        }));
        assert_eq!(told.recv().unwrap(), "done");
    }
}
