//! What an upstream asks a service registry for.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::RegistryKind;
use crate::resource::upstream::Upstream;

/// What an upstream is looking for, and where.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Wanted {
    /// The kind of registry.
    pub kind: RegistryKind,
    /// The name of the service as it was written, which may begin with the id of a registry and `/`.
    pub name: String,
    /// Where Nacos looks for it.
    pub namespace: Option<String>,
    /// Where Nacos looks for it.
    pub group: Option<String>,
    /// What its nodes must have.
    pub metadata: Vec<(String, Vec<String>)>,
}

impl Wanted {
    /// What `upstream` is looking for; `None`: it has its own nodes, or asks for what nobody knows.
    #[must_use]
    pub fn of(upstream: &Upstream) -> Option<Self> {
        let kind = RegistryKind::named(upstream.discovery_type.as_deref()?)?;
        let args = &upstream.discovery_args;
        let text = |name: &str| args.get(name).and_then(Value::as_str).map(str::to_owned);
        let metadata = args.get("metadata").and_then(Value::as_object);
        Some(Self {
            kind,
            name: upstream.service_name.clone()?,
            namespace: text("namespace_id"),
            group: text("group_name"),
            metadata: metadata.map(pairs).unwrap_or_default(),
        })
    }

    /// The same, of an upstream as it was written; only the kind of registry and the name are read.
    #[must_use]
    pub fn written(members: &Map<String, Value>) -> Option<Self> {
        let text = |name: &str| members.get(name).and_then(Value::as_str);
        let kind = RegistryKind::named(text("discovery_type")?)?;
        let name = text("service_name")?.to_owned();
        Some(Self { kind, name, namespace: None, group: None, metadata: Vec::new() })
    }

    /// The id of the registry that the name begins with, if its form says that it does, and what of it is left for the
    /// registry.
    #[must_use]
    pub fn split(&self) -> (Option<&str>, &str) {
        let plain = match self.kind {
            RegistryKind::Kubernetes => 1,
            RegistryKind::Nacos => 2,
            RegistryKind::Consul | RegistryKind::Eureka | RegistryKind::Dns => 0,
        };
        let slashes = self.name.matches('/').count();
        let names_it = slashes == plain + 1 || (self.kind == RegistryKind::Nacos && slashes == 1);
        match self.name.split_once('/').filter(|_| names_it) {
            Some((id, rest)) => (Some(id), rest),
            None => (None, &self.name),
        }
    }
}

fn pairs(metadata: &Map<String, Value>) -> Vec<(String, Vec<String>)> {
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let values = |value: &Value| match value {
        Value::Array(values) => values.iter().map(text).collect(),
        other => vec![text(other)],
    };
    metadata.iter().map(|(name, value)| (name.clone(), values(value))).collect()
}
