//! A snapshot into a live configuration.
//!
//! The unit is the published service: one that did not change is taken over as it is, with its upstreams'
//! counters, so publishing one service among many costs one service; only other match settings cost all of them.
//! A service that does not compile is quarantined: its last good form keeps serving, it is named with the reason,
//! and everything else moves on.

use std::fmt;
use std::sync::Arc;

use gatewright_model::id::{ObjectId, ServiceId};
use gatewright_model::lifecycle::Status;
use gatewright_model::protocol::COMPARED_VERSIONS_MAX;
use gatewright_model::resource::Plugins;
use gatewright_model::resource::group_object::{ObjectKey, ObjectKind};
use gatewright_model::resource::service::ServiceKind;
use gatewright_model::rollout::verdict::Counts;
use gatewright_model::snapshot::{Objects, PublishedService, Snapshot};
use gatewright_model::stream;
use gatewright_model::validation::Violations;
use gatewright_plugins::chain::Layer;

use super::plugins::{GroupPlugins, ServicePlugins, unknown};
use super::services::Numbers;
use super::upstreams::{self, ServiceUpstreams};
use super::{Compared, LiveConfig, LiveRoute, LiveService, LiveStreamRoute, secrets};
use crate::proxy::reject::RejectReason;
use crate::router::choice::{Arm, Choice, asks_for_consumers};
use crate::router::{MatchSettings, Router, ServiceRules};
use crate::stream::router::StreamRouter;
use crate::telemetry::metrics::Metrics;
use crate::tls::server_names::ServerNames;
use crate::upstream::Background;
use crate::upstream::discovered::registries::Registries;

/// What is not served as it was published, and why.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Quarantined {
    pub(crate) what: What,
    pub(crate) reason: Violations,
    /// Whether it is only a secret that is missing, which may come yet.
    pub(crate) lacks_secret: bool,
}

impl Quarantined {
    fn new(what: What, reason: Violations) -> Self {
        Self { what, reason, lacks_secret: false }
    }

    fn for_flaws(id: &ServiceId, service: &LiveService) -> Option<Self> {
        let flaws = &service.flaws;
        (!flaws.is_empty()).then(|| Self::new(What::Service(id.clone()), flaws.clone()))
    }
}

/// What may be quarantined.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum What {
    Service(ServiceId),
    Ssl(ObjectId),
    /// An object of the group that plugins are about.
    Object(ObjectKey),
}

impl What {
    pub(crate) fn id(&self) -> &str {
        match self {
            Self::Service(id) => id.as_str(),
            Self::Ssl(id) => id.as_str(),
            Self::Object(key) => key.id.as_str(),
        }
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service(id) => write!(f, "service `{id}`"),
            Self::Ssl(id) => write!(f, "SSL object `{id}`"),
            Self::Object(key) => {
                let kind = match key.kind {
                    ObjectKind::Ssl => "SSL object",
                    ObjectKind::Consumer => "consumer",
                    ObjectKind::Credential => "credential",
                    ObjectKind::GlobalRule => "global rule",
                    ObjectKind::PluginMetadata => "plugin metadata",
                    ObjectKind::Proto => "proto",
                    ObjectKind::SecretProvider => "secret provider",
                    ObjectKind::ServiceRegistry => "service registry",
                };
                write!(f, "{kind} `{}`", key.id)
            }
        }
    }
}

/// Compiles `snapshot`, starting from what is live now. Waits for secrets that nobody asked for before.
pub(crate) fn compile(
    before: &LiveConfig,
    snapshot: &Snapshot,
    background: &Background,
) -> (LiveConfig, Vec<Quarantined>) {
    let resolved = secrets::resolve(before, snapshot, &background.secrets);
    let (mut live, mut quarantined) = compile_resolved(before, &resolved.snapshot, background);
    live.secrets = resolved.holders;
    // Why a secret is missing says more than that it is.
    quarantined.retain(|one| !resolved.lacking.iter().any(|lacking| lacking.what == one.what));
    quarantined.extend(resolved.lacking);
    (live, quarantined)
}

