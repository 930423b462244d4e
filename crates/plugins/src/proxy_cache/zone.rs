//! A zone: answers by key, in memory or on disk, within limits that hold at every moment.
//!
//! Who looks for an answer waits for nobody; who keeps, replaces or forgets one takes a lock for as long as that
//! takes. What was not asked for since it was last considered goes first (second chance). Answers on disk are files
//! of their own: one is in memory until it is written, and belongs to the zone as long as the zone says so, so what
//! is purged while it is being written does not come back.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use async_channel::{Receiver, Sender};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::flights::{Flights, patiently};
use super::kept::{Asked, Kept, Record};
use crate::outbound::{Outbound, Shelf, Waiting};

/// Zones of one gateway; what names a further one finds no room in it.
const ZONES_MAX: usize = 16;

/// Answers in one zone.
const ENTRIES_MAX: usize = 65_536;

/// Bytes of a zone in memory, as much as the default zone of Apache APISIX has.
const MEMORY_BYTES_MAX: usize = 50 * 1024 * 1024;

/// The same on disk.
const DISK_BYTES_MAX: usize = 1024 * 1024 * 1024;

/// Answers to one key: what a client makes different must not push out everything else.
const VARIANTS_MAX: usize = 32;

/// Bytes of a zone's answers that are still arriving or being written.
const ARRIVING_BYTES_MAX: usize = 128 * 1024 * 1024;

/// What an answer is found by: a digest of everything that the configuration counts to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Key(pub(super) [u8; 32]);

/// All zones of a gateway.
#[derive(Default)]
pub(super) struct Zones(Mutex<HashMap<(String, bool), Weak<Zone>>>);

impl Zones {
    /// The zone called `name`, on disk or in memory.
    pub(super) fn zone(&self, name: &str, on_disk: bool, outbound: &Arc<dyn Outbound>) -> Arc<Zone> {
        let mut zones = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let place = (name.to_owned(), on_disk);
        if let Some(zone) = zones.get(&place).and_then(Weak::upgrade) {
            return zone;
        }
        zones.retain(|_, zone| zone.strong_count() > 0);
        let shelf = if on_disk { outbound.shelf(&format!("proxy-cache.{name}")) } else { None };
        let bytes_max = if shelf.is_some() { DISK_BYTES_MAX } else { MEMORY_BYTES_MAX };
        let limits = match zones.len() {
            ZONES_MAX.. => {
                let reason = format!("there are {ZONES_MAX} zones already, `{name}` keeps nothing");
                outbound.warn(super::KIND.name, &reason);
                Limits { entries: 0, bytes: 0 }
            }
            _ => Limits { entries: ENTRIES_MAX, bytes: bytes_max },
        };
        let zone = Arc::new(Zone::new(limits, shelf, Arc::clone(outbound)));
        zones.insert(place, Arc::downgrade(&zone));
        zone
    }
}

/// How much a zone takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) entries: usize,
    pub(super) bytes: usize,
}

/// See the module.
pub(super) struct Zone {
    limits: Limits,
    answers: papaya::HashMap<Key, Arc<[Arc<Entry>]>>,
    books: Mutex<Books>,
    arriving: Arc<AtomicUsize>,
    outbound: Arc<dyn Outbound>,
    /// Where files are; absent: everything is in memory.
    shelf: Option<Arc<dyn Shelf>>,
    is_open: AtomicBool,
    opening: Mutex<Option<Receiver<()>>>,
    /// Requests to upstreams that others wait for.
    pub(super) flights: Arc<Flights>,
}

/// What is there, in the order in which it is considered for going.
#[derive(Default)]
struct Books {
    entries: usize,
    bytes: usize,
    queue: VecDeque<(Key, u64)>,
}

/// A kept answer.
pub(super) struct Entry {
    id: u64,
    bytes: usize,
    /// Whether it was asked for since it was last considered.
    used: AtomicBool,
    pub(super) place: Place,
}

/// Where an answer is.
pub(super) enum Place {
    Memory(Arc<Kept>, Bytes),
    /// Its head is known, its body is in the file.
    Disk(Arc<Kept>),
    /// It is in a file that is older than this process, and nobody looked into it yet.
    Unread,
}

