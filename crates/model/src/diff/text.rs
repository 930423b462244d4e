//! A difference, for people.

use std::fmt;

use serde_json::Value;

use super::{Change, RouteOutcome, ServiceDiff};

impl fmt::Display for ServiceDiff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return writeln!(f, "no differences");
        }
        section(f, "metadata", &self.metadata)?;
        section(f, "service", &self.service)?;
        if !self.routes.is_empty() {
            writeln!(f, "routes")?;
        }
        for route in &self.routes {
            let sign = match route.outcome {
                RouteOutcome::Added => '+',
                RouteOutcome::Removed => '-',
                RouteOutcome::Changed => '~',
            };
            writeln!(f, "  {sign} {} ({})", route.name, route.route_id)?;
            for change in &route.changes {
                let is_told = route.outcome != RouteOutcome::Changed && tells_nothing(change);
                if !is_told {
                    line(f, "      ", change)?;
                }
            }
        }
        section(f, "runtime configuration", &self.runtime_configuration)
    }
}

fn section(f: &mut fmt::Formatter<'_>, title: &str, changes: &[Change]) -> fmt::Result {
    if !changes.is_empty() {
        writeln!(f, "{title}")?;
    }
    changes.iter().try_for_each(|change| line(f, "  ", change))
}

fn line(f: &mut fmt::Formatter<'_>, indent: &str, change: &Change) -> fmt::Result {
    let path = change.path.trim_start_matches('/').replace('/', ".").replace("~1", "/").replace("~0", "~");
    match (&change.before, &change.after) {
        (Some(before), Some(after)) => writeln!(f, "{indent}{path}: {before} -> {after}"),
        (None, Some(after)) => writeln!(f, "{indent}{path}: + {after}"),
        (Some(before), None) => writeln!(f, "{indent}{path}: - {before}"),
        (None, None) => Ok(()),
    }
}

/// What the heading of the route says already, and what is not switched on.
fn tells_nothing(change: &Change) -> bool {
    let value = change.before.as_ref().or(change.after.as_ref());
    matches!(change.path.as_str(), "/route_id" | "/name")
        || matches!(value, Some(Value::Bool(false)))
        || value.is_some_and(|value| change.path == "/priority" && *value == 0)
}
