//! A service registry: an outside directory of nodes, connected to a gateway group.
//!
//! Kinds and fields are those of API7 Enterprise where it documents them (`kubernetes`, `nacos`); `consul`, `eureka` and
//! `dns` are extensions of this product, with the field names of Apache APISIX. All times are in seconds.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Labels;
use super::upstream::Seconds;
use crate::validation::Violations;

mod defaults;
mod wanted;

use defaults::{
    dns_order, eureka_interval, eureka_prefix, eureka_weight, five_seconds, kubernetes_weight, minute,
    nacos_interval, nacos_prefix, nacos_weight, one, probe_interval, probe_timeout, two_seconds,
};
pub use wanted::Wanted;

/// The writable content of a service registry.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ServiceRegistry {
    /// Name of the service registry.
    #[schema(min_length = 1, max_length = 1024)]
    pub name: String,
    /// Free text for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schema(max_length = 65536)]
    pub desc: String,
    /// Key/value pairs for filtering.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub labels: Labels,
    /// What kind it is.
    #[serde(rename = "type")]
    pub kind: RegistryKind,
    /// How Kubernetes is asked; required with type `kubernetes`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub kubernetes_config: Option<KubernetesConfig>,
    /// How Nacos is asked; required with type `nacos`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub nacos_config: Option<NacosConfig>,
    /// How Consul is asked; required with type `consul`. An extension of this product.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub consul_config: Option<ConsulConfig>,
    /// How Eureka is asked; required with type `eureka`. An extension of this product.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub eureka_config: Option<EurekaConfig>,
    /// How DNS is asked; absent: as the system of the gateway does. An extension of this product.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub dns_config: Option<DnsConfig>,
    /// How often gateways look whether it is there.
    #[serde(default)]
    pub health_check: RegistryCheck,
}

/// The kinds of service registries; upstreams name them as `discovery_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the names say it")]
pub enum RegistryKind {
    Kubernetes,
    Nacos,
    Consul,
    Eureka,
    Dns,
}

impl RegistryKind {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Kubernetes, Self::Nacos, Self::Consul, Self::Eureka, Self::Dns];

    /// As the API writes it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kubernetes => "kubernetes",
            Self::Nacos => "nacos",
            Self::Consul => "consul",
            Self::Eureka => "eureka",
            Self::Dns => "dns",
        }
    }

    /// The kind of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// How often gateways look whether a registry is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RegistryCheck {
    /// Seconds between two looks.
    #[serde(default = "probe_interval")]
    #[schema(minimum = 1, maximum = 86400, default = 15)]
    pub probe_interval: u32,
    /// Seconds after which one look has failed.
    #[serde(default = "probe_timeout")]
    #[schema(minimum = 1, maximum = 3600, default = 5)]
    pub probe_timeout: u32,
}

impl Default for RegistryCheck {
    fn default() -> Self {
        Self { probe_interval: probe_interval(), probe_timeout: probe_timeout() }
    }
}

/// How a Kubernetes cluster is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct KubernetesConfig {
    /// Where its API server is; absent: a kubeconfig says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub service: Option<ApiServer>,
    /// The namespaces that are looked at; absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub namespace_selector: Option<NamespaceSelector>,
    /// Labels that endpoint slices must have, as `kubectl --selector` takes them.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schema(max_length = 4096)]
    pub label_selector: String,
    /// What the API server is shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub client: Option<KubernetesClient>,
    /// The weight of every node. A field of Apache APISIX.
    #[serde(default = "kubernetes_weight")]
    #[schema(minimum = 1, maximum = 65535, default = 50)]
    pub default_weight: u16,
}

/// Where the API server of a Kubernetes cluster is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ApiServer {
    /// Whether it is asked over TLS.
    pub schema: WebScheme,
    /// Its name or address.
    #[schema(min_length = 1, max_length = 256, pattern = "^[0-9a-zA-Z-._:\\[\\]]+$")]
    pub host: String,
    /// Its port.
    #[schema(min_length = 1, max_length = 5, pattern = "^[0-9]+$")]
    pub port: String,
    /// Whether its certificate must verify; absent: yes. A field of Apache APISIX.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub ssl_verify: Option<bool>,
    /// The authorities its certificate may come from, in PEM; absent: those of the pod where the token is that of its
    /// service account, or else those the gateway believes. An extension of this product.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 65536, nullable = false)]
    pub ca: Option<String>,
}

/// With or without TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the names say it")]
pub enum WebScheme {
    Http,
    Https,
}

