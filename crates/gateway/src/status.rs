//! The status listener: whether the gateway lives, whether it serves a configuration, and how its upstreams are.
//!
//! `GET /status` answers as long as the process lives; `GET /status/ready` only while a configuration is served,
//! so that a load balancer sends no traffic to a gateway that would answer 503.
//! `GET /metrics` is what is counted, for Prometheus; `GET /apisix/prometheus/metrics` the same under the names that
//! dashboards for Apache APISIX know, with what the `prometheus` plugin counted.
//! `GET /status/tls` lists the server names that have certificates, and counts failed handshakes.
//! `GET /status/upstreams` lists nodes and their health, with `?service_id=` those of one service.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::live::LiveConfig;
use crate::live::current::Current;
use crate::source::Connector;
use crate::source::report::Reports;
use crate::telemetry::Teller;
use crate::telemetry::access_log::writer::Channel;
use crate::telemetry::metrics::known;
use crate::telemetry::metrics::scrape::{self, Scraped};
use crate::telemetry::metrics::text::Exposition;
use crate::tls;
use crate::upstream;
use crate::worker::door::Door;

/// Where dashboards for Apache APISIX look.
const KNOWN_METRICS: &str = "/apisix/prometheus/metrics";

/// What is looked at.
#[derive(Clone)]
pub(crate) struct Shown {
    pub(crate) current: Current,
    pub(crate) reports: Reports,
    pub(crate) tls: Arc<tls::Shared>,
    pub(crate) access_log: Option<Channel>,
    pub(crate) door: Arc<Door>,
    pub(crate) teller: Arc<Teller>,
    pub(crate) connector: Option<Arc<dyn Connector>>,
}

impl Shown {
    fn certificate_expires_at(&self) -> Option<i64> {
        self.connector.as_ref()?.certificate_expires_at()
    }
}

/// Answers on `listener` until `stop`.
pub(crate) async fn serve(listener: TcpListener, shown: Shown, mut stop: watch::Receiver<bool>) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            continue;
        };
        let shown = shown.clone();
        tokio::spawn(async move {
            let service = service_fn(|request| {
                let shown = shown.clone();
                async move { Ok::<_, Infallible>(respond(&request, shown).await) }
            });
            let mut builder = hyper::server::conn::http1::Builder::new();
            builder.timer(TokioTimer::new());
            if let Err(error) = builder.serve_connection(TokioIo::new(stream), service).await {
                tracing::debug!(%error, "a status connection broke");
            }
        });
    }
}

async fn respond(request: &Request<Incoming>, shown: Shown) -> Response<Full<Bytes>> {
    match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, path @ ("/metrics" | KNOWN_METRICS)) => {
            let accept = request.headers().get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
            let known = path == KNOWN_METRICS;
            let exposition = match known {
                true => Exposition::Prometheus,
                false => Exposition::accepted(accept.unwrap_or_default()),
            };
            // Writing tens of thousands of lines takes a moment that others here need not wait.
            let text = tokio::task::spawn_blocking(move || metrics(&shown, known, exposition)).await;
            let mut response = Response::new(Full::from(text.unwrap_or_default()));
            let content_type = header::HeaderValue::from_static(exposition.content_type());
            response.headers_mut().insert(header::CONTENT_TYPE, content_type);
            response
        }
        _ => answer(request, &shown),
    }
}

fn metrics(shown: &Shown, known: bool, exposition: Exposition) -> String {
    let live = shown.current.load();
    let scraped = Scraped {
        metrics: &live.metrics,
        live: &live,
        served_since: shown.current.served_since().map(|since| since.as_secs_f64()),
        report: &shown.reports.now(),
        certificate_expires_at: shown.certificate_expires_at(),
        teller: &shown.teller,
        refusals: shown.door.refusals().collect(),
        evictions: shown.door.evictions().collect(),
        handshake_failures: shown.tls.failures.counts().collect(),
        lines_lost: shown.access_log.as_ref().map(Channel::lost).unwrap_or_default(),
    };
    if known { known::write(&scraped) } else { scrape::write(&scraped, exposition) }
}

fn answer(request: &Request<Incoming>, shown: &Shown) -> Response<Full<Bytes>> {
    let Shown { current, reports, tls, access_log, door, .. } = shown;
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
                "certificate_expires_at": shown.certificate_expires_at(),
                "access_log_lines_lost": access_log.as_ref().map(|log| log.lost().0 + log.lost().1),
                "connections": connections_view(door),
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
        (&Method::GET | &Method::HEAD, "/status/tls") => (StatusCode::OK, tls_view(&live, tls)),
        (
            _,
            "/metrics" | KNOWN_METRICS | "/status" | "/status/ready" | "/status/tls" | "/status/upstreams",
        ) => (StatusCode::METHOD_NOT_ALLOWED, json!({ "error_msg": "405 Method Not Allowed" })),
        _ => (StatusCode::NOT_FOUND, json!({ "error_msg": "404 Not Found" })),
    };
    let mut response = Response::new(Full::from(format!("{body}\n")));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    response
}

fn connections_view(door: &Door) -> serde_json::Value {
    let refused: serde_json::Map<_, _> =
        door.refusals().map(|(reason, count)| (reason.to_owned(), count.into())).collect();
    json!({ "open": door.open(), "refused": refused })
}

fn tls_view(live: &LiveConfig, tls: &tls::Shared) -> serde_json::Value {
    let names = live.server_names.list();
    let names: Vec<_> = names
        .iter()
        .map(|(name, shown)| {
            json!({
                "server_name": name,
                "ssl_id": shown.id(),
                "valid_until": shown.valid_until,
                "verifies_clients": shown.policy.is_some(),
            })
        })
        .collect();
    let failures: serde_json::Map<_, _> =
        tls.failures.counts().map(|(reason, count)| (reason.to_owned(), count.into())).collect();
    json!({ "revision": live.revision, "server_names": names, "handshake_failures": failures })
}
