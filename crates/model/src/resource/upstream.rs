//! An upstream: how to reach a backend.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::checks::Checks;
use super::service_registry::RegistryKind;
use super::{AsSent, Labels, Verbatim};
use crate::id::ObjectId;
use crate::message::Method;
use crate::validation::Violations;

/// How to reach a backend: its nodes or where to find them, balancing, timeouts, retries, host policy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Upstream {
    /// Name of the upstream.
    #[serde(default = "default_name")]
    #[schema(default = "default", min_length = 1, max_length = 65536)]
    pub name: String,
    /// Free text for people.
    #[serde(default, skip_serializing_if = "AsSent::is_absent")]
    #[schema(value_type = String, max_length = 65536)]
    pub desc: AsSent<String>,
    /// Key/value pairs for filtering.
    #[serde(default, skip_serializing_if = "AsSent::is_absent")]
    #[schema(value_type = Labels)]
    pub labels: AsSent<Labels>,
    /// The protocol the nodes speak.
    #[serde(default)]
    pub scheme: Scheme,
    /// How a node is chosen.
    #[serde(default, rename = "type")]
    pub balancing: Balancing,
    /// What consistent hashing hashes on.
    #[serde(default)]
    pub hash_on: HashOn,
    /// The variable, header or cookie that consistent hashing reads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, nullable = false)]
    pub key: Option<String>,
    /// The addresses of the backend: a list, or a map of `host:port` to weight.
    #[serde(default, deserialize_with = "nodes_from_json", skip_serializing_if = "AsSent::is_absent")]
    #[schema(schema_with = nodes_schema)]
    pub nodes: AsSent<Vec<Node>>,
    /// Further attempts after a failed one; absent: one for every other node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(maximum = 65535, nullable = false)]
    pub retries: Option<u16>,
    /// Seconds after which no further attempt starts; 0: no limit.
    #[serde(default)]
    #[schema(value_type = f64, minimum = 0, default = 0)]
    pub retry_timeout: Seconds,
    /// Statuses of answers after which another node is tried, if the request may be repeated; none: every answer is
    /// the answer. An extension of this product.
    #[serde(default, skip_serializing_if = "AsSent::is_absent")]
    #[schema(value_type = Vec<u16>, max_items = 200)]
    pub retry_statuses: AsSent<Vec<u16>>,
    /// The methods of requests that may be repeated once they were sent; none: all that are idempotent, which are the
    /// only ones that can stand here. An extension of this product.
    #[serde(default, skip_serializing_if = "AsSent::is_absent")]
    #[schema(value_type = Vec<String>, max_items = 6)]
    pub retry_methods: AsSent<Vec<String>>,
    /// Time limits towards the nodes.
    #[serde(default)]
    pub timeout: Timeout,
    /// Connections kept for reuse.
    #[serde(default)]
    pub keepalive_pool: KeepalivePool,
    /// Which `Host` the nodes see.
    #[serde(default)]
    pub pass_host: PassHost,
    /// The `Host` the nodes see with `pass_host: rewrite`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(pattern = "^\\*?[0-9a-zA-Z-._]+$", nullable = false)]
    pub upstream_host: Option<String>,
    /// The service's name in a service registry, instead of `nodes`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 256, nullable = false)]
    pub service_name: Option<String>,
    /// The kind of service registry `service_name` is looked up in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 256, nullable = false)]
    pub discovery_type: Option<String>,
    /// What else the service registry needs to know.
    #[serde(default, skip_serializing_if = "AsSent::is_absent")]
    #[schema(value_type = Object)]
    pub discovery_args: AsSent<Map<String, Value>>,
    /// Health checks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Checks, required = false)]
    pub checks: Option<Verbatim<Checks>>,
    /// TLS towards the nodes, with schemes that speak it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub tls: Option<UpstreamTls>,
}