impl Entry {
    /// Its head, if that is known.
    pub(super) fn kept(&self) -> Option<&Arc<Kept>> {
        match &self.place {
            Place::Memory(kept, _) | Place::Disk(kept) => Some(kept),
            Place::Unread => None,
        }
    }

    fn supersedes(&self, other: &Self) -> bool {
        matches!((self.kept(), other.kept()), (Some(kept), Some(other)) if kept.supersedes(other))
    }
}

/// What there is for a request.
pub(super) enum Found {
    Nothing,
    Answer(Arc<Entry>, Arc<Kept>),
    /// These have to be read first.
    Unread(Vec<Arc<Entry>>),
}

impl Zone {
    pub(super) fn new(limits: Limits, shelf: Option<Arc<dyn Shelf>>, outbound: Arc<dyn Outbound>) -> Self {
        Self {
            limits,
            answers: papaya::HashMap::new(),
            books: Mutex::default(),
            arriving: Arc::default(),
            outbound,
            is_open: AtomicBool::new(shelf.is_none()),
            shelf,
            opening: Mutex::default(),
            flights: Arc::default(),
        }
    }

    /// What is waited for before a zone is used that is on disk since before this process; `None`: nothing.
    pub(super) fn opening(self: &Arc<Self>) -> Option<Waiting<()>> {
        let shelf = self.shelf.as_ref().filter(|_| !self.is_open.load(Ordering::Acquire))?;
        let mut opening = self.opening.lock().unwrap_or_else(PoisonError::into_inner);
        let opened = opening.get_or_insert_with(|| {
            let (sender, opened) = async_channel::bounded(1);
            let listing = open(Arc::clone(self), Arc::clone(shelf), sender);
            self.outbound.spawn(Box::pin(listing));
            opened
        });
        Some(patiently(opened.clone(), &*self.outbound))
    }

    /// The newest answer for a request, fresh or not.
    pub(super) fn find(&self, key: &Key, asked: Asked<'_>) -> Found {
        let answers = self.answers.pin();
        let Some(variants) = answers.get(key) else { return Found::Nothing };
        let unread: Vec<_> = variants.iter().filter(|entry| entry.kept().is_none()).cloned().collect();
        if !unread.is_empty() {
            return Found::Unread(unread);
        }
        let right = variants
            .iter()
            .filter_map(|entry| Some((entry, entry.kept()?)))
            .filter(|(_, kept)| kept.answers(asked));
        match right.max_by_key(|(_, kept)| kept.kept_at) {
            Some((entry, kept)) => {
                entry.used.store(true, Ordering::Relaxed);
                Found::Answer(Arc::clone(entry), Arc::clone(kept))
            }
            None => Found::Nothing,
        }
    }

    /// Reads an answer from disk. One that is damaged or gone is forgotten.
    pub(super) async fn read(&self, key: Key, entry: Arc<Entry>) -> Option<(Arc<Kept>, Bytes)> {
        let shelf = self.shelf.as_ref()?;
        let record = shelf.read(&name(&key, entry.id)).await.and_then(|bytes| Record::decode(&bytes));
        let Some(record) = record.filter(|record| record.key == key) else {
            if self.remove(&key, &entry)
                && let Some(forgetting) = self.forget(vec![(key, entry)])
            {
                forgetting.await;
            }
            return None;
        };
        let kept = match entry.kept() {
            Some(kept) => Arc::clone(kept),
            None => {
                let kept = Arc::new(record.kept);
                let (place, used) = (Place::Disk(Arc::clone(&kept)), AtomicBool::new(true));
                self.swap(&key, &entry, Arc::new(Entry { id: entry.id, bytes: entry.bytes, used, place }));
                kept
            }
        };
        Some((kept, record.body))
    }

    /// Room for an answer that is going to arrive.
    pub(super) fn room(&self) -> Room {
        Room { taken: Arc::clone(&self.arriving), bytes: 0 }
    }

    /// Bytes of the longest body that can be kept.
    pub(super) fn body_bytes_max(&self) -> usize {
        self.limits.bytes
    }

