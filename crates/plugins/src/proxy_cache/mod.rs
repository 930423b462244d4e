//! `proxy-cache`: answers from memory or disk what the upstream answered before.
//!
//! It is asked last before a request goes out, so what another plugin refuses is never answered from a cache. Use it
//! for what many may see: what an upstream answers to whoever is authorised is kept for that consumer alone, or not at
//! all.
//!
//! * [`freshness`]: what `Cache-Control` says.
//! * [`kept`]: an answer as it is kept; [`part`]: a part of one.
//! * [`zone`]: where answers are kept, within limits.
//! * [`flights`]: one asks for many.
//! * [`arriving`]: an answer on its way into a zone.

mod arriving;
mod flights;
mod freshness;
mod kept;
mod part;
mod zone;

use std::cell::RefCell;
use std::sync::Arc;

use bytes::Bytes;
use gatewright_model::expression::Variable;
use gatewright_model::message::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use utoipa::ToSchema;

use crate::exchange::{Answer, Body, Exchange, Flow};
use crate::kind::{self, Built, Category, Kind, Phase, Phases, Plugin, Site};
use crate::outbound::Outbound;
use crate::response::{Origin, Response};
use crate::schema;

use flights::{Flight, Turn};
use freshness::CacheControl;
use kept::{Asked, Conditions, Kept, Which};
use zone::{Entry, Found, Key, Place, Zone, Zones};

pub(crate) const KIND: Kind = Kind {
    name: "proxy-cache",
    priority: 1085,
    category: Category::Other,
    phases: Phases::of(&[Phase::BeforeUpstream, Phase::Response]),
    schema: || {
        let text = json!({ "type": "string", "pattern": r"(^[^\$].+$|^\$[0-9a-zA-Z_]+$)" });
        let texts = json!({ "type": "array", "minItems": 1, "items": text });
        let schema = ["cache_key", "cache_bypass", "no_cache"]
            .iter()
            .fold(schema::of::<Config>(), |schema, path| schema::field(schema, path, texts.clone()));
        let status = json!({ "type": "integer", "minimum": 200, "maximum": 599 });
        let statuses = json!({ "type": "array", "minItems": 1, "uniqueItems": true, "items": status });
        let schema = schema::field(schema, "cache_http_status", statuses);
        let method = json!({ "type": "string", "enum": ["GET", "POST", "HEAD"] });
        let methods = json!({ "type": "array", "minItems": 1, "uniqueItems": true, "items": method });
        schema::field(schema, "cache_method", methods)
    },
    metadata: None,
    credential: None,
    build,
};

/// The field that says what the cache made of a request.
const STATUS: &str = "Apisix-Cache-Status";

/// Bytes of the longest body of a `POST` that an answer is kept for.
const POST_BYTES_MAX: usize = 1024 * 1024;

#[derive(Deserialize, ToSchema)]
#[serde(default)]
#[schema(default)]
struct Config {
    /// The zone that answers are kept in.
    #[schema(min_length = 1, max_length = 100)]
    cache_zone: String,
    /// Whether it is on disk or in memory.
    cache_strategy: Strategy,
    /// What an answer is found by, beside scheme, service, consumer, method and `Vary`: variables and text.
    cache_key: Vec<String>,
    /// Variables; where one is neither empty nor `0`, the cache is not asked.
    cache_bypass: Option<Vec<String>>,
    /// Methods whose answers are kept.
    cache_method: Vec<String>,
    /// Statuses of answers that are kept.
    cache_http_status: Vec<u16>,
    /// Whether clients do without `Cache-Control` and `Expires`.
    hide_cache_headers: bool,
    /// Whether clients have a say with `Cache-Control`, and answers in memory are fresh for as long as they say.
    cache_control: bool,
    /// Variables; where one is neither empty nor `0`, the answer is not kept.
    no_cache: Option<Vec<String>>,
    /// Seconds that answers are fresh which do not say so themselves; in memory, without `cache_control`, all answers.
    #[schema(minimum = 1)]
    cache_ttl: u64,
    /// Whether answers with `Set-Cookie` are kept.
    cache_set_cookie: bool,
    /// Whether each consumer gets answers of its own.
    consumer_isolation: bool,
    /// Bytes of the longest body that is kept.
    #[schema(minimum = 1)]
    max_resp_body_size: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Strategy {
    #[default]
    Disk,
    Memory,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            cache_zone: "disk_cache_one".to_owned(),
            cache_strategy: Strategy::Disk,
            cache_key: vec!["$host".to_owned(), "$request_uri".to_owned()],
            cache_bypass: None,
            cache_method: vec!["GET".to_owned(), "HEAD".to_owned()],
            cache_http_status: vec![200, 301, 404],
            hide_cache_headers: false,
            cache_control: false,
            no_cache: None,
            cache_ttl: 300,
            cache_set_cookie: false,
            consumer_isolation: true,
            max_resp_body_size: 64 * 1024 * 1024,
        }
    }
}

