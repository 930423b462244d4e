//! Documents that callers send, parsed: checked as a whole, every violation at once, unknown fields named.
//!
//! What the system manages itself (`id`, `created_at` …) is accepted and ignored, because clients send back what
//! they have read.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use gatewright_model::id::{GatewayGroupId, RouteId, ServiceId, ServiceVersionId};
use gatewright_model::lifecycle::{RuntimeConfiguration, Status};
use gatewright_model::rehearsal::RehearsedRequest;
use gatewright_model::resource::Plugins;
use gatewright_model::resource::gateway_group::GatewayGroup;
use gatewright_model::resource::route::Route;
use gatewright_model::resource::service::{ServiceTemplate, hosts_schema};
use gatewright_model::resource::stream_route::StreamRoute;
use gatewright_model::resource::upstream::Upstream;
use gatewright_model::validation::{Schema, Violations};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use utoipa::ToSchema;

use super::RouteTemplate;
use super::plugin::{stream_plugins_check, template_plugins_check};
use super::rollout::wish::BakeWish;

/// Fields that the system manages; sending them back is no mistake.
const MANAGED: [&str; 14] = [
    "id",
    "route_id",
    "stream_route_id",
    "service_id",
    "service_version_id",
    "gateway_group_id",
    "gateway_group_name",
    "version",
    "status",
    "created_at",
    "updated_at",
    "publish_time",
    "last_published",
    "published_gateway_groups_count",
];

/// What a caller should know although the call succeeds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Warnings(Vec<String>);

impl Warnings {
    /// One text for the caller; none: nothing to warn about.
    pub(crate) fn message(&self) -> Option<String> {
        (!self.0.is_empty()).then(|| self.0.join(" | "))
    }

    pub(crate) fn add(&mut self, warning: impl Into<String>) {
        self.0.push(warning.into());
    }

    /// These, and then `more`.
    pub(crate) fn and(mut self, more: Self) -> Self {
        self.0.extend(more.0);
        self
    }
}

/// A parsed document.
#[derive(Clone, Debug)]
pub(crate) struct Document<T, I = ()> {
    /// The id that the caller chose, where a kind of object allows that.
    pub(crate) id: Option<I>,
    pub(crate) content: T,
    pub(crate) warnings: Warnings,
}

pub(crate) type ServiceTemplateDocument = Document<ServiceTemplate, ServiceId>;
pub(crate) type RouteTemplateDocument<T> = Document<RouteTemplate<T>, RouteId>;
pub(crate) type GatewayGroupDocument = Document<GatewayGroup>;
pub(crate) type PublishDocument = Document<PublishWish>;
pub(crate) type RuntimeDocument = Document<RuntimeWish>;
pub(crate) type ExplainDocument = Document<ExplainWish>;
pub(crate) type DiffDocument = Document<DiffWish>;

/// What a group should change about a published service; what is absent stays.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
pub(crate) struct RuntimeWish {
    /// Domain names the service accepts.
    #[serde(default)]
    #[schema(schema_with = hosts_schema)]
    pub(crate) hosts: Option<Vec<String>>,
    /// The path prefix in front of every path of every route.
    #[serde(default)]
    #[schema(min_length = 1, max_length = 4096, pattern = "^/", nullable = false)]
    pub(crate) path_prefix: Option<String>,
    /// Whether the path prefix is removed before the request goes to the upstream.
    #[serde(default)]
    #[schema(nullable = false)]
    pub(crate) strip_path_prefix: Option<bool>,
    /// Whether the path is forwarded as the client wrote it instead of normalised (our extension).
    #[serde(default)]
    #[schema(nullable = false)]
    pub(crate) forward_raw_path: Option<bool>,
    /// How the backend is reached in this group.
    #[serde(default)]
    #[schema(nullable = false)]
    pub(crate) upstream: Option<Upstream>,
    /// Whether the service takes traffic: 1 yes, 0 no.
    #[serde(default)]
    #[schema(value_type = u8, minimum = 0, maximum = 1)]
    pub(crate) status: Option<Status>,
}

