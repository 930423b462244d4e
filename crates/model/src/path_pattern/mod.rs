//! The path a route is written with, parsed once.
//!
//! Nothing in a pattern is a regular expression: everything is literal but `*`, and `:name` at the start of a
//! segment where path parameters are on. A pattern is a *literal* start, by which the router finds it, and what may
//! follow: nothing, anything, or captures.
//! Matching takes time proportional to pattern times path at worst, whatever the pattern: stars never multiply.

mod captures;

use captures::Captures;

use crate::limits;

/// A path prefix and a route's path, as one pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathPattern {
    literal: Box<[u8]>,
    prefix_length: u32,
    written_length: u32,
    tail: Tail,
}

/// What may follow the literal start.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Tail {
    /// Nothing: the path is exact.
    Nothing,
    /// Anything, captured under no name: `/a*`.
    Anything,
    /// Anything, captured as `:ext`: `/a/*`.
    Ext,
    /// Anything, captured: `/a/*name`.
    Named(Box<str>),
    /// Captures with literal text after them.
    Captures(Box<Captures>),
}

/// The name under which a star without a name is captured.
pub const UNNAMED_STAR: &str = ":ext";

impl PathPattern {
    /// Parses `path` as it stands behind `prefix`. The prefix is literal text; slashes at its end do not count.
    ///
    /// # Errors
    /// A sentence that says what is wrong with `path`.
    pub fn parse(prefix: &str, path: &str, parameters: bool) -> Result<Self, String> {
        let prefix = prefix.trim_end_matches('/');
        // `*` alone means "everything"; behind a prefix that is everything below it.
        let separator = if !prefix.is_empty() && path.starts_with('*') { "/" } else { "" };
        let mut written = Vec::with_capacity(prefix.len() + path.len() + 1);
        written.extend_from_slice(prefix.as_bytes());
        written.extend_from_slice(separator.as_bytes());
        written.extend_from_slice(path.as_bytes());
        if path.is_empty() || path.len() > limits::PATH_LENGTH_MAX || prefix.len() > limits::PATH_LENGTH_MAX {
            return Err(format!("a path has 1 to {} characters", limits::PATH_LENGTH_MAX));
        }
        let (literal, tail) = captures::parse(&written, prefix.len(), parameters)?;
        let lengths_fit = "limited above";
        Ok(Self {
            literal,
            prefix_length: u32::try_from(prefix.len()).map_err(|_| lengths_fit)?,
            written_length: u32::try_from(written.len()).map_err(|_| lengths_fit)?,
            tail,
        })
    }

    /// The text that every matching path starts with.
    #[must_use]
    pub fn literal(&self) -> &[u8] {
        &self.literal
    }

    /// Whether only the literal itself matches.
    #[must_use]
    pub fn is_exact(&self) -> bool {
        self.tail == Tail::Nothing
    }

    /// Whether more than the literal start decides.
    #[must_use]
    pub fn has_inner_captures(&self) -> bool {
        matches!(self.tail, Tail::Captures(_))
    }

    /// Bytes of prefix and path as written; among patterns with the same literal the longer one comes first.
    #[must_use]
    pub fn written_length(&self) -> u32 {
        self.written_length
    }

    /// Bytes of the prefix, without slashes at its end.
    #[must_use]
    pub fn prefix_length(&self) -> usize {
        self.prefix_length as usize
    }

    /// Whether a path equal to the prefix matches too. Such a request is one for `/` behind the prefix, so this
    /// holds where the path alone matches `/`.
    #[must_use]
    pub fn matches_bare_prefix(&self) -> bool {
        let behind_prefix = &self.literal[self.prefix_length().min(self.literal.len())..];
        self.prefix_length > 0 && behind_prefix == b"/" && !self.has_inner_captures()
    }

    /// Whether a normalised path matches.
    #[must_use]
    pub fn matches(&self, path: &[u8]) -> bool {
        if self.is_bare_prefix(path) {
            return true;
        }
        match &self.tail {
            Tail::Nothing => *path == *self.literal,
            Tail::Anything | Tail::Ext | Tail::Named(_) => path.starts_with(&self.literal),
            Tail::Captures(captures) => captures.matches(path),
        }
    }

    /// What a matching path captures, in the order of the pattern; of two equal names the later one counts.
    pub fn captures<'s, 'p>(
        &'s self,
        path: &'p [u8],
    ) -> impl Iterator<Item = (&'s str, &'p [u8])> + use<'s, 'p> {
        let rest = path.get(self.literal.len()..).unwrap_or_default();
        let one = match &self.tail {
            Tail::Ext => Some((UNNAMED_STAR, rest)),
            Tail::Named(name) => Some((&**name, rest)),
            Tail::Nothing | Tail::Anything | Tail::Captures(_) => None,
        };
        let several = match &self.tail {
            Tail::Captures(captures) => Some(captures.captured(path)),
            _ => None,
        };
        one.into_iter().chain(several.into_iter().flatten())
    }

    /// Whether every path that `other` matches is matched by this pattern.
    ///
    /// Decided on sample paths in which captures hold bytes that no written path contains. That is exact for
    /// everything but several stars in one pattern, where it may see a cover too many.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        other.samples().iter().all(|sample| self.matches(sample))
    }

    fn is_bare_prefix(&self, path: &[u8]) -> bool {
        path.len() == self.prefix_length() && self.matches_bare_prefix() && self.literal.starts_with(path)
    }

    /// Paths that stand for all paths this pattern matches.
    fn samples(&self) -> Vec<Vec<u8>> {
        let with = |rest: &[u8]| [&self.literal, rest].concat();
        let mut samples = match &self.tail {
            Tail::Nothing => vec![with(b"")],
            Tail::Anything | Tail::Ext | Tail::Named(_) => vec![with(b""), with(b"\x01"), with(b"\x01/\x02")],
            Tail::Captures(captures) => captures.samples(),
        };
        if self.matches_bare_prefix() {
            samples.push(self.literal[..self.prefix_length()].to_vec());
        }
        samples
    }
}

#[cfg(test)]
mod tests;
