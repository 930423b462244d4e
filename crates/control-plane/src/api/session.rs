//! Logging in and out, and choosing a password.

use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};

use super::error::{ApiError, Refusals};
use super::request::{Json, Peer, SESSION_COOKIE};
use super::{Nothing, Single, SingleAnswer, single};
use crate::app::user_document::{PasswordWish, UserWish, login_parse, password_parse};
use crate::app::{App, Caller, Refusal, SESSION_SECONDS};

/// Logs a user in; the cookie of the answer is the session. The session that the user had before ends.
#[utoipa::path(post, path = "/api/login", tag = "user", security(()), request_body = UserWish,
    responses((status = 200, body = Single<Nothing>), Refusals))]
pub(super) async fn session_create(
    peer: Peer,
    State(app): State<App>,
    Json(body): Json,
) -> Result<Response, ApiError> {
    let (wish, _) = login_parse(body)?;
    let session = app.session_create(wish, peer.address).await?;
    with_session(&session, peer)
}

/// Logs out: ends the session of the caller.
#[utoipa::path(post, path = "/api/logout", tag = "user", responses((status = 200, body = Single<Nothing>), Refusals))]
pub(super) async fn session_delete(caller: Caller, State(app): State<App>) -> SingleAnswer<Nothing> {
    app.session_delete(&caller).await?;
    Ok(single(Nothing {}))
}

/// Changes the caller's own password; a session is replaced by the one in the cookie of the answer.
#[utoipa::path(put, path = "/api/password", tag = "user", request_body = PasswordWish,
    responses((status = 200, body = Single<Nothing>), Refusals))]
pub(super) async fn password_put(
    caller: Caller,
    peer: Peer,
    State(app): State<App>,
    Json(body): Json,
) -> Result<Response, ApiError> {
    match app.password_put(&caller, password_parse(body)?, peer.address).await? {
        Some(session) => with_session(&session, peer),
        None => Ok(single(Nothing {}).into_response()),
    }
}

/// No script can read the cookie, and no other site can have it sent.
fn with_session(session: &str, peer: Peer) -> Result<Response, ApiError> {
    let secure = if peer.is_tls { "; Secure" } else { "" };
    let cookie = format!(
        "{SESSION_COOKIE}={session}; Path=/; Max-Age={SESSION_SECONDS}; HttpOnly; SameSite=Strict{secure}"
    );
    let cookie =
        HeaderValue::try_from(cookie).map_err(|error| Refusal::Unavailable { reason: error.to_string() })?;
    Ok(([(header::SET_COOKIE, cookie)], single(Nothing {})).into_response())
}
