//! The registries of a configuration, and which of them an upstream means.
//!
//! One that did not change stays the same object, so that nothing that is being followed there is touched.

use std::collections::BTreeMap;
use std::sync::Arc;

use gatewright_discovery::{Outside, Registry, Trouble, connect};
use gatewright_model::id::ObjectId;
use gatewright_model::resource::group_object::{GroupObject, ObjectContent, ObjectKey, ObjectKind};
use gatewright_model::resource::service_registry::{ServiceRegistry, Wanted};
use gatewright_model::snapshot::Objects;
use gatewright_model::validation::Violations;
use serde_json::Value;

use crate::config::DeniedNetworks;
use crate::tls;

/// The registries of a gateway group.
#[derive(Default)]
pub(crate) struct Registries(BTreeMap<ObjectId, Connected>);

/// A registry that can be asked, or why not.
#[derive(Clone)]
pub(crate) struct Connected {
    object: Arc<GroupObject>,
    pub(crate) written: ServiceRegistry,
    pub(crate) registry: Result<Arc<dyn Registry>, Trouble>,
}

impl Registries {
    /// The registries among `objects`, starting from what there was before, and what cannot be asked.
    pub(crate) fn compile(
        before: &Arc<Self>,
        objects: &Objects,
        outside: &Outside,
    ) -> (Arc<Self>, Vec<(ObjectKey, Violations)>) {
        let registries = objects.values().filter_map(|object| match &object.content {
            ObjectContent::ServiceRegistry(registry) => Some((object, &**registry)),
            _ => None,
        });
        let mut is_same = true;
        let mut now = BTreeMap::new();
        for (object, written) in registries {
            let known = before
                .0
                .get(&object.id)
                .filter(|known| Arc::ptr_eq(&known.object, object) || *known.object == **object);
            is_same &= known.is_some();
            let registry = match known {
                Some(known) => known.registry.clone(),
                None => closed(written).and_then(|()| connect(written, outside)),
            };
            let connected = Connected { object: Arc::clone(object), written: written.clone(), registry };
            now.insert(object.id.clone(), connected);
        }
        let now = match is_same && now.len() == before.0.len() {
            true => Arc::clone(before),
            false => Arc::new(Self(now)),
        };
        let refused = now.0.iter().filter_map(|(id, connected)| {
            let trouble = connected.registry.as_ref().err()?;
            let key = ObjectKey { kind: ObjectKind::ServiceRegistry, consumer: None, id: id.clone() };
            Some((key, Violations::one("", trouble.to_string())))
        });
        let refused = refused.collect();
        (now, refused)
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&ObjectId, &Connected)> {
        self.0.iter()
    }

    pub(super) fn contains(&self, id: &ObjectId) -> bool {
        self.0.contains_key(id)
    }

    /// The registry that is meant: the one that is named, or else the only one of its type.
    pub(crate) fn find(&self, wanted: &Wanted) -> Result<Arc<dyn Registry>, Trouble> {
        let kind = wanted.kind;
        let of_kind = |connected: &&Connected| connected.written.kind == kind;
        if let (Some(id), _) = wanted.split() {
            let named = self.0.iter().find(|(known, _)| known.as_str() == id).map(|(_, connected)| connected);
            let lacking = || {
                Trouble::new(format!(
                    "the gateway group has no service registry `{id}` of type `{}`",
                    kind.name()
                ))
            };
            return named.filter(of_kind).ok_or_else(lacking)?.registry.clone();
        }
        let mut of_kind = self.0.values().filter(of_kind);
        match (of_kind.next(), of_kind.next()) {
            (Some(only), None) => only.registry.clone(),
            (None, _) => Err(Trouble::new(format!(
                "the gateway group has no service registry of type `{}`",
                kind.name()
            ))),
            (Some(_), Some(_)) => Err(Trouble::new(format!(
                "the gateway group has several service registries of type `{}`: put the id of one and `/` in front of service_name",
                kind.name()
            ))),
        }
    }
}

/// Nothing can be asked with a reference in place of a secret.
fn closed(written: &ServiceRegistry) -> Result<(), Trouble> {
    let mut found = std::collections::BTreeSet::new();
    gatewright_plugins::secrets::collect(&serde_json::to_value(written).unwrap_or(Value::Null), &mut found);
    match found.first() {
        Some(reference) => Err(Trouble::new(format!("secret `{reference}` is not resolved"))),
        None => Ok(()),
    }
}

/// The way outside for registries: what is denied to everybody else is denied to them, and they are believed by the same
/// authorities.
pub(crate) fn outside(denied: &DeniedNetworks, tls: &Arc<tls::Shared>) -> Outside {
    let tls = Arc::clone(tls);
    let tls = move |verify: bool| tls.nodes.client(verify).map_err(|error| error.to_string());
    Outside { allow: denied.allow(), tls: Arc::new(tls) }
}

#[cfg(test)]
impl Registries {
    /// One registry that is there already.
    pub(super) fn of_one(id: &str, written: ServiceRegistry, registry: Arc<dyn Registry>) -> Self {
        let id: ObjectId = id.parse().unwrap();
        let content = ObjectContent::ServiceRegistry(Box::new(written.clone()));
        let object = Arc::new(GroupObject { id: id.clone(), content });
        Self([(id, Connected { object, written, registry: Ok(registry) })].into_iter().collect())
    }
}
