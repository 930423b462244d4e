//! All a group's gateways need, immutable and serialisable.
//!
//! The unit is the published service: it is what changes, what travels and what is compiled. Two snapshots share
//! the services that did not change between them (`Arc`), so that "did not change" is a pointer comparison.

use std::collections::BTreeMap;
use std::mem;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::digest::ContentDigest;
use crate::id::{ObjectId, ServiceId, ServiceVersionId};
use crate::lifecycle::{RouteVersion, RuntimeConfiguration, ServiceVersion, Status};
use crate::matching::MatchSettings;
use crate::protocol::{Epoch, Update};
use crate::resource::Plugins;
use crate::resource::group_object::{GroupObject, ObjectKey};
use crate::resource::service::ServiceKind;
use crate::resource::stream_route::StreamRoute;
use crate::resource::upstream::Upstream;
use crate::rollout::Canary;
use crate::stream::claim::{Carrier, Claim};

/// The rising number of a gateway group's intent; every change of what the group's gateways serve raises it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Revision(pub u64);

impl std::fmt::Display for Revision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// A service as it is active in one gateway group: a version, or what was written straight to the group, plus that
/// group's runtime configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PublishedService {
    /// The service.
    pub service_id: ServiceId,
    /// The version that is active; none: a service without a version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_version_id: Option<ServiceVersionId>,
    /// The number of that version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Name of the service.
    pub name: String,
    /// HTTP or stream.
    #[serde(rename = "type")]
    pub kind: ServiceKind,
    /// Plugins of all routes.
    #[serde(default, skip_serializing_if = "Plugins::is_empty")]
    pub plugins: Plugins,
    /// The routes.
    pub routes: Vec<RouteVersion>,
    /// The stream routes, of a service at layer 4.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stream_routes: Vec<RouteVersion<StreamRoute>>,
    /// Upstreams beside the default one, for plugins that choose among them; what names one that is not here means
    /// the default one.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub upstreams: BTreeMap<ObjectId, Upstream>,
    /// A version that serves a share of the requests beside this one, under the same runtime configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<Box<Canary>>,
    /// The number of the version that was active before, while this one is compared with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compared_with: Option<String>,
    /// What the group may change.
    #[serde(flatten)]
    pub runtime: RuntimeConfiguration,
}

impl PublishedService {
    /// The published service that results when `version` is active under `runtime`.
    #[must_use]
    pub fn new(version: ServiceVersion, runtime: RuntimeConfiguration) -> Self {
        Self {
            service_id: version.service_id,
            service_version_id: Some(version.id),
            version: Some(version.version),
            name: version.name,
            kind: version.kind,
            plugins: version.plugins.into_inner(),
            routes: version.routes,
            stream_routes: version.stream_routes,
            upstreams: BTreeMap::new(),
            canary: None,
            compared_with: None,
            runtime,
        }
    }

    /// The candidate of its canary, as the published service that it is for the requests it gets.
    #[must_use]
    pub fn candidate(&self) -> Option<Self> {
        let canary = self.canary.as_deref()?;
        Some(Self {
            service_id: self.service_id.clone(),
            service_version_id: Some(canary.service_version_id.clone()),
            version: Some(canary.version.clone()),
            name: canary.name.clone(),
            kind: canary.kind,
            plugins: canary.plugins.clone(),
            routes: canary.routes.clone(),
            // A service at layer 4 has no canary.
            stream_routes: Vec::new(),
            upstreams: self.upstreams.clone(),
            canary: None,
            compared_with: None,
            runtime: self.runtime.clone(),
        })
    }

    /// The plugins of the service and of each route, and those of a candidate.
    pub fn each_plugins(&self) -> impl Iterator<Item = &Plugins> {
        let candidate = self.canary.iter().flat_map(|canary| {
            std::iter::once(&canary.plugins).chain(canary.routes.iter().map(|route| &*route.route.plugins))
        });
        let own = self.routes.iter().map(|route| &*route.route.plugins);
        let streams = self.stream_routes.iter().map(|route| &*route.route.plugins);
        std::iter::once(&self.plugins).chain(own).chain(streams).chain(candidate)
    }

    /// The same, to be changed.
    pub fn each_plugins_mut(&mut self) -> impl Iterator<Item = &mut Plugins> {
        let candidate = self.canary.iter_mut().flat_map(|canary| {
            let routes = canary.routes.iter_mut().map(|route| &mut *route.route.plugins);
            std::iter::once(&mut canary.plugins).chain(routes)
        });
        let own = self.routes.iter_mut().map(|route| &mut *route.route.plugins);
        let streams = self.stream_routes.iter_mut().map(|route| &mut *route.route.plugins);
        std::iter::once(&mut self.plugins).chain(own).chain(streams).chain(candidate)
    }

