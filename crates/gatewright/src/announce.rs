//! What is printed to stdout while starting.
//!
//! People read these lines and scripts parse them, so their form is a promise: a label, at least two spaces, a value.
//! `ready` comes last. Nobody may be listening, so a closed stdout is no reason to fail.

use std::fmt::Display;
use std::io::Write;
#[cfg(feature = "control-plane")]
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Width of the label column of addresses.
const LABEL_WIDTH: usize = 12;

/// Prints one line.
pub(crate) fn line(text: impl Display) {
    let mut stdout = std::io::stdout().lock();
    let _ = writeln!(stdout, "{text}").and_then(|()| stdout.flush());
}

/// Prints what is found at which URL.
pub(crate) fn listener(label: &str, url: impl Display) {
    line(format_args!("{label:LABEL_WIDTH$}{url}"));
}

/// Prints that everything above is true from now on.
pub(crate) fn ready() {
    line("ready");
}

/// Prints the secrets that this start made at random, once; they are kept in `data_dir`.
#[cfg(feature = "control-plane")]
pub(crate) fn secrets(secrets: &[(&str, &str, &Option<String>)], data_dir: &std::path::Path) {
    let mut created =
        secrets.iter().filter_map(|(label, file, secret)| Some((label, file, secret.as_ref()?)));
    let Some(first) = created.next() else { return };
    line("");
    for (label, file, secret) in std::iter::once(first).chain(created) {
        line(format_args!("{label:24}{secret}  (shown once, kept in {})", data_dir.join(file).display()));
    }
    line("");
}

/// The address under which a listener is reached from this machine: "every address" is no address to connect to.
#[cfg(feature = "control-plane")]
pub(crate) fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

#[cfg(all(test, feature = "control-plane"))]
mod tests {
    use super::*;

    #[test]
    fn a_listener_on_every_address_is_reached_through_loopback() {
        for (listening, reached) in [
            ("0.0.0.0:80", "127.0.0.1:80"),
            ("[::]:80", "[::1]:80"),
            ("10.0.0.1:80", "10.0.0.1:80"),
            ("127.0.0.1:9080", "127.0.0.1:9080"),
        ] {
            assert_eq!(reachable(listening.parse().unwrap()), reached.parse().unwrap());
        }
    }
}
