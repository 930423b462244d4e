//! Upstreams as requests use them: compiled once, shared by all workers, immutable but for counters that each
//! worker keeps for itself.
//!
//! * `node`: where a node is, and how it is.
//! * [`balance`]: which node serves next.
//! * `tries`: the tries of one request.
//! * `health`: which nodes are healthy.
//! * `names`: names of nodes, resolved off the request path.
//! * `pool`: connections kept open, per worker.
//! * `multiplexed`: HTTP/2 connections, many requests on each, per worker.
//! * `discovered`: upstreams whose nodes a service registry names.
//! * `status`: what operators see of all this.
//! * `per_worker`: what each worker counts for itself.

pub mod balance;
pub(crate) mod discovered;
pub(crate) mod health;
pub(crate) mod multiplexed;
pub(crate) mod names;
pub(crate) mod node;
mod per_worker;
pub(crate) mod pool;
pub(crate) mod status;
pub(crate) mod tries;

use std::cmp::Reverse;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use gatewright_model::expression::Variables;
use gatewright_model::message::Method;
use gatewright_model::resource::checks::{ActiveCheck, CheckType, Checks};
use gatewright_model::resource::group_object::GroupObject;
use gatewright_model::resource::service_registry::Wanted;
use gatewright_model::resource::upstream::{self as resource, Balancing, PassHost, Scheme, Timeout};
use gatewright_plugins::outbound::Outbound;
use rustls::pki_types::ServerName;
use tokio::runtime::Handle;

use crate::config::{DeniedNetworks, Settings};
use crate::outbound::Http;
use crate::outbound::shipments::Shipments;
use crate::proxy::reject::RejectReason;
use crate::secrets::Secrets;
use crate::tls;
use crate::tls::node::{Demands, NodeSession, Unusable};
use balance::Balance;
use balance::hash_key::HashKey;
use discovered::table::Board;
use discovered::{Discovered, Discovery, registries};
use health::passive::Passive;
use health::statuses::Statuses;
use health::{Asking, CheckPlan, Checker, Checkers};
use names::{Lookup, Names};
use node::Node;
use tries::Budget;

/// Tries after the first, whatever an upstream says: a request that fails this often has no luck with the rest.
const RETRIES_MAX: usize = 64;

/// How this process reaches others.
pub(crate) struct Outside {
    pub(crate) tls: Arc<tls::Shared>,
    pub(crate) shipments: Arc<Shipments>,
    pub(crate) denied: DeniedNetworks,
    /// Where plugins keep things; none: nowhere.
    pub(crate) plugin_dir: Option<PathBuf>,
}

impl Outside {
    /// As `settings` say.
    pub(crate) fn of(settings: &Settings, tls: &Arc<tls::Shared>, shipments: &Arc<Shipments>) -> Self {
        let (denied, plugin_dir) = (settings.denied.clone(), settings.plugin_dir.clone());
        Self { tls: Arc::clone(tls), shipments: Arc::clone(shipments), denied, plugin_dir }
    }
}

/// What outlives a configuration and works for every upstream and plugin of the process.
pub(crate) struct Background {
    pub(crate) tls: Arc<tls::Shared>,
    /// The way outside for plugins.
    pub(crate) outbound: Arc<dyn Outbound>,
    /// The way outside for service registries.
    pub(crate) registries: gatewright_discovery::Outside,
    /// The services that are followed there.
    pub(crate) discovery: Discovery,
    /// What references of configurations stand for.
    pub(crate) secrets: Secrets,
    materials: Materials,
}

/// What upstreams are made of.
#[derive(Clone)]
pub(crate) struct Materials {
    workers: usize,
    tls: Arc<tls::Shared>,
    checkers: Arc<Checkers>,
    names: Arc<Names>,
}

/// An upstream, or why every request to it is rejected.
pub(crate) type Reachable = Result<Arc<Upstream>, RejectReason>;

