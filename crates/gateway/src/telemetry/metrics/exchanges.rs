//! Exchanges as the `prometheus` plugin counts them: with the labels that dashboards for Apache APISIX expect.

use std::cell::RefCell;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use gatewright_plugins::exchange::Counted;

use super::counter::{Counter, Histogram};
use super::labelled::{Entries, Entry, Found, Sets};
use super::series::OTHER;
use crate::telemetry::record::Outcome;

/// What kind of request it was; others, such as those to language models, are told apart by plugins there are not.
const REQUEST_TYPE: &str = "traditional_http";

/// Exchanges of all workers.
pub(crate) struct Exchanges {
    pub(crate) statuses: Sets<Counter>,
    pub(crate) latencies: Sets<Latencies>,
    pub(crate) bandwidths: Sets<Bandwidth>,
}

/// How long exchanges took.
#[derive(Default)]
#[repr(align(128))]
pub(crate) struct Latencies {
    pub(crate) total: Histogram,
    pub(crate) upstream: Histogram,
    pub(crate) gateway: Histogram,
}

/// How much they passed.
#[derive(Default)]
#[repr(align(128))]
pub(crate) struct Bandwidth {
    pub(crate) ingress: Counter,
    pub(crate) egress: Counter,
}

/// What one worker found already.
#[derive(Default)]
pub(crate) struct OfWorker(RefCell<Known>);

#[derive(Default)]
struct Known {
    found: Found<Series>,
    /// Room to write what tells exchanges apart.
    key: Vec<u8>,
}

/// Where one kind of exchange is counted.
struct Series {
    status: Arc<Entry<Counter>>,
    latencies: Arc<Entry<Latencies>>,
    bandwidth: Arc<Entry<Bandwidth>>,
}

impl Entries for Series {
    fn are_retired(&self) -> bool {
        self.status.are_retired() || self.latencies.are_retired() || self.bandwidth.are_retired()
    }
}

/// What an exchange is told apart by.
struct Labels<'e> {
    code: u16,
    route: &'e str,
    matched_uri: &'e str,
    matched_host: &'e str,
    service: &'e str,
    consumer: &'e str,
    node: Option<IpAddr>,
}

impl Exchanges {
    pub(crate) fn new(workers: usize) -> Self {
        let other = |code: &str| {
            let mut text = String::new();
            let names = ["route", "matched_uri", "matched_host", "service", "consumer", "node"];
            let all = (!code.is_empty()).then_some(("code", code)).into_iter();
            let all = all.chain(names.map(|name| (name, OTHER)));
            for (name, value) in all.filter(|(name, _)| !code.is_empty() || !name.starts_with("matched")) {
                put(name, value, &mut text);
            }
            text
        };
        Self {
            statuses: Sets::new(workers, &other(OTHER)),
            latencies: Sets::new(workers, &other("")),
            bandwidths: Sets::new(workers, &other("")),
        }
    }

    pub(crate) fn sweep(&self, now: Instant) {
        self.statuses.sweep(now);
        self.latencies.sweep(now);
        self.bandwidths.sweep(now);
    }

    /// Counts an exchange as a plugin asked; only for the thread of `worker`.
    pub(crate) fn count(
        &self,
        (worker, found): (usize, &OfWorker),
        outcome: &Outcome<'_>,
        counted: &Counted<'_>,
    ) {
        let labels = Labels::of(outcome, counted);
        let mut known = found.0.borrow_mut();
        let Known { found, key } = &mut *known;
        key.clear();
        labels.tell_apart(counted.without, key);
        let enrol = || self.enrol(worker, &labels, counted.without);
        found.count(key, enrol, |series| {
            series.status.used().add(1);
            let latencies = series.latencies.used();
            latencies.total.observe(outcome.total);
            latencies.gateway.observe(outcome.gateway());
            if let Some(upstream) = outcome.upstream {
                latencies.upstream.observe(upstream);
            }
            let bandwidth = series.bandwidth.used();
            bandwidth.ingress.add(outcome.bytes_in);
            bandwidth.egress.add(outcome.bytes_out);
        });
    }

