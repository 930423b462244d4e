//! The services of a live configuration: by id for those who change or show them, and by number for requests.
//!
//! A service keeps its number as long as it is there, so that its rules, which the router hands to a request, lead to
//! the rest of it without another search. The number of one that has gone is given to a new one.
//! The candidate of a canary has a number of its own, so a request finds its version like any other service.

use std::collections::BTreeMap;
use std::sync::Arc;

use gatewright_model::id::ServiceId;

use super::LiveService;

/// The services of a live configuration.
#[derive(Clone, Default)]
pub(crate) struct Services {
    numbers: BTreeMap<ServiceId, usize>,
    /// Those of the services that have a canary.
    candidates: BTreeMap<ServiceId, usize>,
    /// By number; absent: the number is free.
    places: Vec<Option<Arc<LiveService>>>,
    free: Vec<usize>,
}

/// The numbers of a service and of its candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Numbers {
    pub(crate) running: usize,
    pub(crate) candidate: usize,
}

impl Services {
    /// The service with this number.
    pub(crate) fn numbered(&self, number: usize) -> Option<&Arc<LiveService>> {
        self.places.get(number)?.as_ref()
    }

    /// The service with this id.
    pub(crate) fn get(&self, id: &ServiceId) -> Option<&Arc<LiveService>> {
        self.numbered(*self.numbers.get(id)?)
    }

    /// The candidate that stands beside the service with this id.
    pub(crate) fn candidate(&self, id: &ServiceId) -> Option<&Arc<LiveService>> {
        self.numbered(*self.candidates.get(id)?)
    }

    /// The service with this id, and its candidate.
    pub(crate) fn versions(&self, id: &ServiceId) -> impl Iterator<Item = &Arc<LiveService>> {
        self.get(id).into_iter().chain(self.candidate(id))
    }

    /// The numbers that the service with this id and a candidate of it have, or would get.
    pub(crate) fn numbers_of(&self, id: &ServiceId) -> Numbers {
        let mut unused = self.free.iter().rev().copied().chain(self.places.len()..);
        let mut next = || unused.next().unwrap_or_else(|| unreachable!("there is always one more number"));
        let running = self.numbers.get(id).copied().unwrap_or_else(&mut next);
        let candidate = self.candidates.get(id).copied().unwrap_or_else(next);
        Numbers { running, candidate }
    }

    /// Puts a service in the place of the one with the same id, if there is one, and its candidate beside it.
    pub(crate) fn insert(
        &mut self,
        id: &ServiceId,
        service: Arc<LiveService>,
        candidate: Option<Arc<LiveService>>,
    ) {
        let numbers = self.numbers_of(id);
        self.put(numbers.running, service);
        self.numbers.insert(id.clone(), numbers.running);
        match candidate {
            Some(candidate) => {
                self.put(numbers.candidate, candidate);
                self.candidates.insert(id.clone(), numbers.candidate);
            }
            None => {
                let number = self.candidates.remove(id);
                self.clear(number);
            }
        }
    }

    pub(crate) fn remove(&mut self, id: &ServiceId) {
        let numbers = [self.numbers.remove(id), self.candidates.remove(id)];
        numbers.into_iter().for_each(|number| self.clear(number));
    }

    fn put(&mut self, number: usize, service: Arc<LiveService>) {
        while self.places.len() <= number {
            self.places.push(None);
        }
        // It is the last one or the one before, if it is free at all.
        if let Some(at) = self.free.iter().rposition(|free| *free == number) {
            self.free.remove(at);
        }
        self.places[number] = Some(service);
    }

    fn clear(&mut self, number: Option<usize>) {
        if let Some(number) = number {
            self.places[number] = None;
            self.free.push(number);
        }
    }

    /// All of them, in the order of their ids, without candidates.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&ServiceId, &Arc<LiveService>)> + Clone {
        self.numbers.iter().filter_map(|(id, number)| Some((id, self.numbered(*number)?)))
    }

    pub(crate) fn len(&self) -> usize {
        self.numbers.len()
    }
}

#[cfg(test)]
impl std::ops::Index<&ServiceId> for Services {
    type Output = Arc<LiveService>;

    fn index(&self, id: &ServiceId) -> &Self::Output {
        self.get(id).unwrap()
    }
}
