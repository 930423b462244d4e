//! What a kind of plugin is: its name, its place in the order, what it is configured with, and how an instance of it
//! is built.
//!
//! Building has no side effect: the control plane builds an instance to see whether a configuration is right and
//! throws it away. Whatever an instance shares with others it gets from its [`Site`].

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use gatewright_model::resource::upstream::Upstream;
use gatewright_model::validation::{Schema, Violations};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::consumers::CredentialKind;
use crate::exchange::{Exchange, Flow};
use crate::meta;
use crate::outbound::Outbound;
use crate::protos::Protos;
use crate::response::Response;
use crate::shared::Shared;

/// What can be done to a request and its response. An instance serves all workers at once.
///
/// A phase that a kind does not list in [`Kind::phases`] is never called.
pub trait Plugin: Send + Sync {
    /// Looks at the head of a request before anybody is authenticated, or authenticates.
    fn rewrite(&self, _exchange: &mut Exchange<'_>) -> Flow {
        Flow::Continue
    }

    /// Looks at the head of a request once the consumer is known.
    fn access(&self, _exchange: &mut Exchange<'_>) -> Flow {
        Flow::Continue
    }

    /// Looks at the request as it goes to its upstream.
    fn before_upstream(&self, _exchange: &mut Exchange<'_>) -> Flow {
        Flow::Continue
    }

    /// Looks at the head of a response, and says what becomes of its body.
    fn response(&self, _exchange: &mut Exchange<'_>, _response: &mut Response<'_>) {}

    /// The upstreams written out in the configuration, among which [`crate::exchange::UpstreamChoice::Inline`] chooses.
    fn upstreams(&self) -> Vec<Arc<Upstream>> {
        Vec::new()
    }

    /// Whether a global rule of this kind does not run where route, service or consumer have one of their own.
    fn yields_to_route(&self) -> bool {
        false
    }

    /// Takes note of an exchange that is over.
    fn log(&self, _exchange: &mut Exchange<'_>, _outcome: &Outcome) {}
}

/// How an exchange ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The status the client got; 499: none, it left before.
    pub status: u16,
    /// The status the upstream answered with, if it did.
    pub upstream_status: Option<u16>,
    /// When the request began to arrive, since 1970.
    pub begun: Duration,
    /// From the first byte of the request to the last one of the answer.
    pub total: Duration,
    /// From the first try at a node to the end; absent if there was none.
    pub upstream: Option<Duration>,
    /// The node that was asked last.
    pub node: Option<SocketAddr>,
    /// Bytes of the request, head and body.
    pub bytes_in: u64,
    /// Bytes of the answer, head and body.
    pub bytes_out: u64,
}

impl Outcome {
    /// What the gateway itself took: everything but the upstream.
    #[must_use]
    pub fn gateway(&self) -> Duration {
        self.total.saturating_sub(self.upstream.unwrap_or_default())
    }
}

/// The phases a kind of plugin takes part in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Phases(u8);

/// One phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is the method of that name")]
pub enum Phase {
    Rewrite,
    Access,
    BeforeUpstream,
    Response,
    Log,
}

impl Phase {
    /// All of them, in the order of the exchange.
    pub(crate) const ALL: [Self; 5] =
        [Self::Rewrite, Self::Access, Self::BeforeUpstream, Self::Response, Self::Log];
}

impl Phases {
    /// The given phases.
    #[must_use]
    pub const fn of(phases: &[Phase]) -> Self {
        let (mut bits, mut index) = (0, 0);
        while index < phases.len() {
            bits |= 1 << phases[index] as u8;
            index += 1;
        }
        Self(bits)
    }

    /// Whether `phase` is one of them.
    #[must_use]
    pub const fn has(self, phase: Phase) -> bool {
        self.0 & (1 << phase as u8) != 0
    }
}

/// What a plugin does in general; the admin API calls it the type of the plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Category {
    Authentication,
    Validation,
    Other,
}

/// A kind of plugin.
pub struct Kind {
    /// By which configurations know it.
    pub name: &'static str,
    /// Higher ones run earlier within a phase.
    pub priority: i32,
    /// What it does in general.
    pub category: Category,
    /// When it is asked.
    pub phases: Phases,
    /// The JSON Schema of its configuration.
    pub schema: fn() -> Value,
    /// The JSON Schema of the settings that all its uses in a gateway group share, if there are any.
    pub metadata: Option<fn() -> Value>,
    /// What consumers show to it.
    pub credential: Option<&'static CredentialKind>,
    /// Makes an instance of a configuration that satisfies the schema.
    pub build: fn(Value, &Site<'_>) -> Built,
}

impl Kind {
    /// The JSON Schema of a configuration, with the member that every configuration may have.
    #[must_use]
    pub fn document(&self) -> Value {
        let mut schema = (self.schema)();
        schema["properties"][meta::MEMBER] = meta::schema();
        schema
    }
}

/// An instance, or everything wrong with its configuration.
pub type Built = Result<Arc<dyn Plugin>, Violations>;

/// Where an instance is going to work.
pub struct Site<'s> {
    /// The group-wide settings of its kind.
    pub metadata: Option<&'s Map<String, Value>>,
    /// State that instances share by name.
    pub shared: &'s Shared,
    /// The way outside.
    pub outbound: &'s Arc<dyn Outbound>,
    /// The protos of the gateway group.
    pub protos: &'s Protos,
    /// The object whose plugin it is, the same on every gateway: `route/r1`.
    pub owner: &'s str,
}

impl Site<'_> {
    /// The group-wide settings as the type of the kind; what is absent or wrong there is the default.
    #[must_use]
    pub fn metadata<T: DeserializeOwned + Default>(&self) -> T {
        let settings = self.metadata.cloned().map(Value::Object);
        settings.and_then(|settings| serde_json::from_value(settings).ok()).unwrap_or_default()
    }
}

/// A configuration as the type of its kind.
///
/// # Errors
/// What serde says, for what a schema cannot.
pub(crate) fn parse<T: DeserializeOwned>(config: Value) -> Result<T, Violations> {
    serde_json::from_value(config).map_err(|error| Violations::one("", error.to_string()))
}

/// The schemas of a kind, compiled.
pub(crate) struct Schemas {
    pub(crate) config: Schema,
    pub(crate) metadata: Option<Schema>,
    pub(crate) credential: Option<Schema>,
}

impl Schemas {
    pub(crate) fn of(kind: &Kind) -> Self {
        let compile = |document: Value| match Schema::compile(document) {
            Ok(schema) => schema,
            Err(error) => unreachable!("the schema of plugin {} is invalid: {error}", kind.name),
        };
        Self {
            config: compile(kind.document()),
            metadata: kind.metadata.map(|document| compile(document())),
            credential: kind.credential.map(|credential| compile((credential.schema)())),
        }
    }
}

impl std::fmt::Debug for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}
