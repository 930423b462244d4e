//! Messages for Kafka, written with librdkafka: a producer for each way of writing to a cluster.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use gatewright_plugins::kafka::{Cluster, Topic};
use gatewright_plugins::outbound::Failure;
use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::types::RDKafkaErrorCode;

use crate::config::DeniedNetworks;

/// Producers kept; each has threads of its own. Beyond that all start anew, once what they have is written.
const PRODUCERS_MAX: usize = 32;

/// Bytes that wait in one producer.
const PENDING_KILOBYTES_MAX: u32 = 64 * 1024;

/// The producers of a gateway.
pub(super) struct Producers {
    known: Mutex<HashMap<Cluster, FutureProducer>>,
    /// Whether they may connect at all: the library learns of brokers by itself, and nobody can keep it from those in
    /// denied networks.
    may_connect: bool,
}

impl Producers {
    pub(super) fn new(denied: &DeniedNetworks) -> Self {
        Self { known: Mutex::default(), may_connect: denied.is_empty() }
    }

    /// Writes a message to `topic`, and waits until brokers have it.
    pub(super) async fn write(&self, topic: &Topic, message: &[u8]) -> Result<(), Failure> {
        if !self.may_connect {
            let reason = "networks are denied to this gateway, and the client of Kafka cannot be kept from them (--denied-networks none allows all)";
            return Err(Failure::Unsendable(reason.to_owned()));
        }
        let producer = self.producer(&topic.cluster)?;
        let mut record = FutureRecord::<str, [u8]>::to(&topic.name).payload(message);
        record.key = topic.key.as_deref();
        // There is room, or there is none: who waits is the batch, which is sent again as its plugin says.
        let written = producer.send(record, Duration::ZERO).await;
        written.map(drop).map_err(|(error, _)| failure(&error))
    }

    fn producer(&self, cluster: &Cluster) -> Result<FutureProducer, Failure> {
        let mut producers = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(producer) = producers.get(cluster) {
            return Ok(producer.clone());
        }
        let producer: FutureProducer = settings(cluster).create().map_err(|error| failure(&error))?;
        if producers.len() >= PRODUCERS_MAX {
            producers.clear();
        }
        producers.insert(cluster.clone(), producer.clone());
        Ok(producer)
    }
}

/// What the library is told about a cluster.
fn settings(cluster: &Cluster) -> ClientConfig {
    let brokers = cluster.brokers.iter().map(|broker| match broker.host.contains(':') {
        true => format!("[{}]:{}", broker.host.trim_matches(['[', ']']), broker.port),
        false => format!("{}:{}", broker.host, broker.port),
    });
    let millis = |time: Duration| time.as_millis().min(86_400_000).to_string();
    let protocol = match (cluster.tls, &cluster.login) {
        (None, None) => "plaintext",
        (None, Some(_)) => "sasl_plaintext",
        (Some(_), None) => "ssl",
        (Some(_), Some(_)) => "sasl_ssl",
    };
    let linger = cluster.linger.min(cluster.timeout / 2);
    let mut settings = ClientConfig::new();
    settings
        .set("bootstrap.servers", brokers.collect::<Vec<_>>().join(","))
        .set("client.id", "gatewright")
        .set("security.protocol", protocol)
        .set("acks", if cluster.waits_for_all { "all" } else { "1" })
        // The batch is sent again as its plugin says, so the library gives up when its time is over.
        .set("message.timeout.ms", millis(cluster.timeout + linger))
        .set("linger.ms", millis(linger))
        .set("batch.num.messages", cluster.batch_messages_max.clamp(1, 1_000_000).to_string())
        .set("batch.size", cluster.batch_bytes_max.clamp(1, 16 * 1024 * 1024).to_string())
        // A batch of entries is one message.
        .set("message.max.bytes", (17 * 1024 * 1024).to_string())
        .set("queue.buffering.max.messages", cluster.pending_max.clamp(1, 1_000_000).to_string())
        .set("queue.buffering.max.kbytes", PENDING_KILOBYTES_MAX.to_string())
        .set("topic.metadata.refresh.interval.ms", millis(cluster.refresh_interval));
    if let Some(login) = &cluster.login {
        settings
            .set("sasl.mechanism", login.mechanism)
            .set("sasl.username", &login.user)
            .set("sasl.password", &login.password);
    }
    if let Some(verify) = cluster.tls {
        settings.set("enable.ssl.certificate.verification", verify.to_string());
    }
    settings
}

