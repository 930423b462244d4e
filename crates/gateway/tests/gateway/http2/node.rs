//! A node that speaks HTTP/2.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::{HeaderMap, Request, Response};
use rustls::crypto::ring;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{LocalSet, spawn_local};

use crate::tls_world::Identity;

/// A node that records what it is asked.
pub(crate) struct Http2Node {
    pub(crate) address: SocketAddr,
    heads: Arc<Mutex<Vec<Request<()>>>>,
    connections: Arc<AtomicUsize>,
}

/// How a node is set up.
#[derive(Default)]
pub(crate) struct Setup {
    /// Requests it takes at a time on one connection; 0: as many as come.
    pub(crate) streams_max: u32,
    pub(crate) identity: Option<Identity>,
}

impl Http2Node {
    /// Handles every request with `handle`.
    pub(crate) fn with<F>(handle: impl Fn(Call) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + 'static,
    {
        Self::set_up(Setup::default(), handle)
    }

    pub(crate) fn set_up<F>(setup: Setup, handle: impl Fn(Call) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + 'static,
    {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let (heads, connections) = (Arc::default(), Arc::default());
        let node = Self { address, heads: Arc::clone(&heads), connections: Arc::clone(&connections) };
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let serving = serve(listener, setup, handle, heads, connections);
            LocalSet::new().block_on(&runtime, serving);
        });
        node
    }

    /// What it was asked so far.
    pub(crate) fn heads(&self) -> Vec<Request<()>> {
        self.heads.lock().unwrap().clone()
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

async fn serve<F: Future<Output = ()> + 'static>(
    listener: std::net::TcpListener,
    setup: Setup,
    handle: impl Fn(Call) -> F + 'static,
    heads: Arc<Mutex<Vec<Request<()>>>>,
    connections: Arc<AtomicUsize>,
) {
    let listener = TcpListener::from_std(listener).unwrap();
    let handle = std::rc::Rc::new(handle);
    let acceptor = setup.identity.map(|identity| {
        let config = rustls::ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth();
        let mut config = config.with_single_cert(identity.chain(), identity.private_key()).unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        tokio_rustls::TlsAcceptor::from(Arc::new(config))
    });
    while let Ok((stream, _)) = listener.accept().await {
        connections.fetch_add(1, Ordering::SeqCst);
        let (heads, handle, acceptor) = (Arc::clone(&heads), handle.clone(), acceptor.clone());
        spawn_local(async move {
            let stream = secured(stream, acceptor).await;
            let mut server = h2::server::Builder::new();
            if setup.streams_max > 0 {
                server.max_concurrent_streams(setup.streams_max);
            }
            let mut connection = server.handshake::<_, Bytes>(stream).await.expect("HTTP/2");
            while let Some(Ok((request, respond))) = connection.accept().await {
                let (parts, incoming) = request.into_parts();
                let head = Request::from_parts(parts, ());
                heads.lock().unwrap().push(head.clone());
                spawn_local(handle(Call { head, incoming, respond }));
            }
        });
    }
}

trait Stream: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Stream for T {}

async fn secured(stream: TcpStream, acceptor: Option<tokio_rustls::TlsAcceptor>) -> Box<dyn Stream> {
    match acceptor {
        Some(acceptor) => Box::new(acceptor.accept(stream).await.expect("TLS")),
        None => Box::new(stream),
    }
}

/// One request at a node.
pub(crate) struct Call {
    pub(crate) head: Request<()>,
    pub(crate) incoming: RecvStream,
    pub(crate) respond: SendResponse<Bytes>,
}

impl Call {
    /// The next data of the request; `None`: there is no more.
    pub(crate) async fn data(&mut self) -> Option<Bytes> {
        let data = self.incoming.data().await?.ok()?;
        let _ = self.incoming.flow_control().release_capacity(data.len());
        Some(data)
    }

    pub(crate) async fn body(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        while let Some(data) = self.data().await {
            body.extend_from_slice(&data);
        }
        body
    }
}

/// A head with these fields.
pub(crate) fn head(status: u16, fields: &[(&'static str, &str)]) -> Response<()> {
    let mut head = Response::new(());
    *head.status_mut() = status.try_into().unwrap();
    *head.headers_mut() = map(fields);
    head
}

pub(crate) fn map(fields: &[(&'static str, &str)]) -> HeaderMap {
    fields.iter().map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap())).collect()
}
