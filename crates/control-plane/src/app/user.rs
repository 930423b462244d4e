//! Users: invited with a password that is good for one login, and able to do what their roles allow.

use gatewright_model::id::{GatewayGroupId, ServiceId};

use super::published_service::group_must_exist;
use super::service_version::paged;
use super::user_document::{NamesWish, PasswordResetWish, RolesWish, UserWish};
use super::{ADMIN, Action, App, Caller, Refusal, SUPER_ADMIN, service_template};
use crate::store::{Call, KnownUser, ListFilter, Listed, PasswordState, Reading, UserRow, UserSummary};

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

    /// The caller itself, which everybody may see.
    pub(crate) async fn user_me(&self, caller: &Caller) -> Result<UserSummary, Refusal> {
        caller.must_be_user("iam:GetMe")?;
        user(&mut self.store().read().await?, caller.user_id()).await
    }

    /// Changes what the caller is called.
    pub(crate) async fn user_me_put(&self, caller: &Caller, wish: NamesWish) -> Result<UserSummary, Refusal> {
        caller.must_be_user("iam:UpdateMe")?;
        let mut tx = self.store().write().await?;
        let stamp = tx.stamp(self.world().now()).await?;
        tx.user_names_update(stamp, caller.user_id(), (&wish.first_name, &wish.last_name)).await?;
        let after = user(&mut tx, caller.user_id()).await?;
        Call::concerns(caller.user_id(), caller.username());
        tx.commit().await?;
        Ok(after)
    }

    /// Who may use a gateway group.
    pub(crate) async fn gateway_group_permitted_users(
        &self,
        caller: &Caller,
        group: &GatewayGroupId,
        filter: &ListFilter,
    ) -> Result<Listed<UserSummary>, Refusal> {
        caller.must(Action::GetUser, "*")?;
        let mut tx = self.store().read().await?;
        group_must_exist(&mut tx, group).await?;
        permitted_users(&mut tx, filter).await
    }

    /// Who may use a service template.
    pub(crate) async fn service_permitted_users(
        &self,
        caller: &Caller,
        service: &ServiceId,
        filter: &ListFilter,
    ) -> Result<Listed<UserSummary>, Refusal> {
        caller.must(Action::GetUser, "*")?;
        let mut tx = self.store().read().await?;
        service_template::service_template(&mut tx, service).await?;
        permitted_users(&mut tx, filter).await
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

/// Those who may do everything: there is one role yet, and it is for no object in particular.
async fn permitted_users(tx: &mut Reading, filter: &ListFilter) -> Result<Listed<UserSummary>, Refusal> {
    let all = ListFilter { page: None, ..filter.clone() };
    let mut users = tx.user_list(&all).await?.rows;
    users.retain(|user| is_super_admin(&user.known));
    Ok(paged(users, filter))
}

/// Whether the user may do everything.
pub(crate) fn is_super_admin(user: &KnownUser) -> bool {
    user.username == ADMIN || user.roles.iter().any(|role| role == SUPER_ADMIN)
}

async fn user(tx: &mut Reading, id: &str) -> Result<UserSummary, Refusal> {
    tx.user_get(id).await?.ok_or_else(|| Refusal::NotFound { noun: NOUN, id: id.to_owned() })
}

async fn changeable_user(tx: &mut Reading, id: &str) -> Result<UserSummary, Refusal> {
    let user = user(tx, id).await?;
    if user.known.username == ADMIN { Err(Refusal::AdminProtected) } else { Ok(user) }
}
