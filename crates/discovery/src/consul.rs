//! Consul: the instances of a service that pass their checks, by blocking queries.
//!
//! A query waits at the agent until the index of the service has moved on, so a change is known at once and nothing is
//! asked in between. The rules of the index are Consul's: one that goes back starts anew, and zero is no index.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use gatewright_model::resource::service_registry::{ConsulConfig, Wanted};
use gatewright_model::resource::upstream::Node;
use serde::Deserialize;
use tokio::time::Instant;

use crate::http::{Answer, Ask, Http};
use crate::{Outside, Registry, Trouble, Waiting, Watch, has_metadata};

/// How long an agent is left alone that does not hold queries back.
const UNHELD_PAUSE: Duration = Duration::from_secs(1);

/// Consul answers up to a sixteenth later than it was asked to wait, so that not all queries end at once.
const WAIT_JITTER: u32 = 16;

/// A Consul.
pub(crate) struct Consul {
    http: Http,
    config: ConsulConfig,
}

impl Consul {
    pub(crate) fn new(config: &ConsulConfig, outside: &Outside) -> Result<Self, Trouble> {
        let tls = (outside.tls)(true).map_err(Trouble::new)?;
        let http = Http::new(&config.servers, "", config.timeout.connect.duration(), tls, outside)?;
        Ok(Self { http, config: config.clone() })
    }

    fn asking<'a>(&self, mut ask: Ask<'a>) -> Ask<'a> {
        if let Some(token) = &self.config.token {
            ask = ask.field("x-consul-token", token);
        }
        match &self.config.datacenter {
            Some(datacenter) => ask.with("dc", datacenter),
            None => ask,
        }
    }

    fn read_timeout(&self) -> Duration {
        let timeout = self.config.timeout;
        timeout.connect.duration() + timeout.read.duration()
    }
}

impl Registry for Consul {
    fn watch(self: Arc<Self>, wanted: &Wanted) -> Result<Box<dyn Watch>, Trouble> {
        let service = wanted.split().1.to_owned();
        if service.is_empty() {
            return Err(Trouble::new("the name of the service is empty"));
        }
        Ok(Box::new(Service {
            consul: self,
            service,
            namespace: wanted.namespace.clone(),
            metadata: wanted.metadata.clone(),
            index: 0,
            rest: None,
        }))
    }

    fn probe(&self) -> Waiting<'_, Result<(), Trouble>> {
        Box::pin(async move {
            let ask = self.asking(Ask::get(["v1", "status", "leader"], self.read_timeout()));
            let leader: String = self.http.ask(&ask).await?.json()?;
            match leader.is_empty() {
                true => Err(Trouble::new("the cluster has no leader")),
                false => Ok(()),
            }
        })
    }
}

/// One service of a Consul.
struct Service {
    consul: Arc<Consul>,
    service: String,
    namespace: Option<String>,
    metadata: Vec<(String, Vec<String>)>,
    /// What the last answer was about; 0: whatever there is, at once.
    index: u64,
    /// Until when the agent is left alone.
    rest: Option<Instant>,
}

impl Watch for Service {
    fn next(&mut self) -> Waiting<'_, Result<Vec<Node>, Trouble>> {
        Box::pin(async move {
            if let Some(until) = self.rest.take() {
                tokio::time::sleep_until(until).await;
            }
            let began = Instant::now();
            let answer = self.ask().await;
            // After an error the present is asked for, not a change of it.
            let asked = std::mem::take(&mut self.index);
            let answer = answer?;
            let entries: Vec<Entry> = answer.json()?;
            let index = index(&answer);
            self.index = if index < asked { 0 } else { index.max(1) };
            if index == asked && began.elapsed() < UNHELD_PAUSE {
                self.rest = Some(began + UNHELD_PAUSE);
            }
            let weight = self.consul.config.weight;
            let wanted = |entry: &Entry| {
                has_metadata(&self.metadata, |name| entry.service.meta.get(name).map(String::as_str))
            };
            Ok(entries.into_iter().filter(wanted).map(|entry| entry.node(weight)).collect())
        })
    }
}

impl Service {
    async fn ask(&self) -> Result<Answer, Trouble> {
        let wait = self.consul.config.timeout.wait.duration();
        let held = if self.index == 0 { Duration::ZERO } else { wait + wait / WAIT_JITTER };
        let path = ["v1", "health", "service", &self.service];
        let ask = Ask::get(path, held + self.consul.read_timeout()).with("passing", "1");
        let mut ask = self.consul.asking(ask);
        if let Some(namespace) = &self.namespace {
            ask = ask.with("ns", namespace);
        }
        if self.index > 0 {
            ask = ask.with("index", self.index.to_string()).with("wait", format!("{}ms", wait.as_millis()));
        }
        self.consul.http.ask(&ask).await
    }
}

