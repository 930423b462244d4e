//! `gatewright publish`: publishes a service template as a new version, and waits until gateways serve it.

use clap::Args;
use gatewright_model::id::GatewayGroupId;
use serde_json::Value;

use super::Failure;
use crate::announce;
use crate::arguments::{AdminAccess, service_version};

/// Flags of `gatewright publish`.
#[derive(Debug, Args)]
pub(crate) struct Publish {
    /// The service template, by id or name, and the number of the version that is made of it.
    #[arg(value_name = "SERVICE@VERSION", value_parser = service_version)]
    service: (String, String),
    /// The gateway group to publish to.
    #[arg(long, env = "GATEWRIGHT_GROUP", value_name = "ID", default_value = "default")]
    group: GatewayGroupId,
    /// Wait until every healthy instance of the group serves it, at most so long; such as `30s` or `2m`.
    #[arg(long, env = "GATEWRIGHT_WAIT", value_name = "TIME", value_parser = patience)]
    wait: Option<String>,
    #[command(flatten)]
    access: AdminAccess,
}

/// A time as the admin API reads it.
pub(super) fn patience(text: &str) -> Result<String, String> {
    let number =
        text.strip_suffix("ms").or_else(|| text.strip_suffix('s')).or_else(|| text.strip_suffix('m'));
    let is_time =
        number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()));
    is_time.then(|| text.to_owned()).ok_or_else(|| "write a time, such as `30s` or `2m`".to_owned())
}

/// Publishes. With `--wait`, the outcome is a failure if an instance does not serve all of it in time; it is published
/// all the same.
pub(crate) fn run(arguments: &Publish) -> Result<(), Failure> {
    let client = super::admin_client(&arguments.access)?;
    let (service, version) = &arguments.service;
    let group = arguments.group.as_str();
    let id = client.service_template_id(service)?;
    let answer = client.service_publish_await(group, (&id, version), arguments.wait.as_deref())?;
    if let Some(warning) = answer["warning_msg"].as_str() {
        tracing::warn!("{warning}");
    }
    let published = &answer["value"];
    announce::line(format_args!(
        "published {service}@{version} to {group}, revision {}",
        published["revision"]
    ));
    let Some(applied) = published.get("applied") else { return Ok(()) };
    let instances = applied["instances"].as_array().map(Vec::as_slice).unwrap_or_default();
    let lagging: Vec<String> = instances.iter().filter_map(complaint).collect();
    announce::line(format_args!(
        "served whole by {} of {} instances",
        instances.len() - lagging.len(),
        instances.len()
    ));
    for line in &lagging {
        announce::line(line);
    }
    if applied["complete"] == true { Ok(()) } else { Err(Failure::NotServed { lagging: lagging.len() }) }
}

/// What an instance does not serve and why, if anything.
fn complaint(instance: &Value) -> Option<String> {
    let text = |field: &str| instance[field].as_str().unwrap_or_default().to_owned();
    let reasons = instance["reasons"].as_array().filter(|reasons| !reasons.is_empty())?;
    let reasons: Vec<&str> = reasons.iter().filter_map(Value::as_str).collect();
    Some(format!("{} ({}): {}", text("hostname"), text("id"), reasons.join("; ")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_instance_that_lags_is_named_with_its_reasons() {
        let fine = json!({"id": "i", "hostname": "h", "reasons": []});
        assert_eq!(complaint(&fine), None);
        let lagging = json!({"id": "i", "hostname": "h", "reasons": ["a", "b"]});
        assert_eq!(complaint(&lagging).as_deref(), Some("h (i): a; b"));
    }

    #[test]
    fn a_wait_has_a_unit() {
        for (text, is_time) in
            [("30s", true), ("2m", true), ("250ms", true), ("30", false), ("s", false), ("1h", false)]
        {
            assert_eq!(patience(text).is_ok(), is_time, "{text}");
        }
    }
}
