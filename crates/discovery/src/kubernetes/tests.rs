//! Against a fake that replays the protocol; there is no API server where these tests run.

use serde_json::{Value, json};

use crate::browse::{Found, Place};
use crate::testing::{Exchange, Peer, hosts, registry, watch};

fn config(peer: &Peer, more: Value) -> Value {
    let mut config = json!({
        "service": {"schema": "http", "host": "127.0.0.1", "port": peer.port().to_string()}, "client": {"token": "t0ken"}
    });
    more.as_object().unwrap().iter().for_each(|(name, value)| config[name] = value.clone());
    json!({"name": "k", "type": "kubernetes", "kubernetes_config": config})
}

/// A slice whose endpoints are at these addresses; one in brackets is not ready.
fn slice(name: &str, version: u32, addresses: &[&str]) -> Value {
    let endpoint = |address: &&str| match address.strip_prefix('!') {
        Some(address) => json!({"addresses": [address], "conditions": {"ready": false}}),
        None => json!({"addresses": [address], "conditions": {}}),
    };
    json!({"metadata": {"name": name, "namespace": "default", "resourceVersion": version.to_string()},
        "addressType": "IPv4", "ports": [{"name": "admin", "port": 9000}, {"name": "http", "port": 8080}],
        "endpoints": addresses.iter().map(endpoint).collect::<Vec<_>>()})
}

fn list(version: u32, going_on: &str, slices: &[Value]) -> Exchange {
    let metadata = json!({"resourceVersion": version.to_string(), "continue": going_on});
    Exchange::json(200, &json!({"kind": "EndpointSliceList", "metadata": metadata, "items": slices}))
}

fn event(kind: &str, object: Value) -> Value {
    json!({"type": kind, "object": object})
}

fn expired() -> Value {
    event(
        "ERROR",
        json!({"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"}),
    )
}

#[tokio::test]
async fn slices_are_listed_once_and_then_watched_and_listed_again_when_the_version_has_expired() {
    let bookmark = json!({"kind": "EndpointSlice", "metadata": {"resourceVersion": "20"}});
    let peer = Peer::start(vec![
        list(9, "more", &[slice("a", 5, &["10.0.0.1", "!10.0.0.2"])]),
        list(10, "", &[slice("b", 6, &["10.0.0.3"])]),
        Exchange::lines(&[event("MODIFIED", slice("a", 11, &["10.0.0.1", "10.0.0.2"]))]),
        Exchange::lines(&[event("DELETED", slice("b", 12, &[])), event("BOOKMARK", bookmark)]),
        Exchange::lines(&[expired()]),
        list(40, "", &[slice("c", 39, &["10.0.0.9"])]),
        Exchange::text(410, "{}"),
        list(50, "", &[]),
        Exchange::lines(&[]),
    ])
    .await;
    let config = config(&peer, json!({"label_selector": "env=live"}));
    let mut web = watch(&config, "cluster/default/web:http").unwrap();
    let (one, two) = (
        ["10.0.0.1:8080 50", "10.0.0.3:8080 50"],
        ["10.0.0.1:8080 50", "10.0.0.2:8080 50", "10.0.0.3:8080 50"],
    );
    assert_eq!(hosts(web.next().await), one, "listed, in two pages");
    assert_eq!(hosts(web.next().await), two, "watched");
    assert_eq!(hosts(web.next().await), two, "watched again after the server ended it");
    assert_eq!(hosts(web.next().await), two[..2], "both events in one go");
    assert_eq!(hosts(web.next().await), two[..2], "watched again");
    assert_eq!(hosts(web.next().await), ["10.0.0.9:8080 50"], "listed after the version had expired");
    assert_eq!(hosts(web.next().await), [""; 0], "a service without endpoints has no nodes");
    let asked = peer.asked();
    let path = "GET /apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
    let selector = "labelSelector=kubernetes.io%2Fservice-name%3Dweb%2Cenv%3Dlive";
    assert_eq!(asked[0].line, format!("{path}?limit=500&{selector}"));
    assert_eq!(asked[0].field("authorization"), Some("Bearer t0ken"));
    assert_eq!(asked[1].line, format!("{path}?limit=500&{selector}&continue=more"));
    for (at, version) in [(2, 10), (3, 11), (4, 20), (6, 40)] {
        let watched = format!(
            "{path}?watch=true&{selector}&resourceVersion={version}&allowWatchBookmarks=true&timeoutSeconds=240"
        );
        assert_eq!(asked[at].line, watched);
    }
}

