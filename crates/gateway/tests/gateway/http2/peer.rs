//! A client that speaks proper HTTP/2.

use std::net::SocketAddr;

use bytes::Bytes;
use h2::client::SendRequest;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request, Response};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::LocalSet;

use crate::world::PATIENCE;

/// Runs a test's conversation, for as long as there is patience.
pub(crate) fn talk<T>(conversation: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let talking = async { tokio::time::timeout(PATIENCE, conversation).await.expect("an end in time") };
    LocalSet::new().block_on(&runtime, talking)
}

/// A connection to `address`.
pub(crate) async fn connect(address: SocketAddr) -> SendRequest<Bytes> {
    speak(TcpStream::connect(address).await.expect("a connection")).await
}

/// A connection over `stream`.
pub(crate) async fn speak(stream: impl AsyncRead + AsyncWrite + Unpin + 'static) -> SendRequest<Bytes> {
    let (sender, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
    tokio::task::spawn_local(async move {
        let _ = connection.await;
    });
    sender.ready().await.expect("a connection that takes requests")
}

/// An answer that came to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) head: Response<()>,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Option<HeaderMap>,
}

impl Answer {
    pub(crate) fn status(&self) -> u16 {
        self.head.status().as_u16()
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text")
    }
}

/// A request for `path` on host `a`.
pub(crate) fn request(method: &str, path: &str) -> http::request::Builder {
    Request::builder().method(method).uri(format!("http://a{path}"))
}

/// Sends one request and reads the answer.
pub(crate) async fn ask(
    sender: &mut SendRequest<Bytes>,
    request: Request<()>,
    body: &[u8],
) -> Result<Answer, h2::Error> {
    let (answering, mut sending) = sender.send_request(request, body.is_empty())?;
    if !body.is_empty() {
        let body = body.to_vec();
        // Beside the answer, which may begin before all of it was sent.
        tokio::task::spawn_local(async move {
            let _ = send(&mut sending, &body, true).await;
        });
    }
    let (head, body) = answering.await?.into_parts();
    read(Response::from_parts(head, ()), body).await
}

/// Reads an answer to its end.
pub(crate) async fn read(head: Response<()>, mut incoming: RecvStream) -> Result<Answer, h2::Error> {
    let mut body = Vec::new();
    while let Some(data) = incoming.data().await {
        let data = data?;
        incoming.flow_control().release_capacity(data.len())?;
        body.extend_from_slice(&data);
    }
    let trailers = incoming.trailers().await?;
    Ok(Answer { head, body, trailers })
}

/// Sends data as fast as it is taken.
pub(crate) async fn send(sending: &mut SendStream<Bytes>, data: &[u8], last: bool) -> Result<(), h2::Error> {
    let mut rest = Bytes::copy_from_slice(data);
    while !rest.is_empty() {
        sending.reserve_capacity(rest.len());
        let room = std::future::poll_fn(|context| sending.poll_capacity(context)).await;
        let room = room.expect("an open stream")?;
        let piece = rest.split_to(room.min(rest.len()));
        sending.send_data(piece, last && rest.is_empty())?;
    }
    Ok(())
}
