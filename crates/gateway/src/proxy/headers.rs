//! What changes in a head on its way through: hop-by-hop fields go, forwarding fields come
//! (RFC 9110 section 7.6.1).
//!
//! A field that the client nominates in `Connection` is dropped, but a client cannot nominate away what frames or
//! routes the message, nor what the gateway itself adds: those are written after the client's fields are settled.

use std::net::{IpAddr, SocketAddr};

use gatewright_model::message::{Fields, Known, RequestHead, Version};
use gatewright_plugins::exchange as plugin;
use http::HeaderMap;

use crate::http1::write;
use crate::http2;
use crate::tls::handshake::Session;

/// What `Connection` asked for, besides naming fields to drop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ConnectionOptions {
    pub(crate) close: bool,
    pub(crate) keep_alive: bool,
}

impl ConnectionOptions {
    /// Whether the connection lives on after this message (RFC 9112 section 9.3).
    pub(crate) fn persists(self, version: Version) -> bool {
        !self.close && (version >= Version::Http11 || self.keep_alive)
    }
}

/// Removes what concerns only this connection, and says what it asked for.
pub(crate) fn remove_hop_by_hop(fields: &mut Fields) -> ConnectionOptions {
    let mut options = ConnectionOptions::default();
    let mut nominated: Vec<Vec<u8>> = Vec::new();
    for value in fields.known(Known::Connection) {
        for token in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
            if token.eq_ignore_ascii_case(b"close") {
                options.close = true;
            } else if token.eq_ignore_ascii_case(b"keep-alive") {
                options.keep_alive = true;
            } else if !token.is_empty() {
                nominated.push(token.to_vec());
            }
        }
    }
    for name in &nominated {
        if !matches!(Known::of(name), Known::Host | Known::ContentLength | Known::TransferEncoding) {
            fields.remove(name);
        }
    }
    fields.remove_if(|field, _| {
        matches!(
            field.known,
            Known::Connection
                | Known::KeepAlive
                | Known::ProxyConnection
                | Known::ProxyAuthenticate
                | Known::ProxyAuthorization
                | Known::Te
                | Known::Trailer
                | Known::TransferEncoding
                | Known::Upgrade
        )
    });
    options
}

/// The field that tells callers who show a debug token what served them.
pub(crate) const SERVED_BY: &str = "Gatewright-Served-By";

/// Removes what a client must not claim, and what is meant for the gateway alone: what only the gateway says of a caller, unless the client is trusted, and
/// twins of whatever the gateway acts on. To be called before anything reads the fields.
pub(crate) fn remove_claims(fields: &mut Fields, is_trusted: bool) {
    fields.remove_if(|field, name| match field.known {
        Known::Other => is_twin(name),
        // A secret of whoever runs this gateway, or of another one.
        Known::GatewrightDebug => true,
        Known::XConsumerUsername | Known::XConsumerCustomId | Known::XCredentialIdentifier => !is_trusted,
        _ => false,
    });
}

/// Whether the sender of a request reads trailers (RFC 9110 section 10.1.4). To be asked before hop-by-hop fields are
/// removed.
pub(crate) fn reads_trailers(fields: &Fields) -> bool {
    let mut codings = fields.known(Known::Te).flat_map(|value| value.split(|byte| *byte == b','));
    codings.any(|coding| coding.trim_ascii().eq_ignore_ascii_case(b"trailers"))
}

/// The trailers without those that would frame, route, authenticate or otherwise decide about a message that was
/// already acted upon (RFC 9110 section 6.5.1); `None`: none is left.
pub(crate) fn passable_trailers(mut trailers: Fields) -> Option<Fields> {
    trailers.remove_if(|field, name| {
        let name = name.to_ascii_lowercase();
        field.known != Known::Other && !matches!(field.known, Known::Date | Known::Server)
            || TRAILERS_FORBIDDEN.contains(&name.as_slice())
            || name.starts_with(b"if-")
            || name.starts_with(b"x-forwarded-")
    });
    if trailers.iter().next().is_some() { Some(trailers) } else { None }
}

/// Fields that mean something only at the head of a message, beside those the gateway itself acts on.
const TRAILERS_FORBIDDEN: &[&[u8]] = &[
    b"age",
    b"authorization",
    b"cache-control",
    b"content-encoding",
    b"content-range",
    b"content-type",
    b"cookie",
    b"location",
    b"max-forwards",
    b"pragma",
    b"range",
    b"retry-after",
    b"set-cookie",
    b"vary",
    b"www-authenticate",
];

/// What the gateway knows of a client connection, as text, worked out once.
pub(crate) struct ClientAddress {
    pub(crate) peer: SocketAddr,
    pub(crate) local: SocketAddr,
    /// The client's address.
    pub(super) address: String,
    /// The port the client connected to.
    pub(super) port: String,
    /// What is known of the TLS session; absent: there is none.
    pub(crate) session: Option<Box<Session>>,
    /// Whether it is believed where its requests come from.
    pub(crate) is_trusted: bool,
}

