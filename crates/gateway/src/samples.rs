//! Sends sampled heads to the control plane, and learns from it how to sample.
//!
//! They travel beside the watch, like heartbeats, and nothing depends on them. Until a control plane has said how,
//! nothing is sampled; while none answers, the newest heads are kept.

use std::sync::Arc;
use std::time::{Duration, Instant};

use gatewright_model::protocol::HEARTBEAT_INTERVAL;
use gatewright_model::sample::{HEADS_PER_SENDING_MAX, SAMPLES_PATH, Sampled, Samples};
use hyper::StatusCode;
use tokio::sync::watch;

use crate::config::Settings;
use crate::source::connection::Shared;
use crate::source::post::{NotTaken, Post, post};
use crate::telemetry::sampler::Sampler;

/// The pause after the first sending: who has just started is asked about soon. Each further one is twice as long, up to
/// that of heartbeats.
const PAUSE_MIN: Duration = Duration::from_secs(1);

const TO: Post = Post { path: SAMPLES_PATH, expected: StatusCode::OK, answer_bytes_max: 64 << 10 };

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
            match send(&shared, &settings, &samples).await {
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
    Ok(serde_json::from_slice(&post(shared, settings, &TO, samples).await?)?)
}
