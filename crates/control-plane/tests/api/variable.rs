//! Variables.

use crate::world::World;

#[tokio::test]
async fn every_variable_is_listed_with_a_description_and_families_by_the_start_of_their_names() {
    let world = World::start().await;
    let variables = world.value("GET", "/apisix/admin/variables", None).await;
    let variables = variables.as_array().unwrap();
    let named = |name: &str| variables.iter().find(|variable| variable["name"] == name);
    for name in ["uri", "remote_addr", "arg_", "http_", "uri_param_"] {
        let found = named(name).unwrap_or_else(|| panic!("no {name}"));
        assert!(found["desc"].as_str().is_some_and(|desc| !desc.is_empty()), "{name}");
    }
    assert!(named("http_*").is_none());
}
