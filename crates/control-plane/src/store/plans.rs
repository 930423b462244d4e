//! What every statement costs the database, asked of the database itself: tests refuse what reads more than it needs.
//!
//! Each statement that runs within [`observed`] is planned and weighed as it comes, in the transaction and on the rows
//! it really meets. PostgreSQL says which tables it scans from end to end and how many rows it touches; SQLite says the
//! same of its scans and sorts, and counts the steps of its machine.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sqlx::{AssertSqlSafe, Row as _};

use super::database::{Query, Transaction};
use super::{Store, StoreError};

tokio::task_local! {
    static SEEN: RefCell<Vec<Plan>>;
}

/// A statement and what it costs.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) statement: String,
    /// The database's own words.
    pub(crate) lines: Vec<String>,
    work: Work,
}

#[derive(Clone, Debug)]
enum Work {
    /// Rows that any part of the plan produced or threw away.
    Rows(u64),
    /// Steps of the machine, known when the statement has run.
    Steps(Arc<AtomicU64>),
}

/// Between two looks at the machine, this many steps pass.
const STEPS_AT_ONCE: i32 = 50;

impl Plan {
    /// Why this is too much, if it is: a table is read from end to end, or more is touched than a page needs.
    pub(crate) fn excess(&self, tables: &[&str], rows_max: u64, steps_max: u64) -> Option<String> {
        let is_scan = |line: &&String| {
            // Walking an index for a page of it is no scan of everything; how far it was walked, is weighed.
            if line.contains(" USING ") {
                return false;
            }
            let scanned = line.trim_start_matches([' ', '-', '>']);
            let scanned = scanned.strip_prefix("Seq Scan on ").or_else(|| scanned.strip_prefix("SCAN "));
            let table = scanned.and_then(|rest| rest.split_whitespace().next());
            table.is_some_and(|table| self.means(table, tables))
        };
        if let Some(line) = self.lines.iter().find(is_scan) {
            return Some(line.trim().to_owned());
        }
        let (work, max, unit) = match &self.work {
            Work::Rows(rows) => (*rows, rows_max, "rows"),
            Work::Steps(steps) => (steps.load(Ordering::Relaxed), steps_max, "steps"),
        };
        (work > max).then(|| format!("{work} {unit}"))
    }

    /// Whether `name`, a table or its alias in this statement, is one of `tables`.
    fn means(&self, name: &str, tables: &[&str]) -> bool {
        tables.iter().any(|table| *table == name || self.statement.contains(&format!("{table} {name} ")))
    }
}

/// Runs `serving` and says what its statements cost, one after the other.
pub(crate) async fn observed<F: Future>(serving: F) -> (F::Output, Vec<Plan>) {
    // On the heap: what is observed is large, and so would be everything that waits for it.
    let observing = SEEN.scope(RefCell::default(), async {
        let output = serving.await;
        (output, SEEN.with(|seen| seen.take()))
    });
    Box::pin(observing).await
}

/// Plans and weighs `query` before it runs.
pub(super) async fn observe(tx: &mut Transaction, query: &Query) -> Result<(), StoreError> {
    if SEEN.try_with(|_| ()).is_err() {
        return Ok(());
    }
    let statement = query.sql().to_owned();
    let plan = match tx {
        Transaction::Sqlite(tx) => {
            let explain = query.clone().prefixed("EXPLAIN QUERY PLAN ").for_sqlite();
            let rows = explain.fetch_all(&mut **tx).await?;
            let lines = rows.iter().map(|row| row.try_get("detail")).collect::<Result<_, _>>()?;
            let steps = Arc::new(AtomicU64::new(0));
            let counter = Arc::clone(&steps);
            tx.lock_handle().await?.set_progress_handler(STEPS_AT_ONCE, move || {
                counter.fetch_add(STEPS_AT_ONCE.unsigned_abs().into(), Ordering::Relaxed);
                true
            });
            Plan { statement, lines, work: Work::Steps(steps) }
        }
        Transaction::Postgres(tx) => {
            // Weighing runs the statement; it must not have happened when it really runs.
            let point = |sql: &'static str| sqlx::query(AssertSqlSafe(sql));
            tx.answered(async |tx| point("SAVEPOINT weighing").execute(tx).await).await?;
            let explain = query.clone().prefixed("EXPLAIN (ANALYZE, TIMING OFF, SUMMARY OFF) ");
            let rows = tx.answered(async |tx| explain.for_postgres().fetch_all(tx).await).await?;
            let lines: Vec<String> = rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
            tx.answered(async |tx| point("ROLLBACK TO weighing").execute(tx).await).await?;
            let work = Work::Rows(lines.iter().map(|line| touched(line)).sum());
            Plan { statement, lines, work }
        }
    };
    SEEN.with(|seen| seen.borrow_mut().push(plan));
    Ok(())
}

/// Rows that one line of a plan of PostgreSQL speaks of.
fn touched(line: &str) -> u64 {
    let number = |after: &str| -> f64 {
        let Some((_, rest)) = line.split_once(after) else { return 0.0 };
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        rest[..end].parse().unwrap_or_default()
    };
    let produced = number("(actual rows=") * number(" loops=");
    let removed = number("Rows Removed by Filter: ") + number("Rows Removed by Join Filter: ");
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count of rows")]
    let touched = (produced + removed) as u64;
    touched
}

impl Store {
    /// Lets the database look at what it holds, as it does by itself after a while.
    pub(super) async fn analyse(&self) -> Result<(), StoreError> {
        let mut tx = self.write().await?.reading.tx;
        tx.execute(super::database::query("ANALYZE")).await?;
        tx.commit().await
    }
}
