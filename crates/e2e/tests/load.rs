//! Publishing under load: traffic does not notice.

use std::net::SocketAddr;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use gatewright_e2e::client::Connection;
use gatewright_e2e::{Upstream, World, client, wait};
use serde_json::json;

const REQUESTS_PER_SECOND: u32 = 1000;
const SECONDS: u32 = 10;
const CONNECTIONS: u32 = 8;
const VERSIONS: u32 = 50;

/// Sends this connection's share of the load, each request at its moment however late the answers are, and tells
/// what went wrong.
fn offer(proxy: SocketAddr, number: u32, start: Instant, wrong: &Sender<String>) -> u32 {
    let mut connection = Connection::open(proxy).expect("a connection");
    let interval = Duration::from_secs(1) * CONNECTIONS / REQUESTS_PER_SECOND;
    let mut answered = 0;
    for turn in 0..REQUESTS_PER_SECOND * SECONDS / CONNECTIONS {
        wait::until_moment(start + interval * turn + interval * number / CONNECTIONS);
        let target = format!("/load/{number}/{turn}");
        let sent = connection.send(format!("GET {target} HTTP/1.1\r\nHost: s.test\r\n\r\n"));
        match sent.and_then(|()| connection.response()) {
            Ok(response) if response.status() == 200 && response.json()["target"] == target => answered += 1,
            Ok(response) => {
                wrong.send(format!("{target}: {} {}", response.head.first, response.text())).unwrap()
            }
            Err(error) => {
                wrong.send(format!("{target}: {error}")).unwrap();
                connection = Connection::open(proxy).expect("another connection");
            }
        }
    }
    answered
}

/// Publishes one version: it serves the load's route, and `/only/<number>`, which no other version serves.
fn publish(world: &World, number: u32) {
    let only = format!("/only/{number}");
    world.admin.put_route("s-only", &json!({"name": "only", "service_id": "s", "paths": [only]}));
    world.admin.publish("s", &format!("1.{number}.0"));
}

#[test]
fn ten_thousand_requests_do_not_notice_fifty_publications() {
    let (world, upstream) = (World::start(), Upstream::echo());
    let template = json!({"name": "s", "upstream": {"nodes": upstream.nodes()}});
    world.serve("s", "1.0.0", &template, &[json!({"paths": ["/load/*"]})]);

    let (wrong, reports) = channel();
    let (start, proxy) = (Instant::now(), world.proxy);
    let clients: Vec<_> = (0..CONNECTIONS)
        .map(|number| {
            let wrong = wrong.clone();
            std::thread::spawn(move || offer(proxy, number, start, &wrong))
        })
        .collect();
    drop(wrong);
    for number in 1..=VERSIONS {
        wait::until_moment(start + Duration::from_secs(u64::from(SECONDS)) * number / (VERSIONS + 1));
        publish(&world, number);
        let only = format!("/only/{number}");
        wait::until_true("the version just published is served", || {
            client::get(proxy, "s.test", &only).status() == 200
        });
        let previous = format!("/only/{}", number - 1);
        assert_eq!(client::get(proxy, "s.test", &previous).status(), 404, "the version before it is history");
    }
    let answered: u32 = clients.into_iter().map(|client| client.join().expect("a client")).sum();
    let reports: Vec<_> = reports.iter().collect();
    assert!(reports.is_empty(), "{} of the requests failed, such as {:?}", reports.len(), &reports[0]);
    assert_eq!(answered, REQUESTS_PER_SECOND * SECONDS);
    let forwarded =
        upstream.recorded().iter().filter(|recorded| recorded.target().starts_with("/load/")).count();
    assert_eq!(forwarded, usize::try_from(answered).unwrap(), "each request reached the upstream once");
    assert_eq!(world.admin.active_version("s").unwrap(), format!("1.{VERSIONS}.0"));
}
