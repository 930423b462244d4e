//! Certificates made for a test, clients that speak TLS, and SSL objects.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use gatewright_test_tls::believing_client;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair,
};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, HandshakeKind, ServerConfig, ServerConnection,
    SignatureScheme, StreamOwned,
};
use serde_json::{Value, json};

use crate::world::PATIENCE;

/// An authority.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) pem: String,
    /// Those between this one and the root, nearest first.
    between: Vec<String>,
}

/// A certificate with everything between it and its root, and its key, in PEM.
#[derive(Clone)]
pub(crate) struct Identity {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

fn key() -> KeyPair {
    KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap()
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let (params, key) = (Self::params(name), key());
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem, between: Vec::new() }
    }

    /// An authority that this one vouches for.
    pub(crate) fn intermediate(&self, name: &str) -> Self {
        let (params, key) = (Self::params(name), key());
        let pem = params.signed_by(&key, &self.issuer).unwrap().pem();
        let between = [vec![pem.clone()], self.between.clone()].concat();
        Self { issuer: Issuer::new(params, key), pem, between }
    }

    fn params(name: &str) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
    }

    /// A certificate for these names, about `subject`.
    pub(crate) fn certify(&self, subject: &str, names: &[&str]) -> Identity {
        self.certify_with(subject, names, &rcgen::PKCS_ECDSA_P256_SHA256)
    }

    pub(crate) fn certify_with(
        &self,
        subject: &str,
        names: &[&str],
        algorithm: &'static rcgen::SignatureAlgorithm,
    ) -> Identity {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "Pets, Inc.");
        params.distinguished_name.push(DnType::CommonName, subject);
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let own = params.signed_by(&key, &self.issuer).unwrap().pem();
        let certificate = [vec![own], self.between.clone()].concat().concat();
        Identity { certificate, key: key.serialize_pem() }
    }
}

impl Identity {
    pub(crate) fn chain(&self) -> Vec<CertificateDer<'static>> {
        CertificateDer::pem_slice_iter(self.certificate.as_bytes()).map(Result::unwrap).collect()
    }

    pub(crate) fn private_key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::from_pem_slice(self.key.as_bytes()).unwrap()
    }

    /// An SSL object that shows this certificate to those who ask for one of `names`.
    pub(crate) fn shown_to(&self, id: &str, names: &[&str], more: Value) -> Value {
        let mut content =
            json!({"snis": names, "cert": self.certificate, "key": self.key, "status": 1, "type": "server"});
        for (field, value) in more.as_object().expect("an object") {
            content[field] = value.clone();
        }
        json!({"id": id, "kind": "ssl", "content": content})
    }
}

/// A client that takes any certificate and resumes sessions.
#[derive(Clone)]
pub(crate) struct TlsClient {
    config: Arc<ClientConfig>,
}

/// An open connection of such a client.
pub(crate) struct TlsConnection {
    stream: StreamOwned<ClientConnection, TcpStream>,
    /// The certificate it was shown.
    pub(crate) shown: CertificateDer<'static>,
    read: Vec<u8>,
}

impl TlsClient {
    pub(crate) fn new() -> Self {
        Self::with(ring::default_provider(), None, rustls::DEFAULT_VERSIONS)
    }

    pub(crate) fn showing(identity: &Identity) -> Self {
        Self::with(ring::default_provider(), Some(identity), rustls::DEFAULT_VERSIONS)
    }

    pub(crate) fn speaking(versions: &[&'static rustls::SupportedProtocolVersion]) -> Self {
        Self::with(ring::default_provider(), None, versions)
    }

    pub(crate) fn with(
        provider: CryptoProvider,
        identity: Option<&Identity>,
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> Self {
        let builder = believing_client(provider, versions).unwrap();
        let config = match identity {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                builder.with_client_auth_cert(identity.chain(), identity.private_key()).unwrap()
            }
        };
        Self { config: Arc::new(config) }
    }

    /// The same client, offering these protocols.
    pub(crate) fn offering(mut self, protocols: &[&str]) -> Self {
        let config = Arc::make_mut(&mut self.config);
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        self
    }

    /// A session that would send data before the handshake if the server had offered it the last time.
    pub(crate) fn connecting_early(&self, name: &str) -> ClientConnection {
        let mut config = ClientConfig::clone(&self.config);
        config.enable_early_data = true;
        ClientConnection::new(Arc::new(config), ServerName::try_from(name.to_owned()).unwrap()).unwrap()
    }

    /// Connects and asks for `name`; a name that is an address is not sent.
    /// A session for whoever speaks through it without blocking.
    pub(crate) fn connector(&self) -> tokio_rustls::TlsConnector {
        Arc::clone(&self.config).into()
    }

    pub(crate) fn connect(&self, address: SocketAddr, name: &str) -> Result<TlsConnection, String> {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let tcp = TcpStream::connect(address).unwrap();
        tcp.set_read_timeout(Some(PATIENCE)).unwrap();
        let session = ClientConnection::new(Arc::clone(&self.config), name).unwrap();
        let mut stream = StreamOwned::new(session, tcp);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock).map_err(|error| error.to_string())?;
        }
        let shown = stream.conn.peer_certificates().unwrap()[0].clone().into_owned();
        Ok(TlsConnection { stream, shown, read: Vec::new() })
    }
}

