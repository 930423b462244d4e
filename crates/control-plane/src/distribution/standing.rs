//! What stands in a group, in memory: its published services, whole, as gateways have them.
//!
//! Explaining a request, checking for conflicts and looking for duplicates after a publish ask about all services of a
//! group. They are read once, as a rule in the background after the start, and then what changed since. There is room
//! for so many services; the groups that were asked about longest ago are forgotten first.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use gatewright_model::conflict::Reach;
use gatewright_model::id::{GatewayGroupId, RouteId, ServiceId};
use gatewright_model::protocol::Epoch;
use gatewright_model::snapshot::{PublishedService, Revision};

use super::assemble::is_reachable;
use crate::store::{Reading, Store, StoreError};

/// Services that are kept in memory, of all groups together. One with ten routes takes some ten kilobytes.
pub(crate) const SERVICES_KEPT_MAX: usize = 30_000;

/// The published services of a group by id.
pub(crate) type Services = Arc<BTreeMap<ServiceId, Standing>>;

/// A published service, and what is asked of it often.
#[derive(Clone)]
pub(crate) struct Standing {
    pub(crate) service: Arc<PublishedService>,
    /// The hosts and paths that it could be met at.
    pub(crate) reach: Arc<Reach>,
}

impl Standing {
    pub(crate) fn new(service: Arc<PublishedService>) -> Self {
        let reach = Arc::new(Reach::of(&service));
        Self { service, reach }
    }

    /// Whether it has a route or a stream route of this id.
    pub(crate) fn has_route(&self, id: &RouteId) -> bool {
        let mut routes = self.service.routes.iter().map(|route| &route.route_id);
        let mut stream_routes = self.service.stream_routes.iter().map(|route| &route.route_id);
        routes.any(|route| route == id) || stream_routes.any(|route| route == id)
    }
}

/// What stands in the groups that are asked about.
#[derive(Clone, Default)]
pub(crate) struct Standings {
    groups: Arc<Mutex<Groups>>,
}

#[derive(Default)]
struct Groups {
    known: HashMap<GatewayGroupId, Kept>,
    /// How many questions have come; tells which group was asked about last.
    questions: u64,
}

struct Kept {
    standing: Arc<tokio::sync::Mutex<Followed>>,
    /// The number of the last question.
    asked: u64,
    /// How many services it has.
    services: usize,
}

#[derive(Default)]
struct Followed {
    /// Where it stands; none: it has read nothing yet.
    at: Option<(Epoch, Revision)>,
    services: Services,
}

impl Standings {
    /// The services of `group` at the moment that the reading sees.
    pub(crate) async fn of(
        &self,
        store: &Store,
        group: &GatewayGroupId,
    ) -> Result<(Reading, Services), StoreError> {
        let standing = self.kept(group);
        // The moment is chosen when the standing is ours, so that it never goes back.
        let mut standing = standing.lock().await;
        let mut tx = store.read().await?;
        if let Some(revision) = tx.gateway_group_revision(group).await? {
            let newest = (tx.store_epoch().await?, revision);
            standing.catch_up(&mut tx, group, newest).await?;
        } else {
            *standing = Followed::default();
        }
        self.weigh(group, standing.services.len(), SERVICES_KEPT_MAX);
        Ok((tx, Arc::clone(&standing.services)))
    }

    /// How many services are kept.
    pub(crate) fn services_kept(&self) -> usize {
        let groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        groups.known.values().map(|kept| kept.services).sum()
    }

    fn kept(&self, group: &GatewayGroupId) -> Arc<tokio::sync::Mutex<Followed>> {
        let mut groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        groups.questions += 1;
        let asked = groups.questions;
        let new = || Kept { standing: Arc::default(), asked, services: 0 };
        let kept = groups.known.entry(group.clone()).or_insert_with(new);
        kept.asked = asked;
        Arc::clone(&kept.standing)
    }

    /// Notes how many services `group` has, and forgets others while there are more than `max` in all.
    fn weigh(&self, group: &GatewayGroupId, services: usize, max: usize) {
        let mut groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kept) = groups.known.get_mut(group) {
            kept.services = services;
        }
        while groups.known.values().map(|kept| kept.services).sum::<usize>() > max {
            let others = groups.known.iter().filter(|(known, kept)| *known != group && kept.services > 0);
            let Some((oldest, _)) = others.min_by_key(|(_, kept)| kept.asked) else { return };
            let oldest = oldest.clone();
            groups.known.remove(&oldest);
        }
    }
}

impl Followed {
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
        let base = followed.map(|at| at.1);
        let since = base.unwrap_or_default();
        let changed = tx.published_service_changes(group, since).await?;
        let standing = |service: PublishedService| {
            let id = service.service_id.clone();
            (id, Standing::new(Arc::new(service.shrink())))
        };
        if base.is_some() {
            let removed = tx.removed_service_list(group, since).await?;
            let services = Arc::make_mut(&mut self.services);
            services.extend(changed.into_iter().map(standing));
            for id in &removed {
                services.remove(id);
            }
        } else {
            self.services = Arc::new(changed.into_iter().map(standing).collect());
        }
        self.at = Some(newest);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beyond_the_room_there_is_the_group_asked_about_longest_ago_is_forgotten() {
        let standings = Standings::default();
        let groups: Vec<GatewayGroupId> = ["a", "b", "c"].map(|id| id.parse().unwrap()).into();
        for group in &groups[..2] {
            standings.kept(group);
            standings.weigh(group, 10, 25);
        }
        standings.kept(&groups[0]);
        standings.kept(&groups[2]);
        standings.weigh(&groups[2], 10, 25);
        let known = |group| standings.groups.lock().unwrap().known.contains_key(group);
        assert_eq!(groups.iter().map(known).collect::<Vec<_>>(), [true, false, true]);
        standings.weigh(&groups[2], 100, 25);
        assert_eq!(
            groups.iter().map(known).collect::<Vec<_>>(),
            [false, false, true],
            "the last one is kept"
        );
        assert_eq!(standings.services_kept(), 100);
    }
}
