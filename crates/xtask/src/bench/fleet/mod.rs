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
    /// The executable; none: the release executable of this checkout, which is built first.
    #[arg(long)]
    program: Option<PathBuf>,
    /// Writes bench/FLEET.md.
    #[arg(long)]
    write: bool,
}

/// Measures everything and prints it.
pub(crate) fn run(repository: &Path, wish: &Wish) -> anyhow::Result<()> {
    let program = match &wish.program {
        Some(program) => program.clone(),
        None => peers::gatewright_program(repository)?,
    };
    cores::raise_open_files()?;
    cores::pin(cores::LOAD).context("the bench needs two cores")?;
    let work_dir = repository.join("bench/.work/fleet");
    let _ = std::fs::remove_dir_all(&work_dir);
    std::fs::create_dir_all(&work_dir).with_context(|| format!("cannot create {}", work_dir.display()))?;
    let backend = backend::start(&scenario::PLAIN)?;
    let control_plane = ControlPlane::start(&program, &work_dir.join("control-plane"))?;
    let mut text = format!(
        "# Results of the fleet bench\n\nWritten by `cargo xtask bench fleet --write`; what the numbers mean is in \
         [README.md](README.md).\n\n- Machine: {}.\n- Load of the machine when it began: {}.\n",
        cores::machine()?,
        cores::load_average()?,
    );
    let mut say = |line: String| -> std::fmt::Result {
        eprintln!("{line}");
        writeln!(text, "{line}")
    };
    say("\n| measured | result |\n|---|---|".to_owned())?;
    for routes in CHURN_ROUTES {
        store::grow(&control_plane, backend, routes / wish.smaller / ROUTES_PER_SERVICE)?;
        let kept = work_dir.join(format!("gateway-{routes}"));
        say(churn::measure(&program, &control_plane, &kept, routes / wish.smaller, wish.seconds)?.row())?;
    }
    store::grow(&control_plane, backend, ROUTES / wish.smaller / ROUTES_PER_SERVICE)?;
    say(admin::measure(&control_plane, ROUTES / wish.smaller / ROUTES_PER_SERVICE)?)?;
    say(watches::measure(&control_plane, wish.gateways, wish.publishes)?.rows())?;
    say(cold_start::measure(&program, control_plane, &work_dir.join("gateway"))?.row())?;
    if wish.write {
        let path = repository.join("bench/FLEET.md");
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}
