//! Who calls, and the one place where every operation asks whether it may.

use std::net::IpAddr;

use gatewright_model::id::GatewayGroupId;

use super::password::{password_decoy, password_matches};
use super::token::Digest;
use super::{App, Refusal, is_super_admin};
use crate::store::{Call, KnownUser, PasswordState, UserRow};

/// What proves who a caller is.
#[derive(Clone)]
pub(crate) enum Credentials {
    /// An access token, or the admin key of a gateway group.
    Token(String),
    /// A session.
    Session(String),
    /// A user's name and password.
    Password { username: String, password: String },
}

/// Somebody who is known.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    /// Empty for admin keys of gateway groups, which are nobody's.
    user_id: String,
    username: String,
    rights: Rights,
    means: Means,
}

/// What a caller may do.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Rights {
    Everything,
    /// What is done in this gateway group.
    Group(GatewayGroupId),
    /// Nothing but to choose a password.
    PasswordDue,
    Nothing,
}

/// How a caller was known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Means {
    Session,
    /// A token, and what it is called.
    Token(String),
    Password,
}

/// What a caller may be allowed to do, by the names of the published permission model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    GetGatewayGroup,
    GetGatewayInstance,
    CreateGatewayInstance,
    DeleteGatewayInstance,
    CreateGatewayGroup,
    UpdateGatewayGroup,
    DeleteGatewayGroup,
    GetServiceTemplate,
    CreateServiceTemplate,
    UpdateServiceTemplate,
    DeleteServiceTemplate,
    PublishServices,
    GetPublishedService,
    DeletePublishedService,
    UpdateServiceRuntime,
    GetUser,
    InviteUser,
    UpdateUserRole,
    ResetPassword,
    DeleteUser,
    GetAudit,
    ExportAudits,
    GetLicense,
    UpdateLicense,
    GetRole,
    GetPermission,
    /// The tokens of the caller; everybody's own business, but for those who may do nothing.
    ManageToken,
    CreatePublishedService,
    UpdatePublishedService,
    GetConsumer,
    CreateConsumer,
    UpdateConsumer,
    DeleteConsumer,
    GetCertificate,
    CreateCertificate,
    UpdateCertificate,
    DeleteCertificate,
    GetSni,
    CreateSni,
    UpdateSni,
    DeleteSni,
    GetGlobalPluginRule,
    CreateGlobalPluginRule,
    UpdateGlobalPluginRule,
    DeleteGlobalPluginRule,
    GetPluginMetadata,
    UpdatePluginMetadata,
    DeletePluginMetadata,
    GetSecret,
    PutSecret,
    DeleteSecret,
    GetServiceRegistry,
    ConnectServiceRegistry,
    UpdateServiceRegistry,
    DisconnectServiceRegistry,
}

impl Action {
    /// Every action, ordered as the published permission model orders them: by what they are done to.
    pub(crate) const ALL: [Self; 55] = [
        Self::GetGatewayGroup,
        Self::CreateGatewayGroup,
        Self::UpdateGatewayGroup,
        Self::DeleteGatewayGroup,
        Self::GetGatewayInstance,
        Self::CreateGatewayInstance,
        Self::DeleteGatewayInstance,
        Self::GetServiceTemplate,
        Self::CreateServiceTemplate,
        Self::UpdateServiceTemplate,
        Self::DeleteServiceTemplate,
        Self::PublishServices,
        Self::GetPublishedService,
        Self::CreatePublishedService,
        Self::UpdatePublishedService,
        Self::DeletePublishedService,
        Self::UpdateServiceRuntime,
        Self::GetConsumer,
        Self::CreateConsumer,
        Self::UpdateConsumer,
        Self::DeleteConsumer,
        Self::GetCertificate,
        Self::CreateCertificate,
        Self::UpdateCertificate,
        Self::DeleteCertificate,
        Self::GetSni,
        Self::CreateSni,
        Self::UpdateSni,
        Self::DeleteSni,
        Self::GetGlobalPluginRule,
        Self::CreateGlobalPluginRule,
        Self::UpdateGlobalPluginRule,
        Self::DeleteGlobalPluginRule,
        Self::GetPluginMetadata,
        Self::UpdatePluginMetadata,
        Self::DeletePluginMetadata,
        Self::GetSecret,
        Self::PutSecret,
        Self::DeleteSecret,
        Self::GetServiceRegistry,
        Self::ConnectServiceRegistry,
        Self::UpdateServiceRegistry,
        Self::DisconnectServiceRegistry,
        Self::GetUser,
        Self::InviteUser,
        Self::UpdateUserRole,
        Self::ResetPassword,
        Self::DeleteUser,
        Self::GetAudit,
        Self::ExportAudits,
        Self::GetLicense,
        Self::UpdateLicense,
        Self::ManageToken,
        Self::GetRole,
        Self::GetPermission,
    ];

