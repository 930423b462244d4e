//! What can be written of an exchange: the variables that conditions know, and those that exist only once it is
//! over.
//!
//! A new one is a line in `NAMES` and its value in `Told::value`.

use std::borrow::Cow;
use std::io::Write as _;
use std::time::{Duration, SystemTime};

use gatewright_model::expression::{Value, Variable as Condition, Variables};
use gatewright_model::message::{RequestHead, Version};
use time::OffsetDateTime;

use crate::proxy::ClientAddress;
use crate::proxy::body::Body;
use crate::proxy::variables::RequestVariables;
use crate::telemetry::Teller;
use crate::telemetry::record::Outcome;

/// Something that can be written of an exchange.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable(Kind);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    Known(Condition),
    Over(Over),
}

/// What is known once an exchange is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Over {
    Request,
    Status,
    RejectReason,
    CutReason,
    RequestTime,
    GatewayTime,
    UpstreamResponseTime,
    UpstreamHeaderTime,
    UpstreamConnectTime,
    UpstreamAddr,
    UpstreamTries,
    BytesSent,
    BodyBytesSent,
    ServiceVersion,
    GatewayGroupId,
    Revision,
    InstanceId,
}

/// A variable that only the access log has.
pub(crate) struct Name {
    pub(crate) name: &'static str,
    #[cfg_attr(not(test), allow(dead_code, reason = "a test keeps the reference true to it"))]
    pub(crate) description: &'static str,
    over: Over,
}

const fn named(name: &'static str, over: Over, description: &'static str) -> Name {
    Name { name, description, over }
}

/// Every variable that only the access log has.
pub(crate) const NAMES: &[Name] = &[
    named("request", Over::Request, "request line: method, target as written, protocol"),
    named("status", Over::Status, "status of the answer; 499: the client left before there was one"),
    named("reject_reason", Over::RejectReason, "why the gateway answered by itself"),
    named("cut_reason", Over::CutReason, "why an exchange was cut before its end"),
    named(
        "request_time",
        Over::RequestTime,
        "seconds from the first byte of the request to the last of the answer",
    ),
    named("gateway_time", Over::GatewayTime, "the part of `request_time` before the first try at a node"),
    named(
        "upstream_response_time",
        Over::UpstreamResponseTime,
        "seconds from the first try at a node to the end",
    ),
    named(
        "upstream_header_time",
        Over::UpstreamHeaderTime,
        "seconds from the last try to the head of its answer",
    ),
    named(
        "upstream_connect_time",
        Over::UpstreamConnectTime,
        "seconds to connect to the last node, if no connection was kept open",
    ),
    named("upstream_addr", Over::UpstreamAddr, "address and port of the node of the last try"),
    named("upstream_tries", Over::UpstreamTries, "number of tries"),
    named("bytes_sent", Over::BytesSent, "bytes of the answer, head and body"),
    named("body_bytes_sent", Over::BodyBytesSent, "bytes of the body of the answer, as sent"),
    named("service_version", Over::ServiceVersion, "version of the matched service"),
    named("gateway_group_id", Over::GatewayGroupId, "id of the gateway's group"),
    named("revision", Over::Revision, "revision of the configuration the request ran on"),
    named("instance_id", Over::InstanceId, "id of the gateway instance"),
];

impl Variable {
    /// The variable called `name`; `None`: there is none, or it has no value any more when an exchange is over.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        if let Some(known) = NAMES.iter().find(|known| known.name == name) {
            return Some(Self(Kind::Over(known.over)));
        }
        match Condition::of(name) {
            Condition::Other(_) | Condition::UriParam(_) => None,
            gone if gone.needs_body() => None,
            known => Some(Self(Kind::Known(known))),
        }
    }
}

/// An exchange that is over, with everything that can be written of it.
pub(crate) struct Told<'a> {
    pub(crate) outcome: &'a Outcome<'a>,
    pub(crate) request: &'a RequestHead,
    pub(crate) client: &'a ClientAddress,
    pub(crate) teller: &'a Teller,
    pub(crate) moment: &'a Moment,
}

/// What is written.
pub(crate) enum Shown<'a> {
    Text(Cow<'a, [u8]>),
    Number(u64),
    Seconds(Duration),
}

impl Shown<'_> {
    /// Appends it as text.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        // Writing to memory cannot fail.
        let _ = match self {
            Self::Text(text) => out.write_all(text),
            Self::Number(number) => write!(out, "{number}"),
            Self::Seconds(time) => write!(out, "{}.{:06}", time.as_secs(), time.subsec_micros()),
        };
    }
}

impl<'a> Told<'a> {
    /// The variable called `name`, of those that only the access log has.
    pub(crate) fn named(name: &str) -> Option<Variable> {
        NAMES.iter().find(|known| known.name == name).map(|known| Variable(Kind::Over(known.over)))
    }

    /// A variable that conditions know.
    pub(crate) fn known_as(variable: &Condition) -> Variable {
        Variable(Kind::Known(variable.clone()))
    }

