//! What plugins cost: `cargo xtask bench plugins`.
//!
//! The method is that of the comparison with peers: one gateway for each chain of plugins, all started, measured in
//! turn, CPU time per request. A scrape is timed on a gateway that has counted requests of ten thousand routes, and
//! once more beside load, which it must not disturb.

use std::fmt::Write as _;
use std::io::{Read, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use anyhow::ensure;
use serde_json::{Value, json};

use super::peers::{self, ROUTES_PER_SERVICE, Running, Site};
use super::report::Run;
use super::scenario::{HOST, PLAIN, Scenario};
use super::{Effort, backend, cores, interleaved, keep, measure, report};

/// What the client of a chain that works shows.
pub(crate) const KEY: &str = "bench-key";

/// Further services in the part about scrapes, each with a hundred routes.
const SCRAPED_SERVICES: usize = 100;

/// Scrapes that are timed; the median counts.
const SCRAPES: usize = 11;

/// How long is measured beside scrapes: a server of metrics asks once in that time, as most are set up.
const SCRAPED_SECONDS: u64 = 15;

/// Between two scrapes beside load that ask far more often than any server of metrics does.
const SCRAPE_INTERVAL_MIN: Duration = Duration::from_millis(250);

/// The plugins of the route that is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Chain {
    /// None.
    Bare,
    /// What an ordinary API has: who calls, how often, counted, and an id for every request.
    Working,
    /// One that has nothing to do.
    OneIdle,
    /// Ten that have nothing to do.
    Idle,
    /// Ten that look at every request, by address, field and expression, and let it pass.
    Looking,
    /// Every request of the group is counted.
    Counted,
}

impl Chain {
    /// The plugins of the route.
    pub(crate) fn plugins(self) -> Value {
        match self {
            Self::Bare | Self::Counted => json!({}),
            Self::Working => json!({
                "key-auth": {},
                "limit-count": {"count": 1_000_000_000, "time_window": 3600, "key": "consumer_name"},
                "prometheus": {},
                "request-id": {},
            }),
            Self::OneIdle => json!({"traffic-split": {}}),
            Self::Idle => json!({
                "client-control": {},
                "uri-blocker": {"block_rules": []},
                "workflow": {"rules": []},
                "redirect": {"http_to_https": false},
                "proxy-buffering": {},
                "traffic-split": {},
                "ip-restriction": {"blacklist": ["192.0.2.0/24"]},
                "response-rewrite": {},
                "brotli": {},
                "gzip": {},
            }),
            Self::Looking => json!({
                "real-ip": {"source": "http_x_forwarded_for", "trusted_addresses": ["10.0.0.0/8"]},
                "client-control": {"max_body_size": 0},
                "proxy-buffering": {},
                "fault-injection": {"abort": {"http_status": 500, "vars": [[["arg_broken", "==", "1"]]]}},
                "ip-restriction": {"blacklist": ["192.0.2.0/24"]},
                "referer-restriction": {"blacklist": ["spam.example"], "bypass_missing": true},
                "workflow": {"rules": [{"case": [["arg_closed", "==", "1"]], "actions": [["return", {"code": 403}]]}]},
                "brotli": {},
                "gzip": {},
                "traffic-split": {},
            }),
        }
    }

    /// What the gateway group needs beside, each with its path.
    pub(crate) fn objects(self) -> Vec<(&'static str, Value)> {
        match self {
            Self::Bare | Self::OneIdle | Self::Idle | Self::Looking => Vec::new(),
            Self::Counted => vec![("global_rules/prometheus", json!({"plugins": {"prometheus": {}}}))],
            Self::Working => vec![
                ("consumers/bench", json!({"username": "bench"})),
                (
                    "consumers/bench/credentials/key",
                    json!({"name": "key", "plugins": {"key-auth": {"key": KEY}}}),
                ),
            ],
        }
    }
}