    /// The name, as permission policies say it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::GetGatewayGroup => "gateway:GetGatewayGroup",
            Self::GetGatewayInstance => "gateway:GetGatewayInstance",
            Self::CreateGatewayInstance => "gateway:CreateGatewayInstance",
            Self::DeleteGatewayInstance => "gateway:DeleteGatewayInstance",
            Self::CreateGatewayGroup => "gateway:CreateGatewayGroup",
            Self::UpdateGatewayGroup => "gateway:UpdateGatewayGroup",
            Self::DeleteGatewayGroup => "gateway:DeleteGatewayGroup",
            Self::GetServiceTemplate => "gateway:GetServiceTemplate",
            Self::CreateServiceTemplate => "gateway:CreateServiceTemplate",
            Self::UpdateServiceTemplate => "gateway:UpdateServiceTemplate",
            Self::DeleteServiceTemplate => "gateway:DeleteServiceTemplate",
            Self::PublishServices => "gateway:PublishServices",
            Self::GetPublishedService => "gateway:GetPublishedService",
            Self::DeletePublishedService => "gateway:DeletePublishedService",
            Self::UpdateServiceRuntime => "gateway:UpdateServiceRuntime",
            Self::GetUser => "iam:GetUser",
            Self::InviteUser => "iam:InviteUser",
            Self::UpdateUserRole => "iam:UpdateUserRole",
            Self::ResetPassword => "iam:ResetPassword",
            Self::DeleteUser => "iam:DeleteUser",
            Self::GetAudit => "iam:GetAudit",
            Self::ExportAudits => "iam:ExportAudits",
            Self::GetLicense => "iam:GetLicense",
            Self::UpdateLicense => "iam:UpdateLicense",
            Self::ManageToken => "iam:ManageToken",
            Self::GetRole => "iam:GetRole",
            Self::GetPermission => "iam:GetPermission",
            Self::CreatePublishedService => "gateway:CreatePublishedService",
            Self::UpdatePublishedService => "gateway:UpdatePublishedService",
            Self::GetConsumer => "gateway:GetConsumer",
            Self::CreateConsumer => "gateway:CreateConsumer",
            Self::UpdateConsumer => "gateway:UpdateConsumer",
            Self::DeleteConsumer => "gateway:DeleteConsumer",
            Self::GetCertificate => "gateway:GetCertificate",
            Self::CreateCertificate => "gateway:CreateCertificate",
            Self::UpdateCertificate => "gateway:UpdateCertificate",
            Self::DeleteCertificate => "gateway:DeleteCertificate",
            Self::GetSni => "gateway:GetSNI",
            Self::CreateSni => "gateway:CreateSNI",
            Self::UpdateSni => "gateway:UpdateSNI",
            Self::DeleteSni => "gateway:DeleteSNI",
            Self::GetGlobalPluginRule => "gateway:GetGlobalPluginRule",
            Self::CreateGlobalPluginRule => "gateway:CreateGlobalPluginRule",
            Self::UpdateGlobalPluginRule => "gateway:UpdateGlobalPluginRule",
            Self::DeleteGlobalPluginRule => "gateway:DeleteGlobalPluginRule",
            Self::GetPluginMetadata => "gateway:GetPluginMetadata",
            Self::UpdatePluginMetadata => "gateway:UpdatePluginMetadata",
            Self::DeletePluginMetadata => "gateway:DeletePluginMetadata",
            Self::GetSecret => "gateway:GetSecret",
            Self::PutSecret => "gateway:PutSecret",
            Self::DeleteSecret => "gateway:DeleteSecret",
            Self::GetServiceRegistry => "gateway:GetServiceRegistry",
            Self::ConnectServiceRegistry => "gateway:ConnectServiceRegistry",
            Self::UpdateServiceRegistry => "gateway:UpdateServiceRegistry",
            Self::DisconnectServiceRegistry => "gateway:DisconnectServiceRegistry",
        }
    }

    /// Whether the object is a gateway group, so that the group's admin key is enough.
    pub(crate) const fn is_in_group(self) -> bool {
        matches!(
            self,
            Self::GetGatewayGroup
                | Self::GetGatewayInstance
                | Self::PublishServices
                | Self::GetPublishedService
                | Self::DeletePublishedService
                | Self::UpdateServiceRuntime
                | Self::CreatePublishedService
                | Self::UpdatePublishedService
                | Self::GetConsumer
                | Self::CreateConsumer
                | Self::UpdateConsumer
                | Self::DeleteConsumer
                | Self::GetCertificate
                | Self::CreateCertificate
                | Self::UpdateCertificate
                | Self::DeleteCertificate
                | Self::GetSni
                | Self::CreateSni
                | Self::UpdateSni
                | Self::DeleteSni
                | Self::GetGlobalPluginRule
                | Self::CreateGlobalPluginRule
                | Self::UpdateGlobalPluginRule
                | Self::DeleteGlobalPluginRule
                | Self::GetPluginMetadata
                | Self::UpdatePluginMetadata
                | Self::DeletePluginMetadata
                | Self::GetSecret
                | Self::PutSecret
                | Self::DeleteSecret
                | Self::GetServiceRegistry
                | Self::ConnectServiceRegistry
                | Self::UpdateServiceRegistry
                | Self::DisconnectServiceRegistry
        )
    }
}

