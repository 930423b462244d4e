//! Documents that are written straight to a gateway group: one checking for writes and for validation alike.
//!
//! A plugin this release cannot run is refused here as a publish refuses it: what is written to a group is live at
//! once, and a route whose plugin is missing would only answer 503.

use std::sync::LazyLock;

use gatewright_model::id::{RouteId, ServiceId};
use gatewright_model::resource::Labels;
use gatewright_model::resource::certificate::{CaCertificate, Certificate};
use gatewright_model::resource::consumer::{Consumer, Credential};
use gatewright_model::resource::global_rule::GlobalRule;
use gatewright_model::resource::plugin_metadata::PluginMetadata;
use gatewright_model::resource::proto::Proto;
use gatewright_model::resource::route::Route;
use gatewright_model::resource::secret_provider::SecretProvider;
use gatewright_model::resource::service::{Service, ServiceKind};
use gatewright_model::resource::service_registry::ServiceRegistry;
use gatewright_model::resource::sni::Sni;
use gatewright_model::resource::ssl::Ssl;
use gatewright_model::resource::stream_route::StreamRoute;
use gatewright_model::resource::upstream::Upstream;
use gatewright_model::validation::{Schema, Violations};
use gatewright_plugins::protos;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use utoipa::ToSchema;

use super::document::{self, Document, Warnings, chosen_id};
use super::plugin::{consumer_plugins_check, credential_plugins_check, plugins_check, stream_plugins_check};
use super::{service_registry, ssl};

/// A kind of document: its schema, and what a schema cannot say about it.
pub(crate) trait Documented: ToSchema + Serialize + DeserializeOwned + Send + Sync {
    fn schema_compiled() -> &'static Schema;
    fn check(&self, violations: &mut Violations, warnings: &mut Warnings);
}

/// A route or stream route, and the service it belongs to.
#[derive(Clone, Debug)]
pub(crate) struct GroupRoute<T> {
    pub(crate) service_id: ServiceId,
    pub(crate) route: T,
}

pub(crate) type ServiceDocument = Document<Service, ServiceId>;
pub(crate) type GroupRouteDocument<T> = Document<GroupRoute<T>, RouteId>;

/// Implements [`Documented::schema_compiled`] for a type: compiled at its first use, and once.
macro_rules! schema_of {
    ($kind:ty) => {
        fn schema_compiled() -> &'static Schema {
            static SCHEMA: LazyLock<Schema> = LazyLock::new(Schema::of::<$kind>);
            &SCHEMA
        }
    };
}

/// The document that `value` is.
pub(crate) fn parse<T: Documented>(value: Value) -> Result<(T, Warnings), Violations> {
    T::schema_compiled().violations(&value).into_result()?;
    let (content, mut warnings) = document::parse::<T>(value)?;
    let mut violations = Violations::default();
    content.check(&mut violations, &mut warnings);
    violations.into_result()?;
    Ok((content, warnings))
}

/// The same with the id that the caller may have chosen.
pub(crate) fn parse_with_id<T: Documented, I>(value: Value) -> Result<Document<T, I>, Violations>
where
    I: TryFrom<String, Error: std::fmt::Display>,
{
    let mut violations = Violations::default();
    let id = chosen_id(&value, &mut violations);
    violations.into_result()?;
    let (content, warnings) = parse(value)?;
    Ok(Document { id, content, warnings })
}

pub(crate) fn service_parse(mut value: Value) -> Result<ServiceDocument, Violations> {
    stream_scheme_default(&mut value);
    parse_with_id(value)
}

pub(crate) fn group_route_parse<T: Documented>(
    mut value: Value,
) -> Result<GroupRouteDocument<T>, Violations> {
    let mut violations = Violations::default();
    let service_id = value.as_object_mut().and_then(|members| members.remove("service_id"));
    let service_id = match service_id {
        None => {
            violations.add("/service_id", "property \"service_id\" is missing");
            None
        }
        Some(id) => match serde_json::from_value::<ServiceId>(id) {
            Ok(id) => Some(id),
            Err(error) => {
                violations.add("/service_id", error.to_string());
                None
            }
        },
    };
    let parsed = parse_with_id::<T, RouteId>(value);
    match (service_id, parsed) {
        (Some(service_id), Ok(Document { id, content, warnings })) => {
            Ok(Document { id, content: GroupRoute { service_id, route: content }, warnings })
        }
        (_, parsed) => {
            violations.absorb("", parsed.err().unwrap_or_default());
            Err(violations)
        }
    }
}

/// The scheme of a stream service is `tcp` unless it says otherwise.
pub(crate) fn stream_scheme_default(service: &mut Value) {
    let is_stream = service.get("type").and_then(Value::as_str) == Some("stream");
    if let (true, Some(Value::Object(upstream))) = (is_stream, service.get_mut("upstream")) {
        upstream.entry("scheme").or_insert_with(|| Value::from("tcp"));
    }
}

