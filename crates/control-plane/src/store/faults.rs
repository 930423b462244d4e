//! Failures on demand, for tests: any step that a change takes at the database can be made the one that fails.
//!
//! The database asks [`step`] at the begin, at every statement and at the commit of a transaction, and [`confirm`]
//! when a commit is durable. What is built for production does not contain the questions.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

use super::database::query;
use super::{Store, StoreError};

tokio::task_local! {
    static PLAN: Arc<Plan>;
}

struct Plan {
    nth: usize,
    steps: AtomicUsize,
    /// None: the step is refused. Some: it is never answered, and this says that it was reached.
    silence: Option<Notify>,
}

impl Plan {
    fn new(nth: usize, silence: Option<Notify>) -> Arc<Self> {
        Arc::new(Self { nth, steps: AtomicUsize::new(0), silence })
    }
}

/// Runs `serving`, whose step `nth` (counted from 0) the database refuses.
pub(crate) async fn failing_at<F: Future>(nth: usize, serving: F) -> F::Output {
    PLAN.scope(Plan::new(nth, None), serving).await
}

/// Runs `serving` up to its step `nth`, as if the process had died there. What is left of it is answered, so that it
/// can be looked at what it leaves behind; nothing, if it had come to its end before.
pub(crate) async fn dying_at<'a, F: Future + 'a>(
    nth: usize,
    serving: F,
) -> Option<Pin<Box<dyn Future<Output = F::Output> + 'a>>> {
    let plan = Plan::new(nth, Some(Notify::new()));
    let mut serving: Pin<Box<dyn Future<Output = F::Output> + 'a>> =
        Box::pin(PLAN.scope(Arc::clone(&plan), serving));
    tokio::select! {
        _ = &mut serving => return None,
        () = plan.silence.as_ref()?.notified() => {}
    }
    Some(serving)
}

/// Cuts every connection to a PostgreSQL database but the one that asks for it, as the death of a process does.
pub(crate) async fn connections_cut(store: &Store) {
    let mut tx = store.read().await.unwrap().tx;
    let others = "SELECT pg_terminate_backend(pid)::int AS done FROM pg_stat_activity \
        WHERE datname = current_database() AND pid <> pg_backend_pid()";
    tx.rows(query(others)).await.unwrap();
}

async fn is_due() -> bool {
    let due = PLAN.try_with(|plan| {
        let is_due = plan.steps.fetch_add(1, Ordering::SeqCst) == plan.nth;
        is_due.then(|| Arc::clone(plan))
    });
    let Ok(Some(plan)) = due else { return false };
    if let Some(silence) = &plan.silence {
        silence.notify_one();
        std::future::pending::<()>().await;
    }
    true
}

/// Fails if this step is the one that should.
pub(super) async fn step() -> Result<(), StoreError> {
    if is_due().await {
        return Err(StoreError::Unavailable { reason: "a test refuses this".to_owned() });
    }
    Ok(())
}

/// Loses the answer to a commit if this step is the one that should fail.
pub(super) async fn confirm() -> Result<(), StoreError> {
    if is_due().await {
        return Err(StoreError::Unconfirmed { reason: "a test loses this answer".to_owned() });
    }
    Ok(())
}

/// Lets the database interrupt the next `times` changes that publish something, as a deadlock would.
pub(crate) async fn interrupt_publications(store: &Store, times: usize) {
    let mut tx = store.write().await.unwrap();
    let times = i64::try_from(times).unwrap();
    // A sequence goes on counting when a transaction is undone.
    for sql in [
        "CREATE SEQUENCE IF NOT EXISTS interruptions".to_owned(),
        "SELECT setval('interruptions', 1, false)".to_owned(),
        format!(
            "CREATE OR REPLACE FUNCTION interrupt() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
             IF nextval('interruptions') <= {times} THEN RAISE SQLSTATE '40P01'; END IF; RETURN NEW; END $$"
        ),
        "CREATE OR REPLACE TRIGGER interrupted BEFORE INSERT ON publication \
         FOR EACH ROW EXECUTE FUNCTION interrupt()"
            .to_owned(),
    ] {
        tx.tx.execute(query(sql)).await.unwrap();
    }
    tx.commit().await.unwrap();
}
