//! Sends sampled heads to the control plane, and learns from it how to sample.
//!
//! They travel beside the watch, like heartbeats, and nothing depends on them. Until a control plane has said how,
//! nothing is sampled; while none answers, the newest heads are kept.

use std::sync::Arc;
use std::time::{Duration, Instant};

use gatewright_model::protocol::{HEARTBEAT_INTERVAL, TOKEN_HEADER};
use gatewright_model::sample::{HEADS_PER_SENDING_MAX, SAMPLES_PATH, Sampled, Samples};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{Request, StatusCode, header};
use tokio::sync::watch;

use crate::config::Settings;
use crate::source::connection::{ORIGIN, Shared};
use crate::telemetry::sampler::Sampler;

/// The pause after the first sending: who has just started is asked about soon. Each further one is twice as long, up to
/// that of heartbeats.
const PAUSE_MIN: Duration = Duration::from_secs(1);

/// How long one sending may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes of an answer.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// Why heads were not taken.
#[derive(Debug, thiserror::Error)]
enum NotTaken {
    #[error("no answer within {} seconds", TIMEOUT.as_secs())]
    Silent,
    #[error("the connection broke: {0}")]
    Broken(#[from] hyper::Error),
    #[error("refused with {0}")]
    Refused(StatusCode),
    #[error("they cannot be written, or the answer cannot be read: {0}")]
    Json(#[from] serde_json::Error),
    #[error("they cannot be sent: {0}")]
    Request(#[from] hyper::http::Error),
    #[error("the answer is too long, or broke off")]
    Answer,
}

/// Sends until `stop`, whenever there is a connection.
pub(crate) async fn send_sampled(
    settings: Settings,
    shared: Shared,
    sampler: Arc<Sampler>,
    mut stop: watch::Receiver<bool>,
) {
    let round = async {
        let (mut next, mut pause) = (0, PAUSE_MIN);
        loop {
            shared.opened().await;
            let (first, heads) = sampler.heads(next, Instant::now());
            let is_full = heads.len() >= HEADS_PER_SENDING_MAX;
            let samples =
                Samples { instance_id: settings.instance_id.clone(), life: sampler.life, first, heads };
            let sending = tokio::time::timeout(TIMEOUT, send(&shared, &settings, &samples));
            match sending.await.unwrap_or(Err(NotTaken::Silent)) {
                Ok(answer) => {
                    sampler.configure(answer.settings);
                    let has_moved = std::mem::replace(&mut next, answer.next) != answer.next;
                    if is_full && has_moved {
                        continue;
                    }
                }
                Err(error) => tracing::debug!(%error, "sampled heads were not taken"),
            }
            // Jitter keeps a thousand gateways from sending in the same instant.
            tokio::time::sleep(pause.mul_f64(0.9 + 0.2 * fastrand::f64())).await;
            pause = (pause * 2).min(HEARTBEAT_INTERVAL);
        }
    };
    tokio::select! {
        () = round => {}
        () = sampler.strike() => {}
        _ = stop.wait_for(|stop| *stop) => {}
    }
}

async fn send(shared: &Shared, settings: &Settings, samples: &Samples) -> Result<Sampled, NotTaken> {
    let request = Request::post(format!("{ORIGIN}{SAMPLES_PATH}"))
        .header(header::CONTENT_TYPE, "application/json")
        .header(TOKEN_HEADER, &settings.instance_token)
        .body(Full::from(serde_json::to_vec(samples)?))?;
    let response = shared.send(request).await?;
    if response.status() != StatusCode::OK {
        return Err(NotTaken::Refused(response.status()));
    }
    let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
    let body = body.map_err(|_| NotTaken::Answer)?.to_bytes();
    Ok(serde_json::from_slice(&body)?)
}