/// Text, or the value of a variable.
#[derive(Debug)]
enum Part {
    Text(Box<str>),
    Variable(Variable),
}

impl Part {
    fn all(texts: &[String]) -> Box<[Self]> {
        let part = |text: &String| match text.strip_prefix('$') {
            Some(name) => Self::Variable(Variable::of(name)),
            None => Self::Text(text.as_str().into()),
        };
        texts.iter().map(part).collect()
    }

    fn value(&self, exchange: &Exchange<'_>) -> Vec<u8> {
        match self {
            Self::Text(text) => text.as_bytes().to_vec(),
            Self::Variable(variable) => exchange.text(variable).unwrap_or_default(),
        }
    }
}

/// Whether one of these says yes.
fn any(parts: &[Part], exchange: &Exchange<'_>) -> bool {
    parts.iter().map(|part| part.value(exchange)).any(|value| !value.is_empty() && value != b"0")
}

struct ProxyCache(Arc<Cache>);

struct Cache {
    config: Config,
    key: Box<[Part]>,
    bypass: Box<[Part]>,
    no_cache: Box<[Part]>,
    zone: Arc<Zone>,
    /// Held so that zones are counted as long as somebody uses one.
    _zones: Arc<Zones>,
    outbound: Arc<dyn Outbound>,
}

fn build(config: Value, site: &Site<'_>) -> Built {
    let config: Config = kind::parse(config)?;
    let zones = site.shared.get("proxy-cache", Zones::default);
    let zone = zones.zone(&config.cache_zone, config.cache_strategy == Strategy::Disk, site.outbound);
    Ok(Arc::new(ProxyCache(Arc::new(Cache {
        key: Part::all(&config.cache_key),
        bypass: Part::all(config.cache_bypass.as_deref().unwrap_or_default()),
        no_cache: Part::all(config.no_cache.as_deref().unwrap_or_default()),
        config,
        zone,
        _zones: zones,
        outbound: Arc::clone(site.outbound),
    }))))
}

/// What the cache made of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    Miss,
    Hit,
    /// There was an answer, which is not fresh any more.
    Expired,
    /// There is one that is fresh, but not for this client.
    Stale,
    /// The upstream said that an old answer is still right.
    Revalidated,
    Bypass,
}

impl Status {
    fn text(self) -> &'static str {
        match self {
            Self::Miss => "MISS",
            Self::Hit => "HIT",
            Self::Expired => "EXPIRED",
            Self::Stale => "STALE",
            Self::Revalidated => "REVALIDATED",
            Self::Bypass => "BYPASS",
        }
    }
}

/// What is done with the answer to a request.
struct Plan {
    status: Status,
    key: Key,
    /// Under what the answer is kept; absent: it is not.
    which: Option<Which>,
    /// What there is already, and is to be confirmed.
    old: Option<Old>,
    /// Who waits for the answer.
    flight: RefCell<Option<Flight>>,
}

/// An old answer that the upstream is asked about, and what the client wanted to know.
struct Old {
    kept: Arc<Kept>,
    body: Bytes,
    conditions: Conditions,
}

impl Plan {
    fn new(status: Status, key: Key, which: Option<Which>) -> Self {
        Self { status, key, which, old: None, flight: RefCell::default() }
    }
}

impl Plugin for ProxyCache {
    fn before_upstream(&self, exchange: &mut Exchange<'_>) -> Flow {
        let cache = &self.0;
        let which = match cache.which(exchange) {
            Ok(which) => which,
            Err(flow) => return flow,
        };
        let key = cache.key(exchange);
        let Some(opening) = cache.zone.opening() else { return cache.go_on(exchange, key, which) };
        let cache = Arc::clone(cache);
        Flow::after(opening, move |(), exchange| cache.go_on(exchange, key, which))
    }

    fn response(&self, exchange: &mut Exchange<'_>, response: &mut Response<'_>) {
        let cache = &self.0;
        let Some(plan) = exchange.note::<Plan>() else { return };
        let mut status = plan.status;
        // Whoever waits does so for an answer that is kept; whatever else this becomes, they go on.
        let flight = plan.flight.take();
        match (response.origin, &plan.old) {
            (Origin::Upstream(304), Some(old)) => {
                status = Status::Revalidated;
                cache.confirm(exchange, response, plan, old, flight);
            }
            (Origin::Upstream(code), _) if plan.which.is_some() => {
                cache.record(exchange, response, plan, code, flight);
            }
            (Origin::Upstream(200..=399), _) if changes_something(exchange.request.method) => {
                // What it was may not be what it is now (RFC 9111 section 4.4).
                if let Some(forgetting) = cache.zone.purge(plan.key) {
                    cache.outbound.spawn(forgetting);
                }
            }
            _ => {}
        }
        response.set_field(STATUS, status.text().as_bytes());
        if cache.config.hide_cache_headers {
            [&b"Cache-Control"[..], b"Expires"].iter().for_each(|name| response.head.fields.remove(name));
        }
    }
}

