//! Against a real server: rnacos.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use gatewright_model::resource::upstream::Node;
use gatewright_test_nacos::{PASSWORD, Server, USERNAME};
use serde_json::{Value, json};
use tokio::sync::watch::channel;

use super::PAGE_SIZE;
use crate::browse::{Found, Place};
use crate::follow::{Known, follow};
use crate::testing::{hosts, registry, watch, watch_with};
use crate::{Trouble, Watch};

/// Longer than any change takes to be seen.
const DEADLINE: Duration = Duration::from_secs(60);

fn config(server: &Server, auth: Option<Value>) -> Value {
    let mut config = json!({"hosts": [server.url()], "fetch_interval": 1});
    if let Some(auth) = auth {
        config["auth"] = auth;
    }
    json!({"name": "n", "type": "nacos", "nacos_config": config})
}

/// An address that nobody ever connects to.
fn instance(number: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, number], 8080))
}

/// Until the service has these nodes.
async fn until_hosts(service: &mut Box<dyn Watch>, wanted: &[&str]) {
    let mut last = vec!["nothing".to_owned()];
    let changing = async {
        while last != wanted {
            last = sorted(service.next().await);
        }
    };
    if tokio::time::timeout(DEADLINE, changing).await.is_err() {
        panic!("never {wanted:?}, in the end {last:?}");
    }
}

fn sorted(answer: Result<Vec<Node>, Trouble>) -> Vec<String> {
    let mut hosts = hosts(answer);
    hosts.sort();
    hosts
}

