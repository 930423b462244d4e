//! DNS: the records of a name, asked for again when their time to live is over.
//!
//! A name that does not exist, or has no such records, is an empty answer; one that could not be looked up is an error.
//! The port of a node is the one written after the name, or that of its SRV record, or that of plain HTTP.
//! SRV counts priorities the other way round: there the lowest is first.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use gatewright_model::resource::service_registry::{DnsConfig, DnsRecord, Wanted, dns_server};
use gatewright_model::resource::upstream::Node;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::{RData, RecordType};
use tokio::sync::OnceCell;
use tokio::time::Instant;

use crate::{Outside, Registry, Trouble, Waiting, Watch};

/// How long one lookup may take.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(10);

/// The shortest and the longest time an answer is believed.
const VALID_MIN: Duration = Duration::from_secs(1);
const VALID_MAX: Duration = Duration::from_secs(300);

/// How long it is believed that there are no records.
const NEGATIVE_VALID: Duration = Duration::from_secs(5);

/// SRV records of one name; the targets of each are looked up.
const TARGETS_MAX: usize = 1024;

/// The port of nodes whose name comes without one.
const PORT_DEFAULT: u16 = 80;

/// DNS, with the servers of the system or with others.
pub(crate) struct Dns {
    servers: Vec<NameServerConfig>,
    order: Vec<DnsRecord>,
    resolver: OnceCell<TokioResolver>,
}

impl Dns {
    pub(crate) fn new(config: &DnsConfig, outside: &Outside) -> Result<Self, Trouble> {
        let server = |text: &String| {
            let address = dns_server(text);
            let address = address
                .ok_or_else(|| Trouble::new(format!("`{text}` is not the address of a DNS server")))?;
            (outside.allow)(address.ip()).map_err(Trouble::new)?;
            let connections =
                [ConnectionConfig::udp(), ConnectionConfig::tcp()].into_iter().map(|mut connection| {
                    connection.port = address.port();
                    connection
                });
            Ok(NameServerConfig::new(address.ip(), true, connections.collect()))
        };
        let servers = config.servers.iter().map(server).collect::<Result<_, Trouble>>()?;
        Ok(Self { servers, order: config.order.clone(), resolver: OnceCell::new() })
    }

    async fn resolver(&self) -> Result<&TokioResolver, Trouble> {
        let build = || async {
            let mut builder = match self.servers.is_empty() {
                true => TokioResolver::builder_tokio().map_err(Trouble::new)?,
                false => {
                    let config = ResolverConfig::from_name_servers(self.servers.clone());
                    TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
                }
            };
            // Each name is kept by its watch; a second cache would only make answers older.
            builder.options_mut().cache_size = 0;
            builder.build().map_err(Trouble::new)
        };
        self.resolver.get_or_try_init(build).await
    }

    /// The records of this kind, and how long they hold; none and no error: there are none.
    async fn records(&self, name: &str, kind: RecordType) -> Result<Option<(Lookup, Duration)>, Trouble> {
        let looking = self.resolver().await?.lookup(name, kind);
        let found = tokio::time::timeout(LOOKUP_TIMEOUT, looking).await;
        match found.unwrap_or(Err(NetError::Timeout)) {
            Ok(lookup) => {
                let valid = lookup.valid_until().saturating_duration_since(std::time::Instant::now());
                Ok(Some((lookup, valid)))
            }
            Err(error) if error.is_no_records_found() || error.is_nx_domain() => Ok(None),
            Err(error) => Err(Trouble::new(format!("cannot look up {kind} records of {name}: {error}"))),
        }
    }

    /// The addresses of a name.
    async fn addresses(&self, name: &str, kind: RecordType) -> Result<(Vec<IpAddr>, Duration), Trouble> {
        let Some((lookup, valid)) = self.records(name, kind).await? else {
            return Ok((Vec::new(), NEGATIVE_VALID));
        };
        let address = |data: &RData| match data {
            RData::A(address) => Some(IpAddr::from(address.0)),
            RData::AAAA(address) => Some(IpAddr::from(address.0)),
            _ => None,
        };
        Ok((lookup.answers().iter().filter_map(|record| address(&record.data)).collect(), valid))
    }