#[tokio::test]
async fn a_watch_that_breaks_is_trouble_and_goes_on_from_where_it_was() {
    let denied = event("ERROR", json!({"kind": "Status", "code": 500, "message": "etcd is away"}));
    let peer = Peer::start(vec![
        list(10, "", &[slice("a", 5, &["10.0.0.1"])]),
        Exchange::lines(&[denied]),
        Exchange::text(401, "{\"message\": \"Unauthorized\"}"),
        Exchange::lines(&[event("ADDED", slice("b", 11, &["10.0.0.2"]))]),
        Exchange::lines(&[]),
    ])
    .await;
    let mut web = watch(&config(&peer, json!({})), "default/web:9000").unwrap();
    assert_eq!(hosts(web.next().await), ["10.0.0.1:9000 50"]);
    assert!(web.next().await.unwrap_err().to_string().contains("500: etcd is away"));
    assert!(web.next().await.unwrap_err().to_string().contains("401"));
    assert_eq!(hosts(web.next().await), ["10.0.0.1:9000 50"]);
    assert_eq!(hosts(web.next().await), ["10.0.0.1:9000 50", "10.0.0.2:9000 50"]);
    assert!(peer.asked()[3].line.contains("resourceVersion=10&"));
}

#[tokio::test]
async fn services_of_the_namespaces_that_are_looked_at_are_found() {
    let service = |namespace: &str, name: &str| json!({"metadata": {"name": name, "namespace": namespace}});
    let services = json!({"metadata": {}, "items": [
        service("default", "a"), service("team-blue", "b"), service("team-red", "c"), service("kube-system", "dns")]});
    for (selector, expected) in [
        (json!({"equal": "default"}), vec!["default"]),
        (json!({"not_equal": "default"}), vec!["kube-system", "team-blue", "team-red"]),
        (json!({"match": ["^team-", "^default$"]}), vec!["default", "team-blue", "team-red"]),
        (json!({"not_match": ["^team-"]}), vec!["default", "kube-system"]),
    ] {
        let peer = Peer::start(vec![Exchange::json(200, &services)]).await;
        let config = config(&peer, json!({"namespace_selector": selector}));
        let Ok(Found::Services(found)) = registry(&config).unwrap().browse(&Place::Services).await else {
            panic!("no services");
        };
        assert_eq!(found.keys().collect::<Vec<_>>(), expected.iter().collect::<Vec<_>>());
        let is_watched = watch(&config, "kube-system/dns:53").is_ok();
        assert_eq!(is_watched, expected.contains(&"kube-system"));
    }
}

#[tokio::test]
async fn a_kubeconfig_says_where_the_cluster_is_and_what_it_is_shown() {
    let peer = Peer::start(vec![Exchange::text(200, "{}"), Exchange::text(403, "no")]).await;
    let kubeconfig = |user: &str| {
        let file = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: one\ncontexts:\n- name: one\n  context: {{cluster: c, user: u}}\n\
             clusters:\n- name: c\n  cluster: {{server: '{}'}}\nusers:\n- name: u\n  user: {user}\n",
            peer.url()
        );
        json!({"name": "k", "type": "kubernetes", "kubernetes_config": {"client": {"kubeconfig": file}}})
    };
    let cluster = registry(&kubeconfig("{token: abc}")).unwrap();
    cluster.probe().await.unwrap();
    assert!(cluster.probe().await.is_err());
    assert_eq!(
        (peer.asked()[0].line.as_str(), peer.asked()[0].field("authorization")),
        ("GET /version", Some("Bearer abc"))
    );
    for (user, expected) in [
        ("{exec: {command: aws}}", "otherwise than by a token"),
        ("{client-certificate: /home/me/crt}", "refers to files"),
        ("{client-certificate-data: '!', client-key-data: '!'}", "not base64"),
    ] {
        let trouble = registry(&kubeconfig(user)).err().unwrap().to_string();
        assert!(trouble.contains(expected), "{trouble}");
    }
}

#[test]
fn what_is_no_name_of_a_service_is_refused() {
    let config = json!({"name": "k", "type": "kubernetes", "kubernetes_config":
        {"service": {"schema": "http", "host": "k", "port": "80"}}});
    for name in ["web:80", "default/web:", "/web:80"] {
        assert!(watch(&config, name).is_err(), "{name}");
    }
}
