//! Users: invited with a password that is good for one login, and able to do what their roles allow.

use super::user_document::{PasswordResetWish, RolesWish, UserWish};
use super::{ADMIN, Action, App, Caller, Refusal};
use crate::store::{Call, ListFilter, Listed, PasswordState, Reading, UserRow, UserSummary};

/// What callers call it.
const NOUN: &str = "user";

impl App {
    pub(crate) async fn user_list(
        &self,
        caller: &Caller,
        filter: &ListFilter,
    ) -> Result<Listed<UserSummary>, Refusal> {
        caller.must(Action::GetUser, "*")?;
        Ok(self.store().read().await?.user_list(filter).await?)
    }

    pub(crate) async fn user_get(&self, caller: &Caller, id: &str) -> Result<UserSummary, Refusal> {
        caller.must(Action::GetUser, id)?;
        user(&mut self.store().read().await?, id).await
    }

    pub(crate) async fn user_invite(&self, caller: &Caller, wish: UserWish) -> Result<UserSummary, Refusal> {
        caller.must(Action::InviteUser, "*")?;
        let password_hash = self.password_hash_apart(wish.password).await?;
        let mut tx = self.store().write().await?;
        if let Some(other) = tx.user_named(&wish.username).await? {
            return Err(Refusal::NameTaken { noun: NOUN, name: wish.username, by: other.id });
        }
        let id: String = self.world().id();
        let stamp = tx.stamp(self.world().now()).await?;
        let password_state = PasswordState::Given;
        let row = UserRow { id: id.clone(), username: wish.username, password_hash, password_state };
        tx.user_insert(stamp, &row).await?;
        let invited = user(&mut tx, &id).await?;
        Call::concerns(&id, &row.username);
        tx.commit().await?;
        Ok(invited)
    }

    /// Gives somebody else a password that is good for one login; the user's session ends.
    pub(crate) async fn user_password_reset(
        &self,
        caller: &Caller,
        id: &str,
        wish: PasswordResetWish,
    ) -> Result<UserSummary, Refusal> {
        caller.must(Action::ResetPassword, id)?;
        let hash = self.password_hash_apart(wish.password).await?;
        let mut tx = self.store().write().await?;
        changeable_user(&mut tx, id).await?;
        let stamp = tx.stamp(self.world().now()).await?;
        tx.user_password_update(stamp, id, &hash, PasswordState::Given).await?;
        tx.session_delete(id).await?;
        let after = user(&mut tx, id).await?;
        Call::concerns(id, &after.known.username);
        tx.commit().await?;
        Ok(after)
    }

    pub(crate) async fn user_roles_put(
        &self,
        caller: &Caller,
        id: &str,
        wish: RolesWish,
    ) -> Result<UserSummary, Refusal> {
        caller.must(Action::UpdateUserRole, id)?;
        let mut tx = self.store().write().await?;
        changeable_user(&mut tx, id).await?;
        let stamp = tx.stamp(self.world().now()).await?;
        tx.user_roles_put(stamp, id, &wish.roles).await?;
        let after = user(&mut tx, id).await?;
        Call::concerns(id, &after.known.username);
        tx.commit().await?;
        Ok(after)
    }

    pub(crate) async fn user_delete(&self, caller: &Caller, id: &str) -> Result<(), Refusal> {
        caller.must(Action::DeleteUser, id)?;
        let mut tx = self.store().write().await?;
        let before = changeable_user(&mut tx, id).await?;
        tx.user_delete(id).await?;
        Call::concerns(id, &before.known.username);
        Ok(tx.commit().await?)
    }
}

async fn user(tx: &mut Reading, id: &str) -> Result<UserSummary, Refusal> {
    tx.user_get(id).await?.ok_or_else(|| Refusal::NotFound { noun: NOUN, id: id.to_owned() })
}

async fn changeable_user(tx: &mut Reading, id: &str) -> Result<UserSummary, Refusal> {
    let user = user(tx, id).await?;
    if user.known.username == ADMIN { Err(Refusal::AdminProtected) } else { Ok(user) }
}
