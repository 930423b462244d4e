//! The access log: one line per exchange.
//!
//! A worker writes its lines into a buffer of its own and hands the buffer over when it is full or a tick has
//! passed; a thread writes it out. If that thread does not keep up, lines are dropped and counted: a disk must never
//! hold up a request.
//!
//! * [`mod@format`]: what a line consists of.
//! * [`variable`]: what can be written of an exchange.
//! * `writer`: the thread.

pub mod format;
pub mod variable;
pub(crate) mod writer;

use std::cell::RefCell;
use std::path::PathBuf;
use std::sync::Arc;

use gatewright_model::message::RequestHead;

use super::Teller;
use super::record::Outcome;
use crate::proxy::ClientAddress;
use format::Format;
use variable::{Moment, Told};
use writer::{Batch, Channel};

/// Bytes of lines that are handed over together.
const BATCH_BYTES: usize = 16 * 1024;

/// How the access log is written.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where lines go.
    pub to: Destination,
    /// What they say.
    pub format: Format,
    /// Which part of the answers below 500 is written; what was rejected, and what failed, always is.
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
        let settings = self.channel.settings();
        let went_well = outcome.status < 500 && outcome.reject_reason.is_none();
        if went_well && settings.sample < 1.0 && fastrand::f64() >= settings.sample {
            return;
        }
        let mut gathered = self.gathered.borrow_mut();
        let Gathered { batch, moment } = &mut *gathered;
        moment.advance();
        let told = Told { outcome, request, client, teller: &self.teller, moment };
        settings.format.write(&told, &mut batch.bytes);
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
