//! What distribution asks of the rest of the control plane.
//!
//! It is a seam: in life the rules and the store answer, and in a simulation of the network a few maps do.

use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;

use gatewright_model::id::GatewayGroupId;
use gatewright_model::protocol::{Epoch, Heartbeat, Update};
use gatewright_model::sample::{Sampled, Samples};
use gatewright_model::snapshot::{PublishedService, Revision};

use super::TooMany;
use super::assemble::assemble;
use crate::app::{App, Proof, Proved, Refusal};
use crate::store::{Reading, StoreError};

/// An answer that has to be waited for.
pub(crate) type Asked<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What gateways are to serve, and who they are.
pub(crate) trait Intent: Send + Sync + 'static {
    /// The group that `proof` proves.
    fn identify<'a>(&'a self, proof: &'a Proof) -> Asked<'a, Result<Proved, Refusal>>;

    /// Takes a heartbeat.
    fn heard(&self, proved: &Proved, ip: IpAddr, heartbeat: Heartbeat) -> Result<(), TooMany>;

    /// Takes the heads that an instance has sampled.
    fn sampled<'a>(&'a self, proved: &'a Proved, samples: Samples) -> Asked<'a, Result<Sampled, Refusal>>;

    /// Begins to read.
    fn look(&self) -> Asked<'_, Result<Box<dyn Moment>, StoreError>>;
}

/// What there is at one moment, however long the reading takes.
pub(crate) trait Moment: Send {
    /// The newest revision of a group; none: the group does not exist.
    fn newest<'a>(
        &'a mut self,
        group: &'a GatewayGroupId,
    ) -> Asked<'a, Result<Option<(Epoch, Revision)>, StoreError>>;

    /// What changed in a group between `base` and its newest revision, which is `newest`; without a base: everything.
    fn changes<'a>(
        &'a mut self,
        group: &'a GatewayGroupId,
        base: Option<Revision>,
        newest: &'a (Epoch, Revision),
    ) -> Asked<'a, Result<Update, StoreError>>;

    /// What is being prepared in a group, if anything is.
    fn preparation<'a>(
        &'a mut self,
        group: &'a GatewayGroupId,
    ) -> Asked<'a, Result<Option<String>, StoreError>>;

    /// The services that are being prepared in a group.
    fn candidates<'a>(
        &'a mut self,
        group: &'a GatewayGroupId,
    ) -> Asked<'a, Result<Vec<PublishedService>, StoreError>>;
}

impl Intent for App {
    fn identify<'a>(&'a self, proof: &'a Proof) -> Asked<'a, Result<Proved, Refusal>> {
        Box::pin(self.instance_identify(proof))
    }

    fn heard(&self, proved: &Proved, ip: IpAddr, heartbeat: Heartbeat) -> Result<(), TooMany> {
        self.instance_heartbeat(proved, ip, heartbeat)
    }

    fn sampled<'a>(&'a self, proved: &'a Proved, samples: Samples) -> Asked<'a, Result<Sampled, Refusal>> {
        Box::pin(self.instance_sampled(proved, samples))
    }

    fn look(&self) -> Asked<'_, Result<Box<dyn Moment>, StoreError>> {
        Box::pin(async { Ok(Box::new(self.store().read().await?) as Box<dyn Moment>) })
    }
}

impl Moment for Reading {
    fn newest<'a>(
        &'a mut self,
        group: &'a GatewayGroupId,
    ) -> Asked<'a, Result<Option<(Epoch, Revision)>, StoreError>> {
        Box::pin(async move {
            let Some(revision) = self.gateway_group_revision(group).await? else { return Ok(None) };
            Ok(Some((self.store_epoch().await?, revision)))
        })
    }

    fn changes<'a>(
        &'a mut self,
        group: &'a GatewayGroupId,
        base: Option<Revision>,
        newest: &'a (Epoch, Revision),
    ) -> Asked<'a, Result<Update, StoreError>> {
        Box::pin(assemble(self, group, base, newest))
    }

    fn preparation<'a>(
        &'a mut self,
        group: &'a GatewayGroupId,
    ) -> Asked<'a, Result<Option<String>, StoreError>> {
        Box::pin(self.preparation_id(group))
    }

    fn candidates<'a>(
        &'a mut self,
        group: &'a GatewayGroupId,
    ) -> Asked<'a, Result<Vec<PublishedService>, StoreError>> {
        Box::pin(self.preparation_services(group))
    }
}
