//! Who may call: consumers by name, and their credentials by what is shown.
//!
//! Both indexes are persistent maps: a configuration that adds one credential to a million shares the rest with the
//! one before it, and a request that runs on the older one is not disturbed.
//! A credential that two consumers claim belongs to the first by name and id, always the same one on every gateway.

use std::any::Any;
use std::sync::Arc;

use gatewright_model::resource;
use gatewright_model::validation::Violations;
use imbl::HashMap;
use serde_json::Value;

use crate::chain::Layer;
use crate::kind::{Kind, Schemas};
use crate::secrets;

/// What consumers show to a kind of plugin.
pub struct CredentialKind {
    /// The JSON Schema of what is kept for a consumer.
    pub schema: fn() -> Value,
    /// The field by which a credential is found.
    pub found_by: &'static str,
    /// The fields that are secret.
    pub secret: &'static [&'static str],
    /// Makes what the plugin compares with.
    pub parse: fn(Value) -> Result<Parsed, Violations>,
}

/// What a plugin made of a credential.
pub type Parsed = Arc<dyn Any + Send + Sync>;

/// A consumer, as requests need it.
pub struct Consumer {
    /// Its name.
    pub name: Box<str>,
    /// Its label `custom_id`.
    pub custom_id: Option<Box<str>>,
    /// Its labels.
    pub labels: resource::Labels,
    /// Its plugins, or why its requests are refused.
    pub plugins: Result<Layer, Violations>,
}

/// A credential, as requests need it.
pub struct Credential {
    /// Its id, if it is an object of its own and not part of a consumer.
    pub id: Option<Box<str>>,
    /// Whose it is.
    pub consumer: Box<str>,
    parsed: Parsed,
}

impl Credential {
    /// What the plugin made of it.
    #[must_use]
    pub fn parsed<T: Any>(&self) -> Option<&T> {
        self.parsed.downcast_ref()
    }

    fn rank(&self) -> (&str, Option<&str>) {
        (&self.consumer, self.id.as_deref())
    }
}

/// All consumers and credentials of a gateway group.
#[derive(Clone, Default)]
pub struct Consumers {
    consumers: HashMap<Box<str>, Arc<Consumer>>,
    /// By kind, then by what is shown.
    credentials: HashMap<&'static str, HashMap<Box<[u8]>, Claim>>,
}

/// Almost always one.
type Claim = Vec<Arc<Credential>>;

impl Consumers {
    /// The consumer called `name`.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<&Arc<Consumer>> {
        self.consumers.get(name)
    }

    /// The credential of `kind` that is found by `shown`.
    #[must_use]
    pub fn find(&self, kind: &Kind, shown: &[u8]) -> Option<&Arc<Credential>> {
        self.credentials.get(kind.name)?.get(shown)?.first()
    }

    /// What the consumers add to the plugins of routes.
    pub fn layers(&self) -> impl Iterator<Item = &Layer> {
        self.consumers.values().filter_map(|consumer| consumer.plugins.as_ref().ok())
    }

    /// How many consumers there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.consumers.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.consumers.is_empty()
    }

    /// Adds a consumer, with the credentials written into its plugins.
    pub fn add_consumer(
        &mut self,
        consumer: &resource::consumer::Consumer,
        plugins: Result<Layer, Violations>,
    ) {
        let name: Box<str> = consumer.username.as_str().into();
        for (kind, config) in credentials_of(&consumer.plugins) {
            self.claim(kind, config, &name, None);
        }
        let custom_id = consumer.labels.get("custom_id").map(|id| id.as_str().into());
        let labels = consumer.labels.clone().into_inner();
        let known = Consumer { name: name.clone(), custom_id, labels, plugins };
        self.consumers.insert(name, Arc::new(known));
    }

    /// Removes a consumer, with the credentials written into its plugins.
    pub fn remove_consumer(&mut self, consumer: &resource::consumer::Consumer) {
        for (kind, config) in credentials_of(&consumer.plugins) {
            self.disclaim(kind, config, (&consumer.username, None));
        }
        self.consumers.remove(consumer.username.as_str());
    }

    /// Adds a credential object.
    pub fn add_credential(&mut self, consumer: &str, id: &str, credential: &resource::consumer::Credential) {
        for (kind, config) in credentials_of(&credential.plugins) {
            self.claim(kind, config, consumer, Some(id));
        }
    }

    /// Removes a credential object.
    pub fn remove_credential(
        &mut self,
        consumer: &str,
        id: &str,
        credential: &resource::consumer::Credential,
    ) {
        for (kind, config) in credentials_of(&credential.plugins) {
            self.disclaim(kind, config, (consumer, Some(id)));
        }
    }

    /// A credential that cannot be read proves nothing; writing it was refused already.
    fn claim(&mut self, kind: &Kind, config: &Value, consumer: &str, id: Option<&str>) {
        let (Some(about), Some(shown)) = (kind.credential, shown(kind, config)) else { return };
        // The text of a reference is no secret: whoever can read the configuration could show it.
        if secrets::are_in(config) {
            return;
        }
        let Ok(parsed) = (about.parse)(config.clone()) else { return };
        let credential = Arc::new(Credential { id: id.map(Into::into), consumer: consumer.into(), parsed });
        let claim = self.credentials.entry(kind.name).or_default().entry(shown).or_default();
        claim.retain(|known| known.rank() != credential.rank());
        claim.push(credential);
        claim.sort_by(|one, other| one.rank().cmp(&other.rank()));
    }

    fn disclaim(&mut self, kind: &Kind, config: &Value, rank: (&str, Option<&str>)) {
        let Some(shown) = shown(kind, config) else { return };
        let Some(credentials) = self.credentials.get_mut(kind.name) else { return };
        if let Some(claim) = credentials.get_mut(&shown) {
            claim.retain(|known| known.rank() != rank);
            if claim.is_empty() {
                credentials.remove(&shown);
            }
        }
    }
}

/// The plugins among `plugins` that hold a credential.
fn credentials_of(plugins: &resource::Plugins) -> impl Iterator<Item = (&'static Kind, &Value)> {
    let known = plugins.iter().filter_map(|(name, config)| Some((crate::find(name)?, config)));
    known.filter(|(kind, config)| is_credential(kind, config))
}

/// Whether `config` is what a consumer shows, and not how a route asks for it.
pub(crate) fn is_credential(kind: &Kind, config: &Value) -> bool {
    kind.credential.is_some_and(|about| config.get(about.found_by).is_some())
}

fn shown(kind: &Kind, config: &Value) -> Option<Box<[u8]>> {
    let text = config.get(kind.credential?.found_by)?.as_str()?;
    Some(text.as_bytes().into())
}

/// Everything wrong with `config` as a credential for `kind`.
pub(crate) fn violations(kind: &Kind, schemas: &Schemas, config: &Value) -> Violations {
    let (Some(about), Some(schema)) = (kind.credential, &schemas.credential) else {
        return Violations::one("", format!("plugin `{}` takes no credentials", kind.name));
    };
    let found = schema.violations(config);
    if secrets::are_in(config) {
        return secrets::around_references(config, &found);
    }
    if !found.is_empty() {
        return found;
    }
    let read = (about.parse)(config.clone());
    read.err().unwrap_or_default()
}
