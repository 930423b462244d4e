//! Keys that verify signatures: secrets, public keys in PEM, and JSON Web Keys.

use p521::ecdsa::signature::Verifier as _;
use p521::ecdsa::{Signature as P521Signature, VerifyingKey as P521Key};
use ring::hmac;
use ring::signature::{
    self, RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm,
};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, SubjectPublicKeyInfoDer};
use serde_json::Value;
use x509_parser::prelude::{FromDer as _, X509Certificate};
use x509_parser::x509::SubjectPublicKeyInfo;

use base64::Engine as _;

use super::{Algorithm, URL_SAFE};

/// What verifies signatures.
#[derive(Clone)]
pub(crate) enum Key {
    /// Shared by both sides.
    Secret(Box<[u8]>),
    /// As in a certificate.
    Rsa(Box<[u8]>),
    /// As in a JSON Web Key.
    RsaNumbers { modulus: Box<[u8]>, exponent: Box<[u8]> },
    /// A point of P-256.
    P256(Box<[u8]>),
    /// A point of P-384.
    P384(Box<[u8]>),
    /// A point of P-521.
    P521(Box<P521Key>),
    /// A point of Curve25519.
    Ed25519(Box<[u8]>),
}

impl Key {
    /// A secret that both sides know.
    pub(crate) fn secret(secret: impl Into<Box<[u8]>>) -> Self {
        Self::Secret(secret.into())
    }

