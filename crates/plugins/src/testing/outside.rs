//! What is outside of a trial: time, and whoever plugins ask or tell.

use std::collections::BTreeMap;
use std::future::{poll_fn, ready};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;

use super::Trial;
use crate::outbound::{Destination, Failure, Outbound, Request, Response as Reply, Shelf, Waiting};
use crate::redis::{Act, Entry, Redis};

/// What is outside of a trial: time, and whoever is asked there.
pub(super) struct Outside {
    pub(super) now: Mutex<Duration>,
    pub(super) answer: Mutex<Box<Answering>>,
    pub(super) asked: Mutex<Vec<Request>>,
    pub(super) work: Mutex<Vec<Waiting<()>>>,
    pub(super) delivered: Mutex<Vec<(Destination, String)>>,
    pub(super) lost: Mutex<u64>,
    pub(super) closing: Mutex<bool>,
    pub(super) disk: Mutex<Option<Disk>>,
    pub(super) redis: Mutex<Kept>,
}

/// What stands for a Redis server: entries by key, each with when it ends; `None`: it is away.
pub(crate) type Kept = Arc<Mutex<Option<BTreeMap<Vec<u8>, (Bytes, Duration)>>>>;

/// Files by name; all shelves are one.
pub(crate) type Disk = Arc<Mutex<BTreeMap<String, Bytes>>>;

/// A shelf of a trial.
struct OnDisk(Disk);

/// What stands for everybody outside.
pub(super) type Answering = dyn FnMut(&Request) -> Result<Reply, Failure> + Send;

impl Default for Outside {
    fn default() -> Self {
        let nobody = |_: &Request| Err(Failure::Unreachable("nobody is there".to_owned()));
        Self {
            now: Mutex::default(),
            answer: Mutex::new(Box::new(nobody)),
            asked: Mutex::default(),
            work: Mutex::default(),
            delivered: Mutex::default(),
            lost: Mutex::default(),
            closing: Mutex::default(),
            disk: Mutex::default(),
            redis: Mutex::default(),
        }
    }
}

impl Outside {
    pub(super) fn now(&self) -> Duration {
        *self.now.lock().expect("the time")
    }

    /// Lets the work that goes on beside requests come as far as it can.
    pub(super) fn work(&self) {
        let going = std::mem::take(&mut *self.work.lock().expect("work"));
        let goes_on =
            |work: &mut Waiting<()>| work.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending();
        let still: Vec<_> =
            going.into_iter().filter_map(|mut work| goes_on(&mut work).then_some(work)).collect();
        self.work.lock().expect("work").extend(still);
    }
}

impl Trial {
    /// Lets `kept` stand for every Redis server.
    pub(crate) fn with_redis(self, kept: &Kept) -> Self {
        *self.world.outside.redis.lock().expect("a server") = Arc::clone(kept);
        self
    }

    /// What lies on disk, to look at and to damage.
    pub(crate) fn disk(&self) -> Disk {
        self.world.outside.disk.lock().expect("a disk").clone().expect("a disk")
    }
}

/// The outside of a trial, as plugins see it.
pub(super) struct Door(pub(super) Arc<Outside>);

impl Outbound for Door {
    fn send(&self, request: Request) -> Waiting<Result<Reply, Failure>> {
        let outside = Arc::clone(&self.0);
        Box::pin(async move {
            let answer = (outside.answer.lock().expect("an answer"))(&request);
            outside.asked.lock().expect("requests").push(request);
            answer
        })
    }

    fn spawn(&self, work: Waiting<()>) {
        self.0.work.lock().expect("work").push(work);
        self.0.work();
    }

    fn sleep(&self, time: Duration) -> Waiting<()> {
        let outside = Arc::clone(&self.0);
        let until = outside.now() + time;
        Box::pin(poll_fn(move |_| if outside.now() < until { Poll::Pending } else { Poll::Ready(()) }))
    }

    fn spawn_finishing(&self, work: Waiting<()>) {
        self.spawn(work);
    }

    fn closing(&self) -> Waiting<()> {
        let outside = Arc::clone(&self.0);
        Box::pin(poll_fn(move |_| match *outside.closing.lock().expect("the end") {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }))
    }

    fn deliver(&self, to: &Destination, bytes: Bytes) -> Waiting<Result<(), Failure>> {
        let text = String::from_utf8(bytes.to_vec()).expect("text");
        self.0.delivered.lock().expect("deliveries").push((to.clone(), text));
        Box::pin(ready(Ok(())))
    }

    fn redis_entry(&self, _: &Arc<Redis>, entry: Entry) -> Waiting<Result<Option<Bytes>, Failure>> {
        let (now, kept) = (self.0.now(), Arc::clone(&self.0.redis.lock().expect("a server")));
        let mut kept = kept.lock().expect("entries");
        let Some(entries) = &mut *kept else { return Box::pin(ready(Err(Failure::TimedOut))) };
        entries.retain(|_, (_, ends)| now < *ends);
        let came = match entry.act {
            Act::Read => entries.get(&entry.key).map(|(bytes, _)| bytes.clone()),
            Act::Write { bytes, lifetime, replaces } if replaces == entries.contains_key(&entry.key) => {
                entries.insert(entry.key, (bytes, now + lifetime));
                Some(Bytes::new())
            }
            Act::Write { .. } => None,
            Act::Remove => entries.remove(&entry.key).map(|_| Bytes::new()),
        };
        Box::pin(ready(Ok(came)))
    }

    fn shelf(&self, _: &str) -> Option<Arc<dyn Shelf>> {
        Some(Arc::new(OnDisk(self.0.disk.lock().expect("a disk").clone()?)))
    }

    fn lost(&self, _: &'static str, entries: u64) {
        *self.0.lost.lock().expect("losses") += entries;
    }

    fn warn(&self, _: &'static str, _: &str) {}
}

impl Shelf for OnDisk {
    fn names(&self) -> Waiting<Vec<(String, u64)>> {
        let files = self.0.lock().expect("files");
        Box::pin(ready(files.iter().map(|(name, bytes)| (name.clone(), bytes.len() as u64)).collect()))
    }

    fn read(&self, name: &str) -> Waiting<Option<Bytes>> {
        Box::pin(ready(self.0.lock().expect("files").get(name).cloned()))
    }

    fn write(&self, name: &str, bytes: Bytes) -> Waiting<Result<(), Failure>> {
        self.0.lock().expect("files").insert(name.to_owned(), bytes);
        Box::pin(ready(Ok(())))
    }

    fn remove(&self, names: Vec<String>) -> Waiting<()> {
        let mut files = self.0.lock().expect("files");
        names.iter().for_each(|name| drop(files.remove(name)));
        Box::pin(ready(()))
    }
}
