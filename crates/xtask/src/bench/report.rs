//! The table at the end: medians, and ratios to the last peer.

use std::fmt;
use std::io::Write;
use std::time::Duration;

/// One measurement of one peer.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    pub(crate) requests: u64,
    pub(crate) elapsed: Duration,
    /// CPU time of all processes and threads of the peer.
    pub(crate) cpu: Duration,
    /// The time within which 99 of 100 requests were answered.
    pub(crate) slow: Duration,
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

    fn slow_milliseconds(&self) -> f64 {
        self.slow.as_secs_f64() * 1e3
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (rate, cpu) = (self.requests_per_second(), self.cpu_microseconds_per_request());
        write!(f, "{rate:>8.0} requests/s {cpu:>6.1} µs CPU/request")
    }
}

/// Prints the table of `rows`, each a peer with its runs.
pub(crate) fn print(title: &str, rows: &[(&str, Vec<Run>)]) -> anyhow::Result<()> {
    std::io::stdout().write_all(table(title, rows).as_bytes())?;
    Ok(())
}

fn table(title: &str, rows: &[(&str, Vec<Run>)]) -> String {
    let columns = |runs: &[Run]| {
        [
            median(runs, Run::requests_per_second),
            median(runs, Run::cpu_microseconds_per_request),
            median(runs, Run::busy_percent),
            median(runs, Run::slow_milliseconds),
        ]
    };
    let base = rows.last().map(|(_, runs)| columns(runs)).unwrap_or_default();
    let mut text = format!("{title}\n\n");
    text += "| peer         | requests/s | ratio | CPU µs/request | ratio | proxy busy | p99 ms |\n";
    text += "|--------------|-----------:|------:|---------------:|------:|-----------:|-------:|\n";
    for (name, runs) in rows {
        let [rate, cpu, busy, slow] = columns(runs);
        let (rate_ratio, cpu_ratio) = (rate / base[0], cpu / base[1]);
        text += &format!(
            "| {name:<12} | {rate:>10.0} | {rate_ratio:>5.2} | {cpu:>14.1} | {cpu_ratio:>5.2} | {busy:>8.0} % | {slow:>6.2} |\n"
        );
    }
    text
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
        let slow = Duration::from_millis(2);
        Run { requests, elapsed: Duration::from_secs(1), cpu: Duration::from_millis(cpu_ms), slow }
    }

    #[test]
    fn ratios_are_those_of_medians_to_the_last_peer() {
        let ours = vec![run(40_000, 800), run(20_000, 400), run(1, 1000)];
        let theirs = vec![run(10_000, 400), run(10_000, 400), run(10_000, 400)];
        let text = table("title", &[("gatewright", ours), ("nginx", theirs)]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "title");
        assert_eq!(
            lines[4],
            "| gatewright   |      20000 |  2.00 |           20.0 |  0.50 |       80 % |   2.00 |"
        );
        assert_eq!(
            lines[5],
            "| nginx        |      10000 |  1.00 |           40.0 |  1.00 |       40 % |   2.00 |"
        );
    }
}