#[tokio::test]
async fn instances_of_a_namespace_and_group_come_with_their_weights_and_leave() {
    let server = Server::start();
    server.call("POST", "/console/namespaces", &[("customNamespaceId", "space"), ("namespaceName", "Space")]);
    let place = [("namespaceId", "space"), ("groupName", "blue")];
    let config = config(&server, None);
    let mut service = watch(&config, "space/blue/web").unwrap();
    assert_eq!(hosts(service.next().await), [""; 0], "there is no such service, which is no error");
    for (number, parameter) in [
        (1, ("metadata", r#"{"idc":"beijing"}"#)),
        (2, ("weight", "0.25")),
        (3, ("weight", "0")),
        (4, ("enabled", "false")),
    ] {
        server.register("web", instance(number), &[&place[..], &[parameter]].concat());
    }
    server.register("web", instance(5), &[("namespaceId", "space")]);
    server.register("web", instance(6), &[]);
    server.register("shop", instance(7), &place);
    let all = ["10.0.0.1:8080 100", "10.0.0.2:8080 25", "10.0.0.3:8080 0"];
    assert_eq!(sorted(service.next().await), all);
    let args =
        json!({"namespace_id": "space", "group_name": "blue", "metadata": {"idc": ["beijing", "shanghai"]}});
    let mut in_beijing = watch_with(&config, "web", args).unwrap();
    assert_eq!(hosts(in_beijing.next().await), all[..1]);
    assert_eq!(hosts(watch(&config, "web").unwrap().next().await), ["10.0.0.6:8080 100"]);

    server.register("web", instance(4), &[&place[..], &[("enabled", "true")]].concat());
    server.register("web", instance(1), &[&place[..], &[("enabled", "false")]].concat());
    server.deregister("web", instance(2), &place);
    until_hosts(&mut service, &["10.0.0.3:8080 0", "10.0.0.4:8080 100"]).await;
    server.deregister("web", instance(3), &place);
    server.deregister("web", instance(4), &place);
    until_hosts(&mut service, &[]).await;
}

#[tokio::test]
async fn an_instance_that_does_not_say_that_it_lives_is_no_node_unless_none_does() {
    let server = Server::start_with_heartbeats();
    server.register("web", instance(1), &[]);
    // Nobody asks one that is not ephemeral whether it lives.
    server.register("web", instance(2), &[("ephemeral", "false")]);
    server.register("shop", instance(3), &[]);
    server.register("shop", instance(4), &[("weight", "2")]);
    let config = config(&server, None);
    let mut web = watch(&config, "web").unwrap();
    until_hosts(&mut web, &["10.0.0.2:8080 100"]).await;
    server.beat("web", instance(1));
    let both = sorted(watch(&config, "web").unwrap().next().await);
    assert_eq!(both, ["10.0.0.1:8080 100", "10.0.0.2:8080 100"]);

    let pages = [("withInstances", "false"), ("pageNo", "1"), ("pageSize", "9")];
    let well = || {
        let catalog: Value =
            serde_json::from_str(&server.call("GET", "/ns/catalog/services", &pages)).unwrap();
        let services = catalog["serviceList"].as_array().unwrap();
        services.iter().find(|service| service["name"] == "shop").unwrap()["healthyInstanceCount"].as_u64()
    };
    let falling_ill = async {
        while well() != Some(0) {
            web.next().await.unwrap();
        }
    };
    tokio::time::timeout(DEADLINE, falling_ill).await.unwrap();
    // Where no more are well than the threshold that protects a service, which is 0 here, Nacos says that all are.
    let mut shop = watch(&config, "shop").unwrap();
    assert_eq!(sorted(shop.next().await), ["10.0.0.3:8080 100", "10.0.0.4:8080 200"]);
}

// Connections that a dead server has closed are noticed while this test waits for another one.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_server_that_asks_for_it_is_shown_a_login_or_a_token_and_another_one_when_it_forgot() {
    let mut server = Server::start_with_logins();
    server.register("web", instance(1), &[]);
    let login = |password: &str| json!({"username": USERNAME, "password": password});
    for auth in [None, Some(login("another")), Some(json!({"token": "made up"}))] {
        let config = config(&server, auth);
        let trouble = watch(&config, "web").unwrap().next().await.unwrap_err().to_string();
        assert!(trouble.contains("403 Forbidden"), "{trouble}");
        assert!(registry(&config).unwrap().probe().await.is_err(), "{config}");
    }
    let token = config(&server, Some(json!({"token": server.token()})));
    assert_eq!(hosts(watch(&token, "web").unwrap().next().await), ["10.0.0.1:8080 100"]);
    let login = config(&server, Some(login(PASSWORD)));
    registry(&login).unwrap().probe().await.unwrap();
    let mut service = watch(&login, "web").unwrap();
    assert_eq!(hosts(service.next().await), ["10.0.0.1:8080 100"]);
    server.start_anew();
    server.register("web", instance(2), &[]);
    assert_eq!(
        hosts(service.next().await),
        ["10.0.0.2:8080 100"],
        "the token of the first login is not known any more"
    );
    assert!(watch(&token, "web").unwrap().next().await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_a_dead_server_said_last_holds_until_it_is_back() {
    let mut server = Server::start();
    server.register("web", instance(1), &[]);
    let config = config(&server, None);
    let (sender, mut known) = channel(Known::default());
    let service = watch(&config, "web").unwrap();
    tokio::spawn(async move { follow(service, &sender).await });
    let mut until = async |what: &str, is_it: fn(&Known) -> bool| {
        let known = tokio::time::timeout(DEADLINE, known.wait_for(is_it)).await;
        known.unwrap_or_else(|_| panic!("never: {what}")).unwrap().clone()
    };
    let serves = |known: &Known, host: &str| known.nodes.as_ref().unwrap()[0].host == host;
    let first = until("it answers", |known| known.nodes.is_some()).await;
    assert!(serves(&first, "10.0.0.1"));
    server.kill();
    let second = until("its death is seen", |known| known.failures > 1).await;
    assert!(second.trouble.is_some() && serves(&second, "10.0.0.1"));
    assert!(registry(&config).unwrap().probe().await.is_err());
    server.start_anew();
    registry(&config).unwrap().probe().await.unwrap();
    server.register("web", instance(2), &[]);
    let is_back = |known: &Known| {
        known.trouble.is_none() && known.nodes.as_ref().is_some_and(|nodes| !nodes.is_empty())
    };
    assert!(serves(&until("it is back", is_back).await, "10.0.0.2"));
}

#[tokio::test]
async fn namespaces_groups_services_and_metadata_can_be_looked_at() {
    let server = Server::start_with_logins();
    server.call(
        "POST",
        "/console/namespaces",
        &[("customNamespaceId", "dev"), ("namespaceName", "Development")],
    );
    let place = [("namespaceId", "dev"), ("groupName", "blue")];
    for (number, idc) in [(1, "idc=x,tier=1"), (2, "idc=y")] {
        server.register("web", instance(number), &[&place[..], &[("metadata", idc)]].concat());
    }
    server.register("shop", instance(3), &[("namespaceId", "dev"), ("groupName", "red")]);
    // More than fit on a page.
    let many: BTreeSet<String> = (0..=PAGE_SIZE).map(|number| format!("many-{number}")).collect();
    many.iter().for_each(|name| server.register(name, instance(4), &[]));

    let login = json!({"username": USERNAME, "password": PASSWORD});
    let nacos = registry(&config(&server, Some(login))).unwrap();
    let names = |names: &[&str]| -> BTreeSet<String> { names.iter().map(|&name| name.to_owned()).collect() };
    let (dev, public) = ("dev".to_owned(), "public".to_owned());
    let pairs = [("public", "public"), ("dev", "Development")];
    let pairs = pairs.map(|(id, name)| (id.to_owned(), name.to_owned())).to_vec();
    let services = |namespace: &String, group: &str| Place::GroupServices {
        namespace: namespace.clone(),
        group: group.to_owned(),
    };
    let web = Place::Metadata { namespace: dev.clone(), group: "blue".to_owned(), service: "web".to_owned() };
    let metadata = [("idc".to_owned(), names(&["x", "y"])), ("tier".to_owned(), names(&["1"]))];
    for (place, expected) in [
        (Place::Namespaces, Found::Namespaces(pairs)),
        (Place::Groups { namespace: dev.clone() }, Found::Names(names(&["blue", "red"]))),
        (services(&dev, "blue"), Found::Names(names(&["web"]))),
        (services(&dev, "green"), Found::Names(names(&[]))),
        (services(&public, "DEFAULT_GROUP"), Found::Names(many)),
        (Place::Groups { namespace: "nowhere".to_owned() }, Found::Names(names(&[]))),
        (web, Found::Metadata(metadata.into())),
    ] {
        assert_eq!(nacos.browse(&place).await.unwrap(), expected, "{place:?}");
    }
}