/// TLS towards the nodes of an upstream.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UpstreamTls {
    /// The certificate that nodes are shown, in PEM, with its chain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 128, max_length = 65536, nullable = false)]
    pub client_cert: Option<String>,
    /// Its private key, in PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 64, max_length = 65536, nullable = false)]
    pub client_key: Option<String>,
    /// The SSL object of type `client` whose certificate nodes are shown, instead of the two.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub client_cert_id: Option<ObjectId>,
    /// Whether the certificates of nodes must verify; absent: yes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub verify: Option<bool>,
}

/// The protocol the nodes of an upstream speak.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the names say it")]
pub enum Scheme {
    #[default]
    Http,
    Https,
    Grpc,
    Grpcs,
    Tcp,
    Udp,
    Tls,
}

impl Scheme {
    /// Whether this works at layer 4.
    #[must_use]
    pub const fn is_stream(self) -> bool {
        matches!(self, Self::Tcp | Self::Udp | Self::Tls)
    }
}

/// How a node is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub enum Balancing {
    /// Smooth weighted round robin.
    #[default]
    #[serde(rename = "roundrobin")]
    RoundRobin,
    /// The node with the fewest requests in flight for its weight.
    #[serde(rename = "least_conn")]
    LeastConnections,
    /// The node that answered fastest lately.
    #[serde(rename = "ewma")]
    Ewma,
    /// Consistent hashing.
    #[serde(rename = "chash")]
    ConsistentHash,
}

/// What consistent hashing hashes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum HashOn {
    /// A variable.
    #[default]
    Vars,
    /// A request header.
    Header,
    /// A cookie.
    Cookie,
    /// The consumer.
    Consumer,
    /// Several variables.
    VarsCombinations,
}

/// Which `Host` the nodes see.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PassHost {
    /// The client's.
    #[default]
    Pass,
    /// The node's own host.
    Node,
    /// `upstream_host`.
    Rewrite,
}

/// One address of an upstream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Node {
    /// Address or domain name.
    #[schema(min_length = 1, max_length = 256)]
    pub host: String,
    /// Port.
    #[schema(minimum = 1, maximum = 65535)]
    pub port: u16,
    /// Share of the requests; 0: none.
    #[schema(maximum = 65535)]
    pub weight: u16,
    /// Nodes of a lower priority serve only when no node of a higher one is left.
    #[serde(default)]
    #[schema(default = 0)]
    pub priority: i32,
}

/// Time limits towards a node, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Timeout {
    /// Until the connection stands.
    #[serde(default = "minute")]
    #[schema(value_type = f64, exclusive_minimum = 0, default = 60)]
    pub connect: Seconds,
    /// Between two successful writes of the request.
    #[serde(default = "minute")]
    #[schema(value_type = f64, exclusive_minimum = 0, default = 60)]
    pub send: Seconds,
    /// Between two successful reads of the response.
    #[serde(default = "minute")]
    #[schema(value_type = f64, exclusive_minimum = 0, default = 60)]
    pub read: Seconds,
}

impl Default for Timeout {
    fn default() -> Self {
        Self { connect: minute(), send: minute(), read: minute() }
    }
}

/// Connections kept for reuse, per worker of a gateway.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct KeepalivePool {
    /// Idle connections kept.
    #[serde(default = "pool_size")]
    #[schema(minimum = 1, default = 320)]
    pub size: u32,
    /// Seconds an idle connection is kept; 0: for ever.
    #[serde(default = "minute")]
    #[schema(value_type = f64, minimum = 0, default = 60)]
    pub idle_timeout: Seconds,
    /// Requests after which a connection is closed.
    #[serde(default = "pool_requests")]
    #[schema(minimum = 1, default = 1000)]
    pub requests: u32,
}

impl Default for KeepalivePool {
    fn default() -> Self {
        Self { size: pool_size(), idle_timeout: minute(), requests: pool_requests() }
    }
}

/// A length of time in seconds, as the API spells it; whole numbers stay whole when written.
#[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd, Deserialize)]
pub struct Seconds(pub f64);

