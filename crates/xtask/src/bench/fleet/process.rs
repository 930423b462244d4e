//! Control planes and gateways of the release executable, with the addresses that they print.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::Value;

use super::super::cores;

/// The administrator's key of a control plane that lives as long as the bench and listens on loopback only.
const ADMIN_KEY: &str = "bench-administrator-key";

/// A free port of this machine.
const FREE: &str = "127.0.0.1:0";

/// How long a gateway may take until it serves.
const READY_MAX: Duration = Duration::from_secs(120);

/// A process; dropping it kills it.
pub(super) struct Process {
    child: Child,
    lines: Vec<String>,
}

impl Process {
    /// Starts `program` on a core, and waits until it has named as many addresses.
    fn start(program: &Path, core: usize, arguments: &[&str], addresses: usize) -> anyhow::Result<Self> {
        let mut command = Command::new(program);
        command
            .args(arguments)
            .env("GATEWRIGHT_ADMIN_KEY", ADMIN_KEY)
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        cores::pin(core)?;
        let child = command.spawn().with_context(|| format!("cannot run {}", program.display()));
        cores::pin(cores::LOAD)?;
        let mut process = Self { child: child?, lines: Vec::new() };
        let stdout = process.child.stdout.take().context("the output is not there")?;
        let mut lines = BufReader::new(stdout).lines();
        while process.lines.iter().filter(|line| line.contains("://")).count() < addresses {
            process.lines.push(lines.next().context("it ended before it named its addresses")??);
        }
        // Whatever it prints later must not fill the pipe and block it.
        std::thread::spawn(move || lines.for_each(drop));
        Ok(process)
    }

    /// The address behind a label.
    fn address(&self, label: &str) -> anyhow::Result<SocketAddr> {
        let line = self.lines.iter().find(|line| line.trim_start().starts_with(label));
        let url = line
            .and_then(|line| line.split_once("://"))
            .with_context(|| format!("no {label} in {:?}", self.lines))?;
        let address = url.1.split(|character: char| character == '/' || character.is_whitespace()).next();
        Ok(address.unwrap_or_default().parse()?)
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A control plane on the core of the load, since a gateway's is what is measured.
pub(super) struct ControlPlane {
    pub(super) process: Process,
    pub(super) sync: SocketAddr,
    admin: SocketAddr,
    token_file: PathBuf,
    agent: ureq::Agent,
}

impl ControlPlane {
    pub(super) fn start(program: &Path, data_dir: &Path, database: Option<&str>) -> anyhow::Result<Self> {
        let path = data_dir.to_str().context("the path of the checkout is not UTF-8")?;
        let mut arguments = vec!["control-plane", "--admin", FREE, "--sync", FREE, "--data-dir", path];
        // Who shares a database brings the key of its secrets along.
        let key = "7a".repeat(32);
        arguments.extend(database.iter().flat_map(|url| ["--database-url", *url, "--secret-key", &key]));
        let process = Process::start(program, cores::LOAD, &arguments, 2)?;
        let (admin, sync) = (process.address("admin API")?, process.address("sync")?);
        let agent = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
        Ok(Self { process, sync, admin, token_file: data_dir.join("instance-token"), agent })
    }

    pub(super) fn token(&self) -> anyhow::Result<String> {
        Ok(std::fs::read_to_string(&self.token_file)?.trim().to_owned())
    }

    /// Sends a document.
    pub(super) fn put(&self, path: &str, document: &Value) -> anyhow::Result<Value> {
        let url = format!("http://{}{path}", self.admin);
        accepted(self.agent.put(url).header("X-API-KEY", ADMIN_KEY).send_json(document)?)
    }

    /// Reads something.
    pub(super) fn get(&self, path: &str) -> anyhow::Result<Value> {
        let url = format!("http://{}{path}", self.admin);
        accepted(self.agent.get(url).header("X-API-KEY", ADMIN_KEY).call()?)
    }

    /// Changes members of a document.
    pub(super) fn patch(&self, path: &str, members: &Value) -> anyhow::Result<Value> {
        let url = format!("http://{}{path}", self.admin);
        let request = self.agent.patch(url).header("X-API-KEY", ADMIN_KEY);
        accepted(request.header("content-type", "application/json").send(members.to_string())?)
    }

    /// Has something done.
    pub(super) fn post(&self, path: &str, document: &Value) -> anyhow::Result<Value> {
        let url = format!("http://{}{path}", self.admin);
        accepted(self.agent.post(url).header("X-API-KEY", ADMIN_KEY).send_json(document)?)
    }
}

fn accepted(mut answer: ureq::http::Response<ureq::Body>) -> anyhow::Result<Value> {
    let body = answer.body_mut().read_to_string()?;
    ensure!(answer.status().is_success(), "the admin API answered {}: {body}", answer.status());
    Ok(serde_json::from_str(&body)?)
}

/// A gateway with one worker, on the core that is measured.
pub(super) struct Gateway {
    pub(super) process: Process,
    pub(super) proxy: SocketAddr,
    status: SocketAddr,
}

impl Gateway {
    pub(super) fn start(
        program: &Path,
        sync: SocketAddr,
        token_file: &Path,
        data_dir: &Path,
    ) -> anyhow::Result<Self> {
        let [data_dir, token_file] = [data_dir, token_file].map(|path| path.to_string_lossy().into_owned());
        let control_plane = format!("http://{sync}");
        let mut arguments = vec!["gateway", "--proxy", FREE, "--status", FREE, "--workers", "1"];
        arguments.extend(["--data-dir", &data_dir, "--token-file", &token_file]);
        arguments.extend(["--control-plane", &control_plane]);
        let process = Process::start(program, cores::PROXY, &arguments, 2)?;
        let (proxy, status) = (process.address("proxy")?, process.address("status")?);
        Ok(Self { process, proxy, status })
    }

    pub(super) fn of(program: &Path, control_plane: &ControlPlane, data_dir: &Path) -> anyhow::Result<Self> {
        Self::start(program, control_plane.sync, &control_plane.token_file, data_dir)
    }

    pub(super) fn status(&self) -> anyhow::Result<Value> {
        let mut answer = ureq::get(format!("http://{}/status", self.status)).call()?;
        Ok(serde_json::from_str(&answer.body_mut().read_to_string()?)?)
    }

    /// Waits until it serves something.
    pub(super) fn until_ready(&self) -> anyhow::Result<()> {
        let url = format!("http://{}/status/ready", self.status);
        until(|| Ok(ureq::get(&url).call().is_ok()))
    }

    /// Waits until what it serves is on its disk.
    pub(super) fn until_kept(&self) -> anyhow::Result<()> {
        until(|| {
            let status = self.status()?;
            Ok(!status["revision"].is_null() && status["configuration"]["persisted"] == status["revision"])
        })
    }
}

fn until(mut is_so: impl FnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    let begun = Instant::now();
    while !is_so()? {
        ensure!(begun.elapsed() < READY_MAX, "the gateway does not get there");
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}