fn labels_check(labels: &Labels, violations: &mut Violations) {
    let length_max = gatewright_model::limits::TEXT_LENGTH_MAX;
    for (key, value) in labels {
        if value.is_empty() || value.chars().count() > length_max {
            violations.add(format!("/labels/{key}"), format!("a label has 1 to {length_max} characters"));
        }
    }
}

impl Documented for Service {
    schema_of!(Service);

    fn check(&self, violations: &mut Violations, _: &mut Warnings) {
        labels_check(&self.labels, violations);
        plugins_check(&self.plugins, "/plugins", violations);
        if let Some(upstream) = &self.upstream {
            upstream.check("/upstream", violations);
        }
        if self.kind() == ServiceKind::Stream {
            stream_plugins_check(&self.plugins, "/plugins", violations);
        }
    }
}

impl Documented for Route {
    schema_of!(Route);

    fn check(&self, violations: &mut Violations, warnings: &mut Warnings) {
        labels_check(&self.labels, violations);
        plugins_check(&self.plugins, "/plugins", violations);
        let mut doubtful = Violations::default();
        Route::check(self, "", violations, &mut doubtful);
        doubtful.iter().for_each(|doubt| warnings.add(format!("{}: {}", doubt.path, doubt.message)));
    }
}

impl Documented for StreamRoute {
    schema_of!(StreamRoute);

    fn check(&self, violations: &mut Violations, _: &mut Warnings) {
        labels_check(&self.labels, violations);
        plugins_check(&self.plugins, "/plugins", violations);
        stream_plugins_check(&self.plugins, "/plugins", violations);
        StreamRoute::check(self, "", violations);
    }
}

impl Documented for Upstream {
    schema_of!(Upstream);

    fn check(&self, violations: &mut Violations, _: &mut Warnings) {
        labels_check(&self.labels, violations);
        Upstream::check(self, "", violations);
    }
}

impl Documented for Consumer {
    schema_of!(Consumer);

    fn check(&self, violations: &mut Violations, _: &mut Warnings) {
        labels_check(&self.labels, violations);
        consumer_plugins_check(&self.plugins, "/plugins", violations);
    }
}

impl Documented for Credential {
    schema_of!(Credential);

    fn check(&self, violations: &mut Violations, _: &mut Warnings) {
        labels_check(&self.labels, violations);
        Credential::check(self, "", violations);
        credential_plugins_check(&self.plugins, "/plugins", violations);
    }
}

impl Documented for GlobalRule {
    schema_of!(GlobalRule);

    fn check(&self, violations: &mut Violations, _: &mut Warnings) {
        labels_check(&self.labels, violations);
        GlobalRule::check(self, "", violations);
        plugins_check(&self.plugins, "/plugins", violations);
    }
}

impl Documented for PluginMetadata {
    schema_of!(PluginMetadata);

    fn check(&self, _: &mut Violations, _: &mut Warnings) {}
}

impl Documented for Proto {
    schema_of!(Proto);

    fn check(&self, violations: &mut Violations, _: &mut Warnings) {
        labels_check(&self.labels, violations);
        if let Err(reason) = protos::Proto::compile(&self.content) {
            violations.add("/content", reason);
        }
    }
}

impl Documented for ServiceRegistry {
    schema_of!(ServiceRegistry);

    fn check(&self, violations: &mut Violations, _: &mut Warnings) {
        labels_check(&self.labels, violations);
        ServiceRegistry::check(self, violations);
        service_registry::connection_check(self, violations);
    }
}

impl Documented for SecretProvider {
    schema_of!(SecretProvider);

    fn check(&self, _: &mut Violations, _: &mut Warnings) {}
}

impl Documented for Certificate {
    schema_of!(Certificate);

    fn check(&self, violations: &mut Violations, _: &mut Warnings) {
        labels_check(&self.labels, violations);
        ssl::certificate_check("/cert", &self.cert, violations);
        ssl::key_check("/key", &self.key, violations);
    }
}

impl Documented for CaCertificate {
    schema_of!(CaCertificate);

    fn check(&self, violations: &mut Violations, _: &mut Warnings) {
        labels_check(&self.labels, violations);
        ssl::certificate_check("/cert", &self.cert, violations);
    }
}

impl Documented for Sni {
    schema_of!(Sni);

    fn check(&self, violations: &mut Violations, _: &mut Warnings) {
        labels_check(&self.labels, violations);
    }
}

impl Documented for Ssl {
    schema_of!(Ssl);

    fn check(&self, violations: &mut Violations, _: &mut Warnings) {
        labels_check(&self.labels, violations);
        Ssl::check(self, "", violations);
        ssl::certificates_check(self, violations);
    }
}