impl RuntimeWish {
    /// `base` with what is wished for in its place.
    pub(crate) fn over(self, base: RuntimeConfiguration) -> RuntimeConfiguration {
        RuntimeConfiguration {
            hosts: self.hosts.unwrap_or(base.hosts),
            path_prefix: self.path_prefix.or(base.path_prefix),
            strip_path_prefix: self.strip_path_prefix.unwrap_or(base.strip_path_prefix),
            forward_raw_path: self.forward_raw_path.unwrap_or(base.forward_raw_path),
            upstream: self.upstream.unwrap_or(base.upstream),
            status: self.status.unwrap_or(base.status),
        }
    }
}

/// Services to publish to one gateway group, all or none.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub(crate) struct PublishWish {
    /// Whether new versions are made of the templates; `false` publishes existing versions again (roll back, or
    /// synchronise from another group).
    #[serde(default = "enabled")]
    #[schema(default = true)]
    pub(crate) create_new_version: bool,
    /// The group to publish to.
    pub(crate) gateway_group_id: GatewayGroupId,
    /// What to publish.
    #[schema(min_items = 1, max_items = 1000)]
    pub(crate) services: Vec<ServicePublishWish>,
    /// How long the services are watched, and go back to the versions before by themselves when they are worse (our
    /// extension); absent: they are not.
    #[serde(default)]
    #[schema(nullable = false)]
    pub(crate) guard: Option<BakeWish>,
    /// How this publish is told from another that asks for the same. It stands in a header.
    #[serde(skip)]
    pub(crate) idempotency: Option<Idempotency>,
}

/// What makes a call that is sent again one with the first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Idempotency {
    /// Chosen by the caller.
    pub(crate) key: String,
    /// The SHA-256 of the body.
    pub(crate) wish_sha256: String,
}

/// One service to publish.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub(crate) struct ServicePublishWish {
    /// The service.
    pub(crate) service_id: ServiceId,
    /// The number of the new version, unique within the service.
    #[serde(default)]
    #[schema(min_length = 1, max_length = 256, nullable = false)]
    pub(crate) version: Option<String>,
    /// The existing version to publish again, with `create_new_version: false`.
    #[serde(default)]
    #[schema(nullable = false)]
    pub(crate) service_version_id: Option<ServiceVersionId>,
    /// Whether any version of the service will do, even one that never ran in this group and runs nowhere now (our
    /// extension, with `create_new_version: false`).
    #[serde(default)]
    #[schema(default = false)]
    pub(crate) any_version: bool,
    /// The gateway group whose running version is published, instead of `service_version_id` (our extension, with
    /// `create_new_version: false`). A service that has no version there gets the number `version` first.
    #[serde(default)]
    #[schema(nullable = false)]
    pub(crate) source_gateway_group_id: Option<GatewayGroupId>,
    #[serde(flatten)]
    pub(crate) runtime: RuntimeWish,
}

/// Two states of services to compare.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub(crate) struct DiffWish {
    /// The first side.
    pub(crate) before: StateWish,
    /// The second side.
    pub(crate) after: StateWish,
}

/// A state of a service: its template, unless a version or a gateway group is named.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub(crate) struct StateWish {
    /// The service.
    pub(crate) service_id: ServiceId,
    /// The number of a version.
    #[serde(default)]
    #[schema(min_length = 1, max_length = 256, nullable = false)]
    pub(crate) version: Option<String>,
    /// The group in which the service is published.
    #[serde(default)]
    #[schema(nullable = false)]
    pub(crate) gateway_group_id: Option<GatewayGroupId>,
}

/// A request to explain, and the versions to explain it with.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub(crate) struct ExplainWish {
    /// Versions that take the place of the published ones, or stand beside them; past ones too.
    #[serde(default)]
    #[schema(max_items = 1000)]
    pub(crate) services: Vec<ExplainedVersion>,
    /// The revision of the group to explain it with; absent: the newest.
    #[serde(default)]
    #[schema(nullable = false)]
    pub(crate) revision: Option<u64>,
    /// The moment to explain it with, in unix seconds, instead of a revision.
    #[serde(default)]
    #[schema(nullable = false, minimum = 0)]
    pub(crate) time: Option<i64>,
    #[serde(flatten)]
    pub(crate) request: RehearsedRequest,
}