    /// Keeps an answer under a name of its own, in place of those that nobody would get any more.
    pub(super) fn keep(self: &Arc<Self>, key: Key, id: u64, kept: Kept, body: Bytes, room: Room) {
        let bytes = kept.bytes() + body.len();
        if bytes > self.limits.bytes || self.limits.entries == 0 {
            return;
        }
        let kept = Arc::new(kept);
        let place = Place::Memory(Arc::clone(&kept), body.clone());
        let entry = Arc::new(Entry { id, bytes, used: AtomicBool::new(false), place });
        self.insert(key, Arc::clone(&entry));
        let Some(shelf) = self.shelf.clone() else { return };
        let zone = Arc::clone(self);
        self.outbound.spawn_finishing(Box::pin(async move {
            let record = Record { key, kept: Kept::clone(&kept), body }.encode();
            if let Err(failure) = shelf.write(&name(&key, id), record).await {
                zone.remove(&key, &entry);
                zone.outbound.warn(super::KIND.name, &format!("an answer is not kept on disk: {failure}"));
                return;
            }
            let used = AtomicBool::new(entry.used.load(Ordering::Relaxed));
            let written = Entry { id, bytes, used, place: Place::Disk(kept) };
            if !zone.swap(&key, &entry, Arc::new(written)) {
                shelf.remove(vec![name(&key, id)]).await;
            }
            drop(room);
        }));
    }

    /// Forgets every answer to `key`. What is handed back ends when they are gone from the disk as well; `None`: there
    /// was none.
    pub(super) fn purge(&self, key: Key) -> Option<Waiting<()>> {
        let mut books = self.books();
        let answers = self.answers.pin();
        let all = answers.remove(&key).into_iter().flat_map(|all| all.iter());
        let gone: Vec<_> = all.map(|entry| (key, Arc::clone(entry))).collect();
        gone.iter().for_each(|(_, entry)| books.subtract(entry));
        (!gone.is_empty()).then(|| self.forget(gone).unwrap_or_else(|| Box::pin(std::future::ready(()))))
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn insert(&self, key: Key, entry: Arc<Entry>) {
        let mut books = self.books();
        let answers = self.answers.pin();
        let known = answers.get(&key).map(Arc::clone).unwrap_or_default();
        let (gone, mut variants): (Vec<_>, Vec<_>) =
            known.iter().cloned().partition(|other| entry.supersedes(other));
        let mut gone: Vec<_> = gone.into_iter().map(|entry| (key, entry)).collect();
        while variants.len() >= VARIANTS_MAX {
            gone.push((key, variants.remove(0)));
        }
        gone.iter().for_each(|(_, entry)| books.subtract(entry));
        books.add(key, &entry);
        variants.push(entry);
        answers.insert(key, variants.into());
        while books.entries > self.limits.entries || books.bytes > self.limits.bytes {
            let Some((key, id)) = books.queue.pop_front() else { break };
            let known = answers.get(&key).and_then(|all| all.iter().find(|entry| entry.id == id));
            let Some(entry) = known.cloned() else { continue };
            if entry.used.swap(false, Ordering::Relaxed) {
                books.queue.push_back((key, id));
                continue;
            }
            self.take_out(&key, &entry);
            books.subtract(&entry);
            gone.push((key, entry));
        }
        books.tidy(|key, id| answers.get(key).is_some_and(|all| all.iter().any(|entry| entry.id == id)));
        drop(books);
        if let Some(forgetting) = self.forget(gone) {
            self.outbound.spawn(forgetting);
        }
    }

    /// Takes an answer out of those to `key`; the books are the caller's.
    fn take_out(&self, key: &Key, entry: &Arc<Entry>) -> bool {
        let answers = self.answers.pin();
        let Some(known) = answers.get(key).map(Arc::clone) else { return false };
        let rest: Vec<_> = known.iter().filter(|other| !Arc::ptr_eq(other, entry)).cloned().collect();
        let found = rest.len() < known.len();
        match rest.is_empty() {
            true => drop(answers.remove(key)),
            false => drop(answers.insert(*key, rest.into())),
        }
        found
    }

    fn remove(&self, key: &Key, entry: &Arc<Entry>) -> bool {
        let mut books = self.books();
        let found = self.take_out(key, entry);
        if found {
            books.subtract(entry);
        }
        found
    }

    /// Puts `new` where `old` is; `false`: that is gone.
    fn swap(&self, key: &Key, old: &Arc<Entry>, new: Arc<Entry>) -> bool {
        let _books = self.books();
        let answers = self.answers.pin();
        let Some(known) = answers.get(key).map(Arc::clone) else { return false };
        if !known.iter().any(|entry| Arc::ptr_eq(entry, old)) {
            return false;
        }
        let put = |entry: &Arc<Entry>| Arc::clone(if Arc::ptr_eq(entry, old) { &new } else { entry });
        answers.insert(*key, known.iter().map(put).collect());
        true
    }

    /// Removes the files of answers that do not belong to the zone any more. One that is still being written is
    /// removed by whoever writes it.
    fn forget(&self, gone: Vec<(Key, Arc<Entry>)>) -> Option<Waiting<()>> {
        let shelf = self.shelf.clone()?;
        let files = gone.iter().filter(|(_, entry)| !matches!(entry.place, Place::Memory(..)));
        let names: Vec<_> = files.map(|(key, entry)| name(key, entry.id)).collect();
        (!names.is_empty()).then(|| Box::pin(async move { shelf.remove(names).await }) as _)
    }

    /// How many answers there are, and their bytes.
    #[cfg(test)]
    pub(super) fn size(&self) -> (usize, usize) {
        let books = self.books();
        (books.entries, books.bytes)
    }
}

impl Books {
    fn add(&mut self, key: Key, entry: &Entry) {
        self.entries += 1;
        self.bytes += entry.bytes;
        self.queue.push_back((key, entry.id));
    }

