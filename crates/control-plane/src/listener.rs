//! Connections: accepted up to a limit, served with time limits, and finished gracefully.

use std::error::Error;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::Request;
use hyper::body::Incoming;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulConnection;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api::Peer;
use crate::app::Digest;

/// How long a request head may take, and a kept connection may idle: slow writers hold no connection for ever.
const HEAD_READ_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a TLS handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes buffered per connection while a head is read.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// How often a silent HTTP/2 connection is asked whether its other end lives.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(30);

/// Requests at the same time on one HTTP/2 connection: a gateway has a watch and a heartbeat.
const STREAMS_MAX: u32 = 8;

/// Bytes of all fields of one HTTP/2 request.
const HEADER_LIST_BYTES_MAX: u32 = 16 << 10;

/// How long accepting pauses when the system refuses, mostly because file descriptors ran out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How everything that serves connections is brought to its end.
#[derive(Clone, Default)]
pub(crate) struct Stopping {
    /// Nothing new is accepted; requests in flight finish.
    pub(crate) graceful: CancellationToken,
    /// Nothing is waited for any more.
    pub(crate) at_once: CancellationToken,
    pub(crate) tasks: TaskTracker,
}

impl Stopping {
    /// Stops; what is not finished at `deadline` is dropped.
    pub(crate) async fn stop(&self, deadline: Duration) {
        self.graceful.cancel();
        self.tasks.close();
        if tokio::time::timeout(deadline, self.tasks.wait()).await.is_err() {
            let seconds = deadline.as_secs();
            tracing::warn!(seconds, "requests were still in flight at the deadline and are dropped");
            self.at_once.cancel();
            self.tasks.wait().await;
        }
    }
}

/// What connections to a listener begin with.
#[derive(Clone)]
pub(crate) enum Opening {
    Plain,
    Tls(TlsAcceptor),
    /// HTTP/2 over TLS, but for callers on this machine, who may speak in the clear.
    Sync(TlsAcceptor),
}

/// The first byte of a TLS handshake; no request begins with it.
const HANDSHAKE: u8 = 22;

impl Opening {
    /// What to shake hands with, if hands are shaken; `Err`: the connection is not welcome.
    async fn acceptor(
        &self,
        stream: &TcpStream,
        from: SocketAddr,
    ) -> Result<Option<&TlsAcceptor>, &'static str> {
        match self {
            Self::Plain => Ok(None),
            Self::Tls(tls) => Ok(Some(tls)),
            Self::Sync(tls) => {
                let mut first = [0; 1];
                let peeked = tokio::time::timeout(HANDSHAKE_TIMEOUT, stream.peek(&mut first)).await;
                match peeked {
                    Ok(Ok(1)) if first[0] == HANDSHAKE => Ok(Some(tls)),
                    Ok(Ok(1)) if from.ip().to_canonical().is_loopback() => Ok(None),
                    Ok(Ok(1)) => Err("it does not speak TLS, which only this machine need not"),
                    _ => Err("it said nothing"),
                }
            }
        }
    }
}

/// Serves `router` on every connection to `listener`, opened as `opening` says, at most `connections_max` at a
/// time; more wait in the system's queue.
pub(crate) async fn serve(
    listener: TcpListener,
    opening: Opening,
    router: axum::Router,
    connections_max: usize,
    stopping: Stopping,
) {
    let places = Arc::new(Semaphore::new(connections_max));
    loop {
        let accepted = tokio::select! {
            () = stopping.graceful.cancelled() => return,
            accepted = accept(&listener, &places) => accepted,
        };
        let Some((stream, address, place)) = accepted else { continue };
        let (opening, router, connection_stopping) = (opening.clone(), router.clone(), stopping.clone());
        stopping.tasks.spawn(async move {
            open_and_serve(stream, address, &opening, router, &connection_stopping).await;
            drop(place);
        });
    }
}

