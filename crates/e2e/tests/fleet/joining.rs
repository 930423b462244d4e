//! How a gateway proves its group and knows its control plane.

use std::path::{Path, PathBuf};

use gatewright_e2e::{ControlPlane, Gateway, Process, Upstream, wait};
use serde_json::json;
use tempfile::TempDir;

fn add_instance(control_plane: &ControlPlane, data_dir: &Path, further: &[&str]) -> String {
    let url = format!("http://{}", control_plane.admin_address);
    let (data_dir, https) = (data_dir.to_str().unwrap(), control_plane.https());
    let mut arguments = vec!["gateway-group", "add-instance", "--admin-url", &url, "--data-dir", data_dir];
    arguments.extend_from_slice(&["--control-plane", &https]);
    arguments.extend_from_slice(further);
    let (code, stdout, stderr) = Process::run(&arguments, &[]);
    assert_eq!(code, Some(0), "{stderr}");
    stdout.lines().last().unwrap().to_owned()
}

/// The words of a printed command after `gatewright gateway`.
fn arguments_of(command: &str) -> Vec<&str> {
    command.split_once("gatewright gateway ").unwrap().1.split(' ').collect()
}

#[test]
fn e18_a_token_is_all_that_a_gateway_needs_to_trust_its_control_plane_and_nobody_else() {
    let (directory, upstream) = (TempDir::new().unwrap(), Upstream::echo());
    let data_dir = directory.path().join("data");
    let ours = ControlPlane::start(&data_dir);
    ours.publish("1.0.0", "/one", &upstream);
    let command = add_instance(&ours, &data_dir, &[]);
    let token = command.split(' ').next().unwrap().strip_prefix("GATEWRIGHT_TOKEN=").unwrap();
    let token_file = directory.path().join("token");
    std::fs::write(&token_file, token).unwrap();
    let joined = Gateway::start(&ours.https(), &token_file, &directory.path().join("gateway")).ready();
    assert_eq!(joined.get("/one"), 200);

    let other = ControlPlane::start(&directory.path().join("elsewhere"));
    let stranger = Gateway::start(&other.https(), &token_file, &directory.path().join("stranger"));
    wait::until_true("the other control plane is refused", || {
        stranger.process.stderr().contains("UnknownIssuer")
    });
    assert_eq!(stranger.get("/one"), 503);
}

#[test]
fn a_certificate_joins_is_shown_with_its_expiry_rotates_without_restart_and_e16_is_revoked() {
    let (directory, upstream) = (TempDir::new().unwrap(), Upstream::echo());
    let data_dir = directory.path().join("data");
    let control_plane = ControlPlane::start(&data_dir);
    control_plane.publish("1.0.0", "/one", &upstream);
    let files = directory.path().join("files");
    let certificate_dir = ["--certificate-dir", files.to_str().unwrap()];
    let command =
        add_instance(&control_plane, &data_dir, &[&certificate_dir[..], &["--days", "20"]].concat());
    let gateway = Gateway::start_with(&arguments_of(&command), &directory.path().join("gateway")).ready();
    assert_eq!(gateway.get("/one"), 200);
    assert!(gateway.process.stderr().contains("runs out"), "20 days are few");

    let certificates = || control_plane.admin.get("/api/gateway_groups/default/dp_client_certificates");
    let expiry = certificates()["list"][0]["expiry"].clone();
    wait::until_true("the instance is listed with its expiry", || {
        control_plane
            .instances()
            .first()
            .is_some_and(|one| one["dataplane_certificate_expire_time"] == expiry)
    });
    let status = gateway.status();
    assert_eq!(status["certificate_expires_at"], expiry, "{status}");

    // Another certificate in the same files; then the first one is revoked.
    let first = certificates()["list"][0]["id"].as_str().unwrap().to_owned();
    add_instance(&control_plane, &data_dir, &certificate_dir);
    let path = format!("/api/gateway_groups/default/dp_client_certificates/{first}");
    control_plane.admin.change("DELETE", &path, &json!(null));
    let newer = certificates()["list"][0]["expiry"].clone();
    wait::until_true("the instance has come back with the new certificate", || {
        control_plane.instances()[0]["dataplane_certificate_expire_time"] == newer
    });
    control_plane.publish("1.1.0", "/two", &upstream);
    wait::until_true("what is published is served", || gateway.get("/two") == 200);

    // With nothing that is valid it serves what it has, and nothing newer.
    let second = certificates()["list"][0]["id"].as_str().unwrap().to_owned();
    let path = format!("/api/gateway_groups/default/dp_client_certificates/{second}");
    control_plane.admin.change("DELETE", &path, &json!(null));
    wait::until_true("it is refused", || gateway.process.stderr().contains("unknown or revoked"));
    control_plane.publish("1.2.0", "/three", &upstream);
    assert_eq!((gateway.get("/two"), gateway.get("/three")), (200, 404));
}

#[test]
fn a_certificate_of_another_authority_is_no_certificate_and_e19_one_of_another_group_opens_only_that() {
    let directory = TempDir::new().unwrap();
    let data_dir = directory.path().join("data");
    let control_plane = ControlPlane::start(&data_dir);
    let elsewhere = directory.path().join("elsewhere");
    let other = ControlPlane::start(&elsewhere);
    let group = control_plane.admin.change("POST", "/api/gateway_groups", &json!({"name": "production"}));
    let group = group["value"]["id"].as_str().unwrap().to_owned();
    let files = |name: &str| directory.path().join(name);
    let with = |name: &str| ["--certificate-dir".to_owned(), files(name).to_str().unwrap().to_owned()];
    let run = |control_plane, data_dir: &PathBuf, name: &str, further: &[&str]| {
        let with = with(name);
        let further = [&[with[0].as_str(), with[1].as_str()][..], further].concat();
        add_instance(control_plane, data_dir, &further)
    };
    let theirs = run(&other, &elsewhere, "theirs", &[]);
    let ours = run(&control_plane, &data_dir, "ours", &["--group", &group]);

    // The certificate of the other authority, with ours to trust.
    let authority = files("ours").join("ca.pem");
    let mut arguments = arguments_of(&theirs);
    let (https, authority) = (control_plane.https(), authority.to_str().unwrap().to_owned());
    arguments[1] = &https;
    *arguments.last_mut().unwrap() = &authority;
    let stranger = Gateway::start_with(&arguments, &files("stranger"));
    wait::until_true("the handshake fails", || {
        stranger.process.stderr().contains("not following the control plane")
    });

    let mut arguments = arguments_of(&ours);
    let place = arguments.iter().position(|word| *word == group).unwrap();
    arguments[place] = "default";
    let curious = Gateway::start_with(&arguments, &files("curious"));
    wait::until_true("the other group is refused", || {
        curious.process.stderr().contains("belongs to another gateway group")
    });
    // Its heartbeats are those of the group that it has proved.
    let instances = control_plane.admin.get("/api/gateway_groups/default/instances");
    assert_eq!(instances["total"], 0, "{instances}");
}

#[test]
fn a_token_without_an_authority_is_refused_for_https() {
    let directory = TempDir::new().unwrap();
    let data_dir = directory.path().to_str().unwrap();
    let arguments = ["gateway", "--control-plane", "https://127.0.0.1:1", "--token", "gwi-1"];
    let (code, _, stderr) = Process::run(&[&arguments[..], &["--data-dir", data_dir]].concat(), &[]);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("does not name the authority"), "{stderr}");
}
