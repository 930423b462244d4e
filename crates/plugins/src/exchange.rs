//! One request as plugins see it: heads, names, variables, and what they decide; never a socket.
//!
//! What a plugin changes is recorded: on the head of the request, or in [`State`] where it concerns something else
//! (another upstream, fields of the answer to come). The gateway acts on it once the phases are through.
//! A stream is an exchange without a request, see [`Exchange::is_stream`]: an answer only closes it.

use std::any::Any;
use std::borrow::Cow;
use std::future::Future;
use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gatewright_model::expression::{Value, Variable, Variables};
use gatewright_model::message::{self, RequestHead, Span};
use gatewright_model::resource::upstream::Upstream;
use gatewright_model::target;

use crate::consumers::{Consumer, Consumers, Credential};
use crate::response::BodyFilter;
use crate::template;

/// What a phase answers. A synchronous plugin never allocates to say so.
pub enum Flow {
    /// Go on with the next plugin.
    Continue,
    /// Answer the request with this; nothing is forwarded.
    Respond(Box<Answer>),
    /// Read the body of the request, up to so many bytes, and ask the same plugin again.
    ReadBody(usize),
    /// Let so much time pass, then do the other.
    Pause(Duration, Box<Flow>),
    /// Wait for something outside, then go on with what is made of it.
    Wait(Pin<Box<dyn Future<Output = Next>>>),
}

/// What follows a wait.
pub type Next = Box<dyn FnOnce(&mut Exchange<'_>) -> Flow>;

impl Flow {
    /// Answers the request.
    #[must_use]
    pub fn respond(answer: Answer) -> Self {
        Self::Respond(Box::new(answer))
    }

    /// Waits for `waiting`, then goes on as `then` says of what came of it.
    #[must_use]
    pub fn after<T: 'static>(
        waiting: impl Future<Output = T> + 'static,
        then: impl FnOnce(T, &mut Exchange<'_>) -> Self + 'static,
    ) -> Self {
        Self::Wait(Box::pin(async move {
            let came = waiting.await;
            Box::new(move |exchange: &mut Exchange<'_>| then(came, exchange)) as Next
        }))
    }
}

/// An answer that a plugin gives instead of the upstream.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The fields, without those that frame the body; only an answer to `HEAD` may say how long it would be.
    pub fields: Vec<(Cow<'static, str>, Vec<u8>)>,
    /// The body; where it is empty and the status an error, the gateway writes a page that says so.
    pub body: Bytes,
}

impl Answer {
    /// An answer without a body.
    #[must_use]
    pub fn new(status: u16) -> Self {
        Self { status, ..Self::default() }
    }

    /// The answer with one more field.
    #[must_use]
    pub fn field(mut self, name: impl Into<Cow<'static, str>>, value: impl Into<Vec<u8>>) -> Self {
        self.fields.push((name.into(), value.into()));
        self
    }

    /// The answer with this body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// A JSON document on a line of its own; its type is plain text, as clients of these plugins know it.
    #[must_use]
    pub fn json(status: u16, document: &serde_json::Value) -> Self {
        Self::new(status).field("Content-Type", "text/plain; charset=utf-8").body(format!("{document}\n"))
    }

    /// `{"message": …}`.
    #[must_use]
    pub fn message(status: u16, message: &str) -> Self {
        Self::json(status, &serde_json::json!({ "message": message }))
    }

    /// `{"error_msg": …}`.
    #[must_use]
    pub fn error_msg(status: u16, message: &str) -> Self {
        Self::json(status, &serde_json::json!({ "error_msg": message }))
    }
}

/// Who sent the request, and to which address of the gateway.
#[derive(Clone, Copy, Debug)]
pub struct Client {
    /// Where the connection comes from.
    pub peer: SocketAddr,
    /// Where it arrived.
    pub local: SocketAddr,
    /// Whether it is encrypted.
    pub tls: bool,
}

/// The route that matched, and its service.
#[derive(Clone, Copy, Debug, Default)]
#[allow(missing_docs, reason = "the names say it")]
pub struct Matched<'a> {
    pub route_id: &'a str,
    pub route_name: &'a str,
    /// The path of the route by which it was found, as it is written.
    pub path: &'a str,
    /// Bytes of the request's path that stand before it: the prefix of the service.
    pub prefix_length: usize,
    pub service_id: &'a str,
    pub service_name: &'a str,
}

/// A point in time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Now {
    /// Since 1970; may jump.
    pub unix: Duration,
    /// Since some start; never goes back.
    pub uptime: Duration,
}

/// What a plugin cannot know from the request alone.
pub trait Surroundings {
    /// The time.
    fn now(&self) -> Now;

    /// A random number.
    fn random(&self) -> u64;

    /// The time, if the work of plugins is measured; what it took is told to [`Self::worked`].
    fn stopwatch(&self) -> Option<Duration> {
        None
    }

