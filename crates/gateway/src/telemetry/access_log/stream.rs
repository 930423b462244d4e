//! What can be written of a stream, under the names that web servers and Apache APISIX have for it.
//!
//! A new one is a line in `NAMES` and its value in `Told::value`.

use std::net::SocketAddr;

use gatewright_model::stream::claim::Carrier;

use super::variable::{Moment, Shown, owned, text};
use crate::stream::record::{Over, Record};
use crate::telemetry::Teller;

/// Something that can be written of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamVariable(What);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    RemoteAddr,
    RemotePort,
    ServerAddr,
    ServerPort,
    Protocol,
    SslServerName,
    TimeIso8601,
    TimeLocal,
    Msec,
    Hostname,
    GatewayGroupId,
    InstanceId,
    Revision,
    ServiceId,
    ServiceName,
    ServiceVersion,
    RouteId,
    RouteName,
    Status,
    StreamEnd,
    RejectReason,
    BytesReceived,
    BytesSent,
    SessionTime,
    GatewayTime,
    UpstreamAddr,
    BalancerIp,
    BalancerPort,
    UpstreamTries,
    UpstreamConnectTime,
    UpstreamSessionTime,
}

/// A variable of streams.
pub(crate) struct Name {
    pub(crate) name: &'static str,
    #[cfg_attr(not(test), allow(dead_code, reason = "a test keeps the reference true to it"))]
    pub(crate) description: &'static str,
    what: What,
}

const fn named(name: &'static str, what: What, description: &'static str) -> Name {
    Name { name, description, what }
}

/// Every variable of streams.
pub(crate) const NAMES: &[Name] = &[
    named("remote_addr", What::RemoteAddr, "IP address of the client"),
    named("remote_port", What::RemotePort, "port of the client"),
    named("server_addr", What::ServerAddr, "IP address the client connected to"),
    named("server_port", What::ServerPort, "port the client connected to"),
    named("protocol", What::Protocol, "`TCP` or `UDP`"),
    named("ssl_server_name", What::SslServerName, "server name the client asked for in its TLS handshake"),
    named("ssl_preread_server_name", What::SslServerName, "the same"),
    named("server_name", What::SslServerName, "the same"),
    named("time_iso8601", What::TimeIso8601, "current time in the ISO 8601 format"),
    named("time_local", What::TimeLocal, "current time in the common log format"),
    named("msec", What::Msec, "current time in seconds since 1970, with milliseconds"),
    named("hostname", What::Hostname, "host name of the gateway instance"),
    named("gateway_group_id", What::GatewayGroupId, "id of the gateway's group"),
    named("instance_id", What::InstanceId, "id of the gateway instance"),
    named("revision", What::Revision, "revision of the configuration the stream began on"),
    named("service_id", What::ServiceId, "id of the service"),
    named("service_name", What::ServiceName, "name of the service"),
    named("service_version", What::ServiceVersion, "version of the service"),
    named("route_id", What::RouteId, "id of the stream route"),
    named("route_name", What::RouteName, "name of the stream route"),
    named("status", What::Status, "status that stands for the end, such as 200, 403, 499 or 502"),
    named("stream_end", What::StreamEnd, "how it ended"),
    named("reject_reason", What::RejectReason, "why the gateway let nobody in, or reached no node"),
    named("bytes_received", What::BytesReceived, "bytes from the client"),
    named("upstream_bytes_sent", What::BytesReceived, "the same: bytes to the node"),
    named("bytes_sent", What::BytesSent, "bytes to the client"),
    named("upstream_bytes_received", What::BytesSent, "the same: bytes from the node"),
    named("session_time", What::SessionTime, "seconds from the beginning to the end"),
    named("gateway_time", What::GatewayTime, "the part of `session_time` before the first try at a node"),
    named("upstream_addr", What::UpstreamAddr, "address and port of the node of the last try"),
    named("balancer_ip", What::BalancerIp, "its address"),
    named("balancer_port", What::BalancerPort, "its port"),
    named("upstream_tries", What::UpstreamTries, "number of tries"),
    named("upstream_connect_time", What::UpstreamConnectTime, "seconds to connect to the node"),
    named(
        "upstream_session_time",
        What::UpstreamSessionTime,
        "seconds from the first try at a node to the end",
    ),
];

