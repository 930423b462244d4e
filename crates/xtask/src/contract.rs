//! Holds the running executable against openapi.json: schemathesis (from PyPI) makes calls of what the document
//! allows and of what it forbids, and nothing may be answered otherwise than the document says.
//!
//! What it is told to look past, and why, is in `schemathesis.toml` beside the manifest of this crate.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, ensure};

use crate::bench::peers::python;
use crate::cargo::cargo;

const PACKAGE: &str = "schemathesis==4.32.5";

/// The administrator's key of an instance that lives as long as the chore and listens on loopback only.
const ADMIN_KEY: &str = "contract-administrator-key";

/// How long to search.
#[derive(clap::Args, Debug)]
pub(crate) struct Wish {
    /// Calls that are made up for each operation, beside those at the edges of the document.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    examples: u32,
    /// What the calls are made up from: the same number makes the same calls.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// A process that ends with the chore.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Builds and starts the executable, and lets schemathesis loose on it.
pub(crate) fn run(repository: &Path, wish: &Wish) -> anyhow::Result<()> {
    let schemathesis = python::provide(repository, PACKAGE, "schemathesis")?;
    let data = tempfile::tempdir().context("no temporary directory")?;
    let mut command = cargo();
    let any = "127.0.0.1:0";
    command.args(["run", "--quiet", "--package", "gatewright", "--", "up", "--admin", any, "--proxy", any]);
    command.args(["--status", any, "--data-dir"]).arg(data.path()).current_dir(repository);
    command.env("GATEWRIGHT_ADMIN_KEY", ADMIN_KEY).env("RUST_LOG", "error").stdout(Stdio::piped());
    let mut running = Running(command.spawn().context("cannot run cargo")?);
    let lines = BufReader::new(running.0.stdout.take().context("the output is not there")?).lines();
    let mut lines = lines.map_while(Result::ok);
    let named = lines.find_map(|line| line.strip_prefix("admin API").map(|url| url.trim().to_owned()));
    let url = named.context("gatewright ended before it named its admin API")?;
    // Whatever it prints later must not fill the pipe and block it.
    std::thread::spawn(move || lines.for_each(drop));
    let config = repository.join("crates/xtask/schemathesis.toml");
    let status = Command::new(schemathesis)
        .arg("--config-file")
        .arg(config)
        .args(["run", &format!("{url}/openapi.json"), "--header", &format!("X-API-KEY: {ADMIN_KEY}")])
        .args(["--phases", "examples,coverage,fuzzing", "--continue-on-failure"])
        .args(["--max-examples", &wish.examples.to_string(), "--seed", &wish.seed.to_string()])
        .current_dir(data.path())
        .status()
        .context("cannot run schemathesis")?;
    ensure!(
        status.success(),
        "the admin API does not keep to openapi.json: see above, and docs/guides/contract.md"
    );
    Ok(())
}
