//! The floor: bytes passed on without reading them, by this executable in a process of its own.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;

use super::{Running, Site, free_address};

pub(super) fn prepare(_: &Path) -> anyhow::Result<PathBuf> {
    std::env::current_exe().context("cannot find the own executable")
}

pub(super) fn start(site: &Site, program: &Path) -> anyhow::Result<Running> {
    let address = free_address()?;
    let mut command = Command::new(program);
    command.arg("raw-relay").arg(address.to_string()).arg(site.backend.to_string());
    Running::start(&mut command, site, "raw-relay", address)
}
