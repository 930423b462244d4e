//! Side-by-side measurement of Gatewright and its peers; the method is explained in bench/README.md.
//!
//! Invariants: every peer gets the same requests from the same load generator and forwards them to the same
//! backend; a proxy has core 0 to itself, load and backend share core 1; runs are interleaved, so that a slow
//! minute of the machine hits everybody; a wrong answer fails the whole bench instead of counting as a fast one.

mod backend;
mod cores;
mod load;
mod peers;
mod report;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};

use peers::{Peer, Site};
use report::Run;

/// What to measure.
#[derive(clap::Args, Debug)]
pub(crate) struct Wish {
    /// How often each peer is measured; the median counts.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    runs: u32,
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Client connections.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    connections: u16,
    /// Bytes in an answer's body.
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u32).range(0..=1_048_576))]
    body_bytes: u32,
    /// The peers, by name; none: all.
    #[arg(long = "peer")]
    peers: Vec<String>,
}

/// Starts the backend and the peers, measures them in turns, prints the table.
pub(crate) fn run(repository: &Path, wish: &Wish) -> anyhow::Result<()> {
    let chosen = chosen(&wish.peers)?;
    let work_dir = repository.join("bench/.work");
    // What an earlier bench left behind belongs to peers that are gone.
    let _ = std::fs::remove_dir_all(&work_dir);
    std::fs::create_dir_all(&work_dir).with_context(|| format!("cannot create {}", work_dir.display()))?;
    let prepared: Vec<_> =
        chosen.iter().map(|peer| (peer.prepare)(repository)).collect::<anyhow::Result<_>>()?;

    cores::pin(cores::LOAD).context("the bench needs two cores")?;
    let site = Site { work_dir, backend: backend::start(wish.body_bytes as usize)? };
    let mut running = Vec::new();
    for (peer, program) in chosen.iter().zip(&prepared) {
        running.push((peer.start)(&site, program).with_context(|| format!("cannot start {}", peer.name))?);
    }
    let mut runs = vec![Vec::new(); chosen.len()];
    for round in 0..=wish.runs {
        for (index, peer) in running.iter().enumerate() {
            // Round 0 warms caches, connection pools and branch predictors; it is not counted.
            let length = Duration::from_secs(if round == 0 { 1 } else { wish.seconds });
            let measured = measure(peer, length, wish).with_context(|| chosen[index].name)?;
            if round > 0 {
                eprintln!("run {round} {:<12} {measured}", chosen[index].name);
                runs[index].push(measured);
            }
        }
    }
    let rows: Vec<_> = chosen.iter().zip(runs).map(|(peer, runs)| (peer.name, runs)).collect();
    eprintln!();
    report::print(&wish.title(), &rows)
}

impl Wish {
    fn title(&self) -> String {
        format!(
            "HTTP/1.1 keep-alive, GET by host and path prefix, {} connections, {} byte answers; one core per proxy; \
             median of {} interleaved runs of {} s",
            self.connections, self.body_bytes, self.runs, self.seconds
        )
    }
}

fn chosen(names: &[String]) -> anyhow::Result<Vec<&'static Peer>> {
    if names.is_empty() {
        return Ok(peers::ALL.iter().collect());
    }
    let find = |name: &String| {
        let known = || peers::ALL.iter().map(|peer| peer.name).collect::<Vec<_>>().join(", ");
        let found = peers::ALL.iter().find(|peer| peer.name == name);
        found.with_context(|| format!("no peer is called `{name}`; there are {}", known()))
    };
    names.iter().map(find).collect()
}

fn measure(peer: &peers::Running, length: Duration, wish: &Wish) -> anyhow::Result<Run> {
    let before = cores::cpu_time(peer.pid())?;
    let load = load::run(peer.address(), usize::from(wish.connections), wish.body_bytes as usize, length)?;
    let cpu = cores::cpu_time(peer.pid())?.saturating_sub(before);
    ensure!(load.requests > 0, "no request was answered");
    Ok(Run { requests: load.requests, elapsed: load.elapsed, cpu, slow: load.slow })
}
