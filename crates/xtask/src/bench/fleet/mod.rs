//! What a fleet costs: `cargo xtask bench fleet`.
//!
//! One control plane, whose store grows from part to part, and the release executable throughout:
//!
//! * `churn`: a gateway serves load while configuration changes, on few and on many routes.
//! * `watches`: a thousand gateways, simulated in this process, on the largest configuration.
//! * `admin`: what people ask of the admin API of that control plane.
//! * `cold_start`: a gateway starts from its disk.

mod admin;
mod churn;
mod cold_start;
mod process;
mod store;
mod watches;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::{backend, cores, peers, scenario};
use process::ControlPlane;
use store::ROUTES_PER_SERVICE;

/// Routes that churn is measured on.
const CHURN_ROUTES: [usize; 2] = [5_000, 50_000];

/// Routes of the largest configuration.
const ROUTES: usize = 100_000;

/// What to measure.
#[derive(clap::Args, Debug)]
pub(crate) struct Wish {
    /// Gateways that watch.
    #[arg(long, default_value_t = 1000)]
    gateways: usize,
    /// Publishes that are measured.
    #[arg(long, default_value_t = 200)]
    publishes: usize,
    /// Seconds of load, without and with churn.
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// Divides every number of routes, to try the bench itself.
    #[arg(long, default_value_t = 1)]
    smaller: usize,
    /// Keeps the store in a private PostgreSQL that never writes through to the disk, instead of in SQLite.
    #[arg(long)]
    postgres: bool,
    /// Measures only these parts.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Part>,
    /// The executable; none: the release executable of this checkout, which is built first.
    #[arg(long)]
    program: Option<PathBuf>,
    /// Writes bench/FLEET.md.
    #[arg(long)]
    write: bool,
}

/// What is measured.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Churn,
    Admin,
    Watches,
    ColdStart,
}

impl Wish {
    fn includes(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }
}

/// Measures everything and prints it.
pub(crate) fn run(repository: &Path, wish: &Wish) -> anyhow::Result<()> {
    let program = peers::gatewright_program(repository, wish.program.as_deref())?;
    cores::set_up()?;
    let work_dir = repository.join("bench/.work/fleet");
    let _ = std::fs::remove_dir_all(&work_dir);
    std::fs::create_dir_all(&work_dir).with_context(|| format!("cannot create {}", work_dir.display()))?;
    let backend = backend::start(&scenario::PLAIN)?;
    let database = wish.postgres.then(|| gatewright_test_postgres::Server::shared().database());
    let control_plane = ControlPlane::start(&program, &work_dir.join("control-plane"), database.as_deref())?;
    let mut text = format!(
        "# Results of the fleet bench\n\nWritten by `cargo xtask bench fleet --write`; what the numbers mean is in \
         [README.md](README.md).\n\n- Machine: {}.\n- Store: {}.\n- Load of the machine when it began: {}.\n",
        cores::machine()?,
        if wish.postgres { "PostgreSQL, without fsync" } else { "SQLite" },
        cores::load_average()?,
    );
    let mut say = |line: String| -> std::fmt::Result {
        eprintln!("{line}");
        writeln!(text, "{line}")
    };
    say("\n| measured | result |\n|---|---|".to_owned())?;
    for routes in CHURN_ROUTES.iter().filter(|_| wish.includes(Part::Churn)) {
        store::grow(&control_plane, backend, routes / wish.smaller / ROUTES_PER_SERVICE)?;
        let kept = work_dir.join(format!("gateway-{routes}"));
        say(churn::measure(&program, &control_plane, &kept, routes / wish.smaller, wish.seconds)?.row())?;
    }
    let needs_all = [Part::Admin, Part::Watches, Part::ColdStart].into_iter().any(|part| wish.includes(part));
    if !needs_all {
        return write(repository, wish, &text);
    }
    store::grow(&control_plane, backend, ROUTES / wish.smaller / ROUTES_PER_SERVICE)?;
    if wish.includes(Part::Admin) {
        say(admin::measure(&control_plane, ROUTES / wish.smaller / ROUTES_PER_SERVICE)?)?;
    }
    if wish.includes(Part::Watches) {
        say(watches::measure(&control_plane, wish.gateways, wish.publishes)?.rows())?;
    }
    if wish.includes(Part::ColdStart) {
        say(cold_start::measure(&program, control_plane, &work_dir.join("gateway"))?.row())?;
    }
    write(repository, wish, &text)
}

fn write(repository: &Path, wish: &Wish, text: &str) -> anyhow::Result<()> {
    if wish.write { super::keep(repository, "FLEET.md", text) } else { Ok(()) }
}
