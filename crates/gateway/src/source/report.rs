//! What has come of following a control plane: for the status listener and for the control plane itself.

use gatewright_model::snapshot::Revision;
use serde::Serialize;
use tokio::sync::watch;

use crate::live::compile::Quarantined;

/// Objects that are named; the rest is only counted.
const NAMED_MAX: usize = 100;

/// Characters of a reason that are shown.
const REASON_LENGTH_MAX: usize = 1000;

/// How things stand.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Report {
    /// Whether a control plane is being followed at this moment.
    pub(crate) connected: bool,
    /// The revision that is on disk.
    pub(crate) persisted: Option<Revision>,
    /// Why the last write to the disk failed, if it did.
    pub(crate) persist_failure: Option<String>,
    /// What does not compile, and why.
    pub(crate) quarantined: Vec<Named>,
    /// How often everything was sent, rather than what changed.
    pub(crate) full_updates: u64,
}

/// An object and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Named {
    pub(crate) id: String,
    pub(crate) reason: String,
}

impl Report {
    pub(crate) fn quarantine(&mut self, quarantined: &[Quarantined]) {
        let named = quarantined.iter().take(NAMED_MAX).map(|one| Named {
            id: one.what.id().to_owned(),
            reason: one.reason.to_string().chars().take(REASON_LENGTH_MAX).collect(),
        });
        self.quarantined = named.collect();
    }

    pub(crate) fn applied(&mut self, full: bool, quarantined: &[Quarantined]) {
        self.full_updates += u64::from(full);
        self.quarantine(quarantined);
    }

    pub(crate) fn kept(&mut self, outcome: Result<Revision, String>) {
        match outcome {
            Ok(revision) => (self.persisted, self.persist_failure) = (Some(revision), None),
            Err(reason) => self.persist_failure = Some(reason),
        }
    }
}

/// The newest report, to be changed and to be waited for.
#[derive(Clone, Debug)]
pub(crate) struct Reports(watch::Sender<Report>);

impl Reports {
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(Report::default()))
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut Report)) {
        self.0.send_if_modified(|report| {
            let before = report.clone();
            change(report);
            *report != before
        });
    }

    pub(crate) fn now(&self) -> Report {
        self.0.borrow().clone()
    }
}
