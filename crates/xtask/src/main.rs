//! Chores of this repository: `cargo xtask <chore>`.
//!
//! What `make` and CI do beyond plain cargo commands is written here, in Rust, where it can be tested.
//! The tests of the repository itself are in `tidy` and run with every other test.

mod bench;
mod cargo;
mod contract;
mod documented_operations;
mod fuzz;
mod kafka;
mod openapi;
mod test_dependencies;
mod test_servers;

#[cfg(test)]
mod tidy;

use std::path::PathBuf;

use clap::Parser;

/// Chores of this repository.
#[derive(Parser)]
#[command(name = "cargo xtask")]
enum Chore {
    /// Writes openapi.json, and the table of documented operations, from the admin API's code.
    Openapi,
    /// Measures the release executable against its peers and prints the ratios; see bench/README.md.
    Bench(bench::Wish),
    /// Relays TCP without reading it: the floor of the bench, which starts it.
    #[command(hide = true)]
    RawRelay(bench::relay::Wish),
    /// Holds a running `gatewright up` against openapi.json with schemathesis; see docs/guides/contract.md.
    Contract(contract::Wish),
    /// Runs the fuzz targets, each for a minute; see docs/guides/fuzzing.md.
    Fuzz(fuzz::Wish),
    /// Builds the logger for Kafka and tests it, after providing what it is built with.
    Kafka,
    /// Checks what the tests need and, as root, installs what is missing through apt.
    TestDependencies,
}

fn main() -> anyhow::Result<()> {
    match Chore::parse() {
        Chore::Openapi => openapi::write(&repository()),
        Chore::Bench(wish) => bench::run(&repository(), &wish),
        Chore::RawRelay(wish) => bench::relay::run(&wish),
        Chore::Contract(wish) => contract::run(&repository(), &wish),
        Chore::Fuzz(wish) => fuzz::run(&repository(), &wish),
        Chore::Kafka => kafka::run(&repository()),
        Chore::TestDependencies => {
            test_dependencies::provide(test_dependencies::FOR_TESTS)?;
            test_servers::provide(&repository())
        }
    }
}

/// The root of the checkout this chore is run from. Checkouts that share a target directory share this executable, so
/// where it was built says nothing.
fn repository() -> PathBuf {
    let own = std::env::var_os("CARGO_MANIFEST_DIR");
    let own = own.map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    own.ancestors().nth(2).unwrap_or(&own).to_path_buf()
}