fn compile_resolved(
    before: &LiveConfig,
    snapshot: &Snapshot,
    background: &Background,
) -> (LiveConfig, Vec<Quarantined>) {
    let mut live = before.clone();
    live.revision = Some(snapshot.revision);
    let settings = snapshot.settings;
    let rematched = settings != before.router.settings();
    if rematched {
        live.router = Router::new(settings);
    }
    // What stands in the router now: nothing, if it is a new one.
    let placed = |service: &Arc<LiveService>| service.rules.clone().filter(|_| !rematched);
    let (server_names, unusable) =
        ServerNames::compile(&before.server_names, &snapshot.objects, &background.tls);
    live.server_names = server_names;
    let group = GroupPlugins::compile(&before.plugins, &snapshot.objects, background);
    live.plugins = group.plugins;
    let (registries, unasked) =
        Registries::compile(&before.registries, &snapshot.objects, &background.registries);
    live.registries = registries;
    let unusable = unusable.into_iter();
    let mut quarantined: Vec<_> =
        unusable.map(|(id, reason)| Quarantined::new(What::Ssl(id), reason)).collect();
    let refused = live.plugins.refused().iter().cloned();
    let refused = refused.chain(unasked);
    quarantined.extend(refused.map(|(key, reason)| Quarantined::new(What::Object(key), reason)));
    for (id, _) in before.services.iter() {
        if !snapshot.services.contains_key(id) {
            before.services.versions(id).for_each(|known| live.router.replace(placed(known).as_ref(), None));
            live.services.remove(id);
        }
    }
    for (id, published) in &snapshot.services {
        let known: Vec<&Arc<LiveService>> = before.services.versions(id).collect();
        let shows_same = |known: &&Arc<LiveService>| {
            known.upstreams.show_certificates_of(&known.published, &snapshot.objects)
        };
        let is_same = known.first().is_some_and(|known| Arc::ptr_eq(&known.published, published))
            && !group.changed.iter().any(|plugin| uses(published, plugin))
            && known.iter().all(shows_same);
        if !rematched && is_same {
            quarantined.extend(known.first().and_then(|known| Quarantined::for_flaws(id, known)));
            continue;
        }
        let (objects, metrics) = (&snapshot.objects, &*live.metrics);
        let ground =
            Ground { settings, group: &live.plugins, changed: &group.changed, objects, background, metrics };
        let numbers = live.services.numbers_of(id);
        let compiling = || {
            #[cfg(test)]
            tests::panic_if_it_is_to(published);
            compile_versions((published, numbers), &known, ground)
        };
        match caught(compiling) {
            Ok(Versions { running, candidate }) => {
                quarantined.extend(Quarantined::for_flaws(id, &running));
                quarantined.extend(candidate.as_ref().and_then(|tried| Quarantined::for_flaws(id, tried)));
                known.iter().for_each(|known| live.router.replace(placed(known).as_ref(), None));
                let rules = [Some(&running), candidate.as_ref()].into_iter().flatten();
                rules.for_each(|version| live.router.replace(None, version.rules.as_ref()));
                live.services.insert(id, Arc::new(running), candidate.map(Arc::new));
            }
            Err(reason) => {
                if rematched {
                    known.iter().for_each(|known| live.router.replace(None, known.rules.as_ref()));
                }
                quarantined.push(Quarantined::new(What::Service(id.clone()), reason));
            }
        }
    }
    quarantined.extend(compile_streams(before, &mut live));
    live.compared = compared(before, &live);
    live.identifying = identifying(&live);
    (live, quarantined)
}

/// Compiles the stream routes of the services that are there now; hands back those that claim what another one has.
fn compile_streams(before: &LiveConfig, live: &mut LiveConfig) -> Vec<Quarantined> {
    let services = live.services.iter().map(|(_, service)| service);
    let streams = services.filter(|service| service.published.kind == ServiceKind::Stream);
    live.streams = StreamRouter::compile(&before.streams, streams.cloned().collect());
    let refused = live.streams.refused().iter().cloned();
    refused.map(|(id, reason)| Quarantined::new(What::Service(id), reason)).collect()
}

/// What finds out who calls, of the services whose canaries ask for that.
fn identifying(live: &LiveConfig) -> Arc<Layer> {
    let asks = |service: &LiveService| {
        service.published.canary.as_deref().is_some_and(|canary| asks_for_consumers(&canary.audience))
    };
    let asking = live.services.iter().filter(|(_, service)| asks(service));
    let versions = asking.flat_map(|(id, _)| live.services.versions(id));
    Arc::new(Layer::identifying(
        versions.flat_map(|version| version.plugins.chains.iter().map(|chain| &**chain)),
    ))
}

