//! What operators see of the upstreams: `GET /status/upstreams` on the status listener.
//!
//! Views are allow-lists: every field is written out.

use serde::Serialize;

use super::Upstream;
use super::discovered::Service;
use super::health::state::Tally;
use super::node::Node;
use crate::live::LiveConfig;

/// One upstream of a service.
#[derive(Serialize)]
pub(crate) struct UpstreamView<'l> {
    service_id: &'l str,
    service_name: &'l str,
    /// The service's own upstream has the id of the service.
    upstream_id: &'l str,
    upstream: &'l str,
    /// Why every request to it is rejected, if it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    reject_reason: Option<&'static str>,
    /// How its nodes are found, if they are not written down.
    #[serde(skip_serializing_if = "Option::is_none")]
    discovery: Option<DiscoveryView<'l>>,
    nodes: Vec<NodeView>,
}

/// What is known of a service in a registry.
#[derive(Serialize)]
struct DiscoveryView<'l> {
    #[serde(rename = "type")]
    kind: &'static str,
    service_name: &'l str,
    /// Seconds since the last good answer; absent: there was none.
    #[serde(skip_serializing_if = "Option::is_none")]
    age_seconds: Option<f64>,
    /// Whether the nodes are those that were kept on disk, as no registry has answered since the start.
    kept: bool,
    failures: u64,
    /// Why the newest answer is not a good one; the nodes are those of the last good one.
    #[serde(skip_serializing_if = "Option::is_none")]
    trouble: Option<String>,
}

#[derive(Serialize)]
struct NodeView {
    host: String,
    port: u16,
    weight: u16,
    priority: i32,
    /// Empty while a name does not resolve.
    addresses: Vec<String>,
    status: NodeStatus,
    /// What is counted towards the next change; absent without checks.
    #[serde(skip_serializing_if = "Option::is_none")]
    counters: Option<Counters>,
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum NodeStatus {
    Healthy,
    Unhealthy,
    Unchecked,
}

#[derive(Serialize)]
struct Counters {
    successes: u8,
    http_failures: u8,
    tcp_failures: u8,
    timeouts: u8,
}

/// Every upstream of `live`, or those of one service, in the order of service ids, a service's own before its further
/// ones.
pub(crate) fn view<'l>(live: &'l LiveConfig, service_id: Option<&str>) -> Vec<UpstreamView<'l>> {
    let wanted = live.services.iter().filter(|(id, _)| service_id.is_none_or(|wanted| id.as_str() == wanted));
    let upstreams = wanted.flat_map(|(service_id, service)| {
        let own = (service_id.as_str(), &service.published.runtime.upstream, service.upstreams.own());
        let further = service.published.upstreams.values().zip(service.upstreams.further());
        let further = further.map(|(written, (id, live))| (id.as_str(), written, live));
        std::iter::once(own).chain(further).map(|(upstream_id, written, live)| {
            let reachable = live.now();
            UpstreamView {
                service_id: service_id.as_str(),
                service_name: &service.published.name,
                upstream_id,
                upstream: &written.name,
                reject_reason: reachable.as_ref().err().map(|reason| reason.name()),
                discovery: live.discovered().map(|discovered| discovery(discovered.service())),
                nodes: reachable.map(|upstream| nodes(&upstream)).unwrap_or_default(),
            }
        })
    });
    upstreams.collect()
}

fn discovery(service: &Service) -> DiscoveryView<'_> {
    let (wanted, known) = (service.wanted(), service.known());
    DiscoveryView {
        kind: wanted.kind.name(),
        service_name: &wanted.name,
        age_seconds: known.age().map(|age| age.as_secs_f64()),
        kept: known.heard.is_some_and(|heard| heard.is_kept()),
        failures: known.failures,
        trouble: known.trouble.map(|trouble| trouble.to_string()),
    }
}

fn nodes(upstream: &Upstream) -> Vec<NodeView> {
    upstream.nodes.iter().map(|one| node(one)).collect()
}

fn node(node: &Node) -> NodeView {
    let tally = node.checker.as_ref().map(|checker| checker.health().tally());
    NodeView {
        host: node.written.host.clone(),
        port: node.written.port,
        weight: node.written.weight,
        priority: node.written.priority,
        addresses: node.place().addresses().iter().map(ToString::to_string).collect(),
        status: match tally {
            None => NodeStatus::Unchecked,
            Some(Tally { healthy: true, .. }) => NodeStatus::Healthy,
            Some(Tally { healthy: false, .. }) => NodeStatus::Unhealthy,
        },
        counters: tally.map(|Tally { successes, http_failures, tcp_failures, timeouts, .. }| Counters {
            successes,
            http_failures,
            tcp_failures,
            timeouts,
        }),
    }
}
