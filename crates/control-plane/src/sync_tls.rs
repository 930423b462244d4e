//! TLS on the sync listener: the certificate that the internal authority signs for this control plane, and those that
//! gateways may show.
//!
//! The control plane's own certificate is short-lived and made anew while the process runs, so nobody renews anything.
//! A gateway may show a certificate or come with a token; one that is shown must be of the authority, and whether it
//! was revoked is asked of the store for each request.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig};
use tokio_rustls::TlsAcceptor;

use crate::app::Authority;
use crate::config::StartError;

/// How old the certificate gets before another one takes its place.
const RENEWAL: Duration = Duration::from_secs(24 * 60 * 60);

/// What speaks TLS on the sync listener.
pub(crate) fn acceptor(authority: Arc<Authority>) -> Result<TlsAcceptor, StartError> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.certificate().clone()).map_err(failed)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .allow_unauthenticated()
        .build()
        .map_err(failed)?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(failed)?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(Renewing { authority, newest: Mutex::new(None) }));
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn failed(reason: impl fmt::Display) -> StartError {
    StartError::SyncTls { reason: reason.to_string() }
}

/// The newest certificate; made anew when a handshake finds it old.
struct Renewing {
    authority: Arc<Authority>,
    newest: Mutex<Option<(SystemTime, Arc<CertifiedKey>)>>,
}

impl fmt::Debug for Renewing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Renewing")
    }
}

impl Renewing {
    fn at(&self, now: SystemTime) -> Option<Arc<CertifiedKey>> {
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        let is_fresh = |made: &SystemTime| now.duration_since(*made).is_ok_and(|age| age < RENEWAL);
        if let Some((_, certified)) = newest.as_ref().filter(|(made, _)| is_fresh(made)) {
            return Some(Arc::clone(certified));
        }
        match self.authority.sign_control_plane(now) {
            Ok(certified) => Some(Arc::clone(&newest.insert((now, Arc::new(certified))).1)),
            Err(error) => {
                tracing::error!(%error, "the certificate of the sync listener could not be renewed");
                newest.as_ref().map(|(_, certified)| Arc::clone(certified))
            }
        }
    }
}

impl ResolvesServerCert for Renewing {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.at(SystemTime::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn e17_the_certificate_is_made_anew_every_day_and_after_a_jump_of_the_clock() {
        let renewing = Renewing { authority: Authority::of_a_test(), newest: Mutex::new(None) };
        let now = SystemTime::now();
        let first = renewing.at(now).unwrap();
        assert!(Arc::ptr_eq(&first, &renewing.at(now + RENEWAL / 2).unwrap()));
        let second = renewing.at(now + RENEWAL).unwrap();
        assert!(!Arc::ptr_eq(&first, &second));
        assert!(!Arc::ptr_eq(&second, &renewing.at(now - RENEWAL).unwrap()), "the clock went back");
    }
}
