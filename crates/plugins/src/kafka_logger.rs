//! `kafka-logger`: writes log entries to a topic of Kafka, in batches.
//!
//! A batch is one message: an array in JSON, or the entry itself where batches have one. Only executables that were
//! built with the feature `kafka` know this plugin, because its client is a library in C.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use gatewright_model::validation::Violations;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::kafka::{Cluster, Login, Topic};
use crate::kind::{self, Built, Category, Kind, Phase, Phases, Site};
use crate::logging::{self, BatchConfig, EntryConfig, Logger, Way};
use crate::outbound::{Address, Destination};
use crate::schema;
use crate::shipping::{self, Parcel};

pub(crate) const KIND: Kind = Kind {
    name: "kafka-logger",
    priority: 403,
    category: Category::Other,
    phases: Phases::of(&[Phase::Access, Phase::Response, Phase::Log]),
    schema: || {
        let ways = json!({ "oneOf": [
            { "required": ["broker_list", "kafka_topic"] }, { "required": ["brokers", "kafka_topic"] },
        ] });
        let port = json!({ "type": "integer", "minimum": 1, "maximum": 65535 });
        let list = json!({ "type": "object", "minProperties": 1, "additionalProperties": port });
        let schema = schema::field(schema::with::<Config>(ways), "broker_list", list);
        let schema = schema::field(schema, "api_version", json!({ "type": "integer", "enum": [0, 1, 2] }));
        let mut schema =
            schema::field(schema, "required_acks", json!({ "type": "integer", "enum": [1, -1] }));
        schema["properties"]["brokers"]["uniqueItems"] = true.into();
        logging::batch_schema(schema, "kafka logger")
    },
    metadata: Some(schema::of::<logging::Metadata>),
    credential: None,
    build,
};

#[derive(Deserialize, ToSchema)]
#[serde(default)]
#[schema(default)]
struct Config {
    /// Brokers by host, with their ports; superseded by `brokers`.
    #[schema(value_type = Option<Object>)]
    broker_list: Option<BTreeMap<String, u16>>,
    /// Some brokers of the cluster.
    #[schema(min_items = 1)]
    brokers: Option<Vec<Broker>>,
    /// The topic.
    kafka_topic: Option<String>,
    /// Messages with the same key come to the same partition.
    key: Option<String>,
    /// How brokers are talked to over TLS; absent: they are not.
    tls: Option<TlsConfig>,
    /// Whether messages wait for others to be sent with them, or are sent at once.
    producer_type: ProducerType,
    /// 1: the leader has to have a message; -1: all its replicas.
    required_acks: i8,
    /// Seconds that writing a message may take.
    #[schema(minimum = 1)]
    timeout: u64,
    /// Whether entries are objects, or requests as they came.
    meta_format: MetaFormat,
    /// Seconds after which it is asked again which broker has what.
    #[schema(minimum = 1)]
    meta_refresh_interval: u64,
    /// Messages that are sent together at most.
    #[schema(minimum = 1)]
    producer_batch_num: u32,
    /// Bytes that are sent together at most.
    #[schema(minimum = 0)]
    producer_batch_size: u32,
    /// Messages that may wait.
    #[schema(minimum = 1)]
    producer_max_buffering: u32,
    /// Seconds that messages wait for others.
    #[schema(minimum = 1)]
    producer_time_linger: u64,
    /// Kept for compatibility: clusters are told apart by how they are reached.
    #[schema(minimum = 1)]
    #[allow(dead_code, reason = "clusters are told apart by how they are reached")]
    cluster_name: u64,
    /// Kept for compatibility: the version of the protocol is agreed with the brokers.
    #[allow(dead_code, reason = "the version of the protocol is agreed with the brokers")]
    api_version: u8,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            broker_list: None,
            brokers: None,
            kafka_topic: None,
            key: None,
            tls: None,
            producer_type: ProducerType::Async,
            required_acks: 1,
            timeout: 3,
            meta_format: MetaFormat::Default,
            meta_refresh_interval: 30,
            producer_batch_num: 200,
            producer_batch_size: 1024 * 1024,
            producer_max_buffering: 50_000,
            producer_time_linger: 1,
            cluster_name: 1,
            api_version: 1,
        }
    }
}

