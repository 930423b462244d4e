//! What instances prove their group with: tokens here, certificates in `authority`.

use gatewright_model::id::GatewayGroupId;

use super::gateway_group::gateway_group;
use super::{Action, App, Caller, Digest, Refusal, instance_token_new};
use crate::store::{Call, InstanceTokenRow};

/// What callers call it.
const NOUN: &str = "instance token";

/// What an instance proves its group with.
#[derive(Clone, Debug)]
pub(crate) enum Proof {
    /// The digest of a certificate that the handshake has verified.
    Certificate(Digest),
    /// The digest of a token.
    Token(Digest),
}

/// What an instance has proved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Proved {
    pub(crate) gateway_group_id: GatewayGroupId,
    /// When that runs out; tokens do not.
    pub(crate) expires_at: Option<i64>,
}

impl App {
    /// What `proof` proves. One that was revoked or has run out proves nothing.
    pub(crate) async fn instance_identify(&self, proof: &Proof) -> Result<Proved, Refusal> {
        let proved = match proof {
            Proof::Token(digest) => {
                let group = match self.parts.secrets.instance_tokens.get(digest) {
                    Some(group) => Some(group.clone()),
                    None => self.store().read().await?.instance_token_group(digest.as_str()).await?,
                };
                group.map(|gateway_group_id| Proved { gateway_group_id, expires_at: None })
            }
            Proof::Certificate(digest) => {
                let row = self.store().read().await?.instance_certificate(digest.as_str()).await?;
                let valid = row.filter(|row| row.expires_at > self.world().now());
                valid.map(|row| Proved {
                    gateway_group_id: row.gateway_group_id,
                    expires_at: Some(row.expires_at),
                })
            }
        };
        proved.ok_or(Refusal::Unauthenticated)
    }

    /// A new token with which instances join the group: its id, and the token, answered this once.
    pub(crate) async fn instance_token_create(
        &self,
        caller: &Caller,
        group: &GatewayGroupId,
    ) -> Result<(String, String), Refusal> {
        caller.must(Action::CreateGatewayInstance, group.as_str())?;
        let mut tx = self.store().write().await?;
        let row = gateway_group(&mut tx, group).await?;
        let pin = self.authority().pin();
        let (id, token) = (self.world().id::<String>(), instance_token_new(self.world(), &pin));
        let stamp = tx.stamp(self.world().now()).await?;
        tx.instance_token_insert(stamp, &id, group, Digest::of_instance_token(&token).as_str()).await?;
        Call::concerns(&id, &row.group.name);
        tx.commit().await?;
        Ok((id, token))
    }

    /// The tokens of a group that were not revoked, the newest first.
    pub(crate) async fn instance_token_list(
        &self,
        caller: &Caller,
        group: &GatewayGroupId,
    ) -> Result<Vec<InstanceTokenRow>, Refusal> {
        caller.must(Action::GetGatewayInstance, group.as_str())?;
        let mut tx = self.store().read().await?;
        gateway_group(&mut tx, group).await?;
        Ok(tx.instance_token_list(group).await?)
    }

    /// Revokes a token: who comes with it gets no configuration any more.
    pub(crate) async fn instance_token_delete(
        &self,
        caller: &Caller,
        group: &GatewayGroupId,
        id: &str,
    ) -> Result<(), Refusal> {
        caller.must(Action::DeleteGatewayInstance, group.as_str())?;
        let mut tx = self.store().write().await?;
        gateway_group(&mut tx, group).await?;
        if !tx.instance_token_delete(group, id).await? {
            return Err(Refusal::NotFound { noun: NOUN, id: id.to_owned() });
        }
        tx.commit().await?;
        self.hints().changed(group);
        Ok(())
    }
}
