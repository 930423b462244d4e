//! A world in one line: `World::start()` is a control plane and a gateway in a temporary directory, ready to use.

use std::net::SocketAddr;
use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::message::Response;
use crate::{Admin, Process, client, wait};

/// `gatewright up` on free ports.
pub struct World {
    /// The running process.
    pub process: Process,
    /// The admin API, with the administrator's key.
    pub admin: Admin,
    /// Where the admin API answers.
    pub admin_address: SocketAddr,
    /// Where clients are answered.
    pub proxy: SocketAddr,
    /// Where the gateway's status is.
    pub status: SocketAddr,
    directory: TempDir,
}

impl World {
    /// A first start.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// A first start with further arguments.
    ///
    /// # Panics
    /// If it does not become ready.
    #[must_use]
    pub fn start_with(arguments: &[&str]) -> Self {
        Self::start_in(TempDir::new().expect("a temporary directory"), arguments)
    }

    /// Another start on the data of this world, whose process has ended (or is killed here).
    #[must_use]
    pub fn start_again(mut self, arguments: &[&str]) -> Self {
        self.process.kill();
        Self::start_in(self.directory, arguments)
    }

    fn start_in(directory: TempDir, arguments: &[&str]) -> Self {
        let data_dir = directory.path().join("data");
        let mut all = up(data_dir.to_str().expect("a temporary path is UTF-8"));
        all.extend_from_slice(arguments);
        let mut process = Process::start(&all, &[]);
        process.wait_ready();
        let key = std::fs::read_to_string(data_dir.join("admin-key")).expect("the administrator's key");
        let admin_address = process.address("admin API");
        Self {
            admin: Admin::new(admin_address, Some(key.trim())),
            admin_address,
            proxy: process.address("proxy"),
            status: process.address("status"),
            process,
            directory,
        }
    }

    /// The data directory.
    #[must_use]
    pub fn data_dir(&self) -> std::path::PathBuf {
        self.directory.path().join("data")
    }

    /// A directory that only this world uses.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Designs a service with routes, publishes it, and waits until the gateway serves what was published.
    pub fn serve(&self, id: &str, version: &str, template: &Value, routes: &[Value]) {
        let mut template = template.clone();
        template["name"] = json!(id);
        self.admin.put_service(id, &template);
        for (index, route) in routes.iter().enumerate() {
            let mut route = route.clone();
            route["service_id"] = json!(id);
            if route["name"].is_null() {
                route["name"] = json!(format!("route-{index}"));
            }
            self.admin.put_route(&format!("{id}-{index}"), &route);
        }
        self.admin.publish(id, version);
        self.settle();
    }

    /// Waits until the gateway serves everything that was acknowledged so far.
    pub fn settle(&self) {
        let group = self.admin.get("/api/gateway_groups/default");
        let wanted = group["value"]["revision"].as_u64().expect("a revision");
        wait::until_true("the latest revision is served", || {
            let status: Value =
                serde_json::from_slice(&client::get(self.status, "status.test", "/status").body)
                    .expect("the status is JSON");
            status["revision"].as_u64() >= Some(wanted)
        });
    }

    /// Sends a GET through the gateway.
    #[must_use]
    pub fn get(&self, host: &str, target: &str) -> Response {
        client::get(self.proxy, host, target)
    }
}

/// The arguments of `gatewright up` on free ports.
#[must_use]
pub fn up(data_dir: &str) -> Vec<&str> {
    let free = "127.0.0.1:0";
    let listeners = ["--admin", free, "--proxy", free, "--status", free, "--workers", "2"];
    let mut arguments = vec!["up", "--data-dir", data_dir];
    arguments.extend(listeners);
    arguments
}
