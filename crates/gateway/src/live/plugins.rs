//! The plugins of a configuration, built: global rules, consumers, protos, and the layers of services and routes.
//!
//! What did not change is taken over with its state: an instance of a plugin by its configuration, a consumer or
//! credential by its object. What does not build is never skipped: a service keeps its last good form, a consumer's
//! requests are refused, and without a single good form of the global rules no request is served.

use std::collections::BTreeMap;
use std::sync::Arc;

use gatewright_model::id::RouteId;
use gatewright_model::resource::Plugins;
use gatewright_model::resource::consumer::Consumer;
use gatewright_model::resource::group_object::{GroupObject, ObjectContent, ObjectKey, ObjectKind};
use gatewright_model::resource::upstream as resource;
use gatewright_model::snapshot::{Objects, PublishedService};
use gatewright_model::validation::Violations;
use gatewright_plugins::chain::{Before, Ground, Layer};
use gatewright_plugins::consumers::Consumers;
use gatewright_plugins::protos::{self, Proto, Protos};
use gatewright_plugins::shared::Shared;
use imbl::ordmap::DiffItem;
use serde_json::{Map, Value};

use super::upstreams::LiveUpstream;
use crate::proxy::reject::RejectReason;
use crate::upstream::Background;

/// What the plugins of a group share, and what runs for all its requests.
pub(crate) struct GroupPlugins {
    /// The global rules, or why no request can be served.
    pub(crate) global: Result<Layer, RejectReason>,
    pub(crate) consumers: Consumers,
    global_plugins: Plugins,
    global_layer: Layer,
    metadata: BTreeMap<String, Map<String, Value>>,
    protos: Protos,
    /// The upstreams written into global rules and plugins of consumers.
    inline: Vec<(Arc<resource::Upstream>, LiveUpstream)>,
    /// What all this was compiled from.
    objects: Objects,
    /// What of that does not compile, and why.
    refused: Vec<(ObjectKey, Violations)>,
    pub(super) shared: Arc<Shared>,
}

impl Default for GroupPlugins {
    fn default() -> Self {
        Self {
            global: Ok(Layer::default()),
            consumers: Consumers::default(),
            global_plugins: Plugins::default(),
            global_layer: Layer::default(),
            metadata: BTreeMap::new(),
            protos: Protos::default(),
            inline: Vec::new(),
            objects: Objects::new(),
            refused: Vec::new(),
            shared: Arc::default(),
        }
    }
}

/// What compiling the plugins of a group came to.
pub(super) struct Compiled {
    pub(super) plugins: Arc<GroupPlugins>,
    /// Plugins whose metadata or protos changed: services that use them are compiled again.
    pub(super) changed: Vec<String>,
}

impl GroupPlugins {
    /// Compiles the objects of a group, starting from what is live now.
    pub(super) fn compile(before: &Arc<Self>, objects: &Objects, background: &Background) -> Compiled {
        let differences: Vec<Difference<'_>> =
            before.objects.diff(objects).map(Difference::of).filter(Difference::is_about_plugins).collect();
        if differences.is_empty() {
            return Compiled { plugins: Arc::clone(before), changed: Vec::new() };
        }
        let is_about = |kind| differences.iter().any(|difference| difference.key.kind == kind);
        let metadata = match is_about(ObjectKind::PluginMetadata) {
            true => metadata(objects),
            false => before.metadata.clone(),
        };
        // One that was refused may compile with other metadata.
        let is_about_rules = is_about(ObjectKind::GlobalRule) || is_about(ObjectKind::PluginMetadata);
        let global_plugins = match is_about_rules {
            true => global_plugins(objects),
            false => before.global_plugins.clone(),
        };
        let mut changed = changed(&before.metadata, &metadata);
        if is_about(ObjectKind::Proto) {
            changed.extend(protos::READERS.iter().map(|name| (*name).to_owned()));
        }
        let mut plugins = Self {
            global: Ok(Layer::default()),
            consumers: before.consumers.clone(),
            global_plugins,
            global_layer: Layer::default(),
            metadata,
            protos: before.protos.clone(),
            inline: Vec::new(),
            objects: objects.clone(),
            refused: Vec::new(),
            shared: Arc::clone(&before.shared),
        };
        let is_still_so = |(key, _): &&(ObjectKey, Violations)| match key.kind {
            ObjectKind::GlobalRule => !is_about_rules,
            _ => !differences.iter().any(|difference| difference.key == key),
        };
        let mut refused: Vec<_> = before.refused.iter().filter(is_still_so).cloned().collect();
        plugins.compile_protos(&differences, &mut refused);
        plugins.compile_consumers(before, &differences, (&changed, background), &mut refused);
        plugins.compile_global(before, (&changed, background), &mut refused);
        plugins.compile_upstreams(before, background);
        plugins.refused = refused;
        Compiled { plugins: Arc::new(plugins), changed }
    }

