//! The services of a live configuration: by id for those who change or show them, and by number for requests.
//!
//! A service keeps its number as long as it is there, so that its rules, which the router hands to a request, lead to
//! the rest of it without another search. The number of one that has gone is given to a new one.

use std::collections::BTreeMap;
use std::sync::Arc;

use gatewright_model::id::ServiceId;

use super::LiveService;

/// The services of a live configuration.
#[derive(Clone, Default)]
pub(crate) struct Services {
    numbers: BTreeMap<ServiceId, usize>,
    /// By number; absent: the number is free.
    places: Vec<Option<Arc<LiveService>>>,
    free: Vec<usize>,
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

    /// The number that the service with this id has, or would get.
    pub(crate) fn number_of(&self, id: &ServiceId) -> usize {
        let known = self.numbers.get(id).or(self.free.last());
        known.copied().unwrap_or(self.places.len())
    }

    /// Puts a service in the place of the one with the same id, if there is one.
    pub(crate) fn insert(&mut self, id: &ServiceId, service: Arc<LiveService>) {
        let number = self.number_of(id);
        if self.numbers.insert(id.clone(), number).is_none() && self.free.pop().is_none() {
            self.places.push(None);
        }
        self.places[number] = Some(service);
    }

    pub(crate) fn remove(&mut self, id: &ServiceId) {
        if let Some(number) = self.numbers.remove(id) {
            self.places[number] = None;
            self.free.push(number);
        }
    }

    /// All of them, in the order of their ids.
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
