//! Sets of IP addresses and networks, as `ipmatch` and a route's remote addresses list them.
//!
//! An IPv4 address mapped into IPv6 is an IPv6 address here: it matches no IPv4 entry.

use std::net::IpAddr;

use ipnet::IpNet;

/// Addresses and networks, any of which may match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressSet(Box<[IpNet]>);

impl AddressSet {
    /// Parses one entry: an address, or a network whose host bits do not count.
    ///
    /// # Errors
    /// A sentence that says what is wrong.
    pub fn parse_entry(text: &str) -> Result<IpNet, String> {
        let wrong = || {
            format!("invalid ip address: `{text}` is neither an IP address nor a network such as 10.0.0.0/8")
        };
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        let address: IpAddr = without_brackets(address).parse().map_err(|_| wrong())?;
        let Some(length) = length else { return Ok(IpNet::from(address)) };
        let length = length.parse().map_err(|_| wrong())?;
        Ok(IpNet::new(address, length).map_err(|_| wrong())?.trunc())
    }

    /// The set of `entries`.
    #[must_use]
    pub fn new(entries: Vec<IpNet>) -> Self {
        Self(entries.into())
    }

    /// Whether an entry is or contains `address`.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.iter().any(|entry| entry.contains(&address))
    }

    /// Whether `text` is an address that [`Self::contains`]; other text never is.
    #[must_use]
    pub fn contains_text(&self, text: &[u8]) -> bool {
        let text = std::str::from_utf8(text).ok().map(without_brackets);
        text.and_then(|text| text.parse().ok()).is_some_and(|address| self.contains(address))
    }
}

/// `::1` of `[::1]`, the form of IPv6 addresses in URLs.
fn without_brackets(text: &str) -> &str {
    let inner = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    inner.filter(|inner| inner.contains(':')).unwrap_or(text)
}
