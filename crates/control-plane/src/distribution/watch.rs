//! The watch: a gateway names what it has and is sent, line by line, everything that changes after it. Beside it, the
//! heartbeats of gateways.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Extension, Json, Query, State};
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::{get, post};
use bytes::Bytes;
use gatewright_model::id::GatewayGroupId;
use gatewright_model::protocol::{
    CONTENT_TYPE, ENCODING, HEARTBEAT_BYTES_MAX, HEARTBEAT_PATH, Heartbeat, Message, PING_INTERVAL,
    TOKEN_HEADER, WATCH_PATH, WatchQuery, is_newer,
};
use gatewright_model::sample::{SAMPLES_BYTES_MAX, SAMPLES_PATH, Samples};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::counts::Open;
use super::feed::{Feeds, Have, Next};
use super::hint::Hints;
use super::intent::Intent;
use super::line::{Encoding, Line};
use crate::api::Peer;
use crate::app::{Digest, Proof, Proved, Refusal};

/// After how long the store is asked again although no hint came: what a lost hint costs.
const RECHECK_INTERVAL: Duration = Duration::from_secs(5);

/// The release of this control plane; a gateway may be older, never newer.
const RELEASE: &str = env!("CARGO_PKG_VERSION");

#[derive(Clone)]
struct Watch {
    intent: Arc<dyn Intent>,
    hints: Hints,
    feeds: Feeds,
    stopping: CancellationToken,
}

/// The routes of the sync listener. Watches end when `stopping` is cancelled.
pub(crate) fn watch_router(
    intent: Arc<dyn Intent>,
    hints: Hints,
    feeds: Feeds,
    stopping: CancellationToken,
) -> axum::Router {
    axum::Router::new()
        .route(WATCH_PATH, get(watch_open))
        .route(HEARTBEAT_PATH, post(heartbeat_take).layer(DefaultBodyLimit::max(HEARTBEAT_BYTES_MAX)))
        .route(SAMPLES_PATH, post(samples_take).layer(DefaultBodyLimit::max(SAMPLES_BYTES_MAX)))
        .fallback(|| async {
            answer(StatusCode::NOT_FOUND, "there is nothing here but the watch, heartbeats and samples")
        })
        .with_state(Watch { intent, hints, feeds, stopping })
}

async fn watch_open(
    State(watch): State<Watch>,
    peer: Option<Extension<Peer>>,
    headers: HeaderMap,
    query: Result<Query<WatchQuery>, axum::extract::rejection::QueryRejection>,
) -> Response<Body> {
    let proof = proof(peer.as_deref(), &headers);
    let group = match proved(&*watch.intent, &proof).await {
        Ok(proved) => proved.gateway_group_id,
        Err(refused) => return refused,
    };
    let query = match query {
        Ok(Query(query)) => query,
        Err(rejection) => return answer(StatusCode::BAD_REQUEST, &rejection.body_text()),
    };
    if query.gateway_group_id != group {
        return answer(
            StatusCode::FORBIDDEN,
            "the instance token or certificate belongs to another gateway group",
        );
    }
    if let Some(refused) = query.version.as_deref().and_then(refuse_newer) {
        return refused;
    }
    let (have, epoch) = (query.have.map(|have| have.0), query.epoch.as_ref().map(tracing::field::display));
    tracing::info!(%group, have, epoch, "a gateway watches");
    let have = Have { epoch: query.epoch, revision: query.have, digest: query.digest };
    let accepted = headers.get(header::ACCEPT_ENCODING).and_then(|value| value.to_str().ok());
    let encoding = Encoding::accepted(accepted);
    let lines = Lines::new(watch, group, proof, have);
    let stream = futures_util::stream::unfold(lines, move |mut lines| async move {
        let line = lines.next_encoded(encoding).await?;
        Some((Ok::<_, Infallible>(line), lines))
    });
    let mut response = ([(header::CONTENT_TYPE, CONTENT_TYPE)], Body::from_stream(stream)).into_response();
    if encoding == Encoding::Packed {
        response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static(ENCODING));
    }
    response
}