    /// A plugin of this kind worked since then, by [`Self::stopwatch`].
    fn worked(&self, _plugin: &'static str, _since: Duration) {}

    /// Counts this exchange, which is over, among the metrics that plugins ask for.
    fn count(&self, _counted: &Counted<'_>) {}

    /// The value of a variable that neither the head of the request nor a plugin says.
    fn variable<'a>(
        &'a self,
        request: &'a RequestHead,
        body: &'a Body,
        variable: &Variable,
    ) -> Option<Value<'a>>;
}

/// How an exchange is counted.
#[derive(Clone, Copy, Debug)]
pub struct Counted<'c> {
    /// Who called, if that is known.
    pub consumer: Option<&'c str>,
    /// The host that was asked for.
    pub host: &'c [u8],
    /// Whether routes and services are told apart by their names, and not by their ids.
    pub by_name: bool,
    /// Labels that stay empty, by metric.
    pub without: &'c [(Box<str>, Box<str>)],
}

/// The body of a request, as far as plugins have it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Body {
    /// It was not asked for: it streams past.
    #[default]
    Unread,
    /// It was read as a whole.
    Read(Bytes),
    /// It is longer than what was asked for.
    TooLarge,
}

/// Which upstream is asked instead of the service's own.
#[derive(Clone, Debug)]
pub enum UpstreamChoice {
    /// One of the service's further upstreams.
    Id(Arc<str>),
    /// One that is written in a plugin's configuration.
    Inline(Arc<Upstream>),
}

/// What plugins decided and remember of one exchange. Empty, it costs nothing.
#[derive(Default)]
pub struct State {
    /// Who calls, once that is known.
    pub consumer: Option<Arc<Consumer>>,
    /// What it proved that with.
    pub credential: Option<Arc<Credential>>,
    /// The client's address, where it is not the connection's.
    pub client_address: Option<SocketAddr>,
    /// Instead of the service's own upstream.
    pub upstream: Option<UpstreamChoice>,
    /// The `Host` that the upstream gets, instead of what it says itself.
    pub upstream_host: Option<Box<[u8]>>,
    /// The path was replaced: nothing is stripped from it any more.
    pub path_replaced: bool,
    /// The path goes on as the client wrote it.
    pub raw_path: bool,
    /// The body of the request.
    pub body: Body,
    /// What looks at the body of the request on its way to the upstream, without holding it up. They learn of its end
    /// only if it came to it, and are dropped if it never goes anywhere.
    pub body_observers: Vec<Box<dyn BodyFilter>>,
    /// The body that is forwarded instead of the client's.
    pub body_replaced: Option<Bytes>,
    /// The longest body that is let through while it streams.
    pub body_bytes_max: Option<u64>,
    /// The answer of the upstream is read as a whole before plugins see it, trailers included: so many bytes at most.
    pub answer_bytes_max: Option<NonZeroU64>,
    /// How long the upstream may be silent at most, beside what it is allowed anyway.
    pub silence_max: Option<Duration>,
    /// `cors` decided which origins may read the answer.
    pub(crate) origins_decided: bool,
    /// Somebody outside vouched for whoever sends the request, without naming a consumer: what is answered may be for
    /// that one alone.
    pub is_vouched_for: bool,
    /// A plugin wants to see the fields of the response as the upstream sent them, see
    /// [`crate::response::Response::received`].
    pub keeps_received: bool,
    /// Fields for the answer, whoever gives it.
    pub answer_fields: Vec<(Cow<'static, str>, Vec<u8>)>,
    variables: Vec<(Box<str>, Vec<u8>)>,
    notes: Vec<(usize, Box<dyn Any>)>,
    /// Kinds that another plugin ran as its own action: they do not run in their own right any more.
    pub(crate) already_run: Vec<&'static str>,
    /// Whether the filters of instances let them run, asked once each.
    pub(crate) filters: Vec<(usize, bool)>,
    /// The instance that is asked now.
    pub(crate) instance: usize,
}

impl State {
    /// What a plugin made of a variable.
    #[must_use]
    pub fn variable(&self, name: &str) -> Option<&[u8]> {
        let set = self.variables.iter().find(|(known, _)| **known == *name);
        set.map(|(_, value)| value.as_slice())
    }
}

/// One request, and what is known around it.
pub struct Exchange<'e> {
    /// The head of the request.
    pub request: &'e mut RequestHead,
    /// Who sent it.
    pub client: Client,
    /// What it matched.
    pub matched: Matched<'e>,
    /// Who may call.
    pub consumers: &'e Consumers,
    /// Time, chance and further variables.
    pub surroundings: &'e dyn Surroundings,
    /// What was decided so far.
    pub state: &'e mut State,
}

