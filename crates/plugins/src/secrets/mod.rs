//! Secrets: references to values that are kept elsewhere, and where they lead.
//!
//! `$secret://manager/id/path/key` leads to a secret provider of the gateway group, `$env://NAME` and
//! `$env://NAME/key` to the environment of the gateway. A reference is the whole of a string. The control plane
//! never resolves one: it checks what stands around it. Gateways resolve them before anything is compiled, so
//! plugins see values only, and a reference that could not be resolved builds nothing and matches nobody.

mod aws;
mod gcp;
mod vault;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use gatewright_model::validation::Violations;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::outbound::{Outbound, Response, Waiting};

const SECRET: &str = "$secret://";
const ENV: &str = "$env://";

/// How long a provider may take for one answer.
const TIMEOUT: Duration = Duration::from_secs(3);

/// What a reference says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reference {
    /// A variable of the gateway's environment.
    Env {
        /// Its name.
        name: String,
        /// The member of the JSON document it holds, if only that is meant.
        key: Option<String>,
    },
    /// A secret of a provider.
    Secret {
        /// The provider: `manager.id`, as it is known in its group.
        provider: String,
        /// What follows; what it means is the provider's business.
        path: String,
    },
}

/// Whether `text` is a reference, good or bad.
#[must_use]
pub fn is_reference(text: &str) -> bool {
    [SECRET, ENV].iter().any(|scheme| after(text, scheme).is_some())
}

fn after<'t>(text: &'t str, scheme: &str) -> Option<&'t str> {
    let (start, rest) = text.split_at_checked(scheme.len())?;
    start.eq_ignore_ascii_case(scheme).then_some(rest)
}

impl Reference {
    /// Reads a reference.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Some(rest) = after(text, ENV) {
            let (name, key) = rest.split_once('/').map_or((rest, None), |(name, key)| (name, Some(key)));
            if name.is_empty() || key == Some("") {
                return Err(format!("`{text}` must be like `$env://NAME` or `$env://NAME/key`"));
            }
            return Ok(Self::Env { name: name.to_owned(), key: key.map(str::to_owned) });
        }
        let rest = after(text, SECRET).unwrap_or_default();
        let mut parts = rest.splitn(3, '/');
        let parts = (parts.next(), parts.next(), parts.next());
        match parts {
            (Some(manager), Some(id), Some(path)) if ![manager, id, path].contains(&"") => {
                Ok(Self::Secret { provider: format!("{manager}.{id}"), path: path.to_owned() })
            }
            _ => Err(format!("`{text}` must be like `$secret://manager/id/path/key`")),
        }
    }
}

/// Adds the references in `value` to `found`.
pub fn collect(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::String(text) if is_reference(text) => {
            found.insert(text.clone());
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, found)),
        Value::Object(members) => members.values().for_each(|member| collect(member, found)),
        _ => {}
    }
}

/// Puts what `value_of` knows in the place of references; others stay.
pub fn replace(value: &mut Value, value_of: &dyn Fn(&str) -> Option<Arc<str>>) {
    match value {
        Value::String(text) if is_reference(text) => {
            if let Some(found) = value_of(text) {
                *text = found.as_ref().to_owned();
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| replace(item, value_of)),
        Value::Object(members) => members.values_mut().for_each(|member| replace(member, value_of)),
        _ => {}
    }
}

/// The references in `config`, as what keeps it from being used.
pub(crate) fn unresolved(config: &Value) -> Violations {
    let (mut found, mut violations) = (BTreeSet::new(), Violations::default());
    collect(config, &mut found);
    for reference in found {
        violations.add("", format!("secret `{reference}` is not resolved"));
    }
    violations
}

/// What is wrong in a configuration although its references may stand for anything: `found` by its schema, and
/// references that lead nowhere.
pub(crate) fn around_references(config: &Value, found: &Violations) -> Violations {
    let mut violations = Violations::default();
    let is_open = |path: &str| config.pointer(path).and_then(Value::as_str).is_some_and(is_reference);
    for wrong in found.iter().filter(|wrong| !is_open(&wrong.path)) {
        violations.add(wrong.path.clone(), wrong.message.clone());
    }
    check(config, "", &mut violations);
    violations
}

fn check(value: &Value, at: &str, violations: &mut Violations) {
    match value {
        Value::String(text) if is_reference(text) => {
            if let Err(wrong) = Reference::parse(text) {
                violations.add(at, wrong);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                check(item, &format!("{at}/{index}"), violations);
            }
        }
        Value::Object(members) => {
            for (name, member) in members {
                check(member, &format!("{at}/{name}"), violations);
            }
        }
        _ => {}
    }
}

/// Whether there is a reference in `config`.
pub(crate) fn are_in(config: &Value) -> bool {
    match config {
        Value::String(text) => is_reference(text),
        Value::Array(items) => items.iter().any(are_in),
        Value::Object(members) => members.values().any(are_in),
        _ => false,
    }
}

/// A system that keeps secrets.
pub trait Provider: Send + Sync {
    /// The secret at `path`, at `now` since 1970.
    fn read(&self, path: &str, now: Duration) -> Waiting<Result<String, String>>;
}

/// The provider called `manager.id`, with these settings.
///
/// # Errors
/// Why it cannot be asked.
pub fn open(
    provider: &str,
    settings: &Map<String, Value>,
    outbound: &Arc<dyn Outbound>,
) -> Result<Arc<dyn Provider>, String> {
    let manager = provider.split('.').next().unwrap_or_default();
    let outbound = Arc::clone(outbound);
    match manager {
        "vault" => Ok(Arc::new(vault::Vault::new(settings_of(settings)?, outbound))),
        "aws" => Ok(Arc::new(aws::SecretsManager::new(settings_of(settings)?, outbound))),
        "gcp" => Ok(Arc::new(gcp::SecretManager::new(settings_of(settings)?, outbound)?)),
        other => Err(format!("secret providers of type `{other}` cannot be asked by this release")),
    }
}

fn settings_of<T: DeserializeOwned>(settings: &Map<String, Value>) -> Result<T, String> {
    let settings = serde_json::from_value(Value::Object(settings.clone()));
    settings.map_err(|error| format!("the settings of the secret provider cannot be used: {error}"))
}

/// The member `key` of the JSON document `text`, or all of `text`.
///
/// # Errors
/// When it is not there.
pub fn member(text: &str, key: Option<&str>) -> Result<String, String> {
    let Some(key) = key else { return Ok(text.to_owned()) };
    let document: Value =
        serde_json::from_str(text).map_err(|_| "the secret is no JSON document".to_owned())?;
    text_of(document.get(key)).ok_or_else(|| format!("the secret has no member `{key}`"))
}

fn text_of(value: Option<&Value>) -> Option<String> {
    match value? {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

/// The JSON document of a good answer; of a bad one its status, never its body, which might repeat a secret.
fn document(who: &str, answer: &Response) -> Result<Value, String> {
    if !answer.is_success() {
        return Err(format!("{who} answered {}", answer.status));
    }
    serde_json::from_slice(&answer.body).map_err(|_| format!("{who} answered something that is not JSON"))
}

#[cfg(test)]
mod tests;
