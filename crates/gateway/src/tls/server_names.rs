//! Which certificate is shown for which server name, compiled from the SSL objects of the gateway group.
//!
//! A name is looked up exactly, then as `*.` in place of its first label, then as `*`; what has none of these gets an
//! alert. When several objects claim a name, one that verifies clients wins, so that adding an object never opens
//! what another protects; then the one whose certificates last longest, so that a renewal wins while both exist.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, OnceLock};

use gatewright_model::id::ObjectId;
use gatewright_model::lifecycle::Status;
use gatewright_model::resource::group_object::{GroupObject, ObjectContent, ObjectKind};
use gatewright_model::resource::ssl::{Ssl, SslKind, TlsProtocol};
use gatewright_model::snapshot::Objects;
use gatewright_model::validation::Violations;
use rustls::pki_types::UnixTime;
use rustls::server::NoServerSessionStorage;
use rustls::version::{TLS12, TLS13};
use rustls::{ServerConfig, SupportedProtocolVersion};

use super::certificate::Certificates;
use super::client_certificate::{AskForCertificate, ClientPolicy};
use super::{PROTOCOLS, Shared};

/// What is shown for which server name.
#[derive(Default)]
pub(crate) struct ServerNames {
    objects: BTreeMap<ObjectId, Arc<Shown>>,
    exact: HashMap<Box<str>, Arc<Shown>>,
    /// By what follows `*.`.
    wildcard: HashMap<Box<str>, Arc<Shown>>,
    any: Option<Arc<Shown>>,
    /// Whether any name demands certificates of clients.
    pub(crate) verifies_clients: bool,
}

/// What the clients of some server names are shown, and must show.
pub(crate) struct Shown {
    /// What it was compiled from.
    source: Arc<GroupObject>,
    names: Vec<String>,
    pub(crate) config: Arc<ServerConfig>,
    /// The same for streams, made when it is first needed.
    stream_config: OnceLock<Arc<ServerConfig>>,
    pub(crate) policy: Option<Arc<ClientPolicy>>,
    /// When the first of the certificates ends, in seconds since 1970.
    pub(crate) valid_until: i64,
}

impl ServerNames {
    /// Compiles the SSL objects among `objects`, taking over those that did not change; also gives the objects that
    /// cannot be used, whose last good form stays.
    pub(crate) fn compile(
        before: &Arc<Self>,
        objects: &Objects,
        shared: &Shared,
    ) -> (Arc<Self>, Vec<(ObjectId, Violations)>) {
        let mut quarantined = Vec::new();
        let mut compiled = BTreeMap::new();
        let mut changed = false;
        // They come first; a million credentials may follow.
        let own = objects.iter().take_while(|(key, _)| key.kind == ObjectKind::Ssl);
        for (source, ssl) in own.filter_map(|(_, object)| Some((object, served(object)?))) {
            let known = before.objects.get(&source.id);
            if let Some(known) = known.filter(|known| Arc::ptr_eq(&known.source, source)) {
                compiled.insert(source.id.clone(), Arc::clone(known));
                continue;
            }
            changed = true;
            match Shown::compile(source, ssl, shared) {
                Ok(shown) => {
                    compiled.insert(source.id.clone(), Arc::new(shown));
                }
                Err(reason) => {
                    compiled.extend(known.map(|known| (source.id.clone(), Arc::clone(known))));
                    quarantined.push((source.id.clone(), reason));
                }
            }
        }
        if !changed && compiled.len() == before.objects.len() {
            return (Arc::clone(before), quarantined);
        }
        (Arc::new(Self::of(compiled)), quarantined)
    }

    fn of(objects: BTreeMap<ObjectId, Arc<Shown>>) -> Self {
        let mut names = Self::default();
        let mut ranked: Vec<&Arc<Shown>> = objects.values().collect();
        // Stable: among equals the smallest id comes first.
        ranked.sort_by_key(|shown| (shown.policy.is_none(), Reverse(shown.valid_until)));
        for shown in ranked {
            names.verifies_clients |= shown.policy.is_some();
            for name in &shown.names {
                if name == "*" {
                    names.any.get_or_insert_with(|| Arc::clone(shown));
                } else if let Some(suffix) = name.strip_prefix("*.") {
                    names.wildcard.entry(suffix.into()).or_insert_with(|| Arc::clone(shown));
                } else {
                    names.exact.entry(name.as_str().into()).or_insert_with(|| Arc::clone(shown));
                }
            }
        }
        names.objects = objects;
        names
    }

