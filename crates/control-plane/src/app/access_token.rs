//! Access tokens: what a user's scripts are known by. They may do what the user may, and die with the user.

use gatewright_model::validation::Violations;

use super::token::{Digest, token_new};
use super::user_document::{AccessTokenChange, AccessTokenEnd, AccessTokenWish};
use super::{ACCESS_TOKEN_PREFIX, Action, App, Caller, Refusal};
use crate::store::{AccessTokenRow, Call, Listed, NewAccessToken, Reading};

/// What callers call it.
const NOUN: &str = "access token";

/// Tokens of one user.
const TOKENS_PER_USER_MAX: usize = 1000;

impl App {
    /// The caller's own tokens; nobody sees those of others.
    pub(crate) async fn access_token_list(&self, caller: &Caller) -> Result<Listed<AccessTokenRow>, Refusal> {
        caller.must(Action::ManageToken, caller.user_id())?;
        let rows = self.store().read().await?.access_token_list(caller.user_id()).await?;
        let total = i64::try_from(rows.len()).unwrap_or(i64::MAX);
        Ok(Listed { rows, total })
    }

    pub(crate) async fn access_token_get(
        &self,
        caller: &Caller,
        id: &str,
    ) -> Result<AccessTokenRow, Refusal> {
        caller.must(Action::ManageToken, caller.user_id())?;
        access_token(&mut self.store().read().await?, caller, id).await
    }

    /// Whether the caller has a token of this name.
    pub(crate) async fn access_token_name_exists(
        &self,
        caller: &Caller,
        name: &str,
    ) -> Result<bool, Refusal> {
        caller.must(Action::ManageToken, caller.user_id())?;
        let mut tx = self.store().read().await?;
        Ok(tx.access_token_named(caller.user_id(), name).await?.is_some())
    }

    /// Makes a token; its text is answered this once and stored nowhere.
    pub(crate) async fn access_token_create(
        &self,
        caller: &Caller,
        wish: AccessTokenWish,
    ) -> Result<(AccessTokenRow, String), Refusal> {
        caller.must(Action::ManageToken, caller.user_id())?;
        self.must_be_in_future(wish.expires_at)?;
        let mut tx = self.store().write().await?;
        name_must_be_free(&mut tx, caller, "", &wish.name).await?;
        if tx.access_token_list(caller.user_id()).await?.len() >= TOKENS_PER_USER_MAX {
            let message = format!("maximum number of access tokens of one user is {TOKENS_PER_USER_MAX}");
            return Err(Violations::one("", message).into());
        }
        let id: String = self.world().id();
        let token = token_new(self.world(), ACCESS_TOKEN_PREFIX);
        let stamp = tx.stamp(self.world().now()).await?;
        let digest = Digest::of(&token);
        let new = NewAccessToken {
            id: &id,
            user_id: caller.user_id(),
            name: &wish.name,
            sha256: digest.as_str(),
            expires_at: wish.expires_at,
        };
        tx.access_token_insert(stamp, &new).await?;
        let row = access_token(&mut tx, caller, &id).await?;
        Call::concerns(&id, &row.name);
        tx.commit().await?;
        Ok((row, token))
    }

    pub(crate) async fn access_token_put(
        &self,
        caller: &Caller,
        id: &str,
        wish: AccessTokenChange,
    ) -> Result<AccessTokenRow, Refusal> {
        caller.must(Action::ManageToken, caller.user_id())?;
        let mut tx = self.store().write().await?;
        let before = access_token(&mut tx, caller, id).await?;
        let expires_at = self.end(wish.expires_at, &before)?;
        name_must_be_free(&mut tx, caller, id, &wish.name).await?;
        let stamp = tx.stamp(self.world().now()).await?;
        tx.access_token_update(stamp, id, &wish.name, expires_at).await?;
        let row = access_token(&mut tx, caller, id).await?;
        Call::concerns(id, &row.name);
        tx.commit().await?;
        Ok(row)
    }

    /// Makes the token another text; the one it was is worth nothing from then on.
    pub(crate) async fn access_token_regenerate(
        &self,
        caller: &Caller,
        id: &str,
        wish: AccessTokenEnd,
    ) -> Result<(AccessTokenRow, String), Refusal> {
        caller.must(Action::ManageToken, caller.user_id())?;
        let mut tx = self.store().write().await?;
        let before = access_token(&mut tx, caller, id).await?;
        let expires_at = self.end(wish.expires_at, &before)?;
        let token = token_new(self.world(), ACCESS_TOKEN_PREFIX);
        let stamp = tx.stamp(self.world().now()).await?;
        tx.access_token_update(stamp, id, &before.name, expires_at).await?;
        tx.access_token_regenerate(stamp, id, Digest::of(&token).as_str()).await?;
        let row = access_token(&mut tx, caller, id).await?;
        Call::concerns(id, &row.name);
        tx.commit().await?;
        Ok((row, token))
    }

    pub(crate) async fn access_token_delete(&self, caller: &Caller, id: &str) -> Result<(), Refusal> {
        caller.must(Action::ManageToken, caller.user_id())?;
        let mut tx = self.store().write().await?;
        let before = access_token(&mut tx, caller, id).await?;
        tx.access_token_delete(id).await?;
        Call::concerns(id, &before.name);
        Ok(tx.commit().await?)
    }

    /// When a token ends from now on.
    fn end(&self, wish: Option<i64>, before: &AccessTokenRow) -> Result<i64, Violations> {
        let Some(expires_at) = wish else { return Ok(before.expires_at) };
        // Sent back as it was read is no wish for a token that has ended.
        if expires_at != before.expires_at {
            self.must_be_in_future(expires_at)?;
        }
        Ok(expires_at)
    }

    fn must_be_in_future(&self, expires_at: i64) -> Result<(), Violations> {
        if expires_at != 0 && expires_at <= self.world().now() {
            return Err(Violations::one("/expires_at", "must be in the future, or 0 for never"));
        }
        Ok(())
    }
}

async fn access_token(tx: &mut Reading, caller: &Caller, id: &str) -> Result<AccessTokenRow, Refusal> {
    let row = tx.access_token_get(caller.user_id(), id).await?;
    row.ok_or_else(|| Refusal::NotFound { noun: NOUN, id: id.to_owned() })
}

/// Refuses a name that a token other than `id` has.
async fn name_must_be_free(tx: &mut Reading, caller: &Caller, id: &str, name: &str) -> Result<(), Refusal> {
    match tx.access_token_named(caller.user_id(), name).await? {
        Some(other) if other != id => {
            Err(Refusal::NameTaken { noun: NOUN, name: name.to_owned(), by: other })
        }
        _ => Ok(()),
    }
}
