//! Which route serves a request, told beforehand: by a file, by a control plane, and for versions of the past.

use gatewright_e2e::{Process, Upstream, World};
use serde_json::{Value, json};

fn run(arguments: &[&str]) -> (Option<i32>, String, String) {
    Process::run(arguments, &[])
}

fn write(directory: &std::path::Path, name: &str, text: &str) -> String {
    let path = directory.join(name);
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn routes_are_tested_offline_line_by_line() {
    let directory = tempfile::tempdir().unwrap();
    let config = write(
        directory.path(),
        "gateway.yaml",
        "services:\n- name: pets\n  hosts: [pets.test]\n  path_prefix: /v1\n  routes:\n\
         \x20 - {name: one, paths: ['/pets/:id'], methods: [GET]}\n  - {name: all, paths: ['/*'], vars: [[arg_v, '==', '2']]}\n",
    );
    let requests = [
        json!({"method": "GET", "host": "pets.test", "uri": "/v1/pets/7"}),
        json!({"method": "PUT", "host": "pets.test", "uri": "/v1/pets/7?v=2"}),
        json!({"method": "GET", "host": "other.test", "uri": "/v1/pets/7"}),
        json!({"method": "GET", "host": "pets.test", "uri": "/%zz"}),
    ];
    let requests = requests.map(|request| request.to_string()).join("\n");
    let requests = write(directory.path(), "requests.jsonl", &requests);
    let (code, out, err) = run(&["explain", "--config", &config, "--requests", &requests, "-o", "json"]);
    assert_eq!(code, Some(0), "{err}");
    let answers: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(answers[0], json!({"service": "pets", "route": "one", "params": {"id": "7"}}));
    assert_eq!(answers[1], json!({"service": "pets", "route": "all", "params": {":ext": "pets/7"}}));
    assert_eq!(answers[2], Value::Null);
    assert!(answers[3]["error"].is_string(), "{}", answers[3]);
    assert_eq!(answers.len(), 4);

    let (code, out, err) = run(&["validate", &config]);
    assert_eq!((code, out.contains("is valid")), (Some(0), true), "{err}");

    let broken = write(directory.path(), "broken.yaml", "services: [{name: a, routes: [{paths: [x]}]}]");
    for arguments in [&["explain", "--config", &broken][..], &["validate", &broken]] {
        let (code, _, err) = run(arguments);
        assert_eq!(code, Some(1));
        assert!(
            err.contains("/services/0/routes/0/paths/0") && err.contains("/services/0/routes/0/name"),
            "{err}"
        );
    }
}

#[test]
fn expressions_are_tried_line_by_line() {
    let directory = tempfile::tempdir().unwrap();
    let cases = "{\"expr\":[[\"arg_v\",\"==\",\"2\"]],\"vars\":{\"arg_v\":\"2\"}}\n\
                 {\"expr\":[[\"arg_v\",\"==\",\"2\"]],\"vars\":{}}\n{\"expr\":[[\"arg_v\",\"=\",\"2\"]]}\n";
    let cases = write(directory.path(), "cases.jsonl", cases);
    let (code, out, err) = run(&["expression", "--cases", &cases]);
    assert_eq!(code, Some(0), "{err}");
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines[..2], ["true", "false"]);
    assert!(lines[2].starts_with("error: ") && lines.len() == 3, "{out}");
}