    async fn nodes(&self, name: &str, port: Option<u16>) -> Result<(Vec<Node>, Duration), Trouble> {
        for kind in &self.order {
            let (nodes, valid) = match kind {
                DnsRecord::Srv => self.services(name, port).await?,
                DnsRecord::A => self.plain(name, RecordType::A, port).await?,
                DnsRecord::Aaaa => self.plain(name, RecordType::AAAA, port).await?,
            };
            if !nodes.is_empty() {
                return Ok((nodes, valid));
            }
        }
        Ok((Vec::new(), NEGATIVE_VALID))
    }

    async fn plain(
        &self,
        name: &str,
        kind: RecordType,
        port: Option<u16>,
    ) -> Result<(Vec<Node>, Duration), Trouble> {
        let (addresses, valid) = self.addresses(name, kind).await?;
        let port = port.unwrap_or(PORT_DEFAULT);
        let node = |address: IpAddr| Node { host: address.to_string(), port, weight: 1, priority: 0 };
        Ok((addresses.into_iter().map(node).collect(), valid))
    }

    /// The addresses behind SRV records.
    async fn services(&self, name: &str, port: Option<u16>) -> Result<(Vec<Node>, Duration), Trouble> {
        let Some((lookup, mut valid)) = self.records(name, RecordType::SRV).await? else {
            return Ok((Vec::new(), NEGATIVE_VALID));
        };
        let mut nodes = Vec::new();
        for record in lookup.answers().iter().take(TARGETS_MAX) {
            let RData::SRV(service) = &record.data else { continue };
            let target = service.target.to_utf8();
            // A service whose target is the root is decidedly not there.
            if target == "." {
                continue;
            }
            for kind in [RecordType::A, RecordType::AAAA] {
                let (addresses, for_so_long) = self.addresses(&target, kind).await?;
                if addresses.is_empty() {
                    continue;
                }
                valid = valid.min(for_so_long);
                nodes.extend(addresses.into_iter().map(|address| Node {
                    host: address.to_string(),
                    port: port.unwrap_or(service.port),
                    // Weight 0 is a very small share and not none.
                    weight: service.weight.max(1),
                    priority: -i32::from(service.priority),
                }));
                break;
            }
        }
        Ok((nodes, valid))
    }
}

impl Registry for Dns {
    fn watch(self: Arc<Self>, wanted: &Wanted) -> Result<Box<dyn Watch>, Trouble> {
        let text = wanted.split().1;
        let (name, port) = match text.rsplit_once(':') {
            Some((name, port)) => {
                let port = port.parse().ok().filter(|port| *port > 0);
                (
                    name,
                    Some(port.ok_or_else(|| Trouble::new(format!("`{text}` is not `name` or `name:port`")))?),
                )
            }
            None => (text, None),
        };
        if name.is_empty() {
            return Err(Trouble::new("the name is empty"));
        }
        Ok(Box::new(Name { dns: self, name: name.to_owned(), port, until: None }))
    }

    /// A server that answers is there, whatever it says of the root.
    fn probe(&self) -> Waiting<'_, Result<(), Trouble>> {
        Box::pin(async move {
            let asking = async { Ok(self.resolver().await?.lookup(".", RecordType::NS).await) };
            match tokio::time::timeout(LOOKUP_TIMEOUT, asking).await.unwrap_or(Ok(Err(NetError::Timeout)))? {
                Ok(_) | Err(NetError::Dns(_)) => Ok(()),
                Err(error) => Err(Trouble::new(format!("no server answers: {error}"))),
            }
        })
    }
}

/// One name.
struct Name {
    dns: Arc<Dns>,
    name: String,
    port: Option<u16>,
    /// Until when the last answer is believed.
    until: Option<Instant>,
}

impl Watch for Name {
    fn next(&mut self) -> Waiting<'_, Result<Vec<Node>, Trouble>> {
        Box::pin(async move {
            if let Some(until) = self.until {
                tokio::time::sleep_until(until).await;
                self.until = None;
            }
            let (nodes, valid) = self.dns.nodes(&self.name, self.port).await?;
            self.until = Some(Instant::now() + valid.clamp(VALID_MIN, VALID_MAX));
            Ok(nodes)
        })
    }
}

#[cfg(test)]
mod tests;