/// Where the versions are counted that somebody compares. What they did before does not count, but for a version that
/// has ended: it is all that is known of it.
fn compared(before: &LiveConfig, live: &LiveConfig) -> Arc<[Compared]> {
    let services = live.services.iter().flat_map(|(id, service)| {
        let versions = service.published.compared_versions();
        versions.map(move |version| {
            let series = live.metrics.versions.series_of_its_own(id.as_str(), version);
            let known =
                before.compared.iter().find(|known| known.service_id == *id && known.version == version);
            let has_ended = service.published.compared_with.as_deref() == Some(version);
            let counted = match known {
                Some(known) => known.before.clone(),
                None if has_ended => Counts::default(),
                None => series.counts(),
            };
            Compared { service_id: id.clone(), version: version.to_owned(), series, before: counted }
        })
    });
    services.take(COMPARED_VERSIONS_MAX).collect()
}

/// What `compiling` comes to; a panic is a refusal like any other, and the rest moves on.
fn caught<T>(compiling: impl FnOnce() -> Result<T, Violations>) -> Result<T, Violations> {
    // What it left half done is dropped with it: only what it hands back becomes live.
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(compiling));
    outcome.unwrap_or_else(|panic| {
        let said = panic.downcast_ref::<&str>().map(|said| (*said).to_owned());
        let said = said.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
        let mut violations = Violations::default();
        violations.add("", format!("compiling it panicked, which is a defect of the gateway: {said}"));
        Err(violations)
    })
}

/// Whether the service or one of its routes, or its candidate, uses `plugin`.
fn uses(published: &PublishedService, plugin: &str) -> bool {
    published.each_plugins().any(|plugins| plugins.contains_key(plugin))
}

/// What services are compiled from, beside themselves.
#[derive(Clone, Copy)]
struct Ground<'g> {
    settings: MatchSettings,
    group: &'g GroupPlugins,
    /// Plugins whose metadata or protos changed.
    changed: &'g [String],
    objects: &'g Objects,
    background: &'g Background,
    metrics: &'g Metrics,
}

/// A service and the candidate beside it, compiled.
struct Versions {
    running: LiveService,
    candidate: Option<LiveService>,
}

/// Compiles a service and its candidate. What each of them was before, whether running or on trial, is taken over, so
/// that a candidate that becomes the running version keeps what it has learnt.
fn compile_versions(
    (published, numbers): (&Arc<PublishedService>, Numbers),
    known: &[&Arc<LiveService>],
    ground: Ground<'_>,
) -> Result<Versions, Violations> {
    let known: Vec<&LiveService> = known.iter().map(|known| &***known).collect();
    let before = |published: &PublishedService| {
        let id = &published.service_version_id;
        let same = known.iter().filter(|known| known.published.service_version_id == *id);
        same.chain(&known).copied().collect::<Vec<_>>()
    };
    let choice = published.canary.as_deref().map(Choice::compile).transpose();
    let choice = choice.map_err(|wrong| wrong.below("/canary/vars"))?;
    let (arm, other) = choice.map(Choice::arms).unzip();
    let wanted = Wanted { published, number: numbers.running, arm };
    let running = compile_service(wanted, &before(published), ground)?;
    let Some(candidate) = published.candidate().map(Arc::new) else {
        return Ok(Versions { running, candidate: None });
    };
    let wanted = Wanted { published: &candidate, number: numbers.candidate, arm: other };
    let mut before = before(&candidate);
    // Limits of the service hold for both versions together, and so do its upstreams.
    before.retain(|known| known.published.service_version_id == candidate.service_version_id);
    before.push(&running);
    let candidate = compile_service(wanted, &before, ground).map_err(|wrong| wrong.below("/canary"))?;
    Ok(Versions { running, candidate: Some(candidate) })
}

/// What is compiled: a version, its number, and which requests get it.
struct Wanted<'w> {
    published: &'w Arc<PublishedService>,
    number: usize,
    arm: Option<Arm>,
}