impl TlsConnection {
    pub(crate) fn handshake_kind(&self) -> HandshakeKind {
        self.stream.conn.handshake_kind().unwrap()
    }

    pub(crate) fn protocol(&self) -> Option<Vec<u8>> {
        self.stream.conn.alpn_protocol().map(<[u8]>::to_vec)
    }

    /// Sends `GET /` for `host` and gives the answer's head and body.
    pub(crate) fn get(&mut self, host: &str) -> String {
        self.send(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        self.answer()
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).unwrap();
        self.stream.flush().unwrap();
    }

    /// The next answer, which has a `Content-Length`.
    pub(crate) fn answer(&mut self) -> String {
        let whole = |read: &[u8]| {
            let text = String::from_utf8_lossy(read).into_owned();
            let (head, body) = text.split_once("\r\n\r\n")?;
            let line = head.lines().find(|line| line.to_ascii_lowercase().starts_with("content-length:"))?;
            let length: usize = line.split_once(':').unwrap().1.trim().parse().unwrap();
            (body.len() >= length).then(|| head.len() + 4 + length)
        };
        let mut buffer = [0; 65536];
        loop {
            if let Some(length) = whole(&self.read) {
                let answer = self.read.drain(..length).collect();
                return String::from_utf8(answer).unwrap();
            }
            let count = self.stream.read(&mut buffer).unwrap();
            assert!(count > 0, "closed after {:?}", String::from_utf8_lossy(&self.read));
            self.read.extend_from_slice(&buffer[..count]);
        }
    }

    /// Reads to the end; an end without a goodbye is an error.
    pub(crate) fn rest(mut self) -> std::io::Result<Vec<u8>> {
        self.stream.read_to_end(&mut self.read)?;
        Ok(self.read)
    }
}

/// A node that speaks TLS, records every handshake, and gives every request the same answer.
pub(crate) struct TlsNode {
    pub(crate) address: SocketAddr,
    handshakes: Arc<Mutex<Vec<Handshake>>>,
}

/// What a node saw of one handshake.
#[derive(Clone, Debug)]
pub(crate) struct Handshake {
    pub(crate) server_name: Option<String>,
    pub(crate) kind: HandshakeKind,
    /// The certificate it was shown.
    pub(crate) client: Option<CertificateDer<'static>>,
}

/// What a node does after an answer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    KeepOpen,
    Close,
    /// Ends the TCP connection without saying goodbye over TLS.
    BreakOff,
}

impl TlsNode {
    pub(crate) fn answering(identity: &Identity, answer: &'static str) -> Self {
        Self::with(identity, answer, Then::KeepOpen)
    }

    pub(crate) fn with(identity: &Identity, answer: &'static str, then: Then) -> Self {
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(Arc::new(AnyClient))
            .with_single_cert(identity.chain(), identity.private_key())
            .unwrap();
        config.ticketer = ring::Ticketer::new().unwrap();
        let config = Arc::new(config);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let handshakes = Arc::new(Mutex::new(Vec::new()));
        let recorded = Arc::clone(&handshakes);
        std::thread::spawn(move || {
            for tcp in listener.incoming() {
                let (config, recorded) = (Arc::clone(&config), Arc::clone(&recorded));
                std::thread::spawn(move || serve(tcp.unwrap(), config, &recorded, answer, then));
            }
        });
        Self { address, handshakes }
    }

    /// The handshakes that succeeded so far.
    pub(crate) fn handshakes(&self) -> Vec<Handshake> {
        self.handshakes.lock().unwrap().clone()
    }
}

fn serve(
    tcp: TcpStream,
    config: Arc<ServerConfig>,
    recorded: &Mutex<Vec<Handshake>>,
    answer: &str,
    then: Then,
) -> Option<()> {
    let mut stream = StreamOwned::new(ServerConnection::new(config).unwrap(), tcp);
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock).ok()?;
    }
    let client = stream.conn.peer_certificates().map(|chain| chain[0].clone().into_owned());
    let kind = stream.conn.handshake_kind()?;
    let server_name = stream.conn.server_name().map(str::to_owned);
    recorded.lock().unwrap().push(Handshake { server_name, kind, client });
    let mut head = Vec::new();
    loop {
        let mut byte = [0];
        if stream.read(&mut byte).ok()? == 0 {
            return None;
        }
        head.push(byte[0]);
        if !head.ends_with(b"\r\n\r\n") {
            continue;
        }
        head.clear();
        stream.write_all(answer.as_bytes()).ok()?;
        stream.flush().ok()?;
        match then {
            Then::KeepOpen => {}
            Then::BreakOff => return None,
            Then::Close => {
                stream.conn.send_close_notify();
                let _ = stream.flush();
                return None;
            }
        }
    }
}

/// Asks for a certificate and believes every one.
#[derive(Debug)]
struct AnyClient;

impl ClientCertVerifier for AnyClient {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[rustls::DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _own: &CertificateDer<'_>,
        _between: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

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
        ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
