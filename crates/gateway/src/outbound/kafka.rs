//! Messages for Kafka, written with librdkafka: a producer for each way of writing to a cluster.
//!
//! The library looks up names and connects by itself, and nothing can be put between. So before a message is handed to
//! it, the brokers that the configuration names and those that the cluster names are looked up here: one of them in a
//! denied network, and nothing is written, and the producer goes.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use gatewright_plugins::kafka::{Cluster, Topic};
use gatewright_plugins::outbound::Failure;
use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;
use rdkafka::metadata::MetadataBroker;
use rdkafka::producer::{FutureProducer, FutureRecord, Producer as _};
use rdkafka::types::RDKafkaErrorCode;
use tokio::net::lookup_host;
use tokio::task::spawn_blocking;

use crate::config::DeniedNetworks;

/// Producers kept; each has threads of its own. Beyond that all start anew, once what they have is written.
const PRODUCERS_MAX: usize = 32;

/// Bytes that wait in one producer.
const PENDING_KILOBYTES_MAX: u32 = 64 * 1024;

/// How long brokers that were looked up may be written to before they are looked up again.
const LOOKED_UP_FOR: Duration = Duration::from_secs(1);

/// The producers of a gateway.
pub(super) struct Producers {
    known: Mutex<HashMap<Cluster, Known>>,
    denied: DeniedNetworks,
}

/// A producer, and when its brokers were last found to be nobody whom the gateway must not reach.
#[derive(Clone)]
struct Known {
    producer: FutureProducer,
    looked_up: Arc<tokio::sync::Mutex<Option<Instant>>>,
}

impl Producers {
    pub(super) fn new(denied: &DeniedNetworks) -> Self {
        Self { known: Mutex::default(), denied: denied.clone() }
    }

    /// Writes a message to `topic`, and waits until brokers have it.
    pub(super) async fn write(&self, topic: &Topic, message: &[u8]) -> Result<(), Failure> {
        let producer = self.allowed(topic).await?;
        let mut record = FutureRecord::<str, [u8]>::to(&topic.name).payload(message);
        record.key = topic.key.as_deref();
        // There is room, or there is none: who waits is the batch, which is sent again as its plugin says.
        let written = producer.send(record, Duration::ZERO).await;
        written.map(drop).map_err(|(error, _)| failure(&error))
    }

    /// The producer for a topic, once all brokers it may connect to are allowed.
    async fn allowed(&self, topic: &Topic) -> Result<FutureProducer, Failure> {
        let cluster = &topic.cluster;
        if self.denied.is_empty() {
            return Ok(self.known(cluster)?.producer);
        }
        // Before there is a producer: it connects to these at once.
        for broker in &cluster.brokers {
            let host = broker.host.trim_matches(['[', ']']);
            self.must_be_allowed(host, broker.port, cluster.timeout).await?;
        }
        let Known { producer, looked_up } = self.known(cluster)?;
        let mut looked_up = looked_up.lock().await;
        if looked_up.is_some_and(|at| at.elapsed() < LOOKED_UP_FOR) {
            return Ok(producer);
        }
        for (host, port) in named_brokers(&producer, topic).await? {
            if let Err(denied) = self.must_be_allowed(&host, port, cluster.timeout).await {
                self.lock().remove(cluster);
                return Err(denied);
            }
        }
        *looked_up = Some(Instant::now());
        Ok(producer)
    }

    /// The library takes whichever address of a broker it likes, so none of them may be denied.
    async fn must_be_allowed(&self, host: &str, port: u16, timeout: Duration) -> Result<(), Failure> {
        let found = tokio::time::timeout(timeout, lookup_host((host, port))).await;
        let found: Vec<SocketAddr> = match found {
            Ok(Ok(found)) => found.collect(),
            Ok(Err(error)) => return Err(Failure::Unreachable(format!("broker {host}: {error}"))),
            Err(_) => return Err(Failure::TimedOut),
        };
        match found.iter().find(|address| self.denied.cover(address.ip())) {
            None => Ok(()),
            Some(denied) => Err(Failure::Unsendable(format!(
                "broker {host} is {}, which is in a network that this gateway must not reach (--denied-networks)",
                denied.ip()
            ))),
        }
    }

