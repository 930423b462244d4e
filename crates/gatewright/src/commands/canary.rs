//! `gatewright canary`: tries a version beside the running one, and ends that.

use clap::{Args, Subcommand};
use gatewright_model::id::GatewayGroupId;
use gatewright_model::rollout::{Share, parse_steps};
use serde_json::{Value, json};

use super::Failure;
use crate::announce;
use crate::arguments::{AdminAccess, service_version};

/// What `gatewright canary` does.
#[derive(Debug, Args)]
pub(crate) struct Canary {
    #[command(subcommand)]
    command: CanaryCommand,
}

#[derive(Debug, Subcommand)]
enum CanaryCommand {
    /// Serve a share of the requests with another version.
    Start(Box<Start>),
    /// Show how far it is, and what was counted of both versions.
    Show(Which),
    /// Make the version the running one.
    Promote(Which),
    /// Take the version away; after a guarded publish, bring the one before it back.
    Abort(Which),
}

/// Flags of `gatewright canary start`.
#[derive(Debug, Args)]
struct Start {
    /// The service template, by id or name, and the number of the version.
    #[arg(value_name = "SERVICE@VERSION", value_parser = service_version)]
    service: (String, String),
    /// The gateway group.
    #[arg(long, env = "GATEWRIGHT_GROUP", value_name = "ID", default_value = "default")]
    group: GatewayGroupId,
    /// Make the version of the template first.
    #[arg(long, env = "GATEWRIGHT_NEW", value_parser = clap::builder::BoolishValueParser::new())]
    #[arg(num_args = 0..=1, default_value = "false", default_missing_value = "true")]
    new: bool,
    /// The share of requests in percent, until the canary is ended by hand.
    #[arg(long, env = "GATEWRIGHT_PERCENT", value_name = "N", conflicts_with = "steps", value_parser = percent)]
    percent: Option<Share>,
    /// Shares one after the other, such as `5% 10m, 25% 30m, 100%`.
    #[arg(long, env = "GATEWRIGHT_STEPS", value_name = "STEPS", required_unless_present = "percent")]
    steps: Option<String>,
    /// Requests with this header get the version, whatever its share, such as `X-Tester=yes`.
    #[arg(long, env = "GATEWRIGHT_HEADER", value_name = "NAME=VALUE", value_parser = pair)]
    header: Vec<(String, String)>,
    /// Requests with this cookie get it.
    #[arg(long, env = "GATEWRIGHT_COOKIE", value_name = "NAME=VALUE", value_parser = pair)]
    cookie: Vec<(String, String)>,
    /// Requests of this consumer get it.
    #[arg(long, env = "GATEWRIGHT_CONSUMER", value_name = "NAME")]
    consumer: Vec<String>,
    /// The variable by whose value a client keeps its version, such as `remote_addr` or `cookie_session`.
    #[arg(long, env = "GATEWRIGHT_STICKY", value_name = "VARIABLE")]
    sticky: Option<String>,
    /// Do not abort by itself when the version is worse than the running one.
    #[arg(long, env = "GATEWRIGHT_UNGUARDED", value_parser = clap::builder::BoolishValueParser::new())]
    #[arg(num_args = 0..=1, default_value = "false", default_missing_value = "true")]
    unguarded: bool,
    #[command(flatten)]
    access: AdminAccess,
}

/// Which rollout.
#[derive(Debug, Args)]
struct Which {
    /// The service, by id or name.
    service: String,
    /// The gateway group.
    #[arg(long, env = "GATEWRIGHT_GROUP", value_name = "ID", default_value = "default")]
    group: GatewayGroupId,
    #[command(flatten)]
    access: AdminAccess,
}

