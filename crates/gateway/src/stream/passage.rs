//! A stream from who is let in to what is told of it at its end, whatever carries it.

use super::found::Found;
use super::phases::Phases;
use super::record::{Arrived, Record};
use crate::proxy::reject::RejectReason;
use crate::telemetry::metrics::streams::StreamEnd;
use crate::upstream::Reachable;
use crate::worker::Worker;

/// A stream that a stream route serves.
pub(super) struct Passage<'p> {
    worker: &'p Worker,
    pub(super) found: &'p Found,
    pub(super) record: Record<'p>,
    phases: Option<Box<Phases<'p>>>,
}

impl<'p> Passage<'p> {
    /// It begins.
    pub(super) fn begin(worker: &'p Worker, found: &'p Found, arrived: Arrived<'p>) -> Self {
        found.counts(worker).opened();
        let record = Record::new(arrived, Some(found));
        let phases = Phases::of(&record);
        Self { worker, found, record, phases }
    }

    /// Finds out whether it is let in, and where it goes then.
    ///
    /// # Errors
    /// How it ends, if it goes nowhere.
    pub(super) async fn admit(&mut self) -> Result<(), StreamEnd> {
        let admitted = match (self.found.live().refusal, &mut self.phases) {
            (Some(reason), _) => Err(reason),
            (None, None) => Ok(()),
            (None, Some(phases)) => phases.begin(self.worker, &self.record).await,
        };
        admitted.map_err(|reason| {
            self.record.rejected(reason);
            StreamEnd::Refused
        })
    }

    /// The upstream it goes to.
    pub(super) fn upstream(&self) -> Reachable {
        let choice = self.phases.as_deref().and_then(Phases::upstream);
        self.found.upstream(self.record.arrived.carrier, choice)
    }

    /// How it ends that reaches no node.
    pub(super) fn unreachable(&self, reason: RejectReason) -> StreamEnd {
        self.record.rejected(reason);
        StreamEnd::Unreachable
    }

    /// It has ended, after so many bytes from the client and to it.
    pub(super) fn end(self, end: StreamEnd, bytes_in: u64, bytes_out: u64) {
        let Self { worker, found, record, phases } = self;
        found.counts(worker).closed(end, bytes_in, bytes_out);
        let over = record.over(end, bytes_in, bytes_out);
        worker.recorder.finish_stream(&record, &over, phases);
        let service = &found.service.published.service_id;
        tracing::debug!(
            client = %record.arrived.ends.client,
            %service,
            end = end.name(),
            reason = over.reject_reason.map(RejectReason::name),
            "a stream has ended"
        );
    }
}

/// A stream that no stream route takes.
pub(super) fn refuse(worker: &Worker, arrived: Arrived<'_>) {
    worker.recorder.unmatched_stream().refused();
    let record = Record::new(arrived, None);
    record.rejected(RejectReason::RouteNotFound);
    worker.recorder.finish_stream(&record, &record.over(StreamEnd::Refused, 0, 0), None);
}
