//! Discovered upstreams, told by registries that say what a test wants.

use std::collections::HashSet;
use std::net::IpAddr;

use gatewright_discovery::{Registry, Trouble, Waiting, Watch};
use gatewright_model::resource::service_registry::ServiceRegistry;
use serde_json::{Value, json};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::*;
use crate::config::{DeniedNetworks, Tls};
use crate::upstream::health::state::{Seen, Thresholds};
use crate::upstream::names::SystemDns;
use crate::upstream::node::Node;
use crate::upstream::{Background, Outside};

type Answer = Result<Vec<resource::Node>, Trouble>;

/// A registry that says what a test sends, to the first who asks.
struct Told(Mutex<Option<UnboundedReceiver<Answer>>>);

struct Telling(Option<UnboundedReceiver<Answer>>);

impl Registry for Told {
    fn watch(self: Arc<Self>, _: &Wanted) -> Result<Box<dyn Watch>, Trouble> {
        Ok(Box::new(Telling(self.0.lock().unwrap().take())))
    }

    fn probe(&self) -> Waiting<'_, Result<(), Trouble>> {
        Box::pin(std::future::ready(Ok(())))
    }
}

impl Watch for Telling {
    fn next(&mut self) -> Waiting<'_, Answer> {
        Box::pin(async {
            match &mut self.0 {
                Some(told) => match told.recv().await {
                    Some(answer) => answer,
                    None => std::future::pending().await,
                },
                None => std::future::pending().await,
            }
        })
    }
}

/// A gateway's background with one service, whose registry can be told what to say.
struct World {
    background: Background,
    board: Board,
}

impl World {
    fn new() -> Self {
        let tls = Arc::new(crate::tls::Shared::new(&Tls::default()).unwrap());
        let denied = DeniedNetworks::default();
        let outside = Outside { tls, shipments: Arc::default(), denied, plugin_dir: None };
        let (board, lookup) = (Board::default(), Arc::new(SystemDns::default()));
        let background = Background::new(1, Handle::current(), lookup, outside, board.clone());
        Self { background, board }
    }

    /// Serves a configuration with one registry of this id.
    fn serve(&self, id: &str) -> UnboundedSender<Answer> {
        let (tell, told) = unbounded_channel();
        let written = json!({"name": id, "type": "consul", "consul_config": {"servers": ["http://c"]}});
        let written: ServiceRegistry = serde_json::from_value(written).unwrap();
        let registry = Arc::new(Told(Mutex::new(Some(told))));
        self.board.serve(&Arc::new(Registries::of_one(id, written, registry)));
        tell
    }

    fn upstream(&self, more: Value) -> Discovered {
        let mut document = json!({"service_name": "web", "discovery_type": "consul"});
        more.as_object().unwrap().iter().for_each(|(name, value)| document[name] = value.clone());
        self.background.discovered(&serde_json::from_value(document).unwrap(), None).unwrap()
    }
}

fn nodes(hosts: impl IntoIterator<Item = u32>) -> Vec<resource::Node> {
    let host = |number: u32| IpAddr::from((0x0a00_0000 + number).to_be_bytes()).to_string();
    let node = |number| resource::Node { host: host(number), port: 80, weight: 1, priority: 0 };
    hosts.into_iter().map(node).collect()
}

