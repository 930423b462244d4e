//! What a service's life means, as plain data: no store, no clock, no caller.

use std::collections::BTreeMap;

use gatewright_model::id::ServiceVersionId;
use gatewright_model::lifecycle::{RouteVersion, RuntimeConfiguration, ServiceVersion};
use gatewright_model::resource::route::Route;
use gatewright_model::resource::service::ServiceTemplate;
use gatewright_model::resource::upstream::Upstream;
use gatewright_model::snapshot::PublishedService;
use serde_json::json;

use super::super::document::{route_template_parse, service_template_parse};
use super::verb::{Edit, GROUPS, Verb, node};

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
    /// At most one version of a service: the number of it, and what the group says.
    pub(super) active: BTreeMap<String, (String, RuntimeConfiguration)>,
    /// The numbers that became active, per service, in order.
    pub(super) history: BTreeMap<String, Vec<String>>,
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
            Verb::TemplatePut { service, content } => {
                let template = service_template_parse(content.clone()).map_err(|_| "Invalid")?.content;
                let mut others = self.templates.iter().filter(|(id, _)| id != service);
                if others.any(|(_, other)| other.name == template.name) {
                    return Err("NameTaken");
                }
                next.templates.insert((*service).to_owned(), template);
            }
            Verb::TemplateDelete { service } => {
                next.templates.remove(*service).ok_or("NotFound")?;
                if self.groups.values().any(|group| group.active.contains_key(*service)) {
                    return Err("StillPublished");
                }
                next.routes.retain(|_, (owner, _)| owner != service);
            }
            Verb::RoutePut { route, content } => {
                let template = route_template_parse::<Route>(content.clone()).map_err(|_| "Invalid")?.content;
                let service = template.service_id.to_string();
                self.templates.get(&service).ok_or("NotFound")?;
                let mut others = self.routes.iter().filter(|(id, _)| id != route);
                if others.any(|(_, (owner, other))| *owner == service && other.name == template.route.name) {
                    return Err("NameTaken");
                }
                next.routes.insert((*route).to_owned(), (service, template.route));
            }
            Verb::RouteDelete { route } => {
                next.routes.remove(*route).ok_or("NotFound")?;
            }
            Verb::Publish { group, services } => next.publish(group, services)?,
            Verb::PublishAgain { group, services } => next.publish_again(group, services)?,
            Verb::RuntimePatch { group, service, edit } => {
                let group = next.groups.get_mut(*group).ok_or("NotFound")?;
                let (_, runtime) = group.active.get_mut(*service).ok_or("NotFound")?;
                edited(runtime, edit)?;
                group.revision += 1;
            }
            Verb::Unpublish { group, service } => {
                let group = next.groups.get_mut(*group).ok_or("NotFound")?;
                group.active.remove(*service).ok_or("NotFound")?;
                group.revision += 1;
            }
        }
        Ok(next)
    }

    fn publish(&mut self, group: &str, services: &[(&str, &str, Option<String>)]) -> Result<(), Refused> {
        let before = self.clone();
        for (service, number, host) in services {
            let template = before.templates.get(*service).ok_or("NotFound")?;
            if self.versions.contains_key(&((*service).to_owned(), (*number).to_owned())) {
                return Err("VersionTaken");
            }
            let active = before.groups[group].active.get(*service);
            let mut runtime = active
                .map_or_else(|| RuntimeConfiguration::of_template(template), |(_, runtime)| runtime.clone());
            if let Some(host) = host {
                runtime.hosts = vec![host.clone()];
            }
            let routes = before.routes.iter().filter(|(_, (owner, _))| owner == service);
            let routes = routes
                .map(|(id, (_, route))| RouteVersion { route_id: id.parse().unwrap(), route: route.clone() });
            let version = ServiceVersion::of_template(
                unknown(),
                service.parse().unwrap(),
                (*number).to_owned(),
                template,
                routes.collect::<Vec<_>>().into(),
            );
            self.versions.insert(((*service).to_owned(), (*number).to_owned()), version);
            self.place(group, service, number, runtime);
        }
        if services.iter().any(|(service, ..)| !before.templates[*service].plugins.is_empty()) {
            return Err("Invalid");
        }
        self.groups.get_mut(group).unwrap().revision += 1;
        Ok(())
    }

    fn publish_again(&mut self, group: &str, services: &[(&str, &str)]) -> Result<(), Refused> {
        let before = self.clone();
        for (service, number) in services {
            self.versions.get(&((*service).to_owned(), (*number).to_owned())).ok_or("NotFound")?;
            let ran_here = before.groups[group]
                .history
                .get(*service)
                .is_some_and(|numbers| numbers.iter().any(|known| known == number));
            let runs = |group: &Group| group.active.get(*service).is_some_and(|(active, _)| active == number);
            if !ran_here && !before.groups.values().any(runs) {
                return Err("VersionNotRestorable");
            }
            let active = before.groups[group].active.get(*service);
            let runtime = match (active, before.templates.get(*service)) {
                (Some((_, runtime)), _) => runtime.clone(),
                (None, Some(template)) => RuntimeConfiguration::of_template(template),
                (None, None) => RuntimeConfiguration::of_template(&nothing()),
            };
            self.place(group, service, number, runtime);
        }
        self.groups.get_mut(group).unwrap().revision += 1;
        Ok(())
    }

    fn place(&mut self, group: &str, service: &str, number: &str, runtime: RuntimeConfiguration) {
        let group = self.groups.get_mut(group).unwrap();
        group.active.insert(service.to_owned(), (number.to_owned(), runtime));
        group.history.entry(service.to_owned()).or_default().push(number.to_owned());
    }

    /// What the gateways of a group serve.
    pub(super) fn served(&self, group: &str) -> Vec<PublishedService> {
        let active = self.groups[group].active.iter();
        let served = active.map(|(service, (number, runtime))| {
            let version = self.versions[&(service.clone(), number.clone())].clone();
            PublishedService::new(version, runtime.clone())
        });
        served.collect()
    }
}

/// The id of a version that the rules have not told yet.
pub(super) fn unknown() -> ServiceVersionId {
    "unknown".parse().unwrap()
}

/// What is left to start from when a template is gone.
fn nothing() -> ServiceTemplate {
    serde_json::from_value(json!({"name": "nothing"})).unwrap()
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