/// The user that the first start creates; it may do everything, and nobody may take that away.
pub(crate) const ADMIN: &str = "admin";

/// The role whose users may do everything.
pub(crate) const SUPER_ADMIN: &str = "super_admin_id";

impl Caller {
    #[cfg(test)]
    pub(crate) fn named(username: &str) -> Self {
        let rights = if username == ADMIN { Rights::Everything } else { Rights::Nothing };
        Self { user_id: String::new(), username: username.to_owned(), rights, means: Means::Password }
    }

    fn of_user(user: KnownUser, means: Means) -> Self {
        let rights = if is_super_admin(&user) { Rights::Everything } else { Rights::Nothing };
        // A session is a person, who can choose a password. Tokens and scripts that hold the generated one cannot;
        // a password that somebody else has given opens nothing but a session.
        let is_due = means == Means::Session && user.password_state != PasswordState::Chosen;
        let rights = if is_due { Rights::PasswordDue } else { rights };
        Self { user_id: user.id, username: user.username, rights, means }
    }

    fn of_group(group: GatewayGroupId) -> Self {
        let username = format!("admin key of gateway group {group}");
        let means = Means::Token(username.clone());
        Self { user_id: String::new(), username, rights: Rights::Group(group), means }
    }

    pub(crate) fn username(&self) -> &str {
        &self.username
    }

    /// The user's id; empty for the admin key of a gateway group.
    pub(crate) fn user_id(&self) -> &str {
        &self.user_id
    }

    /// Refuses the admin key of a gateway group, which is nobody.
    pub(super) fn must_be_user(&self, action: &'static str) -> Result<(), Refusal> {
        match self.user_id.is_empty() {
            false => Ok(()),
            true => Err(Refusal::Forbidden { username: self.username.clone(), action }),
        }
    }

    pub(crate) fn means(&self) -> &Means {
        &self.means
    }

    /// The gateway group that the credentials are for, so that a call need not name it.
    pub(crate) fn gateway_group(&self) -> Option<&GatewayGroupId> {
        match &self.rights {
            Rights::Group(group) => Some(group),
            Rights::Everything | Rights::PasswordDue | Rights::Nothing => None,
        }
    }

    /// Refuses unless the caller may do `action` to `object` (`*`: to some object of the kind).
    ///
    /// There is one role yet; further ones and policies will be asked here.
    pub(crate) fn must(&self, action: Action, object: &str) -> Result<(), Refusal> {
        match &self.rights {
            Rights::Everything => return Ok(()),
            Rights::Group(group) if action.is_in_group() && object == group.as_str() => return Ok(()),
            Rights::PasswordDue => return Err(Refusal::PasswordDue { username: self.username.clone() }),
            Rights::Group(_) | Rights::Nothing => {}
        }
        tracing::info!(username = self.username, action = action.name(), object, "a call was forbidden");
        Err(Refusal::Forbidden { username: self.username.clone(), action: action.name() })
    }

