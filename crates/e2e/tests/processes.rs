//! The two halves as processes of their own: the gateway follows the control plane and outlives it.

use std::path::Path;

use gatewright_e2e::{Admin, ControlPlane, Gateway, Process, Upstream, client, wait};
use serde_json::json;

fn control_plane(data_dir: &Path, sync: &str) -> Process {
    let data_dir = data_dir.to_str().unwrap();
    let arguments = ["control-plane", "--data-dir", data_dir, "--admin", "127.0.0.1:0", "--sync", sync];
    let mut process = Process::start(&arguments, &[]);
    process.wait_ready();
    process
}

fn admin(control_plane: &mut Process, data_dir: &Path) -> Admin {
    let key = std::fs::read_to_string(data_dir.join("admin-key")).unwrap();
    Admin::new(control_plane.address("admin API"), Some(key.trim()))
}

fn gateway(control_planes: &str, data_dir: &Path) -> Process {
    let (token_file, free) = (data_dir.join("instance-token"), "127.0.0.1:0");
    let token_file = token_file.to_str().unwrap();
    let kept = data_dir.with_file_name("gateway");
    let arguments = [
        "gateway",
        "--control-plane",
        control_planes,
        "--token-file",
        token_file,
        "--proxy",
        free,
        "--status",
        free,
        "--data-dir",
        kept.to_str().unwrap(),
    ];
    Process::start(&arguments, &[])
}

fn publish(admin: &Admin, version: &str, path: &str, upstream: &Upstream) {
    admin.put_service("s", &json!({"name": "s", "upstream": {"nodes": upstream.nodes()}}));
    admin.put_route("s-0", &json!({"name": "r", "service_id": "s", "paths": [path]}));
    admin.publish("s", version);
}

#[test]
fn a_gateway_keeps_serving_while_its_control_plane_is_dead_and_follows_it_when_it_is_back() {
    let (directory, upstream) = (tempfile::TempDir::new().unwrap(), Upstream::echo());
    let data_dir = directory.path().join("data");
    let mut first = control_plane(&data_dir, "127.0.0.1:0");
    let sync = first.address("sync").to_string();
    publish(&admin(&mut first, &data_dir), "1.0.0", "/one", &upstream);
    let mut gateway = gateway(&format!("http://{sync}"), &data_dir);
    gateway.wait_ready();
    let proxy = gateway.address("proxy");
    assert_eq!(
        client::get(proxy, "s.test", "/one").status(),
        200,
        "ready means that it serves what is published"
    );

    first.kill();
    for _ in 0..20 {
        assert_eq!(client::get(proxy, "s.test", "/one").status(), 200);
    }
    assert_eq!(client::get(gateway.address("status"), "status", "/status/ready").status(), 200);

    let mut second = control_plane(&data_dir, &sync);
    publish(&admin(&mut second, &data_dir), "1.1.0", "/two", &upstream);
    wait::until_true("the gateway serves what the new control plane published", || {
        client::get(proxy, "s.test", "/two").status() == 200
    });
    assert_eq!(client::get(proxy, "s.test", "/one").status(), 404);

    gateway.terminate();
    assert_eq!(gateway.exit_code(), Some(0));
    second.terminate();
    assert_eq!(second.exit_code(), Some(0));
}

