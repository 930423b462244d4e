//! Builds and runs the fuzz targets of `fuzz/`, each for a while; a finding fails the chore and names its input.
//!
//! It does by hand what `cargo fuzz run --sanitizer none` does, so that the stable toolchain is enough: the code is
//! safe Rust, in which a sanitizer has nothing to find that assertions do not.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail, ensure};

use crate::cargo::cargo;
use crate::test_dependencies;

/// The targets, as `fuzz/fuzz_targets` has them; a test keeps this complete.
const ALL: &[&str] =
    &["target", "expression", "route_table", "request_head", "response_head", "chunked", "proxy_protocol"];

/// What makes libFuzzer see which code an input reached.
const RUSTFLAGS: &str = "--cfg fuzzing -Ccodegen-units=1 -Cpasses=sancov-module \
     -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
     -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares";

/// Seconds one input may take before it counts as a finding.
const INPUT_SECONDS_MAX: u32 = 10;
/// Bytes of an input; more only make every input slow.
const INPUT_BYTES_MAX: u32 = 4096;

/// What to fuzz.
#[derive(clap::Args, Debug)]
pub(crate) struct Wish {
    /// Seconds for each target.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    seconds: u32,
    /// The targets, by name; none: all.
    targets: Vec<String>,
}

/// Runs the targets one after the other.
pub(crate) fn run(repository: &Path, wish: &Wish) -> anyhow::Result<()> {
    let chosen = chosen(&wish.targets)?;
    test_dependencies::provide(test_dependencies::FOR_FUZZ)?;
    let folder = repository.join("fuzz");
    let programs = build(&folder)?;
    for target in chosen {
        eprintln!("fuzzing {target} for {} s", wish.seconds);
        // New inputs go to the first folder; the committed ones are only read.
        let corpus = folder.join("corpus").join(target);
        let artifacts = folder.join("artifacts").join(target);
        for created in [&corpus, &artifacts] {
            std::fs::create_dir_all(created)
                .with_context(|| format!("cannot create {}", created.display()))?;
        }
        let status = Command::new(programs.join(target))
            .arg(&corpus)
            .arg(folder.join("seeds").join(target))
            .arg(format!("-max_total_time={}", wish.seconds))
            .arg(format!("-timeout={INPUT_SECONDS_MAX}"))
            .arg(format!("-max_len={INPUT_BYTES_MAX}"))
            .arg(format!("-artifact_prefix={}/", artifacts.display()))
            .args(["-print_final_stats=1", "-verbosity=0"])
            .status()
            .with_context(|| format!("cannot run the target `{target}`"))?;
        ensure!(
            status.success(),
            "`{target}` found something: its input is in {}; fix it and commit the input to fuzz/seeds/{target}",
            artifacts.display()
        );
    }
    Ok(())
}

fn chosen(names: &[String]) -> anyhow::Result<Vec<&'static str>> {
    if names.is_empty() {
        return Ok(ALL.to_vec());
    }
    let find = |name: &String| {
        let found = ALL.iter().find(|target| *target == name).copied();
        found.with_context(|| format!("no fuzz target is called `{name}`; there are {}", ALL.join(", ")))
    };
    names.iter().map(find).collect()
}

/// Builds all targets; answers with the folder they are in.
fn build(folder: &Path) -> anyhow::Result<PathBuf> {
    // Naming the platform keeps the flags away from build scripts, which libFuzzer's runtime is not linked to.
    let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let output = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| folder.join("target"), PathBuf::from);
    let mut command = cargo();
    command.args(["build", "--release", "--locked", "--bins", "--target", &platform, "--manifest-path"]);
    command.arg(folder.join("Cargo.toml")).arg("--target-dir").arg(&output).env("RUSTFLAGS", RUSTFLAGS);
    let status = command.status().context("cannot run cargo")?;
    if !status.success() {
        bail!("the fuzz targets do not build");
    }
    Ok(output.join(platform).join("release"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_is_listed_and_has_seeds() {
        let folder = crate::repository().join("fuzz");
        let names = |folder: PathBuf| {
            let entries = std::fs::read_dir(&folder).expect("a folder").map(|entry| entry.expect("an entry"));
            let mut names: Vec<String> = entries
                .map(|entry| entry.file_name().to_string_lossy().trim_end_matches(".rs").to_owned())
                .collect();
            names.sort();
            names
        };
        let mut listed = ALL.to_vec();
        listed.sort_unstable();
        assert_eq!(names(folder.join("fuzz_targets")), listed);
        assert_eq!(names(folder.join("seeds")), listed);
    }

    #[test]
    fn a_target_nobody_knows_is_refused_with_those_that_exist() {
        assert_eq!(chosen(&["chunked".to_owned()]).unwrap(), ["chunked"]);
        let refused = chosen(&["chunk".to_owned()]).unwrap_err().to_string();
        assert!(refused.contains("`chunk`") && refused.contains("request_head"), "{refused}");
    }
}
