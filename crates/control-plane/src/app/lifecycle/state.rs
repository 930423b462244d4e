//! What a service's life means, as plain data: no store, no clock, no caller.

use std::collections::BTreeMap;

use gatewright_model::id::ServiceVersionId;
use gatewright_model::lifecycle::{RouteVersion, RuntimeConfiguration, ServiceVersion, Status};
use gatewright_model::resource::route::Route;
use gatewright_model::resource::service::ServiceTemplate;
use gatewright_model::resource::upstream::Upstream;
use gatewright_model::snapshot::PublishedService;
use serde_json::json;

use super::super::document::{route_template_parse, service_template_parse};
use super::super::group_document::{group_route_parse, service_parse};
use super::verb::{Edit, GROUPS, SERVICES, Verb, node};
use crate::store::ServiceContent;

/// The name of the refusal, and nothing changed.
pub(super) type Refused = &'static str;

/// Everything there is.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Lifecycle {
    pub(super) templates: BTreeMap<String, ServiceTemplate>,
    /// With the service they belong to.
    pub(super) routes: BTreeMap<String, (String, Route)>,
    /// By service and number. There is nothing that changes or removes one.
    pub(super) versions: BTreeMap<(String, String), ServiceVersion>,
    pub(super) groups: BTreeMap<String, Group>,
}

/// A gateway group.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Group {
    pub(super) revision: u64,
    /// A service is active once, with one version or without.
    pub(super) active: BTreeMap<String, Active>,
    /// Routes of services without a version, with the service they belong to.
    pub(super) routes: BTreeMap<String, (String, Route)>,
    /// The numbers that became active, per service, in order.
    pub(super) history: BTreeMap<String, Vec<String>>,
}

/// A service in a group.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Active {
    /// The number of its version; none: it was written straight to the group.
    pub(super) number: Option<String>,
    pub(super) content: ServiceContent,
    pub(super) runtime: RuntimeConfiguration,
    /// Its further upstreams.
    pub(super) upstreams: BTreeMap<String, Upstream>,
}

impl Group {
    fn at(&mut self, service: &str) -> Result<&mut Active, Refused> {
        self.active.get_mut(service).ok_or("NotFound")
    }

    fn is_unversioned(&self, service: &str) -> bool {
        self.active.get(service).is_some_and(|active| active.number.is_none())
    }

    fn routes_of(&self, service: &str) -> Vec<RouteVersion> {
        let routes = self.routes.iter().filter(|(_, (owner, _))| owner == service);
        routes.map(|(id, (_, route))| route_version(id, route)).collect()
    }
}

impl Lifecycle {
    pub(super) fn start() -> Self {
        let groups = GROUPS.iter().map(|group| ((*group).to_owned(), Group::default())).collect();
        let (templates, routes, versions) = Default::default();
        Self { templates, routes, versions, groups }
    }

    /// Everything after `verb`.
    pub(super) fn after(&self, verb: &Verb) -> Result<Self, Refused> {
        let mut next = self.clone();
        match verb {
            Verb::Publish { group, services } => next.publish(group, services)?,
            Verb::PublishAgain { group, services } => next.publish_again(group, services)?,
            Verb::Synchronise { group, source, services } => next.synchronise(group, source, services)?,
            _ => match verb.group() {
                None => next.design(verb)?,
                Some(group) => {
                    if next.takes_from_a_version(group, verb) {
                        return Err("VersionImmutable");
                    }
                    let group = next.groups.get_mut(group).unwrap();
                    group.edit(verb)?;
                    group.revision += 1;
                }
            },
        }
        Ok(next)
    }

    /// Whether it is about a route that only a version has which runs there.
    fn takes_from_a_version(&self, group: &str, verb: &Verb) -> bool {
        let Verb::RouteRemove { route, .. } = verb else { return false };
        let group = &self.groups[group];
        let running = group.active.iter().filter_map(|(service, active)| {
            let number = active.number.as_ref()?;
            Some(&self.versions[&(service.clone(), number.clone())])
        });
        let mut routes = running.flat_map(|version| &version.routes);
        !group.routes.contains_key(*route) && routes.any(|own| own.route_id.as_str() == *route)
    }

