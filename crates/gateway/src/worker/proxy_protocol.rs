//! The PROXY protocol, versions 1 and 2: what a load balancer says of a client before the client's first byte.
//!
//! [`parse`] is a function over bytes. It never asks for a byte that might not belong to the header, so that nothing
//! of what follows is taken. A header is believed word for word or not at all: whoever reads it differently than it
//! was written would see another client.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use gatewright_model::resource::stream_route::ProxyProtocol as Version;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

/// What a header of version 2 begins with.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// Bytes before the addresses of version 2.
const FIXED_BYTES: usize = 16;

/// Bytes after them we accept: addresses, and remarks (TLV) that a balancer may add and we skip.
const REST_BYTES_MAX: usize = 2048;

/// Bytes of a line of version 1, its end included (section 2.1 of the specification).
const LINE_BYTES_MAX: usize = 107;

/// What the bytes so far are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Header {
    /// The beginning of a header, to which at least so many more bytes belong.
    Unfinished { bytes: usize },
    /// A whole one.
    Whole(Origin),
    /// None, or not one we understand.
    Malformed,
}

/// Where a connection comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The balancer itself, such as its health check, or somebody it cannot name: what the socket says holds.
    Socket,
    /// A client, and the address it connected to.
    Client { peer: SocketAddr, local: SocketAddr },
}

/// Reads a header from what was received of it.
pub(crate) fn parse(received: &[u8]) -> Header {
    let head = received.len().min(SIGNATURE.len());
    if received[..head] == SIGNATURE[..head] {
        return version_2(received);
    }
    let head = received.len().min(b"PROXY ".len());
    if received[..head] == b"PROXY "[..head] { version_1(received) } else { Header::Malformed }
}

fn version_1(received: &[u8]) -> Header {
    if let Some(line) = received.strip_suffix(b"\r\n") {
        let words = std::str::from_utf8(line).ok().filter(|line| !line.contains(['\r', '\n']));
        return words.and_then(words_of_version_1).map_or(Header::Malformed, Header::Whole);
    }
    let begun_end = received.strip_suffix(b"\r");
    if begun_end.unwrap_or(received).iter().any(|byte| b"\r\n".contains(byte)) {
        return Header::Malformed;
    }
    let bytes = match received.len() {
        // Every header is longer than a signature, so this reads neither version too far.
        short if short < SIGNATURE.len() => SIGNATURE.len() - short,
        _ if begun_end.is_some() => 1,
        _ => 2,
    };
    if received.len() + bytes > LINE_BYTES_MAX { Header::Malformed } else { Header::Unfinished { bytes } }
}

fn words_of_version_1(line: &str) -> Option<Origin> {
    let mut words = line.strip_prefix("PROXY ")?.split(' ');
    let is_v4 = match words.next()? {
        "TCP4" => true,
        "TCP6" => false,
        // Whatever follows is to be ignored.
        "UNKNOWN" => return Some(Origin::Socket),
        _ => return None,
    };
    let [source, target, source_port, target_port] =
        [words.next()?, words.next()?, words.next()?, words.next()?];
    let address = |text: &str| -> Option<IpAddr> {
        if is_v4 { text.parse().ok().map(IpAddr::V4) } else { text.parse().ok().map(IpAddr::V6) }
    };
    // Digits only, without leading zeros: `+80` and `080` are numbers to some readers only.
    let port = |text: &str| text.parse::<u16>().ok().filter(|port| port.to_string() == text);
    let peer = SocketAddr::new(address(source)?, port(source_port)?);
    let local = SocketAddr::new(address(target)?, port(target_port)?);
    words.next().is_none().then_some(Origin::Client { peer, local })
}

fn version_2(received: &[u8]) -> Header {
    let Some((fixed, rest)) = received.split_at_checked(FIXED_BYTES) else {
        // A line of version 1 may be shorter than this header.
        let known = if received.len() < SIGNATURE.len() { SIGNATURE.len() } else { FIXED_BYTES };
        return Header::Unfinished { bytes: known - received.len() };
    };
    let length = usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    if length > REST_BYTES_MAX {
        return Header::Malformed;
    }
    // Wrong words need no more bytes to be wrong.
    let (command, family) = (fixed[12], fixed[13]);
    let addresses = match (command, family) {
        // Addresses that are not named, of a family without ports, or of the balancer's own connection.
        (0x20, _) | (0x21, 0x00 | 0x31) => 0,
        (0x21, 0x11) => 12,
        (0x21, 0x21) => 36,
        _ => return Header::Malformed,
    };
    if length < addresses {
        return Header::Malformed;
    }
    match rest.len() {
        short if short < length => Header::Unfinished { bytes: length - short },
        whole if whole == length => Header::Whole(addresses_of_version_2(&rest[..addresses])),
        _ => Header::Malformed,
    }
}