fn percent(text: &str) -> Result<Share, String> {
    let number: f64 =
        text.trim_end_matches('%').parse().map_err(|_| "write a number of percent".to_owned())?;
    Share::try_from(number)
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// Runs the command.
pub(crate) fn run(arguments: &Canary) -> Result<(), Failure> {
    let (which, action) = match &arguments.command {
        CanaryCommand::Start(start) => return run_start(start),
        CanaryCommand::Show(which) => (which, ""),
        CanaryCommand::Promote(which) => (which, "/promote"),
        CanaryCommand::Abort(which) => (which, "/abort"),
    };
    let client = super::admin_client(&which.access)?;
    let id = client.service_template_id(&which.service)?;
    let rollout = match action {
        "" => client.rollout_get(which.group.as_str(), &id)?,
        action => client.rollout_post(which.group.as_str(), &id, action, None)?,
    };
    summary(&rollout).iter().for_each(announce::line);
    Ok(())
}

fn run_start(start: &Start) -> Result<(), Failure> {
    let client = super::admin_client(&start.access)?;
    let id = client.service_template_id(&start.service.0)?;
    let rollout = client.rollout_post(start.group.as_str(), &id, "", Some(&wish(start)?))?;
    summary(&rollout).iter().for_each(announce::line);
    Ok(())
}

fn wish(start: &Start) -> Result<Value, Failure> {
    let mut wish = json!({
        "version": start.service.1, "create_new_version": start.new, "guarded": !start.unguarded,
        "consumers": start.consumer,
    });
    if let Some(percent) = start.percent {
        wish["percent"] = json!(percent);
    }
    if let Some(steps) = &start.steps {
        let steps = parse_steps(steps).map_err(|reason| Failure::Steps { reason })?;
        wish["steps"] = json!(steps);
    }
    let header = |(name, value): &(String, String)| {
        json!([format!("http_{}", name.to_lowercase().replace('-', "_")), "==", value])
    };
    let cookie = |(name, value): &(String, String)| json!([format!("cookie_{name}"), "==", value]);
    let mut vars: Vec<Value> =
        start.header.iter().map(header).chain(start.cookie.iter().map(cookie)).collect();
    if vars.len() > 1 {
        vars.insert(0, json!("OR"));
    }
    wish["vars"] = vars.into();
    if let Some(sticky) = &start.sticky {
        wish["sticky"] = json!(sticky);
    }
    Ok(wish)
}

/// A rollout for people.
fn summary(rollout: &Value) -> Vec<String> {
    let text = |value: &Value, field: &str| value[field].as_str().unwrap_or_default().to_owned();
    let (kind, version, baseline) =
        (text(rollout, "kind"), text(rollout, "version"), text(rollout, "baseline_version"));
    let beside = if kind == "canary" { "beside" } else { "in place of" };
    let mut lines = vec![format!(
        "{} {version}: {} % of the requests, {beside} {baseline}",
        kind.replace('_', " "),
        rollout["percent"]
    )];
    for (side, version) in [("candidate", &version), ("baseline", &baseline)] {
        let Some(counts) = rollout["comparison"].get(side) else { continue };
        let latency = counts["latency_p95_milliseconds"].as_f64();
        let latency = latency.map_or_else(String::new, |latency| format!(", 95 % within {latency:.1} ms"));
        let (requests, failures) = (&counts["requests"], &counts["failures"]);
        lines.push(format!("  {version}: {requests} requests, {failures} failed{latency}"));
    }
    match rollout.get("end") {
        Some(end) => {
            lines.push(format!("  {} by {}: {}", text(end, "outcome"), text(end, "by"), text(end, "reason")))
        }
        None => lines.push(format!("  waits: {}", text(rollout, "waits_for"))),
    }
    lines
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::arguments::{Arguments, Command};

    fn wished(line: &[&str]) -> Value {
        let line = ["gatewright", "canary", "start", "pets@2"].iter().chain(line);
        let Command::Canary(canary) = Arguments::try_parse_from(line).unwrap().command else {
            panic!("not `canary`")
        };
        let CanaryCommand::Start(start) = canary.command else { panic!("not `start`") };
        wish(&start).unwrap()
    }

    #[test]
    fn who_gets_the_version_is_said_in_flags() {
        let wish = wished(&["--steps", "5% 10m, 100%", "--header", "X-Tester=yes", "--cookie", "beta=1"]);
        assert_eq!(wish["steps"], json!([{"percent": 5, "seconds": 600}, {"percent": 100, "seconds": 0}]));
        assert_eq!(wish["vars"], json!(["OR", ["http_x_tester", "==", "yes"], ["cookie_beta", "==", "1"]]));
        let wish =
            wished(&["--percent", "2.5", "--consumer", "ann", "--unguarded", "--sticky", "remote_addr"]);
        assert_eq!((&wish["percent"], &wish["guarded"]), (&json!(2.5), &json!(false)));
        assert_eq!((&wish["consumers"], &wish["sticky"]), (&json!(["ann"]), &json!("remote_addr")));
        let line = ["gatewright", "canary", "start", "pets@2"];
        assert!(Arguments::try_parse_from(line).is_err(), "a share or steps must be said");
    }

    #[test]
    fn a_rollout_is_told_in_a_few_lines() {
        let rollout = json!({
            "kind": "canary", "version": "2", "baseline_version": "1", "percent": 5, "waits_for": "60 s are left",
            "comparison": {
                "candidate": {"requests": 10, "failures": 1, "latency_p95_milliseconds": 4.25},
                "baseline": {"requests": 190, "failures": 0}
            }
        });
        assert_eq!(
            summary(&rollout),
            [
                "canary 2: 5 % of the requests, beside 1",
                "  2: 10 requests, 1 failed, 95 % within 4.2 ms",
                "  1: 190 requests, 0 failed",
                "  waits: 60 s are left",
            ]
        );
        let over = json!({"kind": "guarded_publish", "version": "2", "baseline_version": "1", "percent": 100,
            "end": {"outcome": "aborted", "by": "gatewright", "reason": "worse"}});
        let lines = summary(&over);
        assert_eq!(lines.last().unwrap(), "  aborted by gatewright: worse");
        assert!(lines[0].starts_with("guarded publish 2: 100 % of the requests, in place of 1"), "{lines:?}");
    }
}
