//! A service: one backend application and all its APIs.
//!
//! The fields fall into three kinds, and the lifecycle rests on the difference: *versioned* content (plugins, and
//! the routes), *runtime configuration* (hosts, path prefix, upstream), which belongs to a gateway group once the
//! service is published, and *metadata* (name, description, labels), which says nothing to traffic.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::upstream::Upstream;
use super::{AsSent, Labels, Plugins};
use crate::lifecycle::{RuntimeConfiguration, Status};

/// The writable content of a service template: the editable draft of a service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ServiceTemplate {
    /// Unique name of the service.
    #[schema(min_length = 1, max_length = 100)]
    pub name: String,
    /// Free text for people.
    #[serde(default, skip_serializing_if = "AsSent::is_absent")]
    #[schema(value_type = String, max_length = 65536)]
    pub desc: AsSent<String>,
    /// Key/value pairs for filtering.
    #[serde(default, skip_serializing_if = "AsSent::is_absent")]
    #[schema(value_type = Labels)]
    pub labels: AsSent<Labels>,
    /// Whether the service holds routes (`http`) or stream routes (`stream`).
    #[serde(default, rename = "type")]
    pub kind: ServiceKind,
    /// Domain names the service accepts; `*.example.com` accepts every name below. None: any host.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(min_items = 1, max_items = 32, schema_with = hosts_schema)]
    pub hosts: Vec<String>,
    /// The path prefix in front of every path of every route.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 4096, pattern = "^/", nullable = false)]
    pub path_prefix: Option<String>,
    /// Whether the path prefix is removed before the request goes to the upstream.
    #[serde(default = "enabled")]
    #[schema(default = true)]
    pub strip_path_prefix: bool,
    /// Whether the path is forwarded as the client wrote it instead of normalised (our extension).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    #[schema(default = false)]
    pub forward_raw_path: bool,
    /// Plugins of all routes of this service.
    #[serde(default, skip_serializing_if = "AsSent::is_absent")]
    #[schema(value_type = std::collections::BTreeMap<String, Object>)]
    pub plugins: AsSent<Plugins>,
    /// How the backend is reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub upstream: Option<Upstream>,
}

/// The writable content of a service that is written straight to a gateway group, where it is live at once and has
/// no version.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Service {
    /// Name of the service.
    #[schema(min_length = 1, max_length = 65536)]
    pub name: String,
    /// Free text for people.
    #[serde(default, skip_serializing_if = "AsSent::is_absent")]
    #[schema(value_type = String, max_length = 65536)]
    pub desc: AsSent<String>,
    /// Key/value pairs for filtering.
    #[serde(default, skip_serializing_if = "AsSent::is_absent")]
    #[schema(value_type = Labels)]
    pub labels: AsSent<Labels>,
    /// Whether the service holds routes (`http`) or stream routes (`stream`); absent: what the upstream's scheme
    /// implies.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<ServiceKind>,
    /// Domain names the service accepts; `*.example.com` accepts every name below. None: any host.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(schema_with = hosts_schema)]
    pub hosts: Vec<String>,
    /// The path prefix in front of every path of every route.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 4096, pattern = "^/", nullable = false)]
    pub path_prefix: Option<String>,
    /// Whether the path prefix is removed before the request goes to the upstream.
    #[serde(default = "enabled")]
    #[schema(default = true)]
    pub strip_path_prefix: bool,
    /// Plugins of all routes of this service.
    #[serde(default, skip_serializing_if = "AsSent::is_absent")]
    #[schema(value_type = std::collections::BTreeMap<String, Object>)]
    pub plugins: AsSent<Plugins>,
    /// How the backend is reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub upstream: Option<Upstream>,
    /// Whether the service takes traffic: 1 yes, 0 no; absent: yes, or as it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = u8, minimum = 0, maximum = 1)]
    pub status: Option<Status>,
    /// Whether the path is forwarded as the client wrote it instead of normalised (our extension); absent: as before,
    /// and normalised in the beginning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub forward_raw_path: Option<bool>,
}

impl Service {
    /// What kind of service this is: what it says, or else what its upstream's scheme implies.
    #[must_use]
    pub fn kind(&self) -> ServiceKind {
        let is_stream = |upstream: &Upstream| upstream.scheme.is_stream();
        let implied = match self.upstream.as_ref().is_some_and(is_stream) {
            true => ServiceKind::Stream,
            false => ServiceKind::Http,
        };
        self.kind.unwrap_or(implied)
    }

    /// What of it is runtime configuration, with the defaults for what is absent.
    #[must_use]
    pub fn runtime(&self) -> RuntimeConfiguration {
        RuntimeConfiguration {
            hosts: self.hosts.clone(),
            path_prefix: self.path_prefix.clone(),
            strip_path_prefix: self.strip_path_prefix,
            forward_raw_path: self.forward_raw_path.unwrap_or_default(),
            upstream: self.upstream.clone().unwrap_or_default(),
            status: self.status.unwrap_or_default(),
        }
    }
}

/// Whether a service speaks HTTP or works at layer 4.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ServiceKind {
    /// The service holds routes.
    #[default]
    Http,
    /// The service holds stream routes.
    Stream,
}

/// The default of switches that are on unless somebody turns them off.
pub(crate) const fn enabled() -> bool {
    true
}

/// The documented schema of `hosts`: 1 to 32 different names.
pub fn hosts_schema() -> utoipa::openapi::schema::Array {
    use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder, SchemaType, Type};
    let host =
        ObjectBuilder::new().schema_type(SchemaType::new(Type::String)).pattern(Some(HOST_PATTERN)).build();
    ArrayBuilder::new()
        .items(host)
        .min_items(Some(1))
        .max_items(Some(crate::limits::HOSTS_MAX))
        .unique_items(true)
        .description(Some("Domain names the service accepts; `*.example.com` accepts every name below."))
        .build()
}

/// The pattern of a host: the documented one, and beyond it `*` alone, an IPv6 address and a port.
pub const HOST_PATTERN: &str = "^(\\*|\\*?[0-9a-zA-Z-._]+|\\[[0-9a-fA-F:.]+\\])(:[0-9]{1,5})?$";
