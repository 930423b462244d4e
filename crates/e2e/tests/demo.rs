//! `gatewright up --demo`: the lines that a newcomer pastes, on the first start and on any later one.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::process::Command;

use gatewright_e2e::World;
use serde_json::Value;

const PETSTORE: &str = "petstore.example.com";

/// Runs a printed line as a shell does.
fn paste(line: &str) -> String {
    let output = Command::new("sh").args(["-c", line]).output().expect("a shell");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{line}\n{errors}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

fn lines(world: &World) -> [String; 3] {
    let lines: Vec<_> =
        world.process.lines().iter().filter(|line| line.starts_with("curl ")).cloned().collect();
    lines.try_into().unwrap_or_else(|lines| panic!("not three lines to paste: {lines:?}"))
}

fn pet(world: &World) -> Value {
    let response = world.get(PETSTORE, "/store/pets/1");
    assert_eq!(response.status(), 200, "{}", response.text());
    response.json()
}

fn nodes(world: &World) -> Value {
    world.admin.find_published("pet-store").expect("a published pet store")["upstream"]["nodes"].clone()
}

#[test]
fn the_three_lines_work_when_pasted() {
    let world = World::start_with(&["--demo"]);
    let [ask, list, publish] = lines(&world);

    let pet: Value = serde_json::from_str(&paste(&ask)).unwrap();
    assert_eq!(pet["pet"]["id"], 1);
    let services: Value = serde_json::from_str(&paste(&list)).unwrap();
    let found =
        services["list"].as_array().unwrap().iter().find(|service| service["service_id"] == "pet-store");
    assert_eq!(found.unwrap()["version"], "1.0.0");

    assert_eq!(world.get(PETSTORE, "/store/new-in-1.1.0").status(), 404);
    assert!(paste(&publish).contains("/new-in-1.1.0"));
    assert_eq!(world.admin.active_version("pet-store").unwrap(), "1.1.0");
    assert_eq!(world.get(PETSTORE, "/store/new-in-1.1.0").status(), 200);
}

#[test]
fn the_pet_store_has_two_routes_and_two_nodes() {
    let world = World::start_with(&["--demo"]);
    let answered: BTreeSet<_> = (0..8).map(|_| pet(&world)["node"].to_string()).collect();
    assert_eq!(answered.len(), 2, "{answered:?}");
    assert_eq!(world.get(PETSTORE, "/store/pets").json()["pets"].as_array().unwrap().len(), 3);
    for (host, target) in
        [(PETSTORE, "/pets/1"), (PETSTORE, "/store"), ("other.example.com", "/store/pets/1")]
    {
        assert_eq!(world.get(host, target).status(), 404, "{host}{target}");
    }
}

#[test]
fn a_second_start_finds_the_pet_store_and_publishes_nothing() {
    let world = World::start_with(&["--demo"]);
    let before = world.admin.find_published("pet-store").unwrap();

    let mut world = world.start_again(&["--demo"]);
    let after = world.admin.find_published("pet-store").unwrap();
    assert_eq!(after["version"], "1.0.0");
    assert_eq!(after["service_version_id"], before["service_version_id"]);
    pet(&world);

    let [ask, list, publish] = lines(&world);
    assert_eq!(world.process.secret("administrator key"), None);
    paste(&ask);
    assert!(paste(&list).contains("pet-store"));
    paste(&publish);

    world.process.terminate();
    assert_eq!(world.process.exit_code(), Some(0));
    let world = world.start_again(&["--demo"]);
    assert_eq!(world.admin.active_version("pet-store").unwrap(), "1.1.0", "what the user published stays");
    assert!(paste(&lines(&world)[2]).contains("/new-in-1.2.0"));
}

#[test]
fn a_second_start_takes_the_ports_that_are_published() {
    let world = World::start_with(&["--demo"]);
    let before = nodes(&world);
    let world = world.start_again(&["--demo"]);
    assert_eq!(nodes(&world), before);
    pet(&world);
}

#[test]
fn backends_move_when_somebody_else_has_their_ports() {
    let mut world = World::start_with(&["--demo"]);
    let before = nodes(&world);
    world.process.kill();
    let port = u16::try_from(before[0]["port"].as_u64().unwrap()).unwrap();
    let _squatter = TcpListener::bind(("127.0.0.1", port)).expect("the port of a backend that was killed");

    let world = world.start_again(&["--demo"]);
    let after = nodes(&world);
    assert!(after.as_array().unwrap().iter().all(|node| node["port"] != port), "{after}");
    assert_eq!(world.admin.active_version("pet-store").unwrap(), "1.0.0");
    for _ in 0..4 {
        pet(&world);
    }
}
