//! What plugins tell others about requests, gathered and sent beside them: log entries and spans.
//!
//! A request only puts an entry into an [`Outbox`], which never waits: what does not fit is dropped and counted. One
//! task for each outbox gathers entries into a batch, sends it, and tries again as its [`Settings`] say; a batch that
//! could not be sent then is dropped and counted, too. Memory is bounded by entries and by bytes.
//!
//! The task is started by the first entry, so that building an instance does nothing, and ends once the instance is
//! gone and what it had told is sent.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_channel::{Receiver, Sender};
use bytes::Bytes;
use futures_util::future::{Either, select};

use crate::outbound::{Destination, Outbound, Request, Waiting};

/// Bytes that may wait in one outbox.
const PENDING_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Bytes of one batch: what an unlucky receiver has to take at once.
const BATCH_BYTES_MAX: usize = 16 * 1024 * 1024;

/// When a batch is sent, and what happens when that fails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    /// Entries of a full batch, which is sent at once.
    pub(crate) batch_max_size: usize,
    /// How long after the last entry a batch is sent; zero: with what is there.
    pub(crate) inactive_timeout: Duration,
    /// How long after its first entry a batch is sent.
    pub(crate) buffer_duration: Duration,
    /// How often a batch is sent again.
    pub(crate) max_retry_count: u32,
    /// How long after it failed.
    pub(crate) retry_delay: Duration,
    /// Entries that may wait.
    pub(crate) pending_max: usize,
}

/// One thing to send.
#[derive(Clone, Debug)]
pub(crate) enum Parcel {
    /// An HTTP request; an answer of 400 and above is a failure.
    Request(Request),
    /// Bytes for somebody who does not answer.
    Bytes(Destination, Bytes),
}

/// Makes of a batch what is sent.
pub(crate) type Packing = dyn Fn(&[Bytes]) -> Vec<Parcel> + Send + Sync;

/// Where requests leave what is to be told of them.
pub(crate) struct Outbox {
    entries: Sender<Bytes>,
    bytes: Arc<AtomicUsize>,
    plugin: &'static str,
    outbound: Arc<dyn Outbound>,
    /// The task, until the first entry starts it.
    idle: Mutex<Option<Shipping>>,
    started: std::sync::Once,
}

struct Shipping {
    entries: Receiver<Bytes>,
    bytes: Arc<AtomicUsize>,
    plugin: &'static str,
    settings: Settings,
    packing: Box<Packing>,
}

impl Outbox {
    /// Sends what `packing` makes of batches by way of `outbound`, on behalf of `plugin`.
    pub(crate) fn new(
        plugin: &'static str,
        settings: Settings,
        outbound: &Arc<dyn Outbound>,
        packing: Box<Packing>,
    ) -> Self {
        let (sender, entries) = async_channel::bounded(settings.pending_max.max(1));
        let bytes = Arc::new(AtomicUsize::new(0));
        let shipping = Shipping { entries, bytes: Arc::clone(&bytes), plugin, settings, packing };
        Self {
            entries: sender,
            bytes,
            plugin,
            outbound: Arc::clone(outbound),
            idle: Mutex::new(Some(shipping)),
            started: std::sync::Once::new(),
        }
    }

    /// Leaves an entry; it is dropped and counted where too many wait.
    pub(crate) fn put(&self, entry: Vec<u8>) {
        self.started.call_once(|| {
            let shipping = self.idle.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(shipping) = shipping {
                let outbound = Arc::clone(&self.outbound);
                self.outbound.spawn_finishing(Box::pin(shipping.run(outbound)));
            }
        });
        let length = entry.len();
        let waiting = self.bytes.fetch_add(length, Ordering::Relaxed);
        if waiting.saturating_add(length) > PENDING_BYTES_MAX || self.entries.try_send(entry.into()).is_err()
        {
            self.bytes.fetch_sub(length, Ordering::Relaxed);
            self.outbound.lost(self.plugin, 1);
        }
    }
}

impl Shipping {
    async fn run(self, outbound: Arc<dyn Outbound>) {
        let mut closing = outbound.closing();
        while let Some(batch) = self.gather(&mut closing, &*outbound).await {
            self.send(&batch, &*outbound).await;
        }
    }

    /// The next batch; `None`: nobody will leave anything any more. When the gateway ends, nothing is waited for.
    async fn gather(&self, closing: &mut Waiting<()>, outbound: &dyn Outbound) -> Option<Vec<Bytes>> {
        let settings = &self.settings;
        let first = match self.entries.try_recv() {
            Ok(first) => first,
            Err(_) => match select(std::pin::pin!(self.entries.recv()), &mut *closing).await {
                Either::Left((entry, _)) => entry.ok()?,
                Either::Right(_) => self.entries.try_recv().ok()?,
            },
        };
        let mut bytes = first.len();
        let mut batch = vec![first];
        let mut whole = outbound.sleep(settings.buffer_duration);
        while batch.len() < settings.batch_max_size && bytes < BATCH_BYTES_MAX {
            let next = match self.entries.try_recv() {
                Ok(entry) => entry,
                Err(_) if settings.inactive_timeout.is_zero() => break,
                Err(_) => {
                    let silence = outbound.sleep(settings.inactive_timeout);
                    let entry = std::pin::pin!(self.entries.recv());
                    match select(entry, select(silence, select(&mut whole, &mut *closing))).await {
                        Either::Left((Ok(entry), _)) => entry,
                        Either::Left((Err(_), _)) | Either::Right(_) => break,
                    }
                }
            };
            bytes += next.len();
            batch.push(next);
        }
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        Some(batch)
    }

    /// Sends a batch, and again what of it failed.
    async fn send(&self, batch: &[Bytes], outbound: &dyn Outbound) {
        let mut parcels = (self.packing)(batch);
        for attempt in 0..=self.settings.max_retry_count {
            let mut failed = Vec::new();
            for parcel in parcels {
                if let Err(reason) = send_one(&parcel, outbound).await {
                    outbound.warn(self.plugin, &reason);
                    failed.push(parcel);
                }
            }
            if failed.is_empty() {
                return;
            }
            parcels = failed;
            if attempt < self.settings.max_retry_count {
                outbound.sleep(self.settings.retry_delay).await;
            }
        }
        outbound.lost(self.plugin, batch.len() as u64);
    }
}

async fn send_one(parcel: &Parcel, outbound: &dyn Outbound) -> Result<(), String> {
    match parcel {
        Parcel::Bytes(destination, bytes) => {
            let delivered = outbound.deliver(destination, bytes.clone()).await;
            delivered.map_err(|failure| failure.to_string())
        }
        Parcel::Request(request) => match outbound.send(request.clone()).await {
            Ok(answer) if answer.status < 400 => Ok(()),
            Ok(answer) => Err(format!("answered with {}", answer.status)),
            Err(failure) => Err(failure.to_string()),
        },
    }
}

/// A JSON array of entries.
pub(crate) fn json_array(entries: &[Bytes]) -> Vec<u8> {
    let mut array = Vec::with_capacity(entries.iter().map(|entry| entry.len() + 1).sum::<usize>() + 1);
    array.push(b'[');
    join(entries, b',', &mut array);
    array.push(b']');
    array
}

/// Entries one after the other, with `separator` between them.
pub(crate) fn join(entries: &[Bytes], separator: u8, out: &mut Vec<u8>) {
    for (index, entry) in entries.iter().enumerate() {
        if index > 0 {
            out.push(separator);
        }
        out.extend_from_slice(entry);
    }
}
