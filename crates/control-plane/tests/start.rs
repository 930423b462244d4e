//! Starting: what a first start leaves behind, and what keeps a control plane from starting.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use gatewright_control_plane::{AdminTls, CreatedSecrets, Settings, StartError, start};
use tempfile::TempDir;

use crate::world::{World, settings};

fn without_secrets(dir: &Path) -> Settings {
    Settings { admin_password: None, admin_key: None, ..settings(dir) }
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn p20_a_first_start_keeps_random_secrets_that_only_the_owner_can_read() {
    let parent = TempDir::new().unwrap();
    let dir = parent.path().join("new").join("data");
    let control_plane = start(without_secrets(&dir)).await.unwrap();
    let created = control_plane.created_secrets().clone();
    assert_eq!(mode(&dir), 0o700);
    for (file, secret) in [
        ("admin-password", created.admin_password),
        ("admin-key", created.admin_key),
        ("instance-token", created.instance_token),
    ] {
        let kept = std::fs::read_to_string(dir.join(file)).unwrap();
        assert_eq!(Some(kept.trim_end().to_owned()), secret, "{file}");
        assert_eq!(mode(&dir.join(file)), 0o600, "{file}");
    }
    assert_eq!(mode(&dir.join("gatewright.db")), 0o600);
    let database = std::fs::read(dir.join("gatewright.db-wal")).unwrap();
    let key = control_plane.created_secrets().admin_key.clone().unwrap();
    assert!(key.starts_with("gw-"), "{key}");
    assert!(!database.windows(key.len()).any(|window| window == key.as_bytes()), "the key itself is stored");
    control_plane.stop(Duration::from_secs(10)).await;

    let again = start(without_secrets(&dir)).await.unwrap();
    assert_eq!(again.created_secrets(), &CreatedSecrets::default());
    let world = World { control_plane: again, dir: parent, database: None };
    assert_eq!(world.send("GET", "/api/gateway_groups", &[("x-api-key", &key)], "").await.status, 200);
}

#[tokio::test]
async fn given_secrets_are_used_and_not_written() {
    let world = World::start().await;
    let created = world.control_plane.created_secrets();
    assert_eq!((&created.admin_password, &created.admin_key), (&None, &None));
    assert!(!world.dir.path().join("admin-key").exists());
    assert!(!world.dir.path().join("admin-password").exists());
    assert_eq!(world.call("GET", "/api/gateway_groups", None).await.status, 200);
}

#[tokio::test]
async fn an_interrupted_first_start_is_repeated() {
    let dir = TempDir::new().unwrap();
    // What is left when the process dies between writing the secrets and committing the database.
    std::fs::write(dir.path().join("admin-key"), "gw-of-the-attempt-before\n").unwrap();
    std::fs::write(dir.path().join("instance-token.new"), "longer than any token will ever be".repeat(9))
        .unwrap();
    let control_plane = start(without_secrets(dir.path())).await.unwrap();
    let key = control_plane.created_secrets().admin_key.clone().unwrap();
    assert_eq!(std::fs::read_to_string(dir.path().join("admin-key")).unwrap(), format!("{key}\n"));
    let token = control_plane.created_secrets().instance_token.clone().unwrap();
    assert_eq!(std::fs::read_to_string(dir.path().join("instance-token")).unwrap(), format!("{token}\n"));
}

#[tokio::test]
async fn two_control_planes_do_not_share_a_data_directory() {
    let world = World::start().await;
    let error = start(settings(world.dir.path())).await.err().unwrap();
    let message = error.to_string();
    assert!(matches!(error, StartError::DataDirectory { .. }), "{message}");
    assert!(message.contains("another control plane is using it"), "{message}");
    world.restart().await;
}

#[tokio::test]
async fn what_cannot_be_used_is_named_with_its_flag() {
    let world = World::start().await;
    let parent = TempDir::new().unwrap();
    let fresh = parent.path().join("data");
    let occupied = world.control_plane.admin_address();
    for (settings, flag) in [
        (Settings { admin: occupied, ..settings(&fresh) }, "--admin"),
        (Settings { sync: Some(occupied), ..settings(&fresh) }, "--sync"),
    ] {
        let message = start(settings).await.err().unwrap().to_string();
        assert!(message.contains(&format!("cannot listen on {occupied} ({flag})")), "{message}");
    }
    assert!(!fresh.exists(), "nothing was made of a start that could not listen");

    let file = parent.path().join("file");
    std::fs::write(&file, "").unwrap();
    let message = start(settings(&file)).await.err().unwrap().to_string();
    assert!(message.contains("cannot use the data directory") && message.contains("--data-dir"), "{message}");

    let damaged = parent.path().join("damaged");
    std::fs::create_dir(&damaged).unwrap();
    std::fs::write(damaged.join("gatewright.db"), "this is no database".repeat(100)).unwrap();
    let error = start(settings(&damaged)).await.err().unwrap();
    assert!(matches!(error, StartError::Store { .. }), "{error}");
}

/// What a client sees of a server it does not trust: the certificates, and whether they are its own.
async fn served_certificate(address: std::net::SocketAddr, trusted: &Path) -> Result<Vec<u8>, String> {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject as _;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(trusted).unwrap()).unwrap();
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.unwrap().with_root_certificates(roots).with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config));
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let name = "localhost".try_into().unwrap();
    let stream = connector.connect(name, stream).await.map_err(|error| error.to_string())?;
    let certificate = stream.get_ref().1.peer_certificates().unwrap()[0].to_vec();
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let body = serde_json::json!({"username": "admin", "password": crate::world::PASSWORD}).to_string();
    let request = hyper::Request::post("/api/login").header("host", "localhost").body(body).unwrap();
    let response = sender.send_request(request).await.unwrap();
    assert_eq!(response.status(), 200);
    let cookie = response.headers()["set-cookie"].to_str().unwrap().to_owned();
    assert!(cookie.ends_with("; Secure"), "{cookie}");
    Ok(certificate)
}