    /// The series of these labels, and whether all of them are their own.
    fn enrol(&self, worker: usize, labels: &Labels<'_>, without: &[(Box<str>, Box<str>)]) -> (Series, bool) {
        let code = labels.code.to_string();
        let node = labels.node.map(|node| node.to_string()).unwrap_or_default();
        let rest = [
            ("route", labels.route),
            ("service", labels.service),
            ("consumer", labels.consumer),
            ("node", &*node),
        ];
        let status = [
            ("code", &*code),
            ("route", labels.route),
            ("matched_uri", labels.matched_uri),
            ("matched_host", labels.matched_host),
            ("service", labels.service),
            ("consumer", labels.consumer),
            ("node", &*node),
        ];
        let text = |metric, labels: &[(&str, &str)]| Kept { without, metric }.text(labels);
        let (status, is_own) = self.statuses.enrol(worker, text("http_status", &status));
        let (latencies, are_own) = self.latencies.enrol(worker, text("http_latency", &rest));
        let (bandwidth, is_own_too) = self.bandwidths.enrol(worker, text("bandwidth", &rest));
        (Series { status, latencies, bandwidth }, is_own && are_own && is_own_too)
    }
}

impl<'e> Labels<'e> {
    fn of(outcome: &'e Outcome<'_>, counted: &Counted<'e>) -> Self {
        let (service, route) = (outcome.service(), outcome.route());
        let id_or_name = |id: &'e str, name: &'e str| if counted.by_name { name } else { id };
        Self {
            code: outcome.status,
            route: route.map_or("", |route| id_or_name(route.route_id.as_str(), &route.route.name)),
            matched_uri: outcome.matched_path().unwrap_or_default(),
            matched_host: outcome.matched_host(counted.host).unwrap_or_default(),
            service: service
                .map_or("", |it| id_or_name(it.published.service_id.as_str(), &it.published.name)),
            consumer: counted.consumer.unwrap_or_default(),
            node: outcome.node.map(|node| node.ip().to_canonical()),
        }
    }

    /// Writes what tells these labels apart from others, and from the same where other ones are left out.
    fn tell_apart(&self, without: &[(Box<str>, Box<str>)], key: &mut Vec<u8>) {
        let texts = [self.route, self.matched_uri, self.matched_host, self.service, self.consumer];
        let left_out = without.iter().flat_map(|(metric, label)| [&**metric, &**label]);
        for text in texts.into_iter().chain(left_out) {
            key.extend_from_slice(text.as_bytes());
            key.push(0);
        }
        key.extend_from_slice(&self.code.to_le_bytes());
        match self.node {
            None => {}
            Some(IpAddr::V4(node)) => key.extend_from_slice(&node.octets()),
            Some(IpAddr::V6(node)) => key.extend_from_slice(&node.octets()),
        }
    }
}

/// Which labels of a metric are told.
struct Kept<'k> {
    without: &'k [(Box<str>, Box<str>)],
    metric: &'k str,
}

impl Kept<'_> {
    fn value<'v>(&self, name: &str, value: &'v str) -> &'v str {
        let is_left_out =
            |(metric, label): &(Box<str>, Box<str>)| **metric == *self.metric && **label == *name;
        if self.without.iter().any(is_left_out) { "" } else { value }
    }

    /// The labels as they are scraped.
    fn text(&self, labels: &[(&str, &str)]) -> String {
        let mut text = String::new();
        labels.iter().for_each(|(name, value)| put(name, self.value(name, value), &mut text));
        put("request_type", REQUEST_TYPE, &mut text);
        text
    }
}

fn put(name: &str, value: &str, text: &mut String) {
    if !text.is_empty() {
        text.push(',');
    }
    super::text::label(name, value, text);
}
