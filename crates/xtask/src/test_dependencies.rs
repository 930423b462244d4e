//! Provides the programs that tests and benches call.
//!
//! A missing one is installed through apt if the chore runs as root, else the error names the packages: a chore
//! never asks for a password. A later issue that needs a program (a database server, a registry) adds one line.

use std::process::Command;

use anyhow::{Context, bail};

/// A program and where it comes from.
#[derive(Debug)]
pub(crate) struct Dependency {
    /// The names it goes by, or whole paths; any of them will do.
    programs: &'static [&'static str],
    /// The package of Debian and Ubuntu that brings it.
    package: &'static str,
    /// What it is needed for, for the message.
    purpose: &'static str,
}

/// What `cargo test --workspace` needs beside the Rust toolchain.
pub(crate) const FOR_TESTS: &[Dependency] = &[
    Dependency { programs: &["cc", "gcc", "clang"], package: "gcc", purpose: "compiles the embedded SQLite" },
    Dependency { programs: &["curl"], package: "curl", purpose: "runs the commands that `up --demo` prints" },
    Dependency {
        programs: &["initdb"],
        package: "postgresql",
        purpose: "the store is tested on PostgreSQL as well",
    },
    Dependency {
        programs: &["redis-server"],
        package: "redis-server",
        purpose: "limits that several gateways share are counted there",
    },
    Dependency {
        programs: &["dnsmasq", "/usr/sbin/dnsmasq"],
        package: "dnsmasq-base",
        purpose: "answers what names of services are looked up",
    },
    Dependency {
        programs: &["npm"],
        package: "npm",
        purpose: "installs the identity provider that logins are tested with",
    },
    Dependency {
        programs: &["python3"],
        package: "python3-venv",
        purpose: "installs the server of secrets that tests read from",
    },
];

/// What `cargo xtask bench` needs besides.
pub(crate) const FOR_BENCH: &[Dependency] = &[Dependency {
    programs: &["python3"],
    package: "python3-venv",
    purpose: "installs the peers of the bench",
}];

/// What `cargo xtask kafka` needs besides. Of a library, a header stands for it.
pub(crate) const FOR_KAFKA: &[Dependency] = &[
    Dependency { programs: &["make"], package: "make", purpose: "builds librdkafka" },
    Dependency { programs: &["pkg-config", "pkgconf"], package: "pkg-config", purpose: "finds OpenSSL" },
    Dependency {
        programs: &["/usr/include/openssl/ssl.h"],
        package: "libssl-dev",
        purpose: "librdkafka speaks TLS with it",
    },
];

/// What `cargo xtask fuzz` needs besides.
pub(crate) const FOR_FUZZ: &[Dependency] =
    &[Dependency { programs: &["c++", "g++", "clang++"], package: "g++", purpose: "compiles libFuzzer" }];

/// Makes sure that every one of `dependencies` is there.
pub(crate) fn provide(dependencies: &[Dependency]) -> anyhow::Result<()> {
    let absent = missing(dependencies, is_on_path);
    if absent.is_empty() {
        return Ok(());
    }
    for dependency in &absent {
        eprintln!("missing: {} ({})", dependency.programs[0], dependency.purpose);
    }
    let packages: Vec<&str> = absent.iter().map(|dependency| dependency.package).collect();
    if !rustix::process::geteuid().is_root() || !is_on_path("apt-get") {
        bail!("install these packages and try again: {}", packages.join(" "));
    }
    apt(&["update", "--quiet"])?;
    apt(&[&["install", "--yes", "--quiet", "--no-install-recommends"], packages.as_slice()].concat())?;
    match missing(dependencies, is_on_path).first() {
        Some(still) => bail!("apt installed {} but `{}` is not on PATH", still.package, still.programs[0]),
        None => Ok(()),
    }
}

fn missing(dependencies: &[Dependency], present: impl Fn(&str) -> bool) -> Vec<&Dependency> {
    let absent = |dependency: &&Dependency| !dependency.programs.iter().any(|program| present(program));
    dependencies.iter().filter(absent).collect()
}

fn is_on_path(program: &str) -> bool {
    let directories = std::env::var_os("PATH").unwrap_or_default();
    // Debian keeps the programs of PostgreSQL apart, by version; the tests look there as well.
    let debian = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let debian = debian.map(|version| version.path().join("bin"));
    std::env::split_paths(&directories).chain(debian).any(|directory| directory.join(program).is_file())
}

fn apt(arguments: &[&str]) -> anyhow::Result<()> {
    let status = Command::new("apt-get").args(arguments).env("DEBIAN_FRONTEND", "noninteractive").status();
    let status = status.context("cannot run apt-get")?;
    if !status.success() {
        bail!("apt-get {} failed with {status}", arguments.join(" "));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_several_names_is_enough() {
        let packages = |present: &[&str]| -> Vec<&str> {
            missing(FOR_TESTS, |program| present.contains(&program)).iter().map(|d| d.package).collect()
        };
        assert_eq!(
            packages(&["clang", "curl", "initdb", "redis-server", "dnsmasq", "npm", "python3"]),
            [""; 0]
        );
        assert_eq!(packages(&["gcc", "redis-server", "dnsmasq", "npm", "python3"]), ["curl", "postgresql"]);
        assert_eq!(
            packages(&[]),
            ["gcc", "curl", "postgresql", "redis-server", "dnsmasq-base", "npm", "python3-venv"]
        );
    }

    #[test]
    fn a_program_is_looked_for_on_the_path() {
        assert!(is_on_path("sh"));
        assert!(!is_on_path("a program that nobody has"));
        assert!(is_on_path("/etc/passwd"), "a whole path is taken as it is");
    }
}