/// A version of a service, by its number.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub(crate) struct ExplainedVersion {
    /// The service.
    pub(crate) service_id: ServiceId,
    /// The number of its version.
    #[schema(min_length = 1, max_length = 256)]
    pub(crate) version: String,
}

const fn enabled() -> bool {
    true
}

/// A route of a service template as it is sent: with the id of its service beside what the route says.
#[derive(ToSchema)]
#[allow(
    dead_code,
    reason = "only its schema is used: the parts are parsed one by one to find unknown fields"
)]
pub(crate) struct RouteTemplateWish {
    /// The service template the route belongs to.
    service_id: ServiceId,
    #[serde(flatten)]
    route: Route,
}

/// A stream route of a service template as it is sent.
#[derive(ToSchema)]
#[allow(
    dead_code,
    reason = "only its schema is used: the parts are parsed one by one to find unknown fields"
)]
pub(crate) struct StreamRouteTemplateWish {
    /// The service template the stream route belongs to.
    service_id: ServiceId,
    #[serde(flatten)]
    route: StreamRoute,
}

pub(crate) fn service_template_parse(value: Value) -> Result<ServiceTemplateDocument, Violations> {
    static SCHEMA: LazyLock<Schema> = LazyLock::new(Schema::of::<ServiceTemplate>);
    let mut violations = SCHEMA.violations(&value);
    let id = chosen_id(&value, &mut violations);
    violations.into_result()?;
    let (content, mut warnings) = parse::<ServiceTemplate>(value)?;
    let mut violations = Violations::default();
    upstream_check(content.upstream.as_ref(), "/upstream")?;
    template_plugins_check(&content.plugins, "/plugins", &mut violations);
    violations.into_result()?;
    plugins_warn(&content.plugins, &mut warnings);
    Ok(Document { id, content, warnings })
}

/// A kind of route as it is sent to a template.
pub(crate) trait TemplateRoute: DeserializeOwned {
    fn wish_schema() -> &'static Schema;
    fn plugins(&self) -> &Plugins;
    fn check(&self, violations: &mut Violations, doubts: &mut Violations);
}

impl TemplateRoute for Route {
    fn wish_schema() -> &'static Schema {
        static SCHEMA: LazyLock<Schema> = LazyLock::new(Schema::of::<RouteTemplateWish>);
        &SCHEMA
    }

    fn plugins(&self) -> &Plugins {
        &self.plugins
    }

    fn check(&self, violations: &mut Violations, doubts: &mut Violations) {
        Self::check(self, "", violations, doubts);
    }
}

impl TemplateRoute for StreamRoute {
    fn wish_schema() -> &'static Schema {
        static SCHEMA: LazyLock<Schema> = LazyLock::new(Schema::of::<StreamRouteTemplateWish>);
        &SCHEMA
    }

    fn plugins(&self) -> &Plugins {
        &self.plugins
    }

    fn check(&self, violations: &mut Violations, _: &mut Violations) {
        stream_plugins_check(&self.plugins, "/plugins", violations);
        Self::check(self, "", violations);
    }
}

pub(crate) fn route_template_parse<T: TemplateRoute>(
    mut value: Value,
) -> Result<RouteTemplateDocument<T>, Violations> {
    let mut violations = T::wish_schema().violations(&value);
    let id = chosen_id(&value, &mut violations);
    violations.into_result()?;
    let service_id =
        value.as_object_mut().and_then(|members| members.remove("service_id")).unwrap_or_default();
    let service_id = ServiceId::deserialize(service_id)
        .map_err(|error| Violations::one("/service_id", error.to_string()))?;
    let (route, mut warnings) = parse::<T>(value)?;
    let (mut violations, mut doubts) = (Violations::default(), Violations::default());
    template_plugins_check(route.plugins(), "/plugins", &mut violations);
    route.check(&mut violations, &mut doubts);
    violations.into_result()?;
    warnings.0.extend(doubts.iter().map(|doubt| format!("`{}`: {}", doubt.path, doubt.message)));
    plugins_warn(route.plugins(), &mut warnings);
    Ok(Document { id, content: RouteTemplate { service_id, route }, warnings })
}