/// Which namespaces of a cluster are looked at: exactly one of these. Patterns are regular expressions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NamespaceSelector {
    /// This one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, max_length = 253, pattern = "^[a-z0-9]([-a-z0-9_.]*[a-z0-9])?$")]
    pub equal: Option<String>,
    /// All but this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, max_length = 253, pattern = "^[a-z0-9]([-a-z0-9_.]*[a-z0-9])?$")]
    pub not_equal: Option<String>,
    /// Those that match one of these.
    #[serde(default, rename = "match", skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 64)]
    pub matching: Vec<String>,
    /// Those that match none of these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 64)]
    pub not_match: Vec<String>,
}

/// What an API server is shown: exactly one of these.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct KubernetesClient {
    /// The token of a service account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, min_length = 1, max_length = 16384)]
    pub token: Option<String>,
    /// A file with the token on the machine of the gateway, which is read again when the token may have changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, min_length = 1, max_length = 4096)]
    pub token_file: Option<String>,
    /// A whole kubeconfig file, as YAML; its current context says where and how. An extension of this product.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, min_length = 1, max_length = 262144)]
    pub kubeconfig: Option<String>,
}

/// How Nacos is asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct NacosConfig {
    /// Its servers: `http://host:8848`.
    #[schema(min_items = 1, max_items = 64)]
    pub hosts: Vec<String>,
    /// The path in front of its interface; that of Nacos 3 is `/nacos/v3`.
    #[serde(default = "nacos_prefix")]
    #[schema(default = "/nacos/v1", max_length = 256)]
    pub prefix: String,
    /// The weight of nodes that have none.
    #[serde(default = "nacos_weight")]
    #[schema(minimum = 1, maximum = 100, default = 100)]
    pub default_weight: u16,
    /// Seconds between two questions about a service.
    #[serde(default = "nacos_interval")]
    #[schema(minimum = 1, maximum = 3600, default = 10)]
    pub fetch_interval: u32,
    /// Time limits of one question.
    #[serde(default)]
    pub timeout: NacosTimeout,
    /// What it is shown; absent: it asks for nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub auth: Option<NacosAuth>,
}

/// Time limits of a question to Nacos.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct NacosTimeout {
    /// Until the connection stands.
    #[serde(default = "two_seconds")]
    #[schema(value_type = f64, exclusive_minimum = 0, maximum = 3600, default = 2)]
    pub connect: Seconds,
    /// Until the question is sent.
    #[serde(default = "two_seconds")]
    #[schema(value_type = f64, exclusive_minimum = 0, maximum = 3600, default = 2)]
    pub send: Seconds,
    /// Until the answer is there.
    #[serde(default = "five_seconds")]
    #[schema(value_type = f64, exclusive_minimum = 0, maximum = 3600, default = 5)]
    pub read: Seconds,
}

impl Default for NacosTimeout {
    fn default() -> Self {
        Self { connect: two_seconds(), send: two_seconds(), read: five_seconds() }
    }
}

/// What Nacos is shown: user name and password, or a token, or an access key with its secret.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[allow(missing_docs, reason = "the names say it")]
pub struct NacosAuth {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, min_length = 1, max_length = 1024)]
    pub username: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, min_length = 1, max_length = 1024)]
    pub password: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, min_length = 1, max_length = 16384)]
    pub token: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, min_length = 1, max_length = 1024)]
    pub access_key: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, min_length = 1, max_length = 1024)]
    pub secret_key: Option<String>,
}

/// How Consul is asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ConsulConfig {
    /// Its agents: `http://host:8500`.
    #[schema(min_items = 1, max_items = 64)]
    pub servers: Vec<String>,
    /// What is sent as `X-Consul-Token`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, min_length = 1, max_length = 16384)]
    pub token: Option<String>,
    /// The datacentre that is asked about; absent: that of the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, min_length = 1, max_length = 256)]
    pub datacenter: Option<String>,
    /// The weight of nodes that have none.
    #[serde(default = "one")]
    #[schema(minimum = 1, maximum = 65535, default = 1)]
    pub weight: u16,
    /// Time limits of one question.
    #[serde(default)]
    pub timeout: ConsulTimeout,
}

/// Time limits of a question to Consul.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ConsulTimeout {
    /// Until the connection stands.
    #[serde(default = "two_seconds")]
    #[schema(value_type = f64, exclusive_minimum = 0, maximum = 3600, default = 2)]
    pub connect: Seconds,
    /// Until the answer is there, beside the time Consul was asked to wait.
    #[serde(default = "two_seconds")]
    #[schema(value_type = f64, exclusive_minimum = 0, maximum = 3600, default = 2)]
    pub read: Seconds,
    /// How long Consul is asked to wait for a change.
    #[serde(default = "minute")]
    #[schema(value_type = f64, minimum = 1, maximum = 600, default = 60)]
    pub wait: Seconds,
}

impl Default for ConsulTimeout {
    fn default() -> Self {
        Self { connect: two_seconds(), read: two_seconds(), wait: minute() }
    }
}

