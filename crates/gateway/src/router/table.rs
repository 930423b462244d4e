//! The two tables a router can be: hosts then paths, or paths then hosts.
//!
//! Both are made of the same pieces: a [`Trie`] of paths by their literal start, a [`Hosts`] of names by their end,
//! and a [`Bucket`] of candidates in order of precedence where both meet.

use std::sync::Arc;

use gatewright_model::limits;
use gatewright_model::matching::{HostPattern, MatchOrder};

use super::Request;
use super::names::Names;
use super::rules::Candidate;
use super::trie::{Content, Reach, Trie};

#[derive(Clone, Debug)]
pub(super) enum Table {
    HostFirst(Hosts<Trie<Bucket>>),
    PathFirst(Trie<Hosts<Bucket>>),
}

impl Table {
    pub(super) fn new(order: MatchOrder) -> Self {
        match order {
            MatchOrder::HostFirst => Self::HostFirst(Hosts::default()),
            MatchOrder::PathFirst => Self::PathFirst(Trie::default()),
        }
    }

    pub(super) fn insert(&mut self, candidate: Candidate, host: Option<&HostPattern>) {
        self.change(&candidate.clone(), host, |bucket| bucket.insert(candidate));
    }

    pub(super) fn remove(&mut self, candidate: &Candidate, host: Option<&HostPattern>) {
        self.change(candidate, host, |bucket| bucket.remove(candidate));
    }

    fn change(
        &mut self,
        candidate: &Candidate,
        host: Option<&HostPattern>,
        change: impl FnOnce(&mut Bucket),
    ) {
        let (literal, reach) = place(candidate);
        match self {
            Self::HostFirst(hosts) => hosts.update(host, |paths| paths.update(literal, reach, change)),
            Self::PathFirst(paths) => paths.update(literal, reach, |hosts| hosts.update(host, change)),
        }
    }

    /// The candidate that serves the request.
    pub(super) fn find<'t>(&'t self, request: &Request<'_>) -> Option<&'t Candidate> {
        match self {
            Self::HostFirst(hosts) => hosts.find(request.host, |paths| {
                paths.find(request.path, |bucket| bucket.first_accepting(request))
            }),
            Self::PathFirst(paths) => paths.find(request.path, |hosts| {
                // Among the hosts of one path their order says nothing: the best candidate of all of them wins.
                let mut best: Option<&Candidate> = None;
                let _: Option<()> = hosts.find(request.host, |bucket| {
                    if let Some(candidate) = bucket.first_accepting(request)
                        && best.is_none_or(|best| candidate.precedence(best).is_lt())
                    {
                        best = Some(candidate);
                    }
                    None
                });
                best
            }),
        }
    }

    /// Every candidate the request's path leads to, in the order they are considered; those whose host is another
    /// follow, each with `false`.
    pub(super) fn considered<'t>(&'t self, request: &Request<'_>) -> Vec<(&'t Candidate, bool)> {
        let mut found: Vec<(&Candidate, bool)> = Vec::new();
        let mut elsewhere: Vec<(&Candidate, bool)> = Vec::new();
        match self {
            Self::HostFirst(hosts) => {
                let mut visited: Vec<&Trie<Bucket>> = Vec::new();
                let _: Option<()> = hosts.find(request.host, |paths| {
                    visited.push(paths);
                    visit_all(paths, request, |bucket| found.extend(with(bucket, true)));
                    None
                });
                for paths in
                    hosts.contents().filter(|paths| !visited.iter().any(|seen| std::ptr::eq(*seen, *paths)))
                {
                    visit_all(paths, request, |bucket| elsewhere.extend(with(bucket, false)));
                    if elsewhere.len() > super::explain::CONSIDERED_MAX {
                        break;
                    }
                }
            }
            Self::PathFirst(paths) => visit_all(paths, request, |hosts| {
                let from = found.len();
                let mut visited: Vec<&Bucket> = Vec::new();
                let _: Option<()> = hosts.find(request.host, |bucket| {
                    visited.push(bucket);
                    found.extend(with(bucket, true));
                    None
                });
                found[from..].sort_by(|(one, _), (other, _)| one.precedence(other));
                let others = hosts
                    .contents()
                    .filter(|bucket| !visited.iter().any(|seen| std::ptr::eq(*seen, *bucket)));
                elsewhere.extend(others.flat_map(|bucket| with(bucket, false)));
            }),
        }
        found.extend(elsewhere);
        found
    }
}

fn visit_all<'t, T: Content>(paths: &'t Trie<T>, request: &Request<'_>, mut visit: impl FnMut(&'t T)) {
    let _: Option<()> = paths.find(request.path, |contents| {
        visit(contents);
        None
    });
}

fn with(bucket: &Bucket, flag: bool) -> impl Iterator<Item = (&Candidate, bool)> {
    bucket.as_slice().iter().map(move |candidate| (candidate, flag))
}