    /// Tells the audit log who it is.
    fn note(&self) {
        Call::note(|row| {
            row.operator_id.clone_from(&self.user_id);
            row.operator_name.clone_from(&self.username);
            match &self.means {
                Means::Session => "dashboard".clone_into(&mut row.source),
                Means::Token(name) => row.token_name.clone_from(name),
                Means::Password => {}
            }
            if let Some(group) = self.gateway_group() {
                group.as_str().clone_into(&mut row.gateway_group_id);
            }
        });
    }
}

/// When a token was last used is kept to the minute, so that not every call writes.
const LAST_USED_SECONDS: i64 = 60;

impl App {
    /// Who is known by `credentials`, which came from `address`.
    pub(crate) async fn caller_identify(
        &self,
        credentials: Credentials,
        address: IpAddr,
    ) -> Result<Caller, Refusal> {
        let caller = match credentials {
            Credentials::Token(token) => self.caller_of_token(&token).await?,
            Credentials::Session(session) => self.caller_of_session(&session).await?,
            Credentials::Password { username, password } => {
                let user = self.password_check(username, password, address).await?;
                if matches!(user.password_state, PasswordState::Given | PasswordState::GivenUsed) {
                    return Err(Refusal::PasswordDue { username: user.username });
                }
                self.caller_named(&user.username, Means::Password).await?
            }
        };
        caller.note();
        Ok(caller)
    }

    async fn caller_of_token(&self, token: &str) -> Result<Caller, Refusal> {
        let digest = Digest::of(token);
        if let Some(username) = self.parts.secrets.access_tokens.get(&digest) {
            return self.caller_named(username, Means::Token("process".to_owned())).await;
        }
        let now = self.world().now();
        let mut tx = self.store().read().await?;
        if let Some((row, user)) = tx.access_token_user(digest.as_str(), now).await? {
            drop(tx);
            if now - row.last_used_at >= LAST_USED_SECONDS {
                let mut tx = self.store().write().await?;
                // Deleted in the meantime: then there is nothing to note, and this was its last call.
                if tx.access_token_used(&row.id, now).await.is_ok() {
                    tx.commit_aside().await?;
                }
            }
            return Ok(Caller::of_user(user, Means::Token(row.name)));
        }
        let group = tx.group_admin_key_group(digest.as_str()).await?;
        group.map(Caller::of_group).ok_or(Refusal::Unauthenticated)
    }

    async fn caller_of_session(&self, session: &str) -> Result<Caller, Refusal> {
        let digest = Digest::of(session);
        let user = self.store().read().await?.session_user(digest.as_str(), self.world().now()).await?;
        user.map(|user| Caller::of_user(user, Means::Session)).ok_or(Refusal::Unauthenticated)
    }

    async fn caller_named(&self, username: &str, means: Means) -> Result<Caller, Refusal> {
        let mut tx = self.store().read().await?;
        let id = tx.user_named(username).await?.ok_or(Refusal::Unauthenticated)?.id;
        let user = tx.user_get(&id).await?.ok_or(Refusal::Unauthenticated)?;
        Ok(Caller::of_user(user.known, means))
    }

    /// The user whose name and password these are. The answer, and how long it takes, do not tell whether there is
    /// such a user; whoever guesses too often is not even looked at.
    pub(super) async fn password_check(
        &self,
        username: String,
        password: String,
        address: IpAddr,
    ) -> Result<UserRow, Refusal> {
        let failed = |reason: String| Refusal::Unavailable { reason };
        let _turn = self.parts.password_checks.acquire().await.map_err(|error| failed(error.to_string()))?;
        let now = self.world().now();
        let (by_address, by_user) = (address.to_string(), Digest::of(&format!("{address} {username}")));
        let by_user = by_user.as_str();
        let throttles = &self.parts.throttles;
        if !throttles.by_address.allows(&by_address, now) || !throttles.by_user.allows(by_user, now) {
            return Err(Refusal::TooManyAttempts);
        }
        let user = self.store().read().await?.user_named(&username).await?;
        let hash =
            user.as_ref().map_or_else(|| password_decoy().to_owned(), |user| user.password_hash.clone());
        let check = tokio::task::spawn_blocking(move || password_matches(&hash, &password));
        let matches = check.await.map_err(|error| failed(error.to_string()))?;
        if let Some(user) = user.filter(|_| matches) {
            throttles.by_user.succeeded(by_user);
            return Ok(user);
        }
        throttles.by_user.failed(by_user, now);
        throttles.by_address.failed(&by_address, now);
        Err(Refusal::WrongPassword)
    }
}