    /// What does not compile, and why.
    pub(super) fn refused(&self) -> &[(ObjectKey, Violations)] {
        &self.refused
    }

    fn compile_protos(&mut self, differences: &[Difference<'_>], refused: &mut Vec<(ObjectKey, Violations)>) {
        for Difference { key, new, .. } in differences {
            match new.map(|new| &new.content) {
                Some(ObjectContent::Proto(proto)) => match Proto::compile(&proto.content) {
                    Ok(compiled) => self.protos.set(key.id.as_str(), compiled),
                    // The control plane refuses such a one; what was there before stays.
                    Err(reason) => refused.push(((*key).clone(), Violations::one("/content", reason))),
                },
                None if key.kind == ObjectKind::Proto => self.protos.remove(key.id.as_str()),
                _ => {}
            }
        }
    }

    fn compile_upstreams(&mut self, before: &Self, background: &Background) {
        let layers = self.consumers.layers().chain(std::iter::once(&self.global_layer));
        let compiled = upstreams_in(layers).into_iter().map(|written| {
            let same = before.inline.iter().find(|(known, _)| *known == written);
            let compile = || LiveUpstream::alone(&written, background);
            let live = same.map_or_else(compile, |(_, known)| known.clone());
            (written, live)
        });
        self.inline = compiled.collect();
    }

    /// An upstream that is written into a global rule or a plugin of a consumer.
    pub(crate) fn inline(&self, written: &Arc<resource::Upstream>) -> Option<&LiveUpstream> {
        self.inline.iter().find(|(known, _)| Arc::ptr_eq(known, written)).map(|(_, live)| live)
    }

    /// Builds the instances of `plugins`, taking over those of `before`.
    fn build(
        &self,
        (plugins, owner): (&Plugins, &str),
        before: Option<(&Plugins, &Layer)>,
        changed: &[String],
        background: &Background,
    ) -> Result<Layer, Violations> {
        let metadata = |name: &str| self.metadata.get(name);
        let outbound = &background.outbound;
        let ground =
            Ground { shared: &self.shared, outbound, metadata: &metadata, protos: &self.protos, owner };
        let changed: Vec<&str> = changed.iter().map(String::as_str).collect();
        Layer::build(
            plugins,
            ground,
            before.map(|(plugins, layer)| Before { plugins, layer, changed: &changed }),
        )
    }

    fn compile_global(
        &mut self,
        before: &Self,
        (changed, background): (&[String], &Background),
        refused: &mut Vec<(ObjectKey, Violations)>,
    ) {
        match self.build(
            (&self.global_plugins, "global"),
            Some((&before.global_plugins, &before.global_layer)),
            changed,
            background,
        ) {
            Ok(layer) => {
                self.global = Ok(layer.enabled());
                self.global_layer = layer;
            }
            Err(violations) => {
                let is_global = |(key, _): &(&ObjectKey, _)| key.kind == ObjectKind::GlobalRule;
                let names = self.objects.iter().filter(is_global).map(|(key, _)| key);
                let is_wrong = |key: &&ObjectKey| {
                    violations.iter().any(|wrong| wrong.path.split('/').nth(1) == Some(key.id.as_str()))
                };
                refused.extend(names.filter(is_wrong).map(|key| (key.clone(), violations.clone())));
                // The last good form keeps serving; where there is none, nothing is.
                let had_some = !before.global_plugins.is_empty();
                self.global = match &before.global {
                    Ok(layer) if had_some => Ok(layer.clone()),
                    _ => Err(RejectReason::PluginUnbuilt),
                };
                self.global_plugins.clone_from(&before.global_plugins);
                self.global_layer = before.global_layer.clone();
            }
        }
    }

    /// Takes over all consumers and credentials but those that differ, whose number is what this costs.
    fn compile_consumers(
        &mut self,
        before: &Self,
        differences: &[Difference<'_>],
        (changed, background): (&[String], &Background),
        refused: &mut Vec<(ObjectKey, Violations)>,
    ) {
        for object in differences.iter().filter_map(|difference| difference.old) {
            match &object.content {
                ObjectContent::Consumer(consumer) => self.consumers.remove_consumer(consumer),
                ObjectContent::Credential { consumer, credential } => {
                    self.consumers.remove_credential(consumer.as_str(), object.id.as_str(), credential);
                }
                _ => {}
            }
        }
        for Difference { key, old, new } in differences {
            let Some(new) = new else { continue };
            match &new.content {
                ObjectContent::Consumer(consumer) => {
                    self.compile_consumer(before, (key, consumer, *old), (changed, background), refused);
                }
                ObjectContent::Credential { consumer, credential } => {
                    self.consumers.add_credential(consumer.as_str(), new.id.as_str(), credential);
                }
                _ => {}
            }
        }
        if changed.is_empty() {
            return;
        }
        // Other metadata concerns consumers that are the same.
        let objects = self.objects.clone();
        for (key, object) in &objects {
            let ObjectContent::Consumer(consumer) = &object.content else { continue };
            let is_done = differences.iter().any(|difference| difference.key == key);
            if !is_done && changed.iter().any(|name| consumer.plugins.contains_key(name)) {
                self.compile_consumer(before, (key, consumer, Some(object)), (changed, background), refused);
            }
        }
    }

    fn compile_consumer(
        &mut self,
        before: &Self,
        (key, consumer, old): (&ObjectKey, &Consumer, Option<&Arc<GroupObject>>),
        (changed, background): (&[String], &Background),
        refused: &mut Vec<(ObjectKey, Violations)>,
    ) {
        let was = before.consumers.named(&consumer.username);
        let layer = was.and_then(|was| was.plugins.as_ref().ok());
        let written = old.and_then(|old| match &old.content {
            ObjectContent::Consumer(consumer) => Some(&*consumer.plugins),
            _ => None,
        });
        let owner = format!("consumer/{}", consumer.username);
        let plugins = (&*consumer.plugins, owner.as_str());
        let built = self.build(plugins, written.zip(layer), changed, background);
        refused.retain(|(known, _)| known != key);
        if let Err(violations) = &built {
            refused.push((key.clone(), violations.clone()));
        }
        self.consumers.add_consumer(consumer, built);
    }
}

/// An object that is not what it was.
struct Difference<'d> {
    key: &'d ObjectKey,
    old: Option<&'d Arc<GroupObject>>,
    new: Option<&'d Arc<GroupObject>>,
}

impl<'d> Difference<'d> {
    fn of(item: DiffItem<'d, 'd, ObjectKey, Arc<GroupObject>>) -> Self {
        match item {
            DiffItem::Add(key, new) => Self { key, old: None, new: Some(new) },
            DiffItem::Update { old: (_, old), new: (key, new) } => {
                Self { key, old: Some(old), new: Some(new) }
            }
            DiffItem::Remove(key, old) => Self { key, old: Some(old), new: None },
        }
    }

