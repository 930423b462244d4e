//! The upstreams with discovered nodes, as requests read them: by number, from a list that is swapped whole.
//!
//! A worker takes the list together with the live configuration (`live::current`), so a request finishes on the nodes
//! it started with and pays an index for them. A number is free again only when no configuration names it any more.

use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use gatewright_model::protocol::RegistryReport;
use tokio::sync::watch;

use super::probes::{Looked, reports};
use super::registries::Registries;
use crate::proxy::reject::RejectReason;
use crate::upstream::{Reachable, Upstream};

/// The list.
#[derive(Default)]
pub(crate) struct Table(Vec<Option<Reachable>>);

impl Table {
    /// A list with nothing on it.
    pub(crate) const EMPTY: &'static Self = &Self(Vec::new());

    /// The upstream with this number.
    pub(crate) fn upstream(&self, number: usize) -> Result<&Upstream, RejectReason> {
        match self.0.get(number) {
            Some(Some(Ok(upstream))) => Ok(upstream),
            Some(Some(Err(reason))) => Err(*reason),
            Some(None) | None => Err(RejectReason::NodesUnknown),
        }
    }
}

/// What the discovering side and the live configuration share.
#[derive(Clone)]
pub(crate) struct Board(Arc<Shared>);

struct Shared {
    table: Arc<ArcSwap<Table>>,
    /// One writer at a time; readers never wait.
    free: Mutex<Vec<usize>>,
    /// Those of the configuration that is served; `None`: there is none yet.
    registries: watch::Sender<Option<Arc<Registries>>>,
    looked: Mutex<Looked>,
}

impl Default for Board {
    fn default() -> Self {
        let (table, free, looked) = (Arc::default(), Mutex::default(), Mutex::default());
        Self(Arc::new(Shared { table, free, registries: watch::channel(None).0, looked }))
    }
}

impl Board {
    /// The list as it changes.
    pub(crate) fn table(&self) -> &Arc<ArcSwap<Table>> {
        &self.0.table
    }

    /// The registries as they change.
    pub(super) fn registries(&self) -> watch::Receiver<Option<Arc<Registries>>> {
        self.0.registries.subscribe()
    }

    /// Has these registries asked from now on.
    pub(crate) fn serve(&self, registries: &Arc<Registries>) {
        self.0.registries.send_if_modified(|now| {
            let is_news = now.as_ref().is_none_or(|now| !Arc::ptr_eq(now, registries));
            *now = Some(Arc::clone(registries));
            is_news
        });
    }

    /// Changes what was found when registries were looked at.
    pub(super) fn looked(&self, change: impl FnOnce(&mut Looked)) {
        change(&mut self.0.looked.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// What was found when registries were looked at.
    pub(crate) fn reports(&self) -> Vec<RegistryReport> {
        reports(&self.0.looked.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A number of one's own.
    pub(super) fn slot(&self) -> Slot {
        let mut free = self.0.free.lock().unwrap_or_else(PoisonError::into_inner);
        let number = free.pop().unwrap_or_else(|| self.0.table.load().0.len());
        let slot = Slot { number, board: self.clone() };
        slot.set(Some(Err(RejectReason::NodesUnknown)));
        drop(free);
        slot
    }
}

/// A place on the list, held by whoever has the number.
pub(crate) struct Slot {
    number: usize,
    board: Board,
}

impl Slot {
    pub(super) fn number(&self) -> usize {
        self.number
    }

    pub(super) fn now(&self) -> Reachable {
        let table = self.board.0.table.load();
        table.0.get(self.number).cloned().flatten().unwrap_or(Err(RejectReason::NodesUnknown))
    }

    pub(super) fn put(&self, upstream: Reachable) {
        let _writing = self.board.0.free.lock().unwrap_or_else(PoisonError::into_inner);
        self.set(Some(upstream));
    }

    /// The lock is held.
    fn set(&self, upstream: Option<Reachable>) {
        let mut list = self.board.0.table.load().0.clone();
        if list.len() <= self.number {
            list.resize(self.number + 1, None);
        }
        list[self.number] = upstream;
        self.board.0.table.store(Arc::new(Table(list)));
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut free = self.board.0.free.lock().unwrap_or_else(PoisonError::into_inner);
        self.set(None);
        free.push(self.number);
    }
}