/// The fields of a JSON line, in their order.
pub const JSON_FIELDS: &[&str] = &[
    "time_iso8601",
    "hostname",
    "gateway_group_id",
    "revision",
    "remote_addr",
    "remote_port",
    "protocol",
    "server_addr",
    "server_port",
    "ssl_server_name",
    "status",
    "stream_end",
    "reject_reason",
    "bytes_received",
    "bytes_sent",
    "session_time",
    "gateway_time",
    "service_id",
    "service_name",
    "service_version",
    "route_id",
    "route_name",
    "upstream_addr",
    "upstream_tries",
    "upstream_connect_time",
    "instance_id",
];

/// The line that Apache APISIX writes of a stream.
pub(super) const COMBINED: &str =
    "$remote_addr [$time_local] $protocol $status $bytes_sent $bytes_received $session_time";

impl StreamVariable {
    /// The variable called `name`, if there is one.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        NAMES.iter().find(|known| known.name == name).map(|known| Self(known.what))
    }
}

/// A stream with everything that can be written of it.
pub(crate) struct Told<'a> {
    pub(crate) record: &'a Record<'a>,
    /// How it ended, once it has.
    pub(crate) over: Option<&'a Over>,
    pub(crate) teller: &'a Teller,
    pub(crate) moment: &'a Moment,
}

impl<'a> Told<'a> {
    /// The value of a variable; `None`: the stream has none, or none yet.
    pub(crate) fn value(&self, variable: StreamVariable) -> Option<Shown<'a>> {
        let Self { record, teller, moment, .. } = *self;
        let (arrived, ends) = (record.arrived, record.arrived.ends);
        let address = |address: SocketAddr| owned(address.ip().to_canonical().to_string());
        let published = || record.found.map(|found| &*found.service.published);
        let route = || record.found.map(|found| found.published());
        Some(match variable.0 {
            What::RemoteAddr => address(ends.client),
            What::RemotePort => Shown::Number(ends.client.port().into()),
            What::ServerAddr => address(ends.server),
            What::ServerPort => Shown::Number(ends.server.port().into()),
            What::Protocol => text(match arrived.carrier {
                Carrier::Tcp => b"TCP",
                Carrier::Udp => b"UDP",
            }),
            What::SslServerName => text(arrived.server_name?.as_bytes()),
            What::TimeIso8601 => text(moment.iso8601().as_bytes()),
            What::TimeLocal => text(moment.local().as_bytes()),
            What::Msec => Shown::Seconds(moment.now()),
            What::Hostname => text(teller.hostname.as_bytes()),
            What::GatewayGroupId => text(teller.gateway_group_id.as_bytes()),
            What::InstanceId => text(teller.instance_id.as_bytes()),
            What::Revision => Shown::Number(record.found?.revision?.0),
            What::ServiceId => text(published()?.service_id.as_str().as_bytes()),
            What::ServiceName => text(published()?.name.as_bytes()),
            What::ServiceVersion => text(published()?.version.as_ref()?.as_bytes()),
            What::RouteId => text(route()?.route_id.as_str().as_bytes()),
            What::RouteName => text(route()?.route.name.as_bytes()),
            ended => self.ended(ended)?,
        })
    }

    /// What only exists once the stream is over.
    fn ended(&self, what: What) -> Option<Shown<'a>> {
        let over = self.over?;
        Some(match what {
            What::Status => Shown::Number(over.status.into()),
            What::StreamEnd => text(over.end.name().as_bytes()),
            What::RejectReason => text(over.reject_reason?.name().as_bytes()),
            What::BytesReceived => Shown::Number(over.bytes_in),
            What::BytesSent => Shown::Number(over.bytes_out),
            What::SessionTime => Shown::Seconds(over.total),
            What::GatewayTime => Shown::Seconds(over.total.saturating_sub(over.upstream.unwrap_or_default())),
            What::UpstreamAddr => owned(over.node?.to_string()),
            What::BalancerIp => owned(over.node?.ip().to_string()),
            What::BalancerPort => Shown::Number(over.node?.port().into()),
            What::UpstreamTries => Shown::Number(over.tries.into()),
            What::UpstreamConnectTime => Shown::Seconds(over.connecting?),
            What::UpstreamSessionTime => Shown::Seconds(over.upstream?),
            _ => return None,
        })
    }
}
