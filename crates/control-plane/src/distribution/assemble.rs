//! Rows to the update a gateway needs.

use gatewright_model::id::GatewayGroupId;
use gatewright_model::protocol::Update;
use gatewright_model::snapshot::Revision;

use crate::store::{Store, StoreError};

/// How many revisions behind a gateway may be and still be sent changes only; older tombstones are dropped.
pub(crate) const DELTA_REVISIONS_MAX: u64 = 100_000;

/// What a gateway of `group` that has `have` lacks.
#[derive(Debug, PartialEq)]
pub(crate) enum Assembled {
    /// The group does not exist (any more).
    NoGroup,
    /// Nothing.
    Nothing,
    Update(Update),
}

/// Reads what changed in `group` since `have`: everything, if `have` is absent, from another life of the store, or
/// too old.
pub(crate) async fn assemble(
    store: &Store,
    group: &GatewayGroupId,
    have: Option<Revision>,
) -> Result<Assembled, StoreError> {
    let mut tx = store.read().await?;
    let Some(revision) = tx.gateway_group_revision(group).await? else { return Ok(Assembled::NoGroup) };
    if have == Some(revision) {
        return Ok(Assembled::Nothing);
    }
    let base = have.filter(|have| *have < revision && revision.0 - have.0 <= DELTA_REVISIONS_MAX);
    let settings = tx.gateway_group_get(group).await?.map(|row| row.group.match_settings());
    let services = tx.published_service_changes(group, base.unwrap_or_default()).await?;
    let removed = match base {
        Some(base) => tx.removed_service_list(group, base).await?,
        None => Vec::new(),
    };
    let objects = tx.group_object_changes(group, base.unwrap_or_default()).await?;
    let removed_objects = match base {
        Some(base) => tx.removed_object_list(group, base).await?,
        None => Vec::new(),
    };
    Ok(Assembled::Update(Update {
        revision,
        full: base.is_none(),
        settings: settings.unwrap_or_default(),
        services,
        removed,
        objects,
        removed_objects,
    }))
}
