//! References to secrets in a snapshot, resolved before anything is compiled.
//!
//! What is compiled is a copy of each service and object that holds references, with values in their place. The copy
//! stays the same object as long as source and values do, so what did not change is taken over like everything else.
//! A reference that is not resolved stays in the copy, where nothing can be built from it.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use gatewright_model::id::ServiceId;
use gatewright_model::resource::Plugins;
use gatewright_model::resource::group_object::{GroupObject, ObjectContent, ObjectKey, ObjectKind};
use gatewright_model::snapshot::{Objects, PublishedService, Snapshot};
use gatewright_model::validation::Violations;
use gatewright_plugins::secrets::{self as plugins, is_reference};
use imbl::ordmap::DiffItem;
use serde_json::{Map, Value};

use super::LiveConfig;
use super::compile::{Quarantined, What};
use crate::secrets::{Found, Secrets};

/// The services and objects that hold references, with what was compiled in their place.
#[derive(Default)]
pub(crate) struct Holders {
    services: BTreeMap<ServiceId, Holder<PublishedService>>,
    objects: BTreeMap<ObjectKey, Holder<GroupObject>>,
    /// What was looked at for references.
    seen: Objects,
}

struct Holder<T> {
    source: Arc<T>,
    references: BTreeSet<String>,
    values: Vec<Option<Arc<str>>>,
    resolved: Arc<T>,
}

/// A snapshot whose references are resolved, as far as they could be.
pub(super) struct Resolved<'s> {
    pub(super) snapshot: Cow<'s, Snapshot>,
    pub(super) holders: Arc<Holders>,
    /// What lacks a secret, and why.
    pub(super) lacking: Vec<Quarantined>,
}

/// Resolves the references in `snapshot`, starting from what is live now.
pub(super) fn resolve<'s>(before: &LiveConfig, snapshot: &'s Snapshot, secrets: &Secrets) -> Resolved<'s> {
    let mut services = Vec::new();
    for (id, source) in &snapshot.services {
        let references = match before.secrets.services.get(id) {
            Some(known) if Arc::ptr_eq(&known.source, source) => known.references.clone(),
            // Compiled as it stands, so there was nothing to resolve.
            _ if before.services.get(id).is_some_and(|live| Arc::ptr_eq(&live.published, source)) => continue,
            _ => service_references(source),
        };
        if !references.is_empty() {
            services.push((id, source, references));
        }
    }
    let objects = open_objects(&before.secrets, &snapshot.objects);
    let mut holders = Holders { seen: snapshot.objects.clone(), ..Holders::default() };
    if services.is_empty() && objects.is_empty() {
        return Resolved {
            snapshot: Cow::Borrowed(snapshot),
            holders: Arc::new(holders),
            lacking: Vec::new(),
        };
    }
    let wanted = services.iter().map(|(_, _, references)| references);
    let wanted = wanted.chain(objects.iter().map(|(_, _, references)| references));
    let found = secrets.look_up(&wanted.flatten().cloned().collect(), providers(snapshot));
    let mut lacking = Vec::new();
    let mut copy = snapshot.clone();
    let fill = |value: &mut Value| plugins::replace(value, &|text| found.get(text)?.clone().ok());
    for (id, source, references) in services {
        lacking.extend(lacks(&references, &found, || What::Service(id.clone())));
        let known = before.secrets.services.get(id);
        let holder = hold(source, references, known, &found, |service| match secrets.are_looked_up() {
            true => fill_service(service, &fill),
            false => drop_open(service),
        });
        copy.services.insert(id.clone(), Arc::clone(&holder.resolved));
        holders.services.insert(id.clone(), holder);
    }
    for (key, source, references) in objects {
        lacking.extend(lacks(&references, &found, || match key.kind {
            ObjectKind::Ssl => What::Ssl(key.id.clone()),
            _ => What::Object(key.clone()),
        }));
        let known = before.secrets.objects.get(key);
        let holder = hold(source, references, known, &found, |object| fill_object(object, &fill));
        match secrets.are_looked_up() {
            true => copy.objects.insert(key.clone(), Arc::clone(&holder.resolved)),
            // It is checked where its secrets are.
            false => copy.objects.remove(key),
        };
        holders.objects.insert(key.clone(), holder);
    }
    if !secrets.are_looked_up() {
        lacking.clear();
    }
    Resolved { snapshot: Cow::Owned(copy), holders: Arc::new(holders), lacking }
}

type Open<'o> = (&'o ObjectKey, &'o Arc<GroupObject>, BTreeSet<String>);

/// The objects that hold references; only those that are new are looked at.
fn open_objects<'o>(before: &Holders, objects: &'o Objects) -> Vec<Open<'o>> {
    let known = before.objects.iter().filter_map(|(key, holder)| {
        let (key, source) = objects.get_key_value(key)?;
        (holder.source == *source).then(|| (key, source, holder.references.clone()))
    });
    let new = before.seen.diff(objects).filter_map(|item| match item {
        DiffItem::Add(key, source) | DiffItem::Update { new: (key, source), .. } => {
            let references = object_references(source);
            (!references.is_empty()).then_some((key, source, references))
        }
        DiffItem::Remove(..) => None,
    });
    known.chain(new).collect()
}