#[derive(Serialize, Deserialize, ToSchema)]
struct Broker {
    /// Its name or address.
    host: String,
    /// Its port.
    #[schema(minimum = 1, maximum = 65535)]
    port: u16,
    /// Who logs in there; the first of all brokers that says so counts for the cluster.
    #[serde(default)]
    sasl_config: Option<SaslConfig>,
}

#[derive(Serialize, Deserialize, ToSchema)]
struct SaslConfig {
    /// How.
    #[serde(default)]
    #[schema(required = false, default = "PLAIN")]
    mechanism: Mechanism,
    /// The user.
    user: String,
    /// The password.
    password: String,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
enum Mechanism {
    #[default]
    #[serde(rename = "PLAIN")]
    Plain,
    #[serde(rename = "SCRAM-SHA-256")]
    ScramSha256,
    #[serde(rename = "SCRAM-SHA-512")]
    ScramSha512,
}

#[derive(Serialize, Deserialize, ToSchema)]
struct TlsConfig {
    /// Whether brokers have to show a certificate that verifies.
    #[serde(default)]
    #[schema(required = false, default = false)]
    verify: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum ProducerType {
    Async,
    Sync,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum MetaFormat {
    Default,
    Origin,
}

fn build(document: Value, site: &Site<'_>) -> Built {
    let entry: EntryConfig = kind::parse(document.clone())?;
    let batch: BatchConfig = kind::parse(document.clone())?;
    let config: Config = kind::parse(document)?;
    let is_original = config.meta_format == MetaFormat::Origin;
    let destination = Destination::Topic(Box::new(topic(config)?));
    let single = batch.batch_max_size == 1;
    let packing = Box::new(move |entries: &[Bytes]| {
        let message = match entries {
            [entry] if single => entry.clone(),
            _ => shipping::json_array(entries).into(),
        };
        vec![Parcel::Bytes(destination.clone(), message)]
    });
    let way = Way { plugin: KIND.name, batch: Some(batch), packing };
    let logger = Logger::build(&entry, site, way)?;
    // In an array, a request as it came has to be a string.
    Ok(if is_original { logger.of_requests_as_they_came(!single) } else { logger }.plugin())
}

/// The topic that `config` names.
fn topic(config: Config) -> Result<Topic, Violations> {
    let listed = config.broker_list.unwrap_or_default().into_iter();
    let mut brokers: Vec<_> = listed.map(|(host, port)| Address { host, port }).collect();
    let mut login = None;
    for broker in config.brokers.unwrap_or_default() {
        login = login.or_else(|| broker.sasl_config.map(Login::from));
        brokers.push(Address { host: broker.host, port: broker.port });
    }
    let name = config.kafka_topic.unwrap_or_default();
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if name.is_empty() || name.len() > 249 || !name.bytes().all(is_plain) {
        return Err(Violations::one("/kafka_topic", "must be up to 249 letters, digits, `.`, `_` and `-`"));
    }
    let linger = match config.producer_type {
        ProducerType::Async => Duration::from_secs(config.producer_time_linger),
        ProducerType::Sync => Duration::ZERO,
    };
    let cluster = Cluster {
        brokers,
        login,
        tls: config.tls.map(|tls| tls.verify),
        waits_for_all: config.required_acks == -1,
        timeout: Duration::from_secs(config.timeout),
        linger,
        batch_messages_max: config.producer_batch_num,
        batch_bytes_max: config.producer_batch_size,
        pending_max: config.producer_max_buffering,
        refresh_interval: Duration::from_secs(config.meta_refresh_interval),
    };
    Ok(Topic { cluster, name, key: config.key.filter(|key| !key.is_empty()) })
}

impl From<SaslConfig> for Login {
    fn from(config: SaslConfig) -> Self {
        let mechanism = match config.mechanism {
            Mechanism::Plain => "PLAIN",
            Mechanism::ScramSha256 => "SCRAM-SHA-256",
            Mechanism::ScramSha512 => "SCRAM-SHA-512",
        };
        Self { mechanism, user: config.user, password: config.password }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Trial, refused};

    fn logged(more: Value) -> Vec<(Topic, String)> {
        let mut config = json!({"brokers": [{"host": "k1", "port": 9092}], "kafka_topic": "logs",
            "log_format": {"host": "$host"}, "inactive_timeout": 1});
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let trial = Trial::of("kafka-logger", config);
        (0..2).for_each(|_| drop(trial.run("POST /a?b=c\nX-Tag: t\n\nbody").respond("200")));
        trial.pass(Duration::from_secs(2));
        let topic = |destination| match destination {
            Destination::Topic(topic) => *topic,
            other => panic!("{other:?}"),
        };
        trial.delivered().into_iter().map(|(to, message)| (topic(to), message)).collect()
    }

    fn messages(more: Value) -> Vec<String> {
        logged(more).into_iter().map(|(_, message)| message).collect()
    }

    #[test]
    fn a_batch_is_one_message() {
        let entry = r#"{"host":"api.example","route_id":"r1","service_id":"s1"}"#;
        assert_eq!(messages(json!({})), [format!("[{entry},{entry}]")]);
        assert_eq!(messages(json!({"batch_max_size": 1})), [entry, entry]);
    }

    #[test]
    fn requests_can_be_written_as_they_came() {
        let request = "POST /a?b=c HTTP/1.1\r\nX-Tag: t\r\n\r\n";
        let single = json!({"meta_format": "origin", "batch_max_size": 1});
        assert_eq!(messages(single), [request, request]);
        let with_body = json!({"meta_format": "origin", "include_req_body": true});
        assert_eq!(
            messages(with_body),
            [json!([format!("{request}body"), format!("{request}body")]).to_string()]
        );
    }

    #[test]
    fn the_topic_is_the_configured_one() {
        let login = json!({"user": "u", "password": "p", "mechanism": "SCRAM-SHA-256"});
        let more = json!({
            "brokers": [{"host": "k1", "port": 9092}, {"host": "k2", "port": 9093, "sasl_config": login}],
            "key": "k", "tls": {"verify": true}, "required_acks": -1, "timeout": 7, "producer_type": "sync",
        });
        let topic = logged(more).remove(0).0;
        assert_eq!((topic.name.as_str(), topic.key.as_deref()), ("logs", Some("k")));
        let hosts: Vec<_> =
            topic.cluster.brokers.iter().map(|broker| (broker.host.as_str(), broker.port)).collect();
        assert_eq!(hosts, [("k1", 9092), ("k2", 9093)]);
        assert_eq!(topic.cluster.login.as_ref().map(|login| login.mechanism), Some("SCRAM-SHA-256"));
        assert!(!format!("{topic:?}").contains("\"p\""), "the password is no debug output");
        assert_eq!((topic.cluster.tls, topic.cluster.waits_for_all), (Some(true), true));
        assert_eq!((topic.cluster.timeout, topic.cluster.linger), (Duration::from_secs(7), Duration::ZERO));
        let old = json!({"broker_list": {"k3": 9094}, "kafka_topic": "t"});
        let old = super::topic(kind::parse(old).unwrap()).unwrap();
        assert_eq!(old.cluster.brokers, [Address { host: "k3".to_owned(), port: 9094 }]);
    }

    #[test]
    fn what_is_no_topic_is_refused() {
        let brokers = json!([{"host": "k", "port": 9092}]);
        for (config, expected) in [
            (json!({"brokers": brokers}), ""),
            (json!({"kafka_topic": "t"}), ""),
            (json!({"brokers": brokers, "kafka_topic": "a b"}), "/kafka_topic"),
            (json!({"brokers": [], "kafka_topic": "t"}), "/brokers"),
            (json!({"brokers": [{"host": "k", "port": 0}], "kafka_topic": "t"}), "/brokers/0/port"),
            (json!({"broker_list": {"k": 70000}, "kafka_topic": "t"}), "/broker_list/k"),
            (json!({"brokers": brokers, "kafka_topic": "t", "required_acks": 0}), "/required_acks"),
        ] {
            assert_eq!(refused("kafka-logger", &config), [expected], "{config}");
        }
    }
}
