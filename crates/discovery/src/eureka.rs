//! Eureka: the instances of an application that are up, asked for again and again.
//!
//! Each application is asked for by itself (`/apps/NAME`), which is a small answer; the deltas of Eureka are for those
//! who keep all applications. An application that is not there has no instances.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use gatewright_model::resource::service_registry::{EurekaConfig, Wanted};
use gatewright_model::resource::upstream::Node;
use reqwest::StatusCode;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use tokio::time::Instant;

use crate::http::{Ask, Http};
use crate::{Outside, Registry, Trouble, Waiting, Watch, has_metadata};

/// A Eureka.
pub(crate) struct Eureka {
    http: Http,
    config: EurekaConfig,
}

impl Eureka {
    pub(crate) fn new(config: &EurekaConfig, outside: &Outside) -> Result<Self, Trouble> {
        let tls = (outside.tls)(true).map_err(Trouble::new)?;
        let http = Http::new(&config.host, &config.prefix, config.timeout.connect.duration(), tls, outside)?;
        Ok(Self { http, config: config.clone() })
    }

    async fn application(&self, name: &str) -> Result<Vec<Instance>, Trouble> {
        let timeout = self.config.timeout;
        let within = timeout.connect.duration() + timeout.send.duration() + timeout.read.duration();
        let answer =
            self.http.ask(&Ask::get(["apps", name], within).field("accept", "application/json")).await?;
        if answer.status == StatusCode::NOT_FOUND {
            return Ok(Vec::new());
        }
        let found: Found = answer.json()?;
        Ok(found.application.instance)
    }
}

impl Registry for Eureka {
    fn watch(self: Arc<Self>, wanted: &Wanted) -> Result<Box<dyn Watch>, Trouble> {
        let name = wanted.split().1.to_ascii_uppercase();
        if name.is_empty() {
            return Err(Trouble::new("the name of the application is empty"));
        }
        Ok(Box::new(Application { eureka: self, name, metadata: wanted.metadata.clone(), until: None }))
    }

    /// A server that answers is there, whatever it says of an application that nobody has.
    fn probe(&self) -> Waiting<'_, Result<(), Trouble>> {
        Box::pin(async move { self.application("GATEWRIGHT-PROBE").await.map(drop) })
    }
}

/// One application of a Eureka.
struct Application {
    eureka: Arc<Eureka>,
    name: String,
    metadata: Vec<(String, Vec<String>)>,
    /// When it is asked for again.
    until: Option<Instant>,
}

impl Watch for Application {
    fn next(&mut self) -> Waiting<'_, Result<Vec<Node>, Trouble>> {
        Box::pin(async move {
            if let Some(until) = self.until {
                tokio::time::sleep_until(until).await;
                self.until = None;
            }
            let instances = self.eureka.application(&self.name).await?;
            let interval = Duration::from_secs(self.eureka.config.fetch_interval.into());
            self.until = Some(Instant::now() + interval);
            let weight = self.eureka.config.weight;
            let wanted = |instance: &Instance| {
                let value = |name: &str| instance.metadata.get(name).and_then(Value::as_str);
                instance.status == "UP" && has_metadata(&self.metadata, value)
            };
            Ok(instances.into_iter().filter(wanted).filter_map(|instance| instance.node(weight)).collect())
        })
    }
}

#[derive(Deserialize)]
struct Found {
    application: Instances,
}