/// How Eureka is asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct EurekaConfig {
    /// Its servers: `http://host:8761`, with `user:password@` where they ask for it.
    #[schema(min_items = 1, max_items = 64)]
    pub host: Vec<String>,
    /// The path in front of its interface.
    #[serde(default = "eureka_prefix")]
    #[schema(default = "/eureka/", max_length = 256)]
    pub prefix: String,
    /// Seconds between two questions about a service.
    #[serde(default = "eureka_interval")]
    #[schema(minimum = 1, maximum = 3600, default = 30)]
    pub fetch_interval: u32,
    /// The weight of nodes that have none.
    #[serde(default = "eureka_weight")]
    #[schema(minimum = 1, maximum = 65535, default = 100)]
    pub weight: u16,
    /// Time limits of one question.
    #[serde(default)]
    pub timeout: NacosTimeout,
}

/// How DNS is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DnsConfig {
    /// Its servers: `address` or `address:port`; none: those of the system of the gateway.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 16)]
    pub servers: Vec<String>,
    /// The records that are asked for, one kind after the other until there are some.
    #[serde(default = "dns_order")]
    #[schema(min_items = 1, max_items = 3)]
    pub order: Vec<DnsRecord>,
}

/// The kinds of records that nodes are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[allow(missing_docs, reason = "the names say it")]
pub enum DnsRecord {
    #[serde(rename = "SRV")]
    Srv,
    A,
    #[serde(rename = "AAAA")]
    Aaaa,
}

impl ServiceRegistry {
    /// What a schema cannot say.
    pub fn check(&self, violations: &mut Violations) {
        let configs = [
            (RegistryKind::Kubernetes, "kubernetes_config", self.kubernetes_config.is_some()),
            (RegistryKind::Nacos, "nacos_config", self.nacos_config.is_some()),
            (RegistryKind::Consul, "consul_config", self.consul_config.is_some()),
            (RegistryKind::Eureka, "eureka_config", self.eureka_config.is_some()),
            (RegistryKind::Dns, "dns_config", self.dns_config.is_some()),
        ];
        for (kind, name, is_there) in configs {
            let message = match (kind == self.kind, is_there) {
                (true, false) if kind != RegistryKind::Dns => {
                    format!("is required with type `{}`", kind.name())
                }
                (false, true) => format!("does not belong to type `{}`", self.kind.name()),
                _ => continue,
            };
            violations.add(format!("/{name}"), message);
        }
        let addresses = self.nacos_config.iter().map(|config| ("/nacos_config/hosts", &config.hosts));
        let addresses = addresses
            .chain(self.consul_config.iter().map(|config| ("/consul_config/servers", &config.servers)))
            .chain(self.eureka_config.iter().map(|config| ("/eureka_config/host", &config.host)));
        for (at, addresses) in addresses {
            for (index, address) in
                addresses.iter().enumerate().filter(|(_, address)| !is_web_address(address))
            {
                violations
                    .add(format!("{at}/{index}"), format!("`{address}` is not `http(s)://host[:port]`"));
            }
        }
        if let Some(config) = &self.kubernetes_config {
            config.check("/kubernetes_config", violations);
        }
        if let Some(auth) = self.nacos_config.as_ref().and_then(|config| config.auth.as_ref()) {
            auth.check("/nacos_config/auth", violations);
        }
        for (index, server) in self.dns_config.iter().flat_map(|config| config.servers.iter().enumerate()) {
            if dns_server(server).is_none() {
                let message = format!("`{server}` is not an address with or without a port");
                violations.add(format!("/dns_config/servers/{index}"), message);
            }
        }
    }
}

/// The address of a DNS server, which answers on port 53 unless it says otherwise.
#[must_use]
pub fn dns_server(text: &str) -> Option<std::net::SocketAddr> {
    let alone = |text: &str| text.parse().ok().map(|ip: std::net::IpAddr| (ip, 53).into());
    text.parse().ok().or_else(|| alone(text))
}

fn is_web_address(text: &str) -> bool {
    let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    rest.is_some_and(|rest| {
        let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
        !host.is_empty() && !host.contains(['/', '?', '#', ' ', '\\'])
    })
}

impl KubernetesConfig {
    fn check(&self, at: &str, violations: &mut Violations) {
        let client = self.client.clone().unwrap_or_default();
        let shown = [client.token.is_some(), client.token_file.is_some(), client.kubeconfig.is_some()];
        if shown.iter().filter(|is_there| **is_there).count() > 1 {
            violations.add(format!("{at}/client"), "token, token_file and kubeconfig exclude each other");
        }
        match (&self.service, client.kubeconfig.is_some()) {
            (None, false) => violations.add(format!("{at}/service"), "is required without a kubeconfig"),
            (Some(_), true) => violations.add(format!("{at}/service"), "stands in the kubeconfig already"),
            (Some(service), false) if service.port.parse::<u16>().is_err() => {
                violations.add(format!("{at}/service/port"), "is not a port");
            }
            _ => {}
        }
        let Some(selector) = &self.namespace_selector else { return };
        let used = [
            selector.equal.is_some(),
            selector.not_equal.is_some(),
            !selector.matching.is_empty(),
            !selector.not_match.is_empty(),
        ];
        if used.iter().filter(|is_used| **is_used).count() != 1 {
            let message = "expected exactly one of equal, not_equal, match and not_match";
            violations.add(format!("{at}/namespace_selector"), message);
        }
    }
}

