//! What the matching of a gateway group depends on besides its routes: settings and host patterns.
//!
//! A host is compared in lower case and without its port, unless the pattern names a port itself.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::limits;

/// How the routes of a gateway group are matched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MatchSettings {
    /// Whether the host or the path is looked at first.
    #[serde(default, rename = "match")]
    pub order: MatchOrder,
    /// Whether `:name` at the start of a path segment is a path parameter; otherwise it is literal text.
    #[serde(default = "crate::resource::service::enabled")]
    #[schema(default = true)]
    pub path_parameters: bool,
}

impl Default for MatchSettings {
    fn default() -> Self {
        Self { order: MatchOrder::HostFirst, path_parameters: true }
    }
}

/// Which of host and path decides first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum MatchOrder {
    /// The most specific host that has a matching route wins, whatever other hosts have.
    #[default]
    HostFirst,
    /// The most specific path wins; the host is one condition among others.
    PathFirst,
}

/// One entry of a list of hosts, parsed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostPattern {
    /// The name without `*` and port, in lower case.
    name: Box<[u8]>,
    /// Whether names that end in `name` are meant.
    suffix: bool,
    /// The entry as a `Host` header spells it, if it names a port.
    authority: Option<Box<[u8]>>,
}

impl HostPattern {
    /// Parses `api.example.com`, `*.example.com`, `*example.com`, `*` or `api.example.com:8443`.
    ///
    /// # Errors
    /// A sentence that says what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let lower = text.to_ascii_lowercase();
        let (suffix, rest) = match lower.strip_prefix('*') {
            Some(rest) => (true, rest),
            None => (false, lower.as_str()),
        };
        if text.is_empty() || rest.contains('*') {
            return Err(format!("`{text}` is not a host; `*` may stand only at the start"));
        }
        if text.len() > limits::HOST_LENGTH_MAX {
            return Err(format!("a host has at most {} characters", limits::HOST_LENGTH_MAX));
        }
        let name = without_port(rest);
        let authority = (name.len() < rest.len()).then(|| rest.as_bytes().into());
        Ok(Self { name: name.as_bytes().into(), suffix, authority })
    }

    /// The name without `*` and port.
    #[must_use]
    pub fn name(&self) -> &[u8] {
        &self.name
    }

    /// Whether every name that ends in [`Self::name`] is meant.
    #[must_use]
    pub fn is_suffix(&self) -> bool {
        self.suffix
    }

    /// The whole entry, if it names a port: the `Host` header must then say the same.
    #[must_use]
    pub fn authority(&self) -> Option<&[u8]> {
        self.authority.as_deref()
    }

    /// Whether a `Host` header that reads `authority` satisfies the port of this entry, if it has one.
    #[must_use]
    pub fn accepts_authority(&self, authority: &[u8]) -> bool {
        match &self.authority {
            None => true,
            Some(own) if self.suffix => {
                authority.len() >= own.len()
                    && authority[authority.len() - own.len()..].eq_ignore_ascii_case(own)
            }
            Some(own) => own.eq_ignore_ascii_case(authority),
        }
    }

    /// Whether the name of this entry accepts `host` (lower case, without port).
    #[must_use]
    pub fn accepts_name(&self, host: &[u8]) -> bool {
        if self.suffix { host.ends_with(&self.name) } else { *host == *self.name }
    }

    /// Whether this entry accepts every host that `other` accepts.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        if self.authority.is_some() {
            return self == other;
        }
        if self.suffix { other.name.ends_with(&self.name) } else { !other.suffix && self.name == other.name }
    }
}

impl std::fmt::Display for HostPattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let star = if self.suffix { "*" } else { "" };
        let name = self.authority.as_ref().unwrap_or(&self.name);
        write!(f, "{star}{}", String::from_utf8_lossy(name))
    }
}

/// `name` of `name:port`; the colons inside the brackets of an IPv6 address are no port.
fn without_port(authority: &str) -> &str {
    let after_address = authority.rfind(']').unwrap_or(0);
    authority[after_address..].find(':').map_or(authority, |at| &authority[..after_address + at])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(text: &str) -> HostPattern {
        HostPattern::parse(text).expect("a host")
    }

    #[test]
    fn a_star_stands_for_any_start_of_the_name() {
        for (pattern, name, expected) in [
            ("foo.com", "foo.com", true),
            ("Foo.COM", "foo.com", true),
            ("foo.com", "a.foo.com", false),
            ("*.foo.com", "foo.com", false),
            ("*.foo.com", "a.b.foo.com", true),
            ("*foo.com", "foo.com", true),
            ("*foo.com", "barfoo.com", true),
            ("*", "anything", true),
            ("[::1]", "[::1]", true),
            ("[::1]", "::1", false),
        ] {
            assert_eq!(host(pattern).accepts_name(name.as_bytes()), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn a_port_in_the_pattern_is_compared_with_the_host_header() {
        let pattern = host("foo.com:8080");
        assert_eq!(pattern.name(), b"foo.com");
        assert!(pattern.accepts_authority(b"Foo.com:8080"));
        assert!(!pattern.accepts_authority(b"foo.com"));
        assert!(host("foo.com").accepts_authority(b"foo.com:1"));
        assert_eq!(host("[::1]:80").name(), b"[::1]");
        assert_eq!(host("[::1]:80").to_string(), "[::1]:80");
    }

    #[test]
    fn a_pattern_covers_what_it_accepts_in_full() {
        for (one, other, expected) in [
            ("*.com", "a.com", true),
            ("*.com", "*.a.com", true),
            ("*.a.com", "*.com", false),
            ("a.com", "a.com", true),
            ("a.com", "*a.com", false),
            ("a.com:80", "a.com", false),
            ("a.com", "a.com:80", true),
        ] {
            assert_eq!(host(one).covers(&host(other)), expected, "{one} {other}");
        }
    }

    #[test]
    fn what_is_no_host_is_refused() {
        for bad in ["", "a.*.com", "**", &"x".repeat(256)] {
            assert!(HostPattern::parse(bad).is_err(), "{bad}");
        }
    }
}
