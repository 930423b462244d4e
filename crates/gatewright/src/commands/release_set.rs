//! `gatewright release-set`: several services to several gateway groups, all or nothing.

use clap::{Args, Subcommand};
use gatewright_model::id::GatewayGroupId;
use serde_json::{Value, json};

use super::Failure;
use crate::announce;
use crate::arguments::{AdminAccess, service_version};

/// Flags of `gatewright release-set`.
#[derive(Debug, Args)]
pub(crate) struct ReleaseSet {
    #[command(subcommand)]
    what: ReleaseSetCommand,
}

/// What is done with release sets.
#[derive(Debug, Subcommand)]
enum ReleaseSetCommand {
    /// Publish services to gateway groups, once every healthy instance has compiled them.
    Publish(PublishSet),
    /// Put back what each gateway group had before a release set.
    RollBack(RollBackSet),
}

/// Flags of `gatewright release-set publish`.
#[derive(Debug, Args)]
struct PublishSet {
    /// A service, by id or name, and the number of its version; a number that is new is made of the template.
    #[arg(value_name = "SERVICE@VERSION", required = true, value_parser = service_version)]
    services: Vec<(String, String)>,
    /// A gateway group to publish to; repeat it for several.
    #[arg(
        long,
        env = "GATEWRIGHT_GROUP",
        value_name = "ID",
        default_value = "default",
        value_delimiter = ','
    )]
    group: Vec<GatewayGroupId>,
    /// How long instances may take to compile, such as `30s`.
    #[arg(long, env = "GATEWRIGHT_WAIT", value_name = "TIME", value_parser = super::publish::patience)]
    wait: Option<String>,
    #[command(flatten)]
    access: AdminAccess,
}

/// Flags of `gatewright release-set roll-back`.
#[derive(Debug, Args)]
struct RollBackSet {
    /// The release set.
    id: String,
    #[command(flatten)]
    access: AdminAccess,
}

/// Publishes or rolls back, and prints what became of it.
pub(crate) fn run(arguments: &ReleaseSet) -> Result<(), Failure> {
    let (set, done) = match &arguments.what {
        ReleaseSetCommand::Publish(arguments) => {
            let client = super::admin_client(&arguments.access)?;
            let mut services = Vec::with_capacity(arguments.services.len());
            for (service, version) in &arguments.services {
                let id = client.service_template_id(service)?;
                services.push(json!({ "service_id": id, "version": version }));
            }
            let group = |group: &GatewayGroupId| json!({ "gateway_group_id": group, "services": services });
            let groups: Vec<Value> = arguments.group.iter().map(group).collect();
            let set = client.release_set_create(&json!({ "groups": groups }), arguments.wait.as_deref())?;
            (set, "published")
        }
        ReleaseSetCommand::RollBack(arguments) => {
            let client = super::admin_client(&arguments.access)?;
            (client.release_set_roll_back(&arguments.id)?, "rolled back")
        }
    };
    announce::line(told(&set, done).trim_end());
    Ok(())
}

fn told(set: &Value, done: &str) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let mut told = format!("{done} release set {}\n", text(&set["id"]));
    for group in list(&set["groups"]) {
        for service in list(&group["services"]) {
            let before = service.pointer("/before/version").map_or_else(|| "nothing".to_owned(), text);
            let (service, after) = (text(&service["service"]), text(&service["after"]["version"]));
            let (from, to) = if done == "published" { (before, after) } else { (after, before) };
            told.push_str(&format!("  {}: {service} {from} -> {to}\n", text(&group["gateway_group_id"])));
        }
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_is_told_group_by_group() {
        let service = |before: Value| {
            let mut service = json!({ "service": "pets", "after": { "version": "2" } });
            if !before.is_null() {
                service["before"] = before;
            }
            json!([service])
        };
        let set = json!({ "id": "r1", "groups": [
            { "gateway_group_id": "a", "services": service(json!({ "version": "1" })) },
            { "gateway_group_id": "b", "services": service(Value::Null) },
        ] });
        assert_eq!(
            told(&set, "published"),
            "published release set r1\n  a: pets 1 -> 2\n  b: pets nothing -> 2\n"
        );
        assert_eq!(
            told(&set, "rolled back"),
            "rolled back release set r1\n  a: pets 2 -> 1\n  b: pets 2 -> nothing\n"
        );
    }
}
