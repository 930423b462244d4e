//! A store with as many services as wanted, made through the admin API as people would.

use std::net::SocketAddr;

use anyhow::Context;
use serde_json::{Value, json};

use super::super::scenario::HOST;
use super::process::ControlPlane;

/// Routes of every service.
pub(super) const ROUTES_PER_SERVICE: usize = 10;

/// Services published at once.
const SERVICES_PER_PUBLISH: usize = 50;

/// The group of everything.
pub(super) const GROUP: &str = "default";

/// Makes services until there are so many, beside the one that the load asks for.
pub(super) fn grow(control_plane: &ControlPlane, backend: SocketAddr, services: usize) -> anyhow::Result<()> {
    let there = control_plane.count()?;
    if there == 0 {
        design(control_plane, "pet-store", service("pet-store", "/store", backend), &["pets".to_owned()])?;
        publish(control_plane, &["pet-store".to_owned()], "1.0.0")?;
    }
    eprintln!("making {services} services");
    let ids: Vec<String> = (there.max(1)..=services).map(|number| format!("team-{number}")).collect();
    for ids in ids.chunks(SERVICES_PER_PUBLISH) {
        for id in ids {
            let names: Vec<String> = (0..ROUTES_PER_SERVICE).map(|route| format!("items-{route}")).collect();
            design(control_plane, id, service(id, &format!("/{id}"), backend), &names)?;
        }
        publish(control_plane, ids, "1.0.0")?;
    }
    Ok(())
}

fn service(name: &str, prefix: &str, backend: SocketAddr) -> Value {
    json!({
        "name": name, "hosts": [HOST], "path_prefix": prefix,
        "upstream": {"nodes": [{"host": backend.ip().to_string(), "port": backend.port(), "weight": 1}]},
    })
}

fn design(control_plane: &ControlPlane, id: &str, service: Value, routes: &[String]) -> anyhow::Result<()> {
    control_plane.put(&format!("/api/services/template/{id}"), &service)?;
    for name in routes {
        let route = json!({"service_id": id, "name": name, "paths": [format!("/{name}/*")]});
        control_plane.put(&format!("/api/routes/template/{id}-{name}"), &route)?;
    }
    Ok(())
}

/// Publishes services as this version: the revision after it.
pub(super) fn publish(control_plane: &ControlPlane, ids: &[String], version: &str) -> anyhow::Result<u64> {
    let services: Vec<Value> = ids.iter().map(|id| json!({"service_id": id, "version": version})).collect();
    let wish = json!({"create_new_version": true, "gateway_group_id": GROUP, "services": services});
    control_plane.post("/api/services/publish", &wish)?;
    control_plane.revision()
}

impl ControlPlane {
    /// The newest revision of the group.
    pub(super) fn revision(&self) -> anyhow::Result<u64> {
        let answer = self.get(&format!("/api/gateway_groups/{GROUP}"))?;
        answer["value"]["revision"].as_u64().with_context(|| format!("no revision in {answer}"))
    }

    /// How many services are published.
    fn count(&self) -> anyhow::Result<usize> {
        let answer = self.get(&format!("/api/gateway_groups/{GROUP}/services?page=1&page_size=10"))?;
        let total = answer["total"].as_u64().with_context(|| format!("no total in {answer}"))?;
        Ok(usize::try_from(total)?)
    }
}
