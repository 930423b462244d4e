//! The watch, as a gateway sees it.

use std::time::Duration;

use gatewright_control_plane::{ControlPlane, start};
use gatewright_model::protocol::{ENCODING, HEARTBEAT_PATH, Message, TOKEN_HEADER, Update, WATCH_PATH};
use gatewright_model::snapshot::Revision;
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::Request;
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::world::{World, publish_again, settings};

/// One watch from the gateway's side.
pub(crate) struct Watch {
    body: Incoming,
    received: Vec<u8>,
    // Closes the connection when dropped.
    _sender: SendRequest<Empty<Bytes>>,
}

impl Watch {
    /// The next message; none: the control plane ended the watch.
    pub(crate) async fn next(&mut self) -> Option<Message> {
        loop {
            if let Some(end) = self.received.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.received.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            let frame = self.body.frame().await?.unwrap();
            self.received.extend_from_slice(frame.data_ref().unwrap());
        }
    }

    pub(crate) async fn update(&mut self) -> Update {
        loop {
            match self.next().await.expect("a message") {
                Message::Update(update) => return update,
                Message::Ping | Message::Behind { .. } | Message::Prepare { .. } => {}
            }
        }
    }
}

async fn open<I: AsyncRead + AsyncWrite + Send + Unpin + 'static>(
    stream: I,
    token: &str,
    query: &str,
) -> Result<Watch, u16> {
    let (mut sender, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = Request::get(format!("http://x{WATCH_PATH}?{query}")).header(TOKEN_HEADER, token);
    let response = sender.send_request(request.body(Empty::new()).unwrap()).await.unwrap();
    if response.status() != 200 {
        return Err(response.status().as_u16());
    }
    assert!(!response.headers().contains_key("content-encoding"), "nobody asked for it");
    Ok(Watch { body: response.into_body(), received: Vec::new(), _sender: sender })
}

/// Watches through a pipe within the process.
pub(crate) async fn watch(control_plane: &ControlPlane, query: &str) -> Result<Watch, u16> {
    watch_with(control_plane, control_plane.instance_token(), query).await
}

async fn watch_with(control_plane: &ControlPlane, token: &str, query: &str) -> Result<Watch, u16> {
    let (gateway_side, control_plane_side) = tokio::io::duplex(64 << 10);
    let server = control_plane.watch_server();
    tokio::spawn(async move { server.serve(control_plane_side).await });
    open(gateway_side, token, query).await
}

/// Sends a heartbeat through a pipe within the process: status and answer.
pub(crate) async fn beat(control_plane: &ControlPlane, token: &str, heartbeat: &Value) -> (u16, String) {
    post(control_plane, HEARTBEAT_PATH, token, heartbeat).await
}

/// Sends something beside the watch through a pipe within the process: status and answer.
pub(crate) async fn post(
    control_plane: &ControlPlane,
    path: &str,
    token: &str,
    body: &Value,
) -> (u16, String) {
    let (gateway_side, control_plane_side) = tokio::io::duplex(64 << 10);
    let server = control_plane.watch_server();
    tokio::spawn(async move { server.serve(control_plane_side).await });
    let (mut sender, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(gateway_side)).await.unwrap();
    tokio::spawn(connection);
    let request = Request::post(format!("http://x{path}"))
        .header("content-type", "application/json")
        .header(TOKEN_HEADER, token)
        .body(Full::<Bytes>::from(body.to_string()));
    let response = sender.send_request(request.unwrap()).await.unwrap();
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

/// The epoch of a store.
pub(crate) async fn epoch(control_plane: &ControlPlane) -> String {
    let update = watch(control_plane, "gateway_group_id=default").await.unwrap().update().await;
    update.epoch.unwrap().to_string()
}

pub(crate) fn versions(update: &Update) -> Vec<(&str, &str)> {
    update
        .services
        .iter()
        .map(|service| (service.service_id.as_str(), service.version.as_deref().unwrap()))
        .collect()
}

fn removed(update: &Update) -> Vec<&str> {
    update.removed.iter().map(|id| id.as_str()).collect()
}

#[tokio::test]
pub(crate) async fn a_new_gateway_is_sent_everything_and_then_what_changes() {
    let world = World::start().await;
    world.design("s1").await;
    world.design("s2").await;
    world.publish("default", "s1", "1").await;
    world.publish("default", "s2", "1").await;
    let mut watch = watch(&world.control_plane, "gateway_group_id=default").await.unwrap();
    let first = watch.update().await;
    assert!(first.full);
    assert_eq!((first.revision.0, versions(&first)), (2, vec![("s1", "1"), ("s2", "1")]));
    assert_eq!(first.services[0].routes[0].route.paths, ["/a"]);

    world.design_route("s1", "s1-r2", "/b").await;
    world.publish("default", "s1", "2").await;
    let second = watch.update().await;
    assert!(!second.full);
    assert_eq!((second.revision.0, versions(&second)), (3, vec![("s1", "2")]));
    assert_eq!(second.services[0].routes.len(), 2);

    let runtime = "/api/gateway_groups/default/services/s2/runtime_configuration";
    world.value("PATCH", runtime, Some(json!({"hosts": ["new.example"]}))).await;
    let third = watch.update().await;
    assert_eq!(
        (versions(&third), &third.services[0].runtime.hosts),
        (vec![("s2", "1")], &vec!["new.example".to_owned()])
    );

    world.value("DELETE", "/api/gateway_groups/default/services/s1", None).await;
    let fourth = watch.update().await;
    assert_eq!((fourth.revision.0, versions(&fourth), removed(&fourth)), (5, vec![], vec!["s1"]));
}

/// The bytes of the first update with everything, and of the change after it, as they travel packed; the group has so
/// many routes.
async fn packed_bytes(routes: usize) -> (usize, usize) {
    let world = World::start().await;
    world.design("s1").await;
    world.design("s2").await;
    for number in 0..routes {
        world.design_route("s1", &format!("s1-{number}"), &format!("/{number}")).await;
    }
    world.publish("default", "s1", "1").await;
    let (gateway_side, control_plane_side) = tokio::io::duplex(64 << 10);
    let server = world.control_plane.watch_server();
    tokio::spawn(async move { server.serve(control_plane_side).await });
    let (mut sender, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(gateway_side)).await.unwrap();
    tokio::spawn(connection);
    let request = Request::get(format!("http://x{WATCH_PATH}?gateway_group_id=default"))
        .header(TOKEN_HEADER, world.control_plane.instance_token())
        .header("accept-encoding", ENCODING)
        .body(Empty::<Bytes>::new());
    let response = sender.send_request(request.unwrap()).await.unwrap();
    assert_eq!(response.headers()["content-encoding"], ENCODING);
    let mut body = response.into_body();
    let mut packed = Vec::new();
    let mut sizes = Vec::new();
    for revision in [1, 2] {
        let mut size = 0;
        loop {
            let frame = body.frame().await.unwrap().unwrap();
            let data = frame.data_ref().unwrap();
            size += data.len();
            packed.extend_from_slice(data);
            let text = zstd::stream::decode_all(&packed[..]).unwrap_or_default();
            let updates = text.split(|byte| *byte == b'\n').filter(|line| line.starts_with(b"{\"update"));
            if updates.count() == revision {
                break;
            }
        }
        sizes.push(size);
        if revision == 1 {
            world.publish("default", "s2", "1").await;
        }
    }
    (sizes[0], sizes[1])
}

#[tokio::test]
async fn the_bytes_of_a_change_are_those_of_the_change_however_much_there_is() {
    let (few, many) = (packed_bytes(2).await, packed_bytes(200).await);
    assert!(many.0 > few.0 * 2, "{few:?} {many:?}");
    assert!(many.1.abs_diff(few.1) < 50 && many.1 < 1000, "{few:?} {many:?}");
}

#[tokio::test]
pub(crate) async fn a_returning_gateway_is_sent_what_it_missed() {
    let world = World::start().await;
    world.design("s1").await;
    world.design("s2").await;
    let version = world.publish("default", "s1", "1").await["services"][0]["service_version_id"].clone();
    world.publish("default", "s2", "1").await;
    world.value("DELETE", "/api/gateway_groups/default/services/s1", None).await;
    let epoch = epoch(&world.control_plane).await;
    for (have, full, services, gone) in [
        ("&have=0", false, vec![("s2", "1")], vec!["s1"]),
        ("&have=1", false, vec![("s2", "1")], vec!["s1"]),
        ("&have=2", false, vec![], vec!["s1"]),
        ("&have=3&digest=00", true, vec![("s2", "1")], vec![]),
        ("", true, vec![("s2", "1")], vec![]),
    ] {
        let query = format!("gateway_group_id=default&epoch={epoch}{have}");
        let update = watch(&world.control_plane, &query).await.unwrap().update().await;
        let found = (update.revision.0, update.full, versions(&update), removed(&update));
        assert_eq!(found, (3, full, services, gone), "{have}");
    }

    // What another store has counted means nothing here.
    let query = "gateway_group_id=default&epoch=other.1&have=1";
    assert!(watch(&world.control_plane, query).await.unwrap().update().await.full);

    // One that has more is not rolled back.
    let query = format!("gateway_group_id=default&epoch={epoch}&have=99");
    let first = watch(&world.control_plane, &query).await.unwrap().next().await;
    assert_eq!(first, Some(Message::Behind { revision: Revision(3) }));

    // A service that came back is no longer gone.
    world.value("POST", "/api/services/publish", Some(publish_again("default", "s1", &version))).await;
    let query = format!("gateway_group_id=default&epoch={epoch}&have=2");
    let update = watch(&world.control_plane, &query).await.unwrap().update().await;
    assert_eq!((versions(&update), removed(&update)), (vec![("s1", "1")], vec![]));
}

#[tokio::test]
pub(crate) async fn a_change_in_another_group_is_not_sent() {
    let world = World::start().await;
    world.design("s1").await;
    let group = world.group_create("production").await;
    let query = format!("gateway_group_id=default&have=0&epoch={}", epoch(&world.control_plane).await);
    let mut watch = watch(&world.control_plane, &query).await.unwrap();
    world.publish(&group, "s1", "1").await;
    world.publish("default", "s1", "2").await;
    let update = watch.update().await;
    assert_eq!((update.revision.0, versions(&update)), (1, vec![("s1", "2")]));
}

#[tokio::test]
pub(crate) async fn objects_of_a_group_are_sent_as_they_change_and_go() {
    let world = World::start().await;
    let at = |path: &str| format!("/apisix/admin/{path}?gateway_group_id=default");
    world.value("PUT", &at("consumers/jack"), Some(json!({"username": "jack"}))).await;
    let key = json!({"name": "k", "plugins": {"key-auth": {"key": "secret"}}});
    world.value("PUT", &at("consumers/jack/credentials/k"), Some(key)).await;
    world.value("PUT", &at("secret_providers/vault/v"), Some(json!({"uri": "http://v.example"}))).await;
    let mut gateway = watch(&world.control_plane, "gateway_group_id=default").await.unwrap();
    let first = gateway.update().await;
    assert_eq!(
        serde_json::to_value(&first.objects).unwrap(),
        json!([
            {"id": "jack", "kind": "consumer", "content": {"username": "jack"}},
            {"id": "k", "kind": "credential", "content": {"consumer": "jack", "credential":
                {"name": "k", "plugins": {"key-auth": {"key": "secret"}}}}},
            {"id": "vault.v", "kind": "secret_provider", "content": {"uri": "http://v.example"}}
        ])
    );
    assert_eq!((first.revision.0, first.removed_objects.len()), (3, 0));

    world.value("DELETE", &at("consumers/jack"), None).await;
    let second = gateway.update().await;
    assert_eq!(
        serde_json::to_value(&second.removed_objects).unwrap(),
        json!([
            {"kind": "consumer", "id": "jack"}, {"kind": "credential", "consumer": "jack", "id": "k"}
        ])
    );
    assert!(second.objects.is_empty() && !second.full);

    world.value("PUT", &at("services/s"), Some(json!({"name": "s"}))).await;
    gateway.update().await;
    world.value("PUT", &at("services/s/upstreams/canary"), Some(json!({"name": "canary"}))).await;
    let fourth = gateway.update().await;
    let upstreams: Vec<_> = fourth.services[0].upstreams.keys().map(|id| id.as_str()).collect();
    assert_eq!((upstreams, fourth.objects.len()), (vec!["canary"], 0));

    // An object that came back is no longer gone.
    world.value("PUT", &at("consumers/jack"), Some(json!({"username": "jack"}))).await;
    let late = format!("gateway_group_id=default&have=2&epoch={}", first.epoch.unwrap());
    let late = watch(&world.control_plane, &late).await.unwrap().update().await;
    assert_eq!((late.full, late.objects.len(), late.removed_objects.len()), (false, 2, 1));
}

#[tokio::test]
pub(crate) async fn a_token_opens_its_own_group_only() {
    let world = World::start().await;
    let group = world.group_create("production").await;
    let kept = world.control_plane.created_secrets().instance_token.clone().unwrap();
    let kept = kept.as_str();
    for (token, query, expected) in [
        (kept, "gateway_group_id=default".to_owned(), None),
        ("", "gateway_group_id=default".to_owned(), Some(401)),
        ("gwi-wrong", "gateway_group_id=default".to_owned(), Some(401)),
        (crate::world::KEY, "gateway_group_id=default".to_owned(), Some(401)),
        (kept, format!("gateway_group_id={group}"), Some(403)),
        (kept, "gateway_group_id=nowhere".to_owned(), Some(403)),
        (kept, String::new(), Some(400)),
        (kept, "gateway_group_id=default&have=x".to_owned(), Some(400)),
        (kept, "gateway_group_id=default&epoch=x".to_owned(), Some(400)),
        (kept, "gateway_group_id=default&version=999.0.0".to_owned(), Some(409)),
    ] {
        let answer = watch_with(&world.control_plane, token, &query).await;
        assert_eq!(answer.err(), expected, "{token} {query}");
    }
}

#[tokio::test]
async fn remote_gateways_are_answered_on_the_sync_listener() {
    let dir = tempfile::TempDir::new().unwrap();
    let sync = Some(([127, 0, 0, 1], 0).into());
    let control_plane =
        start(gatewright_control_plane::Settings { sync, ..settings(dir.path()) }).await.unwrap();
    let stream = tokio::net::TcpStream::connect(control_plane.sync_address().unwrap()).await.unwrap();
    let mut watch = open(stream, control_plane.instance_token(), "gateway_group_id=default").await.unwrap();
    let update = watch.update().await;
    assert_eq!((update.revision.0, update.full, update.services.len()), (0, true, 0));
}

#[tokio::test]
pub(crate) async fn stopping_ends_watches_at_once() {
    let world = World::start().await;
    let query = format!("gateway_group_id=default&have=0&epoch={}", epoch(&world.control_plane).await);
    let mut watch = watch(&world.control_plane, &query).await.unwrap();
    assert_eq!(watch.next().await, Some(Message::Ping));
    let begun = std::time::Instant::now();
    world.control_plane.stop(Duration::from_secs(60)).await;
    assert_eq!(watch.next().await, None);
    assert!(begun.elapsed() < Duration::from_secs(30), "the deadline was waited for");
}