impl ClientAddress {
    pub(crate) fn new(peer: SocketAddr, local: SocketAddr, session: Option<Box<Session>>) -> Self {
        // An IPv4 client of an IPv6 listener is known to everybody else by its IPv4 address.
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        let address: IpAddr = peer.ip();
        Self {
            peer,
            local,
            address: address.to_string(),
            port: local.port().to_string(),
            session,
            is_trusted: false,
        }
    }

    /// What plugins are told of it.
    pub(super) fn told(&self) -> plugin::Client {
        plugin::Client { peer: self.peer, local: self.local, tls: self.session.is_some() }
    }

    /// The same of somebody who is believed where requests come from, or not.
    pub(crate) fn believed(self, is_trusted: bool) -> Self {
        Self { is_trusted, ..self }
    }

    /// `https` over TLS, otherwise `http`.
    pub(crate) fn scheme(&self) -> &'static [u8] {
        if self.session.is_some() { b"https" } else { b"http" }
    }
}

/// Writes the fields of a request as the upstream gets them: `Host` first, then the rest.
pub(crate) fn write_upstream_fields(
    head: &RequestHead,
    host: &[u8],
    client: &ClientAddress,
    out: &mut Vec<u8>,
) {
    write::field(b"Host", host, out);
    upstream_fields(head, client, |name, value| write::field(name, value, out));
}

/// The fields of a request as a node that speaks HTTP/2 gets them.
pub(crate) fn upstream_map(head: &RequestHead, client: &ClientAddress) -> HeaderMap {
    let mut map = HeaderMap::with_capacity(16);
    upstream_fields(head, client, |name, value| http2::append_to(&mut map, name, value));
    map
}

/// Names the fields that the upstream gets beside `Host`: the client's, then the gateway's own.
fn upstream_fields(head: &RequestHead, client: &ClientAddress, mut put: impl FnMut(&[u8], &[u8])) {
    let fields = &head.fields;
    let believed = |known| client.is_trusted && is_about_origin(known);
    for field in fields.iter().filter(|field| !is_set_by_gateway(field.known) || believed(field.known)) {
        put(fields.bytes(field.name), fields.bytes(field.value));
    }
    put(b"X-Real-IP", client.address.as_bytes());
    if fields.known(Known::XForwardedFor).next().is_some() {
        let mut way = Vec::new();
        for earlier in fields.known(Known::XForwardedFor) {
            way.extend_from_slice(earlier);
            way.extend_from_slice(b", ");
        }
        way.extend_from_slice(client.address.as_bytes());
        put(b"X-Forwarded-For", &way);
    } else {
        put(b"X-Forwarded-For", client.address.as_bytes());
    }
    for (known, name, value) in [
        (Known::XForwardedProto, &b"X-Forwarded-Proto"[..], client.scheme()),
        (Known::XForwardedHost, b"X-Forwarded-Host", head.bytes(head.authority)),
        (Known::XForwardedPort, b"X-Forwarded-Port", client.port.as_bytes()),
    ] {
        if !client.is_trusted || fields.known(known).next().is_none() {
            put(name, value);
        }
    }
}

/// Whether some readers take `name` for one that the gateway acts on: where names become variables, `-` and `_` are
/// the same.
fn is_twin(name: &[u8]) -> bool {
    memchr::memchr(b'_', name).is_some() && {
        let dashed: Vec<u8> = name.iter().map(|byte| if *byte == b'_' { b'-' } else { *byte }).collect();
        Known::of(&dashed) != Known::Other
    }
}

/// Whether a proxy in front may know it better than the connection shows.
fn is_about_origin(known: Known) -> bool {
    matches!(known, Known::XForwardedProto | Known::XForwardedHost | Known::XForwardedPort | Known::Forwarded)
}

/// Writes what makes a message the start of a WebSocket.
pub(crate) fn write_upgrade(out: &mut Vec<u8>) {
    write::field(b"Connection", b"upgrade", out);
    write::field(b"Upgrade", b"websocket", out);
}

/// Writes that trailers are read, which concerns only this connection (RFC 9110 section 10.1.4).
pub(crate) fn write_reads_trailers(out: &mut Vec<u8>) {
    write::field(b"TE", b"trailers", out);
    write::field(b"Connection", b"TE", out);
}

