//! The status listener: whether the gateway lives, whether it serves a configuration, and how its upstreams are.
//!
//! `GET /status` answers as long as the process lives; `GET /status/ready` only while a configuration is served,
//! so that a load balancer sends no traffic to a gateway that would answer 503.
//! `GET /status/upstreams` lists nodes and their health, with `?service_id=` those of one service.

use std::convert::Infallible;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::live::current::Current;
use crate::source::report::Reports;
use crate::upstream;

/// Answers on `listener` until `stop`.
pub(crate) async fn serve(
    listener: TcpListener,
    current: Current,
    reports: Reports,
    mut stop: watch::Receiver<bool>,
) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            continue;
        };
        let (current, reports) = (current.clone(), reports.clone());
        tokio::spawn(async move {
            let service = service_fn(|request| {
                let response = answer(&request, &current, &reports);
                async move { Ok::<_, Infallible>(response) }
            });
            let mut builder = hyper::server::conn::http1::Builder::new();
            builder.timer(TokioTimer::new());
            if let Err(error) = builder.serve_connection(TokioIo::new(stream), service).await {
                tracing::debug!(%error, "a status connection broke");
            }
        });
    }
}

fn answer(request: &Request<Incoming>, current: &Current, reports: &Reports) -> Response<Full<Bytes>> {
    let live = current.load();
    let revision = live.revision;
    let (status, body) = match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/status") => (
            StatusCode::OK,
            json!({
                "status": "ok",
                "version": env!("CARGO_PKG_VERSION"),
                "revision": revision,
                "configuration": reports.now(),
            }),
        ),
        (&Method::GET | &Method::HEAD, "/status/ready") if revision.is_some() => {
            (StatusCode::OK, json!({ "status": "ready", "revision": revision }))
        }
        (&Method::GET | &Method::HEAD, "/status/ready") => (
            StatusCode::SERVICE_UNAVAILABLE,
            json!({ "status": "not ready", "reason": "no configuration yet" }),
        ),
        (&Method::GET | &Method::HEAD, "/status/upstreams") => {
            let pairs = request.uri().query().unwrap_or_default().split('&');
            let service_id = pairs.filter_map(|pair| pair.strip_prefix("service_id=")).next();
            (
                StatusCode::OK,
                json!({ "revision": revision, "upstreams": upstream::status::view(&live, service_id) }),
            )
        }
        (_, "/status" | "/status/ready" | "/status/upstreams") => {
            (StatusCode::METHOD_NOT_ALLOWED, json!({ "error_msg": "405 Method Not Allowed" }))
        }
        _ => (StatusCode::NOT_FOUND, json!({ "error_msg": "404 Not Found" })),
    };
    let mut response = Response::new(Full::from(format!("{body}\n")));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    response
}
