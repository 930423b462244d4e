//! Answers the gateway gives itself, and why.
//!
//! [`RejectReason`] is a closed list: its names appear in answers, in the access log and in metrics, so that an
//! operator can tell a client's mistake from a backend's from the gateway's own.

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Response, StatusCode};

use super::headers::SERVED_BY;
use crate::http1::Malformed;
use crate::http1::write;

/// What a client may ask with instead of `CONNECT`.
const METHODS: &str = "GET, HEAD, POST, PUT, DELETE, PATCH, OPTIONS, TRACE";

/// Why a request was not answered by its upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RejectReason {
    /// The request could not be understood in exactly one way.
    Malformed(Malformed),
    /// The head did not arrive in time.
    HeadTimeout,
    /// The body stopped arriving.
    BodyTimeout,
    /// The body is larger than a request may be.
    BodyTooLarge,
    /// The client went away; nobody is answered.
    ClientClosed,
    /// The client took nothing of its answer for too long; the rest is not sent.
    ClientStalled,
    /// Too many requests are open on its connection, which speaks HTTP/2.
    StreamsMax,
    /// The request expects something the gateway does not do.
    ExpectationUnsupported,
    /// A WebSocket is asked for in a way that is not defined.
    WebSocketMalformed,
    /// Nobody said anything on a WebSocket for too long.
    WebSocketIdle,
    /// The route of a WebSocket was removed, and the time it may go on without is over.
    RouteGone,
    /// The gateway stops, and cannot wait any longer for the end of a WebSocket.
    Stopping,
    /// The time a gRPC client gave its call is over.
    DeadlineExceeded,
    /// The host demands a client certificate and the client showed none.
    ClientCertificateMissing,
    /// The host demands a client certificate and the client showed another one.
    ClientCertificateRefused,
    /// The host demands another client certificate than the server name the connection was opened for.
    Misdirected,
    /// No route matches.
    RouteNotFound,
    /// There is too little memory to begin with another request.
    Overloaded,
    /// No configuration has arrived yet.
    NotConfigured,
    /// The service needs a plugin this gateway does not have.
    PluginUnknown,
    /// A plugin of the route cannot be built from its configuration.
    PluginUnbuilt,
    /// A plugin answered the request, as it is there to do, with this status.
    PluginAnswered(u16),
    /// The upstream has no nodes.
    NoNodes,
    /// No service registry has said yet which nodes the upstream has.
    NodesUnknown,
    /// The upstream's scheme is not one this gateway speaks.
    SchemeUnsupported,
    /// No TLS with the nodes can be made of what the upstream says.
    UpstreamTlsUnusable,
    /// The upstream's health checks are not ones this gateway can make.
    ChecksUnsupported,
    /// The names of the upstream's nodes do not resolve.
    NameUnresolved,
    /// No node accepted a connection.
    UpstreamConnectFailed,
    /// No TLS session with the node came about, such as because its certificate does not verify.
    UpstreamTlsFailed,
    /// No node accepted a connection in time.
    UpstreamConnectTimeout,
    /// The node stopped reading the request.
    UpstreamSendTimeout,
    /// The node did not answer in time.
    UpstreamReadTimeout,
    /// The node closed the connection without an answer.
    UpstreamClosed,
    /// The node answered with a status that the upstream does not let count, and nobody else could be asked.
    UpstreamStatus,
    /// The node's answer is not one well-formed HTTP/1 response.
    UpstreamMalformed,
    /// The node's answer is longer than a plugin of the route takes.
    UpstreamTooLarge,
}

