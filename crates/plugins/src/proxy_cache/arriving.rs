//! An answer on its way into a zone: whether it may be kept, for how long, and the body as it streams past.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gatewright_model::message::{Fields, Span};

use super::flights::Flight;
use super::freshness::{self, CacheControl};
use super::kept::{Kept, Value, Which, joined};
use super::zone::{Key, Room, Zone};
use super::{Cache, Old, Plan, STATUS, Strategy, any};
use crate::exchange::Exchange;
use crate::response::{BodyFilter, Response};

/// Fields that belong to one message and not to what it carries.
const NOT_KEPT: [&str; 5] = ["Age", "Connection", "Transfer-Encoding", "Trailer", STATUS];

/// Fields of a 304 that say nothing about the answer it confirms (RFC 9111 section 3.2).
const NOT_UPDATED: [&str; 4] = ["Content-Length", "Content-Encoding", "Content-Type", "Content-Range"];

impl Cache {
    /// Has an answer of the upstream kept, if it may be.
    pub(super) fn record(
        &self,
        exchange: &Exchange<'_>,
        response: &mut Response<'_>,
        plan: &Plan,
        status: u16,
        flight: Option<Flight>,
    ) {
        let Some(received) = response.received.take() else { return };
        let Some(kept) = self.kept(exchange, plan, status, &received) else { return };
        let length = received.named(b"content-length").next().map(<[u8]>::to_vec);
        let length = length.and_then(|text| std::str::from_utf8(&text).ok()?.parse::<usize>().ok());
        let bytes_max = usize::try_from(self.config.max_resp_body_size).unwrap_or(usize::MAX);
        let mut arriving = Arriving {
            zone: Arc::clone(&self.zone),
            key: plan.key,
            id: exchange.surroundings.random(),
            kept: Some(kept),
            body: Vec::new(),
            bytes_max: bytes_max.min(self.zone.body_bytes_max()),
            room: self.zone.room(),
            flight,
        };
        if !response.has_body || length == Some(0) {
            arriving.finish(&mut Vec::new());
        } else if response.is_delimited && length.is_none_or(|length| length <= arriving.bytes_max) {
            response.observe_received(Box::new(arriving));
        }
    }

    /// The old answer is still right: keeps it for longer, and gives it to the client unless that has it.
    pub(super) fn confirm(
        &self,
        exchange: &Exchange<'_>,
        response: &mut Response<'_>,
        plan: &Plan,
        old: &Old,
        flight: Option<Flight>,
    ) {
        let received = response.received.take().unwrap_or_default();
        let updated = updated(&old.kept, &received);
        if let Some(kept) = self.kept(exchange, plan, old.kept.status, &updated) {
            let (zone, id) = (&self.zone, exchange.surroundings.random());
            zone.keep(plan.key, id, kept, old.body.clone(), zone.room());
            flight.into_iter().for_each(Flight::arrived);
        }
        if old.kept.is_known_to(&old.conditions) {
            return;
        }
        response.head.status = old.kept.status;
        response.head.reason = Span::default();
        for (name, Value(value)) in &old.kept.fields {
            if response.field(name).is_none() {
                response.head.fields.append(name, value);
            }
        }
        if old.kept.which != Which::Head {
            response.replace_body(old.body.clone());
        }
    }

