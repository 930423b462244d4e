//! An import over a template that exists: what the document says takes the place of what it said before, and what
//! people have added since stays.
//!
//! A route is found again by its name, which is its operation id, or else by its methods and paths. What no document
//! can say (plugins, conditions, priority, time limits, nodes) is kept.

use std::collections::BTreeMap;

use super::notes::Notes;
use super::{Import, Note, NoteKind, Suggestion, TAG};
use crate::id::RouteId;
use crate::lifecycle::RouteVersion;
use crate::resource::Labels;
use crate::resource::route::Route;
use crate::resource::service::ServiceTemplate;

/// What becomes of a template.
#[derive(Clone, Debug, PartialEq)]
pub struct Overlaid {
    /// The service.
    pub service: ServiceTemplate,
    /// Its routes; those with an id are there already.
    pub routes: Vec<(Option<RouteId>, Route)>,
    /// Routes that are not in the document; they are among `routes` if they stay.
    pub missing: Vec<(RouteId, String)>,
    /// See [`Import::suggestions`].
    pub suggestions: Vec<Suggestion>,
    /// See [`Import::notes`].
    pub notes: Vec<Note>,
}

impl Import {
    /// The import where there is nothing yet.
    #[must_use]
    pub fn alone(self) -> Overlaid {
        let Self { service, routes, suggestions, notes } = self;
        let routes = routes.into_iter().map(|route| (None, route)).collect();
        Overlaid { service, routes, missing: Vec::new(), suggestions, notes }
    }

    /// Lays the import over `service` with its `routes`. Routes that the document does not have stay, unless they
    /// are to be removed.
    #[must_use]
    pub fn over(
        self,
        service: &ServiceTemplate,
        routes: Vec<RouteVersion>,
        remove_missing: bool,
    ) -> Overlaid {
        let mut notes = Notes::default();
        let Self { service: imported, routes: imported_routes, suggestions, notes: mut said } = self;
        let after = service_over(imported, service, &mut notes);
        let mut before = Before::new(routes);
        let mut after_routes = Vec::with_capacity(imported_routes.len());
        let mut unnamed = Vec::new();
        for route in imported_routes {
            match before.named(&route.name) {
                Some(known) => after_routes.push((Some(known.route_id), route_over(route, known.route))),
                None => unnamed.push(route),
            }
        }
        for route in unnamed {
            match before.alike(&route) {
                Some(known) => after_routes.push((Some(known.route_id), route_over(route, known.route))),
                None => after_routes.push((None, route)),
            }
        }
        let mut missing = Vec::new();
        for RouteVersion { route_id, route } in before.rest() {
            let fate = if remove_missing { "is removed" } else { "stays" };
            let message = format!("route `{}` is not in the document and {fate}", route.name);
            notes.add(NoteKind::Adapted, "/paths", message);
            missing.push((route_id.clone(), route.name.clone()));
            if !remove_missing {
                after_routes.push((Some(route_id), route));
            }
        }
        let mut all = notes.finish();
        all.append(&mut said);
        Overlaid { service: after, routes: after_routes, missing, suggestions, notes: all }
    }
}

fn service_over(imported: ServiceTemplate, before: &ServiceTemplate, notes: &mut Notes) -> ServiceTemplate {
    if imported.name != before.name {
        let message = format!("the service keeps its name `{}`", before.name);
        notes.add(NoteKind::Adapted, "/info/title", message);
    }
    let has_upstream = before
        .upstream
        .as_ref()
        .is_some_and(|upstream| !upstream.nodes.is_empty() || upstream.service_name.is_some());
    let nodes = |service: &ServiceTemplate| service.upstream.as_ref().map(|upstream| upstream.nodes.clone());
    if has_upstream && imported.upstream.is_some() && nodes(&imported) != nodes(before) {
        notes.add(NoteKind::Adapted, "/servers", "the service keeps its own nodes");
    }
    let upstream = if has_upstream { before.upstream.clone() } else { imported.upstream };
    ServiceTemplate {
        desc: imported.desc,
        labels: labels_over(imported.labels.into_inner(), &before.labels).into(),
        path_prefix: imported.path_prefix.or_else(|| before.path_prefix.clone()),
        plugins: before
            .plugins
            .iter()
            .map(|(name, plugin)| (name.clone(), plugin.clone()))
            .chain(imported.plugins.into_inner())
            .collect(),
        upstream,
        ..before.clone()
    }
}

fn route_over(imported: Route, before: Route) -> Route {
    let mut plugins = before.plugins;
    plugins.extend(imported.plugins.into_inner());
    Route {
        name: imported.name,
        desc: imported.desc,
        labels: labels_over(imported.labels.into_inner(), &before.labels).into(),
        paths: imported.paths,
        methods: imported.methods,
        vars: if imported.vars.is_empty() { before.vars } else { imported.vars },
        plugins,
        hosts: before.hosts,
        remote_addrs: before.remote_addrs,
        priority: before.priority,
        enable_websocket: before.enable_websocket,
        timeout: before.timeout,
    }
}

/// The tags of the document, and the labels that are none.
fn labels_over(imported: Labels, before: &Labels) -> Labels {
    let others = before.iter().filter(|(_, value)| *value != TAG);
    others.map(|(key, value)| (key.clone(), value.clone())).chain(imported).collect()
}

/// The routes that nothing was laid over yet.
struct Before {
    by_name: BTreeMap<String, RouteVersion>,
}

impl Before {
    fn new(routes: Vec<RouteVersion>) -> Self {
        Self { by_name: routes.into_iter().map(|route| (route.route.name.clone(), route)).collect() }
    }

    fn named(&mut self, name: &str) -> Option<RouteVersion> {
        self.by_name.remove(name)
    }

    /// A route with the same methods and paths: its operation got another id.
    fn alike(&mut self, route: &Route) -> Option<RouteVersion> {
        let is_alike =
            |known: &&RouteVersion| known.route.methods == route.methods && known.route.paths == route.paths;
        let name = self.by_name.values().find(is_alike)?.route.name.clone();
        self.named(&name)
    }

    fn rest(self) -> impl Iterator<Item = RouteVersion> {
        self.by_name.into_values()
    }
}
