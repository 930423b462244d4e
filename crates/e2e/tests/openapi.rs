//! A document becomes a service that gateways serve, and the service a document.

use gatewright_e2e::{Process, Upstream, World};
use serde_json::Value;

/// What an import or export writes to stdout and stderr; it must succeed.
fn run(world: &World, arguments: &[&str]) -> (String, String) {
    let admin_url = format!("http://{}", world.admin_address);
    let data_dir = world.data_dir();
    let access = ["--admin-url", &admin_url, "--data-dir", data_dir.to_str().unwrap()];
    let (code, out, err) = Process::run(&[arguments, &access[..]].concat(), &[]);
    assert_eq!(code, Some(0), "{arguments:?}: {err}");
    (out, err)
}

#[test]
fn a_document_is_imported_published_served_and_exported() {
    let (world, upstream) = (World::start(), Upstream::echo());
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("pets.yaml");
    let write = |paths: &str| {
        let server = format!("http://{}/v1", upstream.address());
        let head = format!(
            "openapi: 3.1.0\ninfo: {{title: Pet store, version: '1'}}\nservers: [{{url: '{server}'}}]\n"
        );
        std::fs::write(&file, format!("{head}paths:\n{paths}")).unwrap();
        file.to_str().unwrap().to_owned()
    };
    let pet = "  /pets/{id}: {get: {operationId: getPet, responses: {}}}\n";
    let (out, err) = run(&world, &["import", "openapi", &write(pet)]);
    assert_eq!(out, "made service template `Pet store` (pet-store)");
    assert!(err.contains("unused   `responses` of an operation"), "{err}");
    world.admin.publish("pet-store", "1.0.0");
    world.settle();
    let answer = world.get("any.test", "/v1/pets/7");
    assert_eq!(answer.status(), 200);
    assert!(answer.text().contains("/v1/pets/7"), "the prefix stays: {}", answer.text());

    let more = format!("{pet}  /pets: {{get: {{operationId: listPets}}}}\n");
    let again = ["import", "openapi", &write(&more)];
    let (shown, _) = run(&world, &[&again[..], &["--dry-run"]].concat());
    assert!(shown.starts_with("would bring up to date") && shown.contains("+ listPets"), "{shown}");
    let (out, _) = run(&world, &again);
    assert!(out.starts_with("brought up to date") && out.contains("+ listPets"), "{out}");

    let exported = |service: &str| {
        let (document, _) = run(&world, &["export", "openapi", service]);
        let document: Value = serde_json::from_str(&document).unwrap();
        document["paths"].as_object().unwrap().keys().cloned().collect::<Vec<_>>()
    };
    assert_eq!(exported("pet-store@1.0.0"), ["/pets/{id}"]);
    assert_eq!(exported("pet-store").len(), 2);
}
