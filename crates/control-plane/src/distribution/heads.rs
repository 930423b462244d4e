//! Heads of requests that gateways have sampled, by group, in memory.
//!
//! They are a help and no record: a control plane that starts anew has none, and its gateways send what they still
//! keep. Each control plane has those of the gateways that follow it.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gatewright_model::id::{GatewayGroupId, InstanceId};
use gatewright_model::sample::{SampledHead, Samples, SamplingSettings};

/// Heads of one group that are kept; a preview replays all of them.
const HEADS_PER_GROUP_MAX: usize = 100_000;

/// Heads of all groups that are kept: some hundred bytes each.
const HEADS_MAX: usize = 400_000;

/// The heads that this control plane was sent.
#[derive(Clone, Default)]
pub(crate) struct Heads {
    groups: Arc<Mutex<Groups>>,
}

type Groups = HashMap<GatewayGroupId, HashMap<InstanceId, Sent>>;

/// What one instance has sent.
struct Sent {
    /// The life of the instance that heads are numbered in.
    life: u64,
    /// The number of the head that is wanted next.
    next: u64,
    heard_at: i64,
    /// When each request came, oldest first.
    heads: VecDeque<(i64, SampledHead)>,
}

/// The heads of one group.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct GroupHeads {
    /// The heads.
    pub(crate) heads: Vec<SampledHead>,
    /// How many instances they come from.
    pub(crate) instances: usize,
    /// When the first of the requests came.
    pub(crate) oldest: Option<i64>,
}

impl Heads {
    /// Takes what an instance of `group` has sent, and says which head is wanted next.
    pub(crate) fn take(
        &self,
        group: &GatewayGroupId,
        settings: &SamplingSettings,
        samples: Samples,
        now: i64,
    ) -> u64 {
        let mut groups = self.groups();
        forget(&mut groups, group, settings, now);
        let held: usize = groups.values().flat_map(HashMap::values).map(|sent| sent.heads.len()).sum();
        let in_group = groups.entry(group.clone()).or_default();
        let held_in_group: usize = in_group.values().map(|sent| sent.heads.len()).sum();
        let mut room = (HEADS_PER_GROUP_MAX - held_in_group.min(HEADS_PER_GROUP_MAX))
            .min(HEADS_MAX - held.min(HEADS_MAX));
        let Samples { instance_id, life, first, heads } = samples;
        let is_known = in_group.contains_key(&instance_id);
        let unheard = || Sent { life, next: 0, heard_at: now, heads: VecDeque::new() };
        let sent = in_group.entry(instance_id).or_insert_with(unheard);
        // Somebody else has the heads before these; what is still kept of them is wanted here, too.
        if !is_known && first > 0 {
            return 0;
        }
        if sent.life != life {
            (sent.life, sent.next) = (life, 0);
        }
        sent.heard_at = now;
        let count = heads.len() as u64;
        // What was sent before, and whose answer was lost, is not taken twice.
        let known = usize::try_from(sent.next.saturating_sub(first)).unwrap_or(usize::MAX);
        for aged in heads.into_iter().skip(known) {
            let kept = settings.kept as usize;
            if sent.heads.len() >= kept || room == 0 {
                // A newer head takes the place of the oldest one of the same instance.
                if sent.heads.pop_front().is_none() {
                    continue;
                }
                room += 1;
            }
            sent.heads.push_back((now - i64::from(aged.age), aged.head));
            room -= 1;
        }
        if settings.heads_per_second == 0 {
            sent.heads.clear();
        }
        sent.next = sent.next.max(first + count);
        sent.next
    }

    /// The heads of `group` that are not too old.
    pub(crate) fn of(&self, group: &GatewayGroupId, settings: &SamplingSettings, now: i64) -> GroupHeads {
        let mut groups = self.groups();
        forget(&mut groups, group, settings, now);
        let sent: Vec<&Sent> = groups.get(group).into_iter().flat_map(HashMap::values).collect();
        let all = || sent.iter().flat_map(|sent| &sent.heads);
        GroupHeads {
            heads: all().map(|(_, head)| head.clone()).collect(),
            instances: sent.iter().filter(|sent| !sent.heads.is_empty()).count(),
            oldest: all().map(|(at, _)| *at).min(),
        }
    }

