//! TLS with clients: from an SSL object in the admin API to what is shown, demanded and agreed on.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use gatewright_e2e::{Upstream, World, wait};
use rcgen::{BasicConstraints, CertificateParams, CertifiedKey, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::{Value, json};

/// A certificate and its key, in PEM.
struct Identity {
    certificate: String,
    key: String,
}

impl Identity {
    /// One that vouches for itself.
    fn of(name: &str) -> Self {
        let CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        Self { certificate: cert.pem(), key: signing_key.serialize_pem() }
    }

    /// An SSL object that shows it to those who ask for `name`.
    fn ssl(&self, name: &str) -> Value {
        json!({"snis": [name], "cert": self.certificate, "key": self.key, "status": 1})
    }
}

/// An authority for client certificates, in PEM, and a certificate that it gave.
fn authority_and_client() -> (String, Identity) {
    let (mut params, key) = (CertificateParams::default(), KeyPair::generate().unwrap());
    params.distinguished_name.push(DnType::CommonName, "Pets CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let pem = params.self_signed(&key).unwrap().pem();
    let issuer = Issuer::new(params, key);
    let key = KeyPair::generate().unwrap();
    let certificate =
        CertificateParams::new(["partner".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    (pem, Identity { certificate: certificate.pem(), key: key.serialize_pem() })
}

/// A client that believes one certificate alone.
struct Client<'a> {
    trusts: &'a Identity,
    shows: Option<&'a Identity>,
    offers: &'a [&'a [u8]],
}

type Session = StreamOwned<ClientConnection, TcpStream>;

impl<'a> Client<'a> {
    fn trusting(trusts: &'a Identity) -> Self {
        Self { trusts, shows: None, offers: &[] }
    }

    fn connect(&self, address: SocketAddr, name: &str) -> io::Result<Session> {
        let certificate = |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes()).expect("a certificate");
        let mut trusted = RootCertStore::empty();
        trusted.add(certificate(&self.trusts.certificate)).expect("an anchor");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.expect("versions").with_root_certificates(trusted);
        let mut config = match self.shows {
            None => config.with_no_client_auth(),
            Some(shown) => {
                let key = PrivateKeyDer::from_pem_slice(shown.key.as_bytes()).expect("a key");
                config.with_client_auth_cert(vec![certificate(&shown.certificate)], key).expect("a pair")
            }
        };
        config.alpn_protocols = self.offers.iter().map(|protocol| protocol.to_vec()).collect();
        let name = name.to_owned().try_into().expect("a server name");
        let session = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(wait::DEADLINE))?;
        let mut client = StreamOwned::new(session, stream);
        while client.conn.is_handshaking() {
            client.conn.complete_io(&mut client.sock)?;
        }
        Ok(client)
    }

    /// The answer to `GET /` for `host`, on a connection opened for `name`.
    fn ask(&self, address: SocketAddr, name: &str, host: &str) -> io::Result<String> {
        let mut client = self.connect(address, name)?;
        write!(client, "GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        client.read_to_string(&mut answer)?;
        Ok(answer)
    }
}

const PROXY_TLS: [&str; 2] = ["--proxy-tls", "127.0.0.1:0"];

/// A world that serves `hosts` over TLS, and where.
fn serving(hosts: &[&str], upstream: &Upstream) -> (World, SocketAddr) {
    let mut world = World::start_with(&PROXY_TLS);
    let address = world.process.address("proxy TLS");
    let template = json!({"hosts": hosts, "upstream": {"nodes": upstream.nodes()}});
    world.serve("pets", "1.0.0", &template, &[json!({"paths": ["/*"]})]);
    (world, address)
}

fn write(world: &World, id: &str, ssl: &Value) {
    world.admin.change("PUT", &format!("/apisix/admin/ssls/{id}?gateway_group_id=default"), ssl);
    world.settle();
}

#[test]
fn a_certificate_is_shown_once_it_is_written_replaced_without_a_restart_and_kept_over_one() {
    let upstream = Upstream::echo();
    let (world, address) = serving(&["pets.test"], &upstream);
    let identities = [Identity::of("pets.test"), Identity::of("pets.test")];
    let [first, second] = identities.each_ref().map(Client::trusting);
    let is_answered = |answer: io::Result<String>| answer.is_ok_and(|text| text.starts_with("HTTP/1.1 200 "));
    assert!(first.connect(address, "pets.test").is_err(), "nothing is shown to anybody yet");

    write(&world, "pets", &identities[0].ssl("pets.test"));
    let mut open = first.connect(address, "pets.test").expect("a session");
    write(&world, "pets", &identities[1].ssl("pets.test"));
    assert!(is_answered(second.ask(address, "pets.test", "pets.test")));
    assert!(first.connect(address, "pets.test").is_err(), "the first one is gone");
    open.write_all(b"GET / HTTP/1.1\r\nHost: pets.test\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    open.read_to_string(&mut answer).unwrap();
    assert!(is_answered(Ok(answer)), "but what is open stays open");

    let mut world = world.start_again(&PROXY_TLS);
    let address = world.process.address("proxy TLS");
    assert!(is_answered(second.ask(address, "pets.test", "pets.test")));
}

#[test]
fn the_certificate_goes_by_the_server_name_and_client_certificates_by_its_demands() {
    let upstream = Upstream::echo();
    let (world, address) = serving(&["pets.test", "partners.test"], &upstream);
    let (public, private) = (Identity::of("pets.test"), Identity::of("partners.test"));
    let (authority, partner) = authority_and_client();
    let mut demanding = private.ssl("partners.test");
    demanding["client"] = json!({"ca": authority, "depth": 1});
    write(&world, "pets", &public.ssl("pets.test"));
    write(&world, "partners", &demanding);

    let anybody = Client::trusting(&public);
    let stranger = Client::trusting(&private);
    let member = Client { shows: Some(&partner), ..Client::trusting(&private) };
    for (client, name, host, status) in [
        (&anybody, "pets.test", "pets.test", "200"),
        (&stranger, "partners.test", "partners.test", "400"),
        (&member, "partners.test", "partners.test", "200"),
        // The way around the demand: a connection opened for the other name.
        (&anybody, "pets.test", "partners.test", "421"),
    ] {
        let answer = client.ask(address, name, host).expect("an answer");
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{name}, {host}: {answer}");
    }
    assert_eq!(upstream.recorded().len(), 2, "what was refused reached nobody");
}

#[test]
fn http_2_is_agreed_on_and_spoken() {
    let upstream = Upstream::echo();
    let (world, address) = serving(&["pets.test"], &upstream);
    let identity = Identity::of("pets.test");
    write(&world, "pets", &identity.ssl("pets.test"));
    let client = Client { offers: &[b"h2", b"http/1.1"], ..Client::trusting(&identity) };
    let mut session = client.connect(address, "pets.test").expect("a session");
    assert_eq!(session.conn.alpn_protocol(), Some(&b"h2"[..]));

    // The preface, SETTINGS, and a request whose fields are entries of the static table but for the host.
    let block = [&[0x82, 0x87, 0x84, 0x41, 9], &b"pets.test"[..]].concat();
    let head = [0, 0, u8::try_from(block.len()).unwrap(), 1, 5, 0, 0, 0, 1];
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    let said = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &settings[..], &head, &block].concat();
    session.write_all(&said).unwrap();
    loop {
        let mut head = [0; 9];
        session.read_exact(&mut head).expect("a frame");
        let mut payload = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
        session.read_exact(&mut payload).expect("its payload");
        // HEADERS of the stream, which begin with `:status: 200`.
        if head[3] == 1 {
            assert_eq!((head[8], payload[0]), (1, 0x88));
            break;
        }
    }
    assert_eq!(upstream.last().target(), "/");
}
