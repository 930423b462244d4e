//! Finds the executable under test, built from the sources as they are now.
//!
//! It lies beside the test executables (`target/<profile>/gatewright`). Cargo is asked to build it in any case,
//! since testing a stale executable is worse than waiting for cargo to say that nothing changed.
//! `GATEWRIGHT_E2E_EXECUTABLE` names another one, for example out of a release archive.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Where the executable is.
///
/// # Panics
/// If it cannot be built.
pub fn path() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| match std::env::var_os("GATEWRIGHT_E2E_EXECUTABLE") {
        Some(path) => path.into(),
        None => build(),
    })
}

fn build() -> PathBuf {
    let test = std::env::current_exe().expect("the path of the test executable");
    // target/<profile>/deps/<test>
    let profile_dir = test.parent().and_then(Path::parent).expect("a profile directory").to_owned();
    let target_dir = profile_dir.parent().expect("a target directory");
    let profile = match profile_dir.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(name) => name,
    };
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    // What cargo says of the package of this test would make build scripts run again, and half of the executable with
    // them, each time that a test and a shell take turns.
    for (name, _) in std::env::vars_os() {
        if name
            .to_str()
            .is_some_and(|name| name.starts_with("CARGO_MANIFEST_") || name.starts_with("CARGO_PKG_"))
        {
            command.env_remove(name);
        }
    }
    let built = command
        .current_dir(crate::package())
        .args(["build", "--quiet", "--package", "gatewright", "--profile", profile, "--target-dir"])
        .arg(target_dir)
        .status()
        .expect("cargo");
    assert!(built.success(), "the executable does not build");
    profile_dir.join("gatewright")
}