    fn groups(&self) -> MutexGuard<'_, Groups> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Forgets the heads of `group` that are older than they may be, and instances that have been silent for as long.
fn forget(groups: &mut Groups, group: &GatewayGroupId, settings: &SamplingSettings, now: i64) {
    let Some(in_group) = groups.get_mut(group) else { return };
    for sent in in_group.values_mut() {
        while sent.heads.front().is_some_and(|(at, _)| now - at > i64::from(settings.retention)) {
            sent.heads.pop_front();
        }
    }
    let retention = i64::from(settings.retention);
    in_group.retain(|_, sent| !sent.heads.is_empty() || now - sent.heard_at <= retention);
    if in_group.is_empty() {
        groups.remove(group);
    }
}

#[cfg(test)]
mod tests {
    use gatewright_model::sample::AgedHead;

    use super::*;

    fn samples(instance: &str, life: u64, first: u64, paths: &[(&str, u32)]) -> Samples {
        let aged = |(path, age): &(&str, u32)| {
            let head = SampledHead { path: (*path).to_owned(), ..SampledHead::default() };
            AgedHead { age: *age, head }
        };
        let heads = paths.iter().map(aged).collect();
        Samples { instance_id: instance.parse().unwrap(), life, first, heads }
    }

    fn paths(heads: &Heads, settings: &SamplingSettings, now: i64) -> Vec<String> {
        let group = "g".parse().unwrap();
        let mut paths: Vec<_> =
            heads.of(&group, settings, now).heads.into_iter().map(|head| head.path).collect();
        paths.sort_unstable();
        paths
    }

    #[test]
    fn heads_are_taken_once_and_asked_for_again_after_a_restart() {
        let (heads, group) = (Heads::default(), "g".parse().unwrap());
        let settings = SamplingSettings { kept: 3, retention: 60, ..SamplingSettings::default() };
        let take = |samples, now| heads.take(&group, &settings, samples, now);
        assert_eq!(take(samples("i", 7, 0, &[("/a", 1), ("/b", 0)]), 100), 2);
        assert_eq!(take(samples("i", 7, 0, &[("/a", 1), ("/b", 0), ("/c", 0)]), 100), 3);
        assert_eq!(take(samples("j", 1, 0, &[("/j", 0)]), 100), 1);
        assert_eq!(paths(&heads, &settings, 100), ["/a", "/b", "/c", "/j"]);
        // The newest three of each instance; what was overwritten there is never asked for.
        assert_eq!(take(samples("i", 7, 9, &[("/d", 0)]), 110), 10);
        assert_eq!(paths(&heads, &settings, 110), ["/b", "/c", "/d", "/j"]);
        // Another life counts from 0 again.
        assert_eq!(take(samples("i", 8, 0, &[]), 110), 0);
        assert_eq!(heads.of(&group, &settings, 110).oldest, Some(100));
        assert_eq!(paths(&heads, &settings, 165), ["/d"]);
        assert_eq!(paths(&heads, &settings, 171), [""; 0]);
        // A control plane that knows nothing of the instance wants all that it keeps.
        let anew = Heads::default();
        assert_eq!(anew.take(&group, &settings, samples("i", 8, 4, &[("/e", 0)]), 0), 0);
        assert_eq!(anew.take(&group, &settings, samples("i", 8, 3, &[("/d", 0), ("/e", 0)]), 0), 5);
        assert_eq!(paths(&anew, &settings, 0), ["/d", "/e"]);
    }

    #[test]
    fn a_group_that_samples_nothing_keeps_nothing() {
        let (heads, group) = (Heads::default(), "g".parse().unwrap());
        let on = SamplingSettings::default();
        heads.take(&group, &on, samples("i", 7, 0, &[("/a", 0)]), 0);
        let off = SamplingSettings { heads_per_second: 0, ..on };
        assert_eq!(heads.take(&group, &off, samples("i", 7, 1, &[("/b", 0)]), 0), 2);
        assert_eq!(heads.of(&group, &off, 0), GroupHeads::default());
    }

    #[test]
    fn no_group_keeps_more_than_its_share() {
        let (heads, group) = (Heads::default(), "g".parse().unwrap());
        let settings = SamplingSettings { kept: 10_000, ..SamplingSettings::default() };
        let many: Vec<(&str, u32)> = vec![("/", 0); 10_000];
        for instance in 0..11 {
            heads.take(&group, &settings, samples(&format!("i{instance}"), 1, 0, &many), 0);
        }
        let held = heads.of(&group, &settings, 0);
        assert_eq!((held.heads.len(), held.instances), (HEADS_PER_GROUP_MAX, 10));
    }
}
