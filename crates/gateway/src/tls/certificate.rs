//! Certificates with their private keys, from the PEM of an SSL object.
//!
//! A certificate needs to be readable and to belong to its key; whether clients will believe it is theirs to judge.
//! So certificates of version 1 and such that do not name the server are shown as they are.

use std::sync::Arc;

use gatewright_model::resource::ssl::Ssl;
use gatewright_model::validation::Violations;
use rustls::SignatureAlgorithm;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use x509_parser::prelude::{FromDer, X509Certificate};

/// Certificates in one chain; more is a bundle of authorities by mistake.
const CHAIN_MAX: usize = 16;

/// The certificates of one SSL object, of which each client gets one that it can verify.
#[derive(Debug)]
pub(crate) struct Certificates {
    /// Cheapest to sign with first.
    keys: Vec<Arc<CertifiedKey>>,
    /// When the first of them ends, in seconds since 1970.
    pub(crate) valid_until: i64,
}

impl Certificates {
    /// Reads the certificates and keys of `ssl`.
    ///
    /// # Errors
    /// Everything wrong with them, each with its JSON path in the object.
    pub(crate) fn compile(ssl: &Ssl, provider: &CryptoProvider) -> Result<Self, Violations> {
        let mut violations = Violations::default();
        let first_key = ssl.key.iter().map(|key| ("/key".to_owned(), key.as_str()));
        let keys = ssl.keys.iter().enumerate();
        let keys = first_key.chain(keys.map(|(index, key)| (format!("/keys/{index}"), key.as_str())));
        let mut compiled = Self { keys: Vec::new(), valid_until: i64::MAX };
        for (certificate, key) in ssl.certificates().zip(keys) {
            match pair(&certificate, &key, provider) {
                Ok((pair, valid_until)) => {
                    compiled.keys.push(Arc::new(pair));
                    compiled.valid_until = compiled.valid_until.min(valid_until);
                }
                Err(wrong) => violations.absorb("", wrong),
            }
        }
        if violations.is_empty() && compiled.keys.is_empty() {
            violations.add("/cert", "there is no certificate with a private key");
        }
        compiled.keys.sort_by_key(|key| signing_cost(key.key.algorithm()));
        violations.into_result()?;
        Ok(compiled)
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let schemes = hello.signature_schemes();
        self.keys.iter().find(|key| key.key.choose_scheme(schemes).is_some()).cloned()
    }
}

/// An RSA signature costs ten times one on a curve.
fn signing_cost(algorithm: SignatureAlgorithm) -> u8 {
    match algorithm {
        SignatureAlgorithm::ECDSA => 0,
        SignatureAlgorithm::ED25519 | SignatureAlgorithm::ED448 => 1,
        _ => 2,
    }
}

/// A certificate with its chain and its key, each given with its JSON path; and when the certificate ends.
pub(super) fn pair(
    (at, pem): &(String, &str),
    (key_at, key_pem): &(String, &str),
    provider: &CryptoProvider,
) -> Result<(CertifiedKey, i64), Violations> {
    let chain = chain(pem).map_err(|message| Violations::one(at, message))?;
    let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes()).map_err(|error| {
        Violations::one(key_at, format!("no private key can be read (one in PEM, not encrypted): {error}"))
    })?;
    let key = provider.key_provider.load_private_key(key).map_err(|error| {
        let message = format!(
            "the private key cannot be used ({error}); use RSA of 2048 bits or more, P-256, P-384 or Ed25519"
        );
        Violations::one(key_at, message)
    })?;
    let (_, leaf) = X509Certificate::from_der(&chain[0])
        .map_err(|error| Violations::one(at, format!("the certificate cannot be read: {error}")))?;
    if key.public_key().is_some_and(|public| *public != *leaf.public_key().raw) {
        return Err(Violations::one(key_at, "the private key does not belong to the certificate"));
    }
    let valid_until = leaf.validity().not_after.timestamp();
    Ok((CertifiedKey::new(chain, key), valid_until))
}

/// The certificates in `pem`, at least one.
pub(super) fn chain(pem: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let chain: Result<Vec<_>, _> =
        CertificateDer::pem_slice_iter(pem.as_bytes()).take(CHAIN_MAX + 1).collect();
    match chain {
        Err(error) => Err(format!("it is not PEM: {error}")),
        Ok(chain) if chain.is_empty() => Err("it holds no certificate in PEM".to_owned()),
        Ok(chain) if chain.len() > CHAIN_MAX => {
            Err(format!("a chain holds at most {CHAIN_MAX} certificates"))
        }
        Ok(chain) => Ok(chain),
    }
}
