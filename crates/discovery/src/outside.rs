//! The way outside: which addresses may be connected to, whom to believe there, and what is said of a failure.
//!
//! Addresses are looked at before they are connected to and names when they are looked up, so that nothing comes
//! between look and use. Whoever asks over HTTP by [`reqwest`], for nodes or for a plugin, asks here first.

use std::error::Error as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use rustls::ClientConfig;

/// Whether an address may be connected to, or why not.
pub type Allow = Arc<dyn Fn(IpAddr) -> Result<(), String> + Send + Sync>;

/// Where clouds tell their machines secrets: nothing that is configured makes us look there, unless somebody allows it
/// at the start.
pub const CLOUD_METADATA: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
];

/// The way outside.
#[derive(Clone)]
pub struct Outside {
    /// Whether an address may be connected to, or why not.
    pub allow: Allow,
    /// TLS with registries whose certificates verify, or with any if they need not.
    pub tls: Arc<dyn Fn(bool) -> Result<ClientConfig, String> + Send + Sync>,
}

/// Refuses an address in `url` that must not be connected to. A name is looked at when [`Names`] looks it up.
///
/// # Errors
/// The reason that `allow` gives.
pub fn must_be_allowed(url: &Url, allow: &Allow) -> Result<(), String> {
    let host = url.host_str().unwrap_or_default();
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    bare.parse::<IpAddr>().map_or(Ok(()), |address| allow(address))
}

/// Names as the system knows them, without addresses that must not be connected to.
pub struct Names(pub Allow);

impl Resolve for Names {
    fn resolve(&self, name: Name) -> Resolving {
        let allow = Arc::clone(&self.0);
        Box::pin(async move {
            let (mut allowed, mut refused) = (Vec::<SocketAddr>::new(), None);
            for address in tokio::net::lookup_host((name.as_str(), 0)).await? {
                match allow(address.ip()) {
                    Ok(()) => allowed.push(address),
                    Err(reason) => refused = Some(reason),
                }
            }
            match refused {
                Some(reason) if allowed.is_empty() => Err(reason.into()),
                _ => Ok(Box::new(allowed.into_iter()) as Addrs),
            }
        })
    }
}

/// What a client says of itself names neither cause nor address; the chain of its causes does. The address itself is
/// left out, because there may be a password in it.
#[must_use]
pub fn reason(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut reason = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        reason = format!("{reason}: {inner}");
        cause = inner.source();
    }
    reason
}