#[tokio::test]
async fn the_admin_api_is_served_over_tls_with_a_certificate_that_is_kept() {
    let dir = TempDir::new().unwrap();
    let address = ([127, 0, 0, 1], 0).into();
    let admin_tls = Some(AdminTls { address, certificate: None });
    let with_tls = || Settings { admin_tls: admin_tls.clone(), ..settings(dir.path()) };
    let (certificate, key) = (dir.path().join("admin-tls.pem"), dir.path().join("admin-tls-key.pem"));
    let control_plane = start(with_tls()).await.unwrap();
    let first = served_certificate(control_plane.admin_tls_address().unwrap(), &certificate).await.unwrap();
    assert_eq!(mode(&key), 0o600);
    control_plane.stop(Duration::from_secs(10)).await;
    let control_plane = start(with_tls()).await.unwrap();
    let second = served_certificate(control_plane.admin_tls_address().unwrap(), &certificate).await.unwrap();
    assert_eq!(first, second);
    control_plane.stop(Duration::from_secs(10)).await;

    let own = Some(AdminTls { address, certificate: Some((key, certificate)) });
    let message = start(Settings { admin_tls: own, ..settings(dir.path()) }).await.err().unwrap().to_string();
    assert!(message.contains("--admin-tls") && message.contains("holds no certificate"), "{message}");
}

#[tokio::test]
async fn p30_a_publish_in_flight_when_the_control_plane_stops_is_whole_or_absent() {
    let world = World::start().await;
    world.design("s1").await;
    world.design("s2").await;
    let address = world.control_plane.admin_address();
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let publishing = tokio::spawn(async move {
        let body = crate::world::publish("default", &[("s1", "1"), ("s2", "1")]).to_string();
        let io = hyper_util::rt::TokioIo::new(stream);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
        tokio::spawn(connection);
        let request = hyper::Request::post("/api/services/publish")
            .header("host", "control-plane")
            .header("x-api-key", crate::world::KEY);
        let response = sender.send_request(request.body(body).unwrap()).await;
        response.is_ok_and(|response| response.status() == 200)
    });
    tokio::task::yield_now().await;
    let begun = std::time::Instant::now();
    let world = world.restart().await;
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    let is_acknowledged = publishing.await.unwrap();
    let active = world.list("/api/gateway_groups/default/services", "service_id").await;
    assert!(active.is_empty() || active.len() == 2, "{active:?}");
    assert!(!is_acknowledged || active.len() == 2, "it was acknowledged and is gone");
}

#[tokio::test]
async fn another_secret_key_than_the_first_is_refused_and_the_first_is_made_once() {
    let dir = TempDir::new().unwrap();
    start(settings(dir.path())).await.unwrap().stop(Duration::from_secs(10)).await;
    let made = std::fs::read_to_string(dir.path().join("secret-key")).unwrap();
    let with = |key: &str| Settings { secret_key: Some(key.to_owned()), ..settings(dir.path()) };
    start(with(&made)).await.unwrap().stop(Duration::from_secs(10)).await;
    for (key, part) in
        [("07".repeat(32), "cannot be decrypted"), ("short".to_owned(), "64 hexadecimal digits")]
    {
        let message = start(with(&key)).await.err().unwrap().to_string();
        assert!(message.contains("--secret-key") && message.contains(part), "{message}");
    }
    std::fs::remove_file(dir.path().join("secret-key")).unwrap();
    let message = start(settings(dir.path())).await.err().unwrap().to_string();
    assert!(message.contains("secret-key") && message.contains("No such file"), "{message}");
    assert!(!dir.path().join("secret-key").exists(), "a new key would open nothing that is stored");
}
