//! What belongs to a gateway group beside its services: certificates, consumers and their credentials, global rules,
//! plugin metadata, protos, secret providers, service registries.
//!
//! These objects have no versions: writing one changes what the group's gateways do at once. They travel to gateways
//! beside the published services, each under a key that never changes.

use serde::{Deserialize, Serialize};

use super::consumer::{Consumer, Credential};
use super::global_rule::GlobalRule;
use super::plugin_metadata::PluginMetadata;
use super::proto::Proto;
use super::secret_provider::SecretProvider;
use super::service_registry::ServiceRegistry;
use super::ssl::Ssl;
use crate::id::ObjectId;

/// The kinds of objects of a gateway group, by the words the store and the wire use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ObjectKind {
    /// [`Ssl`].
    Ssl,
    /// [`Consumer`].
    Consumer,
    /// [`Credential`].
    Credential,
    /// [`GlobalRule`].
    GlobalRule,
    /// [`PluginMetadata`].
    PluginMetadata,
    /// [`Proto`].
    Proto,
    /// [`SecretProvider`].
    SecretProvider,
    /// [`ServiceRegistry`].
    ServiceRegistry,
}

/// What stands before the id of an SNI where gateways know it as an SSL object.
pub const SNI_PLACE: &str = "sni.";

/// What stands before the id of a certificate on its own where gateways know it as an SSL object.
pub const CERTIFICATE_PLACE: &str = "certificate.";

/// What an object is known by within its gateway group.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ObjectKey {
    /// What it is.
    pub kind: ObjectKind,
    /// The consumer, of a credential: two consumers may call their credentials the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consumer: Option<ObjectId>,
    /// Its id among those of its kind: a plugin's name for global rules and plugin metadata, `manager.id` for a
    /// secret provider; for an SSL object that is an SNI or a certificate on its own, its place and id.
    pub id: ObjectId,
}

/// An object as gateways get it, with its secrets in the clear: the channel is what protects it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GroupObject {
    /// Its id among those of its kind.
    pub id: ObjectId,
    /// What it says.
    #[serde(flatten)]
    pub content: ObjectContent,
}

/// The content of an object, by kind.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", content = "content", rename_all = "snake_case")]
pub enum ObjectContent {
    /// Certificates for server names, or to show to upstreams.
    Ssl(Ssl),
    /// Who calls; its id is its user name.
    Consumer(Consumer),
    /// How a consumer proves who it is.
    Credential {
        /// The user name of the consumer it belongs to.
        consumer: ObjectId,
        /// What is shown.
        credential: Credential,
    },
    /// A plugin for every request.
    GlobalRule(GlobalRule),
    /// What all uses of a plugin share.
    PluginMetadata(PluginMetadata),
    /// What a gRPC service can be asked.
    Proto(Proto),
    /// Where secrets are looked up.
    SecretProvider(SecretProvider),
    /// Where nodes are found.
    ServiceRegistry(Box<ServiceRegistry>),
}

impl GroupObject {
    /// What it is known by.
    #[must_use]
    pub fn key(&self) -> ObjectKey {
        let kind = match self.content {
            ObjectContent::Ssl(_) => ObjectKind::Ssl,
            ObjectContent::Consumer(_) => ObjectKind::Consumer,
            ObjectContent::Credential { .. } => ObjectKind::Credential,
            ObjectContent::GlobalRule(_) => ObjectKind::GlobalRule,
            ObjectContent::PluginMetadata(_) => ObjectKind::PluginMetadata,
            ObjectContent::Proto(_) => ObjectKind::Proto,
            ObjectContent::SecretProvider(_) => ObjectKind::SecretProvider,
            ObjectContent::ServiceRegistry(_) => ObjectKind::ServiceRegistry,
        };
        let consumer = match &self.content {
            ObjectContent::Credential { consumer, .. } => Some(consumer.clone()),
            _ => None,
        };
        ObjectKey { kind, consumer, id: self.id.clone() }
    }
}
