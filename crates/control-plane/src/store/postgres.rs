//! PostgreSQL: one database, any number of control planes.
//!
//! * A change begins by locking the row of the change counter, which every change writes anyway: that is the queue
//!   in which the changes of all control planes follow one another. Because nothing is read before, there are no
//!   serialisation failures, and because nothing is locked before, there are no deadlocks among us.
//! * A reading is one moment (`REPEATABLE READ READ ONLY`) and waits for nobody.
//! * Everything has a limit of time, on both ends of the connection: a database that hangs costs a 503.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt as _;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgListener, PgPool, PgPoolOptions};
use sqlx::{ConnectOptions as _, Row as _};

use super::StoreError;

/// The channel on which changes are announced; the payload is the gateway group.
pub(super) const CHANNEL: &str = "gatewright_change";

/// Connections that read at the same time. With the one that writes and the one that listens, a control plane takes
/// ten of the hundred a server has by default.
const READERS_MAX: u32 = 8;

/// How long a call waits for a connection, or for its turn in the queue of changes, before it answers 503.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// After how long the server gives a statement up.
const STATEMENT_MAX: Duration = Duration::from_secs(20);

/// After how long an answer is given up here, because the server that should have given up cannot be reached.
const ANSWER_MAX: Duration = Duration::from_secs(25);

/// After how long the server ends a change whose control plane went silent, so that others get their turn.
const IDLE_IN_CHANGE_MAX: Duration = Duration::from_secs(10);

/// How long a start waits for another one that is migrating.
const MIGRATION_WAIT_MAX: Duration = Duration::from_secs(60);

/// How often a change is begun again that a stranger to us made fail at the lock.
const BEGIN_ATTEMPTS_MAX: usize = 3;

/// A PostgreSQL database.
#[derive(Clone)]
pub(super) struct Postgres {
    writer: PgPool,
    readers: PgPool,
    listener: PgPool,
}

/// A transaction on it.
pub(super) struct Transaction {
    tx: sqlx::Transaction<'static, sqlx::Postgres>,
    /// Whether a statement failed: PostgreSQL then undoes everything, even at a commit, and calls that a success.
    has_failed: bool,
}

impl Transaction {
    /// The answer to a statement, unless it does not come.
    pub(super) async fn answered<T>(
        &mut self,
        statement: impl AsyncFnOnce(&mut PgConnection) -> Result<T, sqlx::Error>,
    ) -> Result<T, sqlx::Error> {
        let answer = answered(statement(&mut self.tx)).await;
        self.has_failed |= answer.is_err();
        answer
    }

    pub(super) async fn commit(self) -> Result<(), StoreError> {
        if self.has_failed {
            let reason = "a statement of this change failed, so none of it can be kept".to_owned();
            return Err(StoreError::Conflict { reason });
        }
        answered(self.tx.commit()).await.map_err(commit_failed)
    }
}

impl Postgres {
    /// Opens a database that exists, migrating it as needed. Of several that start at once, one migrates.
    pub(super) async fn open(options: &PgConnectOptions) -> Result<Self, StoreError> {
        let options = options.clone().application_name("gatewright").disable_statement_logging();
        migrate(&options).await?;
        let options = options.options([
            ("statement_timeout", milliseconds(STATEMENT_MAX)),
            ("lock_timeout", milliseconds(WAIT_MAX)),
            ("idle_in_transaction_session_timeout", milliseconds(IDLE_IN_CHANGE_MAX)),
        ]);
        let pool = |size| PgPoolOptions::new().max_connections(size).acquire_timeout(WAIT_MAX);
        // One: a second could only wait for the first, in the database instead of here.
        let writer = answered(pool(1).connect_with(options.clone())).await?;
        let readers = answered(pool(READERS_MAX).connect_with(options.clone())).await?;
        let listener = pool(1).max_lifetime(None).idle_timeout(None).connect_lazy_with(options);
        Ok(Self { writer, readers, listener })
    }

    pub(super) async fn begin_reading(&self) -> Result<Transaction, StoreError> {
        let begin = self.readers.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY");
        Ok(Transaction { tx: answered(begin).await?, has_failed: false })
    }

