//! `gatewright quick`: a backend gets published in one line, by people and by scripts.

use std::process::Command;

use gatewright_e2e::{Process, Upstream, World};

fn quick(world: &World, arguments: &[&str]) -> (Option<i32>, String, String) {
    let data_dir = world.data_dir();
    let (admin, proxy) = (format!("http://{}", world.admin_address), world.proxy.to_string());
    let mut all = vec!["quick"];
    all.extend_from_slice(arguments);
    all.extend(["--admin-url", &admin, "--proxy", &proxy, "--data-dir", data_dir.to_str().unwrap()]);
    Process::run(&all, &[])
}

fn publish(world: &World, arguments: &[&str]) -> String {
    let (code, stdout, stderr) = quick(world, arguments);
    assert_eq!(code, Some(0), "{stdout}\n{stderr}");
    world.settle();
    stdout
}

/// Runs the printed curl; hands back what the backend says it received.
fn paste(stdout: &str) -> serde_json::Value {
    let line = stdout.lines().find(|line| line.starts_with("curl ")).expect("a curl to paste");
    let output = Command::new("sh").args(["-c", line]).output().expect("a shell");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{line}: {output:?}"))
}

#[test]
fn one_line_publishes_a_backend_and_prints_the_curl_that_reaches_it() {
    let (world, backend) = (World::start(), Upstream::echo());
    let stdout = publish(&world, &[&backend.url(), "--path", "/orders"]);
    assert_eq!(paste(&stdout)["target"], "/");
    assert_eq!(world.get("any.test", "/orders/7?full=1").json()["target"], "/7?full=1");
    assert_eq!(world.get("any.test", "/ordersheet").status(), 404);
    assert_eq!(world.admin.active_version("orders").unwrap(), "1.0.0");
}

#[test]
fn running_it_again_publishes_the_next_version() {
    let (world, backend) = (World::start(), Upstream::echo());
    for version in ["1.0.0", "1.0.1", "1.0.2"] {
        let stdout = publish(&world, &[&backend.url(), "--path", "/orders"]);
        assert!(stdout.contains(version), "{stdout}");
        assert_eq!(world.admin.active_version("orders").unwrap(), version);
    }
}

#[test]
fn running_it_again_with_another_backend_moves_the_service() {
    let (world, old, new) = (World::start(), Upstream::echo(), Upstream::echo());
    publish(&world, &[&old.url(), "--path", "/orders"]);
    publish(&world, &[&new.url(), "--path", "/orders"]);
    assert_eq!(world.get("any.test", "/orders/1").status(), 200);
    assert_eq!((old.recorded().len(), new.recorded().len()), (0, 1));
}

#[test]
fn host_name_and_prefix_follow_the_flags() {
    let (world, backend) = (World::start(), Upstream::echo());
    let arguments = ["--path", "/v1/orders", "--host", "shop.test", "--name", "Shop Orders", "--keep-prefix"];
    let url = backend.url();
    let mut all = vec![url.as_str()];
    all.extend(arguments);
    let stdout = publish(&world, &all);
    assert_eq!(paste(&stdout)["target"], "/v1/orders");
    assert_eq!(world.get("other.test", "/v1/orders").status(), 404);
    assert_eq!(world.admin.find_published("shop-orders").unwrap()["name"], "Shop Orders");
}

#[test]
fn a_template_designed_by_hand_is_not_overwritten() {
    let (world, backend) = (World::start(), Upstream::echo());
    world.admin.put_service("orders", &serde_json::json!({"name": "orders by hand"}));
    let (code, _, stderr) = quick(&world, &[&backend.url(), "--path", "/orders"]);
    assert_eq!(code, Some(1));
    assert!(stderr.contains("--name"), "{stderr}");
    assert_eq!(world.admin.get("/api/services/template/orders")["value"]["name"], "orders by hand");
}

#[test]
fn failures_are_one_line_that_names_the_remedy() {
    let world = World::start();
    let (admin, empty) =
        (format!("http://{}", world.admin_address), world.directory().to_str().unwrap().to_owned());
    let nobody = format!("http://{}", Upstream::down().address());
    for (arguments, parts) in [
        (["--admin-url", &admin, "--data-dir", &empty], ["GATEWRIGHT_ADMIN_KEY", "--data-dir"]),
        (["--admin-url", &nobody, "--admin-key", "k"], [nobody.as_str(), "--admin-url"]),
        (["--admin-url", &admin, "--admin-key", "wrong"], ["401", "admin key"]),
    ] {
        let mut all = vec!["quick", "http://127.0.0.1:3000", "--path", "/orders"];
        all.extend(arguments);
        let (code, stdout, stderr) = Process::run(&all, &[]);
        assert_eq!((code, stdout.as_str(), stderr.lines().count()), (Some(1), "", 1), "{stderr}");
        assert!(parts.iter().all(|part| stderr.contains(part)), "{stderr}");
    }
    let (code, _, stderr) = {
        let key = std::fs::read_to_string(world.data_dir().join("admin-key")).unwrap();
        let all = [
            "quick",
            "http://127.0.0.1:3000",
            "--group",
            "absent",
            "--admin-url",
            &admin,
            "--admin-key",
            key.trim(),
        ];
        Process::run(&all, &[])
    };
    assert_eq!(code, Some(1));
    assert!(stderr.contains("`absent`") && stderr.contains("default"), "{stderr}");
}