    /// The value of `variable`; `None`: the exchange has none.
    pub(crate) fn value<'t>(
        &'t self,
        variable: &Variable,
        request: &'t RequestVariables<'_>,
    ) -> Option<Shown<'t>> {
        match &variable.0 {
            Kind::Known(known) => self.known(known, request),
            Kind::Over(over) => self.over(*over),
        }
    }

    /// What conditions can read, once the exchange is over.
    pub(crate) fn variables<'t>(&'t self, body: &'t Body) -> RequestVariables<'t> {
        RequestVariables { request: self.request, client: self.client, body }
    }

    fn known<'t>(&'t self, variable: &Condition, request: &'t RequestVariables<'_>) -> Option<Shown<'t>> {
        let outcome = self.outcome;
        Some(match variable {
            Condition::TimeIso8601 => text(self.moment.iso8601.as_bytes()),
            Condition::TimeLocal => text(self.moment.local.as_bytes()),
            Condition::Msec => Shown::Seconds(self.moment.now),
            Condition::Hostname => text(self.teller.hostname.as_bytes()),
            Condition::RequestLength => Shown::Number(outcome.bytes_in),
            Condition::ServiceId => text(outcome.service()?.published.service_id.as_str().as_bytes()),
            Condition::ServiceName => text(outcome.service()?.published.name.as_bytes()),
            Condition::RouteId => text(outcome.route()?.route_id.as_str().as_bytes()),
            Condition::RouteName => text(outcome.route()?.route.name.as_bytes()),
            Condition::BalancerIp => owned(outcome.node?.ip().to_string()),
            Condition::BalancerPort => Shown::Number(outcome.node?.port().into()),
            other => match request.get(other)? {
                Value::Text(text) if text.is_empty() => return None,
                Value::Text(text) => Shown::Text(text),
                Value::Number(number) => owned(number.to_string()),
                Value::Bool(truth) => text(if truth { b"true" } else { b"false" }),
                Value::List(_) | Value::Object => return None,
            },
        })
    }

    fn over(&self, over: Over) -> Option<Shown<'_>> {
        let outcome = self.outcome;
        Some(match over {
            Over::Request => Shown::Text(Cow::Owned(self.request_line()?)),
            Over::Status => Shown::Number(outcome.status.into()),
            Over::RejectReason => text(outcome.reject_reason?.name().as_bytes()),
            Over::CutReason => text(outcome.cut_reason?.name().as_bytes()),
            Over::RequestTime => Shown::Seconds(outcome.total),
            Over::GatewayTime => Shown::Seconds(outcome.gateway()),
            Over::UpstreamResponseTime => Shown::Seconds(outcome.upstream?),
            Over::UpstreamHeaderTime => Shown::Seconds(outcome.answering?),
            Over::UpstreamConnectTime => Shown::Seconds(outcome.connecting?),
            Over::UpstreamAddr => owned(outcome.node?.to_string()),
            Over::UpstreamTries => Shown::Number(outcome.tries.into()),
            Over::BytesSent => Shown::Number(outcome.bytes_out),
            Over::BodyBytesSent => Shown::Number(outcome.bytes_out.saturating_sub(outcome.head_bytes_out)),
            Over::ServiceVersion => text(outcome.service()?.published.version.as_ref()?.as_bytes()),
            Over::GatewayGroupId => text(self.teller.gateway_group_id.as_bytes()),
            Over::Revision => Shown::Number(outcome.live.revision?.0),
            Over::InstanceId => text(self.teller.instance_id.as_bytes()),
        })
    }

    /// `None`: no head was understood.
    fn request_line(&self) -> Option<Vec<u8>> {
        let head = self.request;
        let method = head.bytes(head.method_text);
        let version: &[u8] = match head.version {
            Version::Http10 => b"HTTP/1.0",
            Version::Http11 => b"HTTP/1.1",
            Version::Http2 => b"HTTP/2.0",
        };
        (!method.is_empty()).then(|| [method, b" ", head.bytes(head.target), b" ", version].concat())
    }
}

pub(super) fn text(bytes: &[u8]) -> Shown<'_> {
    Shown::Text(Cow::Borrowed(bytes))
}

pub(super) fn owned<'a>(text: String) -> Shown<'a> {
    Shown::Text(Cow::Owned(text.into_bytes()))
}

/// The time of day, written out once a second.
#[derive(Debug, Default)]
pub(crate) struct Moment {
    now: Duration,
    iso8601: String,
    local: String,
}

impl Moment {
    /// The time, since 1970.
    pub(crate) fn now(&self) -> Duration {
        self.now
    }

    /// The same in the ISO 8601 format.
    pub(super) fn iso8601(&self) -> &str {
        &self.iso8601
    }

    /// The same in the common log format.
    pub(super) fn local(&self) -> &str {
        &self.local
    }

    /// It is now.
    pub(crate) fn advance(&mut self) {
        self.set(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default());
    }

    pub(super) fn set(&mut self, since_epoch: Duration) {
        let stale = self.iso8601.is_empty() || since_epoch.as_secs() != self.now.as_secs();
        self.now = since_epoch;
        if !stale {
            return;
        }
        let seconds = i64::try_from(since_epoch.as_secs()).unwrap_or_default();
        let date = OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH);
        let (year, month, day) = (date.year(), u8::from(date.month()), date.day());
        let (hour, minute, second) = date.to_hms();
        self.iso8601 = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}+00:00");
        let month = &date.month().to_string()[..3];
        self.local = format!("{day:02}/{month}/{year:04}:{hour:02}:{minute:02}:{second:02} +0000");
    }
}