#[test]
fn e2_a_gateway_that_starts_without_its_control_plane_serves_what_it_kept() {
    let (directory, upstream) = (tempfile::TempDir::new().unwrap(), Upstream::echo());
    let data_dir = directory.path().join("data");
    let mut first = control_plane(&data_dir, "127.0.0.1:0");
    let sync = first.address("sync").to_string();
    publish(&admin(&mut first, &data_dir), "1.0.0", "/one", &upstream);
    let url = format!("http://{sync}");
    let mut before = gateway(&url, &data_dir);
    before.wait_ready();
    let status = before.address("status");
    wait::until_true("the configuration is on disk", || {
        let status = client::get(status, "status", "/status");
        let status: serde_json::Value = serde_json::from_slice(&status.body).unwrap();
        status["configuration"]["persisted"] == status["revision"]
    });
    first.kill();
    before.kill();

    let mut again = gateway(&url, &data_dir);
    let started = std::time::Instant::now();
    again.wait_ready();
    let elapsed = started.elapsed();
    assert_eq!(client::get(again.address("proxy"), "s.test", "/one").status(), 200);
    assert!(elapsed < std::time::Duration::from_secs(5), "it took {elapsed:?}");

    let mut second = control_plane(&data_dir, &sync);
    publish(&admin(&mut second, &data_dir), "1.1.0", "/two", &upstream);
    wait::until_true("the gateway serves what the new control plane published", || {
        client::get(again.address("proxy"), "s.test", "/two").status() == 200
    });
    let status = client::get(again.address("status"), "status", "/status");
    let status: serde_json::Value = serde_json::from_slice(&status.body).unwrap();
    assert_eq!(status["configuration"]["full_updates"], 0, "only the change travelled");
}

#[test]
fn e3_a_first_start_without_a_control_plane_answers_503_and_waits_for_one() {
    let (directory, upstream) = (tempfile::TempDir::new().unwrap(), Upstream::echo());
    let data_dir = directory.path().join("data");
    let mut first = control_plane(&data_dir, "127.0.0.1:0");
    let sync = first.address("sync").to_string();
    publish(&admin(&mut first, &data_dir), "1.0.0", "/one", &upstream);
    first.kill();
    let mut gateway = gateway(&format!("http://{sync}"), &data_dir);
    let (proxy, status) = (gateway.address("proxy"), gateway.address("status"));
    assert_eq!(client::get(proxy, "s.test", "/one").status(), 503);
    assert_eq!(client::get(status, "status", "/status/ready").status(), 503);
    let _second = control_plane(&data_dir, &sync);
    gateway.wait_ready();
    assert_eq!(client::get(proxy, "s.test", "/one").status(), 200);
}

#[test]
fn two_gateways_do_not_share_a_data_directory() {
    let directory = tempfile::TempDir::new().unwrap();
    let data_dir = directory.path().join("data");
    let mut control_plane = control_plane(&data_dir, "127.0.0.1:0");
    let url = format!("http://{}", control_plane.address("sync"));
    let mut first = gateway(&url, &data_dir);
    first.wait_ready();
    let mut second = gateway(&url, &data_dir);
    assert_eq!(second.exit_code(), Some(1));
    assert!(second.stderr().contains("another gateway uses the data directory"), "{}", second.stderr());
}

#[test]
fn a_gateway_finds_the_control_plane_that_is_up() {
    let directory = tempfile::TempDir::new().unwrap();
    let data_dir = directory.path().join("data");
    let mut control_plane = control_plane(&data_dir, "127.0.0.1:0");
    let addresses = format!("http://{},http://{}", Upstream::down().address(), control_plane.address("sync"));
    gateway(&addresses, &data_dir).wait_ready();
}

#[test]
fn a_control_plane_prints_the_instance_token_once_and_keeps_it_private() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::TempDir::new().unwrap();
    let data_dir = directory.path().join("data");
    let mut process = control_plane(&data_dir, "127.0.0.1:0");
    let file = data_dir.join("instance-token");
    assert_eq!(process.secret("instance token").unwrap(), std::fs::read_to_string(&file).unwrap().trim());
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    process.kill();
    assert_eq!(control_plane(&data_dir, "127.0.0.1:0").secret("instance token"), None);
}

#[test]
fn a_wrong_token_gets_no_configuration() {
    let directory = tempfile::TempDir::new().unwrap();
    let control_plane = ControlPlane::start(&directory.path().join("data"));
    let wrong = directory.path().join("wrong");
    std::fs::write(&wrong, "gwi-wrong").unwrap();
    let gateway = Gateway::start(&control_plane.http(), &wrong, &directory.path().join("gateway"));
    wait::until_true("it is refused", || gateway.process.stderr().contains("refused with 401"));
    assert_eq!(gateway.status()["revision"], serde_json::Value::Null);
}
