//! The admin API's certificate: the operator's, or one made at the first start and kept in the data directory.
//!
//! The generated one is self-signed, so that a client that was told to trust it trusts exactly this control plane.

use std::fs;
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{CertificateParams, DnType, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use crate::config::{AdminTls, StartError};
use crate::first_start::file_open_private;

/// The generated certificate in the data directory, readable by everybody who may enter it.
const CERTIFICATE_FILE: &str = "admin-tls.pem";

/// Its private key.
const KEY_FILE: &str = "admin-tls-key.pem";

/// What speaks TLS on the admin API's listener.
pub(crate) fn acceptor(settings: &AdminTls, data_dir: &Path) -> Result<TlsAcceptor, StartError> {
    let (certificate, key) = match &settings.certificate {
        Some((certificate, key)) => (certificate.clone(), key.clone()),
        None => generated(settings.address.ip(), data_dir)?,
    };
    let chain: Vec<_> = CertificateDer::pem_file_iter(&certificate)
        .and_then(Iterator::collect)
        .map_err(|error| failed(&certificate, error))?;
    if chain.is_empty() {
        return Err(failed(&certificate, "it holds no certificate"));
    }
    let private_key = PrivateKeyDer::from_pem_file(&key).map_err(|error| failed(&key, error))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, private_key));
    let mut config = config.map_err(|error| failed(&certificate, error))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn failed(path: &Path, reason: impl std::fmt::Display) -> StartError {
    StartError::AdminTls { path: path.to_owned(), reason: reason.to_string() }
}

/// The paths of the generated certificate and its key, which are made unless both are there.
fn generated(ip: IpAddr, data_dir: &Path) -> Result<(PathBuf, PathBuf), StartError> {
    let (certificate, key) = (data_dir.join(CERTIFICATE_FILE), data_dir.join(KEY_FILE));
    if certificate.exists() && key.exists() {
        return Ok((certificate, key));
    }
    let (certificate_pem, key_pem) = generate(ip).map_err(|error| failed(&certificate, error))?;
    // The certificate comes last: without it, both are made again.
    for (path, pem) in [(&key, key_pem), (&certificate, certificate_pem)] {
        write(path, &pem).map_err(|error| failed(path, error))?;
    }
    Ok((certificate, key))
}

/// A certificate for the names under which this machine calls itself, and the address listened on. It does not run
/// out (beyond the year 4000), because nobody would notice in time; whoever needs one that does brings it.
fn generate(ip: IpAddr) -> Result<(String, String), rcgen::Error> {
    let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    if !ip.is_unspecified() && !names.contains(&ip.to_string()) {
        names.push(ip.to_string());
    }
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name.push(DnType::CommonName, "Gatewright admin API");
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    Ok((certificate.pem(), key.serialize_pem()))
}

/// Writes beside and renames, so that the file is whole or not there.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let beside = path.with_extension("new");
    let mut file = file_open_private(&beside)?;
    file.set_len(0)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&beside, path)
}