fn failure(error: &KafkaError) -> Failure {
    match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::MessageTimedOut | RDKafkaErrorCode::OperationTimedOut) => Failure::TimedOut,
        Some(RDKafkaErrorCode::MessageSizeTooLarge) => {
            Failure::Unsendable("the batch is longer than a message may be".to_owned())
        }
        _ => Failure::Unreachable(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use gatewright_plugins::kafka::Login;
    use gatewright_plugins::outbound::Address;
    use rdkafka::consumer::{BaseConsumer, Consumer as _};
    use rdkafka::message::Message as _;
    use rdkafka::mocking::MockCluster;

    use super::*;

    fn cluster(brokers: &str) -> Cluster {
        let (host, port) = brokers.split_once(':').unwrap();
        Cluster {
            brokers: vec![Address { host: host.to_owned(), port: port.parse().unwrap() }],
            login: None,
            tls: None,
            waits_for_all: true,
            timeout: Duration::from_secs(20),
            linger: Duration::ZERO,
            batch_messages_max: 10,
            batch_bytes_max: 1024,
            pending_max: 100,
            refresh_interval: Duration::from_secs(30),
        }
    }

    #[test]
    fn a_message_comes_to_its_topic() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let mock = MockCluster::new(1).unwrap();
        mock.create_topic("logs", 1, 1).unwrap();
        let (producers, brokers) = (Producers::new(&DeniedNetworks::new([])), mock.bootstrap_servers());
        let topic = |key: Option<&str>| Topic {
            cluster: cluster(&brokers),
            name: "logs".to_owned(),
            key: key.map(str::to_owned),
        };
        runtime.block_on(async {
            producers.write(&topic(None), b"one").await.unwrap();
            producers.write(&topic(Some("k")), b"two").await.unwrap();
        });
        assert_eq!(producers.known.lock().unwrap().len(), 1, "what agrees shares a producer");
        let reading = ClientConfig::new()
            .set("bootstrap.servers", &brokers)
            .set("group.id", "test")
            .set("auto.offset.reset", "earliest")
            .create::<BaseConsumer>()
            .unwrap();
        reading.subscribe(&["logs"]).unwrap();
        for (key, expected) in [(None, "one"), (Some("k"), "two")] {
            // What is not a message, such as joining the group, ends a wait as well.
            let polled = std::iter::repeat_with(|| reading.poll(Duration::from_secs(1))).take(100);
            let message = polled.flatten().next().expect("a message in time").unwrap();
            assert_eq!(message.payload(), Some(expected.as_bytes()));
            assert_eq!(message.key(), key.map(str::as_bytes));
        }
    }

    #[test]
    fn a_cluster_that_is_not_there_fails_in_time() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let cluster = Cluster { timeout: Duration::from_millis(500), ..cluster(&closed.to_string()) };
        let topic = Topic { cluster, name: "logs".to_owned(), key: None };
        let written = runtime.block_on(Producers::new(&DeniedNetworks::new([])).write(&topic, b"one"));
        assert_eq!(written, Err(Failure::TimedOut));
        let denied = Producers::new(&DeniedNetworks::default());
        let refused = runtime.block_on(denied.write(&topic, b"one"));
        assert!(matches!(refused, Err(Failure::Unsendable(_))), "{refused:?}");
    }

    #[test]
    fn who_logs_in_says_so_over_tls() {
        let login = Login { mechanism: "SCRAM-SHA-512", user: "u".to_owned(), password: "p".to_owned() };
        for (tls, login, protocol) in [
            (None, None, "plaintext"),
            (Some(true), None, "ssl"),
            (None, Some(login.clone()), "sasl_plaintext"),
            (Some(false), Some(login), "sasl_ssl"),
        ] {
            let settings = settings(&Cluster { tls, login: login.clone(), ..cluster("k:1") });
            assert_eq!(settings.get("security.protocol"), Some(protocol));
            assert_eq!(settings.get("sasl.mechanism").is_some(), login.is_some());
            assert!(settings.create::<FutureProducer>().is_ok(), "{protocol} is understood");
        }
    }
}