/// Compiles a service; what is wrong with its plugins is a flaw where it has no good form to keep. `known` is what there
/// was before, the closest first.
fn compile_service(
    Wanted { published, number, arm }: Wanted<'_>,
    known: &[&LiveService],
    ground: Ground<'_>,
) -> Result<LiveService, Violations> {
    let Ground { background, metrics, .. } = ground;
    let takes_requests = published.kind == ServiceKind::Http && published.runtime.status == Status::Enabled;
    let rules = match takes_requests {
        true => {
            let rules = ServiceRules::compile(published, ground.settings)?;
            Some(Arc::new(rules.numbered(number).for_arm(arm)))
        }
        false => None,
    };
    let mut wrong = Violations::default();
    if published.kind == ServiceKind::Stream {
        stream::check::check_published(published, &mut wrong);
        gatewright_plugins::streams::check_published(published, &mut wrong);
    }
    wrong.into_result()?;
    let service_id = published.service_id.as_str();
    let before = known.first().map(|known| (&*known.published, &known.plugins));
    let built = ServicePlugins::compile(published, before, ground.group, ground.changed, background);
    let (plugins, unbuilt) = match built {
        Ok(plugins) => (plugins, Violations::default()),
        Err(wrong) if !known.is_empty() => return Err(wrong),
        Err(wrong) => (ServicePlugins::unbuilt(published), wrong),
    };
    let known: Vec<_> = known.iter().map(|known| (&*known.published, &known.upstreams)).collect();
    let written = upstreams::Ground { objects: ground.objects, known: &known, background };
    let upstreams = ServiceUpstreams::compile(published, plugins.upstreams(), written);
    let refusal = |own: &Plugins| match [&published.plugins, own]
        .map(|plugins| (unknown(plugins).next().is_some(), plugins.is_empty()))
    {
        [(true, _), _] | [_, (true, _)] => Some(RejectReason::PluginUnknown),
        [(_, true), (_, true)] => None,
        _ if unbuilt.is_empty() => None,
        _ => Some(RejectReason::PluginUnbuilt),
    };
    let routes = published.routes.iter().map(|route| LiveRoute {
        timeouts: route.route.timeout.map(Into::into),
        refusal: refusal(&route.route.plugins),
        series: metrics.routes.series(service_id, route.route_id.as_str()),
    });
    let series = metrics.versions.series(service_id, published.version.as_deref().unwrap_or_default());
    let routes = routes.collect();
    let streams = published.stream_routes.iter().map(|route| LiveStreamRoute {
        refusal: refusal(&route.route.plugins),
        series: metrics.streams.series(service_id, route.route_id.as_str()),
    });
    let streams = streams.collect();
    let published = Arc::clone(published);
    let mut flaws = unbuilt;
    name_lacking(&published, &mut flaws);
    Ok(LiveService { published, rules, upstreams, routes, streams, series, plugins, flaws })
}