impl Seconds {
    /// The same as a [`std::time::Duration`]; a negative or absurd number is no time at all.
    #[must_use]
    pub fn duration(self) -> std::time::Duration {
        std::time::Duration::try_from_secs_f64(self.0).unwrap_or_default()
    }
}

impl Serialize for Seconds {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
        if self.0.fract() == 0.0 && self.0.abs() < EXACT_MAX {
            #[allow(clippy::cast_possible_truncation, reason = "checked above: whole and in range")]
            return serializer.serialize_i64(self.0 as i64);
        }
        serializer.serialize_f64(self.0)
    }
}

impl Default for Upstream {
    fn default() -> Self {
        Self {
            name: default_name(),
            desc: AsSent::default(),
            labels: AsSent::default(),
            scheme: Scheme::default(),
            balancing: Balancing::default(),
            hash_on: HashOn::default(),
            key: None,
            nodes: AsSent::default(),
            retries: None,
            retry_timeout: Seconds::default(),
            retry_statuses: AsSent::default(),
            retry_methods: AsSent::default(),
            timeout: Timeout::default(),
            keepalive_pool: KeepalivePool::default(),
            pass_host: PassHost::default(),
            upstream_host: None,
            service_name: None,
            discovery_type: None,
            discovery_args: AsSent::default(),
            checks: None,
            tls: None,
        }
    }
}

impl Upstream {
    /// Rules that span several fields; `at` is the JSON path of this upstream.
    pub fn check(&self, at: &str, violations: &mut Violations) {
        if self.service_name.is_some() && !self.nodes.is_empty() {
            violations.add(format!("{at}/service_name"), "nodes and service_name exclude each other");
        }
        if self.service_name.is_some() && self.discovery_type.is_none() {
            violations.add(format!("{at}/discovery_type"), "is required with service_name");
        }
        if let Some(kind) = &self.discovery_type
            && RegistryKind::named(kind).is_none()
        {
            let known = RegistryKind::ALL.map(RegistryKind::name);
            violations.add(
                format!("{at}/discovery_type"),
                format!("there is no such kind of service registry: expected one of {known:?}"),
            );
        }
        if self.pass_host == PassHost::Rewrite && self.upstream_host.is_none() {
            violations.add(format!("{at}/upstream_host"), "is required with pass_host `rewrite`");
        }
        let needs_key = self.balancing == Balancing::ConsistentHash && self.hash_on != HashOn::Consumer;
        if needs_key && self.key.is_none() {
            violations.add(format!("{at}/key"), "is required with type `chash`");
        }
        for (index, status) in self.retry_statuses.iter().enumerate() {
            if !(400..600).contains(status) {
                let message = "expected the status of an answer that failed, 400 to 599";
                violations.add(format!("{at}/retry_statuses/{index}"), message);
            }
        }
        for (index, method) in self.retry_methods.iter().enumerate() {
            if !Method::of(method.as_bytes()).is_idempotent() {
                let message =
                    "expected a method that may be repeated: GET, HEAD, OPTIONS, TRACE, PUT or DELETE";
                violations.add(format!("{at}/retry_methods/{index}"), message);
            }
        }
        if let Some(tls) = &self.tls {
            if tls.client_cert.is_some() != tls.client_key.is_some() {
                violations.add(format!("{at}/tls/client_key"), "client_cert and client_key belong together");
            }
            if tls.client_cert_id.is_some() && tls.client_cert.is_some() {
                violations.add(
                    format!("{at}/tls/client_cert_id"),
                    "client_cert and client_cert_id exclude each other",
                );
            }
        }
    }
}

fn default_name() -> String {
    "default".to_owned()
}

const fn minute() -> Seconds {
    Seconds(60.0)
}

const fn pool_size() -> u32 {
    320
}

const fn pool_requests() -> u32 {
    1000
}

