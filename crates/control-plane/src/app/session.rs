//! Sessions: a user logs in with a password, and out; a login ends the session the user had before.

use std::net::IpAddr;

use gatewright_model::validation::Violations;

use super::caller::Means;
use super::token::{Digest, token_new};
use super::user_document::{PasswordWish, UserWish};
use super::{ADMIN, App, Caller, Refusal, password_hash};
use crate::store::{Call, PasswordState, Stamp, Writing};

/// How long a session lasts, used or not: a day of work.
pub(crate) const SESSION_SECONDS: i64 = 12 * 60 * 60;

/// What sessions begin with.
const SESSION_PREFIX: &str = "gws-";

impl App {
    /// Starts a session, and answers with what proves it.
    pub(crate) async fn session_create(&self, wish: UserWish, address: IpAddr) -> Result<String, Refusal> {
        Call::note(|row| "dashboard".clone_into(&mut row.source));
        let user = self.password_check(wish.username, wish.password, address).await?;
        let mut tx = self.store().write().await?;
        // Looked at again where nobody else changes it: a given password is good for one login, not for two at once.
        let now = tx.user_named(&user.username).await?.ok_or(Refusal::WrongPassword)?;
        if now.password_hash != user.password_hash || now.password_state == PasswordState::GivenUsed {
            return Err(Refusal::WrongPassword);
        }
        Call::note(|row| {
            row.operator_id.clone_from(&user.id);
            row.operator_name.clone_from(&user.username);
        });
        Call::concerns(&user.id, &user.username);
        let stamp = tx.stamp(self.world().now()).await?;
        if now.password_state == PasswordState::Given {
            tx.user_password_update(stamp, &user.id, &user.password_hash, PasswordState::GivenUsed).await?;
        }
        let session = self.session_start(&mut tx, stamp, &user.id).await?;
        tx.commit().await?;
        Ok(session)
    }

    /// Ends the caller's session, if it has one.
    pub(crate) async fn session_delete(&self, caller: &Caller) -> Result<(), Refusal> {
        if *caller.means() != Means::Session {
            return Ok(());
        }
        let mut tx = self.store().write().await?;
        tx.session_delete(caller.user_id()).await?;
        Call::concerns(caller.user_id(), caller.username());
        Ok(tx.commit().await?)
    }

    /// Gives the caller another password. Sessions end; a caller with one gets a new one.
    pub(crate) async fn password_put(
        &self,
        caller: &Caller,
        wish: PasswordWish,
        address: IpAddr,
    ) -> Result<Option<String>, Refusal> {
        caller.must_be_user("iam:UpdatePassword")?;
        let checked = self.password_check(caller.username().to_owned(), wish.old_password, address).await;
        let user = checked.map_err(|refusal| match refusal {
            // The caller is known, so this is a mistake in the document.
            Refusal::WrongPassword => Violations::one("/old_password", "is not the current password").into(),
            other => other,
        })?;
        let hash = self.password_hash_apart(wish.new_password).await?;
        let mut tx = self.store().write().await?;
        let stamp = tx.stamp(self.world().now()).await?;
        tx.user_password_update(stamp, &user.id, &hash, PasswordState::Chosen).await?;
        let session = if *caller.means() == Means::Session {
            Some(self.session_start(&mut tx, stamp, &user.id).await?)
        } else {
            tx.session_delete(&user.id).await?;
            None
        };
        Call::concerns(&user.id, &user.username);
        tx.commit().await?;
        if user.username == ADMIN && !Call::current().is_some_and(|call| call.is_dry_run()) {
            self.admin_password_file_remove();
        }
        Ok(session)
    }

    /// What is in the file opens nothing any more, and would only mislead.
    fn admin_password_file_remove(&self) {
        let Some(path) = &self.parts.secrets.admin_password_file else { return };
        match std::fs::remove_file(path) {
            Ok(()) => {
                tracing::info!(path = %path.display(), "the generated password was replaced; its file is gone")
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "the file of the generated password is out of date and cannot be removed");
            }
        }
    }

    async fn session_start(&self, tx: &mut Writing, stamp: Stamp, user_id: &str) -> Result<String, Refusal> {
        let session = token_new(self.world(), SESSION_PREFIX);
        let expires_at = stamp.at.saturating_add(SESSION_SECONDS);
        tx.session_put(stamp, user_id, Digest::of(&session).as_str(), expires_at).await?;
        Ok(session)
    }

    /// Hashes where it keeps no other call waiting, and not too many at once.
    pub(super) async fn password_hash_apart(&self, password: String) -> Result<String, Refusal> {
        let failed = |reason: String| Refusal::Unavailable { reason };
        let _turn = self.parts.password_checks.acquire().await.map_err(|error| failed(error.to_string()))?;
        let app = self.clone();
        let hashing = tokio::task::spawn_blocking(move || password_hash(app.world(), &password));
        hashing.await.map_err(|error| failed(error.to_string()))?.map_err(|error| failed(error.to_string()))
    }
}
