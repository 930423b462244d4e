//! The call for which the store is changed: what the audit log will say of it, and whether it is a dry run.
//!
//! It is bound to the task that serves the call, so that no operation can forget it: every [`super::Writing`] that
//! such a task commits carries the call's audit row, or, in a dry run, is not committed at all.
//! A condition of the call (`If-Match`) is bound to it for the same reason: a change that did not look at it is refused.
//! Without a call (a first start, a background task) a commit is just that.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::AuditRow;

tokio::task_local! {
    static CURRENT: Arc<Call>;
}

/// A call that may change the store.
pub(crate) struct Call {
    is_dry_run: bool,
    condition: Option<Condition>,
    account: Mutex<Account>,
}

/// Which states of the object the caller wants to change: `*` for any, or the tags of states.
struct Condition {
    tags: String,
    is_read: AtomicBool,
}

/// What is known of a call so far.
struct Account {
    row: AuditRow,
    /// What the call changes, where the path does not say it: id and name.
    resources: Vec<(String, String)>,
    /// What was sent and must not be kept, wherever it turns up again.
    secrets: Vec<String>,
    is_recorded: bool,
}

/// The tag of an object whose last change has this number.
pub(crate) fn entity_tag(change_number: i64) -> String {
    format!("\"{change_number}\"")
}

impl Call {
    /// A call; if there are `tags`, one that may change an object only in a state that they name, as in `If-Match`.
    pub(crate) fn new(row: AuditRow, is_dry_run: bool, tags: Option<String>) -> Arc<Self> {
        let account = Account { row, resources: Vec::new(), secrets: Vec::new(), is_recorded: false };
        let condition = tags.map(|tags| Condition { tags, is_read: AtomicBool::new(false) });
        Arc::new(Self { is_dry_run, condition, account: Mutex::new(account) })
    }

    /// Whether the current call may change an object whose last change has this number; none: there is no object.
    pub(crate) fn accepts(change_number: Option<i64>) -> bool {
        let current = Self::current();
        let Some(condition) = current.as_ref().and_then(|call| call.condition.as_ref()) else { return true };
        condition.is_read.store(true, Ordering::Relaxed);
        let Some(number) = change_number else { return false };
        let tag = entity_tag(number);
        condition.tags.split(',').map(str::trim).any(|accepted| accepted == "*" || accepted == tag)
    }

    /// Whether there is a condition that no operation has asked about.
    pub(super) fn has_unread_condition(&self) -> bool {
        self.condition.as_ref().is_some_and(|condition| !condition.is_read.load(Ordering::Relaxed))
    }

    /// The call that this task serves.
    pub(crate) fn current() -> Option<Arc<Self>> {
        CURRENT.try_with(Arc::clone).ok()
    }

    /// Runs `serving` as this call.
    pub(crate) async fn scope<F: Future>(self: &Arc<Self>, serving: F) -> F::Output {
        CURRENT.scope(Arc::clone(self), serving).await
    }

    /// Adds to what the audit log will say of the current call, if there is one.
    pub(crate) fn note(noting: impl FnOnce(&mut AuditRow)) {
        if let Some(call) = Self::current() {
            noting(&mut call.account().row);
        }
    }

    /// Says what the current call changes; each such object gets an audit row of its own.
    pub(crate) fn concerns(id: &str, name: &str) {
        if let Some(call) = Self::current() {
            let resource = (id.to_owned(), name.to_owned());
            let resources = &mut call.account().resources;
            // A change that was interrupted and begun again says it again.
            if !resources.contains(&resource) {
                resources.push(resource);
            }
        }
    }

    pub(crate) fn is_dry_run(&self) -> bool {
        self.is_dry_run
    }

    /// Whether the audit row is on disk, with the change.
    pub(crate) fn is_recorded(&self) -> bool {
        self.account().is_recorded
    }

    /// Completes the row of a call that changed nothing.
    pub(crate) fn complete(&self, completing: impl FnOnce(&mut AuditRow)) {
        completing(&mut self.account().row);
    }

    /// Adds to what must not be kept.
    pub(crate) fn keep_secret(&self, secrets: Vec<String>) {
        self.account().secrets.extend(secrets);
    }

    pub(crate) fn secrets(&self) -> Vec<String> {
        self.account().secrets.clone()
    }

    pub(super) fn set_recorded(&self) {
        self.account().is_recorded = true;
    }

    /// One row for every object the call concerns; one if none is known.
    pub(super) fn rows(&self) -> Vec<AuditRow> {
        let account = self.account();
        if account.resources.is_empty() {
            return vec![account.row.clone()];
        }
        let rows = account.resources.iter().enumerate().map(|(index, (id, name))| AuditRow {
            id: if index == 0 { account.row.id.clone() } else { format!("{}-{index}", account.row.id) },
            resource_id: id.clone(),
            resource_name: name.clone(),
            ..account.row.clone()
        });
        rows.collect()
    }

    fn account(&self) -> MutexGuard<'_, Account> {
        self.account.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