impl RejectReason {
    /// The status of the answer.
    pub(crate) fn status(self) -> u16 {
        match self {
            Self::Malformed(malformed) => malformed.status(),
            Self::PluginAnswered(status) => status,
            Self::HeadTimeout | Self::BodyTimeout => 408,
            Self::WebSocketMalformed | Self::ClientCertificateMissing | Self::ClientCertificateRefused => 400,
            Self::Misdirected => 421,
            Self::BodyTooLarge => 413,
            Self::Overloaded | Self::StreamsMax => 503,
            // Only ever read in a log: by convention, a client that closed the request.
            Self::ClientClosed | Self::ClientStalled => 499,
            // What is open already is ended without an answer.
            Self::WebSocketIdle | Self::RouteGone | Self::Stopping => 503,
            Self::ExpectationUnsupported => 417,
            Self::RouteNotFound => 404,
            Self::NotConfigured
            | Self::PluginUnknown
            | Self::PluginUnbuilt
            | Self::NoNodes
            | Self::NodesUnknown
            | Self::NameUnresolved => 503,
            Self::SchemeUnsupported | Self::ChecksUnsupported | Self::UpstreamTlsUnusable => 503,
            Self::UpstreamConnectFailed
            | Self::UpstreamTlsFailed
            | Self::UpstreamClosed
            | Self::UpstreamStatus
            | Self::UpstreamMalformed
            | Self::UpstreamTooLarge => 502,
            Self::UpstreamConnectTimeout
            | Self::UpstreamSendTimeout
            | Self::UpstreamReadTimeout
            | Self::DeadlineExceeded => 504,
        }
    }

    /// Whether only another connection can help the client.
    pub(crate) fn is_about_the_connection(self) -> bool {
        matches!(self, Self::ClientCertificateMissing | Self::ClientCertificateRefused | Self::Misdirected)
    }