/// Source, target, source port, target port, in the order of the network.
fn addresses_of_version_2(addresses: &[u8]) -> Origin {
    let port = |high: u8, low: u8| u16::from_be_bytes([high, low]);
    match addresses {
        [a, b, c, d, e, f, g, h, ports @ ..] if ports.len() == 4 => Origin::Client {
            peer: (Ipv4Addr::new(*a, *b, *c, *d), port(ports[0], ports[1])).into(),
            local: (Ipv4Addr::new(*e, *f, *g, *h), port(ports[2], ports[3])).into(),
        },
        _ => match (
            addresses.first_chunk::<16>(),
            addresses.get(16..).and_then(<[u8]>::first_chunk::<16>),
            addresses.get(32..),
        ) {
            (Some(source), Some(target), Some([a, b, c, d])) => Origin::Client {
                peer: (Ipv6Addr::from(*source), port(*a, *b)).into(),
                local: (Ipv6Addr::from(*target), port(*c, *d)).into(),
            },
            _ => Origin::Socket,
        },
    }
}

/// The header that says where a client is and what it connected to.
pub(crate) fn header(version: Version, client: SocketAddr, server: SocketAddr) -> Vec<u8> {
    let (client_ip, server_ip) = match (client.ip().to_canonical(), server.ip().to_canonical()) {
        (IpAddr::V4(client), IpAddr::V4(server)) => (IpAddr::V4(client), IpAddr::V4(server)),
        // Both addresses are of one family, so the other one is written as one of IPv6.
        (client, server) => (IpAddr::V6(as_v6(client)), IpAddr::V6(as_v6(server))),
    };
    let (client_port, server_port) = (client.port(), server.port());
    if version == Version::V1 {
        let family = if client_ip.is_ipv4() { "TCP4" } else { "TCP6" };
        return format!("PROXY {family} {client_ip} {server_ip} {client_port} {server_port}\r\n")
            .into_bytes();
    }
    let mut header = SIGNATURE.to_vec();
    let (family, length) = if client_ip.is_ipv4() { (0x11, 12) } else { (0x21, 36) };
    header.extend([0x21, family, 0, length]);
    for ip in [client_ip, server_ip] {
        match ip {
            IpAddr::V4(ip) => header.extend(ip.octets()),
            IpAddr::V6(ip) => header.extend(ip.octets()),
        }
    }
    header.extend(client_port.to_be_bytes());
    header.extend(server_port.to_be_bytes());
    header
}

fn as_v6(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    }
}

/// Reads the header from a fresh connection, and nothing more.
///
/// # Errors
/// When there is none; the connection is of no use then.
pub(crate) async fn read(stream: &mut TcpStream) -> io::Result<Origin> {
    let mut received = Vec::with_capacity(LINE_BYTES_MAX);
    loop {
        match parse(&received) {
            Header::Whole(origin) => return Ok(origin),
            Header::Malformed => return Err(io::Error::other("no PROXY protocol header")),
            Header::Unfinished { bytes } => {
                let start = received.len();
                received.resize(start + bytes, 0);
                stream.read_exact(&mut received[start..]).await?;
            }
        }
    }
}