/// Whether requests with this method change what they name.
fn changes_something(method: Method) -> bool {
    !matches!(method, Method::Get | Method::Head | Method::Options | Method::Trace | Method::Connect)
}

impl Cache {
    /// What is asked for; absent: nothing that is kept. The body of a `POST` has to be read first.
    fn which(&self, exchange: &Exchange<'_>) -> Result<Option<Which>, Flow> {
        let request = &exchange.request;
        let method = request.bytes(request.method_text);
        // What was asked with another method has another answer than what the upstream is asked for.
        let is_changed = request.client_method() != request.method;
        if is_changed || !self.config.cache_method.iter().any(|kept| kept.as_bytes() == method) {
            return Ok(None);
        }
        Ok(match request.method {
            Method::Get => Some(Which::Get),
            Method::Head => Some(Which::Head),
            Method::Post => match (&exchange.state.body_replaced, &exchange.state.body) {
                (Some(body), _) | (None, Body::Read(body)) => Some(Which::Post(Sha256::digest(body).into())),
                (None, Body::Unread) => return Err(Flow::ReadBody(POST_BYTES_MAX)),
                (None, Body::TooLarge) => None,
            },
            _ => None,
        })
    }

    /// What answers to the request are found by. Each part says how long it is, so that no two lists look alike.
    fn key(&self, exchange: &Exchange<'_>) -> Key {
        let mut digest = Sha256::new();
        let mut add = |part: &[u8]| {
            digest.update((part.len() as u64).to_le_bytes());
            digest.update(part);
        };
        add(exchange.matched.service_id.as_bytes());
        add(if exchange.client.tls { b"https" } else { b"http" });
        let consumer = exchange.state.consumer.as_ref().filter(|_| self.config.consumer_isolation);
        add(consumer.map_or(b"", |consumer| consumer.name.as_bytes()));
        self.key.iter().for_each(|part| add(&part.value(exchange)));
        Key(digest.finalize().into())
    }

    fn asked<'a>(&self, exchange: &'a Exchange<'_>, which: Which) -> Asked<'a> {
        let has_own_answers = self.config.consumer_isolation && exchange.state.consumer.is_some();
        let shows = exchange.state.is_vouched_for || exchange.field("Authorization").is_some();
        Asked { which, fields: &exchange.request.fields, is_authorised: shows && !has_own_answers }
    }

    /// What becomes of a request, now that the zone is there.
    fn go_on(self: &Arc<Self>, exchange: &mut Exchange<'_>, key: Key, which: Option<Which>) -> Flow {
        if exchange.request.method == Method::Purge {
            return self.purge(key);
        }
        let Some(which) = which else {
            exchange.set_note(Plan::new(Status::Miss, key, None));
            return Flow::Continue;
        };
        let said = self.said(exchange);
        // Changes of what is there on conditions are the upstream's affair, and so are parts of an answer unless the
        // whole is here.
        let asks = |name| exchange.field(name).is_some();
        let is_part = asks("Range") && (which != Which::Get || said.no_cache || any(&self.bypass, exchange));
        let is_special = is_part || asks("If-Match") || asks("If-Unmodified-Since");
        if is_special || said.no_store || any(&self.bypass, exchange) {
            // On disk, what was asked for past the cache is what the cache has from then on.
            let refreshes = self.config.cache_strategy == Strategy::Disk && !is_special && !said.no_store;
            exchange.state.keeps_received = refreshes;
            exchange.set_note(Plan::new(Status::Bypass, key, refreshes.then_some(which)));
            return Flow::Continue;
        }
        if said.no_cache {
            exchange.state.keeps_received = true;
            exchange.set_note(Plan::new(Status::Bypass, key, Some(which)));
            return Flow::Continue;
        }
        self.look(exchange, key, which, false)
    }

    /// What the client says, if it has a say.
    fn said(&self, exchange: &Exchange<'_>) -> CacheControl {
        match self.config.cache_control {
            true => CacheControl::of(&exchange.request.fields),
            false => CacheControl::default(),
        }
    }

    fn purge(&self, key: Key) -> Flow {
        let Some(forgetting) = self.zone.purge(key) else { return Flow::respond(Answer::new(404)) };
        Flow::after(forgetting, |(), _| Flow::respond(Answer::new(200)))
    }

