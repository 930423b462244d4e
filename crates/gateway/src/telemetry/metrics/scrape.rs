//! Everything that is counted, as text; one function for each group of families.
//!
//! `docs/reference/metrics.md` lists the families, and a test compares the two.

use std::collections::BTreeMap;
use std::time::Duration;

use super::counter::{Counter, Distribution, Tally};
use super::series::{CLASSES, RouteCounts, Series, VersionCounts};
use super::text::{Exposition, Kind, Text};
use super::{Metrics, STATUS_FIRST, WorkerCounts, discovery, process, streams};
use crate::live::LiveConfig;
use crate::source::report::Report;
use crate::telemetry::Teller;

/// Nodes whose health is told; those of a group beyond that are not.
pub(super) const NODES_MAX: usize = 10_000;

/// What is scraped.
pub(crate) struct Scraped<'a> {
    pub(crate) metrics: &'a Metrics,
    pub(crate) live: &'a LiveConfig,
    /// When `live` began to be served, in seconds since 1970.
    pub(crate) served_since: Option<f64>,
    pub(crate) report: &'a Report,
    /// When the certificate that control planes are shown runs out, in seconds since 1970; none: there is none.
    pub(crate) certificate_expires_at: Option<i64>,
    pub(crate) teller: &'a Teller,
    /// Connections that were refused at the door, by reason.
    pub(crate) refusals: Vec<(&'static str, u64)>,
    /// Connections that were closed for a limit, by reason.
    pub(crate) evictions: Vec<(&'static str, u64)>,
    /// TLS handshakes that failed, by reason.
    pub(crate) handshake_failures: Vec<(&'static str, u64)>,
    /// Lines of the access log that were lost: for lack of room, and for lack of a disk that takes them.
    pub(crate) lines_lost: (u64, u64),
}

/// Writes everything.
pub(crate) fn write(scraped: &Scraped<'_>, exposition: Exposition) -> String {
    let mut text = Text::new(exposition);
    gateway(scraped, &mut text);
    routes(&scraped.metrics.routes.all(), &mut text);
    versions(&scraped.metrics.versions.all(), &mut text);
    streams::write(&scraped.metrics.streams.all(), &mut text);
    workers(&scraped.metrics.workers, &mut text);
    let help = "Log entries and spans that a plugin could not send, by plugin.";
    let mut family = text.family("gatewright_plugin_entries_lost_total", Kind::Counter, help);
    scraped
        .metrics
        .shipments
        .read()
        .iter()
        .for_each(|(plugin, lost)| family.sample(&[("plugin", plugin)], lost));
    connections(scraped, &mut text);
    names(scraped, &mut text);
    nodes(scraped.live, &mut text);
    discovery::write(scraped.live, &mut text);
    configuration(scraped, &mut text);
    process::write(&mut text);
    text.finish()
}

fn gateway(scraped: &Scraped<'_>, text: &mut Text) {
    let teller = scraped.teller;
    let labels = [
        ("version", env!("CARGO_PKG_VERSION")),
        ("gateway_group", teller.gateway_group_id.as_str()),
        ("hostname", teller.hostname.as_str()),
        ("instance_id", teller.instance_id.as_str()),
    ];
    text.family("gatewright_info", Kind::Gauge, "The gateway itself; always 1.").sample(&labels, 1);
}

fn routes(all: &[std::sync::Arc<Series<RouteCounts>>], text: &mut Text) {
    let help = "Requests by service, route and class of the status; no route: none matched.";
    let mut family = text.family("gatewright_http_requests_total", Kind::Counter, help);
    for series in all {
        let (service, route) = series.labels();
        for (class, count) in by_class(series.read().map(|counts| &counts.by_class)) {
            family.sample(&[("service", service), ("route", route), ("code_class", class)], count);
        }
    }
    let help = "Bytes of requests (ingress) and answers (egress), heads and bodies, by service and route.";
    let mut family = text.family("gatewright_http_bytes_total", Kind::Counter, help);
    for series in all {
        let (service, route) = series.labels();
        let bytes_in = sum(series.read().map(|counts| &counts.bytes_in));
        let bytes_out = sum(series.read().map(|counts| &counts.bytes_out));
        for (direction, bytes) in [("ingress", bytes_in), ("egress", bytes_out)] {
            family.sample(&[("type", direction), ("service", service), ("route", route)], bytes);
        }
    }
    let help = "Time a request took (request), the part since the first try at a node (upstream), and the part before (gateway).";
    let mut family = text.family("gatewright_http_latency_seconds", Kind::Histogram, help);
    for series in all {
        let (service, route) = series.labels();
        let kinds = [
            ("request", Distribution::of(series.read().map(|counts| &counts.total))),
            ("upstream", Distribution::of(series.read().map(|counts| &counts.upstream))),
            ("gateway", Distribution::of(series.read().map(|counts| &counts.gateway))),
        ];
        for (kind, distribution) in &kinds {
            family.distribution(&[("type", kind), ("service", service), ("route", route)], distribution);
        }
    }
}

fn versions(all: &[std::sync::Arc<Series<VersionCounts>>], text: &mut Text) {
    let help = "Requests by version of the service and class of the status.";
    let mut family = text.family("gatewright_service_version_requests_total", Kind::Counter, help);
    for series in all {
        let (service, version) = series.labels();
        for (class, count) in by_class(series.read().map(|counts| &counts.by_class)) {
            family.sample(&[("service", service), ("version", version), ("code_class", class)], count);
        }
    }
    let help = "Time a request took, by version of the service.";
    let mut family = text.family("gatewright_service_version_latency_seconds", Kind::Histogram, help);
    for series in all {
        let (service, version) = series.labels();
        let distribution = Distribution::of(series.read().map(|counts| &counts.total));
        family.distribution(&[("service", service), ("version", version)], &distribution);
    }
}

fn workers(workers: &[WorkerCounts], text: &mut Text) {
    let help = "Answers by status code; 499: the client left before there was one.";
    let mut family = text.family("gatewright_http_responses_total", Kind::Counter, help);
    for (place, code) in (STATUS_FIRST..).take(super::STATUSES).enumerate() {
        match sum(workers.iter().map(|worker| &worker.by_status[place])) {
            0 => {}
            count => family.sample(&[("code", &code.to_string())], count),
        }
    }
    let help = "Requests the gateway answered by itself, by reason.";
    tallies("gatewright_rejects_total", help, workers.iter().map(|worker| &worker.rejects), text);
    let help = "Exchanges that were cut before their end, by reason.";
    tallies("gatewright_http_cuts_total", help, workers.iter().map(|worker| &worker.cuts), text);
    type Read = fn(&WorkerCounts) -> &Counter;
    plugins(workers, text);
    let numbers: [(&str, Kind, &str, Read); 6] = [
        ("gatewright_http_requests_in_flight", Kind::Gauge, "Requests being served.", |w| &w.in_flight),
        ("gatewright_client_connections", Kind::Gauge, "Open connections of clients.", |w| &w.connections),
        (
            "gatewright_client_connections_accepted_total",
            Kind::Counter,
            "Connections of clients that were let in.",
            |w| &w.connections_accepted,
        ),
        (
            "gatewright_upstream_connections_opened_total",
            Kind::Counter,
            "Connections opened to nodes for requests.",
            |w| &w.upstream_connections_opened,
        ),
        (
            "gatewright_upstream_connections_idle",
            Kind::Gauge,
            "Connections to nodes that wait for their next request.",
            |w| &w.upstream_connections_idle,
        ),
        ("gatewright_upstream_retries_total", Kind::Counter, "Tries at nodes after the first.", |w| {
            &w.retries
        }),
    ];
    for (name, kind, help, read) in numbers {
        text.family(name, kind, help).sample(&[], sum(workers.iter().map(read)));
    }
}

/// What plugins took; nothing, unless that is measured.
fn plugins(workers: &[WorkerCounts], text: &mut Text) {
    let mut sums: BTreeMap<&str, (u64, Duration)> = BTreeMap::new();
    for (plugin, count, took) in workers.iter().flat_map(|worker| worker.plugins.read()) {
        let sum = sums.entry(plugin).or_default();
        *sum = (sum.0 + count, sum.1 + took);
    }
    let help = "Phases of plugins that ran, by plugin; only with --measure-plugins.";
    let mut family = text.family("gatewright_plugin_phases_total", Kind::Counter, help);
    sums.iter().for_each(|(plugin, (count, _))| family.sample(&[("plugin", plugin)], count));
    let help =
        "Time that plugins took, without what they waited for, by plugin; only with --measure-plugins.";
    let mut family = text.family("gatewright_plugin_seconds_total", Kind::Counter, help);
    sums.iter().for_each(|(plugin, (_, took))| family.sample(&[("plugin", plugin)], took.as_secs_f64()));
}

/// Clients that got no further than the door, or were shown to it.
fn connections(scraped: &Scraped<'_>, text: &mut Text) {
    let refused = "Connections of clients that were turned away, by reason.";
    let evicted = "Connections of clients that were closed for a limit, by reason.";
    let failed = "TLS handshakes with clients that failed, by reason.";
    for (name, help, counts) in [
        ("gatewright_client_connections_refused_total", refused, &scraped.refusals),
        ("gatewright_client_connections_evicted_total", evicted, &scraped.evictions),
        ("gatewright_client_tls_failures_total", failed, &scraped.handshake_failures),
    ] {
        let mut family = text.family(name, Kind::Counter, help);
        for (reason, count) in counts {
            family.sample(&[("reason", reason)], *count);
        }
    }
}

/// The names of what the other families know by id: joined in a query, so that renaming breaks no series.
fn names(scraped: &Scraped<'_>, text: &mut Text) {
    let services = scraped.live.services.iter().map(|(_, service)| service).take(super::series::SERIES_MAX);
    let help = "Name and active version of a service; always 1.";
    let mut family = text.family("gatewright_service_info", Kind::Gauge, help);
    for service in services.clone() {
        let published = &service.published;
        let id = published.service_id.as_str();
        family.sample(
            &[
                ("service", id),
                ("service_name", &published.name),
                ("version", published.version.as_deref().unwrap_or_default()),
            ],
            1,
        );
    }
    let help = "Name of a route that had a request; always 1.";
    let mut family = text.family("gatewright_route_info", Kind::Gauge, help);
    for service in services {
        for (route, live) in service.published.routes.iter().zip(&service.routes) {
            if live.series.read().next().is_some() {
                let (service, id) = live.series.labels();
                family.sample(&[("service", service), ("route", id), ("route_name", &route.route.name)], 1);
            }
        }
    }
}

fn nodes(live: &LiveConfig, text: &mut Text) {
    let upstreams = live.services.iter().flat_map(|(id, service)| {
        // The service's own upstream has the id of the service.
        let own = (id.as_str(), service.upstreams.own());
        let further = service.upstreams.further().map(|(id, live)| (id.as_str(), live));
        let usable = std::iter::once(own).chain(further);
        usable.filter_map(move |(upstream, live)| Some(((id, upstream), live.now().ok()?)))
    });
    let nodes = upstreams.flat_map(|(ids, upstream)| {
        let nodes = upstream.nodes.clone();
        nodes.into_iter().map(move |node| (ids, node))
    });
    // As many as are shown are looked at: a registry may name thousands for one upstream.
    let nodes: Vec<_> = nodes.take(NODES_MAX).collect();
    let help = "Whether a node that is checked is healthy, by service and upstream.";
    let mut family = text.family("gatewright_upstream_node_healthy", Kind::Gauge, help);
    let mut resolved = BTreeMap::new();
    for ((service, upstream), node) in &nodes {
        if let Some(name) = node.name() {
            resolved.insert(name.host(), name);
        }
        if let Some(checker) = &node.checker {
            let address = format!("{}:{}", node.written.host, node.written.port);
            let healthy = u8::from(checker.health().is_healthy());
            let labels = [("service", service.as_str()), ("upstream", upstream), ("node", &address)];
            family.sample(&labels, healthy);
        }
    }
    let help = "Addresses known of the name of a node; 0: it does not resolve.";
    let mut family = text.family("gatewright_dns_addresses", Kind::Gauge, help);
    for (host, name) in &resolved {
        family.sample(&[("name", host)], name.addresses().len());
    }
    let help = "Time since the name of a node was last looked up with success.";
    let mut family = text.family("gatewright_dns_age_seconds", Kind::Gauge, help);
    for (host, name) in &resolved {
        if let Some(age) = name.age() {
            family.sample(&[("name", host)], age.as_secs_f64());
        }
    }
}

fn configuration(scraped: &Scraped<'_>, text: &mut Text) {
    let Scraped { live, report, .. } = scraped;
    if let Some(revision) = live.revision {
        let help = "Revision of the configuration being served.";
        text.family("gatewright_config_revision", Kind::Gauge, help).sample(&[], revision.0);
    }
    if let Some(since) = scraped.served_since {
        let help = "When that configuration began to be served, in seconds since 1970.";
        text.family("gatewright_config_applied_timestamp_seconds", Kind::Gauge, help).sample(&[], since);
    }
    if let Some(at) = scraped.certificate_expires_at {
        let help =
            "When the certificate that the gateway shows to control planes runs out, in seconds since 1970.";
        let name = "gatewright_control_plane_certificate_expiry_timestamp_seconds";
        text.family(name, Kind::Gauge, help).sample(&[], at);
    }
    let connected = "Whether a control plane is being followed.";
    let full = "Times that the whole configuration was sent, rather than what changed.";
    let bytes = "Bytes of updates that control planes have sent.";
    let mismatches = "Changes that were lost or doubled on their way, so that everything was sent again.";
    let quarantined =
        "Objects of the configuration that do not compile and are not served in their newest form.";
    let refused = "Whether the newest configuration file is refused, and an older one served.";
    let services = "Services in the configuration being served.";
    let number = |flag: bool| u64::from(flag);
    for (name, kind, help, value) in [
        ("gatewright_control_plane_connected", Kind::Gauge, connected, number(report.connected)),
        ("gatewright_config_full_updates_total", Kind::Counter, full, report.full_updates),
        ("gatewright_config_received_bytes_total", Kind::Counter, bytes, report.bytes_received),
        ("gatewright_config_digest_mismatches_total", Kind::Counter, mismatches, report.digest_mismatches),
        (
            "gatewright_config_quarantined_objects",
            Kind::Gauge,
            quarantined,
            (report.quarantined.len() + report.unopened.len()) as u64,
        ),
        ("gatewright_config_file_refused", Kind::Gauge, refused, number(report.refused.is_some())),
        ("gatewright_config_services", Kind::Gauge, services, live.services.len() as u64),
    ] {
        text.family(name, kind, help).sample(&[], value);
    }
    let help =
        "Lines of the access log that were lost: the disk was too slow (full) or took nothing (write).";
    let mut family = text.family("gatewright_access_log_lines_lost_total", Kind::Counter, help);
    family.sample(&[("cause", "full")], scraped.lines_lost.0);
    family.sample(&[("cause", "write")], scraped.lines_lost.1);
}

pub(super) fn sum<'c>(counters: impl Iterator<Item = &'c Counter>) -> u64 {
    counters.map(Counter::get).sum()
}

/// The classes that occurred.
fn by_class<'c>(
    counts: impl Iterator<Item = &'c [Counter; CLASSES.len()]>,
) -> impl Iterator<Item = (&'static str, u64)> {
    let mut sums = [0; CLASSES.len()];
    for counts in counts {
        sums.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count.get());
    }
    CLASSES.into_iter().zip(sums).filter(|(_, sum)| *sum > 0)
}

fn tallies<'t>(name: &'static str, help: &str, tallies: impl Iterator<Item = &'t Tally>, text: &mut Text) {
    let mut sums: BTreeMap<&str, u64> = BTreeMap::new();
    for (reason, count) in tallies.flat_map(Tally::read) {
        *sums.entry(reason).or_default() += count;
    }
    let mut family = text.family(name, Kind::Counter, help);
    for (reason, count) in sums {
        family.sample(&[("reason", reason)], count);
    }
}
