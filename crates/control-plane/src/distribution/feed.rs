//! The changes of each group, read from the store once and sent to all of its gateways.
//!
//! A feed follows one group. It keeps the digest of everything (the newest revision only), the lines of the latest
//! changes, and while it is the newest, the line that says everything; so a change costs one reading and one writing
//! down, however many gateways there are. A gateway that is behind what the feed remembers is served from the store.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use gatewright_model::digest::{ContentDigest, Ledger};
use gatewright_model::id::GatewayGroupId;
use gatewright_model::protocol::{Epoch, Message, Update};
use gatewright_model::snapshot::Revision;

use super::assemble::is_reachable;
use super::counts::Counts;
use super::intent::{Intent, Moment};
use super::line::Line;
use crate::store::StoreError;

/// Bytes of changes that a feed remembers; gateways that follow need the latest one only.
const RECENT_BYTES_MAX: usize = 16 << 20;

/// Changes that a feed remembers.
const RECENT_MAX: usize = 1000;

/// What a gateway says it has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Have {
    pub(super) epoch: Option<Epoch>,
    pub(super) revision: Option<Revision>,
    pub(super) digest: Option<ContentDigest>,
}

/// What comes next for a gateway.
#[derive(Debug)]
pub(super) enum Next {
    /// The group does not exist (any more).
    NoGroup,
    /// It has everything.
    Nothing,
    /// It has more than the store: this is the newest revision here.
    Ahead(Revision),
    /// These lines say what changed, or everything, after which it has this.
    Lines(Vec<Line>, Have),
}

/// The feeds of all groups that have gateways. Groups are few, so entries stay.
#[derive(Clone, Default)]
pub(crate) struct Feeds {
    feeds: Arc<Mutex<HashMap<GatewayGroupId, Arc<tokio::sync::Mutex<Feed>>>>>,
    counts: Counts,
}

impl Feeds {
    /// What was sent, and to how many.
    pub(crate) fn counts(&self) -> &Counts {
        &self.counts
    }

    /// What a gateway of `group` that has `have` lacks.
    pub(super) async fn next(
        &self,
        intent: &dyn Intent,
        group: &GatewayGroupId,
        have: &Have,
    ) -> Result<Next, StoreError> {
        let feed = {
            let mut feeds = self.feeds.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(feeds.entry(group.clone()).or_default())
        };
        // The moment of the store is chosen after the feed is ours, so that feeds never go back.
        let mut feed = feed.lock().await;
        let mut moment = intent.look().await?;
        let Some(newest) = moment.newest(group).await? else { return Ok(Next::NoGroup) };
        feed.catch_up(&mut *moment, group, &newest).await?;
        feed.answer(&mut *moment, group, have, newest).await
    }

    /// What is being prepared in `group`, as a line, unless it is what was `said` last.
    pub(super) async fn preparation(
        &self,
        intent: &dyn Intent,
        group: &GatewayGroupId,
        said: Option<&str>,
    ) -> Result<Option<(String, Line)>, StoreError> {
        let mut moment = intent.look().await?;
        let Some(id) = moment.preparation(group).await?.filter(|id| Some(id.as_str()) != said) else {
            return Ok(None);
        };
        let services = moment.candidates(group).await?;
        let line = Line::of(&Message::Prepare { id: id.clone(), services }).map_err(unwritable)?;
        Ok(Some((id, line)))
    }
}

#[derive(Default)]
struct Feed {
    /// Where it stands; none: it has read nothing yet.
    at: Option<(Epoch, Revision)>,
    ledger: Ledger,
    recent: VecDeque<Step>,
    recent_bytes: usize,
    /// The line that says everything, if somebody has asked for it since the last change.
    whole: Option<Line>,
}

/// One change.
struct Step {
    from: Revision,
    line: Line,
}