/// Names the plugins that this gateway does not have: nothing is skipped, so the routes that need them are refused.
fn name_lacking(published: &PublishedService, flaws: &mut Violations) {
    let mut name = |plugins: &Plugins, at: &dyn Fn() -> String| {
        for plugin in unknown(plugins) {
            let message = format!(
                "this gateway (release {}) has no plugin `{plugin}` and answers 503 where it is needed",
                env!("CARGO_PKG_VERSION")
            );
            flaws.add(format!("{}/plugins/{plugin}", at()), message);
        }
    };
    name(&published.plugins, &String::new);
    for (index, version) in published.routes.iter().enumerate() {
        name(&version.route.plugins, &|| format!("/routes/{index}"));
    }
    for (index, version) in published.stream_routes.iter().enumerate() {
        name(&version.route.plugins, &|| format!("/stream_routes/{index}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gatewright_model::limits;
    use gatewright_model::protocol::Update;
    use gatewright_model::snapshot::Revision;
    use serde_json::{Value, json};

    fn service(id: &str, version: &str, more: Value) -> PublishedService {
        let mut document = json!({
            "service_id": id, "service_version_id": version, "version": version, "name": id, "type": "http",
            "routes": [{"route_id": "r", "name": "r", "paths": ["/*"]}], "strip_path_prefix": true,
            "upstream": {"nodes": [{"host": "127.0.0.1", "port": 1, "weight": 1}]}, "status": 1
        });
        for (key, value) in more.as_object().unwrap() {
            document[key] = value.clone();
        }
        serde_json::from_value(document).unwrap()
    }

    fn next(snapshot: &Snapshot, revision: u64, full: bool, services: Vec<PublishedService>) -> Snapshot {
        let settings = snapshot.settings;
        let (removed, objects, removed_objects) = (Vec::new(), Vec::new(), Vec::new());
        let (epoch, digest, revision) = (None, None, Revision(revision));
        snapshot.apply(Update {
            epoch,
            revision,
            full,
            digest,
            settings,
            services,
            removed,
            objects,
            removed_objects,
        })
    }

    #[test]
    fn e10_a_panic_while_compiling_is_a_refusal_that_says_what_panicked() {
        let reason = |compiling: fn() -> Result<(), Violations>| caught(compiling).unwrap_err().to_string();
        assert!(reason(|| panic!("index 3 of 2")).contains("index 3 of 2"));
        assert!(reason(|| panic!("{}", 7)).contains("a defect of the gateway: 7"));
        assert_eq!(caught(|| Ok(1)).unwrap(), 1);
    }

    /// What a service is called that stands for one which nobody foresaw.
    const UNFORESEEN: &str = "unforeseen";

    pub(super) fn panic_if_it_is_to(published: &PublishedService) {
        assert!(published.name != UNFORESEEN, "index 3 of 2");
    }

    #[test]
    fn e10_a_service_that_makes_compiling_panic_keeps_its_version_and_everything_else_moves_on() {
        let services = |version: &str, name: &str| {
            vec![service("a", version, json!({"name": name})), service("b", version, json!({}))]
        };
        let first = next(&Snapshot::default(), 1, true, services("1", "a"));
        let (before, _) = compile(&LiveConfig::empty(), &first, &Background::idle(1));
        let second = next(&first, 2, false, services("2", UNFORESEEN));
        let (after, quarantined) = compile(&before, &second, &Background::idle(1));
        let version = |id: &str| after.services[&id.parse().unwrap()].published.version.clone();
        assert_eq!((version("a").as_deref(), version("b").as_deref()), (Some("1"), Some("2")));
        let named: Vec<_> = quarantined.iter().map(|one| one.what.id()).collect();
        assert_eq!(named, ["a"]);
        assert!(quarantined[0].reason.to_string().contains("panicked"), "{quarantined:?}");
        let third = next(&second, 3, false, services("3", "a"));
        let (after, quarantined) = compile(&after, &third, &Background::idle(1));
        assert_eq!(after.services[&"a".parse().unwrap()].published.version.as_deref(), Some("3"));
        assert!(quarantined.is_empty(), "what compiles again is served again: {quarantined:?}");
    }

    #[test]
    fn e11_what_is_beyond_the_limits_is_refused_by_the_gateway_too() {
        let first = next(&Snapshot::default(), 1, true, vec![service("a", "1", json!({}))]);
        let (before, _) = compile(&LiveConfig::empty(), &first, &Background::idle(1));
        let routes = |count: usize| {
            let route = |number| json!({"route_id": format!("r{number}"), "name": "r", "paths": ["/*"]});
            json!({"routes": (0..count).map(route).collect::<Vec<_>>()})
        };
        let paths: Vec<_> = (0..=limits::PATHS_MAX).map(|number| format!("/{number}")).collect();
        let hosts: Vec<_> = (0..=limits::HOSTS_MAX).map(|number| format!("h{number}.test")).collect();
        for (what, large) in [
            ("routes", routes(limits::ROUTES_PER_SERVICE_MAX + 1)),
            ("paths", json!({"routes": [{"route_id": "r", "name": "r", "paths": paths}]})),
            ("hosts", json!({"hosts": hosts})),
        ] {
            let second = next(&first, 2, false, vec![service("a", "2", large)]);
            let (after, quarantined) = compile(&before, &second, &Background::idle(1));
            assert!(quarantined[0].reason.to_string().contains(what), "{what}: {quarantined:?}");
            let version = after.services[&"a".parse().unwrap()].published.version.clone();
            assert_eq!(version.as_deref(), Some("1"), "{what}: what was good goes on");
        }
    }

    #[test]
    fn what_did_not_change_is_taken_over() {
        let first = next(
            &Snapshot::default(),
            1,
            true,
            vec![service("a", "1", json!({})), service("b", "1", json!({}))],
        );
        let (before, _) = compile(&LiveConfig::empty(), &first, &Background::idle(1));
        let second = next(&first, 2, false, vec![service("b", "2", json!({"path_prefix": "/b"}))]);
        let (after, quarantined) = compile(&before, &second, &Background::idle(1));
        assert!(quarantined.is_empty());
        assert_eq!(after.revision, Some(Revision(2)));
        let (a, b) = ("a".parse().unwrap(), "b".parse().unwrap());
        assert!(Arc::ptr_eq(&before.services[&a], &after.services[&a]));
        assert!(!Arc::ptr_eq(&before.services[&b], &after.services[&b]));
        let upstream = |live: &LiveConfig, id| live.services[id].upstreams.own().now().unwrap();
        assert!(
            Arc::ptr_eq(&upstream(&before, &b), &upstream(&after, &b)),
            "an equal upstream keeps its counters"
        );
    }

    #[test]
    fn other_match_settings_recompile_everything_and_keep_counters() {
        let routes = json!([{"route_id": "r", "name": "r", "paths": ["/u/:id"]}]);
        let first =
            next(&Snapshot::default(), 1, true, vec![service("a", "1", json!({"routes": routes.clone()}))]);
        let (before, _) = compile(&LiveConfig::empty(), &first, &Background::idle(1));
        let settings = MatchSettings { path_parameters: false, ..MatchSettings::default() };
        let second = Snapshot { revision: Revision(2), settings, ..first.clone() };
        let (after, quarantined) = compile(&before, &second, &Background::idle(1));
        assert!(quarantined.is_empty());
        let serves = |live: &LiveConfig, path: &str| {
            let variables = gatewright_model::expression::NamedVariables::default();
            let request = crate::router::Request {
                host: b"",
                path: path.as_bytes(),
                method: gatewright_model::message::Method::Get,
                remote_addr: None,
                variables: &variables,
                lot: crate::router::Lot::of(0),
            };
            live.router.find(&request).is_some()
        };
        assert!(serves(&before, "/u/1") && !serves(&after, "/u/1") && serves(&after, "/u/:id"));
        let a = "a".parse().unwrap();
        assert!(Arc::ptr_eq(
            &before.services[&a].upstreams.own().now().unwrap(),
            &after.services[&a].upstreams.own().now().unwrap()
        ));
    }

    #[test]
    fn the_rules_of_a_service_lead_to_it_whatever_came_and_went() {
        let background = Background::idle(1);
        let mut snapshot = Snapshot::default();
        let mut live = LiveConfig::empty();
        for (revision, ids) in [(1, "abc"), (2, "c"), (3, "cde"), (4, "ea"), (5, "abcdef")] {
            let ids = ids.chars().map(String::from);
            let version = revision.to_string();
            let services = ids.map(|id| service(&id, &version, json!({}))).collect();
            snapshot = next(&snapshot, revision, true, services);
            (live, _) = compile(&live, &snapshot, &background);
            assert_eq!(live.services.len(), snapshot.services.len());
            for (id, service) in live.services.iter() {
                let found = live.services.numbered(service.rules.as_ref().unwrap().number());
                assert!(found.is_some_and(|found| Arc::ptr_eq(found, service)), "{id}");
            }
        }
    }

    #[test]
    fn what_is_gone_is_not_served() {
        let first = next(&Snapshot::default(), 1, true, vec![service("a", "1", json!({}))]);
        let (before, _) = compile(&LiveConfig::empty(), &first, &Background::idle(1));
        let (after, _) = compile(&before, &next(&first, 2, true, Vec::new()), &Background::idle(1));
        assert_eq!(after.services.len(), 0);
        assert!(after.services.numbered(0).is_none());
    }

    #[test]
    fn a_candidate_shares_upstreams_and_plugins_and_keeps_them_when_it_is_promoted() {
        let limit =
            json!({"limit-count": {"count": 5, "time_window": 60, "key": "remote_addr", "key_type": "var"}});
        let canary = |percent: u16| {
            json!({"plugins": limit.clone(), "canary": {"id": "c", "percent": percent, "service_version_id": "2",
                "version": "2", "name": "a", "type": "http", "plugins": limit.clone(),
                "routes": [{"route_id": "r", "name": "r", "paths": ["/*"]}]}})
        };
        let a = "a".parse().unwrap();
        let first = next(
            &Snapshot::default(),
            1,
            true,
            vec![service("a", "1", canary(5)), service("b", "1", json!({}))],
        );
        let (trying, quarantined) = compile(&LiveConfig::empty(), &first, &Background::idle(1));
        assert!(quarantined.is_empty(), "{quarantined:?}");
        let (running, candidate) = (&trying.services[&a], trying.services.candidate(&a).unwrap());
        assert_eq!(candidate.published.version.as_deref(), Some("2"));
        let upstream = |service: &LiveService| service.upstreams.own().now().unwrap();
        assert!(Arc::ptr_eq(&upstream(running), &upstream(candidate)));
        let limits =
            |service: &LiveService| std::ptr::from_ref(service.plugins.chains[0].iter().next().unwrap());
        assert!(std::ptr::eq(limits(running), limits(candidate)), "one limit for both versions");
        let numbers: Vec<_> =
            trying.services.versions(&a).map(|it| it.rules.as_ref().unwrap().number()).collect();
        assert_ne!(numbers[0], numbers[1]);
        for version in trying.services.versions(&a) {
            let found = trying.services.numbered(version.rules.as_ref().unwrap().number()).unwrap();
            assert!(Arc::ptr_eq(found, version));
        }
        let compared: Vec<_> = trying.compared.iter().map(|one| one.version.as_str()).collect();
        assert_eq!(compared, ["1", "2"]);

        let second = next(&first, 2, false, vec![service("a", "2", json!({"plugins": limit}))]);
        let (after, quarantined) = compile(&trying, &second, &Background::idle(1));
        assert!(quarantined.is_empty() && after.compared.is_empty());
        assert!(after.services.candidate(&a).is_none());
        assert!(Arc::ptr_eq(&upstream(&after.services[&a]), &upstream(candidate)));
        assert!(
            std::ptr::eq(limits(&after.services[&a]), limits(candidate)),
            "what was counted is not forgotten"
        );
        let freed = after.services.numbers_of(&"new".parse().unwrap()).running;
        assert!(numbers.contains(&freed), "the number of the candidate is free again");
    }

    #[test]
    fn a_candidate_that_does_not_compile_is_quarantined_and_the_running_version_goes_on_alone() {
        let first = next(&Snapshot::default(), 1, true, vec![service("a", "1", json!({}))]);
        let (before, _) = compile(&LiveConfig::empty(), &first, &Background::idle(1));
        let canary = json!({"canary": {"id": "c", "percent": 5, "service_version_id": "2", "version": "2", "name": "a",
            "type": "http", "routes": [{"route_id": "r", "name": "r", "paths": [""]}]}});
        let second = next(&first, 2, false, vec![service("a", "1", canary)]);
        let (after, quarantined) = compile(&before, &second, &Background::idle(1));
        assert!(quarantined[0].reason.to_string().contains("/canary/routes/0/paths/0"), "{quarantined:?}");
        assert_eq!(after.services.versions(&"a".parse().unwrap()).count(), 1);
    }

    #[test]
    fn a_service_that_needs_what_this_gateway_lacks_is_rejected_not_passed() {
        let services = vec![
            service("plugin", "1", json!({"plugins": {"no-such-plugin": {}}})),
            service(
                "scheme",
                "1",
                json!({"upstream": {"scheme": "tls", "nodes": [{"host": "h", "port": 1, "weight": 1}]}}),
            ),
            service(
                "checks",
                "1",
                json!({"upstream": {"checks": {"active": {"http_path": "/a b"}}, "nodes": {"a:1": 1, "b:1": 1}}}),
            ),
            service("empty", "1", json!({"upstream": {}})),
            service("off", "1", json!({"status": 0})),
        ];
        let first = next(&Snapshot::default(), 1, true, services);
        let (live, quarantined) = compile(&LiveConfig::empty(), &first, &Background::idle(1));
        let named = |quarantined: &[Quarantined]| {
            quarantined.iter().map(|one| format!("{}: {}", one.what, one.reason)).collect::<Vec<_>>()
        };
        let [lacking] = &*named(&quarantined) else { panic!("{quarantined:?}") };
        assert!(
            lacking.starts_with("service `plugin`: ") && lacking.contains("has no plugin `no-such-plugin`")
        );
        // It stays named, although it is not compiled again.
        let later = next(&first, 2, false, Vec::new());
        let (_, still) = compile(&live, &later, &Background::idle(1));
        assert_eq!(named(&still), named(&quarantined));
        let service = |id: &str| &live.services[&id.parse().unwrap()];
        assert_eq!(service("plugin").routes[0].refusal, Some(RejectReason::PluginUnknown));
        // Requests to it are rejected when they ask for it.
        assert!(service("scheme").upstreams.own().now().is_ok_and(|upstream| upstream.scheme.is_stream()));
        assert_eq!(service("checks").upstreams.own().now().err(), Some(RejectReason::ChecksUnsupported));
        assert_eq!(service("empty").upstreams.own().now().err(), Some(RejectReason::NoNodes));
        assert!(service("off").rules.is_none());
    }
}