/// The chains that are compared; the first one is what the others are measured by.
const CHAINS: [(&str, Scenario); 5] = [
    ("no plugins", Scenario { name: "plugins-bare", ..PLAIN }),
    ("four that work", Scenario { name: "plugins-working", chain: Chain::Working, ..PLAIN }),
    ("one idle one", Scenario { name: "plugins-one-idle", chain: Chain::OneIdle, ..PLAIN }),
    ("ten idle ones", Scenario { name: "plugins-idle", chain: Chain::Idle, ..PLAIN }),
    ("ten that look", Scenario { name: "plugins-looking", chain: Chain::Looking, ..PLAIN }),
];

const SCRAPED: Scenario =
    Scenario { name: "plugins-scraped", chain: Chain::Counted, more_services: SCRAPED_SERVICES, ..PLAIN };

/// What to measure.
#[derive(clap::Args, Debug)]
pub(crate) struct Wish {
    #[command(flatten)]
    effort: Effort,
    /// The executable; none: the release executable of this checkout, which is built first.
    #[arg(long)]
    program: Option<PathBuf>,
    /// Writes bench/PLUGINS.md.
    #[arg(long)]
    write: bool,
}

/// Measures everything and prints it.
pub(crate) fn run(repository: &Path, wish: &Wish) -> anyhow::Result<()> {
    let program = peers::gatewright_program(repository, wish.program.as_deref())?;
    cores::set_up()?;
    let mut text = format!(
        "# What plugins cost\n\nWritten by `cargo xtask bench plugins --write`; the method is that of \
         [README.md](README.md).\n\n- Machine: {}, busy with {} on average over one, five and fifteen minutes.\n\
         - Median of {} interleaved runs of {} s.\n- `four that work`: key-auth, limit-count (local), prometheus, \
         request-id. Aim: at most 25 % above no plugins.\n- `ten idle ones` have nothing to do. Aim: at most 3 %. \
         `ten that look` compare addresses, fields and expressions, and let every request pass.\n\n",
        cores::machine()?,
        cores::load_average()?,
        wish.effort.runs,
        wish.effort.seconds,
    );
    text += &chains(repository, &program, wish)?;
    text += &scrapes(repository, &program, wish)?;
    std::io::stdout().write_all(text.as_bytes())?;
    if wish.write { keep(repository, "PLUGINS.md", &text) } else { Ok(()) }
}

fn started(repository: &Path, program: &Path, scenario: &'static Scenario) -> anyhow::Result<Running> {
    let work_dir = repository.join("bench/.work").join(scenario.name);
    let _ = std::fs::remove_dir_all(&work_dir);
    let backend = backend::start(scenario)?;
    peers::gatewright_started(&Site { work_dir, backend, scenario, tls: None }, program)
}

fn chains(repository: &Path, program: &Path, wish: &Wish) -> anyhow::Result<String> {
    static SCENARIOS: &[(&str, Scenario)] = &CHAINS;
    let running: Vec<Running> = SCENARIOS
        .iter()
        .map(|(_, scenario)| started(repository, program, scenario))
        .collect::<anyhow::Result<_>>()?;
    let measured: Vec<_> = SCENARIOS
        .iter()
        .zip(&running)
        .map(|((name, scenario), running)| (*name, running, scenario))
        .collect();
    let rows = interleaved(&measured, wish.effort)?;
    let bare = rows.first().map(|(_, runs)| report::cpu_microseconds(runs)).unwrap_or(f64::NAN);
    let mut text = "## Plugins of a route\n\n".to_owned();
    text += "| plugins        | CPU µs/request | above none | p50 ms | p99 ms |\n";
    text += "|----------------|---------------:|-----------:|-------:|-------:|\n";
    for (name, runs) in &rows {
        let cpu = report::cpu_microseconds(runs);
        let above = (cpu / bare - 1.0) * 100.0;
        let [half, slow] = [0, 1].map(|index| report::milliseconds(runs, index));
        let _ = writeln!(text, "| {name:<14} | {cpu:>14.1} | {above:>8.1} % | {half:>6.2} | {slow:>6.2} |");
    }
    Ok(text)
}

