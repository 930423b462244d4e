//! Against a real server: dnsmasq.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use super::*;
use crate::testing::{hosts, registry, watch};

/// A running dnsmasq; killed when dropped.
struct Dnsmasq(Child);

impl Drop for Dnsmasq {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Dnsmasq {
    /// Answers at `address` what these arguments say, and that nothing else exists.
    async fn start(address: SocketAddr, arguments: &[&str]) -> Self {
        let mut command = Command::new("dnsmasq");
        command.args([
            "--keep-in-foreground",
            "--conf-file=/dev/null",
            "--no-resolv",
            "--no-hosts",
            "--bind-interfaces",
        ]);
        command.args(["--pid-file=", "--user=", "--local=/test/", "--local-ttl=1"]);
        command.arg(format!("--listen-address={}", address.ip())).arg(format!("--port={}", address.port()));
        command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null());
        let server = Self(command.spawn().expect("dnsmasq; run `cargo xtask test-dependencies`"));
        let answering = async {
            while tokio::net::TcpStream::connect(address).await.is_err() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), answering).await.expect("dnsmasq answers");
        server
    }
}

fn free() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap()
}

fn config(address: SocketAddr, more: Value) -> Value {
    let mut config = json!({"servers": [address.to_string()]});
    more.as_object().unwrap().iter().for_each(|(name, value)| config[name] = value.clone());
    json!({"name": "d", "type": "dns", "dns_config": config})
}

const RECORDS: [&str; 7] = [
    "--host-record=a.test,10.0.0.1,fd00::1",
    "--host-record=b.test,10.0.0.2",
    "--host-record=six.test,fd00::6",
    "--host-record=web.test,10.0.0.3",
    "--host-record=web.test,10.0.0.4",
    "--srv-host=_web._tcp.test,a.test,8081,10,60",
    "--srv-host=_web._tcp.test,b.test,8082,20,0",
];

#[tokio::test]
async fn records_become_nodes_with_port_weight_and_priority() {
    let address = free();
    let _server = Dnsmasq::start(address, &RECORDS).await;
    let four_first = json!({"order": ["AAAA", "A"]});
    for (name, more, expected) in [
        ("_web._tcp.test", json!({}), &["10.0.0.1:8081 60^-10", "10.0.0.2:8082 1^-20"][..]),
        ("_web._tcp.test:90", json!({}), &["10.0.0.1:90 60^-10", "10.0.0.2:90 1^-20"]),
        ("web.test:8080", json!({}), &["10.0.0.3:8080 1", "10.0.0.4:8080 1"]),
        ("web.test", json!({}), &["10.0.0.3:80 1", "10.0.0.4:80 1"]),
        ("six.test", json!({}), &["fd00::6:80 1"]),
        ("a.test", four_first, &["fd00::1:80 1"]),
        ("a.test", json!({"order": ["SRV"]}), &[]),
        ("nobody.test", json!({}), &[]),
    ] {
        let mut nodes = hosts(watch(&config(address, more), name).unwrap().next().await);
        nodes.sort();
        assert_eq!(nodes, expected, "{name}");
    }
}

#[tokio::test]
async fn a_name_is_looked_up_again_when_its_time_is_over_and_a_dead_server_is_trouble() {
    let address = free();
    let server = Dnsmasq::start(address, &["--host-record=web.test,10.0.0.1"]).await;
    let config = config(address, json!({}));
    let mut name = watch(&config, "web.test").unwrap();
    assert_eq!(hosts(name.next().await), ["10.0.0.1:80 1"]);
    let dns = registry(&config).unwrap();
    dns.probe().await.unwrap();
    drop(server);
    assert!(name.next().await.is_err());
    assert!(dns.probe().await.is_err());
    let _server = Dnsmasq::start(address, &["--host-record=web.test,10.0.0.2"]).await;
    assert_eq!(hosts(name.next().await), ["10.0.0.2:80 1"]);
}

#[test]
fn what_is_no_name_is_refused() {
    for name in ["web.test:0", "web.test:http", ":80"] {
        assert!(watch(&config(free(), json!({})), name).is_err(), "{name}");
    }
}
