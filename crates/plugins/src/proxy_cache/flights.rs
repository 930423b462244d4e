//! One request asks the upstream for what many want at once; the others wait for its answer.
//!
//! They wait for a while only, and not at all where the last answer could not be kept: then everybody would wait for
//! nothing, one after the other.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_channel::{Receiver, Sender};
use futures_util::future::select;

use super::zone::Key;
use crate::outbound::{Outbound, Waiting};

/// How long a request waits for the answer to another one, or for a zone to be opened.
const PATIENCE: Duration = Duration::from_secs(5);

/// For how long requests do not wait for each other after an answer could not be kept.
const PASSING: Duration = Duration::from_secs(10);

/// Keys of which that is remembered.
const PASSING_MAX: usize = 4096;

/// Requests to upstreams whose answers others wait for.
#[derive(Default)]
pub(super) struct Flights(Mutex<State>);

#[derive(Default)]
struct State {
    going: HashMap<Key, Receiver<()>>,
    /// Keys whose answers could not be kept, and until when nobody waits for them.
    passing: HashMap<Key, Duration>,
}

/// A request whose answer others wait for, until this is dropped.
pub(super) struct Flight {
    flights: Arc<Flights>,
    key: Key,
    begun: Duration,
    was_kept: bool,
    _over: Sender<()>,
}

/// Who asks the upstream.
pub(super) enum Turn {
    /// This request does; others may wait for what comes of it.
    First(Flight),
    /// Another request does, and this one waits.
    After(Waiting<()>),
    /// Everybody for themselves.
    Own,
}

impl Flights {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whose turn it is to ask for `key`.
    pub(super) fn turn(self: &Arc<Self>, key: Key, uptime: Duration, outbound: &dyn Outbound) -> Turn {
        let mut flights = self.lock();
        match flights.passing.get(&key) {
            Some(until) if uptime < *until => return Turn::Own,
            Some(_) => drop(flights.passing.remove(&key)),
            None => {}
        }
        if let Some(over) = flights.going.get(&key) {
            return Turn::After(patiently(over.clone(), outbound));
        }
        let (sender, over) = async_channel::bounded(1);
        flights.going.insert(key, over);
        Turn::First(Flight { flights: Arc::clone(self), key, begun: uptime, was_kept: false, _over: sender })
    }
}

impl Flight {
    /// There is an answer now for those who wait.
    pub(super) fn arrived(mut self) {
        self.was_kept = true;
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        let mut flights = self.flights.lock();
        flights.going.remove(&self.key);
        if !self.was_kept {
            if flights.passing.len() >= PASSING_MAX {
                flights.passing.clear();
            }
            flights.passing.insert(self.key, self.begun + PASSING);
        }
    }
}

/// Waits until `over` is closed, but not for ever.
pub(super) fn patiently(over: Receiver<()>, outbound: &dyn Outbound) -> Waiting<()> {
    let patience = outbound.sleep(PATIENCE);
    Box::pin(async move {
        let over = std::pin::pin!(over.recv());
        drop(select(over, patience).await);
    })
}
