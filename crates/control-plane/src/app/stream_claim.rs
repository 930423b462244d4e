//! Claims of stream services: nobody takes what another stream route has, and nobody takes a port that a gateway of the
//! group could not open.
//!
//! A claim counts as long as its service takes traffic. What was claimed before is not asked about again, so that an
//! upstream can be edited while an instance is about that lacks a port.

use std::collections::BTreeSet;

use gatewright_model::id::GatewayGroupId;
use gatewright_model::protocol::Heartbeat;
use gatewright_model::resource::service::ServiceKind;
use gatewright_model::snapshot::PublishedService;
use gatewright_model::stream::check::check_published;
use gatewright_model::stream::claim::Claim;
use gatewright_model::validation::Violations;

use super::instance::LOST_AFTER;
use super::{App, Refusal};
use crate::store::{ClaimHolder, InstanceRow, Writing};

/// A claim and the stream route it is made for, by name.
struct Claimed<'s> {
    service: &'s str,
    route: &'s str,
    claim: Claim,
}

impl App {
    /// Refuses what services of the group must not say, and claims for them what their stream routes are about.
    pub(super) async fn streams_claim(
        &self,
        tx: &mut Writing,
        group: &GatewayGroupId,
        written: &[PublishedService],
    ) -> Result<(), Refusal> {
        let mut violations = Violations::default();
        for service in written {
            let mut wrong = Violations::default();
            check_published(service, &mut wrong);
            gatewright_plugins::streams::check_published(service, &mut wrong);
            for wrong in wrong.iter() {
                violations.add(wrong.path.clone(), format!("service `{}`: {}", service.name, wrong.message));
            }
        }
        let streams: Vec<_> = written.iter().filter(|service| service.kind == ServiceKind::Stream).collect();
        let mut before = BTreeSet::new();
        for service in &streams {
            before.extend(tx.stream_claim_take(group, &service.service_id).await?);
        }
        let mut new = Vec::new();
        for service in streams {
            for (route, claim) in service.claims() {
                let text = claim.to_string();
                let claimed = Claimed { service: &service.name, route: &route.route.name, claim };
                if let Some(holder) = tx.stream_claim_holder(group, &text).await? {
                    violations.add("", claimed.held_by(&holder));
                    continue;
                }
                tx.stream_claim_insert(group, &service.service_id, &route.route_id, &text).await?;
                if !before.contains(&text) {
                    new.push(claimed);
                }
            }
        }
        violations.into_result()?;
        if new.is_empty() {
            return Ok(());
        }
        must_all_open(&tx.instance_list(Some(group)).await?, &new, self.world().now())
    }

    /// The same for all services that changed in `revision`.
    pub(super) async fn streams_claim_changed(
        &self,
        tx: &mut Writing,
        group: &GatewayGroupId,
        revision: gatewright_model::snapshot::Revision,
    ) -> Result<(), Refusal> {
        let before = gatewright_model::snapshot::Revision(revision.0.saturating_sub(1));
        let written = tx.published_service_changes(group, before).await?;
        self.streams_claim(tx, group, &written).await
    }
}

impl Claimed<'_> {
    fn held_by(&self, holder: &ClaimHolder) -> String {
        let Self { service, route, claim } = self;
        let ClaimHolder { service: other, service_id, route_id } = holder;
        format!(
            "stream route `{route}` of service `{service}` claims {claim}, which stream route `{route_id}` of service \
             `{other}` (id `{service_id}`) has already; give one of them another port or narrower matchers"
        )
    }
}

/// Refuses claims for ports that an instance which lives at `now` could not open: they would never be served there.
fn must_all_open(instances: &[InstanceRow], claims: &[Claimed<'_>], now: i64) -> Result<(), Refusal> {
    let mut violations = Violations::default();
    for row in instances.iter().filter(|row| now - row.heartbeat_at <= LOST_AFTER) {
        let Heartbeat { instance_id, hostname, ports, stream_ports, .. } = &row.heartbeat;
        for Claimed { service, route, claim } in claims {
            let who = format!("stream route `{route}` of service `{service}`");
            let allowed = match stream_ports.is_empty() {
                true => "no ports for streams".to_owned(),
                false => format!("streams on ports {stream_ports}"),
            };
            let remedy = "start it with --stream-ports that include it, or choose another port";
            let message = match claim.port {
                Some(port) if ports.contains(&port) => format!(
                    "{who} claims port {port}, which is taken: gateway instance `{instance_id}` ({hostname}) answers \
                     HTTP there; choose another port"
                ),
                Some(port) if !stream_ports.contains(port) => format!(
                    "{who} claims port {port}, which gateway instance `{instance_id}` ({hostname}) does not open: it \
                     allows {allowed}; {remedy}"
                ),
                None if stream_ports.is_empty() => format!(
                    "{who} claims {claim}, and gateway instance `{instance_id}` ({hostname}) opens none: it allows \
                     {allowed}; start it with --stream-ports"
                ),
                _ => continue,
            };
            violations.add("", message);
        }
    }
    Ok(violations.into_result()?)
}
