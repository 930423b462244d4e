//! A persistent radix trie: the one structure behind hosts and paths.
//!
//! A key has two places for a value: one for lookups of exactly that key, one for lookups of anything that starts
//! with it. A lookup visits the exact place first and then every starting key, longest first.
//! Nodes are shared between copies of a trie; a change copies the nodes on its way and nothing else. Nothing here
//! recurses: a trie may be as deep as its longest key, and a configuration chooses the keys.

use std::sync::Arc;

/// What a trie holds: something that can be empty, and then takes no place.
pub(super) trait Content: Clone + Default {
    fn is_empty(&self) -> bool;
}

#[derive(Clone, Debug)]
pub(super) struct Trie<T>(Option<Arc<Node<T>>>);

impl<T> Default for Trie<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T: Content> Content for Trie<T> {
    fn is_empty(&self) -> bool {
        self.0.is_none()
    }
}

/// Which lookups a value serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// Those of the key itself.
    Exact,
    /// Those of every key that starts with it, itself included.
    Start,
}

/// Invariants: a node has contents or at least two children; but for the root, its label is not empty;
/// `first_bytes[i]` is the first byte of the label of `children[i]`, in rising order.
#[derive(Debug)]
struct Node<T> {
    label: Bytes,
    first_bytes: Bytes,
    children: Vec<Arc<Node<T>>>,
    exact: T,
    start: T,
}

/// How many starting keys one walk remembers; deeper nesting takes further walks instead of an allocation.
const REMEMBERED: usize = 8;

impl<T: Content> Trie<T> {
    /// Calls `visit` for what is stored under `key` and then under ever shorter starts of it, until it answers.
    pub(super) fn find<'t, R>(&'t self, key: &[u8], mut visit: impl FnMut(&'t T) -> Option<R>) -> Option<R> {
        let root = self.0.as_deref()?;
        let mut starts = [None; REMEMBERED];
        let (exact, mut count) = root.walk(key, usize::MAX, &mut starts);
        if let Some(found) = exact.and_then(&mut visit) {
            return Some(found);
        }
        loop {
            let remembered = count.min(REMEMBERED);
            for back in 1..=remembered {
                let start = starts[(count - back) % REMEMBERED];
                if let Some(found) = start.and_then(&mut visit) {
                    return Some(found);
                }
            }
            count -= remembered;
            if count == 0 {
                return None;
            }
            root.walk(key, count, &mut starts);
        }
    }

    /// Calls `change` with the contents under `key` and tidies up if they are empty afterwards.
    pub(super) fn update(&mut self, key: &[u8], reach: Reach, change: impl FnOnce(&mut T)) {
        let root = self.0.get_or_insert_with(|| Arc::new(Node::new(Bytes::new(key))));
        let node = Node::reach(root, key);
        let contents = match reach {
            Reach::Exact => &mut node.exact,
            Reach::Start => &mut node.start,
        };
        change(contents);
        if node.is_bare() && !Node::prune(root, key) {
            self.0 = None;
        }
    }

    /// Every content, in no order that means anything.
    pub(super) fn contents(&self) -> impl Iterator<Item = &T> {
        let mut nodes: Vec<&Node<T>> = self.0.as_deref().into_iter().collect();
        std::iter::from_fn(move || {
            let node = nodes.pop()?;
            nodes.extend(node.children.iter().map(|child| &**child));
            Some([&node.exact, &node.start])
        })
        .flatten()
        .filter(|contents| !contents.is_empty())
    }
}

impl<T: Content> Node<T> {
    fn new(label: Bytes) -> Self {
        Self {
            label,
            first_bytes: Bytes::default(),
            children: Vec::new(),
            exact: T::default(),
            start: T::default(),
        }
    }

    fn is_bare(&self) -> bool {
        self.exact.is_empty() && self.start.is_empty()
    }

    fn child(&self, rest: &[u8]) -> Option<usize> {
        let first = rest.first()?;
        self.first_bytes.as_slice().iter().position(|byte| byte == first)
    }

    /// Goes down along `key`. Returns the contents for exactly `key` and the number of starts passed, at most
    /// `limit`; the last of them are in `starts`, the n-th at place n modulo its size.
    fn walk<'t>(
        &'t self,
        key: &[u8],
        limit: usize,
        starts: &mut [Option<&'t T>; REMEMBERED],
    ) -> (Option<&'t T>, usize) {
        let (mut node, mut rest, mut count) = (self, key, 0);
        while let Some(behind) = rest.strip_prefix(node.label.as_slice()) {
            rest = behind;
            if !node.start.is_empty() {
                starts[count % REMEMBERED] = Some(&node.start);
                count += 1;
                if count == limit {
                    break;
                }
            }
            if rest.is_empty() {
                return (Some(&node.exact).filter(|exact| !exact.is_empty()), count);
            }
            let Some(index) = node.child(rest) else { break };
            node = &node.children[index];
        }
        (None, count)
    }

