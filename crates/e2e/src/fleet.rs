//! Control planes and gateways as processes of their own, in the directories that a test gives them.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::{Admin, Process, Upstream, client, wait};

/// A free port of this machine.
const FREE: &str = "127.0.0.1:0";

/// A control plane, with the administrator's key.
pub struct ControlPlane {
    /// The running process.
    pub process: Process,
    /// The admin API.
    pub admin: Admin,
    /// Where the admin API answers.
    pub admin_address: SocketAddr,
    /// Where gateways are answered.
    pub sync: SocketAddr,
    data_dir: PathBuf,
}

impl ControlPlane {
    /// One on free ports, which keeps everything in `data_dir`.
    #[must_use]
    pub fn start(data_dir: &Path) -> Self {
        Self::start_with(data_dir, FREE, &[])
    }

    /// One that answers gateways at `sync`, with further arguments.
    ///
    /// # Panics
    /// If it does not become ready.
    #[must_use]
    pub fn start_with(data_dir: &Path, sync: &str, further: &[&str]) -> Self {
        let path = data_dir.to_str().expect("a temporary path is UTF-8");
        let mut arguments = vec!["control-plane", "--data-dir", path, "--admin", FREE, "--sync", sync];
        arguments.extend_from_slice(further);
        let mut process = Process::start(&arguments, &[]);
        process.wait_ready();
        let key = std::fs::read_to_string(data_dir.join("admin-key")).expect("the administrator's key");
        let admin_address = process.address("admin API");
        let admin = Admin::new(admin_address, Some(key.trim()));
        Self { admin, admin_address, sync: process.address("sync"), process, data_dir: data_dir.to_owned() }
    }

    /// Where gateways are answered over TLS.
    #[must_use]
    pub fn https(&self) -> String {
        format!("https://{}", self.sync)
    }

    /// Where gateways on the same machine are answered in the clear.
    #[must_use]
    pub fn http(&self) -> String {
        format!("http://{}", self.sync)
    }

    /// The file with the token that its first start made.
    #[must_use]
    pub fn token_file(&self) -> PathBuf {
        self.data_dir.join("instance-token")
    }

    /// Publishes the service `s` with one route.
    pub fn publish(&self, version: &str, path: &str, upstream: &Upstream) {
        self.admin.put_service("s", &json!({"name": "s", "upstream": {"nodes": upstream.nodes()}}));
        self.admin.put_route("s-0", &json!({"name": "r", "service_id": "s", "paths": [path]}));
        self.admin.publish("s", version);
    }

    /// The newest revision of the group `default`.
    ///
    /// # Panics
    /// If it has none.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.admin.get("/api/gateway_groups/default")["value"]["revision"].as_u64().expect("a revision")
    }

    /// What the control plane knows of its gateway instances, by id.
    ///
    /// # Panics
    /// If the answer is no list.
    #[must_use]
    pub fn instances(&self) -> Vec<Value> {
        let answer = self.admin.get("/api/instances?order_by=created_at&direction=asc");
        answer["list"].as_array().unwrap_or_else(|| panic!("no list: {answer}")).clone()
    }
}

/// A gateway of its own.
pub struct Gateway {
    /// The running process.
    pub process: Process,
    /// Where clients are answered.
    pub proxy: SocketAddr,
    /// Where its status is.
    pub status_address: SocketAddr,
}

impl Gateway {
    /// A gateway that proves its group with the token in `token_file`, and follows `control_planes` (URLs with commas
    /// between them).
    #[must_use]
    pub fn start(control_planes: &str, token_file: &Path, data_dir: &Path) -> Self {
        let token_file = token_file.to_str().expect("a temporary path is UTF-8");
        Self::start_with(&["--control-plane", control_planes, "--token-file", token_file], data_dir)
    }

    /// A gateway with one worker and further arguments.
    ///
    /// # Panics
    /// If it does not start.
    #[must_use]
    pub fn start_with(further: &[&str], data_dir: &Path) -> Self {
        Self::start_in(further, data_dir, &[])
    }

    /// A gateway with one worker, further arguments and this in its environment.
    ///
    /// # Panics
    /// If it does not start.
    #[must_use]
    pub fn start_in(further: &[&str], data_dir: &Path, environment: &[(&str, &str)]) -> Self {
        let path = data_dir.to_str().expect("a temporary path is UTF-8");
        let mut arguments = vec!["gateway", "--proxy", FREE, "--status", FREE, "--workers", "1"];
        arguments.extend_from_slice(&["--data-dir", path]);
        arguments.extend_from_slice(further);
        let mut process = Process::start(&arguments, environment);
        let (proxy, status_address) = (process.address("proxy"), process.address("status"));
        Self { process, proxy, status_address }
    }

    /// Waits until it serves a configuration.
    #[must_use]
    pub fn ready(mut self) -> Self {
        self.process.wait_ready();
        self
    }

    /// What `/status` says.
    ///
    /// # Panics
    /// If that is no JSON.
    #[must_use]
    pub fn status(&self) -> Value {
        let answer = client::get(self.status_address, "status", "/status");
        serde_json::from_slice(&answer.body).expect("the status is JSON")
    }

    /// Whether it serves `revision` or a newer one.
    #[must_use]
    pub fn has(&self, revision: u64) -> bool {
        self.status()["revision"].as_u64() >= Some(revision)
    }

    /// Waits until it serves `revision` or a newer one.
    pub fn until_has(&self, revision: u64) {
        wait::until_true(&format!("revision {revision} is served"), || self.has(revision));
    }

    /// Waits until what it serves is on its disk.
    pub fn until_kept(&self) {
        wait::until_true("the configuration is on disk", || {
            let status = self.status();
            status["configuration"]["persisted"] == status["revision"]
        });
    }

    /// The status of a GET for the host `s.test`.
    #[must_use]
    pub fn get(&self, path: &str) -> u16 {
        client::get(self.proxy, "s.test", path).status()
    }
}