impl Background {
    /// For so many workers; checks, lookups and the following of services run on `runtime`, and what comes of the latter
    /// stands on `board`.
    pub(crate) fn new(
        workers: usize,
        runtime: Handle,
        lookup: Arc<dyn Lookup>,
        outside: Outside,
        board: Board,
    ) -> Self {
        let tls = Arc::clone(&outside.tls);
        let names = Arc::new(Names::new(runtime.clone(), lookup, outside.denied.clone()));
        let checkers = Arc::new(Checkers::new(runtime.clone()));
        let materials = Materials { workers, tls: Arc::clone(&tls), checkers, names };
        let registries = registries::outside(&outside.denied, &tls);
        let outbound: Arc<dyn Outbound> = Arc::new(Http::new(runtime.clone(), outside));
        let secrets = Secrets::new(runtime.clone(), Arc::clone(&outbound));
        let discovery = Discovery::new(runtime, board);
        Self { tls, outbound, registries, discovery, secrets, materials }
    }

    /// The upstream that is `written`, whose nodes a registry names, if that is so.
    pub(crate) fn discovered(
        &self,
        written: &resource::Upstream,
        client_certificate: Option<&Arc<GroupObject>>,
    ) -> Option<Discovered> {
        let wanted = Wanted::of(written)?;
        Some(self.discovery.upstream(wanted, written, client_certificate, &self.materials))
    }
}

impl Background {
    /// The same, where configurations are only checked.
    pub(crate) fn without_secrets(self) -> Self {
        Self { secrets: Secrets::none(), ..self }
    }
}

/// How a backend is reached.
pub(crate) struct Upstream {
    /// Highest priority first.
    pub(crate) nodes: Vec<Arc<Node>>,
    /// Whether the nodes speak HTTP/2, many requests to a connection.
    pub(crate) multiplexed: bool,
    balance: Balance,
    /// What consistent hashing hashes; absent with every other balancing.
    hash_key: Option<HashKey>,
    /// Whether the balancing goes by response times.
    wants_times: bool,
    /// How proxied answers are judged, if they are.
    passive: Option<Passive>,
    pub(crate) timeouts: Timeouts,
    /// What its nodes speak.
    pub(crate) scheme: Scheme,
    /// Tries at other nodes after the first.
    retries: usize,
    /// When the last try may start; zero: at any time.
    retry_timeout: Duration,
    /// Statuses of answers that are no reason to stop trying.
    retry_statuses: Statuses,
    /// The methods that may be repeated; none: all that are idempotent.
    retry_methods: Vec<Method>,
    budget: Budget,
    pub(crate) keepalive: Keepalive,
    pub(crate) pass_host: PassHost,
    /// The `Host` with [`PassHost::Rewrite`].
    pub(crate) upstream_host: Box<[u8]>,
}

/// Time limits towards nodes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timeouts {
    pub(crate) connect: Duration,
    pub(crate) send: Duration,
    pub(crate) read: Duration,
}

impl From<Timeout> for Timeouts {
    fn from(timeout: Timeout) -> Self {
        Self {
            connect: timeout.connect.duration(),
            send: timeout.send.duration(),
            read: timeout.read.duration(),
        }
    }
}

/// How long and how often a connection is reused.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Keepalive {
    pub(crate) idle_max: usize,
    /// Zero: for ever.
    pub(crate) idle_timeout: Duration,
    pub(crate) requests_max: u32,
}

impl Upstream {
    /// Compiles an upstream.
    ///
    /// # Errors
    /// The reason every request to it is rejected with, when this release cannot serve it: failing closed beats
    /// reaching a backend in another way than was asked for.
    pub(crate) fn compile(
        upstream: &resource::Upstream,
        client_certificate: Option<&GroupObject>,
        background: &Background,
    ) -> Result<Self, RejectReason> {
        Self::compile_with(
            (upstream, upstream.nodes.as_slice()),
            client_certificate,
            &background.materials,
            None,
        )
    }

