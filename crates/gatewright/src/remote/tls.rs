//! Whom a gateway trusts to be its control plane, and what it shows itself.
//!
//! With a token: whoever has a certificate of the authority whose digest the token names, and nobody else, whatever
//! the machine trusts besides. With a certificate: whoever has one of the authority in the file beside it.
//! Files are read for each connection, so that a certificate is replaced by replacing its files.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gatewright_model::protocol::TOKEN_PIN_SEPARATOR;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use sha2::{Digest as _, Sha256};
use tokio_rustls::TlsConnector;

/// PEM files of a certificate chain, its private key, and the authority of the control planes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CertificateFiles {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    pub(crate) authority: PathBuf,
}

/// What a gateway proves its group with, and knows its control plane by.
#[derive(Clone)]
pub(crate) enum Proof {
    Token(String),
    Certificate(CertificateFiles),
}

/// Why control planes cannot be connected to as asked.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TlsError {
    #[error(
        "the instance token does not name the authority of the control plane, so that https:// could be anybody; \
         `gatewright gateway-group add-instance` makes one that does"
    )]
    NoPin,
    #[error("the instance token is damaged: 64 hexadecimal digits must follow its point")]
    InvalidPin,
    #[error(
        "a certificate (--certificate) is shown over TLS only; write the control plane as https://host:port"
    )]
    PlainWithCertificate,
    #[error("cannot use {path} ({flag}): {reason}", path = path.display())]
    File { path: PathBuf, flag: &'static str, reason: String },
    #[error("TLS cannot be set up: {0}")]
    Setup(String),
}

impl Proof {
    /// What shakes hands with control planes.
    pub(super) fn connector(&self) -> Result<TlsConnector, TlsError> {
        match self {
            Self::Token(token) => {
                let (_, pin) = token.rsplit_once(TOKEN_PIN_SEPARATOR).ok_or(TlsError::NoPin)?;
                let mut digest = [0; 32];
                hex::decode_to_slice(pin, &mut digest).map_err(|_| TlsError::InvalidPin)?;
                connector(Trust::Pinned(digest), None)
            }
            Self::Certificate(files) => {
                let authorities = certificates(&files.authority, "--ca")?;
                let chain = certificates(&files.certificate, "--certificate")?;
                let key = PrivateKeyDer::from_pem_file(&files.key)
                    .map_err(|error| unusable(&files.key, "--key", error))?;
                connector(Trust::Authorities(authorities, &files.authority), Some((chain, key, files)))
            }
        }
    }

    /// When the certificate in the files runs out, in unix seconds; none: there is no certificate, or none that can be
    /// read.
    pub(super) fn expires_at(&self) -> Option<i64> {
        let Self::Certificate(files) = self else { return None };
        let chain = certificates(&files.certificate, "--certificate").ok()?;
        let (_, leaf) = x509_parser::parse_x509_certificate(chain.first()?).ok()?;
        Some(leaf.validity().not_after.timestamp())
    }
}

/// Whose certificates are accepted.
enum Trust<'f> {
    Pinned([u8; 32]),
    Authorities(Vec<CertificateDer<'static>>, &'f Path),
}

type Shown<'f> = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>, &'f CertificateFiles);

fn connector(trust: Trust<'_>, shown: Option<Shown<'_>>) -> Result<TlsConnector, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let setup = |error: Error| TlsError::Setup(error.to_string());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(setup)?;
    let builder = match trust {
        Trust::Pinned(pin) => {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(Pinned { pin, provider }))
        }
        Trust::Authorities(authorities, path) => {
            let mut roots = RootCertStore::empty();
            for authority in authorities {
                roots.add(authority).map_err(|error| unusable(path, "--ca", error))?;
            }
            builder.with_root_certificates(roots)
        }
    };
    let mut config = match shown {
        None => builder.with_no_client_auth(),
        Some((chain, key, files)) => builder
            .with_client_auth_cert(chain, key)
            .map_err(|error| unusable(&files.certificate, "--certificate, --key", error))?,
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

fn certificates(path: &Path, flag: &'static str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let pem = fs::read(path).map_err(|error| unusable(path, flag, error))?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let chain = chain.map_err(|error| unusable(path, flag, error))?;
    if chain.is_empty() { Err(unusable(path, flag, "it holds no certificate")) } else { Ok(chain) }
}

fn unusable(path: &Path, flag: &'static str, reason: impl std::fmt::Display) -> TlsError {
    TlsError::File { path: path.to_owned(), flag, reason: reason.to_string() }
}

/// Trusts one authority, known by the digest of its certificate, and nobody else.
#[derive(Debug)]
struct Pinned {
    pin: [u8; 32],
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        // The digest says which certificate of the chain is the authority; that it signed the other one is checked as
        // always.
        let authority = chain.iter().find(|candidate| Sha256::digest(candidate)[..] == self.pin);
        let authority = authority.ok_or(Error::InvalidCertificate(CertificateError::UnknownIssuer))?;
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone().into_owned())?;
        let provider = Arc::clone(&self.provider);
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .map_err(|error| Error::General(error.to_string()))?;
        verifier.verify_server_cert(certificate, &[], name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_must_name_the_authority() {
        let outcome = |token: &str| Proof::Token(token.to_owned()).connector().err();
        assert_eq!(outcome("gwi-1"), Some(TlsError::NoPin));
        assert_eq!(outcome("gwi-1.abc"), Some(TlsError::InvalidPin));
        assert_eq!(outcome(&format!("gwi-1.{}", "0f".repeat(32))), None);
    }

    #[test]
    fn files_that_cannot_be_used_are_named_with_their_flag() {
        let directory = std::env::temp_dir();
        let files = CertificateFiles {
            certificate: directory.join("no-such-certificate.pem"),
            key: directory.join("no-such-key.pem"),
            authority: directory.join("no-such-authority.pem"),
        };
        let proof = Proof::Certificate(files);
        let error = proof.connector().err().unwrap().to_string();
        assert!(error.contains("no-such-authority.pem (--ca)"), "{error}");
        assert_eq!(proof.expires_at(), None);
    }
}
