//! `proxy-mirror`: sends a copy of requests to somebody else, whose answers interest nobody.
//!
//! A copy is sent beside the request, which never waits for it: a body is gathered while it goes to the upstream, and
//! the copy leaves when the last of it has passed. One that is longer than a megabyte is not mirrored.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use gatewright_model::target;
use gatewright_model::validation::Violations;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::exchange::{Body, Exchange, Flow};
use crate::kind::{self, Built, Category, Kind, Phase, Phases, Plugin, Site};
use crate::outbound::{Connection, Outbound, Request};
use crate::response::BodyFilter;
use crate::schema;

pub(crate) const KIND: Kind = Kind {
    name: "proxy-mirror",
    priority: 1010,
    category: Category::Other,
    phases: Phases::of(&[Phase::BeforeUpstream]),
    schema: || {
        let host = r"^(http(s)?|grpc(s)?):\/\/([\da-zA-Z.-]+|\[[\da-fA-F:]+\])(:\d+)?$";
        let schema =
            schema::field(schema::of::<Config>(), "host", json!({ "type": "string", "pattern": host }));
        schema::field(schema, "path", json!({ "type": "string", "pattern": "^/[^?&]+$" }))
    },
    metadata: None,
    credential: None,
    build,
};

/// Bytes of the longest body that is mirrored.
const BODY_BYTES_MAX: usize = 1024 * 1024;

/// Copies of one instance on their way at a time: a slow receiver must not fill the memory.
const COPIES_MAX: usize = 1024;

/// How long a copy may take.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Methods that are mirrored.
const METHODS: [&str; 8] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PURGE"];

/// Fields that belong to one connection, or are written anew.
const NOT_COPIED: [&str; 9] = [
    "host",
    "content-length",
    "transfer-encoding",
    "connection",
    "keep-alive",
    "te",
    "trailer",
    "upgrade",
    "expect",
];

#[derive(Deserialize, ToSchema)]
struct Config {
    /// Where copies are sent: scheme, host and port.
    host: String,
    /// The path of copies, or what stands before it; absent: that of the request.
    #[serde(default)]
    path: Option<String>,
    /// Whether `path` takes the place of the request's or stands before it.
    #[serde(default)]
    #[schema(required = false, default = "replace")]
    path_concat_mode: Concatenation,
    /// The share of requests that are copied.
    #[serde(default = "all")]
    #[schema(required = false, minimum = 0.00001, maximum = 1, default = 1)]
    sample_ratio: f64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Concatenation {
    #[default]
    Replace,
    Prefix,
}

const fn all() -> f64 {
    1.0
}

struct ProxyMirror {
    config: Config,
    sender: Sender,
}

/// What sends copies, beside requests.
#[derive(Clone)]
struct Sender {
    outbound: Arc<dyn Outbound>,
    on_their_way: Arc<AtomicUsize>,
}

/// A copy on its way. It is over when this is dropped.
struct Copy(Arc<AtomicUsize>);

impl Drop for Copy {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn build(config: Value, site: &Site<'_>) -> Built {
    let config: Config = kind::parse(config)?;
    if config.host.starts_with("grpc") {
        return Err(Violations::one("/host", "this release mirrors to http:// and https:// only"));
    }
    let sender = Sender { outbound: Arc::clone(site.outbound), on_their_way: Arc::default() };
    Ok(Arc::new(ProxyMirror { config, sender }))
}

impl Plugin for ProxyMirror {
    fn before_upstream(&self, exchange: &mut Exchange<'_>) -> Flow {
        #[allow(clippy::cast_precision_loss, reason = "a share of requests needs no more digits")]
        let drawn = exchange.surroundings.random() as f64 / u64::MAX as f64;
        if drawn > self.config.sample_ratio {
            return Flow::Continue;
        }
        let Some(mut copy) = self.copy(exchange) else {
            self.sender.outbound.lost(KIND.name, 1);
            return Flow::Continue;
        };
        let read = match (&exchange.state.body_replaced, &exchange.state.body) {
            (Some(body), _) | (None, Body::Read(body)) => Some(body.clone()),
            (None, Body::Unread | Body::TooLarge) => None,
        };
        match read {
            Some(body) if body.len() > BODY_BYTES_MAX => self.sender.outbound.lost(KIND.name, 1),
            Some(body) => {
                copy.body = body;
                self.sender.send(copy);
            }
            None => {
                let (sender, copy) = (self.sender.clone(), Some(copy));
                exchange.state.body_observers.push(Box::new(Gathering { sender, copy, body: Vec::new() }));
            }
        }
        Flow::Continue
    }
}

/// A copy that waits for the body, which is on its way to the upstream.
struct Gathering {
    sender: Sender,
    /// Absent: it was sent, or never will be.
    copy: Option<Request>,
    body: Vec<u8>,
}

impl BodyFilter for Gathering {
    fn push(&mut self, piece: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(piece);
        if self.copy.is_some() && self.body.len() + piece.len() <= BODY_BYTES_MAX {
            self.body.extend_from_slice(piece);
        } else {
            self.give_up();
        }
    }