    /// The name by which logs, metrics and answers know it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Malformed(malformed) => malformed.name(),
            Self::HeadTimeout => "head_timeout",
            Self::BodyTimeout => "body_timeout",
            Self::BodyTooLarge => "body_too_large",
            Self::ClientClosed => "client_closed",
            Self::ClientStalled => "client_stalled",
            Self::StreamsMax => "streams_max",
            Self::ExpectationUnsupported => "expectation_unsupported",
            Self::WebSocketMalformed => "websocket_malformed",
            Self::WebSocketIdle => "websocket_idle",
            Self::RouteGone => "route_gone",
            Self::Stopping => "stopping",
            Self::DeadlineExceeded => "deadline_exceeded",
            Self::ClientCertificateMissing => "client_certificate_missing",
            Self::ClientCertificateRefused => "client_certificate_refused",
            Self::Misdirected => "misdirected",
            Self::RouteNotFound => "route_not_found",
            Self::Overloaded => "overloaded",
            Self::NotConfigured => "not_configured",
            Self::PluginUnknown => "plugin_unknown",
            Self::PluginUnbuilt => "plugin_unbuilt",
            Self::PluginAnswered(_) => "plugin_answered",
            Self::NoNodes => "no_nodes",
            Self::NodesUnknown => "nodes_unknown",
            Self::SchemeUnsupported => "scheme_unsupported",
            Self::UpstreamTlsUnusable => "upstream_tls_unusable",
            Self::ChecksUnsupported => "checks_unsupported",
            Self::NameUnresolved => "name_unresolved",
            Self::UpstreamConnectFailed => "upstream_connect_failed",
            Self::UpstreamTlsFailed => "upstream_tls_failed",
            Self::UpstreamConnectTimeout => "upstream_connect_timeout",
            Self::UpstreamSendTimeout => "upstream_send_timeout",
            Self::UpstreamReadTimeout => "upstream_read_timeout",
            Self::UpstreamClosed => "upstream_closed",
            Self::UpstreamStatus => "upstream_status",
            Self::UpstreamMalformed => "upstream_malformed",
            Self::UpstreamTooLarge => "upstream_too_large",
        }
    }

    /// What a person is told.
    fn explanation(self) -> String {
        match self {
            Self::Malformed(malformed) => malformed.to_string(),
            Self::HeadTimeout => "the request head did not arrive in time".to_owned(),
            Self::BodyTimeout => "the request body stopped arriving, or came too slowly".to_owned(),
            Self::BodyTooLarge => "the request body is larger than this gateway accepts".to_owned(),
            Self::ClientClosed => "the client closed the connection".to_owned(),
            Self::ClientStalled => "the client took nothing of its answer".to_owned(),
            Self::StreamsMax => "too many requests are open on the connection".to_owned(),
            Self::ExpectationUnsupported => "only `Expect: 100-continue` is supported".to_owned(),
            Self::WebSocketMalformed => {
                "a WebSocket needs `Sec-WebSocket-Version: 13` and one `Sec-WebSocket-Key`".to_owned()
            }
            Self::WebSocketIdle => "nobody said anything on the WebSocket".to_owned(),
            Self::RouteGone => "the route was removed".to_owned(),
            Self::Stopping => "the gateway stops".to_owned(),
            Self::DeadlineExceeded => "the deadline of the call is over".to_owned(),
            Self::ClientCertificateMissing => "no required client certificate was sent".to_owned(),
            Self::ClientCertificateRefused => "the client certificate is not accepted".to_owned(),
            Self::Misdirected => {
                "the connection was opened for a host with other client certificates".to_owned()
            }
            Self::RouteNotFound => "no route matches".to_owned(),
            Self::Overloaded => "the gateway is short of memory; try again later".to_owned(),
            Self::NotConfigured => "the gateway has no configuration yet".to_owned(),
            Self::PluginUnknown => "the route needs a plugin this gateway does not have".to_owned(),
            Self::PluginUnbuilt => "a plugin of the route cannot be built".to_owned(),
            Self::PluginAnswered(_) => "a plugin answered the request".to_owned(),
            Self::NoNodes => "the upstream has no nodes".to_owned(),
            Self::NodesUnknown => "no service registry has named the nodes of the upstream yet".to_owned(),
            Self::SchemeUnsupported => "the upstream's scheme is not supported".to_owned(),
            Self::UpstreamTlsUnusable => "TLS with the upstream is not set up in a usable way".to_owned(),
            Self::ChecksUnsupported => "the upstream's health checks are not supported".to_owned(),
            Self::NameUnresolved => "the names of the upstream's nodes do not resolve".to_owned(),
            Self::UpstreamConnectFailed => "no upstream node accepted a connection".to_owned(),
            Self::UpstreamTlsFailed => "no TLS session with an upstream node came about".to_owned(),
            Self::UpstreamConnectTimeout => "no upstream node accepted a connection in time".to_owned(),
            Self::UpstreamSendTimeout => "the upstream did not take the request in time".to_owned(),
            Self::UpstreamReadTimeout => "the upstream did not answer in time".to_owned(),
            Self::UpstreamClosed => "the upstream closed the connection without an answer".to_owned(),
            Self::UpstreamStatus => "the upstream failed, and nobody else could be asked".to_owned(),
            Self::UpstreamMalformed => "the upstream's answer is not valid HTTP".to_owned(),
            Self::UpstreamTooLarge => {
                "the upstream's answer is longer than a plugin of the route takes".to_owned()
            }
        }
    }

    /// The whole answer for a client that speaks HTTP/2: its head and its body.
    pub(crate) fn answer(self) -> (Response<()>, Bytes) {
        let body = Bytes::from(self.body());
        let mut head = Response::new(());
        *head.status_mut() = StatusCode::from_u16(self.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = head.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(CONTENT_LENGTH, body.len().into());
        if self.status() == 405 {
            headers.insert(ALLOW, HeaderValue::from_static(METHODS));
        }
        (head, body)
    }

    /// The answer for a gRPC client, which looks for its status nowhere but here: a head that ends the stream.
    pub(crate) fn grpc_answer(self) -> Response<()> {
        let mut head = Response::new(());
        *head.headers_mut() = self.grpc_status();
        head.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        head
    }

    /// What ends a call: its status, and why.
    pub(crate) fn grpc_status(self) -> HeaderMap {
        // As gRPC maps HTTP statuses to its own, so that a client sees the same through any gateway.
        let status = match self.status() {
            400 | 431 => "13",
            401 => "16",
            403 => "7",
            404 => "12",
            408 => "1",
            429 | 502 | 503 => "14",
            504 => "4",
            _ => "2",
        };
        let mut fields = HeaderMap::new();
        fields.insert("grpc-status", HeaderValue::from_static(status));
        if let Ok(message) = HeaderValue::from_str(&self.explanation().replace('%', "%25")) {
            fields.insert("grpc-message", message);
        }
        fields
    }

    /// Writes the whole answer.
    pub(crate) fn write(
        self,
        (close, head_only): (bool, bool),
        served_by: Option<String>,
        out: &mut Vec<u8>,
    ) {
        let body = self.body();
        let status = self.status();
        out.extend_from_slice(b"HTTP/1.1 ");
        write::status_digits(status, out);
        out.push(b' ');
        out.extend_from_slice(write::reason_phrase(status).as_bytes());
        out.extend_from_slice(b"\r\n");
        write::field(b"Content-Type", b"application/json", out);
        write::field(b"Content-Length", body.len().to_string().as_bytes(), out);
        if status == 405 {
            write::field(b"Allow", METHODS.as_bytes(), out);
        }
        if let Some(said) = served_by {
            write::field(SERVED_BY.as_bytes(), said.as_bytes(), out);
        }
        if close {
            write::field(b"Connection", b"close", out);
        }
        write::end(out);
        if !head_only {
            out.extend_from_slice(body.as_bytes());
        }
    }

    fn body(self) -> String {
        // The documented answer, letter by letter, because clients and tests compare it.
        if self == Self::RouteNotFound {
            return "{\"error_msg\":\"404 Route Not Found\"}\n".to_owned();
        }
        let status = self.status();
        let message = format!("{status} {}: {}", write::reason_phrase(status), self.explanation());
        format!("{}\n", serde_json::json!({ "error_msg": message, "reason": self.name() }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(reason: RejectReason, close: bool, head_only: bool) -> String {
        let mut out = Vec::new();
        reason.write((close, head_only), None, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_answer_without_a_route_is_the_documented_one() {
        assert_eq!(
            answer(RejectReason::RouteNotFound, false, false),
            "HTTP/1.1 404 Not Found\r\nContent-Type: application/json\r\nContent-Length: 36\r\n\r\n{\"error_msg\":\"404 Route Not Found\"}\n"
        );
    }

    #[test]
    fn the_reference_lists_every_reason() {
        let names_in = |source: &'static str| {
            let function = source.split("fn name(self)").nth(1).expect("the names");
            let body = function.split("\n    }\n").next().expect("its end");
            body.lines().filter_map(|line| line.split('"').nth(1)).collect::<Vec<_>>()
        };
        let names = [names_in(include_str!("reject.rs")), names_in(include_str!("../http1/mod.rs"))].concat();
        assert!(names.contains(&"malformed") && names.contains(&"upstream_closed"), "{names:?}");
        let reference = include_str!("../../../../docs/reference/reject-reasons.md");
        for name in &names {
            assert!(reference.contains(&format!("\n| `{name}` | ")), "{name}");
        }
        let rows = reference.lines().filter(|line| line.starts_with("| `")).count();
        assert_eq!(rows, names.len(), "the reference lists something that there is not");
    }

    #[test]
    fn other_answers_name_the_reason() {
        let text = answer(RejectReason::NoNodes, true, false);
        assert!(text.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{text}");
        assert!(text.contains("Connection: close\r\n"));
        assert!(text.ends_with("\r\n\r\n{\"error_msg\":\"503 Service Unavailable: the upstream has no nodes\",\"reason\":\"no_nodes\"}\n"), "{text}");
        assert!(answer(RejectReason::NoNodes, true, true).ends_with("\r\n\r\n"));
    }
}