pub(crate) fn gateway_group_parse(value: Value) -> Result<GatewayGroupDocument, Violations> {
    static SCHEMA: LazyLock<Schema> = LazyLock::new(Schema::of::<GatewayGroup>);
    SCHEMA.violations(&value).into_result()?;
    let (content, warnings) = parse::<GatewayGroup>(value)?;
    let mut violations = Violations::default();
    if let Some(sampling) = &content.sampling {
        sampling.check("/sampling", &mut violations);
    }
    violations.into_result()?;
    Ok(Document { id: None, content, warnings })
}

pub(crate) fn runtime_parse(value: Value) -> Result<RuntimeDocument, Violations> {
    static SCHEMA: LazyLock<Schema> = LazyLock::new(Schema::of::<RuntimeWish>);
    SCHEMA.violations(&value).into_result()?;
    let (content, warnings) = parse::<RuntimeWish>(value)?;
    upstream_check(content.upstream.as_ref(), "/upstream")?;
    Ok(Document { id: None, content, warnings })
}

/// Unknown fields of a publish are not worth a warning: published clients send whole services.
pub(crate) fn publish_parse(value: Value) -> Result<PublishDocument, Violations> {
    static SCHEMA: LazyLock<Schema> = LazyLock::new(Schema::of::<PublishWish>);
    SCHEMA.violations(&value).into_result()?;
    let (content, warnings) = parse::<PublishWish>(value)?;
    publish_check(&content)?;
    Ok(Document { id: None, content, warnings })
}

/// A conflict check is sent like a publish, but the new version need not have a number yet.
pub(crate) fn conflict_check_parse(value: Value) -> Result<PublishDocument, Violations> {
    static SCHEMA: LazyLock<Schema> = LazyLock::new(Schema::of::<PublishWish>);
    SCHEMA.violations(&value).into_result()?;
    let (content, warnings) = parse::<PublishWish>(value)?;
    Ok(Document { id: None, content, warnings })
}

pub(crate) fn explain_parse(value: Value) -> Result<ExplainDocument, Violations> {
    static SCHEMA: LazyLock<Schema> = LazyLock::new(Schema::of::<ExplainWish>);
    SCHEMA.violations(&value).into_result()?;
    let (content, warnings) = parse(value)?;
    Ok(Document { id: None, content, warnings })
}

pub(crate) fn diff_parse(value: Value) -> Result<DiffDocument, Violations> {
    static SCHEMA: LazyLock<Schema> = LazyLock::new(Schema::of::<DiffWish>);
    SCHEMA.violations(&value).into_result()?;
    let (content, warnings) = parse(value)?;
    Ok(Document { id: None, content, warnings })
}

fn publish_check(wish: &PublishWish) -> Result<(), Violations> {
    let mut violations = Violations::default();
    let mut seen = BTreeSet::new();
    for (index, service) in wish.services.iter().enumerate() {
        let at = format!("/services/{index}");
        if !seen.insert(&service.service_id) {
            violations.add(format!("{at}/service_id"), "the service is in this publish already");
        }
        if wish.create_new_version && service.version.is_none() {
            violations.add(format!("{at}/version"), "property \"version\" is missing");
        }
        let named = [service.service_version_id.is_some(), service.source_gateway_group_id.is_some()];
        if !wish.create_new_version && named == [false, false] {
            violations.add(
                format!("{at}/service_version_id"),
                "property \"service_version_id\" is missing; without create_new_version it is required, or \
                 source_gateway_group_id",
            );
        }
        if named == [true, true] || (wish.create_new_version && named[1]) {
            violations.add(
                format!("{at}/source_gateway_group_id"),
                "stands alone: service_version_id and create_new_version exclude it",
            );
        }
        if let Some(upstream) = &service.runtime.upstream {
            upstream.check(&format!("{at}/upstream"), &mut violations);
        }
    }
    violations.into_result()
}

pub(super) fn upstream_check(upstream: Option<&Upstream>, at: &str) -> Result<(), Violations> {
    let mut violations = Violations::default();
    if let Some(upstream) = upstream {
        upstream.check(at, &mut violations);
    }
    violations.into_result()
}

