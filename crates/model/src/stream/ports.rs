//! The ports a gateway may open for streams: a list such as `9000-9100,5432`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Ports one gateway may open: each has a socket for each worker.
pub const PORTS_MAX: usize = 1024;

/// Ports, as ranges in rising order that do not touch; none: no port at all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Ports(Vec<(u16, u16)>);

impl Ports {
    /// Whether `port` is one of them.
    #[must_use]
    pub fn contains(&self, port: u16) -> bool {
        self.0.iter().any(|(first, last)| (*first..=*last).contains(&port))
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Each of them, in rising order.
    pub fn iter(&self) -> impl Iterator<Item = u16> {
        self.0.iter().flat_map(|(first, last)| *first..=*last)
    }
}

impl FromStr for Ports {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let port = |text: &str| text.trim().parse::<u16>().ok().filter(|port| *port > 0);
        let mut ranges = Vec::new();
        for entry in text.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
            let (first, last) = entry.split_once('-').unwrap_or((entry, entry));
            let range = port(first).zip(port(last)).filter(|(first, last)| first <= last);
            ranges.push(range.ok_or_else(|| {
                format!("`{entry}` is neither a port nor a range of ports such as 9000-9100")
            })?);
        }
        ranges.sort_unstable();
        let mut ports = Self::default();
        for (first, last) in ranges {
            match ports.0.last_mut() {
                Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
                _ => ports.0.push((first, last)),
            }
        }
        let count: usize = ports.0.iter().map(|(first, last)| usize::from(last - first) + 1).sum();
        if count > PORTS_MAX {
            return Err(format!("{count} ports are more than {PORTS_MAX}, which one gateway may open"));
        }
        Ok(ports)
    }
}

impl TryFrom<String> for Ports {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Ports> for String {
    fn from(ports: Ports) -> Self {
        ports.to_string()
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (first, last)) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            match first == last {
                true => write!(f, "{comma}{first}")?,
                false => write!(f, "{comma}{first}-{last}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_said_in_order_and_once() {
        for (text, said) in [
            ("", ""),
            ("5432", "5432"),
            ("9000-9100,5432", "5432,9000-9100"),
            (" 3 - 4 , 1-2, 2-3,9", "1-4,9"),
            ("65535,65535", "65535"),
        ] {
            assert_eq!(text.parse::<Ports>().unwrap().to_string(), said, "{text}");
        }
        let ports: Ports = "10-12,20".parse().unwrap();
        assert_eq!(ports.iter().collect::<Vec<_>>(), [10, 11, 12, 20]);
        assert!(ports.contains(12) && !ports.contains(13));
    }

    #[test]
    fn what_is_no_list_of_ports_is_refused_by_name() {
        for (text, named) in [
            ("http", "`http`"),
            ("0", "`0`"),
            ("9-1", "`9-1`"),
            ("70000", "`70000`"),
            ("1-2000", "2000 ports"),
        ] {
            let refused = text.parse::<Ports>().unwrap_err();
            assert!(refused.contains(named), "{refused}");
        }
    }
}
