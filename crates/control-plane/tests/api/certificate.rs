//! Certificates, CA certificates and SNIs: written one by one, served as one.

use gatewright_model::protocol::Update;
use gatewright_model::resource::group_object::ObjectContent;
use gatewright_model::resource::ssl::Ssl;
use serde_json::{Value, json};

use crate::watch::watch;
use crate::world::World;

fn at(path: &str) -> String {
    format!("/apisix/admin/{path}?gateway_group_id=default")
}

/// A certificate that vouches for itself, and its key.
pub(crate) fn certificate(name: &str) -> Value {
    let pair = rcgen::generate_simple_self_signed([format!("{name}.example")]).unwrap();
    json!({"name": name, "cert": pair.cert.pem(), "key": pair.signing_key.serialize_pem()})
}

/// The SSL object that gateways know by this id.
fn ssl<'u>(update: &'u Update, id: &str) -> &'u Ssl {
    let ssl = update.objects.iter().find_map(|object| match &object.content {
        ObjectContent::Ssl(ssl) if object.id.as_str() == id => Some(ssl),
        _ => None,
    });
    ssl.expect("the object is sent")
}

#[tokio::test]
pub(crate) async fn gateways_get_the_certificates_of_an_sni_and_every_change_of_them() {
    let world = World::start().await;
    let (one, two, authority) = (certificate("one"), certificate("two"), certificate("ca"));
    world.value("PUT", &at("certificates/c"), Some(one.clone())).await;
    let authority = json!({"name": "ca", "cert": authority["cert"]});
    world.value("PUT", &at("ca_certificates/a"), Some(authority.clone())).await;
    let sni = json!({"name": "s", "hosts": ["one.example"], "certificate_ids": ["c"], "ca_certificate_ids": ["a"],
        "ssl_protocols": ["TLSv1.3"]});
    let shown = world.value("PUT", &at("snis/s"), Some(sni)).await;
    assert_eq!((&shown["status"], &shown["certificate_ids"]), (&json!(1), &json!(["c"])));

    let mut gateway = watch(&world.control_plane, "gateway_group_id=default").await.unwrap();
    let update = gateway.update().await;
    let served = ssl(&update, "sni.s");
    assert_eq!((json!(served.certs), json!(served.keys)), (json!([one["cert"]]), json!([one["key"]])));
    assert_eq!(served.snis, ["one.example"]);
    assert_eq!(
        json!(served.client.as_ref().unwrap().ca.trim_end()),
        json!(authority["cert"].as_str().unwrap().trim_end())
    );
    assert_eq!(json!(ssl(&update, "certificate.c").cert), one["cert"], "to be shown to nodes");

    world.value("PUT", &at("certificates/c"), Some(two.clone())).await;
    let update = gateway.update().await;
    assert_eq!(json!(ssl(&update, "sni.s").certs), json!([two["cert"]]));
    world
        .value("PATCH", &at("snis/s"), Some(json!({"ca_certificate_ids": [], "hosts": ["two.example"]})))
        .await;
    let update = gateway.update().await;
    assert_eq!((&ssl(&update, "sni.s").client, update.objects.len()), (&None, 1));
    world.value("DELETE", &at("ca_certificates/a"), None).await;
    assert_eq!(gateway.update().await.objects.len(), 0);
    world.value("DELETE", &at("snis/s"), None).await;
    world.value("DELETE", &at("certificates/c"), None).await;
    let removed = gateway.update().await.removed_objects;
    let removed: Vec<_> = removed.iter().map(|key| key.id.as_str()).collect();
    assert!(removed.contains(&"sni.s"), "{removed:?}");
}

#[tokio::test]
pub(crate) async fn what_an_sni_refers_to_must_be_there_and_stays() {
    let world = World::start().await;
    let sni = json!({"name": "s", "hosts": ["one.example"], "certificate_ids": ["c"]});
    let message = world.refused(400, "PUT", &at("snis/s"), Some(sni.clone())).await;
    assert!(
        message.contains("/certificate_ids/0") && message.contains("certificate `c` not found"),
        "{message}"
    );
    world.value("PUT", &at("certificates/c"), Some(certificate("one"))).await;
    world.value("PUT", &at("snis/s"), Some(sni)).await;
    let message = world.refused(409, "DELETE", &at("certificates/c"), None).await;
    assert!(message.contains("SNI `s`"), "{message}");
    for wrong in [json!({"ssl_protocols": ["TLSv1.1"]}), json!({"hosts": []}), json!({"certificate_ids": []})]
    {
        world.refused(400, "PATCH", &at("snis/s"), Some(wrong)).await;
    }
    world.value("DELETE", &at("snis/s"), None).await;
    world.value("DELETE", &at("certificates/c"), None).await;
    world.refused(404, "GET", &at("certificates/c"), None).await;
}

#[tokio::test]
async fn the_key_of_a_certificate_never_comes_back_and_is_not_readable_in_the_data_directory() {
    let world = World::start().await;
    let one = certificate("one");
    let created = world.value("POST", &at("certificates"), Some(one.clone())).await;
    let path = at(&format!("certificates/{}", created["id"].as_str().unwrap()));
    let patched = world.value("PATCH", &path, Some(json!({"desc": "new"}))).await;
    let shown = world.value("GET", &path, None).await;
    let listed = world.call("GET", &at("certificates"), None).await.body;
    for answer in [created, patched, shown.clone(), listed] {
        assert!(!answer.to_string().contains("PRIVATE KEY"), "{answer}");
    }
    assert_eq!((&shown["desc"], &shown["exptime"]), (&json!("new"), &shown["validity_end"]));
    let key = one["key"].as_str().unwrap().lines().nth(1).unwrap().as_bytes();
    for entry in std::fs::read_dir(world.dir.path()).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        assert!(!bytes.windows(key.len()).any(|window| window == key));
    }
    let message = world.refused(409, "POST", &at("certificates"), Some(one)).await;
    assert!(message.contains("same certificate"), "{message}");
    let place =
        json!({"snis": ["a.example"], "cert": certificate("x")["cert"], "key": certificate("y")["key"]});
    world.refused(400, "PUT", &at("ssls/sni.s"), Some(place)).await;
}