impl NacosAuth {
    fn check(&self, at: &str, violations: &mut Violations) {
        let ways = [
            (self.username.is_some(), self.password.is_some()),
            (self.token.is_some(), self.token.is_some()),
            (self.access_key.is_some(), self.secret_key.is_some()),
        ];
        let whole = ways.iter().filter(|way| **way == (true, true)).count();
        let half = ways.iter().any(|(one, other)| one != other);
        if whole != 1 || half {
            let message =
                "expected username and password, or token, or access_key and secret_key, and nothing else";
            violations.add(at, message);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    /// The paths of what is wrong.
    fn complaints(document: Value) -> Vec<String> {
        let registry: ServiceRegistry = serde_json::from_value(document).unwrap();
        let mut violations = Violations::default();
        registry.check(&mut violations);
        violations.iter().map(|violation| violation.path.clone()).collect()
    }

    #[test]
    fn a_registry_has_the_configuration_of_its_type_and_no_other() {
        let nacos = json!({"hosts": ["http://nacos:8848"]});
        assert!(complaints(json!({"name": "n", "type": "nacos", "nacos_config": nacos})).is_empty());
        assert!(complaints(json!({"name": "n", "type": "dns"})).is_empty());
        let wrong = json!({"name": "n", "type": "consul", "nacos_config": nacos});
        assert_eq!(complaints(wrong), ["/nacos_config", "/consul_config"]);
    }

    #[test]
    fn documented_defaults_are_filled_in() {
        let document = json!({"name": "n", "type": "nacos", "nacos_config": {"hosts": ["http://n"]}});
        let registry: ServiceRegistry = serde_json::from_value(document).unwrap();
        let written = serde_json::to_value(&registry).unwrap();
        assert_eq!(
            written,
            json!({"name": "n", "type": "nacos", "health_check": {"probe_interval": 15, "probe_timeout": 5},
                "nacos_config": {"hosts": ["http://n"], "prefix": "/nacos/v1", "default_weight": 100,
                    "fetch_interval": 10, "timeout": {"connect": 2, "send": 2, "read": 5}}})
        );
    }

    #[test]
    fn what_excludes_each_other_is_refused_by_name() {
        let service = json!({"schema": "https", "host": "k", "port": "6443"});
        let kubernetes = |client: Value, selector: Value| {
            json!({"name": "k", "type": "kubernetes", "kubernetes_config":
                {"service": service, "client": client, "namespace_selector": selector}})
        };
        assert!(complaints(kubernetes(json!({"token": "t"}), json!({"equal": "default"}))).is_empty());
        let both =
            kubernetes(json!({"token": "t", "token_file": "/f"}), json!({"equal": "a", "match": ["b"]}));
        assert_eq!(complaints(both), ["/kubernetes_config/client", "/kubernetes_config/namespace_selector"]);
        let nacos = |auth: Value| json!({"name": "n", "type": "nacos", "nacos_config": {"hosts": ["ftp://n", "http://n"], "auth": auth}});
        let half = complaints(nacos(json!({"username": "u", "token": "t"})));
        assert_eq!(half, ["/nacos_config/hosts/0", "/nacos_config/auth"]);
        let dns =
            json!({"name": "d", "type": "dns", "dns_config": {"servers": ["10.0.0.1", "[::1]:53", "name"]}});
        assert_eq!(complaints(dns), ["/dns_config/servers/2"]);
    }

    #[test]
    fn a_name_may_begin_with_the_id_of_a_registry() {
        let wanted = |kind: &str, name: &str| {
            let upstream = json!({"service_name": name, "discovery_type": kind});
            Wanted::of(&serde_json::from_value(upstream).unwrap()).unwrap()
        };
        for (kind, name, registry) in [
            ("kubernetes", "default/web:http", None),
            ("kubernetes", "one/default/web:http", Some("one")),
            ("nacos", "public/DEFAULT_GROUP/web", None),
            ("nacos", "one/public/DEFAULT_GROUP/web", Some("one")),
            ("nacos", "one/web", Some("one")),
            ("consul", "web", None),
            ("dns", "one/web.internal:80", Some("one")),
        ] {
            assert_eq!(wanted(kind, name).split().0, registry, "{kind} {name}");
        }
        assert_eq!(wanted("consul", "one/web").split(), (Some("one"), "web"));
    }
}
