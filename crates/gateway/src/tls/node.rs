//! TLS towards nodes: what a node must show, what it is shown, and the handshake.
//!
//! A node's certificate is verified, against the authorities of the system and those added at the start, unless the
//! upstream says otherwise. It must be for the name the upstream rewrites `Host` to, or else for the node's own host:
//! never for a name a client chose.
//!
//! Connections to the same address with different demands are different: each combination of demands and name has a
//! number, and connections kept open are kept under it. The combination is found again when a configuration changes
//! without changing it, so connections and sessions outlive changes that do not concern them.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use gatewright_model::lifecycle::Status;
use gatewright_model::resource::group_object::{GroupObject, ObjectContent};
use gatewright_model::resource::ssl::SslKind;
use gatewright_model::resource::upstream::{self as resource, PassHost};
use rustls::client::Resumption;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::certificate;
use crate::transport::Tls;

/// Sessions kept to be resumed with one node.
const SESSIONS_MAX: usize = 32;

/// How often failures of one node are worth a warning; those between are only for debugging.
const COMPLAINT_PAUSE: Duration = Duration::from_secs(10);

/// What is demanded of nodes and shown to them.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Demands {
    /// Whether the node's certificate must verify.
    verify: bool,
    /// What the node is shown, and its key, in PEM.
    client: Option<Arc<(String, String)>>,
    /// The protocols offered, best first (ALPN).
    protocols: &'static [&'static [u8]],
}

/// Why no TLS can be made of what an upstream says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unusable {
    #[error("`{0}` is no name a certificate could be for")]
    Name(String),
    #[error("tls.client_cert_id: there is no SSL object `{0}` of type `client` in use in the gateway group")]
    NoObject(String),
    #[error("the client certificate cannot be used: {0}")]
    ClientCertificate(String),
    #[error("nodes cannot be verified: {0}")]
    Authorities(String),
}

impl Demands {
    /// What `upstream` says; `object` is what its `tls.client_cert_id` names.
    ///
    /// # Errors
    /// When the client certificate it names is not there.
    pub(crate) fn of(
        upstream: &resource::Upstream,
        object: Option<&GroupObject>,
        protocols: &'static [&'static [u8]],
    ) -> Result<Self, Unusable> {
        let Some(tls) = &upstream.tls else { return Ok(Self { verify: true, client: None, protocols }) };
        let client = match (&tls.client_cert, &tls.client_key, &tls.client_cert_id) {
            (Some(certificate), Some(key), _) => Some((certificate.clone(), key.clone())),
            (_, _, Some(id)) => {
                let pair = object.and_then(client_pair);
                Some(pair.ok_or_else(|| Unusable::NoObject(id.to_string()))?)
            }
            _ => None,
        };
        Ok(Self { verify: tls.verify.unwrap_or(true), client: client.map(Arc::new), protocols })
    }

    /// The same, believing whatever a node shows if `verify` is false.
    pub(crate) fn verifying(self, verify: bool) -> Self {
        Self { verify: self.verify && verify, ..self }
    }
}

/// The certificate and key of an SSL object that is there to be shown to nodes.
fn client_pair(object: &GroupObject) -> Option<(String, String)> {
    match &object.content {
        ObjectContent::Ssl(ssl) if ssl.kind == SslKind::Client && ssl.status == Status::Enabled => {
            let first = ssl.cert.clone().zip(ssl.key.clone());
            first.or_else(|| ssl.certs.first().cloned().zip(ssl.keys.first().cloned()))
        }
        _ => None,
    }
}

/// The name a node's certificate must be for.
pub(crate) fn name_of(
    upstream: &resource::Upstream,
    node_host: &str,
) -> Result<ServerName<'static>, Unusable> {
    let rewritten = upstream.upstream_host.as_deref().filter(|_| upstream.pass_host == PassHost::Rewrite);
    name(rewritten.unwrap_or(node_host))
}

/// A domain name or an address, which may stand in brackets.
pub(crate) fn name(host: &str) -> Result<ServerName<'static>, Unusable> {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    if let Ok(ip) = bare.parse::<IpAddr>() {
        return Ok(ServerName::from(ip));
    }
    ServerName::try_from(bare.to_ascii_lowercase()).map_err(|_| Unusable::Name(host.to_owned()))
}

/// The combinations of demands and name in use.
pub(crate) struct NodeSessions {
    provider: Arc<CryptoProvider>,
    added: Vec<CertificateDer<'static>>,
    /// Read from the system when first needed.
    authorities: OnceLock<Arc<RootCertStore>>,
    known: Known,
    numbers: AtomicU64,
}