    /// Every name with what is shown for it, in order.
    pub(crate) fn list(&self) -> Vec<(String, &Shown)> {
        let exact = self.exact.iter().map(|(name, shown)| (name.to_string(), &**shown));
        let wildcard = self.wildcard.iter().map(|(suffix, shown)| (format!("*.{suffix}"), &**shown));
        let any = self.any.iter().map(|shown| ("*".to_owned(), &**shown));
        let mut list: Vec<_> = exact.chain(wildcard).chain(any).collect();
        list.sort_by(|(one, _), (other, _)| one.cmp(other));
        list
    }

    /// What is shown to those who ask for `name`, which is in lower case; without a name, what is shown to everybody.
    pub(crate) fn find(&self, name: Option<&str>) -> Option<&Arc<Shown>> {
        let Some(name) = name else { return self.any.as_ref() };
        let wildcard = || self.wildcard.get(name.split_once('.')?.1);
        self.exact.get(name).or_else(wildcard).or(self.any.as_ref())
    }
}

/// The versions of TLS that are spoken; all we know unless some are asked for.
fn protocol_versions(asked_for: &[TlsProtocol]) -> Vec<&'static SupportedProtocolVersion> {
    let version = |protocol: &TlsProtocol| match protocol {
        TlsProtocol::Tls12 => &TLS12,
        TlsProtocol::Tls13 => &TLS13,
    };
    match asked_for {
        [] => vec![&TLS13, &TLS12],
        asked_for => asked_for.iter().map(version).collect(),
    }
}

/// The SSL object, if clients are to see it.
fn served(object: &GroupObject) -> Option<&Ssl> {
    match &object.content {
        ObjectContent::Ssl(ssl) if ssl.kind == SslKind::Server && ssl.status == Status::Enabled => Some(ssl),
        _ => None,
    }
}

impl Shown {
    /// The SSL object it comes from.
    pub(crate) fn id(&self) -> &ObjectId {
        &self.source.id
    }

    /// How a stream shakes hands: about what follows, the gateway has nothing to agree on.
    pub(crate) fn stream_config(&self) -> &Arc<ServerConfig> {
        self.stream_config.get_or_init(|| {
            let mut config = ServerConfig::clone(&self.config);
            config.alpn_protocols.clear();
            Arc::new(config)
        })
    }

    fn compile(source: &Arc<GroupObject>, ssl: &Ssl, shared: &Shared) -> Result<Self, Violations> {
        let certificates = Certificates::compile(ssl, &shared.provider)?;
        let valid_until = certificates.valid_until;
        if u64::try_from(valid_until).is_ok_and(|end| end < UnixTime::now().as_secs()) {
            tracing::warn!(ssl = %source.id, "a certificate has ended; it is shown until it is replaced");
        }
        let policy = ssl.client.as_ref().map(ClientPolicy::compile).transpose()?.map(Arc::new);
        let builder = ServerConfig::builder_with_provider(Arc::clone(&shared.provider))
            .with_protocol_versions(&protocol_versions(&ssl.ssl_protocols))
            .map_err(|error| Violations::one("", error.to_string()))?;
        let builder = match &policy {
            Some(policy) => {
                let asking = AskForCertificate::new(policy, &shared.provider);
                builder.with_client_cert_verifier(Arc::new(asking))
            }
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_cert_resolver(Arc::new(certificates));
        config.alpn_protocols = PROTOCOLS.iter().map(|protocol| protocol.to_vec()).collect();
        // Tickets hold the session at the client: nothing to keep here, and any worker can resume it.
        config.ticketer = Arc::clone(&shared.tickets);
        config.session_storage = Arc::new(NoServerSessionStorage {});
        let names = ssl.snis.iter().map(|name| name.to_ascii_lowercase()).collect();
        let (source, config, stream_config) = (Arc::clone(source), Arc::new(config), OnceLock::new());
        Ok(Self { source, names, config, stream_config, policy, valid_until })
    }
}