    /// What is done to templates, which no gateway sees.
    fn design(&mut self, verb: &Verb) -> Result<(), Refused> {
        match verb {
            Verb::TemplatePut { service, content } => {
                let template = service_template_parse(content.clone()).map_err(|_| "Invalid")?.content;
                let mut others = self.templates.iter().filter(|(id, _)| id != service);
                if others.any(|(_, other)| other.name == template.name) {
                    return Err("NameTaken");
                }
                self.templates.insert((*service).to_owned(), template);
            }
            Verb::TemplateDelete { service } => {
                self.templates.remove(*service).ok_or("NotFound")?;
                let runs = |group: &Group| group.active.get(*service).is_some_and(|a| a.number.is_some());
                if self.groups.values().any(runs) {
                    return Err("StillPublished");
                }
                self.routes.retain(|_, (owner, _)| owner != service);
            }
            Verb::RoutePut { route, content } => {
                let template = route_template_parse::<Route>(content.clone()).map_err(|_| "Invalid")?.content;
                let service = template.service_id.to_string();
                self.templates.get(&service).ok_or("NotFound")?;
                let mut others = self.routes.iter().filter(|(id, _)| id != route);
                if others.any(|(_, (owner, other))| *owner == service && other.name == template.route.name) {
                    return Err("NameTaken");
                }
                self.routes.insert((*route).to_owned(), (service, template.route));
            }
            Verb::RouteDelete { route } => {
                self.routes.remove(*route).ok_or("NotFound")?;
            }
            _ => unreachable!("{verb:?} is about a group"),
        }
        Ok(())
    }

    fn publish(&mut self, group: &str, services: &[(&str, &str, Option<String>)]) -> Result<(), Refused> {
        let before = self.clone();
        for (service, number, host) in services {
            if before.groups[group].is_unversioned(service) {
                return Err("Unversioned");
            }
            let template = before.templates.get(*service).ok_or("NotFound")?;
            self.must_be_free(service, number)?;
            let active = before.groups[group].active.get(*service);
            let mut runtime = active
                .map_or_else(|| RuntimeConfiguration::of_template(template), |active| active.runtime.clone());
            if let Some(host) = host {
                runtime.hosts = vec![host.clone()];
            }
            let routes = before.routes.iter().filter(|(_, (owner, _))| owner == service);
            let routes: Vec<_> = routes.map(|(id, (_, route))| route_version(id, route)).collect();
            let (id, number) = (service.parse().unwrap(), (*number).to_owned());
            let version = ServiceVersion::of_template(unknown(), id, number, template, routes.into());
            self.versions.insert(((*service).to_owned(), version.version.clone()), version.clone());
            self.place(group, service, &version, runtime);
        }
        if services.iter().any(|(service, ..)| is_unknown_to_gateways(&before.templates[*service])) {
            return Err("Invalid");
        }
        self.raise(group);
        Ok(())
    }

    fn publish_again(&mut self, group: &str, services: &[(&str, &str)]) -> Result<(), Refused> {
        let before = self.clone();
        for (service, number) in services {
            if before.groups[group].is_unversioned(service) {
                return Err("Unversioned");
            }
            let version = self.versions.get(&((*service).to_owned(), (*number).to_owned()));
            let version = version.ok_or("NotFound")?.clone();
            let ran_here = before.groups[group]
                .history
                .get(*service)
                .is_some_and(|numbers| numbers.iter().any(|known| known == number));
            let runs = |group: &Group| {
                group.active.get(*service).is_some_and(|active| active.number.as_deref() == Some(*number))
            };
            if !ran_here && !before.groups.values().any(runs) {
                return Err("VersionNotRestorable");
            }
            let runtime = before.runtime_there(group, service);
            self.place(group, service, &version, runtime);
        }
        self.raise(group);
        Ok(())
    }