    /// The node for `key`, made if it is missing; every node on the way is made unique to this trie.
    fn reach<'n>(root: &'n mut Arc<Self>, key: &[u8]) -> &'n mut Self {
        let mut place = root;
        let mut rest = key;
        loop {
            let node = Arc::make_mut(place);
            let label = node.label.as_slice();
            let common = label.iter().zip(rest).take_while(|(a, b)| a == b).count();
            if common < label.len() {
                node.split(common);
            }
            rest = &rest[common..];
            if rest.is_empty() {
                return node;
            }
            let index = match node.child(rest) {
                Some(index) => index,
                None => node.adopt(Self::new(Bytes::new(rest))),
            };
            place = &mut node.children[index];
        }
    }

    fn adopt(&mut self, child: Self) -> usize {
        let first = child.label.as_slice().first().copied().unwrap_or_default();
        let at = self.first_bytes.as_slice().partition_point(|byte| *byte < first);
        let bytes = self.first_bytes.as_slice();
        self.first_bytes = Bytes::new(&[&bytes[..at], &[first], &bytes[at..]].concat());
        self.children.insert(at, Arc::new(child));
        at
    }

    /// Moves everything of this node behind the first `at` bytes of its label into a child.
    fn split(&mut self, at: usize) {
        let label = std::mem::take(&mut self.label);
        let (front, back) = label.as_slice().split_at(at);
        let mut lower = Self::new(Bytes::new(back));
        std::mem::swap(self, &mut lower);
        std::mem::swap(&mut self.label, &mut lower.label);
        self.label = Bytes::new(front);
        lower.label = Bytes::new(back);
        self.adopt(lower);
    }

    /// Removes the node for `key`, which has no contents, as far as nothing else needs it. Whether anything is left.
    fn prune(root: &mut Arc<Self>, key: &[u8]) -> bool {
        // How many edges lead from the root to the node, and how many to the last node that must stay.
        let (mut edges, mut keep) = (0, None);
        let (mut node, mut rest) = (&**root, key);
        loop {
            rest = rest.get(node.label.as_slice().len()..).unwrap_or_default();
            let next = node.child(rest);
            if !node.is_bare() || node.children.len() > usize::from(next.is_some()) {
                keep = Some(edges);
            }
            let Some(index) = next else { break };
            node = &node.children[index];
            edges += 1;
        }
        let Some(keep) = keep else { return false };
        let mut node = Arc::make_mut(root);
        let mut rest = key;
        for edge in 0..=keep {
            rest = rest.get(node.label.as_slice().len()..).unwrap_or_default();
            let Some(index) = node.child(rest) else { break };
            if edge == keep {
                node.disown(index);
                break;
            }
            node = Arc::make_mut(&mut node.children[index]);
        }
        if node.is_bare() && node.children.len() == 1 {
            node.merge();
        }
        true
    }

    fn disown(&mut self, index: usize) {
        let bytes = self.first_bytes.as_slice();
        self.first_bytes = Bytes::new(&[&bytes[..index], &bytes[index + 1..]].concat());
        self.children.remove(index);
    }

    /// Takes over the only child of a node without contents.
    fn merge(&mut self) {
        let Some(child) = self.children.pop() else { return };
        let label = Bytes::new(&[self.label.as_slice(), child.label.as_slice()].concat());
        *self = (*child).clone();
        self.label = label;
    }
}

impl<T: Clone> Clone for Node<T> {
    fn clone(&self) -> Self {
        Self {
            label: self.label.clone(),
            first_bytes: self.first_bytes.clone(),
            children: self.children.clone(),
            exact: self.exact.clone(),
            start: self.start.clone(),
        }
    }
}

impl<T> Drop for Node<T> {
    /// Dropping a long chain node by node would take a stack frame per node.
    fn drop(&mut self) {
        let mut orphans = std::mem::take(&mut self.children);
        while let Some(orphan) = orphans.pop() {
            if let Some(mut node) = Arc::into_inner(orphan) {
                orphans.append(&mut node.children);
            }
        }
    }
}

/// Bytes of a text that lie in its owner, one cache miss nearer than on the heap.
const INLINE: usize = 22;

#[derive(Clone, Debug)]
pub(super) enum Bytes {
    Inline { length: u8, bytes: [u8; INLINE] },
    Heap(Box<[u8]>),
}

impl Default for Bytes {
    fn default() -> Self {
        Self::Inline { length: 0, bytes: [0; INLINE] }
    }
}

impl Bytes {
    pub(super) fn new(text: &[u8]) -> Self {
        match u8::try_from(text.len()) {
            Ok(length) if text.len() <= INLINE => {
                let mut bytes = [0; INLINE];
                bytes[..text.len()].copy_from_slice(text);
                Self::Inline { length, bytes }
            }
            _ => Self::Heap(text.into()),
        }
    }

    pub(super) fn as_slice(&self) -> &[u8] {
        match self {
            Self::Inline { length, bytes } => &bytes[..usize::from(*length)],
            Self::Heap(text) => text,
        }
    }
}

#[cfg(test)]
mod tests;
