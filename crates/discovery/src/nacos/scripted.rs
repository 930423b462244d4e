//! Against a peer that answers what a test wrote down: what a real server cannot be made to do or to show.

use std::sync::Arc;

use gatewright_model::resource::service_registry::Wanted;
use serde_json::{Value, json};

use super::signature;
use crate::browse::{Found, Place};
use crate::testing::{Exchange, Peer, hosts, registry, watch, watch_with};

fn config(peer: &Peer, auth: Value) -> Value {
    let mut config = json!({"hosts": [peer.url()], "fetch_interval": 1});
    if !auth.is_null() {
        config["auth"] = auth;
    }
    json!({"name": "n", "type": "nacos", "nacos_config": config})
}

fn instance(ip: &str, more: Value) -> Value {
    let mut instance =
        json!({"ip": ip, "port": 80, "weight": 1.0, "healthy": true, "enabled": true, "metadata": {}});
    more.as_object().unwrap().iter().for_each(|(name, value)| instance[name] = value.clone());
    instance
}

fn listed(instances: &[Value]) -> Exchange {
    Exchange::json(200, &json!({"name": "DEFAULT_GROUP@@web", "hosts": instances}))
}

#[tokio::test]
async fn healthy_instances_with_the_metadata_that_is_wanted_are_nodes() {
    let instances = [
        instance("10.0.0.1", json!({"metadata": {"idc": "beijing"}})),
        instance("10.0.0.2", json!({"metadata": {"idc": "shanghai"}})),
        instance("10.0.0.3", json!({"metadata": {"idc": "beijing"}, "healthy": false})),
        instance("10.0.0.4", json!({"metadata": {"idc": "beijing"}, "enabled": false})),
        instance("10.0.0.5", json!({"metadata": {"idc": "beijing"}, "weight": 0.25})),
        instance("10.0.0.6", json!({"metadata": {"idc": "beijing"}, "weight": null})),
    ];
    let peer = Peer::start(vec![listed(&instances), listed(&[])]).await;
    let args = json!({"metadata": {"idc": "beijing"}});
    let config = config(&peer, Value::Null);
    let mut service = watch_with(&config, "one/space/blue/web", args).unwrap();
    assert_eq!(hosts(service.next().await), ["10.0.0.1:80 100", "10.0.0.5:80 25", "10.0.0.6:80 100"]);
    assert_eq!(hosts(service.next().await), [""; 0], "asked again after a second");
    let path = "/nacos/v1/ns/instance/list";
    let query = "serviceName=web&groupName=blue&healthyOnly=true&namespaceId=space";
    assert_eq!(peer.asked()[1].line, format!("GET {path}?{query}"));
    let args = json!({"namespace_id": "n", "group_name": "g"});
    let mut service = watch_with(&config, "web", args).unwrap();
    tokio::select! { _ = service.next() => {}, () = asked(&peer, 3) => {} }
    assert!(peer.asked()[2].line.ends_with("serviceName=web&groupName=g&healthyOnly=true&namespaceId=n"));
    assert!(watch(&config, "a/b/c/d/e").is_err());
}