async fn heartbeat_take(
    State(watch): State<Watch>,
    peer: Option<Extension<Peer>>,
    headers: HeaderMap,
    body: Result<Json<Heartbeat>, axum::extract::rejection::JsonRejection>,
) -> Response<Body> {
    let proved = match proved(&*watch.intent, &proof(peer.as_deref(), &headers)).await {
        Ok(proved) => proved,
        Err(refused) => return refused,
    };
    let heartbeat = match body {
        Ok(Json(heartbeat)) => heartbeat,
        Err(rejection) => return answer(rejection.status(), &rejection.body_text()),
    };
    if let Some(complaint) = heartbeat.complaint() {
        return answer(StatusCode::BAD_REQUEST, complaint);
    }
    if let Some(refused) = refuse_newer(&heartbeat.version) {
        return refused;
    }
    // Without a peer it is the gateway in this process.
    let ip = peer.map_or(Ipv4Addr::LOCALHOST.into(), |Extension(peer)| peer.address);
    match watch.intent.heard(&proved, ip, heartbeat) {
        Ok(()) => {
            watch.feeds.counts().heard();
            StatusCode::NO_CONTENT.into_response()
        }
        Err(error) => answer(StatusCode::SERVICE_UNAVAILABLE, &error.to_string()),
    }
}

async fn samples_take(
    State(watch): State<Watch>,
    peer: Option<Extension<Peer>>,
    headers: HeaderMap,
    body: Result<Json<Samples>, axum::extract::rejection::JsonRejection>,
) -> Response<Body> {
    let proved = match proved(&*watch.intent, &proof(peer.as_deref(), &headers)).await {
        Ok(proved) => proved,
        Err(refused) => return refused,
    };
    let samples = match body {
        Ok(Json(samples)) => samples,
        Err(rejection) => return answer(rejection.status(), &rejection.body_text()),
    };
    if let Some(complaint) = samples.complaint() {
        return answer(StatusCode::BAD_REQUEST, complaint);
    }
    match watch.intent.sampled(&proved, samples).await {
        Ok(sampled) => Json(sampled).into_response(),
        Err(error) => {
            tracing::error!(%error, "sampled heads could not be taken");
            answer(StatusCode::SERVICE_UNAVAILABLE, "the store is unavailable")
        }
    }
}

/// What a request comes with: the certificate of its connection, or else the token in its head.
fn proof(peer: Option<&Peer>, headers: &HeaderMap) -> Proof {
    let certificate = peer.and_then(|peer| peer.certificate.clone());
    let token = || headers.get(TOKEN_HEADER).and_then(|value| value.to_str().ok()).unwrap_or_default();
    certificate.map_or_else(|| Proof::Token(Digest::of_instance_token(token())), Proof::Certificate)
}

/// The group that `proof` proves.
async fn proved(intent: &dyn Intent, proof: &Proof) -> Result<Proved, Response<Body>> {
    match (intent.identify(proof).await, proof) {
        (Ok(proved), _) => Ok(proved),
        (Err(Refusal::Unauthenticated), Proof::Token(_)) => {
            Err(answer(StatusCode::UNAUTHORIZED, "the instance token is missing, unknown or revoked"))
        }
        (Err(Refusal::Unauthenticated), Proof::Certificate(_)) => {
            let message = "the certificate is unknown or revoked, or has run out";
            Err(answer(StatusCode::UNAUTHORIZED, message))
        }
        (Err(refusal), _) => {
            tracing::error!(error = %refusal, "a gateway could not be identified");
            Err(answer(StatusCode::SERVICE_UNAVAILABLE, "the store is unavailable"))
        }
    }
}

/// A newer gateway may expect what this release cannot say.
fn refuse_newer(version: &str) -> Option<Response<Body>> {
    let message = format!(
        "the gateway (release {version}) is newer than this control plane (release {RELEASE}); upgrade the control plane first"
    );
    is_newer(version, RELEASE).then(|| answer(StatusCode::CONFLICT, &message))
}