/// The id in the document, if there is one.
pub(super) fn chosen_id<I: TryFrom<String>>(value: &Value, violations: &mut Violations) -> Option<I>
where
    I::Error: std::fmt::Display,
{
    match value.get("id") {
        None | Some(Value::Null) => None,
        Some(Value::String(text)) => match I::try_from(text.clone()) {
            Ok(id) => Some(id),
            Err(error) => {
                violations.add("/id", error.to_string());
                None
            }
        },
        Some(_) => {
            violations.add("/id", "value must be a string");
            None
        }
    }
}

fn plugins_warn(plugins: &Plugins, warnings: &mut Warnings) {
    for name in plugins.keys().filter(|name| !gatewright_plugins::is_known(name)) {
        warnings.0.push(format!("plugin `{name}` is unknown to this release and cannot be published"));
    }
}

/// The value of a checked document, and which of its fields mean nothing.
pub(super) fn parse<T: DeserializeOwned>(value: Value) -> Result<(T, Warnings), Violations> {
    let mut warnings = Warnings::default();
    let mut track = serde_path_to_error::Track::new();
    let deserializer = serde_path_to_error::Deserializer::new(value, &mut track);
    let parsed = serde_ignored::deserialize(deserializer, |path| {
        let pointer = pointer(&path);
        if !MANAGED.iter().any(|managed| pointer.strip_prefix('/') == Some(managed)) {
            warnings.0.push(format!("unknown field `{pointer}` is ignored"));
        }
    });
    match parsed {
        Ok(content) => Ok((content, warnings)),
        Err(error) => Err(Violations::one(error_pointer(&track.path()), error.to_string())),
    }
}

/// The JSON pointer of an ignored field.
fn pointer(path: &serde_ignored::Path<'_>) -> String {
    use serde_ignored::Path;
    match path {
        Path::Root => String::new(),
        Path::Seq { parent, index } => format!("{}/{index}", pointer(parent)),
        Path::Map { parent, key } => format!("{}/{key}", pointer(parent)),
        Path::Some { parent } | Path::NewtypeStruct { parent } | Path::NewtypeVariant { parent } => {
            pointer(parent)
        }
    }
}

/// The JSON pointer of a field that could not be parsed.
fn error_pointer(path: &serde_path_to_error::Path) -> String {
    use serde_path_to_error::Segment;
    let segment = |segment: &Segment| match segment {
        Segment::Seq { index } => format!("/{index}"),
        Segment::Map { key } => format!("/{key}"),
        Segment::Enum { variant } => format!("/{variant}"),
        Segment::Unknown => String::new(),
    };
    path.iter().map(segment).collect()
}

#[cfg(test)]
mod tests {
    use gatewright_model::limits;
    use serde_json::json;

    use super::*;

    fn publish(services: usize, version: usize, path_prefix: usize) -> Result<PublishDocument, Violations> {
        let service = |index| {
            json!({
                "service_id": format!("s{index}"), "version": "1".repeat(version),
                "path_prefix": format!("/{}", "x".repeat(path_prefix - 1))
            })
        };
        let services: Vec<_> = (0..services).map(service).collect();
        publish_parse(json!({"gateway_group_id": "g", "services": services}))
    }

    /// Schema attributes take literals only; this keeps them equal to the limits of the model.
    #[test]
    fn a_publish_may_be_as_large_as_the_limits_say_and_no_larger() {
        let (services, version) = (limits::SERVICES_PER_PUBLISH_MAX, limits::VERSION_LENGTH_MAX);
        let path = limits::PATH_LENGTH_MAX;
        assert!(publish(services, 1, 1).is_ok());
        assert!(publish(1, version, path).is_ok());
        for (beyond, at) in [
            (publish(services + 1, 1, 1), "/services"),
            (publish(1, version + 1, 1), "/services/0/version"),
            (publish(1, 1, path + 1), "/services/0/path_prefix"),
        ] {
            let violations = beyond.unwrap_err();
            let paths: Vec<_> = violations.iter().map(|violation| violation.path.as_str()).collect();
            assert_eq!(paths, [at]);
        }
    }
}