/// Until a peer was asked so often.
async fn asked(peer: &Peer, count: usize) {
    while peer.asked().len() < count {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_login_becomes_a_token_which_is_renewed_when_it_is_not_believed_any_more() {
    let login = |token: &str| Exchange::json(200, &json!({"accessToken": token, "tokenTtl": 18000}));
    let peer = Peer::start(vec![
        login("t1"),
        listed(&[instance("10.0.0.1", json!({}))]),
        Exchange::text(403, "token expired!"),
        login("t2"),
        listed(&[]),
        Exchange::text(500, "caused: server is DOWN now"),
    ])
    .await;
    let mut service = watch(&config(&peer, json!({"username": "u", "password": "p&w"})), "web").unwrap();
    assert_eq!(hosts(service.next().await), ["10.0.0.1:80 100"]);
    assert_eq!(hosts(service.next().await), [""; 0]);
    assert!(service.next().await.unwrap_err().to_string().contains("server is DOWN"));
    let asked = peer.asked();
    assert_eq!(
        (asked[0].line.as_str(), asked[0].body.as_str()),
        ("POST /nacos/v1/auth/login", "username=u&password=p%26w")
    );
    for (at, token) in [(1, "t1"), (2, "t1"), (4, "t2"), (5, "t2")] {
        assert!(asked[at].line.ends_with(&format!("&accessToken={token}")), "{}", asked[at].line);
    }
}

#[tokio::test]
async fn what_is_asked_for_is_signed_where_keys_say_so() {
    let namespaces = Exchange::json(200, &json!({"code": 200, "data": []}));
    let peer = Peer::start(vec![listed(&[]), namespaces]).await;
    let config = config(&peer, json!({"access_key": "ak", "secret_key": "sk"}));
    watch(&config, "web").unwrap().next().await.unwrap();
    registry(&config).unwrap().browse(&Place::Namespaces).await.unwrap();
    for (asked, named) in peer.asked().iter().zip([Some("DEFAULT_GROUP@@web"), None]) {
        let url = reqwest::Url::parse(&format!("http://n{}", &asked.line[4..])).unwrap();
        let value = |name: &str| url.query_pairs().find(|(known, _)| known == name).unwrap().1.into_owned();
        let data = value("data");
        let (time, rest) =
            data.split_once("@@").map_or((data.as_str(), None), |(time, rest)| (time, Some(rest)));
        assert!(time.parse::<u64>().is_ok() && rest == named, "{data}");
        assert_eq!((value("ak"), value("signature")), ("ak".to_owned(), signature("sk", &data).unwrap()));
    }
    assert_eq!(
        signature("key", "The quick brown fox jumps over the lazy dog").unwrap(),
        "3nybhbi3iqa8ino29wqQcBydtNk="
    );
}

#[tokio::test]
async fn an_answer_that_does_not_list_instances_is_none() {
    // What version 2 of the interface says, and errors that come with 200.
    for answer in
        [json!({"code": 0, "message": "success", "data": {"hosts": []}}), json!({}), json!([]), json!("ok")]
    {
        let peer = Peer::start(vec![Exchange::json(200, &answer)]).await;
        let trouble = watch(&config(&peer, Value::Null), "web").unwrap().next().await.unwrap_err();
        assert!(trouble.to_string().contains("not what was asked for"), "{answer}: {trouble}");
    }
}

#[tokio::test]
async fn version_3_of_the_interface_is_asked_where_the_prefix_names_it() {
    let wrapped = |data: Value| Exchange::json(200, &json!({"code": 0, "message": "success", "data": data}));
    let entry = |name: &str, group: &str| json!({"name": name, "groupName": group, "ipCount": 1});
    let peer = Peer::start(vec![
        Exchange::json(200, &json!({"accessToken": "t", "tokenTtl": 18000})),
        wrapped(json!([instance("10.0.0.1", json!({})), instance("10.0.0.2", json!({"healthy": false}))])),
        wrapped(json!([{"namespace": "public", "namespaceShowName": "public"}])),
        wrapped(json!({"totalCount": 2, "pageNumber": 1, "pagesAvailable": 1,
            "pageItems": [entry("a", "G"), entry("b", "H")]})),
        Exchange::json(404, &json!({"code": 20004, "message": "resource not found", "data": null})),
    ])
    .await;
    let mut config = config(&peer, json!({"username": "u", "password": "p"}));
    config["nacos_config"]["prefix"] = json!("/nacos/v3/");
    let nacos = registry(&config).unwrap();
    let wanted = json!({"service_name": "space/blue/web", "discovery_type": "nacos"});
    let wanted = Wanted::of(&serde_json::from_value(wanted).unwrap()).unwrap();
    let mut service = Arc::clone(&nacos).watch(&wanted).unwrap();
    assert_eq!(hosts(service.next().await), ["10.0.0.1:80 100"]);
    let pairs = vec![("public".to_owned(), "public".to_owned())];
    assert_eq!(nacos.browse(&Place::Namespaces).await.unwrap(), Found::Namespaces(pairs));
    let groups = Place::Groups { namespace: "dev".to_owned() };
    let names = ["G", "H"].map(str::to_owned).into();
    assert_eq!(nacos.browse(&groups).await.unwrap(), Found::Names(names));
    assert!(service.next().await.unwrap_err().to_string().contains("resource not found"));
    let asked: Vec<String> = peer.asked().into_iter().map(|asked| asked.line).collect();
    let path = |line: &String| line.split('?').next().unwrap().to_owned();
    let instances = "GET /nacos/v3/client/ns/instance/list";
    assert_eq!(
        asked.iter().map(path).collect::<Vec<_>>(),
        [
            "POST /nacos/v3/auth/user/login",
            instances,
            "GET /nacos/v3/admin/core/namespace/list",
            "GET /nacos/v3/admin/ns/service/list",
            instances
        ]
    );
    let query = "serviceName=web&groupName=blue&healthyOnly=true&namespaceId=space&accessToken=t";
    assert!(asked[1].ends_with(query), "{}", asked[1]);
}
