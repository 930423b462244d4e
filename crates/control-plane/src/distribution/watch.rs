//! The watch: a gateway names the revision it has and is sent, line by line, everything that changes after it.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, Response, StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use bytes::Bytes;
use gatewright_model::id::GatewayGroupId;
use gatewright_model::protocol::{
    CONTENT_TYPE, Message, PING_INTERVAL, TOKEN_HEADER, WATCH_PATH, WatchQuery,
};
use gatewright_model::snapshot::Revision;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::assemble::{Assembled, assemble};
use crate::app::{App, Refusal};

/// After how long the store is asked again although no hint came: what a lost hint costs.
const RECHECK_INTERVAL: Duration = Duration::from_secs(5);

#[derive(Clone)]
struct Watch {
    app: App,
    stopping: CancellationToken,
}

/// The routes of the sync listener. Watches end when `stopping` is cancelled.
pub(crate) fn watch_router(app: App, stopping: CancellationToken) -> axum::Router {
    axum::Router::new()
        .route(WATCH_PATH, get(watch_open))
        .fallback(|| async { answer(StatusCode::NOT_FOUND, "there is nothing here but the watch") })
        .with_state(Watch { app, stopping })
}

async fn watch_open(
    State(watch): State<Watch>,
    headers: HeaderMap,
    query: Result<Query<WatchQuery>, axum::extract::rejection::QueryRejection>,
) -> Response<Body> {
    let token = headers.get(TOKEN_HEADER).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let group = match watch.app.instance_identify(token).await {
        Ok(group) => group,
        Err(Refusal::Unauthenticated) => {
            return answer(StatusCode::UNAUTHORIZED, "the instance token is missing or unknown");
        }
        Err(refusal) => {
            tracing::error!(?refusal, "a gateway could not be identified");
            return answer(StatusCode::SERVICE_UNAVAILABLE, "the store is unavailable");
        }
    };
    let query = match query {
        Ok(Query(query)) => query,
        Err(rejection) => return answer(StatusCode::BAD_REQUEST, &rejection.body_text()),
    };
    if query.gateway_group_id != group {
        return answer(StatusCode::FORBIDDEN, "the instance token belongs to another gateway group");
    }
    tracing::info!(%group, have = ?query.have, "a gateway watches");
    let lines = Lines::new(watch, group, query.have);
    let stream = futures_util::stream::unfold(lines, |mut lines| async {
        let line = lines.next().await?;
        Some((Ok::<_, Infallible>(line), lines))
    });
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], Body::from_stream(stream)).into_response()
}

fn answer(status: StatusCode, message: &str) -> Response<Body> {
    (status, axum::Json(serde_json::json!({ "error_msg": message }))).into_response()
}

/// The lines of one watch.
struct Lines {
    watch: Watch,
    group: GatewayGroupId,
    have: Option<Revision>,
    hints: tokio::sync::watch::Receiver<()>,
    ping_at: Instant,
}

impl Lines {
    fn new(watch: Watch, group: GatewayGroupId, have: Option<Revision>) -> Self {
        let hints = watch.app.hints().subscribe(&group);
        Self { watch, group, have, hints, ping_at: Instant::now() + PING_INTERVAL }
    }

    /// Waits for the next line; none: the watch is over, and the gateway should come back.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            // Seen before the store is read: a change after the reading leaves its hint for the waiting below.
            self.hints.borrow_and_update();
            match assemble(self.watch.app.store(), &self.group, self.have).await {
                Ok(Assembled::Update(update)) => {
                    self.have = Some(update.revision);
                    return self.line(&Message::Update(update));
                }
                Ok(Assembled::Nothing) => {}
                Ok(Assembled::NoGroup) => return None,
                Err(error) => {
                    tracing::error!(group = %self.group, %error, "a watch ends because the store cannot be read");
                    return None;
                }
            }
            tokio::select! {
                () = self.watch.stopping.cancelled() => return None,
                () = tokio::time::sleep_until(self.ping_at) => return self.line(&Message::Ping),
                changed = self.hints.changed() => changed.ok()?,
                () = tokio::time::sleep(RECHECK_INTERVAL) => {}
            }
        }
    }

    fn line(&mut self, message: &Message) -> Option<Bytes> {
        self.ping_at = Instant::now() + PING_INTERVAL;
        let mut line = match serde_json::to_vec(message) {
            Ok(line) => line,
            Err(error) => {
                tracing::error!(group = %self.group, %error, "a configuration cannot be written");
                return None;
            }
        };
        line.push(b'\n');
        Some(line.into())
    }
}

#[cfg(test)]
mod tests {
    use gatewright_model::resource::gateway_group::GatewayGroup;

    use super::*;
    use crate::app::tests::app;

    async fn lines(app: &App, have: u64) -> Lines {
        let group = "g".parse().unwrap();
        let content: GatewayGroup = serde_json::from_value(serde_json::json!({"name": "g"})).unwrap();
        let mut tx = app.store().write().await.unwrap();
        let stamp = tx.stamp(1).await.unwrap();
        tx.gateway_group_insert(stamp, &group, &content).await.unwrap();
        tx.commit().await.unwrap();
        let watch = Watch { app: app.clone(), stopping: CancellationToken::new() };
        Lines::new(watch, group, Some(Revision(have)))
    }

    #[tokio::test]
    async fn a_gateway_that_has_everything_is_pinged_when_it_is_time() {
        let (app, _dir) = app().await;
        let mut lines = lines(&app, 0).await;
        lines.ping_at = Instant::now();
        assert_eq!(lines.next().await.unwrap(), "{\"kind\":\"ping\"}\n");
        assert!(lines.ping_at > Instant::now(), "the next ping is one interval away");
    }

    #[tokio::test]
    async fn a_watch_ends_when_the_control_plane_stops_or_the_group_is_gone() {
        let (app, _dir) = app().await;
        let mut stopped = lines(&app, 0).await;
        stopped.watch.stopping.cancel();
        assert_eq!(stopped.next().await, None);
        let watch = Watch { app: app.clone(), stopping: CancellationToken::new() };
        let mut gone = Lines::new(watch, "nowhere".parse().unwrap(), None);
        assert_eq!(gone.next().await, None);
    }
}
