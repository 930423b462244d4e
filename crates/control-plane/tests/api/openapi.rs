//! The OpenAPI document: generated, committed, served.

use crate::world::World;

#[test]
fn the_committed_document_is_the_generated_one() {
    // Tests run in the folder of their package.
    let committed = std::fs::read_to_string("../../openapi.json").unwrap_or_default();
    assert!(
        committed == gatewright_control_plane::openapi(),
        "openapi.json is stale: run `cargo xtask openapi` and commit the result"
    );
}

#[tokio::test]
async fn the_served_document_needs_no_credentials_and_is_openapi_3_1() {
    let world = World::start().await;
    let answer = world.send("GET", "/openapi.json", &[], "").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.body["openapi"], "3.1.0");
    let generated: serde_json::Value = serde_json::from_str(&gatewright_control_plane::openapi()).unwrap();
    assert_eq!(answer.body, generated);
}

#[test]
fn every_reference_in_the_document_leads_somewhere() {
    let document: serde_json::Value = serde_json::from_str(&gatewright_control_plane::openapi()).unwrap();
    let text = document.to_string();
    let references = text.split("\"$ref\":\"#").skip(1).map(|rest| rest.split('"').next().unwrap());
    let missing: Vec<_> = references.filter(|reference| document.pointer(reference).is_none()).collect();
    assert_eq!(missing, [""; 0]);
}
