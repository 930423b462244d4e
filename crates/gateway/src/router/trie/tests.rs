//! The trie against a sorted map.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

impl Content for Option<u32> {
    fn is_empty(&self) -> bool {
        self.is_none()
    }
}

type Model = BTreeMap<(Vec<u8>, bool), u32>;

fn found(trie: &Trie<Option<u32>>, key: &[u8]) -> Vec<u32> {
    let mut found = Vec::new();
    let _: Option<()> = trie.find(key, |value| {
        found.extend(*value);
        None
    });
    found
}

/// What a lookup visits, by definition.
fn expected(model: &Model, key: &[u8]) -> Vec<u32> {
    let exact = model.get(&(key.to_vec(), false));
    let starts = (0..=key.len()).rev().filter_map(|length| model.get(&(key[..length].to_vec(), true)));
    exact.into_iter().chain(starts).copied().collect()
}

/// The invariants of the nodes.
fn check_shape(trie: &Trie<Option<u32>>) {
    let Some(root) = &trie.0 else { return };
    let mut nodes = vec![(root, true)];
    while let Some((node, is_root)) = nodes.pop() {
        assert!(is_root || !node.label.as_slice().is_empty());
        assert!(!node.is_bare() || node.children.len() >= 2);
        let firsts: Vec<u8> = node.children.iter().map(|child| child.label.as_slice()[0]).collect();
        assert_eq!(node.first_bytes.as_slice(), firsts);
        assert!(firsts.is_sorted());
        nodes.extend(node.children.iter().map(|child| (child, false)));
    }
}

proptest! {
    #[test]
    fn a_trie_finds_what_an_ordered_map_finds_and_its_copies_stay_as_they_were(
        changes in proptest::collection::vec(("[ab]{0,6}", any::<bool>(), proptest::option::of(any::<u32>())), 0..60),
        keys in proptest::collection::vec("[ab]{0,8}", 1..20),
    ) {
        let mut trie = Trie::<Option<u32>>::default();
        let mut model = Model::new();
        let mut copies = Vec::new();
        for (key, start, value) in changes {
            copies.push((trie.clone(), model.clone()));
            let reach = if start { Reach::Start } else { Reach::Exact };
            trie.update(key.as_bytes(), reach, |place| *place = value);
            match value {
                Some(value) => model.insert((key.into_bytes(), start), value),
                None => model.remove(&(key.into_bytes(), start)),
            };
            check_shape(&trie);
            prop_assert_eq!(trie.contents().count(), model.len());
        }
        prop_assert_eq!(trie.is_empty(), model.is_empty());
        copies.push((trie, model));
        for (trie, model) in &copies {
            for key in &keys {
                prop_assert_eq!(found(trie, key.as_bytes()), expected(model, key.as_bytes()));
            }
        }
    }
}

#[test]
fn more_nested_starts_than_are_remembered_are_all_visited_longest_first() {
    let mut trie = Trie::<Option<u32>>::default();
    let key = [b'x'; 100];
    for length in 0..=100 {
        trie.update(&key[..length], Reach::Start, |place| *place = u32::try_from(length).ok());
    }
    assert_eq!(found(&trie, &key), (0..=100).rev().collect::<Vec<u32>>());
}

#[test]
fn a_trie_as_deep_as_the_longest_path_is_built_changed_and_dropped_on_a_small_stack() {
    let work = || {
        let key = vec![b'x'; 8192];
        let mut trie = Trie::<Option<u32>>::default();
        for length in 0..=key.len() {
            trie.update(&key[..length], Reach::Start, |place| *place = Some(1));
        }
        let copy = trie.clone();
        trie.update(&key, Reach::Start, |place| *place = None);
        (found(&trie, &key).len(), found(&copy, &key).len())
    };
    let thread = std::thread::Builder::new().stack_size(128 * 1024).spawn(work).expect("a thread");
    assert_eq!(thread.join().expect("no overflow"), (8192, 8193));
}