type Known = Arc<Mutex<HashMap<Combination, Weak<NodeSession>>>>;
type Combination = (Demands, ServerName<'static>);

/// TLS with one name under the same demands.
pub(crate) struct NodeSession {
    /// What connections of it are kept under; never used again for another one.
    pub(crate) number: u64,
    combination: Combination,
    connector: TlsConnector,
    complained_at: Mutex<Option<Instant>>,
    known: Weak<Mutex<HashMap<Combination, Weak<NodeSession>>>>,
}

impl NodeSessions {
    /// Believes the authorities of the system and those in `added`.
    pub(crate) fn new(provider: Arc<CryptoProvider>, added: Vec<CertificateDer<'static>>) -> Self {
        let (authorities, known, numbers) = (OnceLock::new(), Known::default(), AtomicU64::new(1));
        Self { provider, added, authorities, known, numbers }
    }

    /// The session of `demands` with `name`: the one that is in use, or a new one.
    ///
    /// # Errors
    /// When the client certificate cannot be used, or there is nothing to verify nodes by.
    pub(crate) fn session(
        &self,
        demands: Demands,
        name: ServerName<'static>,
    ) -> Result<Arc<NodeSession>, Unusable> {
        let combination = (demands, name);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(session) = known.get(&combination).and_then(Weak::upgrade) {
            return Ok(session);
        }
        let session = Arc::new(NodeSession {
            number: self.numbers.fetch_add(1, Ordering::Relaxed),
            connector: TlsConnector::from(Arc::new(self.config(&combination.0)?)),
            combination: combination.clone(),
            complained_at: Mutex::new(None),
            known: Arc::downgrade(&self.known),
        });
        known.insert(combination, Arc::downgrade(&session));
        Ok(session)
    }

    /// TLS with whoever plugins ask, who must show a certificate that verifies unless `verify` is false.
    ///
    /// # Errors
    /// When there is nothing to verify them by.
    pub(crate) fn client(&self, verify: bool) -> Result<ClientConfig, Unusable> {
        self.config(&Demands { verify, client: None, protocols: super::NODE_PROTOCOLS })
    }

    fn config(&self, demands: &Demands) -> Result<ClientConfig, Unusable> {
        let unusable = |error: &dyn fmt::Display| Unusable::Authorities(error.to_string());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| unusable(&error))?;
        let verifier: Arc<dyn ServerCertVerifier> = match demands.verify {
            false => Arc::new(Believe { provider: Arc::clone(&self.provider) }),
            true => {
                WebPkiServerVerifier::builder_with_provider(self.authorities(), Arc::clone(&self.provider))
                    .build()
                    .map_err(|error| unusable(&error))?
            }
        };
        let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
        let mut config = match demands.client.as_deref() {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let (certificate, key) =
                    (("client_cert".to_owned(), &**certificate), ("client_key".to_owned(), &**key));
                let (pair, _) = certificate::pair(&certificate, &key, &self.provider)
                    .map_err(|wrong| Unusable::ClientCertificate(wrong.to_string()))?;
                builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(pair)))
            }
        };
        config.alpn_protocols = demands.protocols.iter().map(|protocol| protocol.to_vec()).collect();
        config.resumption = Resumption::in_memory_sessions(SESSIONS_MAX);
        Ok(config)
    }

    fn authorities(&self) -> Arc<RootCertStore> {
        Arc::clone(self.authorities.get_or_init(|| {
            let mut store = gatewright_discovery::tls::SYSTEM.clone();
            store.add_parsable_certificates(self.added.iter().cloned());
            Arc::new(store)
        }))
    }
}

impl NodeSession {
    /// Shakes hands over `stream`.
    ///
    /// # Errors
    /// The cause, which has been logged.
    pub(crate) async fn connect(&self, stream: TcpStream, address: SocketAddr) -> io::Result<Tls> {
        let shaken = self.connector.connect(self.combination.1.clone(), stream).await;
        shaken.map(Tls::from).inspect_err(|error| self.complain(address, error))
    }

    fn complain(&self, address: SocketAddr, error: &io::Error) {
        let name = self.combination.1.to_str();
        let mut complained_at = self.complained_at.lock().unwrap_or_else(PoisonError::into_inner);
        if complained_at.is_some_and(|at| at.elapsed() < COMPLAINT_PAUSE) {
            tracing::debug!(%address, %name, %error, "a TLS handshake with a node failed");
            return;
        }
        *complained_at = Some(Instant::now());
        tracing::warn!(%address, %name, %error, "a TLS handshake with a node failed");
    }
}

