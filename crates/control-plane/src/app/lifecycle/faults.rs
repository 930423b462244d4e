//! Every verb, with every one of its steps at the database going wrong in turn, on both databases.

use std::path::Path;

use gatewright_test_postgres::Server;
use serde_json::json;
use tempfile::TempDir;

use super::super::Refusal;
use super::super::tests::opened;
use super::run::Run;
use super::verb::{Edit, Step, Verb, opening};
use crate::store::faults::{connections_cut, dying_at, interrupt_publications};
use crate::store::{DatabaseUrl, Store};

/// All verbs that change what is stored, to be done one after the other after the opening.
fn verbs() -> impl Iterator<Item = Step> {
    let both = |number| vec![("s0", number, None), ("s1", number, Some("b.example".to_owned()))];
    let route = || json!({ "name": "r4", "service_id": "s2", "paths": ["/a"] });
    let verbs = [
        Verb::TemplatePut { service: "s2", content: json!({ "name": "s2" }) },
        Verb::RoutePut { route: "r4", content: route() },
        Verb::Publish { group: "g0", services: both("1.0.1") },
        Verb::Publish { group: "g1", services: both("1.1.0") },
        Verb::PublishAgain { group: "g0", services: vec![("s0", "1.0.0"), ("s1", "1.1.0")] },
        Verb::RuntimePatch { group: "g0", service: "s0", edit: Edit::Node("n".to_owned()) },
        Verb::UpstreamPut { group: "g0", service: "s0", upstream: "u0", host: "u".to_owned() },
        Verb::CanaryEnd { group: "g0", service: "s0", upstream: "u0", is_promoted: true },
        Verb::Synchronise { group: "g1", source: "g0", services: vec![("s0", None)] },
        Verb::ServiceWrite { group: "g0", service: "s2", content: json!({ "name": "s2" }) },
        Verb::RouteWrite { group: "g0", route: "r4", content: route() },
        Verb::Synchronise { group: "g1", source: "g0", services: vec![("s2", Some("1.0.0"))] },
        Verb::Unpublish { group: "g0", service: "s1" },
        Verb::Unpublish { group: "g0", service: "s2" },
        Verb::Unpublish { group: "g1", service: "s2" },
        Verb::RouteDelete { route: "r4" },
        Verb::TemplateDelete { service: "s2" },
    ];
    verbs.into_iter().map(Step::plain)
}

/// A store of which a process can die, and where another finds what it left.
struct Scene {
    url: DatabaseUrl,
    dir: TempDir,
    deaths: usize,
}

impl Scene {
    fn sqlite() -> Self {
        let dir = TempDir::new().unwrap();
        Self { url: DatabaseUrl::sqlite(dir.path().join("0.db")), dir, deaths: 0 }
    }

    fn postgres() -> Self {
        let url = Server::shared().database().parse().unwrap();
        Self { url, dir: TempDir::new().unwrap(), deaths: 0 }
    }

    async fn open(&self) -> Store {
        opened(&self.url).await
    }

    async fn opened(&self) -> Run {
        let mut run = Run::start(self.open().await).await;
        for step in opening() {
            Box::pin(run.step(&step)).await;
        }
        run
    }

    /// What is left when the process dies at this moment: the files as they are, or a database whose client is gone.
    async fn die(&mut self, process: &Store) -> Store {
        self.deaths += 1;
        if let Some(path) = self.url.sqlite_path() {
            let left = self.dir.path().join(format!("{}.db", self.deaths));
            copy(path, &left, "");
            copy(path, &left, "-wal");
            self.url = DatabaseUrl::sqlite(left);
            return self.open().await;
        }
        connections_cut(process).await;
        self.open().await
    }
}

fn copy(from: &Path, to: &Path, suffix: &str) {
    let with_suffix = |path: &Path| format!("{}{suffix}", path.display());
    std::fs::copy(with_suffix(from), with_suffix(to)).unwrap();
}

async fn a_refused_step_changes_nothing(scene: Scene) {
    let mut run = scene.opened().await;
    for mut step in verbs() {
        let mut failures = 0;
        loop {
            step.failing_at = Some(failures);
            if Box::pin(run.step(&step)).await {
                break;
            }
            failures += 1;
        }
        assert!(failures >= 6, "only {failures} steps of {step:?} failed");
    }
}

async fn a_process_that_dies_leaves_all_or_nothing(mut scene: Scene) {
    let mut run = scene.opened().await;
    let mut deaths_after_the_commit = 0;
    for step in verbs() {
        for nth in 0.. {
            let left = {
                let dead = Box::pin(dying_at(nth, run.perform(&step.verb, false))).await;
                assert!(dead.is_some(), "{step:?} was done, although it should have died");
                scene.die(run.app.store()).await
            };
            run.resume(left);
            if Box::pin(run.is_done_or_not(&step)).await {
                deaths_after_the_commit += 1;
                break;
            }
        }
    }
    assert_eq!(deaths_after_the_commit, verbs().count());
    assert!(scene.deaths > 70, "{}", scene.deaths);
}

#[tokio::test]
async fn p1_a_verb_of_which_a_step_is_refused_changes_nothing_on_sqlite() {
    Box::pin(a_refused_step_changes_nothing(Scene::sqlite())).await;
}

#[tokio::test]
async fn p1_a_verb_of_which_a_step_is_refused_changes_nothing_on_postgres() {
    Box::pin(a_refused_step_changes_nothing(Scene::postgres())).await;
}

#[tokio::test]
async fn p1_a_process_that_dies_within_a_verb_leaves_all_or_nothing_on_sqlite() {
    Box::pin(a_process_that_dies_leaves_all_or_nothing(Scene::sqlite())).await;
}

#[tokio::test]
async fn p1_a_process_that_dies_within_a_verb_leaves_all_or_nothing_on_postgres() {
    Box::pin(a_process_that_dies_leaves_all_or_nothing(Scene::postgres())).await;
}

#[tokio::test]
async fn p12_a_publish_that_deadlocks_is_begun_again_and_not_for_ever() {
    let scene = Scene::postgres();
    let run = scene.opened().await;
    for (interruptions, number, is_done) in [(2, "1.0.1", true), (3, "1.1.0", false)] {
        interrupt_publications(run.app.store(), interruptions).await;
        let publish = Verb::Publish { group: "g0", services: vec![("s0", number, None)] };
        let outcome = Box::pin(run.perform(&publish, false)).await;
        assert_eq!(outcome.is_ok(), is_done, "{outcome:?}");
        assert!(is_done || matches!(outcome, Err(Refusal::Interrupted { .. })), "{outcome:?}");
    }
}

/// The clock goes back an hour: order, numbers and history do not care.
#[tokio::test]
async fn p29_a_clock_that_goes_back_changes_no_order() {
    let scene = Scene::sqlite();
    let mut run = scene.opened().await;
    for (number, seconds) in [("1.0.1", 10), ("1.1.0", -3600), ("2", 1)] {
        let verb = Verb::Publish { group: "g0", services: vec![("s0", number, None)] };
        assert!(Box::pin(run.step(&Step { seconds, ..Step::plain(verb) })).await);
    }
}
