//! Plugins tried on streams, which have no requests.

use super::{Run, Trial};

impl Trial {
    /// Runs the phases that come before a stream goes to its node.
    pub(crate) fn run_stream(&self) -> Run<'_> {
        self.run("")
    }
}

impl Run<'_> {
    /// Ends the stream, with this status.
    pub(crate) fn end(mut self, status: u16) {
        let (course, outcome) = (self.trial.course(), self.trial.outcome(status, None));
        self.with_exchange(|exchange| course.log(exchange, &outcome));
        self.trial.world.outside.work();
    }
}