    fn finish(&mut self, _: &mut Vec<u8>) {
        if let Some(mut copy) = self.copy.take() {
            copy.body = std::mem::take(&mut self.body).into();
            self.sender.send(copy);
        }
    }

    fn only_looks(&self) -> bool {
        true
    }
}

impl Gathering {
    fn give_up(&mut self) {
        self.body = Vec::new();
        if self.copy.take().is_some() {
            self.sender.outbound.lost(KIND.name, 1);
        }
    }
}

// A body that did not come to its end is not copied.
impl Drop for Gathering {
    fn drop(&mut self) {
        self.give_up();
    }
}

impl ProxyMirror {
    /// A copy of the request without its body; `None`: its method is not mirrored.
    fn copy(&self, exchange: &Exchange<'_>) -> Option<Request> {
        let request = &*exchange.request;
        let method = request.bytes(request.method_text);
        let method = METHODS.iter().find(|known| known.as_bytes() == method)?;
        let mut url = self.config.host.clone().into_bytes();
        let path = request.bytes(request.path);
        match (&self.config.path, self.config.path_concat_mode) {
            (Some(path), Concatenation::Replace) => url.extend_from_slice(path.as_bytes()),
            (Some(before), Concatenation::Prefix) => {
                url.extend_from_slice(before.trim_end_matches('/').as_bytes());
                target::encode_path(path, &mut url);
            }
            (None, _) => target::encode_path(path, &mut url),
        }
        if let Some(query) = request.query {
            url.push(b'?');
            url.extend_from_slice(request.bytes(query));
        }
        let mut copy = Request::new(method, String::from_utf8(url).ok()?).within(TIMEOUT);
        let fields = &request.fields;
        for field in fields.iter() {
            let name = String::from_utf8_lossy(fields.bytes(field.name)).into_owned();
            if !NOT_COPIED.iter().any(|left_out| name.eq_ignore_ascii_case(left_out)) {
                copy = copy.field(name, fields.bytes(field.value));
            }
        }
        // Who is mirrored to sees the host that the client asked for, and need not be who it says it is.
        let copy = copy.field("Host", request.bytes(request.authority));
        Some(copy.over(Connection { verify: false, ..Connection::default() }))
    }
}

impl Sender {
    fn send(&self, copy: Request) {
        if self.on_their_way.fetch_add(1, Ordering::Relaxed) >= COPIES_MAX {
            self.on_their_way.fetch_sub(1, Ordering::Relaxed);
            return self.outbound.lost(KIND.name, 1);
        }
        let (outbound, on_its_way) = (Arc::clone(&self.outbound), Copy(Arc::clone(&self.on_their_way)));
        self.outbound.spawn(Box::pin(async move {
            if let Err(failure) = outbound.send(copy).await {
                outbound.lost(KIND.name, 1);
                outbound.warn(KIND.name, &failure.to_string());
            }
            drop(on_its_way);
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbound::Response;
    use crate::testing::{Trial, refused};

    fn mirrored(config: Value, request: &str) -> Vec<Request> {
        let mut full = json!({"host": "http://mirror.example:8080"});
        full.as_object_mut().unwrap().extend(config.as_object().unwrap().clone());
        let trial = Trial::of("proxy-mirror", full)
            .answering(|_| Ok(Response { status: 500, ..Response::default() }));
        assert_eq!(trial.run(request).answered(), "", "nobody hears of it");
        trial.asked()
    }

    #[test]
    fn a_copy_says_what_the_request_says() {
        let request =
            "POST /a%20b?x=1\nHost: shop.example\nX-Tag: t\nConnection: close\nContent-Length: 5\n\nhello";
        let [copy] = mirrored(json!({}), request).try_into().unwrap();
        assert_eq!((copy.method, copy.url.as_str()), ("POST", "http://mirror.example:8080/a%20b?x=1"));
        assert_eq!(&copy.body[..], b"hello");
        let fields = [("X-Tag".to_owned(), b"t".to_vec()), ("Host".to_owned(), b"shop.example".to_vec())];
        assert_eq!(copy.fields, fields);
    }

    #[test]
    fn the_path_is_replaced_or_prefixed() {
        for (config, expected) in [
            (json!({}), "/a?x=1"),
            (json!({"path": "/m"}), "/m?x=1"),
            (json!({"path": "/m", "path_concat_mode": "prefix"}), "/m/a?x=1"),
            (json!({"path": "/m/", "path_concat_mode": "prefix"}), "/m/a?x=1"),
        ] {
            let [copy] = mirrored(config.clone(), "GET /a?x=1").try_into().unwrap();
            assert_eq!(copy.url, format!("http://mirror.example:8080{expected}"), "{config}");
        }
    }

    #[test]
    fn only_a_share_is_copied() {
        let trial = Trial::of("proxy-mirror", json!({"host": "http://m.example", "sample_ratio": 0.5}));
        (0..200).for_each(|_| drop(trial.run("GET /")));
        let copies = trial.asked().len();
        assert!((60..140).contains(&copies), "{copies}");
        assert_eq!(trial.lost(), copies as u64, "nobody was there, which is counted");
    }

    #[test]
    fn a_body_that_is_too_long_is_not_copied() {
        let long = "x".repeat(BODY_BYTES_MAX + 1);
        assert_eq!(mirrored(json!({}), &format!("POST /\n\n{long}")), []);
        assert_eq!(mirrored(json!({}), "BREW /"), []);
    }

    #[test]
    fn a_request_goes_on_before_its_body_is_there_and_one_that_breaks_off_is_not_copied() {
        let trial = Trial::of("proxy-mirror", json!({"host": "http://m.example"}))
            .answering(|_| Ok(Response { status: 204, ..Response::default() }));
        let mut run = trial.run_streaming("POST /\n\nbody");
        let mut passing = std::mem::take(&mut run.state.body_observers);
        let [observer] = &mut passing[..] else { panic!("one looks at the body") };
        let mut out = Vec::new();
        observer.push(b"one ", &mut out);
        observer.push(b"two", &mut out);
        assert_eq!((out.as_slice(), trial.asked().len()), (&b"one two"[..], 0));
        observer.finish(&mut out);
        assert_eq!(trial.asked()[0].body, &b"one two"[..]);

        drop(passing);
        assert_eq!(trial.lost(), 0);
        drop(trial.run_streaming("POST /\n\nbody"));
        assert_eq!((trial.asked().len(), trial.lost()), (0, 1));
    }

    #[test]
    fn what_is_no_place_for_copies_is_refused() {
        for (config, expected) in [
            (json!({}), "/host"),
            (json!({"host": "mirror.example"}), "/host"),
            (json!({"host": "http://mirror.example/path"}), "/host"),
            (json!({"host": "grpc://mirror.example"}), "/host"),
            (json!({"host": "http://mirror.example", "path": "a"}), "/path"),
            (json!({"host": "http://mirror.example", "sample_ratio": 0}), "/sample_ratio"),
        ] {
            assert_eq!(refused("proxy-mirror", &config), [expected], "{config}");
        }
    }
}
