//! The last good nodes of every service that is followed, kept on disk beside the configuration: a gateway that starts
//! while a registry is away serves what it knew when it ended, and says how old that is.
//!
//! What is kept is no answer. A registry that is there is heard first, and its first good answer takes the place of what
//! was kept, an empty one as well. A disk that fails costs the next start, never the traffic.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use gatewright_discovery::follow::Known;
use gatewright_model::resource::service_registry::Wanted;
use gatewright_model::resource::upstream::Node;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::Instant;

use super::{Services, followed};
use crate::source::cache::SealedFile;

/// The name of the file.
pub(crate) const FILE: &str = "nodes";

/// Bytes of the file: half a million nodes. The services that find no room are not kept.
pub(crate) const FILE_BYTES_MAX: u64 = 64 << 20;

/// Bytes of a file that hold no service: what seals it.
const SEAL_BYTES: usize = 256;

/// Between two looks whether nodes have changed.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// After so long the file is written although no node has changed, for its age.
const AGE_INTERVAL: Duration = Duration::from_secs(60);

/// A line of the file.
#[derive(Serialize)]
struct Line<'a> {
    wanted: &'a Wanted,
    /// Seconds since the epoch at which the nodes were last named.
    heard_at: u64,
    nodes: &'a [Node],
}

/// The same when it is read.
#[derive(Deserialize)]
struct Read {
    wanted: Wanted,
    heard_at: u64,
    nodes: Vec<Node>,
}

/// What a process before this one knew.
pub(super) fn load(file: &SealedFile) -> HashMap<Wanted, Known> {
    let document = file.read().unwrap_or_else(|error| {
        tracing::error!(%error, "the kept nodes of services cannot be used");
        None
    });
    let now = unix_seconds();
    let kept = read(&document.unwrap_or_default(), now);
    if !kept.is_empty() {
        tracing::info!(services = kept.len(), "nodes of services were kept on disk");
    }
    kept
}

fn read(document: &[u8], now: u64) -> HashMap<Wanted, Known> {
    let lines = document.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    // A line of another release that says something else is left out.
    let lines = lines.filter_map(|line| serde_json::from_slice::<Read>(line).ok());
    let kept = lines.map(|Read { wanted, heard_at, nodes }| {
        (wanted, Known::kept(nodes, Duration::from_secs(now.saturating_sub(heard_at))))
    });
    kept.collect()
}

/// Keeps what becomes known of `services` in `file`, until `stopping`.
pub(super) async fn keep(file: SealedFile, services: Services, mut stopping: watch::Receiver<bool>) {
    let file = Arc::new(file);
    let (mut keeping, mut is_failing) = (Keeping::default(), false);
    loop {
        tokio::select! {
            () = tokio::time::sleep(LOOK_INTERVAL) => {}
            _ = stopping.wait_for(|stopping| *stopping) => return,
        }
        let known = followed(&services).iter().map(|one| (one.wanted.clone(), one.known())).collect();
        let Some(news) = keeping.news(known) else { continue };
        let (file, known) = (Arc::clone(&file), Arc::clone(&news));
        let writing = tokio::task::spawn_blocking(move || file.write(&written(&known, unix_seconds())));
        match writing.await.map_err(io::Error::other).flatten() {
            Ok(true) => {
                keeping.kept(&news);
                is_failing = false;
            }
            // The process before this one writes until it has stopped.
            Ok(false) => {}
            Err(error) if !std::mem::replace(&mut is_failing, true) => {
                tracing::error!(%error, "the nodes of services cannot be kept on disk; a restart while their registry is away would not have them");
            }
            Err(_) => {}
        }
    }
}

/// What is on disk.
#[derive(Default)]
struct Keeping {
    nodes: Vec<(Wanted, Arc<[Node]>)>,
    written_at: Option<Instant>,
}

type Everything = Arc<[(Wanted, Known)]>;

impl Keeping {
    /// What is to be written, if anything is.
    fn news(&self, known: Vec<(Wanted, Known)>) -> Option<Everything> {
        // As long as nobody was heard, the file says all there is.
        let fresh = known.iter().any(|(_, known)| known.heard.is_some_and(|heard| !heard.is_kept()));
        let nodes = known.iter().filter_map(|(wanted, known)| Some((wanted, known.nodes.as_ref()?)));
        let is_same = nodes.clone().count() == self.nodes.len()
            && nodes
                .zip(&self.nodes)
                .all(|((wanted, nodes), (before, were))| wanted == before && Arc::ptr_eq(nodes, were));
        let is_old = self.written_at.is_none_or(|at| at.elapsed() >= AGE_INTERVAL);
        (fresh && (!is_same || is_old)).then(|| known.into())
    }