impl Feed {
    async fn catch_up(
        &mut self,
        moment: &mut dyn Moment,
        group: &GatewayGroupId,
        newest: &(Epoch, Revision),
    ) -> Result<(), StoreError> {
        if self.at.as_ref() == Some(newest) {
            return Ok(());
        }
        let followed = self.at.take().filter(|at| at.0 == newest.0 && is_reachable(at.1, newest.1));
        let base = followed.map(|at| at.1);
        self.whole = None;
        if base.is_none() {
            *self = Self::default();
        }
        let mut update = moment.changes(group, base, newest).await?;
        update.enter(&mut self.ledger).map_err(unwritable)?;
        update.digest = Some(self.ledger.digest());
        let line = line(update)?;
        match base {
            Some(from) => self.remember(Step { from, line }),
            None => self.whole = Some(line),
        }
        self.at = Some(newest.clone());
        Ok(())
    }

    fn remember(&mut self, step: Step) {
        self.recent_bytes += step.line.plain().len();
        self.recent.push_back(step);
        while self.recent.len() > RECENT_MAX || self.recent_bytes > RECENT_BYTES_MAX {
            let Some(oldest) = self.recent.pop_front() else { return };
            self.recent_bytes -= oldest.line.plain().len();
        }
    }

    async fn answer(
        &mut self,
        moment: &mut dyn Moment,
        group: &GatewayGroupId,
        have: &Have,
        newest: (Epoch, Revision),
    ) -> Result<Next, StoreError> {
        let digest = Some(self.ledger.digest());
        let after = Have { epoch: Some(newest.0.clone()), revision: Some(newest.1), digest };
        let known = have.revision.filter(|_| have.epoch.as_ref() == Some(&newest.0));
        match known {
            Some(revision) if revision > newest.1 => return Ok(Next::Ahead(newest.1)),
            Some(revision) if revision == newest.1 && (have.digest.is_none() || have.digest == digest) => {
                return Ok(Next::Nothing);
            }
            Some(revision) if revision == newest.1 => {
                tracing::error!(%group, %revision, "a gateway has other content under this revision, as after a restored backup; it is sent everything");
            }
            Some(revision) if is_reachable(revision, newest.1) => {
                let lines = match self.recent.iter().position(|step| step.from == revision) {
                    Some(first) => self.recent.range(first..).map(|step| step.line.clone()).collect(),
                    None => {
                        let update = moment.changes(group, Some(revision), &newest).await?;
                        vec![line(Update { digest, ..update })?]
                    }
                };
                return Ok(Next::Lines(lines, after));
            }
            _ => {}
        }
        let whole = match &self.whole {
            Some(whole) => whole.clone(),
            None => {
                let update = moment.changes(group, None, &newest).await?;
                let whole = line(Update { digest, ..update })?;
                self.whole.insert(whole).clone()
            }
        };
        Ok(Next::Lines(vec![whole], after))
    }
}

fn line(update: Update) -> Result<Line, StoreError> {
    Line::of(&Message::Update(update)).map_err(unwritable)
}

fn unwritable(error: serde_json::Error) -> StoreError {
    StoreError::Unavailable { reason: format!("a configuration cannot be written: {error}") }
}

/// What a gateway that has `have` is sent; none: the group does not exist.
#[cfg(test)]
pub(crate) async fn sent(
    feeds: &Feeds,
    intent: &dyn Intent,
    group: &GatewayGroupId,
    have: Option<&gatewright_model::snapshot::Snapshot>,
) -> Option<Vec<Update>> {
    let have = have.map(|snapshot| Have {
        epoch: snapshot.epoch.clone(),
        revision: Some(snapshot.revision),
        digest: None,
    });
    let lines = match feeds.next(intent, group, &have.unwrap_or_default()).await.unwrap() {
        Next::NoGroup => return None,
        Next::Nothing => return Some(Vec::new()),
        Next::Ahead(revision) => panic!("the store is behind, at {revision}"),
        Next::Lines(lines, _) => lines,
    };
    let updates = lines.iter().map(|line| match serde_json::from_slice(line.plain()).unwrap() {
        Message::Update(update) => update,
        other => panic!("{other:?}"),
    });
    Some(updates.collect())
}

#[cfg(test)]
mod tests {
    use gatewright_model::resource::gateway_group::GatewayGroup;

    use super::*;
    use crate::app::App;
    use crate::app::tests::app;

    struct World {
        app: App,
        feeds: Feeds,
        group: GatewayGroupId,
        _dir: tempfile::TempDir,
    }