    /// What its stream routes claim, in their order; a matcher that cannot be understood claims nothing, as it was
    /// refused when it was written.
    pub fn claims(&self) -> impl Iterator<Item = (&RouteVersion<StreamRoute>, Claim)> {
        let takes_streams = self.kind == ServiceKind::Stream && self.runtime.status == Status::Enabled;
        let carrier = Carrier::of(self.runtime.upstream.scheme).filter(|_| takes_streams);
        self.stream_routes
            .iter()
            .filter_map(move |route| Some((route, Claim::of(&route.route, carrier?).ok()?)))
    }

    /// The numbers of the versions whose requests somebody compares; none: nobody does.
    pub fn compared_versions(&self) -> impl Iterator<Item = &str> {
        let other = self.canary.as_deref().map(|canary| &canary.version).or(self.compared_with.as_ref());
        let own = self.version.as_ref().filter(|_| other.is_some());
        own.into_iter().chain(other).map(String::as_str)
    }

    /// The same without spare room in its lists. Parsing leaves a third of a published service's memory unused, and
    /// a gateway keeps it for as long as the service is published.
    #[must_use]
    pub fn shrink(mut self) -> Self {
        for version in &mut self.routes {
            version.route.paths.shrink_to_fit();
            version.route.methods.shrink_to_fit();
        }
        self.routes.shrink_to_fit();
        self.stream_routes.shrink_to_fit();
        if let Some(canary) = &mut self.canary {
            canary.routes.shrink_to_fit();
        }
        self
    }
}

/// Everything active in one gateway group at one revision.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// The epoch the revision is counted in.
    pub epoch: Option<Epoch>,
    /// The revision this is the content of.
    pub revision: Revision,
    /// How requests are matched.
    pub settings: MatchSettings,
    /// The published services by id.
    pub services: BTreeMap<ServiceId, Arc<PublishedService>>,
    /// What the group has beside services.
    pub objects: Objects,
}

/// What a group has beside services, by key. A persistent map: there may be a million credentials, and a snapshot
/// that adds one shares the rest with the one before, so that what differs is found without looking at the rest.
pub type Objects = imbl::OrdMap<ObjectKey, Arc<GroupObject>>;

impl Snapshot {
    /// The snapshot after `update`. What the update does not mention is shared with `self`.
    #[must_use]
    pub fn apply(&self, update: Update) -> Self {
        let mut after = self.clone();
        after.absorb(update);
        after
    }

    /// Becomes the snapshot after `update`; costs as much as the update says, not as much as there is.
    pub fn absorb(&mut self, update: Update) {
        // What is equal stays the same object even if everything is said again.
        let forgotten = update.full.then(|| (mem::take(&mut self.services), mem::take(&mut self.objects)));
        let (known_services, known_objects) = forgotten.unwrap_or_default();
        for id in &update.removed {
            self.services.remove(id);
        }
        for service in update.services {
            let known = known_services.get(&service.service_id).or(self.services.get(&service.service_id));
            let unchanged = known.filter(|known| ***known == service);
            let shared = unchanged.map_or_else(|| Arc::new(service.shrink()), Arc::clone);
            self.services.insert(shared.service_id.clone(), shared);
        }
        for key in &update.removed_objects {
            self.objects.remove(key);
        }
        for object in update.objects {
            let key = object.key();
            let unchanged =
                known_objects.get(&key).or(self.objects.get(&key)).filter(|known| ***known == object);
            let shared = unchanged.map_or_else(|| Arc::new(object), Arc::clone);
            self.objects.insert(key, shared);
        }
        self.epoch = update.epoch;
        self.revision = update.revision;
        self.settings = update.settings;
    }

    /// All of it, as an update for somebody who has nothing.
    #[must_use]
    pub fn to_message(&self, digest: ContentDigest) -> WholeMessage<'_> {
        WholeMessage::Update(WholeUpdate {
            epoch: self.epoch.as_ref(),
            revision: self.revision,
            full: true,
            digest,
            settings: self.settings,
            services: self.services.values().map(Arc::as_ref).collect(),
            objects: self.objects.values().map(Arc::as_ref).collect(),
        })
    }
}

/// A full [`Message::Update`](crate::protocol::Message) that borrows what it says; it can only be written.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum WholeMessage<'a> {
    /// The update.
    Update(WholeUpdate<'a>),
}

