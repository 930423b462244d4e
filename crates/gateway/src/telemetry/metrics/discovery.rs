//! What is counted of the services whose nodes registries name.

use std::collections::BTreeMap;

use gatewright_model::resource::service_registry::Wanted;

use super::text::{Kind, Text};
use crate::live::LiveConfig;

/// Services that are shown.
const SERVICES_MAX: usize = 2000;

fn labels(service: &Wanted) -> [(&'static str, &str); 2] {
    [("type", service.kind.name()), ("name", &service.name)]
}

/// Writes how many nodes each of them has, how old that is, and how often it could not be said.
pub(super) fn write(live: &LiveConfig, text: &mut Text) {
    let mut services = BTreeMap::new();
    for (_, service) in live.services.iter() {
        for discovered in service.upstreams.all().filter_map(|upstream| upstream.discovered()) {
            if services.len() < SERVICES_MAX {
                services.insert(discovered.service().wanted(), discovered.service().known());
            }
        }
    }
    let help = "Nodes that a registry names for a service.";
    let mut family = text.family("gatewright_discovery_nodes", Kind::Gauge, help);
    for (service, known) in &services {
        let nodes = known.nodes.as_ref().map_or(0, |nodes| nodes.len());
        family.sample(&labels(service), nodes);
    }
    let help = "Time since a registry last said which nodes a service has.";
    let mut family = text.family("gatewright_discovery_age_seconds", Kind::Gauge, help);
    for (service, known) in &services {
        if let Some(age) = known.age() {
            family.sample(&labels(service), age.as_secs_f64());
        }
    }
    let help = "Times that a registry did not say which nodes a service has; its last good ones stay.";
    let mut family = text.family("gatewright_discovery_failures_total", Kind::Counter, help);
    for (service, known) in &services {
        family.sample(&labels(service), known.failures);
    }
}
