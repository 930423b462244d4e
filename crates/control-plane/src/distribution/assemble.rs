//! Rows to the update a gateway needs.

use gatewright_model::id::GatewayGroupId;
use gatewright_model::protocol::{Epoch, Update};
use gatewright_model::snapshot::Revision;

use crate::store::{Reading, StoreError};

/// How many revisions behind a gateway may be and still be sent changes only; older tombstones are dropped.
pub(crate) const DELTA_REVISIONS_MAX: u64 = 100_000;

/// What changed in `group` between `base` and its newest revision, which is `newest`; without a base: everything.
pub(super) async fn assemble(
    tx: &mut Reading,
    group: &GatewayGroupId,
    base: Option<Revision>,
    newest: &(Epoch, Revision),
) -> Result<Update, StoreError> {
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
    Ok(Update {
        epoch: Some(newest.0.clone()),
        revision: newest.1,
        full: base.is_none(),
        digest: None,
        settings: settings.unwrap_or_default(),
        services,
        removed,
        objects,
        removed_objects,
    })
}

/// Whether what changed since `have` is still known when the newest revision is `newest`.
pub(super) fn is_reachable(have: Revision, newest: Revision) -> bool {
    have <= newest && newest.0 - have.0 <= DELTA_REVISIONS_MAX
}