    fn kept(&mut self, known: &Everything) {
        let nodes = known.iter().filter_map(|(wanted, known)| Some((wanted.clone(), known.nodes.clone()?)));
        *self = Self { nodes: nodes.collect(), written_at: Some(Instant::now()) };
    }
}

/// The file, in which a service has a line.
fn written(known: &[(Wanted, Known)], now: u64) -> Vec<u8> {
    let room = usize::try_from(FILE_BYTES_MAX).unwrap_or(usize::MAX) - SEAL_BYTES;
    let (mut document, mut left_out) = (Vec::new(), 0);
    for (wanted, known) in known {
        let (Some(nodes), Some(age)) = (&known.nodes, known.age()) else { continue };
        let line = Line { wanted, heard_at: now.saturating_sub(age.as_secs()), nodes };
        match serde_json::to_vec(&line) {
            Ok(line) if document.len() + line.len() < room => {
                document.extend_from_slice(&line);
                document.push(b'\n');
            }
            _ => left_out += 1,
        }
    }
    if left_out > 0 {
        tracing::warn!(services = left_out, "there is no room to keep the nodes of every service on disk");
    }
    document
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn wanted(name: &str) -> Wanted {
        let upstream = json!({"service_name": name, "discovery_type": "nacos", "discovery_args": {
            "namespace_id": "n", "metadata": {"zone": ["a", "b"]}}});
        Wanted::of(&serde_json::from_value(upstream).unwrap()).unwrap()
    }

    fn node(host: &str) -> Node {
        Node { host: host.to_owned(), port: 80, weight: 3, priority: -1 }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_kept_is_as_old_as_it_is_however_often_it_is_kept() {
        let known = [(wanted("one"), Known::kept(vec![node("a"), node("b")], Duration::from_secs(40)))];
        let first = read(&written(&known, 1000), 1020);
        assert_eq!(first.len(), 1);
        let again = &first[&wanted("one")];
        assert_eq!(again.age(), Some(Duration::from_secs(60)));
        assert_eq!(again.nodes.as_deref(), Some(&[node("a"), node("b")][..]));
        let third = read(&written(&[(wanted("one"), again.clone())], 1020), 1000);
        assert_eq!(third[&wanted("one")].age(), Some(Duration::from_secs(40)), "a clock that went back");
    }

    #[test]
    fn lines_that_are_not_understood_are_left_out() {
        let known = [(wanted("one"), Known::kept(Vec::new(), Duration::ZERO))];
        let document = [b"{\"wanted\": 1}\n\nnonsense\n".as_slice(), &written(&known, 0)].concat();
        assert_eq!(read(&document, 0).into_keys().collect::<Vec<_>>(), [wanted("one")]);
    }

    /// A service whose watch gave these answers.
    async fn heard(name: &str, nodes: Vec<Node>) -> (Wanted, Known) {
        struct Once(Option<Vec<Node>>);
        impl gatewright_discovery::Watch for Once {
            fn next(
                &mut self,
            ) -> gatewright_discovery::Waiting<'_, Result<Vec<Node>, gatewright_discovery::Trouble>>
            {
                Box::pin(async {
                    match self.0.take() {
                        Some(nodes) => Ok(nodes),
                        None => std::future::pending().await,
                    }
                })
            }
        }
        let (sender, mut known) = watch::channel(Known::default());
        let following = gatewright_discovery::follow::follow(Box::new(Once(Some(nodes))), &sender);
        tokio::select! {
            () = following => {}
            _ = known.wait_for(Known::is_settled) => {}
        }
        let known = known.borrow().clone();
        (wanted(name), known)
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_written_when_nodes_change_and_now_and_then_but_never_before_anybody_was_heard() {
        let mut keeping = Keeping::default();
        let kept = (wanted("one"), Known::kept(vec![node("a")], Duration::ZERO));
        assert!(keeping.news(vec![kept.clone()]).is_none());
        assert!(keeping.news(Vec::new()).is_none());
        let other = heard("two", vec![node("b")]).await;
        let news = keeping.news(vec![kept.clone(), other.clone()]).unwrap();
        assert!(keeping.news(vec![kept.clone(), other.clone()]).is_some(), "it is not on disk yet");
        keeping.kept(&news);
        assert!(keeping.news(vec![kept.clone(), other.clone()]).is_none());
        assert!(keeping.news(vec![other.clone()]).is_some(), "a service has gone");
        let changed = heard("two", vec![node("c")]).await;
        assert!(keeping.news(vec![kept.clone(), changed]).is_some());
        tokio::time::advance(AGE_INTERVAL).await;
        assert!(keeping.news(vec![kept, other]).is_some(), "its age has changed");
    }
}