    fn subtract(&mut self, entry: &Entry) {
        self.entries -= 1;
        self.bytes -= entry.bytes;
    }

    /// Forgets the places of what is gone, once there are as many of them as of others.
    fn tidy(&mut self, is_there: impl Fn(&Key, u64) -> bool) {
        if self.queue.len() > 2 * self.entries + 64 {
            self.queue.retain(|(key, id)| is_there(key, *id));
        }
    }
}

/// What a file is called.
fn name(Key(key): &Key, id: u64) -> String {
    let mut name = String::with_capacity(81);
    key.iter().for_each(|byte| name += &format!("{byte:02x}"));
    name + &format!("-{id:016x}")
}

/// What a file called `name` holds.
fn named(name: &str) -> Option<(Key, u64)> {
    let (key, id) = name.split_once('-')?;
    if key.len() != 64 || !key.is_ascii() {
        return None;
    }
    let mut bytes = [0; 32];
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&key[2 * index..2 * index + 2], 16).ok()?;
    }
    Some((Key(bytes), u64::from_str_radix(id, 16).ok()?))
}

/// Takes up what is on disk, without reading it; what has no name of ours is removed.
async fn open(zone: Arc<Zone>, shelf: Arc<dyn Shelf>, opened: Sender<()>) {
    let mut strange = Vec::new();
    for (file, bytes) in shelf.names().await {
        match named(&file) {
            Some((key, id)) => {
                let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
                let entry = Entry { id, bytes, used: AtomicBool::new(false), place: Place::Unread };
                zone.insert(key, Arc::new(entry));
            }
            None => strange.push(file),
        }
    }
    zone.is_open.store(true, Ordering::Release);
    // Whoever waits learns of it from the end of the channel.
    drop(opened);
    if !strange.is_empty() {
        shelf.remove(strange).await;
    }
}

/// Room that an arriving answer takes; given back when this is dropped.
pub(super) struct Room {
    taken: Arc<AtomicUsize>,
    bytes: usize,
}

