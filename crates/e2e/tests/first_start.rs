//! A newcomer's first minute: what is printed, what is kept, who gets in.

use std::os::unix::fs::PermissionsExt;

use gatewright_e2e::{Admin, Process, World, client, world};

#[test]
fn the_first_start_prints_its_secrets_once_and_keeps_them_private() {
    let world = World::start();
    for (label, file) in [("administrator password", "admin-password"), ("administrator key", "admin-key")] {
        let printed = world.process.secret(label).unwrap_or_else(|| panic!("no {label} was printed"));
        let path = world.data_dir().join(file);
        assert_eq!(std::fs::read_to_string(&path).unwrap().trim(), printed, "{label}");
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{file}");
        assert!(printed.len() >= 16, "a random {label} is long");
    }
    let key = world.process.secret("administrator key");

    let again = world.start_again(&[]);
    assert_eq!(again.process.secret("administrator password"), None);
    assert_eq!(again.process.secret("administrator key"), None);
    let key = key.expect("the key of the first start");
    assert!(!again.process.stderr().contains(&key), "a secret never gets into the logs");
    assert_eq!(
        Admin::new(again.admin_address, Some(&key)).send("GET", "/api/gateway_groups", "").status,
        200
    );
}

#[test]
fn secrets_that_are_given_are_neither_printed_nor_made_up() {
    let directory = tempfile::TempDir::new().unwrap();
    let data_dir = directory.path().join("data");
    let secrets = [
        ("GATEWRIGHT_ADMIN_KEY", "an-administrators-key-0123456789"),
        ("GATEWRIGHT_ADMIN_PASSWORD", "correct-horse-battery-staple"),
    ];
    let mut process = Process::start(&world::up(data_dir.to_str().unwrap()), &secrets);
    process.wait_ready();
    let admin = process.address("admin API");
    assert_eq!(Admin::new(admin, Some(secrets[0].1)).send("GET", "/api/gateway_groups", "").status, 200);
    assert_eq!(process.secret("administrator key"), None);
    assert_eq!(process.secret("administrator password"), None);
    for (_, secret) in secrets {
        assert!(!process.stdout().contains(secret) && !process.stderr().contains(secret));
    }
}

#[test]
fn every_flag_can_come_from_the_environment() {
    let directory = tempfile::TempDir::new().unwrap();
    let data_dir = directory.path().join("data");
    let environment = [
        ("GATEWRIGHT_DATA_DIR", data_dir.to_str().unwrap()),
        ("GATEWRIGHT_ADMIN", "127.0.0.1:0"),
        ("GATEWRIGHT_PROXY", "127.0.0.1:0"),
        ("GATEWRIGHT_STATUS", "127.0.0.1:0"),
        ("GATEWRIGHT_WORKERS", "1"),
    ];
    let mut process = Process::start(&["up"], &environment);
    process.wait_ready();
    assert!(data_dir.join("admin-key").is_file());
}

#[test]
fn addresses_are_printed_first_and_ready_last() {
    let world = World::start();
    let labels: Vec<_> = world.process.lines().iter().map(|line| line.split("  ").next().unwrap()).collect();
    assert_eq!(labels[..3], ["admin API", "proxy", "status"]);
    assert_eq!(labels.last(), Some(&"ready"));
}

#[test]
fn ready_means_that_a_configuration_is_served() {
    let world = World::start();
    assert_eq!(client::get(world.status, "status", "/status/ready").status(), 200);
    assert_eq!(client::get(world.status, "status", "/status").status(), 200);
    let nothing_published = world.get("any.test", "/");
    assert_eq!(nothing_published.status(), 404);
    assert_eq!(nothing_published.json()["error_msg"], "404 Route Not Found");
}

#[test]
fn without_the_key_the_admin_api_does_nothing() {
    let world = World::start();
    for key in [None, Some("wrong"), Some("")] {
        let stranger = Admin::new(world.admin_address, key);
        for (method, path, body) in [
            ("GET", "/api/services/template", ""),
            ("PUT", "/api/services/template/intruder", r#"{"name":"intruder"}"#),
            ("POST", "/api/services/publish", "{}"),
        ] {
            let answer = stranger.send(method, path, body);
            assert_eq!(
                (answer.status, answer.error().is_empty()),
                (401, false),
                "{method} {path} with {key:?}"
            );
        }
    }
    assert_eq!(world.admin.get("/api/services/template")["total"], 0);
}

#[test]
fn the_admin_api_describes_itself() {
    let world = World::start();
    let document = world.admin.get("/openapi.json");
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"), "{}", document["openapi"]);
    let documented = document["paths"].as_object().unwrap();
    for path in
        ["/api/services/publish", "/api/services/template", "/api/routes/template", "/api/gateway_groups"]
    {
        assert!(documented.contains_key(path), "{path}");
    }
    assert!(world.admin.send("GET", "/api/version", "").is_accepted());
    let groups = world.admin.get("/api/gateway_groups");
    assert_eq!((&groups["total"], &groups["list"][0]["id"]), (&1.into(), &"default".into()));
    assert_eq!(world.admin.get("/api/gateway_groups/default")["value"]["id"], "default");
}