    fn is_about_plugins(&self) -> bool {
        matches!(
            self.key.kind,
            ObjectKind::Consumer
                | ObjectKind::Credential
                | ObjectKind::GlobalRule
                | ObjectKind::PluginMetadata
                | ObjectKind::Proto
        )
    }
}

/// Those of them that this gateway does not have.
pub(super) fn unknown(plugins: &Plugins) -> impl Iterator<Item = &str> {
    plugins.keys().map(String::as_str).filter(|name| !gatewright_plugins::is_known(name))
}

fn metadata(objects: &Objects) -> BTreeMap<String, Map<String, Value>> {
    let settings = |object: &Arc<GroupObject>| match &object.content {
        ObjectContent::PluginMetadata(metadata) => Some((object.id.to_string(), metadata.settings.clone())),
        _ => None,
    };
    objects.values().filter_map(settings).collect()
}

fn changed(
    before: &BTreeMap<String, Map<String, Value>>,
    after: &BTreeMap<String, Map<String, Value>>,
) -> Vec<String> {
    let differs = |name: &&String| before.get(*name) != after.get(*name);
    let mut changed: Vec<String> = before.keys().chain(after.keys()).filter(differs).cloned().collect();
    changed.dedup();
    changed
}

fn global_plugins(objects: &Objects) -> Plugins {
    let rules = objects.values().filter_map(|object| match &object.content {
        ObjectContent::GlobalRule(rule) => Some(rule.plugins.clone()),
        _ => None,
    });
    rules.flatten().collect()
}

/// What a route or a stream route configures.
struct OfRoute<'p> {
    noun: &'static str,
    id: &'p RouteId,
    plugins: &'p Plugins,
}

