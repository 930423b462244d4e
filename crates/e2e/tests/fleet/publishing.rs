//! `gatewright publish`: a version, and waiting until it is served.

use gatewright_e2e::{ControlPlane, Gateway, Process, Upstream, wait};
use tempfile::TempDir;

#[test]
fn a_publish_waits_until_every_instance_serves_it_and_fails_for_those_that_do_not() {
    let (directory, upstream) = (TempDir::new().unwrap(), Upstream::echo());
    let data_dir = directory.path().join("data");
    let control_plane = ControlPlane::start(&data_dir);
    control_plane.publish("1.0.0", "/one", &upstream);
    let mut gateway = Gateway::start(
        &control_plane.https(),
        &control_plane.token_file(),
        &directory.path().join("gateway"),
    )
    .ready();
    wait::until_true("the instance is known", || !control_plane.instances().is_empty());
    let url = format!("http://{}", control_plane.admin_address);
    let publish = |version: &str, patience: &str| {
        let (service, data_dir) = (format!("s@{version}"), data_dir.to_str().unwrap());
        let arguments =
            ["publish", &service, "--wait", patience, "--admin-url", &url, "--data-dir", data_dir];
        Process::run(&arguments, &[])
    };
    let (code, stdout, stderr) = publish("1.1.0", "60s");
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    assert!(stdout.contains("served whole by 1 of 1 instances"), "{stdout}");
    assert!(gateway.has(control_plane.revision()));

    gateway.process.kill();
    let (code, stdout, stderr) = publish("1.2.0", "100ms");
    assert_eq!(code, Some(1), "{stdout}{stderr}");
    assert!(stdout.contains("it has not applied the revision yet"), "{stdout}");
    assert_eq!(
        control_plane.admin.active_version("s").as_deref(),
        Some("1.2.0"),
        "it is published all the same"
    );
}