fn hold<T: Clone>(
    source: &Arc<T>,
    references: BTreeSet<String>,
    known: Option<&Holder<T>>,
    found: &HashMap<String, Found>,
    fill: impl FnOnce(&mut T),
) -> Holder<T> {
    let value = |reference: &String| found.get(reference).and_then(|found| found.clone().ok());
    let values: Vec<_> = references.iter().map(value).collect();
    let same = known.filter(|known| Arc::ptr_eq(&known.source, source) && known.values == values);
    let resolved = same.map_or_else(
        || {
            let mut copy = T::clone(source);
            fill(&mut copy);
            Arc::new(copy)
        },
        |known| Arc::clone(&known.resolved),
    );
    Holder { source: Arc::clone(source), references, values, resolved }
}

fn lacks(
    references: &BTreeSet<String>,
    found: &HashMap<String, Found>,
    what: impl FnOnce() -> What,
) -> Option<Quarantined> {
    let mut reason = Violations::default();
    for reference in references {
        if let Some(Err(why)) = found.get(reference) {
            reason.add("", format!("secret `{reference}`: {why}"));
        }
    }
    (!reason.is_empty()).then(|| Quarantined { what: what(), reason, lacks_secret: true })
}

fn providers(snapshot: &Snapshot) -> BTreeMap<String, Map<String, Value>> {
    let settings = |object: &Arc<GroupObject>| match &object.content {
        ObjectContent::SecretProvider(provider) => Some((object.id.to_string(), provider.settings.clone())),
        _ => None,
    };
    snapshot.objects.values().filter_map(settings).collect()
}

fn in_plugins(plugins: &Plugins, found: &mut BTreeSet<String>) {
    plugins.values().for_each(|config| plugins::collect(config, found));
}

fn service_references(service: &PublishedService) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    service.each_plugins().for_each(|plugins| in_plugins(plugins, &mut found));
    found
}

fn object_references(object: &GroupObject) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    match &object.content {
        ObjectContent::Ssl(ssl) => {
            let texts = ssl.cert.iter().chain(&ssl.key).chain(&ssl.certs).chain(&ssl.keys);
            found.extend(texts.filter(|text| is_reference(text)).cloned());
        }
        ObjectContent::Consumer(consumer) => in_plugins(&consumer.plugins, &mut found),
        ObjectContent::Credential { credential, .. } => in_plugins(&credential.plugins, &mut found),
        ObjectContent::GlobalRule(rule) => in_plugins(&rule.plugins, &mut found),
        ObjectContent::PluginMetadata(metadata) => {
            metadata.settings.values().for_each(|value| plugins::collect(value, &mut found));
        }
        ObjectContent::ServiceRegistry(registry) => {
            plugins::collect(&serde_json::to_value(registry).unwrap_or(Value::Null), &mut found);
        }
        // Its settings are for reaching it, and may only refer to the environment.
        ObjectContent::SecretProvider(_) | ObjectContent::Proto(_) => {}
    }
    found
}

fn fill_service(service: &mut PublishedService, fill: &dyn Fn(&mut Value)) {
    service.each_plugins_mut().flat_map(|plugins| plugins.values_mut()).for_each(fill);
}

/// Leaves out what cannot be checked without its secrets.
fn drop_open(service: &mut PublishedService) {
    let is_closed = |config: &Value| {
        let mut found = BTreeSet::new();
        plugins::collect(config, &mut found);
        found.is_empty()
    };
    service.each_plugins_mut().for_each(|plugins| plugins.retain(|_, config| is_closed(config)));
}

fn fill_object(object: &mut GroupObject, fill: &dyn Fn(&mut Value)) {
    match &mut object.content {
        ObjectContent::Ssl(ssl) => {
            let texts =
                ssl.cert.iter_mut().chain(&mut ssl.key).chain(ssl.certs.iter_mut()).chain(&mut ssl.keys);
            for text in texts {
                let mut value = Value::String(std::mem::take(text));
                fill(&mut value);
                if let Value::String(filled) = value {
                    *text = filled;
                }
            }
        }
        ObjectContent::Consumer(consumer) => consumer.plugins.values_mut().for_each(fill),
        ObjectContent::Credential { credential, .. } => credential.plugins.values_mut().for_each(fill),
        ObjectContent::GlobalRule(rule) => rule.plugins.values_mut().for_each(fill),
        ObjectContent::PluginMetadata(metadata) => metadata.settings.values_mut().for_each(fill),
        ObjectContent::ServiceRegistry(registry) => {
            let mut written = serde_json::to_value(&*registry).unwrap_or(Value::Null);
            fill(&mut written);
            // Values are texts in place of texts, so it reads as it did.
            if let Ok(filled) = serde_json::from_value(written) {
                *registry = filled;
            }
        }
        ObjectContent::SecretProvider(_) | ObjectContent::Proto(_) => {}
    }
}
