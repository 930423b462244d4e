//! Tokens of our own: assertions of a client to an identity provider or a cloud.

use base64::Engine as _;
use p521::ecdsa::signature::Signer as _;
use p521::pkcs8::DecodePrivateKey as _;
use ring::hmac;
use ring::rand::SystemRandom;
use ring::signature::{self, EcdsaKeyPair, Ed25519KeyPair, RsaKeyPair};
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::{Value, json};

use super::key::hash;
use super::{Algorithm, URL_SAFE};

/// Signs tokens with one key and one algorithm.
pub(crate) struct Signer {
    algorithm: Algorithm,
    key_id: Option<String>,
    key: SigningKey,
}

enum SigningKey {
    Secret(hmac::Key),
    Rsa(Box<RsaKeyPair>),
    Ecdsa(Box<EcdsaKeyPair>),
    P521(Box<p521::ecdsa::SigningKey>),
    Ed25519(Ed25519KeyPair),
}

impl Signer {
    /// Signs with `key`: a secret for the symmetric algorithms, else a private key in PEM.
    ///
    /// # Errors
    /// Why the key cannot be used.
    pub(crate) fn new(algorithm: Algorithm, key: &str, key_id: Option<String>) -> Result<Self, String> {
        let key = match hash(algorithm) {
            Some(hash) => SigningKey::Secret(hmac::Key::new(hash, key.as_bytes())),
            None => private(algorithm, key)?,
        };
        Ok(Self { algorithm, key_id, key })
    }

    /// A token that makes these claims.
    ///
    /// # Errors
    /// When the system has no random numbers.
    pub(crate) fn sign(&self, claims: &Value) -> Result<String, String> {
        self.sign_with(json!({ "typ": "JWT" }), claims)
    }

    /// A token that makes these claims and says this of itself.
    ///
    /// # Errors
    /// When the system has no random numbers.
    pub(crate) fn sign_with(&self, mut header: Value, claims: &Value) -> Result<String, String> {
        header["alg"] = json!(self.algorithm);
        if let Some(key_id) = &self.key_id {
            header["kid"] = key_id.as_str().into();
        }
        let part = |value: &Value| URL_SAFE.encode(value.to_string());
        let text = format!("{}.{}", part(&header), part(claims));
        let signature = self.signature(text.as_bytes())?;
        Ok(format!("{text}.{}", URL_SAFE.encode(signature)))
    }

    fn signature(&self, text: &[u8]) -> Result<Vec<u8>, String> {
        let random = SystemRandom::new();
        let failed = |_| "signing failed".to_owned();
        match &self.key {
            SigningKey::Secret(key) => Ok(hmac::sign(key, text).as_ref().to_vec()),
            SigningKey::Rsa(key) => {
                let encoding: &dyn signature::RsaEncoding = match self.algorithm {
                    Algorithm::RS384 => &signature::RSA_PKCS1_SHA384,
                    Algorithm::RS512 => &signature::RSA_PKCS1_SHA512,
                    Algorithm::PS256 => &signature::RSA_PSS_SHA256,
                    Algorithm::PS384 => &signature::RSA_PSS_SHA384,
                    Algorithm::PS512 => &signature::RSA_PSS_SHA512,
                    _ => &signature::RSA_PKCS1_SHA256,
                };
                let mut signature = vec![0; key.public().modulus_len()];
                key.sign(encoding, &random, text, &mut signature).map_err(failed)?;
                Ok(signature)
            }
            SigningKey::Ecdsa(key) => Ok(key.sign(&random, text).map_err(failed)?.as_ref().to_vec()),
            SigningKey::P521(key) => {
                let signature: p521::ecdsa::Signature = key.sign(text);
                Ok(signature.to_bytes().to_vec())
            }
            SigningKey::Ed25519(key) => Ok(key.sign(text).as_ref().to_vec()),
        }
    }
}

fn private(algorithm: Algorithm, pem: &str) -> Result<SigningKey, String> {
    if algorithm == Algorithm::ES512 {
        let key = p521::ecdsa::SigningKey::from_pkcs8_pem(pem);
        let key = key.map_err(|error| format!("no private key of P-521 in PKCS #8: {error}"))?;
        return Ok(SigningKey::P521(Box::new(key)));
    }
    let der = PrivateKeyDer::from_pem_slice(pem.as_bytes());
    let der = der.map_err(|error| format!("no private key in PEM: {error}"))?;
    let refused = |error: ring::error::KeyRejected| format!("the private key cannot be used: {error}");
    let bytes = der.secret_der();
    match algorithm {
        Algorithm::ES256 | Algorithm::ES384 => {
            let method = match algorithm {
                Algorithm::ES256 => &signature::ECDSA_P256_SHA256_FIXED_SIGNING,
                _ => &signature::ECDSA_P384_SHA384_FIXED_SIGNING,
            };
            let key = EcdsaKeyPair::from_pkcs8(method, bytes, &SystemRandom::new()).map_err(refused)?;
            Ok(SigningKey::Ecdsa(Box::new(key)))
        }
        Algorithm::EdDSA => {
            Ok(SigningKey::Ed25519(Ed25519KeyPair::from_pkcs8_maybe_unchecked(bytes).map_err(refused)?))
        }
        _ => {
            let key = match &der {
                PrivateKeyDer::Pkcs1(_) => RsaKeyPair::from_der(bytes),
                _ => RsaKeyPair::from_pkcs8(bytes),
            };
            Ok(SigningKey::Rsa(Box::new(key.map_err(refused)?)))
        }
    }
}