/// The nodes of an upstream, once it has so many. Time is paused: waiting costs none.
async fn settled(upstream: &Discovered, count: usize) -> Vec<Arc<Node>> {
    let waiting = async {
        loop {
            match upstream.now() {
                Ok(upstream) if upstream.nodes.len() == count => return upstream.nodes.clone(),
                Err(RejectReason::NoNodes) if count == 0 => return Vec::new(),
                _ => tokio::time::sleep(Duration::from_millis(1)).await,
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(3600), waiting).await.unwrap()
}

fn addresses(nodes: &[Arc<Node>]) -> HashSet<*const Node> {
    nodes.iter().map(Arc::as_ptr).collect()
}

#[tokio::test(start_paused = true)]
async fn a_node_that_stays_keeps_its_health_while_others_come_and_go() {
    let world = World::new();
    let tell = world.serve("one");
    let upstream = world.upstream(json!({"checks": {"active": {"healthy": {"interval": 3600}}}}));
    assert_eq!(upstream.now().err(), Some(RejectReason::NodesUnknown));
    tell.send(Ok(nodes([1, 2]))).unwrap();
    let before = settled(&upstream, 2).await;
    let thresholds = Thresholds { successes: 1, http_failures: 1, tcp_failures: 1, timeouts: 1 };
    before[1].checker.as_ref().unwrap().note(Seen::Timeout, thresholds);
    tell.send(Ok(nodes([2, 3, 4]))).unwrap();
    let after = settled(&upstream, 3).await;
    let healthy: Vec<_> = after.iter().map(|node| (node.written.host.as_str(), node.is_healthy())).collect();
    assert_eq!(healthy, [("10.0.0.2", false), ("10.0.0.3", true), ("10.0.0.4", true)]);
    assert!(Arc::ptr_eq(&before[1], &after[0]));
}

#[tokio::test(start_paused = true)]
async fn of_ten_thousand_nodes_those_that_stay_are_the_same_objects() {
    let world = World::new();
    let tell = world.serve("one");
    let upstream = world.upstream(json!({}));
    tell.send(Ok(nodes(0..10_000))).unwrap();
    let before = addresses(&settled(&upstream, 10_000).await);
    tell.send(Ok(nodes(100..10_001))).unwrap();
    let after = addresses(&settled(&upstream, 9_901).await);
    assert_eq!(after.difference(&before).count(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_error_keeps_the_last_good_nodes_and_an_empty_answer_leaves_none() {
    let world = World::new();
    let tell = world.serve("one");
    let upstream = world.upstream(json!({}));
    tell.send(Ok(nodes([1, 2]))).unwrap();
    let before = addresses(&settled(&upstream, 2).await);
    tell.send(Err(Trouble::new("it is down"))).unwrap();
    let mut known = upstream.service().known.clone();
    known.wait_for(|known| known.trouble.is_some()).await.unwrap();
    assert_eq!(addresses(&settled(&upstream, 2).await), before);
    assert_eq!(upstream.service().known().failures, 1);
    tell.send(Ok(Vec::new())).unwrap();
    settled(&upstream, 0).await;
    tell.send(Ok(nodes([3]))).unwrap();
    settled(&upstream, 1).await;
}

#[tokio::test(start_paused = true)]
async fn another_registry_takes_over_without_a_gap_and_the_same_one_is_left_alone() {
    let world = World::new();
    let first = world.serve("one");
    let upstream = world.upstream(json!({}));
    first.send(Ok(nodes([1]))).unwrap();
    let before = addresses(&settled(&upstream, 1).await);
    // The upstream is edited: the service is not asked for again.
    let edited = world.upstream(json!({"retries": 0}));
    assert_eq!(edited.now().unwrap().nodes.len(), 1);
    let second = world.serve("two");
    tokio::time::timeout(Duration::from_secs(60), first.closed()).await.unwrap();
    assert_eq!(addresses(&settled(&upstream, 1).await), before, "nobody has said anything else yet");
    second.send(Ok(nodes([1, 2]))).unwrap();
    let after = addresses(&settled(&upstream, 2).await);
    assert!(before.is_subset(&after));
}

#[tokio::test(start_paused = true)]
async fn a_service_is_followed_as_long_as_an_upstream_wants_it_and_its_number_is_free_then() {
    let world = World::new();
    let tell = world.serve("one");
    let (one, other) = (world.upstream(json!({})), world.upstream(json!({"retries": 1})));
    tell.send(Ok(nodes([1]))).unwrap();
    settled(&one, 1).await;
    assert_eq!([one.number(), other.number()], [0, 1]);
    drop(one);
    assert!(!tell.is_closed());
    drop(other);
    tokio::time::timeout(Duration::from_secs(60), tell.closed()).await.unwrap();
    assert!(world.background.discovery.services().is_empty());
    let table = world.board.table().load();
    assert_eq!(table.upstream(0).err(), Some(RejectReason::NodesUnknown));
    assert!(world.upstream(json!({})).number() < 2);
}

#[test]
fn a_name_that_means_no_registry_or_several_says_so() {
    let written = |kind: &str| {
        let config = json!({"name": "r", "type": kind, "consul_config": {"servers": ["http://c"]}});
        serde_json::from_value::<ServiceRegistry>(config).unwrap()
    };
    let wanted = |name: &str| {
        let upstream = json!({"service_name": name, "discovery_type": "consul"});
        Wanted::of(&serde_json::from_value(upstream).unwrap()).unwrap()
    };
    let told = || Arc::new(Told(Mutex::new(None)));
    let registries = Registries::of_one("one", written("consul"), told());
    assert!(registries.find(&wanted("web")).is_ok() && registries.find(&wanted("one/web")).is_ok());
    let trouble = |name: &str| registries.find(&wanted(name)).err().unwrap().to_string();
    assert!(trouble("two/web").contains("no service registry `two` of type `consul`"));
    let none = Registries::default().find(&wanted("web")).err().unwrap();
    assert!(none.to_string().contains("no service registry of type `consul`"), "{none}");
}