async fn open_and_serve(
    stream: TcpStream,
    from: SocketAddr,
    opening: &Opening,
    router: axum::Router,
    stopping: &Stopping,
) {
    let acceptor = tokio::select! {
        () = stopping.graceful.cancelled() => return,
        acceptor = opening.acceptor(&stream, from) => acceptor,
    };
    let peer = Peer { address: from.ip().to_canonical(), is_tls: false, certificate: None };
    let is_http2 = matches!(opening, Opening::Sync(_));
    match acceptor {
        Ok(None) if is_http2 => serve_http2(stream, Some(peer), router, stopping).await,
        Ok(None) => serve_http1(stream, peer, router, stopping).await,
        Ok(Some(tls)) => {
            let Some(stream) = shake_hands(tls, stream, stopping).await else { return };
            let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
            let certificate = shown.map(|certificate| Digest::of_bytes(certificate));
            let peer = Peer { is_tls: true, certificate, ..peer };
            match is_http2 {
                true => serve_http2(stream, Some(peer), router, stopping).await,
                false => serve_http1(stream, peer, router, stopping).await,
            }
        }
        Err(reason) => tracing::warn!(%from, reason, "a connection is closed"),
    }
}

async fn shake_hands(
    tls: &TlsAcceptor,
    stream: TcpStream,
    stopping: &Stopping,
) -> Option<TlsStream<TcpStream>> {
    let shaken = tokio::select! {
        () = stopping.graceful.cancelled() => return None,
        shaken = tokio::time::timeout(HANDSHAKE_TIMEOUT, tls.accept(stream)) => shaken,
    };
    match shaken {
        Ok(Ok(stream)) => return Some(stream),
        Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
        Err(_) => tracing::debug!("a TLS handshake took too long"),
    }
    None
}

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> Option<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, address)) => {
            // Answers are small and written whole; waiting for more to send would only delay them.
            let _ = stream.set_nodelay(true);
            Some((stream, address, place))
        }
        Err(error) => {
            tracing::warn!(%error, "a connection could not be accepted");
            tokio::time::sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}

/// Serves `router` on one HTTP/1 connection until it closes; `peer`: who is at its other end.
async fn serve_http1<I: AsyncRead + AsyncWrite + Send + Unpin + 'static>(
    stream: I,
    peer: Peer,
    router: axum::Router,
    stopping: &Stopping,
) {
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer.clone());
        router.call(request)
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_READ_TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    until_served(connection, std::future::pending(), stopping).await;
}

/// Serves `router` on one HTTP/2 connection until it closes, or until nothing has been asked on it for a while;
/// `peer`: who is at its other end, if that is another process.
pub(crate) async fn serve_http2<I: AsyncRead + AsyncWrite + Send + Unpin + 'static>(
    stream: I,
    peer: Option<Peer>,
    router: axum::Router,
    stopping: &Stopping,
) {
    let router = TowerToHyperService::new(router);
    // Every answer holds on to it until its last byte is sent.
    let answers = Arc::new(AtomicBool::new(false));
    let in_flight = Arc::clone(&answers);
    let service = service_fn(move |mut request: Request<Incoming>| {
        let answer = Arc::clone(&in_flight);
        answer.store(true, Ordering::Relaxed);
        if let Some(peer) = peer.clone() {
            request.extensions_mut().insert(peer);
        }
        let answering = router.call(request);
        async move {
            let response = answering.await?;
            Ok::<_, std::convert::Infallible>(response.map(|body| {
                body.map_frame(move |frame| {
                    answer.store(true, Ordering::Relaxed);
                    frame
                })
            }))
        }
    });
    let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEADER_LIST_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    until_served(connection, until_unused(&answers), stopping).await;
}

/// Waits until a connection has had no answer under way and no request for [`HEAD_READ_TIMEOUT`].
async fn until_unused(answers: &Arc<AtomicBool>) {
    // One is held here, one by the service.
    const AT_REST: usize = 2;
    loop {
        tokio::time::sleep(HEAD_READ_TIMEOUT).await;
        if !answers.swap(false, Ordering::Relaxed) && Arc::strong_count(answers) <= AT_REST {
            return;
        }
    }
}

/// Drives a connection until it ends, is `unused`, or everything stops.
async fn until_served<C>(connection: C, unused: impl Future<Output = ()>, stopping: &Stopping)
where
    C: GracefulConnection<Error: Error>,
{
    let mut connection = pin!(connection);
    let served = tokio::select! {
        served = connection.as_mut() => served,
        () = unused => Ok(()),
        () = stopping.graceful.cancelled() => {
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                served = connection => served,
                () = stopping.at_once.cancelled() => Ok(()),
            }
        }
    };
    if let Err(error) = served {
        tracing::debug!(%error, "a connection ended early");
    }
}