#[derive(Deserialize)]
struct Instances {
    #[serde(default, deserialize_with = "one_or_many")]
    instance: Vec<Instance>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Instance {
    ip_addr: String,
    status: String,
    port: Option<Port>,
    secure_port: Option<Port>,
    #[serde(default)]
    metadata: HashMap<String, Value>,
}

/// A port, as XML was once turned into JSON.
#[derive(Deserialize)]
struct Port {
    #[serde(rename = "$")]
    number: Value,
    #[serde(rename = "@enabled", default)]
    enabled: Value,
}

impl Port {
    fn usable(&self) -> Option<u16> {
        let is_enabled = self.enabled == Value::Bool(true) || self.enabled.as_str() == Some("true");
        let number = self.number.as_u64().or_else(|| self.number.as_str()?.parse().ok());
        number.filter(|_| is_enabled).and_then(|number| u16::try_from(number).ok()).filter(|port| *port > 0)
    }
}

impl Instance {
    fn node(self, weight: u16) -> Option<Node> {
        let port = [&self.port, &self.secure_port].into_iter().flatten().find_map(Port::usable)?;
        let own = self.metadata.get("weight");
        let own = own.and_then(|own| own.as_u64().or_else(|| own.as_str()?.parse().ok()));
        let weight = own.and_then(|own| u16::try_from(own).ok()).unwrap_or(weight);
        Some(Node { host: self.ip_addr, port, weight, priority: 0 })
    }
}

/// One instance is sometimes written without a list around it.
fn one_or_many<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Instance>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Form {
        Many(Vec<Instance>),
        One(Box<Instance>),
    }
    Ok(match Form::deserialize(deserializer)? {
        Form::Many(instances) => instances,
        Form::One(instance) => vec![*instance],
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::testing::{Exchange, Peer, hosts, registry, watch};

    fn instance(ip: &str, status: &str, more: Value) -> Value {
        let mut instance = json!({"ipAddr": ip, "status": status, "metadata": {"@class": "java.util.Collections$EmptyMap"},
            "port": {"$": 8080, "@enabled": "true"}, "securePort": {"$": 443, "@enabled": "false"}});
        more.as_object().unwrap().iter().for_each(|(name, value)| instance[name] = value.clone());
        instance
    }

    fn application(instances: &Value) -> Exchange {
        Exchange::json(200, &json!({"application": {"name": "WEB", "instance": instances}}))
    }

    #[tokio::test]
    async fn instances_that_are_up_are_nodes_and_an_application_that_is_not_there_has_none() {
        let secure = json!({"port": {"$": "8080", "@enabled": "false"}, "securePort": {"$": 8443, "@enabled": "true"}});
        let many = json!([
            instance("10.0.0.1", "UP", json!({})),
            instance("10.0.0.2", "OUT_OF_SERVICE", json!({})),
            instance("10.0.0.3", "UP", secure),
            instance("10.0.0.4", "UP", json!({"metadata": {"weight": "7"}})),
        ]);
        let peer = Peer::start(vec![
            application(&many),
            application(&instance("10.0.0.1", "UP", json!({}))),
            Exchange::text(404, ""),
            Exchange::text(503, "starting"),
        ])
        .await;
        let address = peer.url().replace("http://", "http://user:pw@");
        let config =
            json!({"name": "e", "type": "eureka", "eureka_config": {"host": [address], "fetch_interval": 1}});
        let mut web = watch(&config, "one/web").unwrap();
        assert_eq!(hosts(web.next().await), ["10.0.0.1:8080 100", "10.0.0.3:8443 100", "10.0.0.4:8080 7"]);
        assert_eq!(hosts(web.next().await), ["10.0.0.1:8080 100"]);
        assert_eq!(hosts(web.next().await), [""; 0]);
        assert!(web.next().await.unwrap_err().to_string().contains("503"));
        let asked = &peer.asked()[0];
        assert_eq!(asked.line, "GET /eureka/apps/WEB");
        assert_eq!(
            (asked.field("accept"), asked.field("authorization")),
            (Some("application/json"), Some("Basic dXNlcjpwdw=="))
        );
    }

    #[tokio::test]
    async fn a_server_that_answers_is_there() {
        let peer = Peer::start(vec![Exchange::text(404, ""), Exchange::text(500, "x")]).await;
        let config =
            json!({"name": "e", "type": "eureka", "eureka_config": {"host": [peer.url()], "prefix": "/"}});
        let eureka = registry(&config).unwrap();
        eureka.probe().await.unwrap();
        assert!(eureka.probe().await.is_err());
        assert_eq!(peer.asked()[0].line, "GET /apps/GATEWRIGHT-PROBE");
    }
}
