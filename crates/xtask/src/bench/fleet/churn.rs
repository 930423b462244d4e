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

/// Looks at memory during the changes. Memory that is flat is the same at the first look as at the last; before the
/// first one, caches and pools fill.
const LOOKS: u32 = 12;

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

/// Resident bytes of a process, look after look.
struct Memory(Vec<u64>);

impl std::fmt::Display for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let megabytes = |bytes: Option<&u64>| bytes.copied().unwrap_or_default() >> 20;
        let (first, last, most) = (self.0.first(), self.0.last(), self.0.iter().max());
        let [first, last, most] = [first, last, most].map(megabytes);
        write!(
            f,
            "{first} MB at the first of {} looks, {last} MB at the last, at most {most} MB",
            self.0.len()
        )
    }
}

/// Load without and with changes.
pub(super) struct Churn {
    routes: usize,
    /// Of the gateway and of the control plane, while there are changes.
    memory: [Memory; 2],
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
    let pids = [gateway.process.pid(), control_plane.process.pid()];
    let (churned, changing, memory) = std::thread::scope(|scope| {
        let changing = scope.spawn(|| change_until(control_plane, &is_over, &changes));
        let memory = scope.spawn(|| memory_until(pids, length, &is_over));
        let churned = stretch(&gateway, length);
        is_over.store(true, Ordering::Relaxed);
        (churned, changing.join(), memory.join())
    });
    let changes_per_second = changes.load(Ordering::Relaxed) as f64 / begun.elapsed().as_secs_f64();
    changing.map_err(|_| anyhow::anyhow!("changing panicked"))??;
    let memory = memory.map_err(|_| anyhow::anyhow!("looking at memory panicked"))??;
    Ok(Churn { routes, memory, calm, churned: churned?, changes_per_second })
}

fn stretch(gateway: &Gateway, length: Duration) -> anyhow::Result<Stretch> {
    let before = cores::cpu_time(gateway.process.pid())?;
    let load = load::run(gateway.proxy, &scenario::PLAIN, length)?;
    let cpu = cores::cpu_time(gateway.process.pid())?.saturating_sub(before);
    Ok(Stretch { load, cpu, resident_bytes: cores::resident_bytes(gateway.process.pid())? })
}

/// Looks at the memory of two processes while they work, from the end of the first of [`LOOKS`] parts of `length` on.
fn memory_until(pids: [u32; 2], length: Duration, is_over: &AtomicBool) -> anyhow::Result<[Memory; 2]> {
    let begun = Instant::now();
    let mut looks = [Vec::new(), Vec::new()];
    for look in 1..=LOOKS {
        // The last look comes a little before the end, so that the load is still on.
        let due = (length / LOOKS * look).saturating_sub(length / LOOKS / 4);
        std::thread::sleep(due.saturating_sub(begun.elapsed()));
        if is_over.load(Ordering::Relaxed) {
            break;
        }
        for (looks, pid) in looks.iter_mut().zip(pids) {
            looks.push(cores::resident_bytes(pid)?);
        }
    }
    Ok(looks.map(Memory))
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
        let Self { routes, memory: [gateway, control_plane], calm, churned, changes_per_second } = self;
        format!(
            "| {routes} routes, {changes_per_second:.0} changes a second while {:.0} requests a second are served | \
             p99.9 {:.2} ms instead of {:.2} ms ({:.2}); CPU per request {:.1} µs instead of {:.1} µs ({:.2}); \
             memory {} MB instead of {} MB, of the gateway {gateway}; of the control plane {control_plane} |",
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