impl Exchange<'_> {
    /// Whether this is a stream, which has addresses and no request: its head is empty.
    #[must_use]
    pub fn is_stream(&self) -> bool {
        self.request.bytes(self.request.method_text).is_empty()
    }

    /// The address of the client.
    #[must_use]
    pub fn client_address(&self) -> SocketAddr {
        self.state.client_address.unwrap_or(self.client.peer)
    }

    /// The first value of a field of the request.
    #[must_use]
    pub fn field<'a>(&'a self, name: &'a str) -> Option<&'a [u8]> {
        self.request.fields.named(name.as_bytes()).next()
    }

    /// The value of a variable as text.
    #[must_use]
    pub fn text(&self, variable: &Variable) -> Option<Vec<u8>> {
        self.get(variable).map(|value| template::text_of(&value).into_owned())
    }

    /// Makes a variable that later plugins and log formats can read.
    pub fn set_variable(&mut self, name: &str, value: Vec<u8>) {
        self.state.variables.retain(|(known, _)| **known != *name);
        self.state.variables.push((name.into(), value));
    }

    /// What this instance noted earlier in the same exchange.
    #[must_use]
    pub fn note<T: Any>(&self) -> Option<&T> {
        let own = |(instance, _): &&(usize, Box<dyn Any>)| *instance == self.state.instance;
        self.state.notes.iter().filter(own).find_map(|(_, note)| note.downcast_ref())
    }

    /// Notes something for a later phase of this instance. It is dropped with the exchange, whatever ends it.
    pub fn set_note<T: Any>(&mut self, note: T) {
        self.state.notes.push((self.state.instance, Box::new(note)));
    }

    /// Adds a field to the answer, whoever gives it.
    pub fn answer_field(&mut self, name: impl Into<Cow<'static, str>>, value: impl Into<Vec<u8>>) {
        self.state.answer_fields.push((name.into(), value.into()));
    }

    /// Forwards another path: decoded, as it would be matched.
    pub fn set_path(&mut self, path: &[u8]) {
        let mut encoded = Vec::with_capacity(path.len());
        target::encode_path(path, &mut encoded);
        self.request.path_is_plain = encoded == path;
        self.request.path = self.request.fields.intern(path);
        self.request.raw_path = Span::default();
        self.state.path_replaced = true;
    }

    /// Forwards another query, without `?`; `None`: none.
    pub fn set_query(&mut self, query: Option<&[u8]>) {
        self.request.query = query.map(|query| self.request.fields.intern(query));
    }

    /// Forwards another method.
    pub fn set_method(&mut self, method: &str) {
        self.request.method_before = Some(self.request.client_method());
        self.request.method = message::Method::of(method.as_bytes());
        self.request.method_text = self.request.fields.intern(method.as_bytes());
    }

    /// Identifies the caller, and tells the upstream.
    pub fn identify(&mut self, consumer: Arc<Consumer>, credential: Option<Arc<Credential>>) {
        let fields = &mut self.request.fields;
        let identifier = credential.as_ref().and_then(|credential| credential.id.as_deref());
        for (name, value) in [
            ("X-Consumer-Username", Some(&*consumer.name)),
            ("X-Credential-Identifier", identifier),
            ("X-Consumer-Custom-ID", consumer.custom_id.as_deref()),
        ] {
            fields.remove(name.as_bytes());
            if let Some(value) = value {
                fields.append(name, value.as_bytes());
            }
        }
        self.state.consumer = Some(consumer);
        self.state.credential = credential;
    }
}

impl Variables for Exchange<'_> {
    fn get<'a>(&'a self, variable: &Variable) -> Option<Value<'a>> {
        let owned = |text: String| Value::Text(Cow::Owned(text.into_bytes()));
        let known = |text: &'a str| (!text.is_empty()).then(|| Value::text(text.as_bytes()));
        match variable {
            Variable::RemoteAddr => Some(owned(self.client_address().ip().to_canonical().to_string())),
            Variable::RemotePort => Some(owned(self.client_address().port().to_string())),
            Variable::ServerAddr => Some(owned(self.client.local.ip().to_canonical().to_string())),
            Variable::ServerPort => Some(owned(self.client.local.port().to_string())),
            Variable::Scheme if !self.is_stream() => {
                Some(Value::text(if self.client.tls { b"https" } else { b"http" }))
            }
            Variable::ConsumerName => {
                self.state.consumer.as_ref().map(|consumer| Value::text(consumer.name.as_bytes()))
            }
            Variable::RouteId => known(self.matched.route_id),
            Variable::RouteName => known(self.matched.route_name),
            Variable::ServiceId => known(self.matched.service_id),
            Variable::ServiceName => known(self.matched.service_name),
            Variable::Other(name) => {
                let set = self.state.variable(name).map(Value::text);
                set.or_else(|| self.outside(variable))
            }
            _ if self.is_stream() => self.outside(variable),
            _ => message::variable(self.request, variable).or_else(|| self.outside(variable)),
        }
    }
}

impl Exchange<'_> {
    fn outside<'a>(&'a self, variable: &Variable) -> Option<Value<'a>> {
        self.surroundings.variable(self.request, &self.state.body, variable)
    }
}
