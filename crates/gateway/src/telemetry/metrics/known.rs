//! Metrics under the names that dashboards and alerts for Apache APISIX know: what the `prometheus` plugin counted,
//! and what the gateway knows of itself anyway.
//!
//! What does not exist here has no metric: there is no etcd but a control plane, which stands in for it, and no shared
//! dictionary that could fill up.

use std::sync::Arc;

use super::WorkerCounts;
use super::counter::{Counter, Distribution};
use super::exchanges::{Bandwidth, Latencies};
use super::labelled::Entry;
use super::scrape::{NODES_MAX, Scraped, sum};
use super::text::{Exposition, Kind, Text};

/// Writes everything.
pub(crate) fn write(scraped: &Scraped<'_>) -> String {
    let mut text = Text::new(Exposition::Prometheus);
    exchanges(scraped, &mut text);
    streams(scraped, &mut text);
    connections(&scraped.metrics.workers, &mut text);
    configuration(scraped, &mut text);
    nodes(scraped, &mut text);
    text.finish()
}

fn exchanges(scraped: &Scraped<'_>, text: &mut Text) {
    let exchanges = &scraped.metrics.exchanges;
    let help = "HTTP status codes per service in APISIX";
    let mut family = text.family("apisix_http_status", Kind::Counter, help);
    for (labels, entries) in exchanges.statuses.read() {
        family.written(&labels, total(&entries, |status| status));
    }
    let help = "HTTP request latency in milliseconds per service in APISIX";
    let mut family = text.family("apisix_http_latency", Kind::Histogram, help);
    for (labels, entries) in exchanges.latencies.read() {
        let of = |read: fn(&Latencies) -> &super::counter::Histogram| {
            Distribution::of(entries.iter().map(|entry| read(&entry.counts)))
        };
        for (name, distribution) in [
            ("request", of(|it| &it.total)),
            ("upstream", of(|it| &it.upstream)),
            ("apisix", of(|it| &it.gateway)),
        ] {
            family.written_distribution(&format!("type=\"{name}\",{labels}"), &distribution);
        }
    }
    let help = "Total bandwidth in bytes consumed per service in APISIX";
    let mut family = text.family("apisix_bandwidth", Kind::Counter, help);
    for (labels, entries) in exchanges.bandwidths.read() {
        let ingress = total(&entries, |bandwidth: &Bandwidth| &bandwidth.ingress);
        let egress = total(&entries, |bandwidth: &Bandwidth| &bandwidth.egress);
        for (direction, bytes) in [("ingress", ingress), ("egress", egress)] {
            family.written(&format!("type=\"{direction}\",{labels}"), bytes);
        }
    }
}

fn streams(scraped: &Scraped<'_>, text: &mut Text) {
    let help = "Total number of connections handled per stream route in APISIX";
    let mut family = text.family("apisix_stream_connection_total", Kind::Counter, help);
    for (labels, entries) in scraped.metrics.stream_connections.sets.read() {
        family.written(&labels, total(&entries, |connections| connections));
    }
}

fn total<C>(entries: &[Arc<Entry<C>>], read: impl Fn(&C) -> &Counter) -> u64 {
    entries.iter().map(|entry| read(&entry.counts).get()).sum()
}

fn connections(workers: &[WorkerCounts], text: &mut Text) {
    let requests = workers.iter().flat_map(|worker| &worker.by_status).map(Counter::get).sum::<u64>();
    let help = "The total number of client requests since APISIX started";
    text.family("apisix_http_requests_total", Kind::Gauge, help).sample(&[], requests);
    let open = sum(workers.iter().map(|worker| &worker.connections));
    let accepted = sum(workers.iter().map(|worker| &worker.connections_accepted));
    let busy = sum(workers.iter().map(|worker| &worker.in_flight)).min(open);
    let help = "Number of HTTP connections";
    let mut family = text.family("apisix_nginx_http_current_connections", Kind::Gauge, help);
    // A connection that serves no request waits for one; a node is not read ahead of its client, so none is "reading".
    for (state, count) in [
        ("accepted", accepted),
        ("active", open),
        ("handled", accepted),
        ("reading", 0),
        ("total", requests),
        ("waiting", open - busy),
        ("writing", busy),
    ] {
        family.sample(&[("state", state)], count);
    }
}

fn configuration(scraped: &Scraped<'_>, text: &mut Text) {
    let help = "Whether the control plane is reachable, which is in the place of etcd here";
    let connected = u8::from(scraped.report.connected);
    text.family("apisix_etcd_reachable", Kind::Gauge, help).sample(&[], connected);
    let help = "Revision of the configuration being served";
    let mut family = text.family("apisix_etcd_modify_indexes", Kind::Gauge, help);
    if let Some(revision) = scraped.live.revision {
        family.sample(&[("key", "max_modify_index")], revision.0);
    }
    let labels = [("hostname", scraped.teller.hostname.as_str()), ("version", env!("CARGO_PKG_VERSION"))];
    text.family("apisix_node_info", Kind::Gauge, "Info of APISIX node").sample(&labels, 1);
}

fn nodes(scraped: &Scraped<'_>, text: &mut Text) {
    let upstreams = scraped.live.services.iter().flat_map(|(id, service)| {
        let own = std::iter::once((id.as_str(), service.upstreams.own()));
        own.chain(service.upstreams.further().map(|(id, live)| (id.as_str(), live)))
    });
    let nodes = upstreams.flat_map(|(name, live)| {
        let nodes = live.now().ok().into_iter().flat_map(|upstream| upstream.nodes.clone());
        nodes.map(move |node| (name, node))
    });
    let mut family = text.family("apisix_upstream_status", Kind::Gauge, "Upstream status from health check");
    for (name, node) in nodes.take(NODES_MAX) {
        if let Some(checker) = &node.checker {
            let (host, port) = (&node.written.host, node.written.port.to_string());
            let healthy = u8::from(checker.health().is_healthy());
            family.sample(&[("name", name), ("ip", host), ("port", &port)], healthy);
        }
    }
}