fn answer(status: StatusCode, message: &str) -> Response<Body> {
    (status, Json(serde_json::json!({ "error_msg": message }))).into_response()
}

/// The lines of one watch.
struct Lines {
    watch: Watch,
    group: GatewayGroupId,
    proof: Proof,
    have: Have,
    /// Read already, not sent yet.
    waiting: VecDeque<Line>,
    hints: tokio::sync::watch::Receiver<()>,
    ping_at: Instant,
    /// The preparation that was sent last.
    prepared: Option<String>,
    /// There was a hint; if nothing has changed, then perhaps the gateway is no longer welcome.
    is_doubted: bool,
    /// Counted as open.
    _open: Open,
}

impl Lines {
    fn new(watch: Watch, group: GatewayGroupId, proof: Proof, have: Have) -> Self {
        let (hints, open) = (watch.hints.subscribe(&group), watch.feeds.counts().open());
        // The first line comes at once: a gateway that has everything waits to hear so.
        Self {
            watch,
            group,
            proof,
            have,
            waiting: VecDeque::new(),
            hints,
            ping_at: Instant::now(),
            prepared: None,
            is_doubted: false,
            _open: open,
        }
    }

    /// Waits for the next line, and counts it; none: the watch is over, and the gateway should come back.
    async fn next_encoded(&mut self, encoding: Encoding) -> Option<Bytes> {
        let line = self.next().await?;
        let encoded = line.encoded(encoding).await;
        let bytes = encoded
            .inspect_err(|error| tracing::error!(%error, "a watch ends because a line cannot be packed"));
        let bytes = bytes.ok()?;
        self.watch.feeds.counts().sent(line.says(), bytes.len() as u64);
        Some(bytes)
    }

    async fn next(&mut self) -> Option<Line> {
        loop {
            if let Some(line) = self.waiting.pop_front() {
                self.ping_at = Instant::now() + PING_INTERVAL;
                return Some(line);
            }
            // Seen before the store is read: a change after the reading leaves its hint for the waiting below.
            self.hints.borrow_and_update();
            let mut idle = Message::Ping;
            match self.watch.feeds.next(&*self.watch.intent, &self.group, &self.have).await {
                Ok(Next::Lines(lines, after)) => {
                    self.waiting = lines.into();
                    self.have = after;
                    self.is_doubted = false;
                    continue;
                }
                Ok(Next::Ahead(revision)) => idle = Message::Behind { revision },
                Ok(Next::Nothing) if std::mem::take(&mut self.is_doubted) && !self.is_welcome().await => {
                    return None;
                }
                Ok(Next::Nothing) => {}
                Ok(Next::NoGroup) => return None,
                Err(error) => {
                    tracing::error!(group = %self.group, %error, "a watch ends because the store cannot be read");
                    return None;
                }
            }
            if let Some(line) = self.preparation().await {
                self.waiting.push_back(line);
                continue;
            }
            tokio::select! {
                // A control plane that stops says nothing more, whatever else is due.
                biased;
                () = self.watch.stopping.cancelled() => return None,
                () = tokio::time::sleep_until(self.ping_at) => {
                    return if self.is_welcome().await { self.idle(&idle) } else { None };
                }
                changed = self.hints.changed() => {
                    changed.ok()?;
                    self.is_doubted = true;
                }
                () = tokio::time::sleep(RECHECK_INTERVAL) => {}
            }
        }
    }

    /// What the gateway is to prepare, unless it was told already. It has the newest revision by now.
    async fn preparation(&mut self) -> Option<Line> {
        let said = self.prepared.as_deref();
        match self.watch.feeds.preparation(&*self.watch.intent, &self.group, said).await {
            Ok(Some((id, line))) => {
                self.prepared = Some(id);
                Some(line)
            }
            Ok(None) => None,
            Err(error) => {
                tracing::error!(group = %self.group, %error, "what is to be prepared cannot be read");
                None
            }
        }
    }