fn scrapes(repository: &Path, program: &Path, wish: &Wish) -> anyhow::Result<String> {
    static SCENARIO: &Scenario = &SCRAPED;
    let running = started(repository, program, SCENARIO)?;
    let routes = touch_all(running.address())?;
    let mut text = format!("\n## Scrapes, after requests of {routes} routes\n\n");
    text += "| what is asked for | bytes | ms |\n|---|---:|---:|\n";
    for path in ["/metrics", "/apisix/prometheus/metrics"] {
        let mut took = Vec::new();
        let mut bytes = 0;
        for _ in 0..SCRAPES {
            let begun = Instant::now();
            bytes = get(running.status()?, path)?;
            took.push(begun.elapsed().as_secs_f64() * 1e3);
        }
        took.sort_by(f64::total_cmp);
        let _ = writeln!(text, "| `{path}` | {bytes} | {:.1} |", took[SCRAPES / 2]);
    }
    text += "\n| beside traffic | p50 ms | p99 ms | p99.9 ms |\n|---|---:|---:|---:|\n";
    let (seconds, once) = (SCRAPED_SECONDS, Duration::from_secs(SCRAPED_SECONDS));
    let mut rows = [
        ("no scrape", None, Vec::new()),
        ("one of each page", Some(once), Vec::new()),
        ("one of each page, four times a second", Some(SCRAPE_INTERVAL_MIN), Vec::new()),
    ];
    for _ in 0..wish.effort.runs {
        for (_, interval, runs) in &mut rows {
            runs.push(beside_scrapes(&running, Duration::from_secs(seconds), *interval)?);
        }
    }
    for (name, _, runs) in &rows {
        let [half, slow, slowest] = [0, 1, 2].map(|index| report::milliseconds(runs, index));
        let _ = writeln!(text, "| {name} in {seconds} s | {half:.2} | {slow:.2} | {slowest:.2} |");
    }
    Ok(text)
}

/// Measures while metrics are scraped, once and then in this interval.
fn beside_scrapes(running: &Running, length: Duration, interval: Option<Duration>) -> anyhow::Result<Run> {
    let Some(interval) = interval else { return measure(running, length, &SCRAPED) };
    let status = running.status()?;
    let (end, ended) = std::sync::mpsc::channel::<()>();
    let scraping = std::thread::spawn(move || -> anyhow::Result<()> {
        // Never at the very beginning of the load.
        let mut pause = interval.min(Duration::from_secs(1));
        while ended.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
            get(status, "/metrics")?;
            get(status, "/apisix/prometheus/metrics")?;
            pause = interval;
        }
        Ok(())
    });
    let measured = measure(running, length, &SCRAPED);
    drop(end);
    scraping.join().map_err(|_| anyhow::anyhow!("the scrapes panicked"))??;
    measured
}

/// Asks every further route once; hands back how many there are.
fn touch_all(address: SocketAddr) -> anyhow::Result<usize> {
    for service in 0..SCRAPED_SERVICES {
        for route in 0..ROUTES_PER_SERVICE {
            get_from(address, HOST, &format!("/team-{service}/items-{route}/1"))?;
        }
    }
    Ok(SCRAPED_SERVICES * ROUTES_PER_SERVICE)
}

fn get(address: SocketAddr, path: &str) -> anyhow::Result<usize> {
    get_from(address, "status.bench", path)
}

/// Asks for `path`; hands back how long the answer is.
fn get_from(address: SocketAddr, host: &str, path: &str) -> anyhow::Result<usize> {
    let mut stream = TcpStream::connect(address)?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    ensure!(answer.starts_with(b"HTTP/1.1 200 "), "{path} is not answered with 200");
    Ok(answer.len())
}
