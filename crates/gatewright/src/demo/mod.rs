//! `--demo`: a pet store to look at.
//!
//! The first start designs and publishes it; a later start finds it there and only sees to it that its backends run
//! where the published service expects them. Everything goes through the admin API, as a user would do it.

mod backend;
mod pet_store;

use std::net::SocketAddr;
use std::path::Path;

use serde_json::{Value, json};

use self::backend::Backend;
use crate::admin_client::{AdminClient, publish_wish};
use crate::announce;
use crate::commands::Failure;
use crate::commands::quick::version_parts;
use crate::shell::quoted;

pub(crate) use self::pet_store::HOST;

/// The group the pet store is published to.
const GROUP: &str = gatewright_model::resource::gateway_group::DEFAULT_ID;

/// Where the demo is reached.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Addresses {
    pub(crate) admin: SocketAddr,
    pub(crate) proxy: SocketAddr,
}

/// A pet store that is published and has its backends.
pub(crate) struct Demo {
    addresses: Addresses,
    /// The version that was active when the demo started.
    version: String,
}

/// Starts the backends and publishes the pet store, as far as it is not published yet.
pub(crate) async fn start(addresses: Addresses, admin_key: String) -> Result<Demo, Failure> {
    let client = AdminClient::new(&format!("http://{}", addresses.admin), admin_key)?;
    let task = tokio::task::spawn_blocking(move || publish_where_missing(&client));
    let cut_off = |error| Failure::Start { what: "the demo", source: std::io::Error::other(error) };
    let version = task.await.map_err(cut_off)??;
    Ok(Demo { addresses, version })
}

/// Hands back the version that is active in the end.
fn publish_where_missing(client: &AdminClient) -> Result<String, Failure> {
    let Some(service) = client.published_service_find(GROUP, pet_store::SERVICE)? else {
        let nodes = backends_start([0; pet_store::NODES])?;
        client.service_template_put(pet_store::SERVICE, &pet_store::template(&nodes))?;
        for (id, route) in pet_store::routes() {
            client.route_template_put(id, &route)?;
        }
        client.service_publish(GROUP, pet_store::SERVICE, pet_store::VERSION)?;
        return Ok(pet_store::VERSION.to_owned());
    };
    let recorded = pet_store::recorded_ports(&service["upstream"]["nodes"]);
    if recorded.is_none_or(|ports| backends_start(ports).is_err()) {
        let nodes = backends_start([0; pet_store::NODES])?;
        let changes = json!({ "upstream": { "nodes": pet_store::nodes(&nodes) } });
        client.runtime_configuration_patch(GROUP, pet_store::SERVICE, &changes)?;
    }
    Ok(service["version"].as_str().unwrap_or(pet_store::VERSION).to_owned())
}

/// Starts the backends on `ports`, all or none; 0 is any free port.
fn backends_start(ports: [u16; pet_store::NODES]) -> Result<Vec<SocketAddr>, Failure> {
    let failure = |source| Failure::Start { what: "the demo's backends", source };
    let backends = ports.map(Backend::bind).into_iter().collect::<Result<Vec<_>, _>>().map_err(failure)?;
    backends.into_iter().map(|backend| backend.serve().map_err(failure)).collect()
}

impl Demo {
    /// A request that the pet store answers, to be sent with the host [`HOST`].
    pub(crate) fn pet_url(&self) -> String {
        format!("http://{}{}/pets/1", self.addresses.proxy, pet_store::PATH_PREFIX)
    }

    /// Prints the lines to paste; `key` is how the admin key is written in them, inside double quotes.
    pub(crate) fn announce(&self, key: &str) {
        let [ask, list, publish] = self.lines(key);
        announce::line("# a pet, through the gateway");
        announce::line(ask);
        announce::line("# the published services, through the admin API");
        announce::line(list);
        announce::line(format_args!("# publish {}, which adds a route, and ask for it", self.next_version()));
        announce::line(publish);
    }

    /// Three command lines: one for the gateway, one that lists, one that publishes the next version.
    fn lines(&self, key: &str) -> [String; 3] {
        let Addresses { admin, proxy } = self.addresses;
        let (host, authorised) = (quoted(&format!("Host: {HOST}")), format!("-H \"X-API-KEY: {key}\""));
        let version = self.next_version();
        let (route_id, path, route) = pet_store::additional_route(&version);
        let wish = publish_wish(GROUP, pet_store::SERVICE, &version);
        let send = |method: &str, path: &str, body: &Value| {
            let body = quoted(&body.to_string());
            format!(
                "curl -fsS -X {method} {authorised} -H 'Content-Type: application/json' http://{admin}{path} -d {body}"
            )
        };
        let design = send("PUT", &format!("/api/routes/template/{route_id}"), &route);
        let publish = send("POST", "/api/services/publish", &wish);
        // The gateway learns of the publication a moment later; until then it answers 404, and curl asks again.
        let look = format!(
            "curl -fsS --retry 5 --retry-all-errors -H {host} http://{proxy}{}{path}",
            pet_store::PATH_PREFIX
        );
        [
            format!("curl -H {host} {}", self.pet_url()),
            format!("curl {authorised} http://{admin}/api/gateway_groups/{GROUP}/services"),
            format!("{design} && {publish} && {look}"),
        ]
    }

    fn next_version(&self) -> String {
        let [major, minor, _] = version_parts(&self.version).unwrap_or([1, 0, 0]);
        format!("{major}.{}.0", minor.saturating_add(1))
    }
}

/// How the admin key is written in a line to paste: itself if it was just made, else where the shell finds it.
pub(crate) fn key_to_paste(created: Option<&str>, data_dir: &Path) -> String {
    if let Some(key) = created {
        return key.to_owned();
    }
    let file = data_dir.join("admin-key");
    if file.is_file() {
        let absolute = std::path::absolute(&file).unwrap_or(file);
        return format!("$(cat {})", quoted(&absolute.display().to_string()));
    }
    "$GATEWRIGHT_ADMIN_KEY".to_owned()
}

#[cfg(test)]
mod tests;
