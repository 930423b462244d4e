//! Gateway groups: environments, regions or teams.

use gatewright_model::id::GatewayGroupId;

use super::document::GatewayGroupDocument;
use super::{Action, App, Caller, Digest, Refusal, Warnings, must_be_as_expected, token_new};
use crate::store::{Call, CountedKind, GatewayGroupRow, ListFilter, Listed, Reading};

/// What callers call it.
pub(super) const NOUN: &str = "gateway group";

/// What admin keys of gateway groups begin with; published clients leave the group out when they see it.
const ADMIN_KEY_PREFIX: &str = "a7adm-";

impl App {
    pub(crate) async fn gateway_group_list(
        &self,
        caller: &Caller,
        filter: &ListFilter,
    ) -> Result<Listed<GatewayGroupRow>, Refusal> {
        caller.must(Action::GetGatewayGroup, "*")?;
        Ok(self.store().read().await?.gateway_group_list(filter).await?)
    }

    /// Every group with how many objects of a kind it has.
    pub(crate) async fn gateway_group_count(
        &self,
        caller: &Caller,
        kind: CountedKind,
    ) -> Result<Listed<(GatewayGroupRow, i64)>, Refusal> {
        caller.must(Action::GetGatewayGroup, "*")?;
        let mut tx = self.store().read().await?;
        let counts = tx.gateway_group_counts(kind).await?;
        let groups = tx.gateway_group_list(&ListFilter::default()).await?;
        Ok(groups.map(|row| {
            let count = counts.get(&row.id).copied().unwrap_or_default();
            (row, count)
        }))
    }

    pub(crate) async fn gateway_group_get(
        &self,
        caller: &Caller,
        id: &GatewayGroupId,
    ) -> Result<GatewayGroupRow, Refusal> {
        caller.must(Action::GetGatewayGroup, id.as_str())?;
        gateway_group(&mut self.store().read().await?, id).await
    }

    /// Creates an empty group. Its id is ours: it stands in tokens and in the settings of gateways.
    pub(crate) async fn gateway_group_create(
        &self,
        caller: &Caller,
        document: GatewayGroupDocument,
    ) -> Result<(GatewayGroupRow, Warnings), Refusal> {
        caller.must(Action::CreateGatewayGroup, "*")?;
        let id = self.world().id();
        let group = document.content;
        let mut tx = self.store().write().await?;
        if let Some(other) = tx.gateway_group_named(&group.name).await? {
            return Err(Refusal::NameTaken { noun: NOUN, name: group.name, by: other.to_string() });
        }
        let stamp = tx.stamp(self.world().now()).await?;
        tx.gateway_group_insert(stamp, &id, &group).await?;
        let row = gateway_group(&mut tx, &id).await?;
        Call::concerns(id.as_str(), &group.name);
        tx.commit().await?;
        Ok((row, document.warnings))
    }

    /// Replaces what the group says about itself. Settings that are not mentioned stay: clients that do not know
    /// them must not change how traffic is matched.
    pub(crate) async fn gateway_group_put(
        &self,
        caller: &Caller,
        id: &GatewayGroupId,
        document: GatewayGroupDocument,
    ) -> Result<(GatewayGroupRow, Warnings), Refusal> {
        caller.must(Action::UpdateGatewayGroup, id.as_str())?;
        let mut group = document.content;
        let mut tx = self.store().write().await?;
        let before = gateway_group(&mut tx, id).await?;
        must_be_as_expected(NOUN, id.as_str(), Some(before.change_number))?;
        let before = before.group;
        if let Some(other) = tx.gateway_group_named(&group.name).await?.filter(|other| other != id) {
            return Err(Refusal::NameTaken { noun: NOUN, name: group.name, by: other.to_string() });
        }
        group.settings = group.settings.or(before.settings);
        group.sampling = group.sampling.or_else(|| before.sampling.clone());
        let stamp = tx.stamp(self.world().now()).await?;
        tx.gateway_group_update(stamp, id, &group).await?;
        let rematches = group.match_settings() != before.match_settings();
        if rematches {
            tx.gateway_group_raise(id).await?;
        }
        let row = gateway_group(&mut tx, id).await?;
        tx.commit().await?;
        if rematches {
            self.hints().changed(id);
        }
        Ok((row, document.warnings))
    }

    /// Gives the group another admin key, which opens this group and nothing else; answered this once.
    pub(crate) async fn gateway_group_admin_key_put(
        &self,
        caller: &Caller,
        id: &GatewayGroupId,
    ) -> Result<String, Refusal> {
        caller.must(Action::UpdateGatewayGroup, id.as_str())?;
        let mut tx = self.store().write().await?;
        let row = gateway_group(&mut tx, id).await?;
        let key = token_new(self.world(), ADMIN_KEY_PREFIX);
        let stamp = tx.stamp(self.world().now()).await?;
        tx.group_admin_key_put(stamp, id, Digest::of(&key).as_str()).await?;
        Call::concerns(id.as_str(), &row.group.name);
        tx.commit().await?;
        Ok(key)
    }

    /// Deletes an empty group; its gateways lose their configuration's source and keep the last one they have.
    pub(crate) async fn gateway_group_delete(
        &self,
        caller: &Caller,
        id: &GatewayGroupId,
    ) -> Result<(), Refusal> {
        caller.must(Action::DeleteGatewayGroup, id.as_str())?;
        let mut tx = self.store().write().await?;
        let before = gateway_group(&mut tx, id).await?;
        must_be_as_expected(NOUN, id.as_str(), Some(before.change_number))?;
        let contents = tx.gateway_group_contents(id).await?;
        if !contents.is_empty() {
            let contents: Vec<_> = contents.iter().map(|(kind, total)| format!("{total} × {kind}")).collect();
            return Err(Refusal::GroupInUse { id: id.to_string(), contents: contents.join(", ") });
        }
        tx.gateway_group_delete(id).await?;
        tx.commit().await?;
        self.hints().changed(id);
        Ok(())
    }
}

pub(super) async fn gateway_group(tx: &mut Reading, id: &GatewayGroupId) -> Result<GatewayGroupRow, Refusal> {
    let row = tx.gateway_group_get(id).await?;
    row.ok_or_else(|| Refusal::NotFound { noun: NOUN, id: id.to_string() })
}
