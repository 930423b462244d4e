//! The text in which metrics are scraped: that of Prometheus, and OpenMetrics for those who ask for it.
//!
//! Written by hand, because what is counted is spread over workers and summed while it is written, and because the
//! well-kept library writes OpenMetrics only; both formats together are a page.

use std::fmt::{Display, Write};

use super::counter::{BUCKETS, BUCKETS_MILLIS, Distribution};

/// What a family of metrics is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// Which of the two formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exposition {
    Prometheus,
    OpenMetrics,
}

impl Exposition {
    /// What a scraper that says it accepts these gets.
    pub(crate) fn accepted(accept: &str) -> Self {
        if accept.contains("application/openmetrics-text") { Self::OpenMetrics } else { Self::Prometheus }
    }

    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// After so many bytes the writer lets others have its core. That is a tenth of a millisecond, which no request notices;
/// all series of a large table at once take longer than a scheduler's turn.
const BYTES_AT_A_TURN: usize = 64 << 10;

/// Metrics being written.
pub(crate) struct Text {
    exposition: Exposition,
    out: String,
    /// How long the text was when others last had the core.
    rested: usize,
}

/// A label: name and value.
pub(crate) type Label<'l> = (&'l str, &'l str);

impl Text {
    pub(crate) fn new(exposition: Exposition) -> Self {
        Self { exposition, out: String::new(), rested: 0 }
    }

    /// Begins a family; its samples follow. The name of a counter ends in `_total`.
    pub(crate) fn family<'t>(&'t mut self, name: &'static str, kind: Kind, help: &str) -> Family<'t> {
        let kind_name = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        // In OpenMetrics the family of a counter is named without the ending that its samples have.
        let family = match (self.exposition, kind) {
            (Exposition::OpenMetrics, Kind::Counter) => name.strip_suffix("_total").unwrap_or(name),
            _ => name,
        };
        let _ = write!(self.out, "# HELP {family} {help}\n# TYPE {family} {kind_name}\n");
        Family { name, out: &mut self.out, rested: &mut self.rested }
    }

    pub(crate) fn finish(mut self) -> String {
        if self.exposition == Exposition::OpenMetrics {
            self.out.push_str("# EOF\n");
        }
        self.out
    }
}

/// Writes one label.
pub(crate) fn label(name: &str, value: &str, out: &mut String) {
    out.push_str(name);
    out.push_str("=\"");
    for c in value.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            c => out.push(c),
        }
    }
    out.push('"');
}

/// A family being written.
pub(crate) struct Family<'t> {
    name: &'static str,
    out: &'t mut String,
    rested: &'t mut usize,
}