#[test]
fn a_control_plane_explains_what_is_published_and_what_was() {
    let (world, upstream) = (World::start(), Upstream::echo());
    let template = json!({"hosts": ["pets.test"], "upstream": {"nodes": upstream.nodes()}});
    world.serve("pets", "1.0.0", &template, &[json!({"paths": ["/old"]})]);
    world.serve("pets", "2.0.0", &template, &[json!({"paths": ["/new"], "methods": ["GET"]})]);
    let admin_url = format!("http://{}", world.admin_address);
    let data_dir = world.data_dir();
    let data_dir = data_dir.to_str().unwrap();
    let explain = |more: &[&str]| {
        let fixed = ["explain", "--admin-url", &admin_url, "--data-dir", data_dir, "--host", "pets.test"];
        let (code, out, err) = run(&[&fixed, more].concat());
        assert_eq!(code, Some(0), "{err}");
        out
    };
    let answer: Value = serde_json::from_str(&explain(&["--path", "/new", "-o", "json"])).unwrap();
    assert_eq!(answer["considered"][0]["version"], "2.0.0");
    assert_eq!(answer["winner"], 0);
    assert_eq!(world.get("pets.test", "/new").status(), 200);

    assert!(explain(&["--path", "/old"]).contains("is served by no route"));
    assert_eq!(world.get("pets.test", "/old").status(), 404);
    let past = explain(&["--path", "/old", "--service-version", "pets@1.0.0"]);
    assert!(past.contains("is served by service pets 1.0.0"), "{past}");
    let before = world.admin.get("/api/gateway_groups/default")["value"]["revision"].as_u64().unwrap() - 1;
    let past = explain(&["--path", "/old", "--revision", &before.to_string()]);
    assert!(past.starts_with(&format!("in revision {before} of gateway group default:\n")), "{past}");
    assert!(past.contains("is served by service pets 1.0.0"), "{past}");
    let first = explain(&["--path", "/old", "--revision", "0"]);
    assert!(first.contains("is served by no route"), "{first}");
    let (code, _, err) =
        run(&["explain", "--admin-url", &admin_url, "--data-dir", data_dir, "--revision", "999"]);
    assert_eq!((code, err.contains("revision 999 is not there yet")), (Some(1), true), "{err}");
    let excluded = explain(&["--path", "/new", "--method", "PUT"]);
    assert!(excluded.contains("the method is not listed"), "{excluded}");
}

#[test]
fn match_settings_of_the_group_reach_the_gateway() {
    let (world, upstream) = (World::start(), Upstream::echo());
    let template = json!({"upstream": {"nodes": upstream.nodes()}});
    world.serve("users", "1.0.0", &template, &[json!({"paths": ["/u/:id"]})]);
    assert_eq!(world.get("any.test", "/u/1").status(), 200);
    let group = json!({"name": "default", "settings": {"path_parameters": false}});
    world.admin.change("PUT", "/api/gateway_groups/default", &group);
    world.settle();
    assert_eq!(world.get("any.test", "/u/1").status(), 404);
    assert_eq!(world.get("any.test", "/u/:id").status(), 200);
}

#[test]
fn what_differs_between_two_versions_is_printed_for_people_and_programs() {
    let (world, upstream) = (World::start(), Upstream::echo());
    let template = json!({"hosts": ["pets.test"], "upstream": {"nodes": upstream.nodes()}});
    world.serve("pets", "1.0.0", &template, &[json!({"paths": ["/old"]})]);
    world.serve("pets", "2.0.0", &template, &[json!({"paths": ["/new"], "methods": ["GET"]})]);
    let admin_url = format!("http://{}", world.admin_address);
    let data_dir = world.data_dir();
    let data_dir = data_dir.to_str().unwrap();
    let diff = |sides: &[&str]| {
        let (code, out, err) =
            run(&[&["diff", "--admin-url", &admin_url, "--data-dir", data_dir], sides].concat());
        assert_eq!(code, Some(0), "{err}");
        out
    };
    let text = diff(&["pets@1.0.0", "pets@2.0.0"]);
    assert!(text.starts_with("routes\n") && text.contains("paths: [\"/old\"] -> [\"/new\"]"), "{text}");
    let json: Value = serde_json::from_str(&diff(&["pets@1.0.0", "pets@2.0.0", "--json"])).unwrap();
    assert!(json["routes"][0]["changes"].is_array(), "{json}");
    assert_eq!(diff(&["pets@group:default", "pets@2.0.0"]), "no differences");
    let unknown = ["diff", "--admin-url", &admin_url, "--data-dir", data_dir, "pets", "pets@9"];
    let (code, _, err) = run(&unknown);
    assert_eq!(code, Some(1));
    assert!(err.contains("service version `pets@9` not found"), "{err}");
}
