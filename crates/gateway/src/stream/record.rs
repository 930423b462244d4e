//! What is known of one stream: where it came from, filled in as it goes, and read once when it is over.

use std::borrow::Cow;
use std::cell::Cell;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use gatewright_model::expression::{Value, Variable, Variables};
use gatewright_model::stream::claim::Carrier;

use super::found::Found;
use crate::proxy::reject::RejectReason;
use crate::telemetry::metrics::streams::StreamEnd;
use crate::telemetry::record::CLIENT_CLOSED;

/// Where a stream comes from and where it arrived.
#[derive(Clone, Copy)]
pub(crate) struct Ends {
    pub(crate) client: SocketAddr,
    pub(crate) server: SocketAddr,
}

/// A stream as it came; this is what consistent hashing can read of it.
#[derive(Clone, Copy)]
pub(crate) struct Arrived<'a> {
    pub(crate) carrier: Carrier,
    pub(crate) ends: Ends,
    /// What its TLS handshake asks for.
    pub(crate) server_name: Option<&'a str>,
}

impl Variables for Arrived<'_> {
    fn get<'a>(&'a self, variable: &Variable) -> Option<Value<'a>> {
        let Ends { client, server } = self.ends;
        let text = match variable {
            Variable::RemoteAddr => client.ip().to_canonical().to_string(),
            Variable::RemotePort => client.port().to_string(),
            Variable::ServerAddr => server.ip().to_canonical().to_string(),
            Variable::ServerPort => server.port().to_string(),
            Variable::SslServerName => self.server_name?.to_owned(),
            Variable::Other(name) if &**name == "server_name" => self.server_name?.to_owned(),
            _ => return None,
        };
        Some(Value::Text(Cow::Owned(text.into_bytes())))
    }
}

/// What is known of one stream so far.
pub(crate) struct Record<'s> {
    pub(crate) arrived: Arrived<'s>,
    /// The stream route that serves it; none: no one does.
    pub(crate) found: Option<&'s Found>,
    begun: Instant,
    reject_reason: Cell<Option<RejectReason>>,
    tries: Cell<u32>,
    first_tried: Cell<Option<Instant>>,
    last_tried: Cell<Option<Instant>>,
    node: Cell<Option<SocketAddr>>,
    connecting: Cell<Option<Duration>>,
}

impl<'s> Record<'s> {
    /// Of a stream that begins.
    pub(crate) fn new(arrived: Arrived<'s>, found: Option<&'s Found>) -> Self {
        Self {
            arrived,
            found,
            begun: Instant::now(),
            reject_reason: Cell::new(None),
            tries: Cell::new(0),
            first_tried: Cell::new(None),
            last_tried: Cell::new(None),
            node: Cell::new(None),
            connecting: Cell::new(None),
        }
    }

    /// The gateway ends it for this reason.
    pub(crate) fn rejected(&self, reason: RejectReason) {
        self.reject_reason.set(Some(reason));
    }

    /// A try at a node begins.
    pub(crate) fn tried(&self) {
        let now = Some(Instant::now());
        self.tries.set(self.tries.get() + 1);
        self.first_tried.set(self.first_tried.get().or(now));
        self.last_tried.set(now);
        self.node.set(None);
    }

    /// The address this try goes to.
    pub(crate) fn node(&self, address: SocketAddr) {
        self.node.set(Some(address));
    }

    /// There is a connection to the node.
    pub(crate) fn connected(&self) {
        self.connecting.set(self.last_tried.get().map(|tried| tried.elapsed()));
    }

    /// How it ended, after so many bytes from the client and to it.
    pub(crate) fn over(&self, end: StreamEnd, bytes_in: u64, bytes_out: u64) -> Over {
        let reject_reason = self.reject_reason.get();
        Over {
            end,
            status: status(end, reject_reason),
            reject_reason,
            bytes_in,
            bytes_out,
            total: self.begun.elapsed(),
            upstream: self.first_tried.get().map(|tried| tried.elapsed()),
            tries: self.tries.get(),
            node: self.node.get(),
            connecting: self.connecting.get(),
        }
    }
}

/// How a stream ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Over {
    pub(crate) end: StreamEnd,
    pub(crate) status: u16,
    /// Why the gateway let nobody in, or reached nobody.
    pub(crate) reject_reason: Option<RejectReason>,
    /// Bytes from the client.
    pub(crate) bytes_in: u64,
    /// Bytes to it.
    pub(crate) bytes_out: u64,
    pub(crate) total: Duration,
    /// From the first try at a node to the end; absent if there was none.
    pub(crate) upstream: Option<Duration>,
    pub(crate) tries: u32,
    /// Where the last try went.
    pub(crate) node: Option<SocketAddr>,
    pub(crate) connecting: Option<Duration>,
}

/// The status that stands for an end, in the numbers that people know from requests.
fn status(end: StreamEnd, reject_reason: Option<RejectReason>) -> u16 {
    match (reject_reason, end) {
        (Some(reason), _) => reason.status(),
        (None, StreamEnd::Done | StreamEnd::Idle | StreamEnd::RouteGone | StreamEnd::Stopping) => 200,
        (None, StreamEnd::ClientBroken) => CLIENT_CLOSED,
        (None, StreamEnd::NodeBroken | StreamEnd::Unreachable) => 502,
        // No TLS came about, such as for want of a certificate.
        (None, StreamEnd::Refused) => 400,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_has_the_status_that_a_request_would_have_got() {
        for (end, reason, expected) in [
            (StreamEnd::Done, None, 200),
            (StreamEnd::Idle, None, 200),
            (StreamEnd::ClientBroken, None, 499),
            (StreamEnd::NodeBroken, None, 502),
            (StreamEnd::Refused, None, 400),
            (StreamEnd::Refused, Some(RejectReason::RouteNotFound), 404),
            (StreamEnd::Refused, Some(RejectReason::PluginAnswered(403)), 403),
            (StreamEnd::Refused, Some(RejectReason::PluginUnbuilt), 503),
            (StreamEnd::Unreachable, Some(RejectReason::NoNodes), 503),
            (StreamEnd::Unreachable, Some(RejectReason::UpstreamConnectTimeout), 504),
        ] {
            assert_eq!(status(end, reason), expected, "{end:?} {reason:?}");
        }
    }

    #[test]
    fn of_several_tries_the_last_one_is_told() {
        let ends =
            Ends { client: "10.0.0.9:5000".parse().unwrap(), server: "10.0.0.1:9000".parse().unwrap() };
        let record = Record::new(Arrived { carrier: Carrier::Tcp, ends, server_name: None }, None);
        record.tried();
        record.node("10.1.0.1:1".parse().unwrap());
        record.tried();
        record.node("10.1.0.2:2".parse().unwrap());
        record.connected();
        let over = record.over(StreamEnd::Done, 3, 4);
        assert_eq!((over.tries, over.bytes_in, over.bytes_out), (2, 3, 4));
        assert_eq!(over.node, Some("10.1.0.2:2".parse().unwrap()));
        assert!(over.connecting <= over.upstream && over.upstream <= Some(over.total));
    }
}