/// Where a candidate stands among the paths.
fn place(candidate: &Candidate) -> (&[u8], Reach) {
    let pattern = candidate.pattern();
    let reach = if pattern.is_exact() { Reach::Exact } else { Reach::Start };
    let literal = pattern.literal();
    if candidate.is_for_bare_prefix() {
        // `/api/*` stands for `/api` as well, but any route that is exactly `/api` comes first.
        return (&literal[..usize::from(candidate.prefix_length)], reach);
    }
    (literal, reach)
}

/// Something per host: for exact names, for names by their end, and for any host.
#[derive(Clone, Debug, Default)]
pub(super) struct Hosts<T> {
    exact: Names<T>,
    /// Keys are read from their end, so that `*.example.com` is a start.
    ends: Trie<T>,
    any: T,
}

impl<T: Content> Content for Hosts<T> {
    fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.ends.is_empty() && self.any.is_empty()
    }
}

impl<T: Content> Hosts<T> {
    fn update(&mut self, host: Option<&HostPattern>, change: impl FnOnce(&mut T)) {
        let Some(host) = host else { return change(&mut self.any) };
        if !host.is_suffix() {
            return self.exact.update(host.name(), change);
        }
        let mut reversed = [0; limits::HOST_LENGTH_MAX];
        if let Some(key) = reverse(host.name(), &mut reversed) {
            self.ends.update(key, Reach::Start, change);
        }
    }

    /// Calls `visit` for the exact name, then for longer and shorter ends of it, then for what serves any host,
    /// until it answers.
    fn find<'t, R>(&'t self, host: &[u8], mut visit: impl FnMut(&'t T) -> Option<R>) -> Option<R> {
        if let Some(found) = self.exact.find(host).and_then(&mut visit) {
            return Some(found);
        }
        if !self.ends.is_empty() {
            let mut reversed = [0; limits::HOST_LENGTH_MAX];
            // Of a name longer than DNS allows only the end is looked at.
            let end = &host[host.len().saturating_sub(reversed.len())..];
            let found = reverse(end, &mut reversed).and_then(|key| self.ends.find(key, &mut visit));
            if found.is_some() {
                return found;
            }
        }
        if self.any.is_empty() { None } else { visit(&self.any) }
    }

    fn contents(&self) -> impl Iterator<Item = &T> {
        let any = Some(&self.any).filter(|any| !any.is_empty());
        self.exact.contents().chain(self.ends.contents()).chain(any)
    }
}

fn reverse<'b>(name: &[u8], buffer: &'b mut [u8; limits::HOST_LENGTH_MAX]) -> Option<&'b [u8]> {
    let reversed = buffer.get_mut(..name.len())?;
    reversed.iter_mut().zip(name.iter().rev()).for_each(|(to, from)| *to = *from);
    Some(reversed)
}

/// Candidates with the same literal start, in order of precedence. Almost always one.
#[derive(Clone, Debug, Default)]
pub(super) enum Bucket {
    #[default]
    Empty,
    One(Candidate),
    Several(Arc<Vec<Candidate>>),
}

impl Content for Bucket {
    fn is_empty(&self) -> bool {
        self.as_slice().is_empty()
    }
}

impl Bucket {
    fn as_slice(&self) -> &[Candidate] {
        match self {
            Self::Empty => &[],
            Self::One(candidate) => std::slice::from_ref(candidate),
            Self::Several(candidates) => candidates,
        }
    }

    fn first_accepting(&self, request: &Request<'_>) -> Option<&Candidate> {
        self.as_slice().iter().find(|candidate| candidate.accepts(request))
    }

    fn insert(&mut self, candidate: Candidate) {
        *self = match std::mem::take(self) {
            Self::Empty => Self::One(candidate),
            Self::One(other) if other.is(&candidate) => Self::One(other),
            Self::One(other) if candidate.precedence(&other).is_lt() => {
                Self::Several(Arc::new(vec![candidate, other]))
            }
            Self::One(other) => Self::Several(Arc::new(vec![other, candidate])),
            Self::Several(mut all) => {
                if let Err(at) = position(&all, &candidate) {
                    Arc::make_mut(&mut all).insert(at, candidate);
                }
                Self::Several(all)
            }
        };
    }

    fn remove(&mut self, candidate: &Candidate) {
        *self = match std::mem::take(self) {
            Self::One(other) if other.is(candidate) => Self::Empty,
            Self::Several(mut all) => {
                if let Ok(at) = position(&all, candidate) {
                    Arc::make_mut(&mut all).remove(at);
                }
                match &**all {
                    [] => Self::Empty,
                    [last] => Self::One(last.clone()),
                    _ => Self::Several(all),
                }
            }
            unchanged => unchanged,
        };
    }
}

/// Where `candidate` stands, or where it belongs.
fn position(all: &[Candidate], candidate: &Candidate) -> Result<usize, usize> {
    // Ids make the order total but for two compilations of one service that are both here, one after the other.
    let first = all.partition_point(|other| other.precedence(candidate).is_lt());
    let same = all[first..].iter().take_while(|other| other.precedence(candidate).is_eq());
    same.enumerate().find(|(_, other)| other.is(candidate)).map(|(at, _)| first + at).ok_or(first)
}