    /// The head of an answer as it is kept; `None`: it may not be.
    fn kept(&self, exchange: &Exchange<'_>, plan: &Plan, status: u16, fields: &Fields) -> Option<Kept> {
        let which = plan.which?;
        let (said, now) = (CacheControl::of(fields), exchange.surroundings.now().unix);
        let asked = self.asked(exchange, which);
        // What is only a part, or only a confirmation, answers nobody else.
        let is_whole = !matches!(status, 206 | 304);
        let may_be_kept = is_whole
            && self.config.cache_http_status.contains(&status)
            && said.may_be_kept()
            && (!asked.is_authorised || said.is_for_all())
            && (self.config.cache_set_cookie || fields.named(b"set-cookie").next().is_none())
            && !any(&self.no_cache, exchange);
        if !may_be_kept {
            return None;
        }
        let (age, fresh_for) = self.lifetime(fields, &said, now)?;
        let mut vary = Vec::new();
        for name in fields.named(b"vary").flat_map(|value| value.split(|byte| *byte == b',')) {
            let name = std::str::from_utf8(name.trim_ascii()).ok().filter(|name| *name != "*")?;
            if !name.is_empty() {
                let name = name.to_ascii_lowercase();
                vary.push((name.clone(), Value(joined(asked.fields, &name))));
            }
        }
        vary.sort_by(|(one, _), (other, _)| one.cmp(other));
        vary.dedup();
        let is_kept = |name: &str| {
            let is_length = name.eq_ignore_ascii_case("Content-Length") && which != Which::Head;
            !is_length && !NOT_KEPT.iter().any(|left_out| name.eq_ignore_ascii_case(left_out))
        };
        let fields = fields.iter().filter_map(|field| {
            let name = std::str::from_utf8(fields.bytes(field.name)).ok().filter(|name| is_kept(name))?;
            Some((name.to_owned(), Value(fields.bytes(field.value).to_vec())))
        });
        let is_for_all = said.is_for_all();
        Some(Kept { status, which, fields: fields.collect(), vary, is_for_all, kept_at: now, age, fresh_for })
    }

    /// How old an answer is, and how long it is fresh from now on; `None`: it is not.
    fn lifetime(&self, fields: &Fields, said: &CacheControl, now: Duration) -> Option<(Duration, Duration)> {
        let age = freshness::age(fields, now);
        let own = freshness::lifetime(fields, said, now).map(|lifetime| lifetime.saturating_sub(age));
        let usual = Duration::from_secs(self.config.cache_ttl);
        let fresh_for = match (self.config.cache_strategy, self.config.cache_control, own) {
            // Who says that it is over at once means it.
            (_, _, Some(Duration::ZERO)) => return None,
            (Strategy::Disk, _, own) => own.unwrap_or(usual),
            (Strategy::Memory, true, own) => own?,
            (Strategy::Memory, false, _) => usual,
        };
        Some((age, fresh_for))
    }
}

/// The fields of an answer that was confirmed, as what confirmed it updates them.
fn updated(kept: &Kept, received: &Fields) -> Fields {
    let mut updated = Fields::default();
    kept.fields.iter().for_each(|(name, Value(value))| updated.append(name, value));
    let named = received.iter().filter_map(|field| {
        let name = std::str::from_utf8(received.bytes(field.name)).ok()?;
        let is_new = !NOT_UPDATED.iter().any(|left_out| name.eq_ignore_ascii_case(left_out));
        is_new.then_some((name, received.bytes(field.value)))
    });
    let named: Vec<_> = named.collect();
    named.iter().for_each(|(name, _)| updated.remove(name.as_bytes()));
    named.iter().for_each(|(name, value)| updated.append(name, value));
    updated
}

/// A body that is kept once it is over. One that ends before its time never is: then this is only dropped.
struct Arriving {
    zone: Arc<Zone>,
    key: Key,
    id: u64,
    /// Absent: it turned out that it cannot be kept.
    kept: Option<Kept>,
    body: Vec<u8>,
    bytes_max: usize,
    room: Room,
    flight: Option<Flight>,
}

impl BodyFilter for Arriving {
    fn push(&mut self, piece: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(piece);
        if self.kept.is_none() {
            return;
        }
        if self.body.len() + piece.len() > self.bytes_max || !self.room.take(piece.len()) {
            (self.kept, self.body, self.flight) = (None, Vec::new(), None);
            self.room = self.zone.room();
            return;
        }
        self.body.extend_from_slice(piece);
    }

    fn finish(&mut self, _: &mut Vec<u8>) {
        let Some(kept) = self.kept.take() else { return };
        let body = Bytes::from(std::mem::take(&mut self.body));
        let room = std::mem::replace(&mut self.room, self.zone.room());
        self.zone.keep(self.key, self.id, kept, body, room);
        self.flight.take().into_iter().for_each(Flight::arrived);
    }

    fn only_looks(&self) -> bool {
        true
    }
}
