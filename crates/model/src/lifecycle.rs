//! Template, version, published service: the states of a service and what moves between them.
//!
//! A [`ServiceVersion`] is immutable: it has no setters and is only ever made by [`ServiceVersion::of_template`].
//! A template has no version number and no traffic. A published service is a version plus the runtime
//! configuration of one gateway group; replacing the version keeps the runtime configuration.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::id::{RouteId, ServiceId, ServiceVersionId};
use crate::resource::route::Route;
use crate::resource::service::{ServiceKind, ServiceTemplate};
use crate::resource::stream_route::StreamRoute;
use crate::resource::upstream::Upstream;
use crate::resource::{AsSent, Labels, Plugins};

/// A route, or a stream route, with the id it was designed under.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RouteVersion<R = Route> {
    /// The id of the route in the template; every version of the service keeps it.
    pub route_id: RouteId,
    /// What the route says.
    #[serde(flatten)]
    pub route: R,
}

/// All routes of a service: of one kind or of the other, as the service is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Routes {
    /// Those of a service that speaks HTTP.
    pub routes: Vec<RouteVersion>,
    /// Those of a service at layer 4.
    pub stream_routes: Vec<RouteVersion<StreamRoute>>,
}

impl From<Vec<RouteVersion>> for Routes {
    fn from(routes: Vec<RouteVersion>) -> Self {
        Self { routes, stream_routes: Vec::new() }
    }
}

/// An immutable, numbered copy of a service template and its routes.
///
/// Equal numbers of one service mean equal behaviour in every gateway group; therefore nothing that a group may
/// change (see [`RuntimeConfiguration`]) is in here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServiceVersion {
    /// Names this version among all versions of all services.
    pub id: ServiceVersionId,
    /// The service this is a version of.
    pub service_id: ServiceId,
    /// The version number, unique within the service; free text, semantic versions are advised.
    pub version: String,
    /// Name of the service when the version was made.
    pub name: String,
    /// Description of the service when the version was made.
    #[serde(default, skip_serializing_if = "AsSent::is_absent")]
    pub desc: AsSent<String>,
    /// Labels of the service when the version was made.
    #[serde(default, skip_serializing_if = "AsSent::is_absent")]
    pub labels: AsSent<Labels>,
    /// HTTP or stream.
    #[serde(rename = "type")]
    pub kind: ServiceKind,
    /// Plugins of all routes.
    #[serde(default, skip_serializing_if = "AsSent::is_absent")]
    pub plugins: AsSent<Plugins>,
    /// The routes of the template at that moment, ordered by id.
    pub routes: Vec<RouteVersion>,
    /// The stream routes of the template at that moment, ordered by id.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stream_routes: Vec<RouteVersion<StreamRoute>>,
}

impl ServiceVersion {
    /// The plugins that the service and its routes use.
    pub fn plugin_names(&self) -> impl Iterator<Item = String> {
        let of_routes = self.routes.iter().flat_map(|route| route.route.plugins.keys());
        let of_stream_routes = self.stream_routes.iter().flat_map(|route| route.route.plugins.keys());
        self.plugins.keys().chain(of_routes).chain(of_stream_routes).cloned()
    }

    /// The version that publishing `template` with its routes creates.
    #[must_use]
    pub fn of_template(
        id: ServiceVersionId,
        service_id: ServiceId,
        version: String,
        template: &ServiceTemplate,
        routes: Routes,
    ) -> Self {
        let Routes { mut routes, mut stream_routes } = routes;
        routes.sort_by(|a, b| a.route_id.cmp(&b.route_id));
        stream_routes.sort_by(|a, b| a.route_id.cmp(&b.route_id));
        Self {
            id,
            service_id,
            version,
            name: template.name.clone(),
            desc: template.desc.clone(),
            labels: template.labels.clone(),
            kind: template.kind,
            plugins: template.plugins.clone(),
            routes,
            stream_routes,
        }
    }
}

/// What a gateway group may change about a published service without a new version. It differs per group and
/// survives publish and rollback.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RuntimeConfiguration {
    /// Domain names the service accepts; none: any host.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
    /// The path prefix in front of every path of every route.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_prefix: Option<String>,
    /// Whether the path prefix is removed before the request goes to the upstream.
    pub strip_path_prefix: bool,
    /// Whether the path is forwarded as the client wrote it instead of normalised (our extension).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    #[schema(default = false)]
    pub forward_raw_path: bool,
    /// How the backend is reached in this group.
    pub upstream: Upstream,
    /// Whether the service takes traffic: 1 yes, 0 no.
    #[schema(value_type = u8, minimum = 0, maximum = 1)]
    pub status: Status,
}

impl RuntimeConfiguration {
    /// What the first publish of `template` to a group starts from.
    #[must_use]
    pub fn of_template(template: &ServiceTemplate) -> Self {
        Self {
            hosts: template.hosts.clone(),
            path_prefix: template.path_prefix.clone(),
            strip_path_prefix: template.strip_path_prefix,
            forward_raw_path: template.forward_raw_path,
            upstream: template.upstream.clone().unwrap_or_default(),
            status: Status::Enabled,
        }
    }
}

/// Whether a published service takes traffic; `1` and `0` in the API.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub enum Status {
    /// It takes no traffic; its routes answer as if they did not exist.
    Disabled,
    /// It takes traffic.
    #[default]
    Enabled,
}

impl TryFrom<u8> for Status {
    type Error = String;

    fn try_from(number: u8) -> Result<Self, String> {
        match number {
            0 => Ok(Self::Disabled),
            1 => Ok(Self::Enabled),
            other => Err(format!("status {other} is neither 0 (disabled) nor 1 (enabled)")),
        }
    }
}

impl From<Status> for u8 {
    fn from(status: Status) -> u8 {
        match status {
            Status::Disabled => 0,
            Status::Enabled => 1,
        }
    }
}