    /// Whether the gateway may go on. What it came with may have been revoked or have run out, which it then learns
    /// when it comes back; a store that does not answer revokes nothing.
    async fn is_welcome(&self) -> bool {
        let proved = self.watch.intent.identify(&self.proof).await;
        let is_over = matches!(proved, Err(Refusal::Unauthenticated));
        if is_over {
            tracing::warn!(group = %self.group, "a watch ends: the token or certificate of the gateway was revoked or has run out");
        }
        !is_over
    }

    fn idle(&mut self, message: &Message) -> Option<Line> {
        self.ping_at = Instant::now() + PING_INTERVAL;
        Line::of(message).ok()
    }
}

#[cfg(test)]
mod tests {
    use gatewright_model::resource::gateway_group::GatewayGroup;
    use gatewright_model::snapshot::Revision;

    use super::*;
    use crate::app::App;
    use crate::app::tests::app;

    fn token() -> Proof {
        Proof::Token(Digest::of_instance_token("gwi-1.pin"))
    }

    fn watch(app: &App) -> Watch {
        let (hints, feeds) = (app.hints().clone(), app.feeds().clone());
        Watch { intent: Arc::new(app.clone()), hints, feeds, stopping: CancellationToken::new() }
    }

    async fn lines(app: &App, have: u64) -> Lines {
        let group = "g".parse().unwrap();
        let content: GatewayGroup = serde_json::from_value(serde_json::json!({"name": "g"})).unwrap();
        let mut tx = app.store().write().await.unwrap();
        let stamp = tx.stamp(1).await.unwrap();
        tx.gateway_group_insert(stamp, &group, &content).await.unwrap();
        tx.instance_token_insert(stamp, "t", &group, Digest::of("gwi-1").as_str()).await.unwrap();
        tx.commit().await.unwrap();
        let watch = watch(app);
        let mut tx = app.store().read().await.unwrap();
        let epoch = Some(tx.store_epoch().await.unwrap());
        Lines::new(watch, group, token(), Have { epoch, revision: Some(Revision(have)), digest: None })
    }

    impl Lines {
        async fn said(&mut self) -> Option<Bytes> {
            self.next_encoded(Encoding::Plain).await
        }
    }

    #[tokio::test]
    async fn a_gateway_that_has_everything_is_pinged_when_it_is_time() {
        let (app, _dir) = app().await;
        let mut lines = lines(&app, 0).await;
        assert_eq!(lines.said().await.unwrap(), "\"ping\"\n", "the first line comes at once");
        assert!(lines.ping_at > Instant::now(), "the next ping is one interval away");
    }

    #[tokio::test]
    async fn a_watch_ends_when_the_control_plane_stops_or_the_group_is_gone() {
        let (app, _dir) = app().await;
        let mut stopped = lines(&app, 0).await;
        stopped.watch.stopping.cancel();
        assert_eq!(stopped.said().await, None);
        let watch = watch(&app);
        let mut gone = Lines::new(watch, "nowhere".parse().unwrap(), token(), Have::default());
        assert_eq!(gone.said().await, None);
    }

    #[tokio::test]
    async fn p14_a_gateway_that_is_ahead_is_told_instead_of_rolled_back() {
        let (app, _dir) = app().await;
        let mut lines = lines(&app, 7).await;
        assert_eq!(lines.said().await.unwrap(), "{\"behind\":{\"revision\":0}}\n");
    }

    #[tokio::test]
    async fn e16_a_watch_ends_when_what_the_gateway_came_with_is_revoked() {
        let (app, _dir) = app().await;
        let mut lines = lines(&app, 0).await;
        assert!(lines.said().await.is_some());
        let mut tx = app.store().write().await.unwrap();
        assert!(tx.instance_token_delete(&lines.group, "t").await.unwrap());
        tx.commit().await.unwrap();
        app.hints().changed(&lines.group);
        assert_eq!(lines.said().await, None, "it learns why when it comes back");
    }

    #[test]
    fn a_gateway_newer_than_its_control_plane_is_refused() {
        assert!(refuse_newer("999.0.0").is_some());
        assert!(refuse_newer(RELEASE).is_none() && refuse_newer("0.0.1").is_none());
    }
}