    pub(super) async fn begin_writing(&self) -> Result<Transaction, StoreError> {
        let mut attempt = 1;
        loop {
            match self.begin_in_turn().await {
                Err(error) if attempt < BEGIN_ATTEMPTS_MAX && may_succeed_again(&error) => attempt += 1,
                begun => return Ok(begun?),
            }
        }
    }

    async fn begin_in_turn(&self) -> Result<Transaction, sqlx::Error> {
        // Every statement after the lock sees what the changes before have committed.
        let mut tx = answered(self.writer.begin_with("BEGIN ISOLATION LEVEL READ COMMITTED")).await?;
        let turn = sqlx::query("SELECT value FROM change_counter WHERE id = 1 FOR UPDATE");
        answered(turn.execute(&mut *tx)).await?;
        Ok(Transaction { tx, has_failed: false })
    }

    /// Starts listening to the announcements of others.
    pub(super) async fn listen(&self) -> Result<PgListener, StoreError> {
        let mut listener = answered(PgListener::connect_with(&self.listener)).await?;
        answered(listener.listen(CHANNEL)).await?;
        Ok(listener)
    }

    pub(super) async fn close(&self) {
        for pool in [&self.listener, &self.readers, &self.writer] {
            pool.close().await;
        }
    }
}

/// The answer to a call, unless it does not come or is none.
async fn answered<T>(call: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, sqlx::Error> {
    // The driver panics at messages that are shorter than they must be. What it leaves is a connection, which fails.
    let call = AssertUnwindSafe(call).catch_unwind();
    match tokio::time::timeout(ANSWER_MAX, call).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(_)) => {
            Err(sqlx::Error::Protocol("what answers does not speak the protocol of PostgreSQL".into()))
        }
        Err(_) => {
            let silence = format!("PostgreSQL did not answer within {} s", ANSWER_MAX.as_secs());
            Err(sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, silence)))
        }
    }
}

/// What a failed commit means: the server's refusal is certain, silence is not.
fn commit_failed(error: sqlx::Error) -> StoreError {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed => {
            StoreError::Unconfirmed { reason: error.to_string() }
        }
        // A server that was told to stop cuts connections off, committing or not.
        sqlx::Error::Database(ref refusal) if has_class(refusal.code(), "57") => {
            StoreError::Unconfirmed { reason: error.to_string() }
        }
        other => other.into(),
    }
}

/// Serialisation failures and deadlocks, which only strangers to us can bring about.
fn may_succeed_again(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|refusal| has_class(refusal.code(), "40"))
}

fn has_class(code: Option<std::borrow::Cow<'_, str>>, class: &str) -> bool {
    code.is_some_and(|code| code.starts_with(class))
}

async fn migrate(options: &PgConnectOptions) -> Result<(), StoreError> {
    let patient = options.clone().options([("lock_timeout", milliseconds(MIGRATION_WAIT_MAX))]);
    let pool = PgPoolOptions::new().max_connections(1).acquire_timeout(WAIT_MAX);
    let pool = answered(pool.connect_with(patient)).await?;
    must_be_usable(&pool).await?;
    // sqlx migrates under an advisory lock of the database, each migration in a transaction.
    sqlx::migrate!("migrations/postgres").run(&pool).await?;
    pool.close().await;
    Ok(())
}

/// Refuses a database that would fail only later, and says so if it does not keep what it confirms.
async fn must_be_usable(pool: &PgPool) -> Result<(), StoreError> {
    let settings = sqlx::query(
        "SELECT current_setting('server_encoding') AS encoding, current_setting('synchronous_commit') AS durability",
    );
    let row = answered(settings.fetch_one(pool)).await?;
    let encoding: String = row.try_get("encoding")?;
    if encoding != "UTF8" {
        let reason = format!("its encoding is {encoding}; create a database with the encoding UTF8");
        return Err(StoreError::Unavailable { reason });
    }
    if row.try_get::<String, _>("durability")? == "off" {
        tracing::warn!("synchronous_commit is off: a crash of PostgreSQL can undo what was confirmed");
    }
    Ok(())
}

fn milliseconds(time: Duration) -> String {
    time.as_millis().to_string()
}
