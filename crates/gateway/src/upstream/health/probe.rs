//! One probe of one node.
//!
//! A fresh connection each time: a probe that came through an old one would say nothing about new ones.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gatewright_model::resource::checks::{ActiveCheck, CheckType};
use http_body_util::Full;
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::Asking;
use super::state::Seen;
use super::statuses::Statuses;
use crate::tls::node::NodeSession;

/// What is sent and how the answer is judged.
pub(crate) struct Probe {
    timeout: Duration,
    tls: Option<Arc<NodeSession>>,
    /// Absent: opening a connection is all.
    http: Option<Http>,
}

struct Http {
    request: Request<Full<Bytes>>,
    success: Statuses,
    failure: Statuses,
}

impl Probe {
    /// Compiles the probe.
    ///
    /// # Errors
    /// When no valid request can be made of it.
    pub(crate) fn compile(check: &ActiveCheck, asking: Asking<'_>) -> Result<Self, hyper::http::Error> {
        let http = match check.check_type {
            CheckType::Tcp => None,
            CheckType::Http | CheckType::Https => Some(Http {
                request: request(check, asking.host)?,
                success: Statuses::new(&check.healthy.http_statuses),
                failure: Statuses::new(&check.unhealthy.http_statuses),
            }),
        };
        Ok(Self { timeout: check.timeout.duration(), tls: asking.tls, http })
    }

    /// Probes once. An answer whose status counts neither way says nothing.
    pub(crate) async fn run(&self, address: SocketAddr) -> Option<Seen> {
        match tokio::time::timeout(self.timeout, self.attempt(address)).await {
            Ok(seen) => seen,
            Err(_) => Some(Seen::Timeout),
        }
    }

    async fn attempt(&self, address: SocketAddr) -> Option<Seen> {
        let Ok(stream) = TcpStream::connect(address).await else { return Some(Seen::TcpFailure) };
        let Some(http) = &self.http else { return Some(Seen::Success) };
        let request = http.request.clone();
        let answer = match &self.tls {
            None => answer(stream, request).await,
            Some(tls) => match tls.connect(stream, address).await {
                Ok(stream) => answer(stream, request).await,
                Err(_) => return Some(Seen::TcpFailure),
            },
        };
        match answer {
            Ok(status) if http.success.contains(status.as_u16()) => Some(Seen::Success),
            Ok(status) if http.failure.contains(status.as_u16()) => Some(Seen::HttpFailure),
            Ok(_) => None,
            Err(error) if error.is_parse() => Some(Seen::HttpFailure),
            Err(_) => Some(Seen::TcpFailure),
        }
    }
}

/// The status of the answer; its body is nobody's concern.
async fn answer(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    request: Request<Full<Bytes>>,
) -> hyper::Result<StatusCode> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let asking = sender.send_request(request);
    tokio::pin!(connection, asking);
    let mut open = true;
    loop {
        tokio::select! {
            response = &mut asking => return response.map(|response| response.status()),
            _ = &mut connection, if open => open = false,
        }
    }
}

fn request(check: &ActiveCheck, host: &[u8]) -> Result<Request<Full<Bytes>>, hyper::http::Error> {
    let mut request = Request::builder()
        .method(check.http_method.as_str())
        .uri(check.http_path.as_str())
        .header(header::HOST, host)
        .header(header::CONNECTION, "close");
    let mut names_itself = false;
    for field in &check.req_headers {
        let (name, value) = field.split_once(':').unwrap_or((field, ""));
        names_itself |= name.eq_ignore_ascii_case("user-agent");
        request = request.header(name, value.trim());
    }
    if !names_itself {
        let agent = concat!("gatewright/", env!("CARGO_PKG_VERSION"), " (health check)");
        request = request.header(header::USER_AGENT, agent);
    }
    request.body(Full::from(check.http_req_body.clone()))
}
