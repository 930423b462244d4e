//! TLS with a registry, where its own configuration says whom to believe.

use std::sync::{Arc, LazyLock};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

/// What is shown to a server that asks for a certificate.
pub(crate) type Pair = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// TLS in which nobody is believed, for those who ask nobody.
///
/// # Errors
/// When there is no TLS at all.
pub fn nobody() -> Result<ClientConfig, String> {
    believing(RootCertStore::empty(), None)
}

/// TLS with those that the system believes, or with anybody if their certificates need not verify, which nobody but a
/// gateway does.
///
/// # Errors
/// When the system believes nobody.
pub fn system(verify: bool) -> Result<ClientConfig, String> {
    if !verify {
        return Err("only gateways connect without verifying certificates".to_owned());
    }
    believing(SYSTEM.clone(), None)
}

/// The authorities of the system, or those that browsers believe where it has none. Read when first asked for.
pub static SYSTEM: LazyLock<RootCertStore> = LazyLock::new(|| {
    let mut authorities = RootCertStore::empty();
    let system = rustls_native_certs::load_native_certs();
    for error in &system.errors {
        tracing::warn!(%error, "some of the system's certificate authorities cannot be read");
    }
    authorities.add_parsable_certificates(system.certs);
    if authorities.is_empty() {
        authorities.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    authorities
});

/// The authorities in a text of PEM.
pub(crate) fn authorities(pem: &[u8]) -> Result<RootCertStore, String> {
    let mut authorities = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| format!("an authority cannot be read: {error}"))?;
        authorities.add(certificate).map_err(|error| format!("an authority cannot be used: {error}"))?;
    }
    if authorities.is_empty() {
        return Err("there is no authority in it".to_owned());
    }
    Ok(authorities)
}

/// TLS with those whose certificates come from `authorities`.
pub(crate) fn believing(authorities: RootCertStore, pair: Option<Pair>) -> Result<ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| error.to_string())?.with_root_certificates(authorities);
    match pair {
        None => Ok(builder.with_no_client_auth()),
        Some((chain, key)) => builder.with_client_auth_cert(chain, key).map_err(|error| error.to_string()),
    }
}
