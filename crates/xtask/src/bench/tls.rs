//! TLS of the bench: one certificate that every peer shows, and the clients that take it.
//!
//! The certificate is on the curve P-256, as most are today. Clients do not verify it, which costs time on their side
//! only, speak TLS 1.3, offer HTTP/1.1 alone and never resume, so that a new connection is a full handshake with
//! every peer.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use anyhow::Context;
use gatewright_test_tls::believing_client;
use rustls::client::Resumption;
use rustls::crypto::ring;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use super::scenario::HOST;

/// Files in PEM.
#[derive(Clone, Debug)]
pub(crate) struct Files {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    /// Certificate and key in one, as HAProxy wants them.
    pub(crate) both: PathBuf,
}

impl Files {
    /// Makes a certificate for the host that is asked for, in `folder`.
    pub(crate) fn make(folder: &Path) -> anyhow::Result<Self> {
        let pair =
            rcgen::generate_simple_self_signed([HOST.to_owned()]).context("cannot make a certificate")?;
        let (certificate, key) = (pair.cert.pem(), pair.signing_key.serialize_pem());
        std::fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
        let write = |name: &str, text: &str| {
            let path = folder.join(name);
            std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
            anyhow::Ok(path)
        };
        Ok(Self {
            both: write("both.pem", &format!("{certificate}{key}"))?,
            certificate: write("certificate.pem", &certificate)?,
            key: write("key.pem", &key)?,
        })
    }
}

/// What a client speaks on.
pub(crate) enum Wire<S: Read + Write> {
    Plain(S),
    Tls(Box<StreamOwned<ClientConnection, S>>),
}

impl<S: Read + Write> Wire<S> {
    pub(crate) fn new(stream: S, tls: bool) -> anyhow::Result<Self> {
        if !tls {
            return Ok(Self::Plain(stream));
        }
        let session = ClientConnection::new(Arc::clone(&CONFIG), ServerName::try_from(HOST)?)?;
        Ok(Self::Tls(Box::new(StreamOwned::new(session, stream))))
    }
}

impl<S: Read + Write> Read for Wire<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(buffer),
            Self::Tls(stream) => stream.read(buffer),
        }
    }
}

impl<S: Read + Write> Write for Wire<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.flush(),
            Self::Tls(stream) => stream.flush(),
        }
    }
}

static CONFIG: LazyLock<Arc<ClientConfig>> = LazyLock::new(|| {
    let Ok(builder) = believing_client(ring::default_provider(), &[&rustls::version::TLS13]) else {
        unreachable!("ring speaks TLS 1.3");
    };
    let mut config = builder.with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.resumption = Resumption::disabled();
    Arc::new(config)
});
