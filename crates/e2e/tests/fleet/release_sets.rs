//! Several services to several groups, all or nothing.

use gatewright_e2e::{ControlPlane, Gateway, Process, Upstream, wait};
use serde_json::json;

/// Designs a service that needs a secret of the gateway's environment, if it is to.
fn design(control_plane: &ControlPlane, id: &str, upstream: &Upstream, needs_secret: bool) {
    let plugins = if needs_secret { json!({"csrf": {"key": "$env://RELEASE_KEY"}}) } else { json!({}) };
    let nodes = upstream.nodes();
    control_plane
        .admin
        .put_service(id, &json!({"name": id, "plugins": plugins, "upstream": {"nodes": nodes}}));
    let route = json!({"name": "r", "service_id": id, "paths": [format!("/{id}")]});
    control_plane.admin.put_route(&format!("{id}-0"), &route);
}

#[test]
fn a_set_that_one_gateway_cannot_compile_changes_nothing_anywhere_and_without_it_goes_through() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let (control_plane, upstream) = (ControlPlane::start(&at("control-plane")), Upstream::echo());
    let (http, token_file) = (control_plane.http(), control_plane.token_file());
    let following = ["--control-plane", &http, "--token-file", token_file.to_str().unwrap()];
    let able = Gateway::start_in(&following, &at("able"), &[("RELEASE_KEY", "a-long-enough-secret")]).ready();
    let unable = Gateway::start_in(&following, &at("unable"), &[]).ready();
    design(&control_plane, "a", &upstream, false);
    design(&control_plane, "b", &upstream, true);
    wait::until_true("both instances are known", || control_plane.instances().len() == 2);
    let before = control_plane.revision();

    let admin_url = format!("http://{}", control_plane.admin_address);
    let data_dir = at("control-plane");
    let access = ["--admin-url", &admin_url, "--data-dir", data_dir.to_str().unwrap()];
    let release =
        |arguments: &[&str]| Process::run(&[&["release-set"], arguments, &access[..]].concat(), &[]);
    let (code, _, refused) = release(&["publish", "a@1.0.0", "b@1.0.0"]);
    assert_eq!(code, Some(1));
    let named =
        control_plane.instances().iter().any(|instance| refused.contains(instance["id"].as_str().unwrap()));
    assert!(named && refused.contains("`b`") && refused.contains("RELEASE_KEY"), "{refused}");
    assert_eq!(control_plane.revision(), before);
    for gateway in [&able, &unable] {
        assert_eq!([gateway.get("/a"), gateway.get("/b")], [404, 404]);
    }

    design(&control_plane, "b", &upstream, false);
    let (code, out, err) = release(&["publish", "a@1.0.0", "b@1.0.0"]);
    assert_eq!(code, Some(0), "{err}");
    assert!(out.starts_with("published release set "), "{out}");
    assert_eq!(control_plane.revision(), before + 1);
    for gateway in [&able, &unable] {
        gateway.until_has(before + 1);
        assert_eq!([gateway.get("/a"), gateway.get("/b")], [200, 200]);
    }

    let id = out.lines().next().unwrap().rsplit(' ').next().unwrap();
    let (code, out, err) = release(&["roll-back", id]);
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains("default: a 1.0.0 -> nothing"), "{out}");
    for gateway in [&able, &unable] {
        gateway.until_has(before + 2);
        assert_eq!([gateway.get("/a"), gateway.get("/b")], [404, 404]);
    }
}
