//! The loop around a watch: what is known of a service, and how old that is.
//!
//! The nodes of the last good answer stay as long as errors come; an empty good answer is one like any other. After an
//! error the pauses grow, with jitter, so that a registry which comes back is not trampled by everybody at once.

use std::sync::Arc;
use std::time::Duration;

use gatewright_model::limits::DISCOVERED_NODES_MAX;
use gatewright_model::resource::upstream::Node;
use tokio::sync::watch::Sender;
use tokio::time::Instant;

use crate::{Trouble, Watch};

/// Pauses after errors; each in a row doubles it.
const PAUSE_MIN: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// The shortest time between two answers: a registry that answers at once for ever is not asked for ever at once.
const SPACING: Duration = Duration::from_millis(50);

/// What is known of a service.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// The nodes of the last good answer, in the order of hosts and ports, each once; `None`: there was none yet.
    pub nodes: Option<Arc<[Node]>>,
    /// When the last good answer came.
    pub heard: Option<Heard>,
    /// Why the newest answer is not a good one, if it is not.
    pub trouble: Option<Trouble>,
    /// The answers that were not good.
    pub failures: u64,
}

/// When a good answer came.
#[derive(Clone, Copy, Debug)]
pub struct Heard {
    at: Instant,
    /// How old it was at that moment, if another process heard it.
    age_then: Option<Duration>,
}

impl Heard {
    /// By this process, now.
    #[must_use]
    pub fn now() -> Self {
        Self { at: Instant::now(), age_then: None }
    }

    /// How long ago that was.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.age_then.unwrap_or_default() + self.at.elapsed()
    }

    /// Whether a process before this one heard it.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        self.age_then.is_some()
    }
}

impl Known {
    /// What a process before this one knew, so long ago.
    #[must_use]
    pub fn kept(nodes: Vec<Node>, age: Duration) -> Self {
        let heard = Heard { at: Instant::now(), age_then: Some(age) };
        Self { nodes: Some(nodes.into()), heard: Some(heard), ..Self::default() }
    }

    /// Whether there was an answer of any kind; what was kept is none.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.trouble.is_some() || self.heard.is_some_and(|heard| !heard.is_kept())
    }

    /// How long ago the last good answer came.
    #[must_use]
    pub fn age(&self) -> Option<Duration> {
        self.heard.map(|heard| heard.age())
    }

    /// The same after a good answer; whether that is news.
    fn hear(&mut self, nodes: Vec<Node>) -> bool {
        let was_settled = self.is_settled();
        self.heard = Some(Heard::now());
        let had_trouble = self.trouble.take().is_some();
        let is_same = self.nodes.as_deref().is_some_and(|before| *before == *nodes);
        if !is_same {
            self.nodes = Some(nodes.into());
        }
        !was_settled || had_trouble || !is_same
    }

    /// The same after a failure.
    pub fn fail(&mut self, trouble: Trouble) {
        self.failures += 1;
        self.trouble = Some(trouble);
    }
}

/// Keeps `known` true to what `watch` says, for as long as it is polled.
pub async fn follow(mut watch: Box<dyn Watch>, known: &Sender<Known>) {
    let mut pause = PAUSE_MIN;
    loop {
        let began = Instant::now();
        let answer = watch.next().await.and_then(in_order);
        match answer {
            Ok(nodes) => {
                pause = PAUSE_MIN;
                known.send_if_modified(|known| known.hear(nodes));
                tokio::time::sleep_until(began + SPACING).await;
            }
            Err(trouble) => {
                known.send_modify(|known| known.fail(trouble));
                tokio::time::sleep(pause.mul_f64(0.75 + 0.5 * fastrand::f64())).await;
                pause = (pause * 2).min(PAUSE_MAX);
            }
        }
    }
}

