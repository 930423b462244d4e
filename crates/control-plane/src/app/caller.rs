//! Who calls, and the one place where every operation asks whether it may.

use super::password::password_matches;
use super::token::Digest;
use super::{App, Refusal};

/// What proves who a caller is.
#[derive(Clone)]
pub(crate) enum Credentials {
    /// An access token.
    Token(String),
    /// A user's name and password.
    Password { username: String, password: String },
}

/// Somebody who is known.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    username: String,
}

/// What a caller may be allowed to do, by the names of the published permission model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    GetGatewayGroup,
    CreateGatewayGroup,
    UpdateGatewayGroup,
    GetServiceTemplate,
    CreateServiceTemplate,
    UpdateServiceTemplate,
    DeleteServiceTemplate,
    PublishServices,
    GetPublishedService,
    DeletePublishedService,
    UpdateServiceRuntime,
}

impl Action {
    const fn name(self) -> &'static str {
        match self {
            Self::GetGatewayGroup => "gateway:GetGatewayGroup",
            Self::CreateGatewayGroup => "gateway:CreateGatewayGroup",
            Self::UpdateGatewayGroup => "gateway:UpdateGatewayGroup",
            Self::GetServiceTemplate => "gateway:GetServiceTemplate",
            Self::CreateServiceTemplate => "gateway:CreateServiceTemplate",
            Self::UpdateServiceTemplate => "gateway:UpdateServiceTemplate",
            Self::DeleteServiceTemplate => "gateway:DeleteServiceTemplate",
            Self::PublishServices => "gateway:PublishServices",
            Self::GetPublishedService => "gateway:GetPublishedService",
            Self::DeletePublishedService => "gateway:DeletePublishedService",
            Self::UpdateServiceRuntime => "gateway:UpdateServiceRuntime",
        }
    }
}

/// The user that the first start creates; it may do everything, and nobody may take that away.
pub(crate) const ADMIN: &str = "admin";

impl Caller {
    #[cfg(test)]
    pub(crate) fn named(username: &str) -> Self {
        Self { username: username.to_owned() }
    }

    pub(crate) fn username(&self) -> &str {
        &self.username
    }

    /// Refuses unless the caller may do `action` to `object` (`*`: to some object of the kind).
    ///
    /// The administrator is the only user there is; roles and policies will be asked here.
    pub(crate) fn must(&self, action: Action, object: &str) -> Result<(), Refusal> {
        if self.username == ADMIN {
            return Ok(());
        }
        tracing::info!(username = self.username, action = action.name(), object, "a call was forbidden");
        Err(Refusal::Forbidden { username: self.username.clone(), action: action.name() })
    }
}

impl App {
    /// Who is known by `credentials`.
    pub(crate) async fn caller_identify(&self, credentials: Credentials) -> Result<Caller, Refusal> {
        match credentials {
            Credentials::Token(token) => self.caller_of_token(&token).await,
            Credentials::Password { username, password } => self.caller_of_password(username, password).await,
        }
    }

    async fn caller_of_token(&self, token: &str) -> Result<Caller, Refusal> {
        let digest = Digest::of(token);
        if let Some(username) = self.parts.secrets.access_tokens.get(&digest) {
            return Ok(Caller { username: username.clone() });
        }
        let username = self.store().read().await?.access_token_username(digest.as_str()).await?;
        username.map(|username| Caller { username }).ok_or(Refusal::Unauthenticated)
    }

    async fn caller_of_password(&self, username: String, password: String) -> Result<Caller, Refusal> {
        let user = self.store().read().await?.user_named(&username).await?.ok_or(Refusal::Unauthenticated)?;
        let failed = |reason: String| Refusal::Unavailable { reason };
        let _turn = self.parts.password_checks.acquire().await.map_err(|error| failed(error.to_string()))?;
        let check = tokio::task::spawn_blocking(move || password_matches(&user.password_hash, &password));
        let matches = check.await.map_err(|error| failed(error.to_string()))?;
        if matches { Ok(Caller { username }) } else { Err(Refusal::Unauthenticated) }
    }
}