    /// Compiles an upstream with nodes that a registry has named, for simulations.
    ///
    /// # Errors
    /// Like [`Upstream::compile`].
    pub(crate) fn discovered(
        upstream: &resource::Upstream,
        nodes: &[resource::Node],
        background: &Background,
        before: Option<&Self>,
    ) -> Result<Self, RejectReason> {
        Self::compile_with((upstream, nodes), None, &background.materials, before)
    }

    /// Compiles an upstream with other nodes than its own. Those that it had `before` are taken over as they are.
    fn compile_with(
        (upstream, nodes): (&resource::Upstream, &[resource::Node]),
        client_certificate: Option<&GroupObject>,
        materials: &Materials,
        before: Option<&Self>,
    ) -> Result<Self, RejectReason> {
        let (over_tls, multiplexed) = match upstream.scheme {
            Scheme::Http | Scheme::Tcp | Scheme::Udp => (false, false),
            Scheme::Https | Scheme::Tls => (true, false),
            Scheme::Grpc => (false, true),
            Scheme::Grpcs => (true, true),
        };
        let protocols: Protocols = match upstream.scheme {
            // Nobody knows what is spoken.
            scheme if scheme.is_stream() => &[],
            _ if multiplexed => tls::GRPC_NODE_PROTOCOLS,
            _ => tls::NODE_PROTOCOLS,
        };
        let sessions = Sessions { upstream, client_certificate, materials, protocols };
        let mut written: Vec<_> = nodes.iter().filter(|node| node.weight > 0).cloned().collect();
        written.sort_by_key(|node| Reverse(node.priority));
        if written.is_empty() {
            return Err(RejectReason::NoNodes);
        }
        let workers = materials.workers;
        // With one node there is nothing to choose: it is used whatever a check would say.
        let checks = upstream.checks.as_deref().filter(|_| written.len() > 1);
        let passive = checks.and_then(|checks| checks.passive.as_ref()).map(Passive::compile);
        let checking = checks.map(|checks| Checking::new(checks, &sessions));
        let known = before.iter().flat_map(|before| &before.nodes).enumerate();
        let known: HashMap<_, _> =
            known.map(|(at, node)| ((node.written.host.as_str(), node.written.port), (at, node))).collect();
        let (mut nodes, mut old) = (Vec::with_capacity(written.len()), Vec::with_capacity(written.len()));
        for node in &written {
            let same = known
                .get(&(node.host.as_str(), node.port))
                .filter(|(_, known)| known.written == *node && known.checker.is_some() == checking.is_some());
            old.push(same.map(|(at, _)| *at));
            if let Some((_, same)) = same {
                nodes.push(Arc::clone(same));
                continue;
            }
            let session = over_tls.then(|| sessions.of_requests(&node.host)).transpose()?;
            let mut node = Node::compile(node, session, &materials.names, workers);
            node.checker = checking.as_ref().map(|checking| checking.checker(&node)).transpose()?;
            nodes.push(Arc::new(node));
        }
        let mut balance = Balance::new(upstream.balancing, &written, workers);
        if let Some(before) = before {
            balance = balance.taking_over(&before.balance, &old);
        }
        let key = upstream.key.as_deref().unwrap_or_default();
        let hashes = upstream.balancing == Balancing::ConsistentHash;
        Ok(Self {
            hash_key: hashes.then(|| HashKey::compile(upstream.hash_on, key)),
            wants_times: balance.wants_times(),
            balance,
            passive,
            retries: upstream.retries.map_or(nodes.len() - 1, usize::from),
            retry_timeout: upstream.retry_timeout.duration(),
            retry_statuses: Statuses::new(&upstream.retry_statuses),
            retry_methods: upstream.retry_methods.iter().map(|name| Method::of(name.as_bytes())).collect(),
            budget: Budget::new(workers),
            nodes,
            multiplexed,
            timeouts: upstream.timeout.into(),
            scheme: upstream.scheme,
            keepalive: Keepalive {
                idle_max: upstream.keepalive_pool.size as usize,
                idle_timeout: upstream.keepalive_pool.idle_timeout.duration(),
                requests_max: upstream.keepalive_pool.requests,
            },
            pass_host: upstream.pass_host,
            upstream_host: upstream.upstream_host.as_deref().unwrap_or_default().as_bytes().into(),
        })
    }

