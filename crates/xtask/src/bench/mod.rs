//! Side-by-side measurement of Gatewright and its peers; the method is explained in bench/README.md.
//!
//! Invariants: every peer gets the same requests from the same load generator and forwards them to the same
//! backend; a proxy has core 0 to itself, load and backend share core 1; runs are interleaved, so that a slow
//! minute of the machine hits everybody; a wrong answer fails the whole bench instead of counting as a fast one.

mod backend;
mod cores;
pub(crate) mod fleet;
mod load;
pub(crate) mod peers;
mod plugins;
pub(crate) mod relay;
mod report;
mod scenario;
mod streams;
mod tls;
mod websocket;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};

use peers::{Peer, Running, Site};
use report::{Memory, Run};
use scenario::{Connections, Protocol, Scenario};

/// What to measure.
#[derive(clap::Args, Debug)]
pub(crate) struct Wish {
    #[command(flatten)]
    effort: Effort,
    /// The peers, by name; none: all.
    #[arg(long = "peer")]
    peers: Vec<String>,
    /// The scenarios, by name; none: all.
    #[arg(long = "scenario")]
    scenarios: Vec<String>,
    /// An executable of Gatewright, instead of a release build of this checkout.
    #[arg(long)]
    program: Option<PathBuf>,
    /// An earlier executable, which is measured in the same run: what did a change bring?
    #[arg(long, conflicts_with = "write")]
    before: Option<PathBuf>,
    /// Writes bench/RESULTS.md.
    #[arg(long)]
    write: bool,
    #[command(subcommand)]
    part: Option<Part>,
}

/// How thoroughly to measure.
#[derive(clap::Args, Clone, Copy, Debug)]
struct Effort {
    /// How often each peer is measured in each scenario; the median counts.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    runs: u32,
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
}

/// What is measured by itself.
#[derive(clap::Subcommand, Debug)]
enum Part {
    /// A thousand gateways on one control plane, changes under load, and starts from disk.
    Fleet(fleet::Wish),
    /// What plugins cost, and what a scrape of many routes does.
    Plugins(plugins::Wish),
    /// What connections and bytes cost at layer 4, beside HAProxy in TCP mode.
    Streams(streams::Wish),
}

/// Measures the chosen peers in the chosen scenarios and prints the tables.
pub(crate) fn run(repository: &Path, wish: &Wish) -> anyhow::Result<()> {
    match &wish.part {
        Some(Part::Fleet(wish)) => return fleet::run(repository, wish),
        Some(Part::Plugins(wish)) => return plugins::run(repository, wish),
        Some(Part::Streams(wish)) => return streams::run(repository, wish),
        None => {}
    }
    let peers = chosen("peer", &wish.peers, peers::ALL, |peer| peer.name)?;
    let scenarios = chosen("scenario", &wish.scenarios, scenario::ALL, |scenario| scenario.name)?;
    let programs = programs(repository, &peers, wish.program.as_deref())?;
    cores::set_up()?;

    let mut text = heading(&peers, wish)?;
    let mut peers: Vec<_> = peers.into_iter().zip(&programs).collect();
    peers.extend(wish.before.iter().map(|program| (&peers::BEFORE, program)));
    text += &tables(repository, &peers, &scenarios, wish.effort)?;
    if wish.write { keep(repository, "RESULTS.md", &text) } else { Ok(()) }
}

/// The programs of `peers`, built or installed; Gatewright's is the given one, if there is one.
fn programs(repository: &Path, peers: &[&Peer], given: Option<&Path>) -> anyhow::Result<Vec<PathBuf>> {
    let program = |peer: &&Peer| match given {
        Some(given) if peer.name == peers::GATEWRIGHT.name => Ok(given.to_owned()),
        _ => (peer.prepare)(repository),
    };
    peers.iter().map(program).collect()
}

/// What `peers` are, for the report; `given`: Gatewright's program was not built for it.
fn origins(peers: &[&Peer], given: Option<&Path>) -> String {
    let origin = |peer: &&Peer| match given {
        Some(_) if peer.name == peers::GATEWRIGHT.name => "an executable that was there already",
        _ => peer.version,
    };
    let named = peers.iter().map(|peer| format!("{} ({})", peer.name, origin(peer)));
    named.collect::<Vec<_>>().join(", ")
}