    /// The public key in `pem`, which may stand in a certificate.
    ///
    /// # Errors
    /// Why there is none.
    pub(crate) fn from_pem(pem: &str) -> Result<Self, String> {
        let cannot = |error: &dyn std::fmt::Display| format!("no public key in PEM: {error}");
        if pem.contains("-----BEGIN CERTIFICATE-----") {
            let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|error| cannot(&error))?;
            let (_, certificate) = X509Certificate::from_der(&der).map_err(|error| cannot(&error))?;
            return Self::of(certificate.public_key());
        }
        let der = SubjectPublicKeyInfoDer::from_pem_slice(pem.as_bytes()).map_err(|error| cannot(&error))?;
        let (_, info) = SubjectPublicKeyInfo::from_der(&der).map_err(|error| cannot(&error))?;
        Self::of(&info)
    }

    fn of(info: &SubjectPublicKeyInfo<'_>) -> Result<Self, String> {
        let bytes = || Box::from(&*info.subject_public_key.data);
        let kind = info.algorithm.algorithm.to_id_string();
        let curve = info.algorithm.parameters.as_ref().and_then(|any| any.as_oid().ok());
        match (kind.as_str(), curve.map(|oid| oid.to_id_string()).as_deref()) {
            // rsaEncryption, id-RSASSA-PSS
            ("1.2.840.113549.1.1.1" | "1.2.840.113549.1.1.10", _) => Ok(Self::Rsa(bytes())),
            ("1.2.840.10045.2.1", Some("1.2.840.10045.3.1.7")) => Ok(Self::P256(bytes())),
            ("1.2.840.10045.2.1", Some("1.3.132.0.34")) => Ok(Self::P384(bytes())),
            ("1.2.840.10045.2.1", Some("1.3.132.0.35")) => Self::p521(&bytes()),
            ("1.3.101.112", _) => Ok(Self::Ed25519(bytes())),
            (kind, curve) => {
                Err(format!("public keys of type {kind} {} are not supported", curve.unwrap_or_default()))
            }
        }
    }

    fn p521(point: &[u8]) -> Result<Self, String> {
        let key = P521Key::from_sec1_bytes(point).map_err(|error| format!("no point of P-521: {error}"))?;
        Ok(Self::P521(Box::new(key)))
    }

    /// A JSON Web Key that is there to verify signatures.
    pub(crate) fn from_jwk(jwk: &Value) -> Option<Self> {
        if jwk["use"].as_str().is_some_and(|purpose| purpose != "sig") {
            return None;
        }
        let bytes = |name: &str| URL_SAFE.decode(jwk[name].as_str()?).ok();
        let point = |length: usize| {
            let (x, y) = (bytes("x")?, bytes("y")?);
            (x.len() == length && y.len() == length).then(|| [&[4][..], &x, &y].concat())
        };
        match (jwk["kty"].as_str()?, jwk["crv"].as_str()) {
            ("oct", _) => Some(Self::Secret(bytes("k")?.into())),
            ("RSA", _) => {
                Some(Self::RsaNumbers { modulus: bytes("n")?.into(), exponent: bytes("e")?.into() })
            }
            ("EC", Some("P-256")) => Some(Self::P256(point(32)?.into())),
            ("EC", Some("P-384")) => Some(Self::P384(point(48)?.into())),
            ("EC", Some("P-521")) => Self::p521(&point(66)?).ok(),
            ("OKP", Some("Ed25519")) => Some(Self::Ed25519(bytes("x")?.into())),
            _ => None,
        }
    }

    /// Whether it can verify what `algorithm` signs.
    pub(crate) fn is_for(&self, algorithm: Algorithm) -> bool {
        use Algorithm::{ES256, ES384, ES512, EdDSA, PS256, PS384, PS512, RS256, RS384, RS512};
        match self {
            Self::Secret(_) => algorithm.is_symmetric(),
            Self::Rsa(_) | Self::RsaNumbers { .. } => {
                matches!(algorithm, RS256 | RS384 | RS512 | PS256 | PS384 | PS512)
            }
            Self::P256(_) => algorithm == ES256,
            Self::P384(_) => algorithm == ES384,
            Self::P521(_) => algorithm == ES512,
            Self::Ed25519(_) => algorithm == EdDSA,
        }
    }

    /// Whether `signature` is what it makes of `text` with `algorithm`.
    pub(crate) fn verifies(&self, algorithm: Algorithm, text: &[u8], signature: &[u8]) -> bool {
        let by = |method: &'static dyn VerificationAlgorithm, key: &[u8]| {
            UnparsedPublicKey::new(method, key).verify(text, signature).is_ok()
        };
        match self {
            Self::Secret(secret) => hash(algorithm)
                .is_some_and(|hash| hmac::verify(&hmac::Key::new(hash, secret), text, signature).is_ok()),
            Self::Rsa(key) => rsa(algorithm).is_some_and(|method| by(method, key)),
            Self::RsaNumbers { modulus, exponent } => rsa(algorithm).is_some_and(|method| {
                RsaPublicKeyComponents { n: modulus, e: exponent }.verify(method, text, signature).is_ok()
            }),
            Self::P256(key) => self.is_for(algorithm) && by(&signature::ECDSA_P256_SHA256_FIXED, key),
            Self::P384(key) => self.is_for(algorithm) && by(&signature::ECDSA_P384_SHA384_FIXED, key),
            Self::P521(key) => {
                let signature = P521Signature::from_slice(signature);
                self.is_for(algorithm)
                    && signature.is_ok_and(|signature| key.verify(text, &signature).is_ok())
            }
            Self::Ed25519(key) => self.is_for(algorithm) && by(&signature::ED25519, key),
        }
    }
}

/// The hash below a shared secret.
pub(super) fn hash(algorithm: Algorithm) -> Option<hmac::Algorithm> {
    match algorithm {
        Algorithm::HS256 => Some(hmac::HMAC_SHA256),
        Algorithm::HS384 => Some(hmac::HMAC_SHA384),
        Algorithm::HS512 => Some(hmac::HMAC_SHA512),
        _ => None,
    }
}

fn rsa(algorithm: Algorithm) -> Option<&'static RsaParameters> {
    match algorithm {
        Algorithm::RS256 => Some(&signature::RSA_PKCS1_2048_8192_SHA256),
        Algorithm::RS384 => Some(&signature::RSA_PKCS1_2048_8192_SHA384),
        Algorithm::RS512 => Some(&signature::RSA_PKCS1_2048_8192_SHA512),
        Algorithm::PS256 => Some(&signature::RSA_PSS_2048_8192_SHA256),
        Algorithm::PS384 => Some(&signature::RSA_PSS_2048_8192_SHA384),
        Algorithm::PS512 => Some(&signature::RSA_PSS_2048_8192_SHA512),
        _ => None,
    }
}
