//! Gatewright itself: the release executable, `up` with one worker, one service published through the admin API.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use super::super::scenario::{Connections, HOST, Protocol, Scenario};
use super::{ROUTES_PER_SERVICE, Running, Site, free_address};
use crate::cargo::cargo;

/// The administrator's key of an instance that lives as long as the bench and listens on loopback only.
const ADMIN_KEY: &str = "bench-administrator-key";

/// Client connections allowed beyond those that wait: readiness is asked for, too.
const CONNECTIONS_SPARE: usize = 1000;

/// Services published at once.
const SERVICES_PER_PUBLISH: usize = 10;

pub(super) fn prepare(repository: &Path) -> anyhow::Result<PathBuf> {
    let build = cargo()
        .args([
            "build",
            "--release",
            "--package",
            "gatewright",
            "--message-format",
            "json-render-diagnostics",
        ])
        .current_dir(repository)
        .stderr(Stdio::inherit())
        .output()
        .context("cannot run cargo")?;
    ensure!(build.status.success(), "the release build failed");
    let messages = String::from_utf8_lossy(&build.stdout);
    executable(&messages).context("cargo named no executable called `gatewright`")
}

/// Where cargo says it put the executable: it knows every setting that moves the target directory.
fn executable(messages: &str) -> Option<PathBuf> {
    let named = |line: &str| {
        let message: Value = serde_json::from_str(line).ok()?;
        let path = message["executable"].as_str()?;
        (message["target"]["name"] == "gatewright").then(|| PathBuf::from(path))
    };
    messages.lines().find_map(named)
}

pub(super) fn start(site: &Site, program: &Path) -> anyhow::Result<Running> {
    start_in(&site.folder("gatewright")?, site, program)
}

/// Starts an earlier build beside the one that is measured.
pub(super) fn start_before(site: &Site, program: &Path) -> anyhow::Result<Running> {
    start_in(&site.folder("before")?, site, program)
}

fn start_in(folder: &Path, site: &Site, program: &Path) -> anyhow::Result<Running> {
    let log = folder.join("stderr.log");
    let any = "127.0.0.1:0";
    let stream = site.scenario.layer4.then(free_address).transpose()?;
    let mut command = Command::new(program);
    command
        .args(["up", "--workers", "1", "--admin", any, "--proxy", any, "--status", any, "--data-dir"])
        .arg(folder.join("data"))
        .args(site.tls.iter().flat_map(|_| ["--proxy-tls", any]))
        .args(connections_max(site.scenario))
        .args(stream.map(|address| format!("--stream-ports={}", address.port())))
        .env("GATEWRIGHT_ADMIN_KEY", ADMIN_KEY)
        .stdout(Stdio::piped())
        .stderr(File::create(&log)?);
    let mut child = Running::spawn(&mut command)?;
    let stdout = child.stdout.take().context("the output is not there")?;
    // From here on a failure must end the process, which `Running` does when it is dropped.
    let mut running = Running { child, address: SocketAddr::from(([127, 0, 0, 1], 0)), status: None };
    let mut lines = BufReader::new(stdout).lines();
    let mut addresses = Addresses { over_tls: site.tls.is_some(), ..Addresses::default() };
    while addresses.complete().is_none() {
        let line = lines.next().with_context(|| said(&log))??;
        addresses.read(&line);
    }
    // Whatever it prints later must not fill the pipe and block it.
    std::thread::spawn(move || lines.for_each(drop));
    let (admin, proxy) = addresses.complete().context("no addresses")?;
    running.address = proxy;
    running.status = addresses.status;
    match stream {
        Some(address) => {
            publish_stream(admin, site, address)?;
            running.address = address;
        }
        None => publish(admin, site)?,
    }
    running.until_served(site, &log)
}

/// By default a gateway takes as many clients as half of the files it may open, so that each can be forwarded; ten
/// thousand that wait need no second file, and not every machine gives a process more than twenty thousand.
fn connections_max(scenario: &Scenario) -> Option<String> {
    let Connections::Idle(count) = scenario.connections else { return None };
    Some(format!("--connections-max={}", count + CONNECTIONS_SPARE))
}

fn said(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    format!("it ended before it named its addresses; it said:\n{text}")
}

/// The addresses that `gatewright up` prints, one per line behind what they are for.
#[derive(Default)]
struct Addresses {
    admin: Option<SocketAddr>,
    status: Option<SocketAddr>,
    proxy: Option<SocketAddr>,
    /// Whether it is the proxy's address for TLS that counts.
    over_tls: bool,
}

impl Addresses {
    fn read(&mut self, line: &str) {
        let line = line.trim_start();
        let Some(address) = address(line) else { return };
        if line.starts_with("admin API") {
            self.admin.get_or_insert(address);
        } else if line.starts_with("status") {
            self.status.get_or_insert(address);
        } else if line.starts_with(if self.over_tls { "proxy TLS" } else { "proxy  " }) {
            self.proxy.get_or_insert(address);
        }
    }

    fn complete(&self) -> Option<(SocketAddr, SocketAddr)> {
        // The status comes last, and is asked for its metrics.
        self.status.and(self.admin.zip(self.proxy))
    }
}

fn address(line: &str) -> Option<SocketAddr> {
    let url = line.split_once("://")?.1;
    url.split(|character: char| character == '/' || character.is_whitespace()).next()?.parse().ok()
}