/// The tables of all scenarios, each printed when it is there.
fn tables(
    repository: &Path,
    peers: &[(&Peer, &PathBuf)],
    scenarios: &[&'static Scenario],
    effort: Effort,
) -> anyhow::Result<String> {
    let mut text = String::new();
    for scenario in scenarios {
        let able: Vec<_> = peers.iter().copied().filter(|(peer, _)| takes_part(peer, scenario)).collect();
        let table = compare(repository, &able, scenario, effort)?;
        std::io::stdout().write_all(format!("\n{table}\n").as_bytes())?;
        text += &format!("\n{table}");
    }
    Ok(text)
}

/// Keeps results under `bench/`.
fn keep(repository: &Path, name: &str, text: &str) -> anyhow::Result<()> {
    let path = repository.join("bench").join(name);
    std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// The table of one scenario.
fn compare(
    repository: &Path,
    peers: &[(&Peer, &PathBuf)],
    scenario: &'static Scenario,
    effort: Effort,
) -> anyhow::Result<String> {
    eprintln!("{}", scenario.title);
    let work_dir = repository.join("bench/.work").join(scenario.name);
    // What an earlier bench left behind belongs to peers that are gone.
    let _ = std::fs::remove_dir_all(&work_dir);
    let backend = backend::start(scenario)?;
    let files = scenario.tls.then(|| tls::Files::make(&work_dir.join("tls"))).transpose()?;
    measure_all(peers, &Site { work_dir, backend, scenario, tls: files }, effort)
}

/// The floor for CPU time says nothing about memory, for which it would need twice the open files of the others, and
/// speaks neither TLS nor anything but what the backend speaks.
fn takes_part(peer: &Peer, scenario: &Scenario) -> bool {
    let idle = matches!(scenario.connections, Connections::Idle(_));
    let http2 = matches!(scenario.protocol, Protocol::Http2 { .. });
    peer.name != peers::FLOOR || !(idle || http2 || scenario.tls)
}

fn chosen<'a, T>(
    what: &str,
    names: &[String],
    all: &'a [T],
    name_of: fn(&T) -> &'static str,
) -> anyhow::Result<Vec<&'a T>> {
    let find = |name: &String| {
        let known = || all.iter().map(name_of).collect::<Vec<_>>().join(", ");
        let found = all.iter().find(|candidate| name_of(candidate) == name);
        found.with_context(|| format!("no {what} is called `{name}`; there are {}", known()))
    };
    if names.is_empty() { Ok(all.iter().collect()) } else { names.iter().map(find).collect() }
}

fn heading(peers: &[&Peer], wish: &Wish) -> anyhow::Result<String> {
    Ok(format!(
        "# Results of the bench\n\nWritten by `cargo xtask bench --write`; what the columns mean is in [README.md](README.md).\n\n\
         - Machine: {}.\n- Median of {} interleaved runs of {} s; one core for the proxy, one for load and backend.\n\
         - Peers: {}.\n",
        cores::machine()?,
        wish.effort.runs,
        wish.effort.seconds,
        origins(peers, wish.program.as_deref())
    ))
}

fn measure_all(peers: &[(&Peer, &PathBuf)], site: &Site, effort: Effort) -> anyhow::Result<String> {
    let scenario = site.scenario;
    let start = |(peer, program): &(&Peer, &PathBuf)| {
        (peer.start)(site, program).with_context(|| format!("cannot start {}", peer.name))
    };
    let running: Vec<Running> = peers.iter().map(start).collect::<anyhow::Result<_>>()?;
    let names: Vec<&'static str> = peers.iter().map(|(peer, _)| peer.name).collect();
    if let Connections::Idle(count) = scenario.connections {
        let mut rows = Vec::new();
        for (name, running) in names.iter().zip(&running) {
            rows.push((*name, occupy(running, scenario, count).with_context(|| name.to_string())?));
        }
        return Ok(report::memory_table(scenario.title, &rows));
    }
    let measured: Vec<_> =
        names.into_iter().zip(&running).map(|(name, running)| (name, running, scenario)).collect();
    let rows = interleaved(&measured, effort)?;
    Ok(report::load_table(scenario.title, &rows))
}

/// Measures each of `peers` in turn, so many times.
fn interleaved(
    peers: &[(&'static str, &Running, &Scenario)],
    Effort { runs, seconds }: Effort,
) -> anyhow::Result<Vec<(&'static str, Vec<Run>)>> {
    let mut rows: Vec<(&'static str, Vec<Run>)> =
        peers.iter().map(|(name, ..)| (*name, Vec::new())).collect();
    for round in 0..=runs {
        for ((name, peer, scenario), (_, runs)) in peers.iter().zip(&mut rows) {
            // Round 0 warms caches, connection pools and branch predictors; it is not counted.
            let length = Duration::from_secs(if round == 0 { 1 } else { seconds });
            let measured = measure(peer, length, scenario).with_context(|| (*name).to_owned())?;
            if round > 0 {
                eprintln!("run {round} {name:<12} {measured}");
                runs.push(measured);
            }
        }
    }
    Ok(rows)
}

fn measure(peer: &Running, length: Duration, scenario: &Scenario) -> anyhow::Result<Run> {
    let before = cores::cpu_time(peer.pid())?;
    let load = load::run(peer.address(), scenario, length)?;
    let cpu = cores::cpu_time(peer.pid())?.saturating_sub(before);
    ensure!(load.requests > 0, "no request was answered");
    Ok(Run {
        requests: load.requests,
        elapsed: load.elapsed,
        cpu,
        latencies: load.latencies,
        resident_bytes: cores::resident_bytes(peer.pid())?,
    })
}

fn occupy(peer: &Running, scenario: &Scenario, count: usize) -> anyhow::Result<Memory> {
    let before = cores::resident_bytes(peer.pid())?;
    let connections = load::idle(peer.address(), scenario, count)?;
    let with = cores::resident_bytes(peer.pid())?;
    drop(connections);
    Ok(Memory { before, with })
}