/// Accepts both documented forms: a list of nodes, and a map of `host:port` to weight.
fn nodes_from_json<'de, D: Deserializer<'de>>(deserializer: D) -> Result<AsSent<Vec<Node>>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Form {
        List(AsSent<Vec<Node>>),
        Weights(std::collections::BTreeMap<String, u16>),
    }
    match Form::deserialize(deserializer)? {
        Form::List(nodes) => Ok(nodes),
        Form::Weights(weights) => weights
            .into_iter()
            .map(|(address, weight)| node_from_address(&address, weight).map_err(serde::de::Error::custom))
            .collect(),
    }
}

fn node_from_address(address: &str, weight: u16) -> Result<Node, String> {
    let wrong = || format!("node `{address}` is not `host:port`");
    let (host, port) = address.rsplit_once(':').ok_or_else(wrong)?;
    let port = port.parse().ok().filter(|port| *port > 0).ok_or_else(wrong)?;
    if host.is_empty() {
        return Err(wrong());
    }
    Ok(Node { host: host.to_owned(), port, weight, priority: 0 })
}

fn nodes_schema() -> utoipa::openapi::schema::Schema {
    use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder, OneOfBuilder, Schema, SchemaType, Type};
    let list = ArrayBuilder::new()
        .items(<Node as utoipa::PartialSchema>::schema())
        .max_items(Some(crate::limits::NODES_MAX))
        .build();
    let weight = ObjectBuilder::new()
        .schema_type(SchemaType::new(Type::Integer))
        .minimum(Some(0))
        .maximum(Some(65535))
        .build();
    let map = ObjectBuilder::new().additional_properties(Some(Schema::from(weight))).build();
    OneOfBuilder::new()
        .item(list)
        .item(map)
        .description(Some("The addresses of the backend: a list, or a map of `host:port` to weight."))
        .build()
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Upstream {
        serde_json::from_str(json).expect("an upstream")
    }

    #[test]
    fn an_empty_upstream_has_the_documented_defaults() {
        let written = serde_json::to_value(parse("{}")).unwrap();
        assert_eq!(
            written,
            serde_json::json!({
                "name": "default", "scheme": "http", "type": "roundrobin", "hash_on": "vars", "retry_timeout": 0,
                "timeout": {"connect": 60, "send": 60, "read": 60},
                "keepalive_pool": {"size": 320, "idle_timeout": 60, "requests": 1000},
                "pass_host": "pass"
            })
        );
    }

    #[test]
    fn nodes_may_be_a_map_of_addresses_to_weights() {
        let upstream = parse(r#"{"nodes": {"127.0.0.1:8080": 1, "[::1]:81": 0}}"#);
        let expected = [("127.0.0.1", 8080, 1), ("[::1]", 81, 0)];
        let found: Vec<_> = upstream.nodes.iter().map(|n| (n.host.as_str(), n.port, n.weight)).collect();
        assert_eq!(found, expected);
        assert!(serde_json::from_str::<Upstream>(r#"{"nodes": {"no-port": 1}}"#).is_err());
    }

    #[test]
    fn rules_between_fields_are_all_reported() {
        let upstream = parse(
            r#"{"type": "chash", "pass_host": "rewrite", "service_name": "s", "nodes": [{"host": "a", "port": 1, "weight": 1}],
                "tls": {"client_cert": "c", "client_cert_id": "i"}, "retry_statuses": [503, 200],
                "retry_methods": ["GET", "POST"]}"#,
        );
        let mut violations = Violations::default();
        upstream.check("/upstream", &mut violations);
        let paths: Vec<_> = violations.iter().map(|v| v.path.as_str()).collect();
        assert_eq!(
            paths,
            [
                "/upstream/service_name",
                "/upstream/discovery_type",
                "/upstream/upstream_host",
                "/upstream/key",
                "/upstream/retry_statuses/1",
                "/upstream/retry_methods/1",
                "/upstream/tls/client_key",
                "/upstream/tls/client_cert_id"
            ]
        );
    }
}
