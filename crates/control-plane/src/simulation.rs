//! A control plane without rules and store, for simulations of the network between it and gateways.
//!
//! The watch is the real one. What it distributes is in memory, where several simulated control planes share it as real
//! ones share a database; and as with a database, an announcement to the others may be lost.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gatewright_model::digest::{ContentDigest, Ledger};
use gatewright_model::id::{GatewayGroupId, InstanceId, ServiceId};
use gatewright_model::matching::MatchSettings;
use gatewright_model::protocol::{Epoch, Heartbeat, Update};
use gatewright_model::sample::{Sampled, Samples, SamplingSettings};
use gatewright_model::snapshot::{PublishedService, Revision};

use crate::WatchServer;
use crate::app::{Proof, Proved, Refusal};
use crate::distribution::{Asked, Feeds, Hints, Intent, Moment, TooMany, watch_router};
use crate::listener::Stopping;
use crate::store::StoreError;

/// What simulated control planes share: the services of one gateway group.
#[derive(Clone)]
pub struct Database {
    group: GatewayGroupId,
    state: Arc<Mutex<State>>,
}

#[derive(Clone)]
struct State {
    is_available: bool,
    epoch: Epoch,
    revision: Revision,
    /// With the revision at which it became what it is; none: it is gone.
    services: BTreeMap<ServiceId, (Revision, Option<PublishedService>)>,
    control_planes: Vec<Hints>,
    heartbeats: BTreeMap<InstanceId, Heartbeat>,
}

/// The database does not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the database is unavailable")]
pub struct Unavailable;

impl Database {
    /// An empty one for the gateways of `group`.
    #[must_use]
    pub fn new(group: GatewayGroupId) -> Self {
        let state = State {
            is_available: true,
            epoch: Epoch { store: "simulated".to_owned(), number: 1 },
            revision: Revision::default(),
            services: BTreeMap::new(),
            control_planes: Vec::new(),
            heartbeats: BTreeMap::new(),
        };
        Self { group, state: Arc::new(Mutex::new(state)) }
    }

    /// A control plane on this database.
    #[must_use]
    pub fn control_plane(&self) -> WatchServer {
        let hints = Hints::default();
        self.state().control_planes.push(hints.clone());
        let stopping = Stopping::default();
        let intent = Arc::new(self.clone());
        let router = watch_router(intent, hints, Feeds::default(), stopping.graceful.clone());
        WatchServer { router, stopping }
    }

    /// Makes `service` what its group serves, or takes it out; whether that is announced is for the caller to say.
    ///
    /// # Errors
    /// While the database does not answer; nothing has changed then.
    pub fn change(
        &self,
        id: &ServiceId,
        service: Option<PublishedService>,
        is_announced: bool,
    ) -> Result<Revision, Unavailable> {
        let mut state = self.state();
        if !state.is_available {
            return Err(Unavailable);
        }
        state.revision = Revision(state.revision.0 + 1);
        let revision = state.revision;
        state.services.insert(id.clone(), (revision, service));
        let announced = if is_announced { state.control_planes.clone() } else { Vec::new() };
        drop(state);
        announced.iter().for_each(|hints| hints.changed(&self.group));
        Ok(revision)
    }

    /// Whether the database answers from now on.
    pub fn set_available(&self, is_available: bool) {
        self.state().is_available = is_available;
    }

    /// Puts a backup back, and raises the epoch as an operator does who wants the gateways to follow.
    pub fn restore(&self, backup: &Self) {
        let backup = backup.state().clone();
        let mut state = self.state();
        let epoch = Epoch { number: state.epoch.number + 1, ..state.epoch.clone() };
        let (revision, services) = (backup.revision, backup.services);
        *state = State { epoch, revision, services, ..state.clone() };
    }

    /// What is in it now, on its own.
    #[must_use]
    pub fn backup(&self) -> Self {
        Self { group: self.group.clone(), state: Arc::new(Mutex::new(self.state().clone())) }
    }

    /// The newest revision, and the digest of everything at it.
    ///
    /// # Panics
    /// If a service cannot be written as JSON.
    #[must_use]
    pub fn newest(&self) -> (Epoch, Revision, ContentDigest) {
        let state = self.state();
        let mut ledger = Ledger::default();
        let entered = state.changes(None).enter(&mut ledger);
        assert!(entered.is_ok(), "services are JSON: {entered:?}");
        (state.epoch.clone(), state.revision, ledger.digest())
    }

    /// What gateways said of themselves last.
    #[must_use]
    pub fn heartbeats(&self) -> BTreeMap<InstanceId, Heartbeat> {
        self.state().heartbeats.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn changes(&self, base: Option<Revision>) -> Update {
        let since = base.unwrap_or_default();
        let changed = || self.services.iter().filter(|(_, (at, _))| *at > since);
        let gone = changed().filter(|(_, (_, service))| base.is_some() && service.is_none());
        Update {
            epoch: Some(self.epoch.clone()),
            revision: self.revision,
            full: base.is_none(),
            digest: None,
            settings: MatchSettings::default(),
            services: changed().filter_map(|(_, (_, service))| service.clone()).collect(),
            removed: gone.map(|(id, _)| id.clone()).collect(),
            objects: Vec::new(),
            removed_objects: Vec::new(),
        }
    }
}

impl Intent for Database {
    fn identify<'a>(&'a self, _: &'a Proof) -> Asked<'a, Result<Proved, Refusal>> {
        let proved = Proved { gateway_group_id: self.group.clone(), expires_at: None };
        Box::pin(std::future::ready(Ok(proved)))
    }

    fn heard(&self, _: &Proved, _: IpAddr, heartbeat: Heartbeat) -> Result<(), TooMany> {
        self.state().heartbeats.insert(heartbeat.instance_id.clone(), heartbeat);
        Ok(())
    }

    fn sampled<'a>(&'a self, _: &'a Proved, samples: Samples) -> Asked<'a, Result<Sampled, Refusal>> {
        // Nobody asks for previews of a simulated network.
        let settings = SamplingSettings { heads_per_second: 0, ..SamplingSettings::default() };
        Box::pin(std::future::ready(Ok(Sampled { settings, next: samples.first })))
    }

    fn look(&self) -> Asked<'_, Result<Box<dyn Moment>, StoreError>> {
        let state = self.state().clone();
        let answer: Result<Box<dyn Moment>, StoreError> = match state.is_available {
            true => Ok(Box::new(state)),
            false => Err(StoreError::Unavailable { reason: Unavailable.to_string() }),
        };
        Box::pin(std::future::ready(answer))
    }
}

impl Moment for State {
    fn newest<'a>(
        &'a mut self,
        _: &'a GatewayGroupId,
    ) -> Asked<'a, Result<Option<(Epoch, Revision)>, StoreError>> {
        Box::pin(std::future::ready(Ok(Some((self.epoch.clone(), self.revision)))))
    }

    fn changes<'a>(
        &'a mut self,
        _: &'a GatewayGroupId,
        base: Option<Revision>,
        _: &'a (Epoch, Revision),
    ) -> Asked<'a, Result<Update, StoreError>> {
        Box::pin(std::future::ready(Ok(State::changes(self, base))))
    }

    fn preparation<'a>(&'a mut self, _: &'a GatewayGroupId) -> Asked<'a, Result<Option<String>, StoreError>> {
        Box::pin(std::future::ready(Ok(None)))
    }

    fn candidates<'a>(
        &'a mut self,
        _: &'a GatewayGroupId,
    ) -> Asked<'a, Result<Vec<PublishedService>, StoreError>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }
}