fn index(answer: &Answer) -> u64 {
    let text = answer.fields.get("x-consul-index").and_then(|value| value.to_str().ok());
    text.and_then(|text| text.parse().ok()).unwrap_or(0)
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    node: Machine,
    service: Instance,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Machine {
    address: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Instance {
    /// Empty: that of its machine.
    #[serde(default)]
    address: String,
    port: u16,
    #[serde(default, deserialize_with = "or_none")]
    meta: HashMap<String, String>,
    #[serde(default)]
    weights: Option<Weights>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Weights {
    passing: u16,
}

impl Entry {
    fn node(self, weight: u16) -> Node {
        let Self { node, service } = self;
        let host = if service.address.is_empty() { node.address } else { service.address };
        let weight = service.weights.map_or(weight, |weights| weights.passing);
        Node { host, port: service.port, weight, priority: 0 }
    }
}

/// Consul writes `null` where there is no metadata.
fn or_none<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::testing::{Exchange, Peer, hosts, watch};

    fn entry(address: &str, port: u16) -> Value {
        json!({"Node": {"Address": "10.0.0.9"}, "Checks": [],
            "Service": {"Address": address, "Port": port, "Meta": null, "Weights": {"Passing": 3, "Warning": 1}}})
    }

    fn answer(index: u64, entries: &[Value]) -> Exchange {
        Exchange::json(200, &json!(entries)).with("X-Consul-Index", &index.to_string())
    }

    fn registry(peer: &Peer, more: Value) -> Value {
        let mut config = json!({"servers": [peer.url()], "timeout": {"connect": 5, "read": 5, "wait": 2}});
        more.as_object().unwrap().iter().for_each(|(name, value)| config[name] = value.clone());
        json!({"name": "c", "type": "consul", "consul_config": config})
    }

    #[tokio::test]
    async fn a_change_is_waited_for_at_the_agent_and_an_index_that_goes_back_starts_anew() {
        let peer = Peer::start(vec![
            answer(7, &[entry("10.0.0.1", 80)]),
            answer(8, &[entry("10.0.0.1", 80), entry("", 81)]),
            answer(2, &[]),
            answer(3, &[entry("10.0.0.2", 80)]),
        ])
        .await;
        let config = registry(&peer, json!({"token": "t", "datacenter": "east"}));
        let mut service = watch(&config, "web").unwrap();
        assert_eq!(hosts(service.next().await), ["10.0.0.1:80 3"]);
        assert_eq!(hosts(service.next().await), ["10.0.0.1:80 3", "10.0.0.9:81 3"]);
        assert_eq!(hosts(service.next().await), [""; 0], "an empty answer is an answer");
        assert_eq!(hosts(service.next().await), ["10.0.0.2:80 3"]);
        let asked = peer.asked();
        let path = "/v1/health/service/web?passing=1&dc=east";
        assert_eq!(asked[0].line, format!("GET {path}"));
        assert_eq!(asked[0].field("x-consul-token"), Some("t"));
        assert_eq!(asked[1].line, format!("GET {path}&index=7&wait=2000ms"));
        assert_eq!(asked[2].line, format!("GET {path}&index=8&wait=2000ms"));
        assert_eq!(asked[3].line, format!("GET {path}"), "the index went back");
    }

    #[tokio::test]
    async fn an_error_is_no_answer_and_the_present_is_asked_for_after_it() {
        let refusal = Exchange::text(403, "rpc error: Permission denied");
        let peer = Peer::start(vec![
            answer(7, &[entry("10.0.0.1", 80)]),
            Exchange::text(500, "No cluster leader"),
            answer(7, &[entry("10.0.0.1", 80)]),
            refusal,
            Exchange::text(200, "{}"),
        ])
        .await;
        let mut service = watch(&registry(&peer, json!({})), "one/web").unwrap();
        service.next().await.unwrap();
        for expected in
            ["No cluster leader", "", "403 Forbidden: rpc error: Permission denied", "not what was asked for"]
        {
            match service.next().await {
                Ok(_) => assert_eq!(expected, ""),
                Err(trouble) => {
                    assert!(!expected.is_empty() && trouble.to_string().contains(expected), "{trouble}")
                }
            }
        }
        assert!(peer.asked()[1].line.contains("index=7"));
        assert!(!peer.asked()[2].line.contains("index="));
    }

    #[tokio::test]
    async fn another_agent_is_asked_when_one_is_down_and_metadata_chooses_among_instances() {
        let mut other = entry("10.0.0.2", 80);
        other["Service"]["Meta"] = json!({"zone": "a"});
        let peer = Peer::start(vec![answer(7, &[entry("10.0.0.1", 80), other])]).await;
        let dead = Peer::dead().await;
        let config = registry(&peer, json!({"servers": [dead, peer.url()]}));
        let args = json!({"metadata": {"zone": ["a", "b"]}});
        let mut service = crate::testing::watch_with(&config, "web", args).unwrap();
        assert_eq!(hosts(service.next().await), ["10.0.0.2:80 3"]);
    }
}
