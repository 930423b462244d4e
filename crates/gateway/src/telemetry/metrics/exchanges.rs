//! Exchanges as the `prometheus` plugin counts them: with the labels that dashboards for Apache APISIX expect.

use std::time::Instant;

use gatewright_plugins::exchange::Counted;

use super::counter::{Counter, Histogram};
use super::labelled::{Found, Sets};
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
pub(crate) struct OfWorker {
    statuses: Found<Counter>,
    latencies: Found<Latencies>,
    bandwidths: Found<Bandwidth>,
}

/// What an exchange is told apart by.
struct Labels<'e> {
    code: &'e str,
    route: &'e str,
    matched_uri: &'e str,
    matched_host: &'e str,
    service: &'e str,
    consumer: &'e str,
    node: &'e str,
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
        let code = outcome.status.to_string();
        let node = outcome.node.map(|node| node.ip().to_canonical().to_string()).unwrap_or_default();
        let labels = Labels::of(outcome, counted, &code, &node);
        let status = [
            ("code", labels.code),
            ("route", labels.route),
            ("matched_uri", labels.matched_uri),
            ("matched_host", labels.matched_host),
            ("service", labels.service),
            ("consumer", labels.consumer),
            ("node", labels.node),
        ];
        let rest = [
            ("route", labels.route),
            ("service", labels.service),
            ("consumer", labels.consumer),
            ("node", labels.node),
        ];
        let kept = Kept { without: counted.without, metric: "http_status" };
        self.statuses.count(
            (worker, &found.statuses),
            &kept.key(&status),
            || kept.text(&status),
            |it| it.add(1),
        );
        let kept = Kept { metric: "http_latency", ..kept };
        self.latencies.count(
            (worker, &found.latencies),
            &kept.key(&rest),
            || kept.text(&rest),
            |it| {
                it.total.observe(outcome.total);
                it.gateway.observe(outcome.gateway());
                if let Some(upstream) = outcome.upstream {
                    it.upstream.observe(upstream);
                }
            },
        );
        let kept = Kept { metric: "bandwidth", ..kept };
        self.bandwidths.count(
            (worker, &found.bandwidths),
            &kept.key(&rest),
            || kept.text(&rest),
            |it| {
                it.ingress.add(outcome.bytes_in);
                it.egress.add(outcome.bytes_out);
            },
        );
    }
}

impl<'e> Labels<'e> {
    fn of(outcome: &'e Outcome<'_>, counted: &Counted<'e>, code: &'e str, node: &'e str) -> Self {
        let (service, route) = (outcome.service(), outcome.route());
        let id_or_name = |id: &'e str, name: &'e str| if counted.by_name { name } else { id };
        Self {
            code,
            route: route.map_or("", |route| id_or_name(route.route_id.as_str(), &route.route.name)),
            matched_uri: outcome.matched_path().unwrap_or_default(),
            matched_host: outcome.matched_host(counted.host).unwrap_or_default(),
            service: service
                .map_or("", |it| id_or_name(it.published.service_id.as_str(), &it.published.name)),
            consumer: counted.consumer.unwrap_or_default(),
            node,
        }
    }
}

/// Which labels of a metric are told.
#[derive(Clone, Copy)]
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

    /// Tells these labels apart from others, quickly.
    fn key(&self, labels: &[(&str, &str)]) -> Vec<u8> {
        let mut key = Vec::with_capacity(160);
        for (name, value) in labels {
            key.extend_from_slice(self.value(name, value).as_bytes());
            key.push(0);
        }
        key
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
