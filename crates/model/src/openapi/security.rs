//! What a document demands of callers, as plugins that would see to it.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::notes::Notes;
use super::{Document, NoteKind, Suggestion};

/// What every operation demands, gathered operation by operation.
#[derive(Debug)]
pub(super) struct Demands<'d> {
    document: &'d Document,
    /// What the document demands where an operation says nothing.
    default: Option<&'d Value>,
    suggestions: Vec<Suggestion>,
    /// Places in `suggestions`, by what is suggested.
    places: BTreeMap<String, usize>,
    operations: usize,
}

/// A plugin that stands for a security scheme.
#[derive(Clone, Debug)]
struct Plugin {
    name: &'static str,
    config: Value,
    missing: Vec<String>,
    scheme: String,
}

impl<'d> Demands<'d> {
    pub(super) fn new(document: &'d Document) -> Self {
        let default = document.members().get("security");
        Self { document, default, suggestions: Vec::new(), places: BTreeMap::new(), operations: 0 }
    }

    /// Enters the operation that became route `route`.
    pub(super) fn enter(
        &mut self,
        operation: &'d Map<String, Value>,
        at: &str,
        route: &str,
        notes: &mut Notes,
    ) {
        self.operations += 1;
        let (demand, at) = match operation.get("security") {
            Some(own) => (Some(own), format!("{at}/security")),
            None => (self.default, "/security".to_owned()),
        };
        for mut suggestion in self.plugins(demand, &at, notes) {
            let key = format!("{} {}", suggestion.plugin, suggestion.config);
            let place = *self.places.entry(key).or_insert(self.suggestions.len());
            match self.suggestions.get_mut(place) {
                Some(known) => known.routes.push(route.to_owned()),
                None => {
                    suggestion.routes.push(route.to_owned());
                    self.suggestions.push(suggestion);
                }
            }
        }
    }

    /// The suggestions; one that every operation needs is for the service.
    pub(super) fn finish(mut self) -> Vec<Suggestion> {
        let operations = self.operations;
        for suggestion in self.suggestions.iter_mut().filter(|one| one.routes.len() == operations) {
            suggestion.routes.clear();
        }
        self.suggestions
    }

    /// The plugins that one list of alternatives needs.
    fn plugins(&self, demand: Option<&Value>, at: &str, notes: &mut Notes) -> Vec<Suggestion> {
        let mut alternatives = Vec::new();
        for alternative in demand.and_then(Value::as_array).into_iter().flatten() {
            let Some(schemes) = alternative.as_object() else { continue };
            if schemes.is_empty() {
                let message = "callers need not say who they are: give the plugin an `anonymous_consumer`";
                notes.add(NoteKind::Adapted, at, message);
                continue;
            }
            let plugins: Option<Vec<Plugin>> =
                schemes.iter().map(|(name, scopes)| self.plugin(name, scopes, notes)).collect();
            match plugins {
                Some(plugins) => alternatives.push(plugins),
                None => {
                    let message = "an alternative needs a security scheme that no plugin stands for";
                    notes.add(NoteKind::Skipped, at, message);
                }
            }
        }
        match alternatives.as_slice() {
            [] => Vec::new(),
            [all] => all.iter().map(suggestion).collect(),
            several => match several.iter().map(|all| <&[Plugin; 1]>::try_from(all.as_slice())).collect() {
                Ok(several) => vec![any_of(several)],
                Err(_) => {
                    let message = "alternatives of several schemes each cannot be said by plugins";
                    notes.add(NoteKind::Skipped, at, message);
                    Vec::new()
                }
            },
        }
    }

    /// The plugin that stands for the security scheme called `name`.
    fn plugin(&self, name: &str, scopes: &Value, notes: &mut Notes) -> Option<Plugin> {
        let at = format!("/components/securitySchemes/{}", super::escaped(name));
        let schemes =
            self.document.members().get("components").and_then(|parts| parts.get("securitySchemes"));
        let scheme = schemes.and_then(|schemes| schemes.get(name));
        let scheme = scheme.and_then(|scheme| self.document.resolve(scheme).ok());
        let Some(scheme) = scheme else {
            notes.add(NoteKind::Skipped, &at, format!("security scheme `{name}` is not in the document"));
            return None;
        };
        let plugin = stands_for(name, scheme, scopes);
        if let Err(reason) = &plugin {
            notes.add(NoteKind::Skipped, &at, format!("security scheme `{name}`: {reason}"));
        }
        plugin.ok()
    }
}

fn stands_for(name: &str, scheme: &Value, scopes: &Value) -> Result<Plugin, String> {
    let text = |member: &str| scheme.get(member).and_then(Value::as_str).unwrap_or_default();
    let plugin = |plugin, config, missing: &[&str]| Plugin {
        name: plugin,
        config,
        missing: missing.iter().map(|member| (*member).to_owned()).collect(),
        scheme: name.to_owned(),
    };
    match (text("type"), text("in"), text("scheme").to_ascii_lowercase().as_str()) {
        ("apiKey", "header", _) => Ok(plugin("key-auth", json!({ "header": text("name") }), &[])),
        ("apiKey", "query", _) => Ok(plugin("key-auth", json!({ "query": text("name") }), &[])),
        ("apiKey", place, _) => Err(format!("no plugin looks for keys in a {place}")),
        ("http", _, "basic") => Ok(plugin("basic-auth", json!({}), &[])),
        ("http", _, "bearer") => Ok(plugin("jwt-auth", json!({}), &[])),
        ("http", _, other) => Err(format!("no plugin stands for HTTP authentication `{other}`")),
        ("oauth2" | "openIdConnect", ..) => {
            let mut config = json!({ "bearer_only": true });
            let mut missing = vec!["client_id", "client_secret"];
            match text("openIdConnectUrl") {
                "" => missing.insert(0, "discovery"),
                url => config["discovery"] = url.into(),
            }
            if scopes.as_array().is_some_and(|scopes| !scopes.is_empty()) {
                config["required_scopes"] = scopes.clone();
            }
            Ok(plugin("openid-connect", config, &missing))
        }
        ("mutualTLS", ..) => {
            Err("client certificates are demanded by the SSL object of the server name".to_owned())
        }
        (other, ..) => Err(format!("its type `{other}` is unknown")),
    }
}

fn suggestion(plugin: &Plugin) -> Suggestion {
    Suggestion {
        plugin: plugin.name.to_owned(),
        config: plugin.config.clone(),
        missing: plugin.missing.clone(),
        routes: Vec::new(),
        schemes: vec![plugin.scheme.clone()],
    }
}

/// One plugin that tries several.
fn any_of(several: Vec<&[Plugin; 1]>) -> Suggestion {
    let plugins = several.iter().map(|[plugin]| json!({ plugin.name: plugin.config }));
    let missing = several
        .iter()
        .flat_map(|[plugin]| plugin.missing.iter().map(|member| format!("{}.{member}", plugin.name)));
    Suggestion {
        plugin: "multi-auth".to_owned(),
        config: json!({ "auth_plugins": plugins.collect::<Vec<_>>() }),
        missing: missing.collect(),
        routes: Vec::new(),
        schemes: several.iter().map(|[plugin]| plugin.scheme.clone()).collect(),
    }
}