    /// Whether a request with `method` may be sent again once it was sent.
    pub(crate) fn repeats(&self, method: Method) -> bool {
        method.is_idempotent() && (self.retry_methods.is_empty() || self.retry_methods.contains(&method))
    }

    /// What consistent hashing goes by; reads nothing with every other balancing.
    pub(crate) fn hash_key(&self, variables: &impl Variables) -> u64 {
        self.hash_key.as_ref().map_or(0, |key| key.of(variables))
    }
}

/// TLS with the nodes of one upstream.
struct Sessions<'u> {
    upstream: &'u resource::Upstream,
    client_certificate: Option<&'u GroupObject>,
    materials: &'u Materials,
    /// The protocols that requests are made in.
    protocols: Protocols,
}

type Protocols = &'static [&'static [u8]];

impl Sessions<'_> {
    fn of_requests(&self, host: &str) -> Result<Arc<NodeSession>, RejectReason> {
        self.session(tls::node::name_of(self.upstream, host), true, self.protocols)
    }

    /// A probe demands no more of a node than requests do.
    fn of_probes(&self, host: &str, check: &ActiveCheck) -> Result<Arc<NodeSession>, RejectReason> {
        let own = check.host.as_deref().map(tls::node::name);
        let name = own.unwrap_or_else(|| tls::node::name_of(self.upstream, host));
        self.session(name, check.https_verify_certificate, tls::NODE_PROTOCOLS)
    }

    fn session(
        &self,
        name: Result<ServerName<'static>, Unusable>,
        verify: bool,
        protocols: Protocols,
    ) -> Result<Arc<NodeSession>, RejectReason> {
        let session = name.and_then(|name| {
            let demands = Demands::of(self.upstream, self.client_certificate, protocols)?;
            self.materials.tls.nodes.session(demands.verifying(verify), name)
        });
        session.map_err(|error| {
            tracing::error!(%error, upstream = %self.upstream.name, "no TLS can be made of what an upstream says");
            RejectReason::UpstreamTlsUnusable
        })
    }
}

/// What nodes are checked with.
struct Checking<'c> {
    plan: CheckPlan<'c>,
    checks: &'c Checks,
    sessions: &'c Sessions<'c>,
}

impl<'c> Checking<'c> {
    fn new(checks: &'c Checks, sessions: &'c Sessions<'c>) -> Self {
        Self { plan: CheckPlan::new(checks), checks, sessions }
    }

    /// The checker of a node.
    fn checker(&self, node: &Node) -> Result<Arc<Checker>, RejectReason> {
        let Sessions { upstream, materials, .. } = self.sessions;
        let active = &self.checks.active;
        let rewritten = upstream.upstream_host.as_deref().filter(|_| upstream.pass_host == PassHost::Rewrite);
        let host = active.host.as_deref().or(rewritten).map(str::as_bytes);
        let name = (node.written.host.as_str(), node.written.port);
        let over_tls = active.check_type == CheckType::Https;
        let tls = over_tls.then(|| self.sessions.of_probes(&node.written.host, active)).transpose()?;
        let asking = Asking { host: host.unwrap_or(&node.host), tls };
        let checker = materials.checkers.checker(&self.plan, name, node.place(), asking);
        checker.map_err(|error| {
            tracing::error!(%error, upstream = %upstream.name, "no probe can be made of the checks of an upstream");
            RejectReason::ChecksUnsupported
        })
    }
}

#[cfg(test)]
impl Background {
    /// Checks nothing and resolves nothing.
    pub(crate) fn idle(workers: usize) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let tls = Arc::new(tls::Shared::new(&crate::config::Tls::default()).unwrap());
        Self::new(
            workers,
            runtime.handle().clone(),
            Arc::new(names::SystemDns::default()),
            Outside { tls, shipments: Arc::default(), denied: DeniedNetworks::default(), plugin_dir: None },
            Board::default(),
        )
    }
}
