//! `gatewright diff`: what differs between two states of services, asked of a control plane.

use clap::Args;
use gatewright_model::diff::ServiceDiff;
use serde_json::{Value, json};

use super::Failure;
use crate::announce;
use crate::arguments::AdminAccess;

/// Flags of `gatewright diff`.
#[derive(Debug, Args)]
pub(crate) struct Diff {
    /// `SERVICE@VERSION`, `SERVICE@group:GROUP` for what a gateway group has, or `SERVICE` for the template.
    #[arg(value_name = "BEFORE", value_parser = state)]
    before: State,
    /// The same for the other side.
    #[arg(value_name = "AFTER", value_parser = state)]
    after: State,
    /// Print the difference as JSON.
    #[arg(long, env = "GATEWRIGHT_JSON", value_parser = clap::builder::BoolishValueParser::new())]
    #[arg(num_args = 0..=1, default_value = "false", default_missing_value = "true")]
    json: bool,
    #[command(flatten)]
    access: AdminAccess,
}

/// One side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct State {
    /// Its id or its name.
    pub(super) service: String,
    pub(super) place: Place,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Template,
    Version(String),
    Group(String),
}

/// Prints what differs.
pub(crate) fn run(arguments: &Diff) -> Result<(), Failure> {
    let client = super::admin_client(&arguments.access)?;
    let wish = |state: &State| {
        let id = client.service_template_id(&state.service)?;
        Ok::<_, Failure>(wish(&id, &state.place))
    };
    let wish = json!({ "before": wish(&arguments.before)?, "after": wish(&arguments.after)? });
    let diff = client.service_diff(&wish)?;
    announce::line(written(&diff, arguments.json).trim_end());
    Ok(())
}

fn written(diff: &ServiceDiff, as_json: bool) -> String {
    if as_json { json!(diff).to_string() } else { diff.to_string() }
}

fn wish(service_id: &str, place: &Place) -> Value {
    match place {
        Place::Template => json!({ "service_id": service_id }),
        Place::Version(number) => json!({ "service_id": service_id, "version": number }),
        Place::Group(group) => json!({ "service_id": service_id, "gateway_group_id": group }),
    }
}

pub(super) fn state(text: &str) -> Result<State, String> {
    let (service, place) = match text.split_once('@') {
        None => (text, Place::Template),
        Some((service, place)) => match place.strip_prefix("group:") {
            Some(group) => (service, Place::Group(group.to_owned())),
            None => (service, Place::Version(place.to_owned())),
        },
    };
    let is_named = match &place {
        Place::Template => true,
        Place::Version(name) | Place::Group(name) => !name.is_empty(),
    };
    if service.is_empty() || !is_named {
        return Err("write SERVICE@VERSION, SERVICE@group:GROUP or SERVICE".to_owned());
    }
    Ok(State { service: service.to_owned(), place })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_side_is_a_template_a_version_or_what_a_group_has() {
        for (text, expected) in [
            ("store", json!({ "service_id": "store" })),
            ("store@1.1.0", json!({ "service_id": "store", "version": "1.1.0" })),
            ("store@a@b", json!({ "service_id": "store", "version": "a@b" })),
            ("store@group:default", json!({ "service_id": "store", "gateway_group_id": "default" })),
        ] {
            let State { service, place } = state(text).unwrap();
            assert_eq!(wish(&service, &place), expected);
        }
        for wrong in ["", "@1", "store@", "store@group:"] {
            assert!(state(wrong).is_err(), "{wrong}");
        }
    }
}
