//! What has come of following a control plane: for the status listener and for the control plane itself.

use gatewright_model::digest::ContentDigest;
use gatewright_model::protocol::{
    Epoch, Prepared, QUARANTINED_NAMED_MAX, Quarantined as Named, REASON_LENGTH_MAX,
};
use gatewright_model::snapshot::{Revision, Snapshot};
use serde::Serialize;
use tokio::sync::watch;

use crate::live::compile::Quarantined;

/// How things stand.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Report {
    /// Whether a control plane is being followed at this moment.
    pub(crate) connected: bool,
    /// The epoch of the revision that is served.
    pub(crate) epoch: Option<Epoch>,
    /// The revision that was applied last.
    pub(crate) applied: Option<Revision>,
    /// The digest of everything at that revision; a file has none.
    pub(crate) digest: Option<ContentDigest>,
    /// The newest revision of a control plane that knows only older ones, if it does.
    pub(crate) ahead_of: Option<Revision>,
    /// The revision that is on disk.
    pub(crate) persisted: Option<Revision>,
    /// Why the last write to the disk failed, if it did.
    pub(crate) persist_failure: Option<String>,
    /// What does not compile, and why.
    pub(crate) quarantined: Vec<Named>,
    /// Services whose ports for streams are not open, and why.
    pub(crate) unopened: Vec<Named>,
    /// Why the newest configuration file is not served, if it is not.
    pub(crate) refused: Option<String>,
    /// How often everything was sent, rather than what changed.
    pub(crate) full_updates: u64,
    /// Bytes of all that was received, as they travelled.
    pub(crate) bytes_received: u64,
    /// How often a change led to something other than the control plane has.
    pub(crate) digest_mismatches: u64,
    /// What came of the last preparation.
    #[serde(skip)]
    pub(crate) prepared: Option<Prepared>,
}

impl Report {
    pub(crate) fn quarantine(&mut self, quarantined: &[Quarantined]) {
        let named = quarantined.iter().take(QUARANTINED_NAMED_MAX).map(|one| Named {
            id: one.what.id().to_owned(),
            reason: one.reason.to_string().chars().take(REASON_LENGTH_MAX).collect(),
        });
        self.quarantined = named.collect();
    }

    /// `snapshot` is what is served, or about to be.
    pub(crate) fn holds(&mut self, snapshot: &Snapshot, digest: Option<ContentDigest>) {
        self.digest = digest;
        self.epoch.clone_from(&snapshot.epoch);
        self.applied = Some(snapshot.revision);
        self.ahead_of = None;
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

    /// Changes the report; whether that made a difference.
    pub(crate) fn change(&self, change: impl FnOnce(&mut Report)) -> bool {
        self.0.send_if_modified(|report| {
            let before = report.clone();
            change(report);
            *report != before
        })
    }

    /// Counts bytes, which is no news to anybody.
    pub(crate) fn received(&self, bytes: usize) {
        self.0.send_if_modified(|report| {
            report.bytes_received += bytes as u64;
            false
        });
    }

    /// Wakes on every change after this call.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Report> {
        self.0.subscribe()
    }

    pub(crate) fn now(&self) -> Report {
        self.0.borrow().clone()
    }
}