/// What a [`WholeMessage`] says.
#[derive(Debug, Serialize)]
pub struct WholeUpdate<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    epoch: Option<&'a Epoch>,
    revision: Revision,
    full: bool,
    digest: ContentDigest,
    settings: MatchSettings,
    services: Vec<&'a PublishedService>,
    objects: Vec<&'a GroupObject>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(id: &str, version: &str) -> PublishedService {
        let json = serde_json::json!({
            "service_id": id, "service_version_id": format!("{id}-{version}"), "version": version, "name": id,
            "type": "http", "routes": [], "strip_path_prefix": true, "upstream": {}, "status": 1
        });
        serde_json::from_value(json).expect("a published service")
    }

    fn update(revision: u64, full: bool, services: Vec<PublishedService>, removed: &[&str]) -> Update {
        let removed = removed.iter().map(|id| id.parse().unwrap()).collect();
        let settings = MatchSettings::default();
        let (objects, removed_objects) = (Vec::new(), Vec::new());
        let (epoch, digest, revision) = (None, None, Revision(revision));
        Update { epoch, revision, full, digest, settings, services, removed, objects, removed_objects }
    }

    fn contents(snapshot: &Snapshot) -> Vec<(&str, &str)> {
        snapshot
            .services
            .iter()
            .map(|(id, service)| (id.as_str(), service.version.as_deref().unwrap()))
            .collect()
    }

    #[test]
    fn a_change_replaces_adds_and_removes_and_shares_the_rest() {
        let first = vec![service("a", "1"), service("b", "1"), service("c", "1")];
        let before = Snapshot::default().apply(update(1, true, first, &[]));
        let after = before.apply(update(2, false, vec![service("b", "2"), service("d", "1")], &["c"]));
        assert_eq!(after.revision, Revision(2));
        assert_eq!(contents(&after), [("a", "1"), ("b", "2"), ("d", "1")]);
        let a = "a".parse().unwrap();
        assert!(Arc::ptr_eq(&before.services[&a], &after.services[&a]));
    }

    #[test]
    fn a_full_update_forgets_what_it_does_not_mention_but_shares_what_is_equal() {
        let before =
            Snapshot::default().apply(update(1, true, vec![service("a", "1"), service("b", "1")], &[]));
        let after = before.apply(update(7, true, vec![service("b", "1")], &[]));
        assert_eq!(contents(&after), [("b", "1")]);
        let b = "b".parse().unwrap();
        assert!(Arc::ptr_eq(&before.services[&b], &after.services[&b]));
    }

    fn rule(plugin: &str, labels: serde_json::Value) -> GroupObject {
        let content = serde_json::json!({ "labels": labels, "plugins": { plugin: {} } });
        serde_json::from_value(serde_json::json!({ "id": plugin, "kind": "global_rule", "content": content }))
            .expect("a global rule")
    }

    #[test]
    fn objects_are_replaced_removed_and_shared_like_services() {
        let objects = vec![rule("cors", serde_json::json!({})), rule("echo", serde_json::json!({}))];
        let before = Snapshot::default().apply(Update { objects, ..update(1, true, Vec::new(), &[]) });
        let (cors, echo) = (rule("cors", serde_json::json!({})), rule("echo", serde_json::json!({"a": "b"})));
        let changed =
            Update { objects: vec![cors.clone(), echo.clone()], ..update(2, false, Vec::new(), &[]) };
        let after = before.apply(changed);
        assert!(Arc::ptr_eq(&before.objects[&cors.key()], &after.objects[&cors.key()]));
        assert_eq!(*after.objects[&echo.key()], echo);
        let removed = Update { removed_objects: vec![cors.key()], ..update(3, false, Vec::new(), &[]) };
        let keys: Vec<_> = after.apply(removed).objects.keys().cloned().collect();
        assert_eq!(keys, [echo.key()]);
        let text = serde_json::to_string(&echo).unwrap();
        assert_eq!(serde_json::from_str::<GroupObject>(&text).unwrap(), echo);
    }

    #[test]
    fn a_whole_snapshot_survives_being_written_as_an_update() {
        let objects = vec![rule("cors", serde_json::json!({}))];
        let services = vec![service("a", "1"), service("b", "2")];
        let snapshot = Snapshot::default().apply(Update { objects, ..update(9, true, services, &[]) });
        let text = serde_json::to_string(&snapshot.to_message(ContentDigest::default())).unwrap();
        let crate::protocol::Message::Update(read) = serde_json::from_str(&text).unwrap() else {
            panic!("not an update: {text}")
        };
        assert!(read.full);
        assert_eq!(Snapshot::default().apply(read), snapshot);
    }

    #[test]
    fn a_published_service_survives_the_wire() {
        let service = service("a", "1");
        let text = serde_json::to_string(&service).unwrap();
        assert_eq!(serde_json::from_str::<PublishedService>(&text).unwrap(), service);
    }

    #[test]
    fn a_service_without_a_version_says_nothing_of_one_on_the_wire() {
        let service = PublishedService { service_version_id: None, version: None, ..service("a", "1") };
        let text = serde_json::to_string(&service).unwrap();
        assert!(!text.contains("version"), "{text}");
        assert_eq!(serde_json::from_str::<PublishedService>(&text).unwrap(), service);
    }
}
