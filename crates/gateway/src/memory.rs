//! How near the gateway is to the memory it may use, and what it does about it.
//!
//! Sampled beside the workers, which read one number: near the limit new requests are refused so that those in flight
//! can finish and give back what they hold, nearer still new connections are. The alternative is that the system ends
//! the process with all of them.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

/// How often memory is looked at: faster than requests can fill what is left of it.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(100);

/// From which part of the limit on new requests are refused, in percent; what Envoy recommends at the edge.
const SHED_PERCENT: u64 = 95;

/// The same for new connections.
const REFUSE_PERCENT: u64 = 98;

/// Where the control group of this process is described.
const OWN_GROUP: &str = "/proc/self/cgroup";
const GROUPS: &str = "/sys/fs/cgroup";

/// How much memory there is and how much of it is used.
#[derive(Clone, Debug)]
pub struct MemoryLimit {
    /// Bytes that may be used.
    pub bytes_max: u64,
    used: Used,
}

#[derive(Clone, Debug)]
enum Used {
    /// By this process.
    Process,
    /// By the control group in this directory, caches of files that can be dropped aside.
    Group(PathBuf),
    /// So much, for tests.
    Fixed(u64),
}

impl MemoryLimit {
    /// So many bytes for this process.
    #[must_use]
    pub fn of_process(bytes_max: u64) -> Self {
        Self { bytes_max, used: Used::Process }
    }

    /// What the control group of this process says, if it says anything (cgroup v2).
    #[must_use]
    pub fn of_group() -> Option<Self> {
        let line = std::fs::read_to_string(OWN_GROUP).ok()?;
        let own = line.lines().find_map(|line| line.strip_prefix("0::"))?.trim_start_matches('/');
        let directory = Path::new(GROUPS).join(own);
        // `max` stands for none.
        let bytes_max = std::fs::read_to_string(directory.join("memory.max")).ok()?.trim().parse().ok()?;
        Some(Self { bytes_max, used: Used::Group(directory) })
    }

    /// A limit of which so much is used for ever.
    #[must_use]
    pub fn fixed(bytes_max: u64, bytes_used: u64) -> Self {
        Self { bytes_max, used: Used::Fixed(bytes_used) }
    }

    fn bytes_used(&self) -> io::Result<u64> {
        match &self.used {
            Used::Process => resident(&std::fs::read_to_string("/proc/self/status")?),
            Used::Group(directory) => {
                let current = std::fs::read_to_string(directory.join("memory.current"))?;
                let statistics = std::fs::read_to_string(directory.join("memory.stat"))?;
                in_use(&current, &statistics)
            }
            Used::Fixed(used) => Ok(*used),
        }
    }
}

/// The resident memory in a process's status.
fn resident(status: &str) -> io::Result<u64> {
    let kibibytes = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"));
    let number = kibibytes.and_then(|text| text.trim().parse::<u64>().ok());
    number.map(|kibibytes| kibibytes * 1024).ok_or_else(|| io::Error::other("no VmRSS in the process status"))
}

/// What a control group uses without the part of its file cache that nobody used of late.
fn in_use(current: &str, statistics: &str) -> io::Result<u64> {
    let number = |text: &str| text.trim().parse::<u64>().map_err(io::Error::other);
    let inactive = statistics.lines().find_map(|line| line.strip_prefix("inactive_file "));
    Ok(number(current)?.saturating_sub(inactive.map_or(Ok(0), number)?))
}

/// How hard memory presses, for every worker to read.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pressure(Arc<AtomicU8>);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
enum Level {
    None,
    Shed,
    Refuse,
}

impl Level {
    /// What the gateway does at this level, for the log.
    fn name(self) -> &'static str {
        match self {
            Self::None => "serve everything",
            Self::Shed => "refuse new requests",
            Self::Refuse => "refuse new connections",
        }
    }

    fn of(used: u64, max: u64) -> Self {
        let at = |percent: u64| u128::from(used) * 100 > u128::from(max) * u128::from(percent);
        if at(REFUSE_PERCENT) {
            Self::Refuse
        } else if at(SHED_PERCENT) {
            Self::Shed
        } else {
            Self::None
        }
    }
}

impl Pressure {
    /// Whether new requests are refused.
    pub(crate) fn sheds_requests(&self) -> bool {
        self.0.load(Ordering::Relaxed) >= Level::Shed as u8
    }

    /// Whether new connections are refused.
    pub(crate) fn refuses_connections(&self) -> bool {
        self.0.load(Ordering::Relaxed) >= Level::Refuse as u8
    }

    /// Looks at memory once.
    pub(crate) fn sample(&self, limit: &MemoryLimit) -> io::Result<()> {
        let used = limit.bytes_used()?;
        let level = Level::of(used, limit.bytes_max);
        let before = self.0.swap(level as u8, Ordering::Relaxed);
        if before != level as u8 {
            tracing::warn!(
                used,
                limit = limit.bytes_max,
                does = level.name(),
                "the pressure on memory changed"
            );
        }
        Ok(())
    }
}

/// Looks at memory again and again.
pub(crate) async fn watch(limit: MemoryLimit, pressure: Pressure) {
    let mut interval = tokio::time::interval(SAMPLE_INTERVAL);
    loop {
        interval.tick().await;
        if let Err(error) = pressure.sample(&limit) {
            tracing::error!(%error, "memory can no longer be looked at, so its limit is not kept");
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_refused_before_connections_are() {
        for (used, sheds, refuses) in [
            (0, false, false),
            (950, false, false),
            (951, true, false),
            (980, true, false),
            (981, true, true),
        ] {
            let pressure = Pressure::default();
            pressure.sample(&MemoryLimit::fixed(1000, used)).unwrap();
            assert_eq!(
                (pressure.sheds_requests(), pressure.refuses_connections()),
                (sheds, refuses),
                "{used}"
            );
        }
    }

    #[test]
    fn memory_is_read_as_the_system_writes_it() {
        assert_eq!(resident("Name:\tx\nVmRSS:\t    1024 kB\nThreads:\t1\n").unwrap(), 1 << 20);
        assert!(resident("Name:\tx\n").is_err());
        assert_eq!(in_use("1000\n", "anon 5\ninactive_file 400\nactive_file 1\n").unwrap(), 600);
        assert_eq!(in_use("1000\n", "anon 5\n").unwrap(), 1000);
        assert!(in_use("much\n", "").is_err());
        assert!(MemoryLimit::of_process(1).bytes_used().unwrap() > 1 << 20);
    }
}
