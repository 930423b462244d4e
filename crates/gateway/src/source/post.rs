//! What an instance says of itself: documents that travel beside the watch, on the same connection.

use std::time::Duration;

use bytes::Bytes;
use gatewright_model::protocol::TOKEN_HEADER;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{Request, StatusCode, header};
use serde::Serialize;

use super::connection::{ORIGIN, Shared};
use crate::config::Settings;

/// How long a document may be on its way, and its answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes of a refusal that are shown in the log.
const SHOWN_BYTES_MAX: usize = 512;

/// Where documents of a kind go, and how they are answered.
pub(crate) struct Post {
    pub(crate) path: &'static str,
    /// The status of those that were taken.
    pub(crate) expected: StatusCode,
    pub(crate) answer_bytes_max: usize,
}

/// Why a document was not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotTaken {
    #[error("no answer within {} seconds", TIMEOUT.as_secs())]
    Silent,
    #[error("the connection broke: {0}")]
    Broken(#[from] hyper::Error),
    #[error("refused with {status}: {body}")]
    Refused { status: StatusCode, body: String },
    #[error("it cannot be written, or the answer cannot be read: {0}")]
    Json(#[from] serde_json::Error),
    #[error("it cannot be sent: {0}")]
    Request(#[from] hyper::http::Error),
    #[error("the answer is too long, or broke off")]
    Answer,
}

/// Sends `document` on the open connection, once there is one; hands back the body of the answer.
pub(crate) async fn post(
    shared: &Shared,
    settings: &Settings,
    to: &Post,
    document: &impl Serialize,
) -> Result<Bytes, NotTaken> {
    let sending = async {
        let request = Request::post(format!("{ORIGIN}{}", to.path))
            .header(header::CONTENT_TYPE, "application/json")
            .header(TOKEN_HEADER, &settings.instance_token)
            .body(Full::from(serde_json::to_vec(document)?))?;
        let response = shared.send(request).await?;
        let status = response.status();
        if status == to.expected {
            let body = Limited::new(response.into_body(), to.answer_bytes_max).collect().await;
            return Ok(body.map_err(|_| NotTaken::Answer)?.to_bytes());
        }
        let body = Limited::new(response.into_body(), SHOWN_BYTES_MAX).collect().await;
        let body = body.map(|body| String::from_utf8_lossy(&body.to_bytes()).into_owned());
        Err(NotTaken::Refused { status, body: body.unwrap_or_default() })
    };
    tokio::time::timeout(TIMEOUT, sending).await.unwrap_or(Err(NotTaken::Silent))
}