/// What must hold for every sequence of bytes: a header is read to its end and not further however it arrives, its
/// length is bounded, and what follows it does not change it.
#[cfg(any(test, fuzzing))]
#[allow(clippy::panic, reason = "a check that fails says where")]
pub(crate) fn check(received: &[u8]) {
    let mut end = 0;
    while let Header::Unfinished { bytes } = parse(&received[..end]) {
        assert!(bytes > 0, "a header that waits for nothing");
        end += bytes;
        assert!(end <= FIXED_BYTES + REST_BYTES_MAX, "a header without end");
        if end > received.len() {
            return;
        }
    }
    let header = parse(&received[..end]);
    for cut in 0..end {
        match parse(&received[..cut]) {
            // What is refused is closed, however much of it was read.
            Header::Unfinished { bytes } => {
                assert!(header == Header::Malformed || cut + bytes <= end, "read too far after {cut} bytes");
            }
            // Only what is malformed as a whole may be found out early.
            Header::Malformed => assert_eq!(header, Header::Malformed, "refused after {cut} bytes"),
            Header::Whole(_) => panic!("whole after {cut} bytes and after {end}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(peer: &str, local: &str) -> Header {
        Header::Whole(Origin::Client { peer: peer.parse().unwrap(), local: local.parse().unwrap() })
    }

    fn version_2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [&SIGNATURE[..], &[command, family], &length, rest].concat()
    }

    #[test]
    fn a_line_names_the_client() {
        let longest = format!("PROXY UNKNOWN {}\r\n", "f".repeat(91));
        for (line, expected) in [
            ("PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\r\n", client("192.0.2.1:56324", "192.0.2.2:443")),
            ("PROXY TCP6 2001:db8::1 ::1 1 65535\r\n", client("[2001:db8::1]:1", "[::1]:65535")),
            ("PROXY UNKNOWN\r\n", Header::Whole(Origin::Socket)),
            ("PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", Header::Whole(Origin::Socket)),
            (&longest, Header::Whole(Origin::Socket)),
            ("PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\n", Header::Malformed),
            ("PROXY TCP4 192.0.2.1 192.0.2.2 56324\r\n", Header::Malformed),
            ("PROXY TCP4 192.0.2.1 192.0.2.2 56324 443 1\r\n", Header::Malformed),
            ("PROXY TCP4  192.0.2.1 192.0.2.2 56324 443\r\n", Header::Malformed),
            ("PROXY TCP4 192.0.2.1 192.0.2.2 056324 443\r\n", Header::Malformed),
            ("PROXY TCP4 192.0.2.1 192.0.2.2 +1 443\r\n", Header::Malformed),
            ("PROXY TCP4 192.0.2.1 192.0.2.2 65536 443\r\n", Header::Malformed),
            ("PROXY TCP4 ::1 ::2 1 2\r\n", Header::Malformed),
            ("PROXY TCP6 192.0.2.1 192.0.2.2 1 2\r\n", Header::Malformed),
            ("PROXY UDP4 192.0.2.1 192.0.2.2 1 2\r\n", Header::Malformed),
            ("PROXY TCP4 192.0.2.1\r192.0.2.2 1 2\r\n", Header::Malformed),
            ("PROXY UNKNOWN \n\r\n", Header::Malformed),
            ("proxy TCP4 192.0.2.1 192.0.2.2 1 2\r\n", Header::Malformed),
            ("GET / HTTP/1.1\r\n\r\n", Header::Malformed),
            ("P", Header::Unfinished { bytes: 11 }),
            ("PROXY TCP4 1", Header::Unfinished { bytes: 2 }),
            ("PROXY UNKNOWN\r", Header::Unfinished { bytes: 1 }),
        ] {
            assert_eq!(parse(line.as_bytes()), expected, "{line:?}");
            check(line.as_bytes());
            check(format!("{line}GET / HTTP/1.1\r\n\r\n").as_bytes());
        }
        let too_long = format!("PROXY UNKNOWN {}", "f".repeat(100));
        assert_eq!(parse(&too_long.as_bytes()[..106]), Header::Malformed);
    }

    #[test]
    fn a_binary_header_names_the_client() {
        let v4 = [192, 0, 2, 1, 192, 0, 2, 2, 0x12, 0x34, 0x01, 0xbb];
        let mut v6 = [0; 36];
        (v6[15], v6[31], v6[33], v6[35]) = (1, 2, 3, 4);
        let remarks = [&v4[..], &[0x03, 0, 4, 1, 2, 3, 4]].concat();
        let named = client("192.0.2.1:4660", "192.0.2.2:443");
        for (header, expected) in [
            (version_2(0x21, 0x11, &v4), named),
            (version_2(0x21, 0x11, &remarks), named),
            (version_2(0x21, 0x21, &v6), client("[::1]:3", "[::2]:4")),
            (version_2(0x20, 0x00, &[]), Header::Whole(Origin::Socket)),
            (version_2(0x20, 0x11, &v4), Header::Whole(Origin::Socket)),
            (version_2(0x21, 0x00, &[]), Header::Whole(Origin::Socket)),
            (version_2(0x21, 0x31, &[0; 216]), Header::Whole(Origin::Socket)),
            (version_2(0x21, 0x11, &v4[..11]), Header::Malformed),
            (version_2(0x21, 0x12, &v4), Header::Malformed),
            (version_2(0x22, 0x11, &v4), Header::Malformed),
            (version_2(0x11, 0x11, &v4), Header::Malformed),
            (version_2(0x21, 0x11, &[0; 2049]), Header::Malformed),
            (version_2(0x21, 0x11, &v4)[..14].to_vec(), Header::Unfinished { bytes: 2 }),
            (version_2(0x21, 0x11, &v4)[..20].to_vec(), Header::Unfinished { bytes: 8 }),
        ] {
            assert_eq!(parse(&header), expected, "{header:?}");
            check(&header);
            check(&[&header, &b"GET / HTTP/1.1"[..]].concat());
        }
    }

    #[test]
    fn what_is_written_is_what_is_read() {
        for (peer, local) in [
            ("192.0.2.1:56324", "198.51.100.2:443"),
            ("[2001:db8::1]:1", "[2001:db8::2]:65535"),
            ("192.0.2.1:56324", "[2001:db8::2]:443"),
            ("[::ffff:192.0.2.1]:5", "192.0.2.2:6"),
        ] {
            for version in [Version::V1, Version::V2] {
                let (peer, local) = (peer.parse().unwrap(), local.parse().unwrap());
                let Header::Whole(Origin::Client { peer: read, local: read_local }) =
                    parse(&header(version, peer, local))
                else {
                    panic!("{version:?} {peer} {local}");
                };
                let canonical = |address: SocketAddr| (address.ip().to_canonical(), address.port());
                assert_eq!((canonical(read), canonical(read_local)), (canonical(peer), canonical(local)));
            }
        }
    }

    #[test]
    fn the_seeds_are_read_and_never_too_far() {
        crate::seeds::each("proxy_protocol", check);
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_are_read_too_far(
            begin in proptest::sample::select(vec![&b"PROXY TCP4 "[..], b"PROXY UNKNOWN", SIGNATURE, b""]),
            rest in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200),
        ) {
            check(&[begin, &rest].concat());
        }
    }
}
