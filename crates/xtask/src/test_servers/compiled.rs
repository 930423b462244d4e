//! Servers that come as a crate: compiled once by whoever runs the chore, and kept outside the checkout under their
//! version, beside the target directory that CI keeps there, so that a fresh clone finds them.
//!
//! Two chores never compile the same at once, and one that was interrupted goes on where it was.

use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::thread;

use anyhow::{Context, ensure};

use crate::cargo::cargo;

/// A crate with a program of its name.
#[derive(Debug)]
pub(crate) struct Crate {
    pub(crate) name: &'static str,
    pub(crate) version: &'static str,
    /// How long it takes on two cores, for the message.
    pub(crate) takes: &'static str,
    /// What of it is slow on purpose and would be unbearable without optimisation.
    pub(crate) optimised: &'static [&'static str],
}

/// Compilers that run at once: each takes a gigabyte for the largest crates.
const JOBS_MAX: usize = 4;

/// A server is compiled as fast as can be, not to be fast; what overflows in it is its makers' business.
const PROFILE: [&str; 5] = [
    "profile.dev.debug=0",
    "profile.dev.opt-level=0",
    "profile.dev.debug-assertions=false",
    "profile.dev.overflow-checks=false",
    "profile.dev.strip='symbols'",
];

/// Where the program is, compiled if it is not there yet.
pub(crate) fn provide(repository: &Path, wanted: &Crate) -> anyhow::Result<PathBuf> {
    let servers = cache(std::env::var_os("XDG_CACHE_HOME"), std::env::var_os("HOME"))
        .filter(|cache| std::fs::create_dir_all(cache).is_ok())
        .unwrap_or_else(|| repository.join("target/test-servers"));
    let place = servers.join(format!("{}-{}", wanted.name, wanted.version));
    let program = place.join("bin").join(wanted.name);
    if program.is_file() {
        return Ok(program);
    }
    std::fs::create_dir_all(&place).with_context(|| format!("cannot make {}", place.display()))?;
    let lock = File::create(place.join("lock"))?;
    lock.lock()?;
    // Who held it before may have compiled the same.
    if !program.is_file() {
        compile(wanted, &place)?;
    }
    ensure!(program.is_file(), "{} {} has no program of its name", wanted.name, wanted.version);
    Ok(program)
}

fn compile(wanted: &Crate, place: &Path) -> anyhow::Result<()> {
    let Crate { name, version, takes, optimised } = wanted;
    eprintln!(
        "compiling {name} {version}, which tests talk to: {takes}, once; it is kept in {}",
        place.display()
    );
    let objects = place.join("target");
    let jobs = thread::available_parallelism().map_or(1, usize::from).min(JOBS_MAX);
    let mut command = cargo();
    command.args(["install", name, "--locked", "--profile", "dev", "--version"]).arg(format!("={version}"));
    command.arg("--root").arg(place).arg("--target-dir").arg(&objects).args(["--jobs", &jobs.to_string()]);
    let optimised = optimised.iter().map(|name| format!("profile.dev.package.{name}.opt-level=3"));
    for setting in PROFILE.map(str::to_owned).into_iter().chain(optimised) {
        command.arg("--config").arg(setting);
    }
    command.env("CARGO_INCREMENTAL", "0").current_dir(place);
    let status = command.status().context("cannot run cargo")?;
    ensure!(status.success(), "{name} {version} could not be compiled ({status}); cargo says why above");
    std::fs::remove_dir_all(&objects).with_context(|| format!("cannot remove {}", objects.display()))
}

/// Where servers are kept for whoever has these variables.
fn cache(caches: Option<OsString>, home: Option<OsString>) -> Option<PathBuf> {
    let home = || Some(Path::new(&home?).join(".cache"));
    let caches = caches.map(PathBuf::from).filter(|caches| caches.is_absolute()).or_else(home)?;
    Some(caches.join("gatewright/test-servers"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_kept_in_the_cache_of_whoever_runs_the_chore() {
        let at = |caches: Option<&str>, home: Option<&str>| {
            cache(caches.map(OsString::from), home.map(OsString::from))
                .map(|place| place.display().to_string())
        };
        let expected = |place: &str| Some(format!("{place}/gatewright/test-servers"));
        assert_eq!(at(Some("/caches"), Some("/home/jack")), expected("/caches"));
        assert_eq!(at(None, Some("/home/jack")), expected("/home/jack/.cache"));
        assert_eq!(
            at(Some(""), Some("/home/jack")),
            expected("/home/jack/.cache"),
            "set to nothing is not set"
        );
        assert_eq!(at(None, None), None);
    }
}