/// The routes of a service, of which it has only those of its kind.
fn routes_of(published: &PublishedService) -> impl Iterator<Item = OfRoute<'_>> {
    let routes = published.routes.iter();
    let routes =
        routes.map(|route| OfRoute { noun: "route", id: &route.route_id, plugins: &route.route.plugins });
    let streams = published.stream_routes.iter();
    routes.chain(streams.map(|route| OfRoute {
        noun: "stream_route",
        id: &route.route_id,
        plugins: &route.route.plugins,
    }))
}

/// The plugins of a service and its routes, built.
#[derive(Default)]
pub(crate) struct ServicePlugins {
    layer: Layer,
    /// What routes or stream routes configure themselves, in the order of the published ones; none: nothing.
    own: Vec<Option<Layer>>,
    /// What requests to each route, or streams of each stream route, run through.
    pub(crate) chains: Vec<Arc<Layer>>,
}

impl ServicePlugins {
    /// Compiles the plugins of `published`.
    ///
    /// # Errors
    /// Everything wrong with their configurations, each with its JSON path in the published service.
    pub(super) fn compile(
        published: &PublishedService,
        known: Option<(&PublishedService, &Self)>,
        group: &GroupPlugins,
        changed: &[String],
        background: &Background,
    ) -> Result<Self, Violations> {
        let mut violations = Violations::default();
        let mut build = |plugins: (&Plugins, &str), before: Option<(&Plugins, &Layer)>, at: &str| {
            // Routes that need what this gateway lacks are refused as such; there is nothing to build for them.
            if unknown(plugins.0).next().is_some() {
                return Layer::default();
            }
            let built = group.build(plugins, before, changed, background);
            built.map_err(|wrong| violations.absorb(at, wrong)).unwrap_or_default()
        };
        let before = known.map(|(service, compiled)| (&service.plugins, &compiled.layer));
        let owner = format!("service/{}", published.service_id);
        let layer = build((&published.plugins, &owner), before, "/plugins");
        let shared = Arc::new(layer.enabled());
        let (mut own, mut chains) = (Vec::new(), Vec::new());
        for (index, OfRoute { noun, id, plugins }) in routes_of(published).enumerate() {
            if plugins.is_empty() {
                own.push(None);
                chains.push(Arc::clone(&shared));
                continue;
            }
            let before = known.and_then(|(service, compiled)| {
                let (place, before) =
                    routes_of(service).enumerate().find(|(_, candidate)| candidate.id == id)?;
                Some((before.plugins, compiled.own.get(place)?.as_ref()?))
            });
            let owner = format!("{noun}/{id}");
            let built = build((plugins, &owner), before, &format!("/{noun}s/{index}/plugins"));
            chains.push(Arc::new(layer.under(&built).enabled()));
            own.push(Some(built));
        }
        violations.into_result()?;
        Ok(Self { layer, own, chains })
    }

    /// What stands in for plugins that could not be built: no route that needs one is served.
    pub(super) fn unbuilt(published: &PublishedService) -> Self {
        Self { chains: routes_of(published).map(|_| Arc::default()).collect(), ..Self::default() }
    }

    /// The upstreams that are written into them.
    pub(super) fn upstreams(&self) -> Vec<Arc<resource::Upstream>> {
        upstreams_in(std::iter::once(&self.layer).chain(self.own.iter().flatten()))
    }
}

fn upstreams_in<'l>(layers: impl Iterator<Item = &'l Layer>) -> Vec<Arc<resource::Upstream>> {
    layers.flat_map(Layer::iter).flat_map(|instance| instance.plugin().upstreams()).collect()
}
