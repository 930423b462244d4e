//! Changes while a gateway serves load: what requests notice of them.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use super::super::load::{self, Load};
use super::super::{cores, scenario};
use super::process::{ControlPlane, Gateway};
use super::store::GROUP;

/// Between two changes: fifty a second.
const INTERVAL: Duration = Duration::from_millis(20);

/// The service whose route changes.
const SERVICE: &str = "team-1";

/// What one stretch of load brought, and cost the gateway.
struct Stretch {
    load: Load,
    cpu: Duration,
    resident_bytes: u64,
}

impl Stretch {
    fn cpu_per_request(&self) -> f64 {
        self.cpu.as_secs_f64() / self.load.requests as f64
    }

    fn slowest(&self) -> f64 {
        self.load.latencies[2].as_secs_f64()
    }
}

/// Load without and with changes.
pub(super) struct Churn {
    routes: usize,
    calm: Stretch,
    churned: Stretch,
    changes_per_second: f64,
}

/// Measures a gateway on what the store holds.
pub(super) fn measure(
    program: &Path,
    control_plane: &ControlPlane,
    kept: &Path,
    routes: usize,
    seconds: u64,
) -> anyhow::Result<Churn> {
    let gateway = Gateway::of(program, control_plane, kept)?;
    gateway.until_kept()?;
    let length = Duration::from_secs(seconds);
    load::run(gateway.proxy, &scenario::PLAIN, Duration::from_secs(1))?;
    let calm = stretch(&gateway, length)?;
    let (is_over, changes) = (AtomicBool::new(false), AtomicU64::new(0));
    let begun = Instant::now();
    let (churned, changing) = std::thread::scope(|scope| {
        let changing = scope.spawn(|| change_until(control_plane, &is_over, &changes));
        let churned = stretch(&gateway, length);
        is_over.store(true, Ordering::Relaxed);
        (churned, changing.join())
    });
    let changes_per_second = changes.load(Ordering::Relaxed) as f64 / begun.elapsed().as_secs_f64();
    changing.map_err(|_| anyhow::anyhow!("changing panicked"))??;
    Ok(Churn { routes, calm, churned: churned?, changes_per_second })
}

fn stretch(gateway: &Gateway, length: Duration) -> anyhow::Result<Stretch> {
    let before = cores::cpu_time(gateway.process.pid())?;
    let load = load::run(gateway.proxy, &scenario::PLAIN, length)?;
    let cpu = cores::cpu_time(gateway.process.pid())?.saturating_sub(before);
    Ok(Stretch { load, cpu, resident_bytes: cores::resident_bytes(gateway.process.pid())? })
}

/// Changes the runtime configuration of a service, fifty times a second.
fn change_until(
    control_plane: &ControlPlane,
    is_over: &AtomicBool,
    changes: &AtomicU64,
) -> anyhow::Result<()> {
    let begun = Instant::now();
    let path = format!("/api/gateway_groups/{GROUP}/services/{SERVICE}/runtime_configuration");
    while !is_over.load(Ordering::Relaxed) {
        let number = changes.fetch_add(1, Ordering::Relaxed) + 1;
        control_plane
            .patch(&path, &json!({"hosts": [scenario::HOST, format!("host-{number}.example.com")]}))?;
        let due = INTERVAL * u32::try_from(number)?;
        std::thread::sleep(due.saturating_sub(begun.elapsed()));
    }
    Ok(())
}

impl Churn {
    pub(super) fn row(&self) -> String {
        let Self { routes, calm, churned, changes_per_second } = self;
        format!(
            "| {routes} routes, {changes_per_second:.0} changes a second while {:.0} requests a second are served | \
             p99.9 {:.2} ms instead of {:.2} ms ({:.2}); CPU per request {:.1} µs instead of {:.1} µs ({:.2}); \
             memory {} MB instead of {} MB |",
            churned.load.requests as f64 / churned.load.elapsed.as_secs_f64(),
            churned.slowest() * 1e3,
            calm.slowest() * 1e3,
            churned.slowest() / calm.slowest(),
            churned.cpu_per_request() * 1e6,
            calm.cpu_per_request() * 1e6,
            churned.cpu_per_request() / calm.cpu_per_request(),
            churned.resident_bytes >> 20,
            calm.resident_bytes >> 20,
        )
    }
}
