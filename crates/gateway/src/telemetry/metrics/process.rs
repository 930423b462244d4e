//! What the system knows of this process, under the names that every exporter uses.
//!
//! Read from `/proc`; what cannot be read is left out.

use std::fs;

use super::text::{Kind, Text};

pub(crate) fn write(text: &mut Text) {
    if let Some(stat) = Stat::read() {
        let cpu = "CPU time used, in user and in system mode.";
        text.family("process_cpu_seconds_total", Kind::Counter, cpu).sample(&[], stat.cpu_seconds);
        let resident = "Memory in use.";
        text.family("process_resident_memory_bytes", Kind::Gauge, resident).sample(&[], stat.resident_bytes);
        if let Some(started_at) = stat.started_at {
            let started = "When the process started, in seconds since 1970.";
            text.family("process_start_time_seconds", Kind::Gauge, started).sample(&[], started_at);
        }
    }
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        // Reading the directory takes one of them.
        let open = open.count().saturating_sub(1);
        text.family("process_open_fds", Kind::Gauge, "Open file descriptors.").sample(&[], open);
    }
    if let Some(most) = rustix::process::getrlimit(rustix::process::Resource::Nofile).current {
        let help = "File descriptors that may be open at the same time.";
        text.family("process_max_fds", Kind::Gauge, help).sample(&[], most);
    }
}

/// The parts of `/proc/self/stat` that are of interest.
#[derive(Debug, PartialEq)]
struct Stat {
    cpu_seconds: f64,
    resident_bytes: u64,
    /// Seconds since 1970.
    started_at: Option<f64>,
}

impl Stat {
    fn read() -> Option<Self> {
        let boot = fs::read_to_string("/proc/stat").ok().and_then(|stat| boot_time(&stat));
        let ticks = rustix::param::clock_ticks_per_second();
        Self::parse(&fs::read_to_string("/proc/self/stat").ok()?, ticks, rustix::param::page_size(), boot)
    }

    #[allow(clippy::cast_precision_loss, reason = "tick counts are far below 2^52")]
    fn parse(stat: &str, ticks_per_second: u64, page_bytes: usize, boot: Option<u64>) -> Option<Self> {
        // The name of the program stands in parentheses and may hold anything.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
        let number = |place: usize| fields.get(place)?.parse::<u64>().ok();
        let seconds = |ticks: u64| ticks as f64 / ticks_per_second as f64;
        Some(Self {
            cpu_seconds: seconds(number(11)? + number(12)?),
            resident_bytes: number(21)? * page_bytes as u64,
            started_at: boot.and_then(|boot| Some(boot as f64 + seconds(number(19)?))),
        })
    }
}

fn boot_time(stat: &str) -> Option<u64> {
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_of_a_process_are_found_behind_its_name() {
        let stat = "42 (a) (b c) S 1 42 42 0 -1 4194304 900 0 1 0 150 50 0 0 20 0 4 0 3000 220000 700 18446744073709551615";
        let parsed = Stat::parse(stat, 100, 4096, boot_time("cpu 1 2\nbtime 1000\n"));
        assert_eq!(
            parsed,
            Some(Stat { cpu_seconds: 2.0, resident_bytes: 700 * 4096, started_at: Some(1030.0) })
        );
        assert_eq!(Stat::parse("42 (a) S", 100, 4096, None), None);
    }

    #[test]
    fn this_process_has_numbers() {
        let mut text = Text::new(super::super::text::Exposition::Prometheus);
        write(&mut text);
        let text = text.finish();
        for name in
            ["cpu_seconds_total", "resident_memory_bytes", "start_time_seconds", "open_fds", "max_fds"]
        {
            assert!(text.contains(&format!("\nprocess_{name} ")), "{name} in {text}");
        }
    }
}
