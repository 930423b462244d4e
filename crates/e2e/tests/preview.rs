//! What publishing would change, told with the requests that came, and then as it was told.

use gatewright_e2e::{Process, Upstream, World, wait};
use serde_json::{Value, json};

/// The answer to a preview of the template of `pets`.
fn preview(world: &World) -> Value {
    let wish = json!({ "services": [{ "service_id": "pets" }] });
    world.admin.change("POST", "/api/gateway_groups/default/preview", &wish)["value"].clone()
}

#[test]
fn a_preview_replays_the_requests_that_came_and_publishing_does_what_it_said() {
    let (world, upstream) = (World::start(), Upstream::echo());
    let template = json!({"hosts": ["pets.test"], "upstream": {"nodes": upstream.nodes()}});
    world.serve("pets", "1.0.0", &template, &[json!({"paths": ["/pets/:id"]}), json!({"paths": ["/other"]})]);
    let paths = ["/pets/7?token=s3cret", "/other", "/nothing"];
    let mut round = paths;
    // At most one head is taken per tenth of a second. On a slow machine that is always the first of a round, so each
    // path comes first in turn.
    let mut radius_after_requests = || {
        round.rotate_left(1);
        for path in round {
            let served = if path == "/nothing" { 404 } else { 200 };
            assert_eq!(world.get("pets.test", path).status(), served);
        }
        preview(&world)["blast_radius"].clone()
    };
    wait::until_true("requests are sampled", || {
        let radius = radius_after_requests();
        radius["heads"].as_u64() >= Some(9) && radius["unaffected"] == radius["heads"]
    });
    // The template's first route moves, so that what it serves now would be lost.
    world.admin.put_route("pets-0", &json!({"name": "r0", "service_id": "pets", "paths": ["/nothing"]}));
    let radius = wait::until("what is lost and what is found", || {
        let radius = radius_after_requests();
        (radius["lost"].as_u64() >= Some(1) && radius["found"].as_u64() >= Some(1)).then_some(radius)
    });
    let lost =
        radius["changes"].as_array().unwrap().iter().find(|change| change["effects"] == json!(["lost"]));
    let example = &lost.unwrap()["examples"][0];
    assert_eq!(
        (&example["path"], &example["status"]),
        (&json!("/pets/7"), &json!(200)),
        "no query, no secret"
    );

    let admin_url = format!("http://{}", world.admin_address);
    let data_dir = world.data_dir();
    let arguments = ["preview", "pets", "--admin-url", &admin_url, "--data-dir", data_dir.to_str().unwrap()];
    let (code, told, err) = Process::run(&arguments, &[]);
    assert_eq!(code, Some(0), "{err}");
    assert!(
        told.contains("served by no route any more") && told.contains("GET pets.test/pets/7 (200)"),
        "{told}"
    );

    world.admin.publish("pets", "2.0.0");
    world.settle();
    assert_eq!(paths.map(|path| world.get("pets.test", path).status()), [404, 200, 200]);
}
