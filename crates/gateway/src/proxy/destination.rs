//! Where a request goes: the route that serves it, and what is asked of which upstream.
//!
//! The service says so, unless a plugin decided otherwise for this request.

use gatewright_model::expression::Variables;
use gatewright_model::lifecycle::RouteVersion;
use gatewright_model::message::RequestHead;
use gatewright_model::resource::upstream::PassHost;
use gatewright_model::snapshot::PublishedService;
use gatewright_model::target;
use gatewright_plugins::exchange::{State, UpstreamChoice};

use super::body::Body;
use super::caller::Identified;
use super::client::Client;
use super::reject::RejectReason;
use super::variables::RequestVariables;
use crate::live::plugins::GroupPlugins;
use crate::live::{LiveConfig, LiveService};
use crate::router::{self, Lot};
use crate::telemetry::record::Record;
use crate::tls::client_certificate::admit;
use crate::upstream::discovered::table::Table;
use crate::upstream::node::Node;
use crate::upstream::{Timeouts, Upstream};

/// The route that serves a request.
pub(super) struct Found<'l> {
    group: &'l GroupPlugins,
    table: &'l Table,
    pub(super) service: &'l LiveService,
    /// Its place among the routes of the service.
    pub(super) route: usize,
    /// The place of the path by which it was found among those of the route.
    pub(super) path: usize,
    /// Bytes of the request's path that the service stands behind.
    pub(super) prefix_length: usize,
}

/// Finds the route that serves a request.
pub(super) fn find<'l>(
    record: &Record<'l>,
    request: &RequestHead,
    client: &Client<'_, '_>,
    body: &Body,
) -> Result<Found<'l>, RejectReason> {
    let live = record.live();
    if live.revision.is_none() {
        return Err(RejectReason::NotConfigured);
    }
    admit(&live.server_names, client.address.session.as_deref(), request.bytes(request.host))?;
    let variables = RequestVariables { request, client: client.address, body };
    let identified;
    let variables: &dyn Variables = match live.identifying.is_empty() {
        true => &variables,
        false => {
            identified = Identified::new(variables, live);
            &identified
        }
    };
    let wanted = router::Request {
        host: request.bytes(request.host),
        path: request.bytes(request.path),
        method: request.method,
        remote_addr: Some(client.address.peer.ip()),
        variables,
        lot: Lot::drawn_by(|| fastrand::u64(..)),
    };
    let matched = live.router.find(&wanted).ok_or(RejectReason::RouteNotFound)?;
    let service = live.services.numbered(matched.rules.number()).ok_or(RejectReason::RouteNotFound)?;
    let route = service.routes.get(matched.route).ok_or(RejectReason::RouteNotFound)?;
    record.matched(service, matched.route, matched.path);
    match route.refusal {
        Some(refusal) => Err(refusal),
        None => {
            let (group, table) = (&*live.plugins, record.table());
            let (route, path, prefix_length) = (matched.route, matched.path, matched.prefix_length);
            Ok(Found { group, table, service, route, path, prefix_length })
        }
    }
}

