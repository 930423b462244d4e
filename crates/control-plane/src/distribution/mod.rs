//! Getting the newest configuration of a group to every gateway of it.
//!
//! What is sent is read from the store each time. A hint carries no configuration, only that something changed; a
//! lost one costs latency, never correctness.

mod assemble;
mod counts;
mod feed;
mod heads;
mod hint;
mod instances;
mod intent;
mod line;
mod standing;
mod watch;

pub(crate) use assemble::DELTA_REVISIONS_MAX;
pub(crate) use counts::{Counted, Counts};
pub(crate) use feed::Feeds;
#[cfg(test)]
pub(crate) use feed::sent;
pub(crate) use heads::{GroupHeads, Heads};
pub(crate) use hint::Hints;
pub(crate) use instances::{Instances, TooMany};
pub(crate) use intent::{Asked, Intent, Moment};
pub(crate) use standing::{SERVICES_KEPT_MAX, Services, Standing, Standings};
pub(crate) use watch::watch_router;