    fn synchronise(
        &mut self,
        group: &str,
        source: &str,
        services: &[(&str, Option<&str>)],
    ) -> Result<(), Refused> {
        let before = self.clone();
        for (service, number) in services {
            let running = before.groups[source].active.get(*service).ok_or("NotFound")?;
            if source != group && before.groups[group].is_unversioned(service) {
                return Err("Unversioned");
            }
            let runtime = before.runtime_there(group, service);
            if let Some(runs) = &running.number {
                if number.is_some_and(|number| number != runs) {
                    return Err("Invalid");
                }
                let version = self.versions[&((*service).to_owned(), runs.clone())].clone();
                self.place(group, service, &version, runtime);
                continue;
            }
            let number = number.ok_or("Invalid")?;
            self.must_be_free(service, number)?;
            let version =
                version_of_group(service, number, running, before.groups[source].routes_of(service));
            self.versions.insert(((*service).to_owned(), number.to_owned()), version.clone());
            self.groups.get_mut(source).unwrap().routes.retain(|_, (owner, _)| owner != service);
            if source != group {
                self.place(source, service, &version, running.runtime.clone());
                self.raise(source);
            }
            self.place(group, service, &version, runtime);
        }
        self.raise(group);
        Ok(())
    }

    fn must_be_free(&self, service: &str, number: &str) -> Result<(), Refused> {
        match self.versions.contains_key(&(service.to_owned(), number.to_owned())) {
            true => Err("VersionTaken"),
            false => Ok(()),
        }
    }

    /// The runtime configuration that an existing version finds in a group.
    fn runtime_there(&self, group: &str, service: &str) -> RuntimeConfiguration {
        match (self.groups[group].active.get(service), self.templates.get(service)) {
            (Some(active), _) => active.runtime.clone(),
            (None, Some(template)) => RuntimeConfiguration::of_template(template),
            (None, None) => RuntimeConfiguration::of_template(&nothing()),
        }
    }

    fn place(&mut self, group: &str, service: &str, version: &ServiceVersion, runtime: RuntimeConfiguration) {
        let group = self.groups.get_mut(group).unwrap();
        let before = group.active.remove(service);
        let active = Active {
            number: Some(version.version.clone()),
            content: ServiceContent {
                name: version.name.clone(),
                desc: version.desc.clone(),
                labels: version.labels.clone(),
                kind: version.kind,
                plugins: version.plugins.clone(),
                has_upstream: false,
            },
            runtime,
            upstreams: before.map(|before| before.upstreams).unwrap_or_default(),
        };
        group.active.insert(service.to_owned(), active);
        group.history.entry(service.to_owned()).or_default().push(version.version.clone());
    }

    fn raise(&mut self, group: &str) {
        self.groups.get_mut(group).unwrap().revision += 1;
    }

    /// What the gateways of a group serve.
    pub(super) fn served(&self, group: &str) -> Vec<PublishedService> {
        let group = &self.groups[group];
        let served = group.active.iter().map(|(service, active)| {
            let version = match &active.number {
                Some(number) => self.versions[&(service.clone(), number.clone())].clone(),
                None => version_of_group(service, "none", active, group.routes_of(service)),
            };
            let upstreams = active.upstreams.iter();
            let served = PublishedService {
                // The name may be edited where it runs; what decides about requests may not.
                name: active.content.name.clone(),
                upstreams: upstreams.map(|(id, upstream)| (id.parse().unwrap(), upstream.clone())).collect(),
                ..PublishedService::new(version, active.runtime.clone())
            };
            match active.number {
                Some(_) => served,
                None => PublishedService { service_version_id: None, version: None, ..served },
            }
        });
        served.collect()
    }
}