impl<'l> Found<'l> {
    /// Where the request goes, after what plugins decided.
    pub(super) fn destination(
        &self,
        request: &RequestHead,
        client: &Client<'_, '_>,
        body: &Body,
        state: Option<&State>,
    ) -> Result<Destination<'l>, RejectReason> {
        let Self { group, table, service, route, prefix_length, .. } = *self;
        let published = &service.published;
        let own = service.upstreams.own();
        let upstream = match state.and_then(|state| state.upstream.as_ref()) {
            None => own,
            Some(choice) => match (service.upstreams.chosen(choice), choice) {
                (Some(chosen), _) => chosen,
                // An upstream that is not there yet does not keep the service from serving.
                (None, UpstreamChoice::Id(_)) => own,
                (None, UpstreamChoice::Inline(written)) => {
                    group.inline(written).ok_or(RejectReason::PluginUnbuilt)?
                }
            },
        };
        let upstream = upstream.at(table)?;
        if upstream.scheme.is_stream() {
            return Err(RejectReason::SchemeUnsupported);
        }
        let variables = RequestVariables { request, client: client.address, body };
        let is_replaced = state.is_some_and(|state| state.path_replaced);
        let strips = published.runtime.strip_path_prefix && !is_replaced;
        let asks_raw = published.runtime.forward_raw_path || state.is_some_and(|state| state.raw_path);
        Ok(Destination {
            upstream,
            host: state.and_then(|state| state.upstream_host.clone()),
            timeouts: timeouts(service.routes[route].timeouts.unwrap_or(upstream.timeouts), state),
            service: published,
            route: &published.routes[route],
            hash_key: upstream.hash_key(&variables),
            stripped: if strips { prefix_length } else { 0 },
            raw_path: asks_raw && !is_replaced,
        })
    }
}

/// The timeouts of a request for which plugins may allow less.
fn timeouts(configured: Timeouts, state: Option<&State>) -> Timeouts {
    let silence_max = state.and_then(|state| state.silence_max).unwrap_or(configured.read);
    Timeouts { read: configured.read.min(silence_max), ..configured }
}

/// Where a request goes.
pub(super) struct Destination<'l> {
    pub(super) upstream: &'l Upstream,
    /// The `Host` that plugins put in place of what the upstream says.
    host: Option<Box<[u8]>>,
    pub(super) timeouts: Timeouts,
    /// Bytes of the path that are not forwarded.
    stripped: usize,
    service: &'l PublishedService,
    pub(super) route: &'l RouteVersion,
    /// What consistent hashing goes by.
    pub(super) hash_key: u64,
    /// Whether the service asks for the path as the client wrote it.
    raw_path: bool,
}

impl Destination<'_> {
    /// Whether its route is still there, and open to WebSockets, in `live`.
    pub(super) fn is_served(&self, live: &LiveConfig) -> bool {
        let is_route =
            |route: &RouteVersion| route.route_id == self.route.route_id && *route.route.enable_websocket;
        let mut versions = live.services.versions(&self.service.service_id).filter(|it| it.rules.is_some());
        versions.any(|service| service.published.routes.iter().any(is_route))
    }

    /// The `Host` that the node sees.
    pub(super) fn host<'a>(&'a self, request: &'a RequestHead, node: &'a Node) -> &'a [u8] {
        match (&self.host, self.upstream.pass_host) {
            (Some(host), _) => host,
            (None, PassHost::Pass) => request.bytes(request.authority),
            (None, PassHost::Node) => &node.host,
            (None, PassHost::Rewrite) => &self.upstream.upstream_host,
        }
    }

    /// Writes the path as it was matched, or as it was written if the service asks for that, without what the
    /// service strips, and the query.
    pub(super) fn write_target(&self, request: &RequestHead, out: &mut Vec<u8>) {
        let path = &request.bytes(request.path)[self.stripped..];
        let raw_path = if self.raw_path { raw_rest(request, self.stripped) } else { None };
        if path.first() != Some(&b'/') {
            out.push(b'/');
        }
        if let Some(raw_path) = raw_path {
            out.extend_from_slice(raw_path);
        } else if request.path_is_plain {
            out.extend_from_slice(path);
        } else {
            target::encode_path(path, out);
        }
        if let Some(query) = request.query {
            out.push(b'?');
            out.extend_from_slice(request.bytes(query));
        }
    }
}

/// The path as it was written, without what is stripped; `None` unless it still reads as the path that was matched:
/// `/api/../api/x` without `/api` would be another path.
fn raw_rest(request: &RequestHead, stripped: usize) -> Option<&[u8]> {
    let path = request.bytes(request.path);
    let rest = request.bytes(request.raw_path).strip_prefix(&path[..stripped])?;
    let read = target::parse_target(rest).ok()?;
    (*read.path == path[stripped..]).then_some(rest)
}