impl Room {
    /// Takes more; `false`: there is none.
    pub(super) fn take(&mut self, bytes: usize) -> bool {
        let taken = self.taken.fetch_add(bytes, Ordering::Relaxed);
        self.bytes += bytes;
        taken.saturating_add(bytes) <= ARRIVING_BYTES_MAX
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.taken.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbound::refusing;
    use crate::proxy_cache::kept::{Which, tests::kept};
    use gatewright_model::message::Fields;

    fn zone(entries: usize, bytes: usize) -> Arc<Zone> {
        Arc::new(Zone::new(Limits { entries, bytes }, None, refusing()))
    }

    fn keep(zone: &Arc<Zone>, key: u8, accept: &str, bytes: usize) {
        static IDS: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        let mut kept = kept(&[]);
        kept.vary[0].1.0 = accept.as_bytes().to_vec();
        let id = IDS.fetch_add(1, Ordering::Relaxed);
        zone.keep(Key([key; 32]), id, kept, vec![0; bytes].into(), zone.room());
    }

    fn has(zone: &Zone, key: u8, accept: &str) -> bool {
        let mut fields = Fields::default();
        fields.append("Accept", accept.as_bytes());
        let asked = Asked { which: Which::Get, fields: &fields, is_authorised: false };
        matches!(zone.find(&Key([key; 32]), asked), Found::Answer(..))
    }

    #[test]
    fn neither_entries_nor_bytes_exceed_their_limits() {
        let many = zone(3, 1 << 20);
        (0..200).for_each(|key| keep(&many, key, "a", 10));
        assert_eq!(many.size().0, 3);
        assert!(many.books().queue.len() <= 3 + 64);
        let large = zone(1000, 10_000);
        (0..200).for_each(|key| {
            keep(&large, key, "a", 1000);
            assert!(large.size().1 <= 10_000);
        });
        keep(&large, 250, "a", 10_000);
        assert!(!has(&large, 250, "a"), "what is larger than the zone pushes nothing out");
        assert!(large.size().0 > 1);
        let nothing = zone(0, 1 << 20);
        keep(&nothing, 1, "a", 1);
        assert_eq!(nothing.size(), (0, 0));
    }

    #[test]
    fn what_is_asked_for_stays() {
        let zone = zone(3, 1 << 20);
        for key in 0..100 {
            keep(&zone, key, "a", 1);
            assert!(has(&zone, 0, "a"), "after {key}");
        }
        assert!(has(&zone, 99, "a") && !has(&zone, 50, "a"));
    }

    #[test]
    fn answers_to_one_key_are_bounded_and_take_each_others_place() {
        let zone = zone(1000, 1 << 20);
        (0..10).for_each(|_| keep(&zone, 1, "a", 1));
        assert_eq!(zone.size().0, 1);
        (0..100).for_each(|variant| keep(&zone, 1, &variant.to_string(), 1));
        assert_eq!(zone.size().0, VARIANTS_MAX);
        assert!(has(&zone, 1, "99") && !has(&zone, 1, "3"));
        assert!(zone.purge(Key([1; 32])).is_some() && !has(&zone, 1, "99"));
        assert_eq!(zone.size(), (0, 0));
        assert!(zone.purge(Key([1; 32])).is_none());
    }

    #[test]
    fn what_arrives_is_bounded() {
        let zone = zone(10, 1 << 20);
        let (mut first, mut second) = (zone.room(), zone.room());
        assert!(first.take(ARRIVING_BYTES_MAX) && !second.take(1));
        drop((first, second));
        assert!(zone.room().take(ARRIVING_BYTES_MAX));
    }

    #[test]
    fn zones_are_found_by_name_and_bounded() {
        let (zones, outbound) = (Zones::default(), refusing());
        let one = zones.zone("one", false, &outbound);
        assert!(Arc::ptr_eq(&one, &zones.zone("one", false, &outbound)));
        assert!(!Arc::ptr_eq(&one, &zones.zone("one", true, &outbound)));
        let held: Vec<_> = (0..20).map(|index| zones.zone(&index.to_string(), false, &outbound)).collect();
        let with_room = held.iter().filter(|zone| zone.limits.entries > 0).count();
        assert_eq!(with_room, ZONES_MAX - 1);
        drop(held);
        assert!(zones.zone("later", false, &outbound).limits.entries > 0);
    }

    #[test]
    fn names_of_files_are_told_from_others() {
        let (key, id) = (Key([0xa7; 32]), 0xfe);
        assert_eq!(named(&name(&key, id)), Some((key, id)));
        for other in ["", "a", "-", &"g".repeat(81), &"é".repeat(32), &format!("{}-x", "a".repeat(64))] {
            assert_eq!(named(other), None, "{other}");
        }
    }
}
