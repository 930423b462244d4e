//! TLS towards clients, which certificate is shown, who must show one, and towards nodes.
//!
//! Certificates are chosen by the server name a client asks for, from the group's SSL objects, which are part of the
//! live configuration: a new certificate is shown from the next handshake on, and open connections stay as they are.
//! An object that cannot be used is quarantined by name and does not touch the others.
//!
//! * [`certificate`]: certificates with their private keys, from PEM.
//! * [`server_names`]: which of them is shown for which server name.
//! * [`client_certificate`]: what clients must show, and whether a request may use the connection it came on.
//! * [`node`]: what nodes must show and are shown.
//! * [`handshake`]: from an accepted TCP connection to a session, in bounded time.

pub(crate) mod certificate;
pub(crate) mod client_certificate;
pub(crate) mod handshake;
pub(crate) mod node;
pub(crate) mod server_names;

use std::path::Path;
use std::sync::Arc;

use gatewright_model::resource::ssl::Ssl;
use gatewright_model::validation::Violations;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::ProducesTickets;

use crate::config::{StartError, Tls as Settings};
use certificate::Certificates;
use client_certificate::ClientPolicy;
use handshake::Failures;
use node::NodeSessions;

/// The protocols offered to clients, best first (ALPN).
pub(crate) const PROTOCOLS: &[&[u8]] = &[b"h2", b"http/1.1"];

/// The protocols offered to nodes that are asked in HTTP/1.
pub(crate) const NODE_PROTOCOLS: &[&[u8]] = &[b"http/1.1"];

/// The protocols offered to nodes that are asked in HTTP/2.
pub(crate) const GRPC_NODE_PROTOCOLS: &[&[u8]] = &[b"h2"];

/// What all TLS of the process shares and no configuration changes.
pub(crate) struct Shared {
    pub(crate) provider: Arc<CryptoProvider>,
    /// Makes session tickets that every worker accepts; their keys are replaced every six hours and accepted for
    /// twelve.
    tickets: Arc<dyn ProducesTickets>,
    /// The server name taken for that of clients that name none.
    fallback_server_name: Option<String>,
    /// TLS with nodes.
    pub(crate) nodes: NodeSessions,
    /// Handshakes that came to nothing.
    pub(crate) failures: Failures,
}

/// What keeps an SSL object from being used, each with its JSON path in the object.
pub(crate) fn violations(ssl: &Ssl) -> Violations {
    let provider = ring::default_provider();
    let mut violations = Certificates::compile(ssl, &provider).err().unwrap_or_default();
    if let Some(Err(wrong)) = ssl.client.as_ref().map(ClientPolicy::compile) {
        violations.absorb("", wrong);
    }
    violations
}

impl Shared {
    /// # Errors
    /// When the added authorities cannot be read, or the system has no random numbers.
    pub(crate) fn new(settings: &Settings) -> Result<Self, StartError> {
        let added = settings.upstream_authorities.as_deref().map(authorities).transpose()?;
        let provider = Arc::new(ring::default_provider());
        Ok(Self {
            nodes: NodeSessions::new(Arc::clone(&provider), added.unwrap_or_default()),
            provider,
            tickets: ring::Ticketer::new()?,
            fallback_server_name: settings.fallback_server_name.as_deref().map(str::to_ascii_lowercase),
            failures: Failures::default(),
        })
    }
}

/// The certificates in the PEM file `path`, each usable as an authority.
fn authorities(path: &Path) -> Result<Vec<CertificateDer<'static>>, StartError> {
    let failed = |reason: String| StartError::Authorities { path: path.to_owned(), reason };
    let read = CertificateDer::pem_file_iter(path).map_err(|error| failed(error.to_string()))?;
    let read: Vec<_> = read.collect::<Result<_, _>>().map_err(|error| failed(error.to_string()))?;
    if read.is_empty() {
        return Err(failed("it holds no certificate in PEM".to_owned()));
    }
    for authority in &read {
        webpki::anchor_from_trusted_cert(authority).map_err(|error| failed(error.to_string()))?;
    }
    Ok(read)
}

#[cfg(test)]
pub(crate) mod testing {
    use std::sync::Arc;

    use gatewright_model::resource::group_object::GroupObject;
    use rustls::crypto::ring;
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;

    use super::server_names::ServerNames;

    /// What shows a certificate to clients that ask for `name`, and the configuration of such a client.
    pub(crate) fn shown_for(name: &str) -> (Arc<ServerNames>, Arc<rustls::ClientConfig>) {
        let (certificate, key) = pair(name);
        let content = serde_json::json!({"snis": [name], "cert": certificate, "key": key, "status": 1});
        let object = serde_json::json!({"id": "s", "kind": "ssl", "content": content});
        let object: GroupObject = serde_json::from_value(object).unwrap();
        let objects = [(object.key(), Arc::new(object))].into_iter().collect();
        let shared = super::Shared::new(&crate::config::Tls::default()).unwrap();
        let (names, quarantined) = ServerNames::compile(&Arc::default(), &objects, &shared);
        assert!(quarantined.is_empty(), "{quarantined:?}");
        let mut trusted = rustls::RootCertStore::empty();
        trusted.add(CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()).unwrap();
        let client = rustls::ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let client = client.with_safe_default_protocol_versions().unwrap();
        (names, Arc::new(client.with_root_certificates(trusted).with_no_client_auth()))
    }

    /// A certificate for `name` that vouches for itself, and its key, in PEM.
    pub(crate) fn pair(name: &str) -> (String, String) {
        let pair = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        (pair.cert.pem(), pair.signing_key.serialize_pem())
    }
}
