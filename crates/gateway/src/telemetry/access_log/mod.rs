//! The access log: one line per exchange, and one per stream.
//!
//! A worker writes its lines into a buffer of its own and hands the buffer over when it is full or a tick has
//! passed; a thread writes it out. If that thread does not keep up, lines are dropped and counted: a disk must never
//! hold up a request.
//!
//! * [`mod@format`]: what a line consists of.
//! * [`variable`]: what can be written of an exchange.
//! * [`stream`]: what can be written of a stream.
//! * `writer`: the thread.

pub mod format;
pub mod stream;
pub mod variable;
pub(crate) mod writer;

use std::cell::RefCell;
use std::path::PathBuf;
use std::sync::Arc;

use gatewright_model::message::RequestHead;

use super::Teller;
use super::record::Outcome;
use crate::proxy::ClientAddress;
use crate::proxy::reject::RejectReason;
use crate::stream::record::{Over, Record};
use format::{Format, StreamFormat};
use variable::{Moment, Told};
use writer::{Batch, Channel};

/// Bytes of lines that are handed over together.
const BATCH_BYTES: usize = 16 * 1024;

/// How the access log is written.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where lines go.
    pub to: Destination,
    /// What they say of requests.
    pub format: Format,
    /// What they say of streams.
    pub stream_format: StreamFormat,
    /// Which part of what ended with a status below 500 is written; what was rejected, and what failed, always is.
    pub sample: f64,
}

/// Where lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// Standard output.
    Stdout,
    /// The end of a file, which is created if it is missing.
    File(PathBuf),
}

/// The lines of one worker.
pub(crate) struct Lines {
    channel: Channel,
    teller: Arc<Teller>,
    gathered: RefCell<Gathered>,
}

#[derive(Default)]
struct Gathered {
    batch: Batch,
    moment: Moment,
}

impl Lines {
    pub(crate) fn new(channel: Channel, teller: Arc<Teller>) -> Self {
        Self { channel, teller, gathered: RefCell::default() }
    }

    /// Adds the line of an exchange.
    pub(crate) fn add(&self, outcome: &Outcome<'_>, request: &RequestHead, client: &ClientAddress) {
        if self.is_wanted(outcome.status, outcome.reject_reason) {
            self.gather(|Settings { format, .. }, moment, out| {
                format.write(&Told { outcome, request, client, teller: &self.teller, moment }, out);
            });
        }
    }

    /// Adds the line of a stream.
    pub(crate) fn add_stream(&self, record: &Record<'_>, over: &Over) {
        if self.is_wanted(over.status, over.reject_reason) {
            self.gather(|Settings { stream_format, .. }, moment, out| {
                let told = stream::Told { record, over: Some(over), teller: &self.teller, moment };
                stream_format.write(&told, out);
            });
        }
    }

    /// Whether it is one of those that are written.
    fn is_wanted(&self, status: u16, reject_reason: Option<RejectReason>) -> bool {
        let sample = self.channel.settings().sample;
        let went_well = status < 500 && reject_reason.is_none();
        !went_well || sample >= 1.0 || fastrand::f64() < sample
    }

    fn gather(&self, write: impl FnOnce(&Settings, &Moment, &mut Vec<u8>)) {
        let mut gathered = self.gathered.borrow_mut();
        let Gathered { batch, moment } = &mut *gathered;
        moment.advance();
        write(self.channel.settings(), moment, &mut batch.bytes);
        batch.lines += 1;
        if batch.bytes.len() >= BATCH_BYTES {
            self.channel.send(batch);
        }
    }

    /// Hands over the lines gathered so far.
    pub(crate) fn hand_over(&self) {
        let batch = &mut self.gathered.borrow_mut().batch;
        if batch.lines > 0 {
            self.channel.send(batch);
        }
    }
}

#[cfg(test)]
mod tests;
