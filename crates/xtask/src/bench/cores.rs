//! Which core a thread runs on, and how much CPU time a process and its descendants have used.

use std::time::Duration;

use anyhow::{Context, ensure};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The core of the proxy that is measured.
pub(crate) const PROXY: usize = 0;
/// The core of the load generator and the backend.
pub(crate) const LOAD: usize = 1;

/// Two for each of 10,000 idle connections, with room for more.
const OPEN_FILES: u64 = 65_536;

/// Binds the calling thread, and every process and thread it starts from now on, to one core.
///
/// `index` counts the cores this process may use, which need not begin at 0 in a container.
pub(crate) fn pin(index: usize) -> anyhow::Result<()> {
    let allowed = allowed()?;
    ensure!(index < allowed.len(), "core {index} of {} is not there", allowed.len());
    let mut set = CpuSet::new();
    set.set(allowed[index]);
    sched_setaffinity(None, &set).context("cannot bind a thread to a core")
}

/// The cores of the process, as they were before any of its threads was bound.
fn allowed() -> anyhow::Result<&'static [usize]> {
    static ALLOWED: std::sync::OnceLock<Vec<usize>> = std::sync::OnceLock::new();
    if let Some(known) = ALLOWED.get() {
        return Ok(known);
    }
    let set = sched_getaffinity(None).context("cannot read which cores may be used")?;
    Ok(ALLOWED.get_or_init(|| (0..CpuSet::MAX_CPU).filter(|core| set.is_set(*core)).collect()))
}

/// CPU time in user and kernel mode of all threads of `pid` and of its descendants, nginx's workers among them.
pub(crate) fn cpu_time(pid: u32) -> anyhow::Result<Duration> {
    let stats = processes()?;
    ensure!(stats.iter().any(|stat| stat.pid == pid), "process {pid} has ended");
    let ticks: u64 = family(pid, &stats).iter().map(|stat| stat.ticks).sum();
    Ok(Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second()))
}

/// Resident memory of `pid` and its descendants in bytes; pages that several of them share count once.
pub(crate) fn resident_bytes(pid: u32) -> anyhow::Result<u64> {
    let stats = processes()?;
    let mut bytes = 0;
    for stat in family(pid, &stats) {
        let path = format!("/proc/{}/smaps_rollup", stat.pid);
        let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        bytes += proportional_kilobytes(&text).with_context(|| format!("{path} has no Pss"))? * 1024;
    }
    Ok(bytes)
}

fn proportional_kilobytes(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

/// The machine, for the report: model of its processors, how many may be used, kernel.
pub(crate) fn machine() -> anyhow::Result<String> {
    let text = std::fs::read_to_string("/proc/cpuinfo").context("cannot read /proc/cpuinfo")?;
    let model = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    let model = model.map_or("unknown processor", |(_, model)| model.trim());
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    Ok(format!("{} cores of {model}, Linux {}", allowed()?.len(), release.trim()))
}

/// How busy the machine was lately: the averages over one, five and fifteen minutes.
pub(crate) fn load_average() -> anyhow::Result<String> {
    let text = std::fs::read_to_string("/proc/loadavg").context("cannot read /proc/loadavg")?;
    Ok(text.split_whitespace().take(3).collect::<Vec<_>>().join(", "))
}

/// Makes this process ready to measure: on the core for load, with files enough.
pub(crate) fn set_up() -> anyhow::Result<()> {
    raise_open_files()?;
    pin(LOAD).context("the bench needs two cores")
}

/// Lets this process, and those it starts, open as many files as the scenarios need, if the system allows.
fn raise_open_files() -> anyhow::Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let wanted = Rlimit { current: Some(OPEN_FILES), maximum: Some(OPEN_FILES) };
    let allowed = Rlimit { current: limit.maximum, maximum: limit.maximum };
    // Only root may raise the maximum.
    let raised = setrlimit(Resource::Nofile, wanted).or_else(|_| setrlimit(Resource::Nofile, allowed));
    raised.context("cannot raise the limit of open files")
}

fn processes() -> anyhow::Result<Vec<Stat>> {
    let mut stats = Vec::new();
    for entry in std::fs::read_dir("/proc").context("cannot read /proc")? {
        let path = entry.context("cannot read /proc")?.path().join("stat");
        // A process that ended meanwhile has no file, and other entries never had one.
        if let Some(stat) = std::fs::read_to_string(path).ok().as_deref().and_then(Stat::parse) {
            stats.push(stat);
        }
    }
    Ok(stats)
}

#[derive(Debug, PartialEq)]
struct Stat {
    pid: u32,
    parent: u32,
    ticks: u64,
}

impl Stat {
    /// Reads one line of `/proc/<pid>/stat` (proc_pid_stat(5)): the name in parentheses may contain anything, so
    /// counting starts after the last parenthesis.
    fn parse(line: &str) -> Option<Self> {
        let (head, tail) = line.rsplit_once(')')?;
        let pid = head.split_once(' ')?.0.parse().ok()?;
        let fields: Vec<&str> = tail.split_whitespace().collect();
        let parent = fields.get(1)?.parse().ok()?;
        let ticks = |index: usize| fields.get(index).and_then(|text| text.parse::<u64>().ok());
        Some(Self { pid, parent, ticks: ticks(11)? + ticks(12)? })
    }
}

fn family(root: u32, stats: &[Stat]) -> Vec<&Stat> {
    let mut found: Vec<&Stat> = stats.iter().filter(|stat| stat.pid == root).collect();
    let mut next = 0;
    while let Some(parent) = found.get(next).map(|stat| stat.pid) {
        found.extend(stats.iter().filter(|stat| stat.parent == parent));
        next += 1;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_line_is_read_even_if_the_name_is_hostile() {
        let line = "42 (a) b (c)) S 7 42 42 0 -1 4194560 1 0 0 0 150 50 9 9 20 0 1 0 100 1000 1";
        assert_eq!(Stat::parse(line), Some(Stat { pid: 42, parent: 7, ticks: 200 }));
        assert_eq!(Stat::parse("nonsense"), None);
    }

    #[test]
    fn descendants_count_and_strangers_do_not() {
        let stat = |pid, parent| Stat { pid, parent, ticks: 1 };
        let all = [stat(1, 0), stat(5, 1), stat(6, 5), stat(7, 6), stat(8, 1)];
        let pids: Vec<u32> = family(5, &all).iter().map(|stat| stat.pid).collect();
        assert_eq!(pids, [5, 6, 7]);
    }

    #[test]
    fn memory_is_the_proportional_part() {
        assert_eq!(proportional_kilobytes("Rss:  9 kB\nPss:     7 kB\nPss_Dirty: 5 kB\n"), Some(7));
        assert!(resident_bytes(std::process::id()).unwrap() > 0);
    }

    #[test]
    fn the_time_of_this_process_is_known_and_that_of_nobody_is_an_error() {
        assert!(cpu_time(std::process::id()).is_ok());
        assert!(cpu_time(u32::MAX).is_err());
    }
}