impl Drop for NodeSession {
    fn drop(&mut self) {
        let Some(known) = self.known.upgrade() else { return };
        let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
        // Another one may have taken its place already.
        if known.get(&self.combination).is_some_and(|session| session.strong_count() == 0) {
            known.remove(&self.combination);
        }
    }
}

/// Believes every certificate, for upstreams that say `verify: false`.
#[derive(Debug)]
struct Believe {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Believe {
    fn verify_server_cert(
        &self,
        _own: &CertificateDer<'_>,
        _between: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    // Nobody knows whose key it would be, so there is nothing to check; and certificates that are old enough to be
    // of version 1 cannot be read for it.
    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::tls::{NODE_PROTOCOLS, testing};

    fn upstream(tls: Value) -> resource::Upstream {
        serde_json::from_value(json!({"scheme": "https", "tls": tls})).unwrap()
    }

    fn sessions() -> NodeSessions {
        let (authority, _) = testing::pair("authority");
        let added = certificate::chain(&authority).unwrap();
        NodeSessions::new(Arc::new(rustls::crypto::ring::default_provider()), added)
    }

    fn session(sessions: &NodeSessions, tls: Value, host: &str) -> Result<Arc<NodeSession>, Unusable> {
        let demands = Demands::of(&upstream(tls), None, NODE_PROTOCOLS)?;
        sessions.session(demands, name(host)?)
    }

    #[test]
    fn the_same_demands_and_name_are_one_session_and_any_other_is_another() {
        let sessions = sessions();
        let (certificate, key) = testing::pair("client");
        let client = json!({"client_cert": certificate, "client_key": key});
        let first = session(&sessions, json!({}), "a.example").unwrap();
        let same = session(&sessions, json!({"verify": true}), "A.example").unwrap();
        assert!(Arc::ptr_eq(&first, &same));
        for (tls, host) in [
            (json!({"verify": false}), "a.example"),
            (client.clone(), "a.example"),
            (json!({}), "b.example"),
            (json!({}), "10.0.0.1"),
        ] {
            let other = session(&sessions, tls.clone(), host).unwrap();
            assert_ne!(first.number, other.number, "{tls} {host}");
        }
        let shown = session(&sessions, client.clone(), "a.example").unwrap();
        assert!(Arc::ptr_eq(&shown, &session(&sessions, client, "a.example").unwrap()));
    }

    #[test]
    fn what_nobody_uses_is_forgotten_and_its_number_is_never_used_again() {
        let sessions = sessions();
        let number = session(&sessions, json!({}), "a.example").unwrap().number;
        assert!(sessions.known.lock().unwrap().is_empty());
        assert_ne!(session(&sessions, json!({}), "a.example").unwrap().number, number);
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let sessions = sessions();
        let ((certificate, _), (_, key)) = (testing::pair("one"), testing::pair("two"));
        let refused = |tls, host| session(&sessions, tls, host).err().map(|error| error.to_string());
        for (tls, host, expected) in [
            (json!({}), "no name", "`no name` is no name a certificate could be for"),
            (
                json!({"client_cert_id": "gone"}),
                "a",
                "tls.client_cert_id: there is no SSL object `gone` of type `client` in use in the gateway group",
            ),
            (
                json!({"client_cert": certificate, "client_key": key}),
                "a",
                "the client certificate cannot be used: Error at \"client_key\": the private key does not belong to the certificate",
            ),
        ] {
            assert_eq!(refused(tls, host).as_deref(), Some(expected));
        }
    }

    #[test]
    fn a_node_is_known_by_what_the_upstream_rewrites_to_or_by_its_own_host() {
        let named = |fields: Value, host| {
            let upstream = serde_json::from_value(fields).unwrap();
            name_of(&upstream, host).map(|name| name.to_str().into_owned())
        };
        let rewrite = json!({"pass_host": "rewrite", "upstream_host": "Shop.example"});
        assert_eq!(named(rewrite, "10.0.0.1"), Ok("shop.example".to_owned()));
        let unused = json!({"pass_host": "pass", "upstream_host": "shop.example"});
        assert_eq!(named(unused, "orders.internal"), Ok("orders.internal".to_owned()));
        assert_eq!(named(json!({}), "[::1]"), Ok("::1".to_owned()));
    }
}