    fn known(&self, cluster: &Cluster) -> Result<Known, Failure> {
        let mut producers = self.lock();
        if let Some(known) = producers.get(cluster) {
            return Ok(known.clone());
        }
        let producer: FutureProducer = settings(cluster).create().map_err(|error| failure(&error))?;
        if producers.len() >= PRODUCERS_MAX {
            producers.clear();
        }
        let known = Known { producer, looked_up: Arc::default() };
        producers.insert(cluster.clone(), known.clone());
        Ok(known)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Cluster, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The brokers that the cluster itself names: the library connects to those that lead a partition of the topic, and
/// only once something is written to it.
async fn named_brokers(producer: &FutureProducer, topic: &Topic) -> Result<Vec<(String, u16)>, Failure> {
    let (producer, name, timeout) = (producer.clone(), topic.name.clone(), topic.cluster.timeout);
    let asking = spawn_blocking(move || {
        let metadata = producer.client().fetch_metadata(Some(&name), timeout)?;
        let place =
            |broker: &MetadataBroker| Some((broker.host().to_owned(), u16::try_from(broker.port()).ok()?));
        Ok(metadata.brokers().iter().filter_map(place).collect())
    });
    let asked = asking.await.map_err(|error| Failure::Unreachable(error.to_string()))?;
    asked.map_err(|error: KafkaError| failure(&error))
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
        // Where some networks are denied, as by default.
        let (producers, brokers) = (Producers::new(&DeniedNetworks::default()), mock.bootstrap_servers());
        let topic = |key: Option<&str>| Topic {
            cluster: cluster(&brokers),
            name: "logs".to_owned(),
            key: key.map(str::to_owned),
        };
        runtime.block_on(async {
            producers.write(&topic(None), b"one").await.unwrap();
            producers.write(&topic(Some("k")), b"two").await.unwrap();
        });
        assert_eq!(producers.lock().len(), 1, "what agrees shares a producer");
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
    }

    /// Passes connections on to `to`, under another address of this machine.
    fn detour(to: SocketAddr) -> SocketAddr {
        let listener = std::net::TcpListener::bind("127.0.0.2:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let node = std::net::TcpStream::connect(to).unwrap();
                let (back, forth) = (node.try_clone().unwrap(), client.try_clone().unwrap());
                for (mut from, mut to) in [(client, node), (back, forth)] {
                    std::thread::spawn(move || {
                        let _ = std::io::copy(&mut from, &mut to);
                        let _ = to.shutdown(std::net::Shutdown::Write);
                    });
                }
            }
        });
        address
    }

    #[test]
    fn nothing_is_written_where_a_broker_is_denied_be_it_configured_or_named_by_the_cluster() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let mock = MockCluster::new(1).unwrap();
        mock.create_topic("logs", 1, 1).unwrap();
        let named: SocketAddr = mock.bootstrap_servers().parse().unwrap();
        let detour = detour(named);
        for (denied, asked, is_written) in
            [("127.0.0.1/32", named, false), ("127.0.0.1/32", detour, false), ("127.0.0.3/32", detour, true)]
        {
            let producers = Producers::new(&DeniedNetworks::new([denied.parse().unwrap()]));
            let cluster = cluster(&asked.to_string());
            let topic = Topic { cluster, name: "logs".to_owned(), key: None };
            let written = runtime.block_on(producers.write(&topic, b"one"));
            assert_eq!(written.is_ok(), is_written, "{asked} where {denied} is denied: {written:?}");
            if !is_written {
                assert!(matches!(&written, Err(Failure::Unsendable(why)) if why.contains("127.0.0.1")));
                assert!(producers.lock().is_empty(), "nothing is left that could connect");
            }
        }
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