impl Family<'_> {
    /// Writes one sample.
    pub(crate) fn sample(&mut self, labels: &[Label<'_>], value: impl Display) {
        self.line("", labels, None, value);
    }

    /// Writes a histogram; nothing, if it is empty.
    pub(crate) fn distribution(&mut self, labels: &[Label<'_>], distribution: &Distribution) {
        if distribution.count() == 0 {
            return;
        }
        for ((_, end), count) in BUCKETS.iter().zip(distribution.cumulative) {
            self.line("_bucket", labels, Some(end), count);
        }
        self.line("_bucket", labels, Some("+Inf"), distribution.count());
        self.line("_sum", labels, None, distribution.seconds);
        self.line("_count", labels, None, distribution.count());
    }

    /// Writes one sample whose labels are written already.
    pub(crate) fn written(&mut self, labels: &str, value: impl Display) {
        // Writing to memory cannot fail.
        let _ = writeln!(self.out, "{}{{{labels}}} {value}", self.name);
        self.rest();
    }

    /// Writes a histogram in milliseconds, whose labels are written already; nothing, if it is empty.
    pub(crate) fn written_distribution(&mut self, labels: &str, distribution: &Distribution) {
        if distribution.count() == 0 {
            return;
        }
        let name = self.name;
        for ((_, end), count) in BUCKETS_MILLIS.iter().zip(distribution.cumulative) {
            let _ = writeln!(self.out, "{name}_bucket{{{labels},le=\"{end}\"}} {count}");
        }
        let count = distribution.count();
        let _ = writeln!(self.out, "{name}_bucket{{{labels},le=\"+Inf\"}} {count}");
        let _ = writeln!(self.out, "{name}_sum{{{labels}}} {}", distribution.seconds * 1000.0);
        let _ = writeln!(self.out, "{name}_count{{{labels}}} {count}");
        self.rest();
    }

    fn line(&mut self, suffix: &str, labels: &[Label<'_>], end: Option<&str>, value: impl Display) {
        self.out.push_str(self.name);
        self.out.push_str(suffix);
        let mut open = '{';
        for (name, value) in labels.iter().copied().chain(end.map(|end| ("le", end))) {
            self.out.push(open);
            label(name, value, self.out);
            open = ',';
        }
        if open == ',' {
            self.out.push('}');
        }
        // Writing to memory cannot fail.
        let _ = writeln!(self.out, " {value}");
        self.rest();
    }

    /// Lets others have the core now and then: a scrape is nothing that requests should wait for.
    fn rest(&mut self) {
        if self.out.len() - *self.rested >= BYTES_AT_A_TURN {
            *self.rested = self.out.len();
            std::thread::yield_now();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::metrics::counter::Histogram;
    use std::time::Duration;

    fn written(exposition: Exposition) -> String {
        let mut text = Text::new(exposition);
        let mut family = text.family("gatewright_things_total", Kind::Counter, "Things.");
        family.sample(&[("route", "a\"b\\c\nd"), ("code", "2xx")], 3);
        text.family("gatewright_age_seconds", Kind::Gauge, "Age.").sample(&[], 1.5);
        text.finish()
    }

    #[test]
    fn counters_and_gauges_are_written_as_each_format_wants_them() {
        let samples = "gatewright_things_total{route=\"a\\\"b\\\\c\\nd\",code=\"2xx\"} 3\n";
        let age = "# HELP gatewright_age_seconds Age.\n# TYPE gatewright_age_seconds gauge\ngatewright_age_seconds 1.5\n";
        assert_eq!(
            written(Exposition::Prometheus),
            format!(
                "# HELP gatewright_things_total Things.\n# TYPE gatewright_things_total counter\n{samples}{age}"
            )
        );
        assert_eq!(
            written(Exposition::OpenMetrics),
            format!(
                "# HELP gatewright_things Things.\n# TYPE gatewright_things counter\n{samples}{age}# EOF\n"
            )
        );
    }

    #[test]
    fn a_histogram_ends_with_everything() {
        let histogram = Histogram::default();
        histogram.observe(Duration::from_micros(400));
        histogram.observe(Duration::from_secs(100));
        let mut text = Text::new(Exposition::Prometheus);
        let mut family = text.family("h", Kind::Histogram, "H.");
        family.distribution(&[("a", "b")], &Distribution::of([&histogram].into_iter()));
        family.distribution(&[("a", "empty")], &Distribution::default());
        let text = text.finish();
        let lines: Vec<&str> = text.lines().skip(2).collect();
        assert_eq!(lines.len(), BUCKETS.len() + 3);
        assert_eq!(lines[..2], ["h_bucket{a=\"b\",le=\"0.0002\"} 0", "h_bucket{a=\"b\",le=\"0.0005\"} 1"]);
        let end = &lines[BUCKETS.len()..];
        assert_eq!(end, ["h_bucket{a=\"b\",le=\"+Inf\"} 2", "h_sum{a=\"b\"} 100.0004", "h_count{a=\"b\"} 2"]);
    }

    #[test]
    fn a_scraper_gets_what_it_asks_for() {
        assert_eq!(Exposition::accepted("*/*"), Exposition::Prometheus);
        assert_eq!(
            Exposition::accepted("application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"),
            Exposition::OpenMetrics
        );
    }
}
