//! Where a service could be met at all: its hosts, and how the paths of all its routes start.
//!
//! Both are told without parsing a path, and kept with a service for as long as it stands in memory, so that among ten
//! thousand services those are found at once which share requests with one of them. Only a path that starts as another
//! one does can be covered by it; what a pattern of the router needs to be found by is never shorter than the start
//! that is kept here.

use std::collections::BTreeSet;

use super::hosts_of;
use crate::id::ServiceId;
use crate::matching::HostPattern;
use crate::snapshot::PublishedService;

/// The hosts of a service, and the literal text that all its paths start with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reach {
    /// `None`: every host.
    hosts: Box<[Option<HostPattern>]>,
    start: Box<str>,
}

impl Reach {
    /// Where `service` could be met.
    #[must_use]
    pub fn of(service: &PublishedService) -> Self {
        let own = service.routes.iter().map(|version| &version.route.hosts).filter(|hosts| !hosts.is_empty());
        let is_of_service = service.routes.iter().any(|version| version.route.hosts.is_empty());
        let lists = own.chain(is_of_service.then_some(&service.runtime.hosts));
        let hosts: BTreeSet<_> = lists.flat_map(|hosts| hosts_of(hosts)).collect();
        let mut common: Option<String> = None;
        each_start(service, |start| match &mut common {
            None => common = Some(start.to_owned()),
            Some(common) => common.truncate(shared_length(common, start)),
        });
        Self { hosts: hosts.into_iter().collect(), start: common.unwrap_or_default().into() }
    }

    /// Whether they share a host.
    fn shares_host(&self, other: &Self) -> bool {
        let share = |one: &Option<HostPattern>, two: &Option<HostPattern>| match (one, two) {
            (Some(one), Some(two)) => one.covers(two) || two.covers(one),
            _ => true,
        };
        self.hosts.iter().any(|one| other.hosts.iter().any(|two| share(one, two)))
    }
}

/// Services with their reaches.
type Reached<'a> = (&'a PublishedService, &'a Reach);

/// Those of `services` on which it depends in which conflicts one of `touched` is.
///
/// These are the services that may share a request with a touched one, and those that may share one with these: whether
/// a route of a neighbour is ever served depends on the neighbour's own neighbours.
pub(super) fn around<'a>(
    services: &[Reached<'a>],
    touched: &BTreeSet<ServiceId>,
) -> Vec<&'a PublishedService> {
    let is_touched = |service: &PublishedService| touched.contains(&service.service_id);
    let touched: BTreeSet<usize> = services
        .iter()
        .enumerate()
        .filter(|(_, (service, _))| is_touched(service))
        .map(|(at, _)| at)
        .collect();
    let near = neighbours(services, &touched);
    neighbours(services, &near).into_iter().map(|at| services[at].0).collect()
}

/// Those of `services` that may share a request with one of `of`, and these themselves.
fn neighbours(services: &[Reached<'_>], of: &BTreeSet<usize>) -> BTreeSet<usize> {
    if of.len() == services.len() {
        return of.clone();
    }
    let starts = Starts::of(of.iter().map(|at| services[*at].0));
    let meets = |at: &usize| {
        let (service, reach) = services[*at];
        of.contains(at)
            || starts.meet(&reach.start)
                && of.iter().any(|one| services[*one].1.shares_host(reach))
                && starts.meet_any_of(service)
    };
    (0..services.len()).filter(meets).collect()
}

/// How the paths of some services start: sorted, and none of them starts as another one does.
struct Starts(Vec<String>);

impl Starts {
    fn of<'a>(services: impl Iterator<Item = &'a PublishedService>) -> Self {
        let mut starts = Vec::new();
        services.for_each(|service| each_start(service, |start| starts.push(start.to_owned())));
        starts.sort_unstable();
        starts.dedup_by(|later, kept| later.starts_with(kept.as_str()));
        Self(starts)
    }

    /// Whether `start` begins as one of these does, or one of these as it does.
    fn meet(&self, start: &str) -> bool {
        // Whatever begins with `start` stands right behind it, and the only one that it could begin with right before.
        let at = self.0.partition_point(|one| one.as_str() < start);
        let is_in_one = self.0.get(at).is_some_and(|one| one.starts_with(start));
        is_in_one || at.checked_sub(1).is_some_and(|before| start.starts_with(self.0[before].as_str()))
    }

    fn meet_any_of(&self, service: &PublishedService) -> bool {
        let mut meets = false;
        each_start(service, |start| meets = meets || self.meet(start));
        meets
    }
}

/// Calls `visit` with the literal text that each path of `service` starts with.
fn each_start(service: &PublishedService, mut visit: impl FnMut(&str)) {
    let prefix = service.runtime.path_prefix.as_deref().unwrap_or_default().trim_end_matches('/');
    let mut start = prefix.to_owned();
    for path in service.routes.iter().flat_map(|version| &version.route.paths) {
        start.truncate(prefix.len());
        // Where parameters are off, a colon is literal; a start that ends before it is only shorter than need be.
        start.push_str(path.split(['*', ':']).next().unwrap_or_default());
        visit(&start);
    }
}

/// How many bytes `one` and `other` begin with alike, counted in whole characters.
fn shared_length(one: &str, other: &str) -> usize {
    let same = one.char_indices().zip(other.chars()).take_while(|((_, one), other)| one == other);
    same.last().map_or(0, |((at, character), _)| at + character.len_utf8())
}
