//! What layer 4 costs: `cargo xtask bench streams`.
//!
//! The method is that of the comparison with peers, and so are load and backend: their HTTP/1.1 passes through as
//! bytes that nobody reads. Requests are the measure, so with one connection for each they are connections, and with
//! 1 MB for each they are megabytes.

use std::path::{Path, PathBuf};

use super::peers::{self, Peer};
use super::scenario::{Connections, LARGE, PLAIN, Scenario};
use super::{Effort, cores, keep, origins, programs, tables};

/// What is measured, in the order of the report.
const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "stream-connections",
        title: "A new connection for 100 bytes there and 1 KB back, 32 at a time: CPU µs per connection",
        connections: Connections::New(32),
        layer4: true,
        ..PLAIN
    },
    Scenario {
        name: "stream-download",
        title: "1 MB from the node, 16 connections: CPU µs per megabyte",
        answer_bytes: LARGE,
        connections: Connections::KeptAlive(16),
        layer4: true,
        ..PLAIN
    },
    Scenario {
        name: "stream-upload",
        title: "1 MB to the node, 16 connections: CPU µs per megabyte",
        request_bytes: LARGE,
        connections: Connections::KeptAlive(16),
        layer4: true,
        ..PLAIN
    },
    Scenario {
        name: "stream-messages",
        title: "100 bytes there and 1 KB back again and again, 64 connections: CPU µs per exchange",
        layer4: true,
        ..PLAIN
    },
    // Half as many as over HTTP: each has one to the backend as well, which is a file of the bench, too.
    Scenario {
        name: "stream-idle",
        title: "5,000 idle connections",
        connections: Connections::Idle(5_000),
        layer4: true,
        ..PLAIN
    },
];

/// What to measure.
#[derive(clap::Args, Debug)]
pub(crate) struct Wish {
    #[command(flatten)]
    effort: Effort,
    /// The scenarios, by name; none: all.
    #[arg(long = "scenario")]
    scenarios: Vec<String>,
    /// The executable; none: the release executable of this checkout, which is built first.
    #[arg(long)]
    program: Option<PathBuf>,
    /// Writes bench/STREAMS.md.
    #[arg(long)]
    write: bool,
}

/// Measures everything and prints it.
pub(crate) fn run(repository: &Path, wish: &Wish) -> anyhow::Result<()> {
    let scenarios = super::chosen("scenario", &wish.scenarios, SCENARIOS, |scenario| scenario.name)?;
    let peers: Vec<&Peer> = peers::AT_LAYER_4.iter().collect();
    let programs = programs(repository, &peers, wish.program.as_deref())?;
    cores::set_up()?;
    let mut text = format!(
        "# What layer 4 costs\n\nWritten by `cargo xtask bench streams --write`; the method, and what the columns \
         mean, is in [README.md](README.md).\n\n- Machine: {}, busy with {} on average over one, five and fifteen \
         minutes.\n- Median of {} interleaved runs of {} s; one core for the proxy, one for load and backend.\n\
         - Peers: {}.\n- Aim: per connection and per megabyte at most 1.1 of HAProxy.\n",
        cores::machine()?,
        cores::load_average()?,
        wish.effort.runs,
        wish.effort.seconds,
        origins(&peers, wish.program.as_deref())
    );
    let peers: Vec<_> = peers.into_iter().zip(&programs).collect();
    text += &tables(repository, &peers, &scenarios, wish.effort)?;
    if wish.write { keep(repository, "STREAMS.md", &text) } else { Ok(()) }
}
