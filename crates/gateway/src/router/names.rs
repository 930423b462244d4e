//! A persistent hash table of host names.
//!
//! Hosts differ early and share long ends, which makes a trie of them deep; nearly every request asks for an exact
//! name, so that has a place of its own. A change copies one short slot and the list of slots.

use std::sync::Arc;

use super::trie::{Bytes, Content};

#[derive(Clone, Debug)]
pub(super) struct Names<T> {
    /// A power of two of them, or none.
    slots: Vec<Option<Arc<[Entry<T>]>>>,
    count: usize,
}

#[derive(Clone, Debug)]
struct Entry<T> {
    name: Bytes,
    value: T,
}

impl<T> Default for Names<T> {
    fn default() -> Self {
        Self { slots: Vec::new(), count: 0 }
    }
}

impl<T: Content> Names<T> {
    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(super) fn find(&self, name: &[u8]) -> Option<&T> {
        let slot = self.slots.get(self.place(name))?.as_ref()?;
        slot.iter().find(|entry| entry.name.as_slice() == name).map(|entry| &entry.value)
    }

    /// Calls `change` with the contents under `name` and removes the name if they are empty afterwards.
    pub(super) fn update(&mut self, name: &[u8], change: impl FnOnce(&mut T)) {
        if self.find(name).is_none() {
            self.insert(Entry { name: Bytes::new(name), value: T::default() });
        }
        let place = self.place(name);
        let Some(Some(slot)) = self.slots.get_mut(place) else { return };
        let entries = Arc::make_mut(slot);
        let Some(entry) = entries.iter_mut().find(|entry| entry.name.as_slice() == name) else { return };
        change(&mut entry.value);
        if entry.value.is_empty() {
            let others: Arc<[_]> =
                slot.iter().filter(|entry| entry.name.as_slice() != name).cloned().collect();
            self.slots[place] = (!others.is_empty()).then_some(others);
            self.count -= 1;
        }
    }

    pub(super) fn contents(&self) -> impl Iterator<Item = &T> {
        self.slots.iter().flatten().flat_map(|slot| slot.iter()).map(|entry| &entry.value)
    }

    fn insert(&mut self, entry: Entry<T>) {
        if self.count == self.slots.len() {
            self.grow();
        }
        let place = self.place(entry.name.as_slice());
        self.put(place, entry);
        self.count += 1;
    }

    fn put(&mut self, place: usize, entry: Entry<T>) {
        let others = self.slots[place].take();
        let others = others.iter().flat_map(|slot| slot.iter().cloned());
        self.slots[place] = Some(others.chain(std::iter::once(entry)).collect());
    }

    fn grow(&mut self) {
        let slots = vec![None; (self.slots.len() * 2).max(1)];
        let old = std::mem::replace(&mut self.slots, slots);
        for entry in old.iter().flatten().flat_map(|slot| slot.iter()) {
            self.put(self.place(entry.name.as_slice()), entry.clone());
        }
    }

    fn place(&self, name: &[u8]) -> usize {
        let mask = self.slots.len().wrapping_sub(1);
        #[allow(clippy::cast_possible_truncation, reason = "the mask keeps low bits only")]
        let hash = hash(name) as usize;
        hash & mask
    }
}

/// Multiplies and folds eight bytes at a time. Clients choose what is looked up but not what is stored, so they
/// cannot make a slot long.
fn hash(name: &[u8]) -> u64 {
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
    let mix = |hash: u64, word: u64| {
        let mixed = (hash ^ word).wrapping_mul(FACTOR);
        mixed ^ (mixed >> 32)
    };
    let (words, rest) = name.as_chunks::<8>();
    let hash = words.iter().fold(name.len() as u64, |hash, word| mix(hash, u64::from_le_bytes(*word)));
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    mix(hash, u64::from_le_bytes(last))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn names_are_found_as_in_an_ordered_map_and_copies_stay_as_they_were(
            changes in proptest::collection::vec(("[a-c.]{0,3}", proptest::option::of(any::<u32>())), 0..200),
        ) {
            let mut names = Names::<Option<u32>>::default();
            let mut model = BTreeMap::new();
            let mut copies = Vec::new();
            for (name, value) in &changes {
                copies.push((names.clone(), model.clone()));
                names.update(name.as_bytes(), |place| *place = *value);
                match value {
                    Some(value) => model.insert(name.clone(), *value),
                    None => model.remove(name),
                };
            }
            prop_assert_eq!(names.is_empty(), model.is_empty());
            copies.push((names, model));
            for (names, model) in &copies {
                for (name, _) in &changes {
                    prop_assert_eq!(names.find(name.as_bytes()).copied().flatten(), model.get(name).copied());
                }
                prop_assert_eq!(names.contents().count(), model.len());
            }
        }
    }
}
