//! What is known about plugins: which ones this release can run, what they accept, and what is wrong with what
//! somebody wants of them.

use gatewright_model::resource::Plugins;
use gatewright_model::validation::Violations;
use gatewright_plugins::{ALL, Category, Kind};
use serde_json::{Map, Value};

use super::Refusal;

/// A plugin and what it does in general.
pub(crate) struct PluginSummary {
    pub(crate) name: &'static str,
    pub(crate) category: &'static str,
}

/// The names of the plugins this release can run, or of those only that read metadata.
pub(crate) fn plugin_list(has_metadata: bool) -> Vec<&'static str> {
    let wanted = ALL.iter().filter(|kind| !has_metadata || kind.metadata.is_some());
    wanted.map(|kind| kind.name).collect()
}

/// The plugins this release can run, by what they do.
pub(crate) fn plugin_summary_list() -> Vec<PluginSummary> {
    let category = |category| match category {
        Category::Authentication => "authentication",
        Category::Validation => "validation",
        Category::Other => "other",
    };
    ALL.iter().map(|kind| PluginSummary { name: kind.name, category: category(kind.category) }).collect()
}

/// The schema of a plugin's configuration.
pub(crate) fn plugin_schema(name: &str) -> Result<Value, Refusal> {
    Ok(plugin(name)?.document())
}

/// The metadata that a plugin reads where nobody set any.
pub(crate) fn plugin_metadata_default(name: &str) -> Result<Value, Refusal> {
    let none = || Refusal::NotFound { noun: "metadata of plugin", id: name.to_owned() };
    let schema = plugin(name)?.metadata.ok_or_else(none)?();
    let properties = schema.get("properties").and_then(Value::as_object).into_iter().flatten();
    let defaults =
        properties.filter_map(|(name, schema)| Some((name.clone(), schema.get("default")?.clone())));
    Ok(Value::Object(defaults.collect::<Map<_, _>>()))
}

fn plugin(name: &str) -> Result<&'static Kind, Refusal> {
    let unknown = || Refusal::NotFound { noun: "plugin", id: name.chars().take(80).collect() };
    gatewright_plugins::find(name).ok_or_else(unknown)
}

/// Refuses plugins that this release cannot run, and configurations they do not accept.
pub(super) fn plugins_check(plugins: &Plugins, at: &str, violations: &mut Violations) {
    check(plugins, at, violations, gatewright_plugins::validate);
}

/// Refuses configurations that plugins of a template do not accept. It may hold plugins that this release cannot run,
/// which a publish refuses: nobody is served by a template.
pub(super) fn template_plugins_check(plugins: &Plugins, at: &str, violations: &mut Violations) {
    for (name, config) in plugins.iter().filter(|(name, _)| gatewright_plugins::is_known(name)) {
        violations.absorb(&format!("{at}/{name}"), gatewright_plugins::validate(name, config));
    }
}

/// Like [`plugins_check`] for the plugins of a consumer, among which may be what it shows.
pub(super) fn consumer_plugins_check(plugins: &Plugins, at: &str, violations: &mut Violations) {
    check(plugins, at, violations, gatewright_plugins::validate_for_consumer);
}

/// Like [`plugins_check`] for the plugins of a credential.
pub(super) fn credential_plugins_check(plugins: &Plugins, at: &str, violations: &mut Violations) {
    check(plugins, at, violations, gatewright_plugins::validate_credential);
}

/// The same for the metadata of a plugin.
pub(super) fn metadata_check(name: &str, settings: &Map<String, Value>) -> Result<(), Violations> {
    if !gatewright_plugins::is_known(name) {
        return Err(Violations::one("/plugin_name", cannot_run(name)));
    }
    gatewright_plugins::validate_metadata(name, &Value::Object(settings.clone())).into_result()
}

fn check(plugins: &Plugins, at: &str, violations: &mut Violations, validate: fn(&str, &Value) -> Violations) {
    for (name, config) in plugins {
        let at = format!("{at}/{name}");
        if gatewright_plugins::is_known(name) {
            violations.absorb(&at, validate(name, config));
        } else {
            violations.add(at, cannot_run(name));
        }
    }
}

/// Refuses plugins that mean nothing to a stream, and what of the others' configurations does.
pub(super) fn stream_plugins_check(plugins: &Plugins, at: &str, violations: &mut Violations) {
    for (name, config) in plugins {
        violations.absorb(&format!("{at}/{name}"), gatewright_plugins::streams::check(name, config, None));
    }
}

fn cannot_run(name: &str) -> String {
    format!("plugin `{name}` cannot be run by this release; remove it")
}