/// Whether the upstream learns this from the gateway and never from the client.
fn is_set_by_gateway(known: Known) -> bool {
    matches!(
        known,
        Known::Host
            | Known::Expect
            | Known::XRealIp
            | Known::XForwardedFor
            | Known::XForwardedProto
            | Known::XForwardedHost
            | Known::XForwardedPort
            | Known::Forwarded
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(lines: &[(&str, &str)]) -> Fields {
        let mut fields = Fields::default();
        for (name, value) in lines {
            fields.append(name, value.as_bytes());
        }
        fields
    }

    fn names(fields: &Fields) -> Vec<String> {
        fields.iter().map(|field| String::from_utf8_lossy(fields.bytes(field.name)).into_owned()).collect()
    }

    #[test]
    fn hop_by_hop_fields_and_nominated_ones_go() {
        let mut some = fields(&[
            ("Connection", "keep-alive, X-Private"),
            ("Keep-Alive", "timeout=5"),
            ("X-Private", "1"),
            ("TE", "trailers"),
            ("Upgrade", "h2c"),
            ("Proxy-Connection", "close"),
            ("Accept", "*/*"),
        ]);
        let options = remove_hop_by_hop(&mut some);
        assert_eq!(options, ConnectionOptions { close: false, keep_alive: true });
        assert_eq!(names(&some), ["Accept"]);
    }

    #[test]
    fn what_frames_a_message_cannot_be_nominated_away() {
        let mut some =
            fields(&[("Connection", "close, Content-Length, Host"), ("Content-Length", "5"), ("Host", "a")]);
        assert!(remove_hop_by_hop(&mut some).close);
        assert_eq!(names(&some), ["Content-Length", "Host"]);
    }

    #[test]
    fn trailers_that_would_change_a_message_are_dropped() {
        let some = fields(&[
            ("grpc-status", "0"),
            ("Transfer-Encoding", "chunked"),
            ("Content-Length", "5"),
            ("Host", "inside"),
            ("Authorization", "Basic x"),
            ("If-Match", "*"),
            ("X-Forwarded-For", "1.1.1.1"),
            ("Connection", "close"),
            ("Server-Timing", "db;dur=5"),
        ]);
        assert_eq!(names(&passable_trailers(some).unwrap()), ["grpc-status", "Server-Timing"]);
        assert!(passable_trailers(fields(&[("Host", "inside")])).is_none());
    }

    #[test]
    fn a_connection_lives_on_as_its_version_and_options_say() {
        let (close, keep) = (
            ConnectionOptions { close: true, keep_alive: true },
            ConnectionOptions { close: false, keep_alive: true },
        );
        assert!(ConnectionOptions::default().persists(Version::Http11));
        assert!(!ConnectionOptions::default().persists(Version::Http10));
        assert!(keep.persists(Version::Http10));
        assert!(!close.persists(Version::Http11));
    }

    #[test]
    fn the_upstream_learns_who_asked_from_the_gateway_alone() {
        let mut head = RequestHead {
            fields: fields(&[
                ("Host", "client.example"),
                ("X-Forwarded-For", "1.1.1.1"),
                ("x-real-ip", "6.6.6.6"),
                ("X-Forwarded-Proto", "gopher"),
                ("Accept", "*/*"),
            ]),
            ..RequestHead::default()
        };
        head.authority = head.fields.intern(b"client.example");
        let client = ClientAddress::new(
            "[::ffff:10.0.0.9]:5000".parse().unwrap(),
            "10.0.0.1:9080".parse().unwrap(),
            None,
        );
        let mut out = Vec::new();
        write_upstream_fields(&head, b"backend", &client, &mut out);
        let expected = "Host: backend\r\nAccept: */*\r\nX-Real-IP: 10.0.0.9\r\nX-Forwarded-For: 1.1.1.1, 10.0.0.9\r\n\
                        X-Forwarded-Proto: http\r\nX-Forwarded-Host: client.example\r\nX-Forwarded-Port: 9080\r\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn a_trusted_proxy_is_believed_where_requests_come_from() {
        let lines = [
            ("X-Forwarded-For", "1.1.1.1"),
            ("X-Real-IP", "6.6.6.6"),
            ("X-Forwarded-Proto", "https"),
            ("Forwarded", "for=1.1.1.1"),
        ];
        let mut head = RequestHead { fields: fields(&lines), ..RequestHead::default() };
        head.authority = head.fields.intern(b"client.example");
        let client =
            ClientAddress::new("10.0.0.9:5000".parse().unwrap(), "10.0.0.1:9080".parse().unwrap(), None);
        let mut out = Vec::new();
        write_upstream_fields(&head, b"b", &ClientAddress { is_trusted: true, ..client }, &mut out);
        let expected = "Host: b\r\nX-Forwarded-Proto: https\r\nForwarded: for=1.1.1.1\r\nX-Real-IP: 10.0.0.9\r\n\
                        X-Forwarded-For: 1.1.1.1, 10.0.0.9\r\nX-Forwarded-Host: client.example\r\n\
                        X-Forwarded-Port: 9080\r\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