    /// Looks for an answer; `waited`: for that of another request.
    fn look(self: &Arc<Self>, exchange: &mut Exchange<'_>, key: Key, which: Which, waited: bool) -> Flow {
        let (entry, kept) = match self.zone.find(&key, self.asked(exchange, which)) {
            Found::Answer(entry, kept) => (entry, kept),
            Found::Nothing => return self.ask(exchange, Plan::new(Status::Miss, key, Some(which)), waited),
            Found::Unread(unread) => {
                let cache = Arc::clone(self);
                let zone = Arc::clone(&self.zone);
                let reading = async move {
                    for entry in unread {
                        zone.read(key, entry).await;
                    }
                };
                return Flow::after(reading, move |(), exchange| cache.look(exchange, key, which, waited));
            }
        };
        let now = exchange.surroundings.now().unix;
        let said = self.said(exchange);
        let remaining = kept.remaining(now);
        let is_too_old = said.max_age.is_some_and(|seconds| kept.age(now).as_secs() > seconds);
        let is_too_short = said.min_fresh.is_some_and(|seconds| remaining.as_secs() < seconds);
        let status = match () {
            () if remaining.is_zero() => Status::Expired,
            () if is_too_old || is_too_short => Status::Stale,
            () => Status::Hit,
        };
        let needs_body = status == Status::Hit || kept.has_validator();
        match &entry.place {
            Place::Memory(kept, body) => {
                self.use_up(exchange, (key, which), (kept, Some(body)), status, waited)
            }
            _ if needs_body => self.fetch(key, which, entry, status, waited),
            _ => self.use_up(exchange, (key, which), (&kept, None), status, waited),
        }
    }

    /// Reads the body of an answer from disk.
    fn fetch(
        self: &Arc<Self>,
        key: Key,
        which: Which,
        entry: Arc<Entry>,
        status: Status,
        waited: bool,
    ) -> Flow {
        let cache = Arc::clone(self);
        let zone = Arc::clone(&self.zone);
        let reading = async move { zone.read(key, entry).await };
        Flow::after(reading, move |read, exchange| match read {
            Some((kept, body)) => cache.use_up(exchange, (key, which), (&kept, Some(&body)), status, waited),
            None => cache.ask(exchange, Plan::new(Status::Miss, key, Some(which)), waited),
        })
    }

    /// Answers with what is there, or asks the upstream about it.
    fn use_up(
        self: &Arc<Self>,
        exchange: &mut Exchange<'_>,
        (key, which): (Key, Which),
        (kept, body): (&Arc<Kept>, Option<&Bytes>),
        status: Status,
        waited: bool,
    ) -> Flow {
        let conditions = Conditions::of(&exchange.request.fields);
        if let (Status::Hit, Some(body)) = (status, body) {
            exchange.set_note(Plan::new(Status::Hit, key, None));
            let age = kept.age(exchange.surroundings.now().unix);
            return Flow::respond(kept.answer(body, &conditions, age.as_secs()));
        }
        let mut plan = Plan::new(status, key, Some(which));
        // What a GET got tells nothing of what a HEAD would get now, and the other way round.
        if let Some(body) = body.filter(|_| kept.has_validator() && kept.which == which) {
            plan.old = Some(Old { kept: Arc::clone(kept), body: body.clone(), conditions });
        }
        self.ask(exchange, plan, waited)
    }

    /// Has the upstream asked, or waits for the answer to somebody else who asks the same.
    fn ask(self: &Arc<Self>, exchange: &mut Exchange<'_>, plan: Plan, waited: bool) -> Flow {
        if self.said(exchange).only_if_cached {
            exchange.set_note(Plan::new(plan.status, plan.key, None));
            return Flow::respond(Answer::new(504));
        }
        if exchange.field("Range").is_some() {
            exchange.set_note(Plan::new(Status::Bypass, plan.key, None));
            return Flow::Continue;
        }
        let (key, Some(which)) = (plan.key, plan.which) else { return Flow::Continue };
        if which == Which::Get && !waited && !self.asked(exchange, which).is_authorised {
            let uptime = exchange.surroundings.now().uptime;
            match self.zone.flights.turn(key, uptime, &*self.outbound) {
                Turn::First(flight) => *plan.flight.borrow_mut() = Some(flight),
                Turn::Own => {}
                Turn::After(over) => {
                    let cache = Arc::clone(self);
                    return Flow::after(over, move |(), exchange| cache.look(exchange, key, which, true));
                }
            }
        }
        if let Some(old) = &plan.old {
            let fields = &mut exchange.request.fields;
            for (condition, validator) in [("If-None-Match", "ETag"), ("If-Modified-Since", "Last-Modified")]
            {
                fields.remove(condition.as_bytes());
                if let Some(value) = old.kept.field(validator) {
                    fields.append(condition, value);
                }
            }
        }
        exchange.state.keeps_received = true;
        exchange.set_note(plan);
        Flow::Continue
    }
}

#[cfg(test)]
mod tests;