/// The nodes in an order that does not depend on the answer's, each place once.
fn in_order(mut nodes: Vec<Node>) -> Result<Vec<Node>, Trouble> {
    nodes.sort_by(|one, other| (&one.host, one.port).cmp(&(&other.host, other.port)));
    nodes.dedup_by(|one, other| one.host == other.host && one.port == other.port);
    if nodes.len() > DISCOVERED_NODES_MAX {
        let count = nodes.len();
        return Err(Trouble::new(format!("it names {count} nodes, more than {DISCOVERED_NODES_MAX}")));
    }
    Ok(nodes)
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;
    use crate::Waiting;

    /// Answers one after the other and then never again.
    struct Script(VecDeque<Result<Vec<Node>, Trouble>>);

    impl Watch for Script {
        fn next(&mut self) -> Waiting<'_, Result<Vec<Node>, Trouble>> {
            Box::pin(async {
                match self.0.pop_front() {
                    Some(answer) => answer,
                    None => std::future::pending().await,
                }
            })
        }
    }

    fn node(host: &str) -> Node {
        Node { host: host.to_owned(), port: 80, weight: 1, priority: 0 }
    }

    /// What is known after each change, shortened: hosts, and whether there is trouble.
    async fn states(answers: Vec<Result<Vec<Node>, Trouble>>) -> Vec<(Option<Vec<String>>, bool)> {
        let (sender, mut known) = tokio::sync::watch::channel(Known::default());
        let following = tokio::spawn(async move { follow(Box::new(Script(answers.into())), &sender).await });
        let mut states = Vec::new();
        // Time is paused and jumps only when nobody has anything to do.
        while let Ok(Ok(())) = tokio::time::timeout(Duration::from_secs(3600), known.changed()).await {
            let known = known.borrow_and_update();
            let hosts = |nodes: &Arc<[Node]>| nodes.iter().map(|node| node.host.clone()).collect();
            states.push((known.nodes.as_ref().map(hosts), known.trouble.is_some()));
        }
        following.abort();
        states
    }

    #[tokio::test(start_paused = true)]
    async fn an_error_keeps_the_last_good_nodes_and_an_empty_answer_does_not() {
        let hosts = |hosts: &[&str]| Some(hosts.iter().map(|host| (*host).to_owned()).collect::<Vec<_>>());
        let wrong = || Err(Trouble::new("it is down"));
        let seen = states(vec![
            wrong(),
            Ok(vec![node("b"), node("a"), node("b")]),
            Ok(vec![node("a"), node("b")]),
            wrong(),
            wrong(),
            Ok(vec![node("a"), node("b")]),
            Ok(Vec::new()),
        ])
        .await;
        assert_eq!(
            seen,
            [
                (None, true),
                (hosts(&["a", "b"]), false),
                (hosts(&["a", "b"]), true),
                (hosts(&["a", "b"]), true),
                (hosts(&["a", "b"]), false),
                (hosts(&[]), false)
            ]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_kept_is_no_answer_and_the_first_good_one_takes_its_place() {
        let known = Known::kept(vec![node("a")], Duration::from_secs(60));
        assert!(!known.is_settled() && known.age() == Some(Duration::from_secs(60)));
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(known.age(), Some(Duration::from_secs(65)));
        let (mut same, mut other, mut failed) = (known.clone(), known.clone(), known);
        failed.fail(Trouble::new("it is down"));
        assert!(
            failed.is_settled() && failed.nodes.is_some() && failed.age() == Some(Duration::from_secs(65))
        );
        assert!(same.hear(vec![node("a")]) && !same.hear(vec![node("a")]), "that it is true now is news");
        assert!(other.hear(Vec::new()) && other.nodes.is_some_and(|nodes| nodes.is_empty()));
        assert_eq!(same.age(), Some(Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn more_nodes_than_anybody_can_use_are_an_error() {
        let many = (0..=DISCOVERED_NODES_MAX).map(|number| node(&number.to_string())).collect();
        assert_eq!(states(vec![Ok(many)]).await, [(None, true)]);
    }
}
