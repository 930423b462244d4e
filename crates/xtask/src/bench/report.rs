//! The tables: medians, and what the first peer costs in ratio to each other one.

use std::fmt;
use std::fmt::Write;
use std::time::Duration;

/// One measurement of one peer under load.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    pub(crate) requests: u64,
    pub(crate) elapsed: Duration,
    /// CPU time of all processes and threads of the peer.
    pub(crate) cpu: Duration,
    /// The times within which 50, 99 and 99.9 of 100 requests were answered.
    pub(crate) latencies: [Duration; 3],
    pub(crate) resident_bytes: u64,
}

/// Memory of one peer before and with idle connections.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    pub(crate) before: u64,
    pub(crate) with: u64,
}

impl Run {
    fn requests_per_second(&self) -> f64 {
        self.requests as f64 / self.elapsed.as_secs_f64()
    }

    fn cpu_microseconds_per_request(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.requests as f64
    }

    fn busy_percent(&self) -> f64 {
        self.cpu.as_secs_f64() / self.elapsed.as_secs_f64() * 100.0
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (rate, cpu) = (self.requests_per_second(), self.cpu_microseconds_per_request());
        write!(f, "{rate:>8.0} requests/s {cpu:>6.1} µs CPU/request")
    }
}

/// The table of a scenario with load.
pub(crate) fn load_table(title: &str, rows: &[(&str, Vec<Run>)]) -> String {
    let columns = |runs: &[Run]| {
        [
            cpu_microseconds(runs),
            median(runs, Run::requests_per_second),
            median(runs, Run::busy_percent),
            milliseconds(runs, 0),
            milliseconds(runs, 1),
            milliseconds(runs, 2),
            median(runs, |run| megabytes(run.resident_bytes)),
        ]
    };
    let first = rows.first().map(|(_, runs)| columns(runs)).unwrap_or_default();
    let mut text = format!("## {title}\n\n");
    text += "| peer       | CPU µs/request | our ratio | requests/s | our ratio | proxy busy | p50 ms | p99 ms | p99.9 ms | memory MB |\n";
    text += "|------------|---------------:|----------:|-----------:|----------:|-----------:|-------:|-------:|---------:|----------:|\n";
    for (name, runs) in rows {
        let [cpu, rate, busy, half, slow, slowest, memory] = columns(runs);
        let (cpu_ratio, rate_ratio) = (first[0] / cpu, first[1] / rate);
        let _ = writeln!(
            text,
            "| {name:<10} | {cpu:>14.1} | {cpu_ratio:>9.2} | {rate:>10.0} | {rate_ratio:>9.2} | {busy:>8.0} % | {half:>6.2} | {slow:>6.2} | {slowest:>8.2} | {memory:>9.1} |"
        );
    }
    text
}

/// The table of a scenario with idle connections.
pub(crate) fn memory_table(title: &str, rows: &[(&str, Memory)]) -> String {
    let first = rows.first().map(|(_, memory)| megabytes(memory.with)).unwrap_or_default();
    let mut text = format!("## {title}\n\n");
    text += "| peer       | MB before | MB with them | our ratio |\n|------------|----------:|-------------:|----------:|\n";
    for (name, memory) in rows {
        let (before, with) = (megabytes(memory.before), megabytes(memory.with));
        let ratio = first / with;
        let _ = writeln!(text, "| {name:<10} | {before:>9.1} | {with:>12.1} | {ratio:>9.2} |");
    }
    text
}

/// The median of the CPU time per request.
pub(crate) fn cpu_microseconds(runs: &[Run]) -> f64 {
    median(runs, Run::cpu_microseconds_per_request)
}

/// The median of the time within which the `index`th share of requests was answered.
pub(crate) fn milliseconds(runs: &[Run], index: usize) -> f64 {
    median(runs, |run| run.latencies[index].as_secs_f64() * 1e3)
}

fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / (1024.0 * 1024.0)
}

fn median(runs: &[Run], value: impl Fn(&Run) -> f64) -> f64 {
    let mut values: Vec<f64> = runs.iter().map(value).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(requests: u64, cpu_ms: u64) -> Run {
        Run {
            requests,
            elapsed: Duration::from_secs(1),
            cpu: Duration::from_millis(cpu_ms),
            latencies: [1, 2, 3].map(Duration::from_millis),
            resident_bytes: 5 * 1024 * 1024,
        }
    }

    #[test]
    fn ratios_are_those_of_medians_of_the_first_peer_to_each() {
        let ours = vec![run(40_000, 800), run(20_000, 400), run(1, 1000)];
        let theirs = vec![run(10_000, 400), run(10_000, 400), run(10_000, 400)];
        let text = load_table("title", &[("gatewright", ours), ("nginx", theirs)]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "## title");
        assert_eq!(
            lines[4].split_whitespace().collect::<String>(),
            "|gatewright|20.0|1.00|20000|1.00|80%|1.00|2.00|3.00|5.0|"
        );
        assert_eq!(
            lines[5].split_whitespace().collect::<String>(),
            "|nginx|40.0|0.50|10000|2.00|40%|1.00|2.00|3.00|5.0|"
        );
    }

    #[test]
    fn memory_is_compared_as_a_whole() {
        let mega = 1024 * 1024;
        let rows =
            [("a", Memory { before: mega, with: 3 * mega }), ("b", Memory { before: 0, with: 6 * mega })];
        let text = memory_table("idle", &rows);
        assert_eq!(text.lines().last().unwrap().split_whitespace().collect::<String>(), "|b|0.0|6.0|0.50|");
    }
}
