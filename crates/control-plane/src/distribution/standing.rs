//! What stands in a group, in memory: its published services, whole, as gateways have them.
//!
//! Explaining a request and checking for conflicts ask about all services of a group. They are read once, and then
//! what changed since; a group that nobody has asked about for a while is forgotten.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use gatewright_model::id::{GatewayGroupId, ServiceId};
use gatewright_model::protocol::Epoch;
use gatewright_model::snapshot::{PublishedService, Revision};

use super::assemble::is_reachable;
use crate::store::{Reading, Store, StoreError};

/// How long a group is kept after it was asked about: as long as one works on something. A service with ten routes takes
/// some ten kilobytes.
const KEPT_SECONDS: i64 = 3600;

/// The published services of a group by id.
pub(crate) type Services = Arc<BTreeMap<ServiceId, Arc<PublishedService>>>;

/// What stands in the groups that are asked about.
#[derive(Clone, Default)]
pub(crate) struct Standings {
    groups: Arc<Mutex<HashMap<GatewayGroupId, Kept>>>,
}

struct Kept {
    standing: Arc<tokio::sync::Mutex<Standing>>,
    asked_at: i64,
}

#[derive(Default)]
struct Standing {
    /// Where it stands; none: it has read nothing yet.
    at: Option<(Epoch, Revision)>,
    services: Services,
}

impl Standings {
    /// The services of `group` at the moment that the reading sees, which is `now` by the clock.
    pub(crate) async fn of(
        &self,
        store: &Store,
        group: &GatewayGroupId,
        now: i64,
    ) -> Result<(Reading, Services), StoreError> {
        let standing = self.kept(group, now);
        // The moment is chosen when the standing is ours, so that it never goes back.
        let mut standing = standing.lock().await;
        let mut tx = store.read().await?;
        if let Some(revision) = tx.gateway_group_revision(group).await? {
            let newest = (tx.store_epoch().await?, revision);
            standing.catch_up(&mut tx, group, newest).await?;
        } else {
            *standing = Standing::default();
        }
        Ok((tx, Arc::clone(&standing.services)))
    }

    fn kept(&self, group: &GatewayGroupId, now: i64) -> Arc<tokio::sync::Mutex<Standing>> {
        let mut groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        groups.retain(|known, kept| known == group || now - kept.asked_at <= KEPT_SECONDS);
        let kept =
            groups.entry(group.clone()).or_insert_with(|| Kept { standing: Arc::default(), asked_at: now });
        kept.asked_at = now;
        Arc::clone(&kept.standing)
    }
}

impl Standing {
    async fn catch_up(
        &mut self,
        tx: &mut Reading,
        group: &GatewayGroupId,
        newest: (Epoch, Revision),
    ) -> Result<(), StoreError> {
        if self.at.as_ref() == Some(&newest) {
            return Ok(());
        }
        // Taken, so that a reading that fails half-way leaves nothing that is taken for whole.
        let followed = self.at.take().filter(|at| at.0 == newest.0 && is_reachable(at.1, newest.1));
        let Some((_, base)) = followed else {
            let services = tx.published_service_changes(group, Revision::default()).await?;
            self.services = Arc::new(services.into_iter().map(by_id).collect());
            self.at = Some(newest);
            return Ok(());
        };
        let changed = tx.published_service_changes(group, base).await?;
        let removed = tx.removed_service_list(group, base).await?;
        let services = Arc::make_mut(&mut self.services);
        services.extend(changed.into_iter().map(by_id));
        for id in &removed {
            services.remove(id);
        }
        self.at = Some(newest);
        Ok(())
    }
}

fn by_id(service: PublishedService) -> (ServiceId, Arc<PublishedService>) {
    (service.service_id.clone(), Arc::new(service.shrink()))
}