fn publish(admin: SocketAddr, site: &Site) -> anyhow::Result<()> {
    let client = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
    let url = |path: &str| format!("http://{admin}/api/{path}");
    let put = |path: &str, body: Value| -> anyhow::Result<()> {
        accepted(client.put(url(path)).header("X-API-KEY", ADMIN_KEY).send_json(body)?)
    };
    let service = |name: &str, prefix: &str| {
        json!({
            "name": name,
            "hosts": [HOST],
            "path_prefix": prefix,
            "upstream": {
                "nodes": [{"host": site.backend.ip().to_string(), "port": site.backend.port(), "weight": 1}],
                "keepalive_pool": {"size": 64, "idle_timeout": 60, "requests": 1_000_000_000},
            },
        })
    };
    let direct = |path: &str, body: Value| -> anyhow::Result<()> {
        let url = format!("http://{admin}/apisix/admin/{path}?gateway_group_id=default");
        accepted(client.put(url).header("X-API-KEY", ADMIN_KEY).send_json(body)?)
    };
    for (path, body) in site.scenario.chain.objects() {
        direct(path, body)?;
    }
    if let Some(files) = &site.tls {
        let read = |path: &Path| std::fs::read_to_string(path).context("the certificate is gone");
        let ssl = json!({"snis": [HOST], "cert": read(&files.certificate)?, "key": read(&files.key)?});
        direct("ssls/bench", ssl)?;
    }
    put("services/template/pet-store", service("pet-store", "/store"))?;
    let pets = json!({
        "service_id": "pet-store", "name": "pets", "paths": ["/pets/*"], "methods": ["GET", "POST"],
        "enable_websocket": site.scenario.protocol == Protocol::WebSocket,
        "plugins": site.scenario.chain.plugins(),
    });
    put("routes/template/pets", pets)?;
    let mut wishes = vec![json!({"service_id": "pet-store", "version": "1.0.0"})];
    for number in 0..site.scenario.more_services {
        let id = format!("team-{number}");
        put(&format!("services/template/{id}"), service(&id, &format!("/{id}")))?;
        for route in 0..ROUTES_PER_SERVICE {
            let name = format!("items-{route}");
            let fields = json!({"service_id": id, "name": name, "paths": [format!("/{name}/*")]});
            put(&format!("routes/template/{id}-{name}"), fields)?;
        }
        wishes.push(json!({"service_id": id, "version": "1.0.0"}));
    }
    for services in wishes.chunks(SERVICES_PER_PUBLISH) {
        let wish = json!({"create_new_version": true, "gateway_group_id": "default", "services": services});
        accepted(client.post(url("services/publish")).header("X-API-KEY", ADMIN_KEY).send_json(wish)?)?;
    }
    Ok(())
}

/// One service at layer 4, at the port of `address`.
fn publish_stream(admin: SocketAddr, site: &Site, address: SocketAddr) -> anyhow::Result<()> {
    let client = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
    let url = |path: &str| format!("http://{admin}/api/{path}");
    let put = |path: &str, body: Value| -> anyhow::Result<()> {
        accepted(client.put(url(path)).header("X-API-KEY", ADMIN_KEY).send_json(body)?)
    };
    let node = json!({"host": site.backend.ip().to_string(), "port": site.backend.port(), "weight": 1});
    let upstream = json!({"scheme": "tcp", "nodes": [node]});
    put("services/template/relay", json!({"name": "relay", "type": "stream", "upstream": upstream}))?;
    let route = json!({"name": "relay", "service_id": "relay", "server_port": address.port()});
    put("stream_routes/template/relay", route)?;
    let services = json!([{"service_id": "relay", "version": "1.0.0"}]);
    let wish = json!({"create_new_version": true, "gateway_group_id": "default", "services": services});
    accepted(client.post(url("services/publish")).header("X-API-KEY", ADMIN_KEY).send_json(wish)?)
}

fn accepted(mut answer: ureq::http::Response<ureq::Body>) -> anyhow::Result<()> {
    let body = answer.body_mut().read_to_string()?;
    ensure!(answer.status().is_success(), "the admin API answered {}: {body}", answer.status());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_from_the_lines_that_name_them() {
        let mut addresses = Addresses::default();
        for line in
            ["password x", "  admin API  http://127.0.0.1:7080", "status http://127.0.0.1:7085/status"]
        {
            addresses.read(line);
            assert_eq!(addresses.complete(), None);
        }
        addresses.read("proxy      http://127.0.0.1:9080/ (1 worker)");
        let expected = ("127.0.0.1:7080".parse().unwrap(), "127.0.0.1:9080".parse().unwrap());
        assert_eq!(addresses.complete(), Some(expected));
        let mut over_tls = Addresses { over_tls: true, ..Addresses::default() };
        for line in [
            "admin API   http://127.0.0.1:1",
            "proxy       http://127.0.0.1:2",
            "proxy TLS   https://127.0.0.1:3",
        ] {
            over_tls.read(line);
        }
        assert_eq!(over_tls.proxy, Some("127.0.0.1:3".parse().unwrap()));
    }

    #[test]
    fn the_executable_is_where_cargo_says() {
        let messages = "{\"reason\":\"compiler-artifact\",\"target\":{\"name\":\"gatewright\"},\"executable\":null}\n\
            {\"reason\":\"compiler-artifact\",\"target\":{\"name\":\"gatewright\"},\"executable\":\"/t/gatewright\"}\n";
        assert_eq!(executable(messages), Some(PathBuf::from("/t/gatewright")));
    }
}