    impl World {
        async fn new() -> Self {
            let (app, dir) = app().await;
            let group: GatewayGroupId = "g".parse().unwrap();
            let content: GatewayGroup = serde_json::from_value(serde_json::json!({"name": "g"})).unwrap();
            let mut tx = app.store().write().await.unwrap();
            let stamp = tx.stamp(1).await.unwrap();
            tx.gateway_group_insert(stamp, &group, &content).await.unwrap();
            tx.commit().await.unwrap();
            Self { app, feeds: Feeds::default(), group, _dir: dir }
        }

        async fn raise(&self) {
            let mut tx = self.app.store().write().await.unwrap();
            tx.gateway_group_raise(&self.group).await.unwrap();
            tx.commit().await.unwrap();
        }

        async fn next(&self, have: &Have) -> Next {
            self.feeds.next(&self.app, &self.group, have).await.unwrap()
        }

        async fn lines(&self, have: &Have) -> (Vec<Update>, Have) {
            let Next::Lines(lines, after) = self.next(have).await else { panic!("nothing is sent") };
            let update = |line: &Line| match serde_json::from_slice(line.plain()).unwrap() {
                Message::Update(update) => update,
                other => panic!("{other:?}"),
            };
            (lines.iter().map(update).collect(), after)
        }
    }

    #[tokio::test]
    async fn who_has_nothing_gets_everything_and_then_what_changes() {
        let world = World::new().await;
        let (first, have) = world.lines(&Have::default()).await;
        assert!(first[0].full && first[0].digest.is_some());
        assert!(matches!(world.next(&have).await, Next::Nothing));
        world.raise().await;
        world.raise().await;
        let (second, have) = world.lines(&have).await;
        assert_eq!(
            second.iter().map(|update| (update.revision.0, update.full)).collect::<Vec<_>>(),
            [(2, false)]
        );
        assert!(matches!(world.next(&have).await, Next::Nothing));
    }

    #[tokio::test]
    async fn who_missed_changes_gets_the_lines_that_others_got_or_one_of_its_own() {
        let world = World::new().await;
        let (_, at_0) = world.lines(&Have::default()).await;
        let mut at = vec![at_0];
        for _ in 0..3 {
            world.raise().await;
            let (_, after) = world.lines(at.last().unwrap()).await;
            at.push(after);
        }
        let revisions =
            |updates: &[Update]| updates.iter().map(|update| update.revision.0).collect::<Vec<_>>();
        assert_eq!(revisions(&world.lines(&at[1]).await.0), [2, 3]);
        let other = World { feeds: Feeds::default(), ..world };
        let (own, after) = other.lines(&at[1]).await;
        assert_eq!(
            (revisions(&own), own[0].full),
            (vec![3], false),
            "a feed that has just begun reads the store"
        );
        assert_eq!(after, at[3], "and comes to the same digest");
    }

    #[tokio::test]
    async fn p15_who_is_ahead_of_a_restored_store_is_told_so_and_sent_everything_in_a_new_epoch() {
        let world = World::new().await;
        let (_, have) = world.lines(&Have::default()).await;
        let ahead = Have { revision: Some(Revision(9)), ..have.clone() };
        assert!(matches!(world.next(&ahead).await, Next::Ahead(Revision(0))));
        let mut tx = world.app.store().write().await.unwrap();
        tx.store_epoch_raise().await.unwrap();
        tx.commit().await.unwrap();
        let (updates, after) = world.lines(&ahead).await;
        assert!(updates[0].full);
        assert_eq!((updates[0].revision, after.revision), (Revision(0), Some(Revision(0))));
    }

    #[tokio::test]
    async fn other_content_under_the_same_revision_is_replaced_whole() {
        let world = World::new().await;
        let (_, have) = world.lines(&Have::default()).await;
        let other = Have { digest: Some(ContentDigest::default()), ..have };
        assert!(world.lines(&other).await.0[0].full);
        let elsewhere = Have { epoch: Some("other.1".parse().unwrap()), ..other };
        assert!(world.lines(&elsewhere).await.0[0].full);
    }
}
