//! The lifecycle as a whole: whatever is done in whatever order, the store says what a few lines of plain data say,
//! and gateways are sent exactly that.
//!
//! Nothing here knows SQL, transactions or time. [`Lifecycle`] is what a service's life means; the rules and the
//! store are right if they cannot be told from it.

mod faults;
mod run;
mod state;
mod verb;

use proptest::prelude::*;
use tempfile::TempDir;

use super::tests::opened;
use crate::store::DatabaseUrl;
use run::Run;
use state::Lifecycle;
use verb::{Step, steps};

/// Runs `steps` on an empty store at `url`.
fn run(url: &DatabaseUrl, steps: &[Step]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut run = Run::start(opened(url).await).await;
        for step in steps {
            Box::pin(run.step(step)).await;
        }
    });
}

fn on_sqlite(steps: &[Step]) {
    let dir = TempDir::new().unwrap();
    run(&DatabaseUrl::sqlite(dir.path().join("test.db")), steps);
}

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, max_shrink_iters: 100, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config(32))]

    #[test]
    fn whatever_is_done_in_whatever_order_the_store_and_the_gateways_follow(steps in steps(40)) {
        on_sqlite(&steps);
    }
}

proptest! {
    #![proptest_config(config(4))]

    #[test]
    fn whatever_is_done_in_whatever_order_postgres_and_the_gateways_follow(steps in steps(30)) {
        run(&gatewright_test_postgres::Server::shared().database().parse().unwrap(), &steps);
    }
}

/// A long life, so that the rarer turns are surely among what is tested.
#[test]
fn generated_lives_hold_every_verb_and_most_of_them_succeed() {
    use proptest::strategy::ValueTree as _;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut outcomes = std::collections::BTreeMap::<_, [usize; 2]>::new();
    for _ in 0..200 {
        let mut life = Lifecycle::start();
        for step in steps(40).new_tree(&mut runner).unwrap().current() {
            let outcome = life.after(&step.verb);
            outcomes.entry(step.verb.name()).or_default()[usize::from(outcome.is_err())] += 1;
            life = outcome.unwrap_or(life);
        }
    }
    for (verb, [succeeded, refused]) in &outcomes {
        assert!(*succeeded >= 20 && *refused >= 5, "{verb}: {succeeded} succeeded, {refused} were refused");
    }
    assert_eq!(outcomes.len(), verb::NAMES, "{outcomes:?}");
}
