//! Builds the logger for Kafka, which only executables with the feature `kafka` have, and tests it against a cluster
//! that its library simulates.

use std::path::Path;

use anyhow::{Context, ensure};

use crate::cargo::cargo;
use crate::test_dependencies;

/// Provides what its library, written in C, is built with, then builds and tests.
pub(crate) fn run(repository: &Path) -> anyhow::Result<()> {
    test_dependencies::provide(test_dependencies::FOR_KAFKA)?;
    let packages = ["--package", "gatewright-gateway", "--package", "gatewright-plugins"];
    let status = cargo()
        .arg("test")
        .args(packages)
        .args(["--features", "gatewright-gateway/kafka", "--lib", "--test", "gateway", "kafka"])
        .current_dir(repository)
        .status()
        .context("cannot run cargo")?;
    ensure!(status.success(), "the tests of the logger for Kafka failed");
    Ok(())
}