impl Group {
    /// What is done to services where they run.
    fn edit(&mut self, verb: &Verb) -> Result<(), Refused> {
        match verb {
            Verb::RuntimePatch { service, edit, .. } => edited(&mut self.at(service)?.runtime, edit)?,
            Verb::Unpublish { service, .. } => {
                self.at(service)?;
                self.active.remove(*service);
                self.routes.retain(|_, (owner, _)| owner != service);
            }
            Verb::ServiceWrite { service, content, .. } => self.service_write(service, content)?,
            Verb::RouteWrite { route, content, .. } => {
                let document = group_route_parse::<Route>(content.clone()).map_err(|_| "Invalid")?.content;
                let service = document.service_id.to_string();
                match self.active.get(&service) {
                    None => return Err("Invalid"),
                    Some(active) if active.number.is_some() => return Err("VersionImmutable"),
                    Some(_) => self.routes.insert((*route).to_owned(), (service, document.route)),
                };
            }
            Verb::RouteRemove { route, .. } => {
                self.routes.remove(*route).ok_or("NotFound")?;
            }
            Verb::UpstreamPut { service, upstream, host, .. } => {
                let content = serde_json::from_value(further_upstream(host)).unwrap();
                self.at(service)?.upstreams.insert((*upstream).to_owned(), content);
            }
            Verb::CanaryEnd { service, upstream, is_promoted, .. } => {
                let active = self.at(service)?;
                let canary = active.upstreams.remove(*upstream).ok_or("NotFound")?;
                if *is_promoted {
                    active.runtime.upstream = canary;
                }
                if active.number.is_none() {
                    // All rules that are generated name one upstream beside the service's own.
                    let names = |config: &serde_json::Value| config.to_string().contains(upstream);
                    active.content.plugins.retain(|_, config| !names(config));
                }
            }
            _ => unreachable!("{verb:?} is about more than a group"),
        }
        Ok(())
    }

    fn service_write(&mut self, id: &str, content: &serde_json::Value) -> Result<(), Refused> {
        let service = service_parse(content.clone()).map_err(|_| "Invalid")?.content;
        let before = self.active.get(id);
        let content = ServiceContent {
            kind: service.kind(),
            name: service.name,
            desc: service.desc,
            labels: service.labels,
            plugins: service.plugins,
            has_upstream: service.upstream.is_some(),
        };
        if before.is_some_and(|old| old.number.is_some() && old.content.plugins != content.plugins) {
            return Err("VersionImmutable");
        }
        let runtime = RuntimeConfiguration {
            hosts: service.hosts,
            path_prefix: service.path_prefix,
            strip_path_prefix: service.strip_path_prefix,
            forward_raw_path: false,
            upstream: service.upstream.unwrap_or_default(),
            status: service.status.or(before.map(|old| old.runtime.status)).unwrap_or(Status::Enabled),
        };
        let (number, upstreams) =
            before.map(|old| (old.number.clone(), old.upstreams.clone())).unwrap_or_default();
        self.active.insert(id.to_owned(), Active { number, content, runtime, upstreams });
        Ok(())
    }
}

/// What a service without a version would be as a version.
fn version_of_group(
    service: &str,
    number: &str,
    active: &Active,
    routes: Vec<RouteVersion>,
) -> ServiceVersion {
    let ServiceContent { name, desc, labels, kind, plugins, .. } = active.content.clone();
    ServiceVersion {
        id: unknown(),
        service_id: service.parse().unwrap(),
        version: number.to_owned(),
        name,
        desc,
        labels,
        kind,
        plugins,
        routes,
        stream_routes: Vec::new(),
    }
}

fn route_version(id: &str, route: &Route) -> RouteVersion {
    RouteVersion { route_id: id.parse().unwrap(), route: route.clone() }
}

/// The id of a version that the rules have not told yet.
pub(super) fn unknown() -> ServiceVersionId {
    "unknown".parse().unwrap()
}

/// A further upstream with one node.
pub(super) fn further_upstream(host: &str) -> serde_json::Value {
    json!({ "name": "further", "nodes": [node(host)] })
}

/// Templates may name any plugin; a version only what gateways can run.
fn is_unknown_to_gateways(template: &ServiceTemplate) -> bool {
    template.plugins.contains_key("unknown-to-every-release")
}

/// What is left to start from when a template is gone.
fn nothing() -> ServiceTemplate {
    serde_json::from_value(json!({"name": SERVICES[0]})).unwrap()
}

fn edited(runtime: &mut RuntimeConfiguration, edit: &Edit) -> Result<(), Refused> {
    match edit {
        Edit::Hosts(host) => runtime.hosts = host.iter().cloned().collect(),
        Edit::PathPrefix(prefix) => runtime.path_prefix.clone_from(prefix),
        Edit::Node(host) => {
            let nodes = serde_json::from_value::<Upstream>(json!({ "nodes": [node(host)] })).unwrap().nodes;
            runtime.upstream.nodes = nodes;
        }
        Edit::Status(status) => runtime.status = (*status).try_into().map_err(|_| "Invalid")?,
    }
    Ok(())
}
